"""What is written: words of data/words.txt and of dictionaries, numbers, prices, times and the like."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from models.errors import UserError


@lru_cache(4)
def vocabulary(files: tuple[str, ...] = ()) -> list[str]:
    """The English words that signs use most; or those of dictionaries, of which the former are still a third."""
    common = (Path(__file__).parents[1] / 'words.txt').read_text(encoding='utf-8').split()
    words = []
    for file in files:
        try:
            content = Path(file).read_text(encoding='utf-8')
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f'{file}: cannot be read as text ({error})') from None
        usable = [word for word in content.split() if word.isascii() and word.isalpha() and 2 <= len(word) <= 14]
        if not usable:
            raise UserError(f'{file}: no word of 2 to 14 letters a to z in it')
        words += usable
    return common * max(1, len(words) // (2 * len(common))) + words


def draw_digits(rng: np.random.Generator, count: int) -> str:
    """`count` random digits, the first not 0."""
    return str(rng.integers(10 ** (count - 1), 10**count))


def draw_code(rng: np.random.Generator, words: list[str]) -> str:
    """A number, price, time, percentage, room, date or address as signs show them."""
    digits = draw_digits(rng, int(rng.integers(1, 4)))
    pair = f'{rng.integers(60):02d}'
    return str(
        rng.choice(
            [
                digits,
                draw_digits(rng, 4),
                f'{rng.choice(list("$£€"))}{digits}.{rng.choice(["99", "50", "00", "95"])}',
                f'{rng.choice(list("$£"))}{digits}',
                f'{digits},{draw_digits(rng, 3)}',
                f'{rng.integers(24)}:{pair}',
                f'{rng.integers(5, 95)}%',
                f'{chr(65 + rng.integers(26))}{digits}',
                f'{rng.integers(1, 29)}/{rng.integers(1, 13)}',
                f'#{rng.integers(1, 9):02d}-{pair}',
                f'www.{words[rng.integers(len(words))]}.com',
                f'{rng.integers(1, 12)}{rng.choice(["am", "pm"])}',
                f'{chr(65 + rng.integers(26))}{chr(65 + rng.integers(26))}{draw_digits(rng, 4)}',
            ]
        )
    )


def draw_line(rng: np.random.Generator, count: int, case: str, vocabulary: list[str]) -> list[str]:
    """About `count` words for one line, in the case of their sign: 'upper', 'title' or 'lower'."""
    if rng.random() < 0.06:
        return ['Tel:'] * int(rng.random() < 0.5) + [draw_digits(rng, 4), draw_digits(rng, 4)]
    words = []
    for _ in range(count):
        word = draw_code(rng, vocabulary) if rng.random() < 0.18 else vocabulary[rng.integers(len(vocabulary))]
        if not word.startswith('www.'):
            word = {'upper': word.upper(), 'title': word[0].upper() + word[1:], 'lower': word}[case]
        words.append(word)
    if rng.random() < 0.08:
        words[-1] += str(rng.choice(list('!.:,')))
    return words
