"""Words of pictures with what they say: TextReader."""

from dataclasses import replace
from typing import Any, overload

import numpy as np

from ocrdistill.detector import TextDetector, Word
from ocrdistill.errors import UserError
from ocrdistill.inputs import ImageLike
from ocrdistill.reading.recognisers import UPRIGHT, make_recogniser
from ocrdistill.reading_order import reading_order
from ocrdistill.rows import levelled_boxes

SAME = 0.05  # by which scores of one text, read twice in the same turn, may differ


class TextReader:
    """Finds the words of images and reads them. May be called from several threads at once.

    Args:
        recogniser: 'rapidocr' or 'tesseract'; or any callable that takes a list of crops (h, w, 3) uint8 RGB and
            returns (text, score 0..1) of each.
        language: of tesseract, such as 'eng' or 'deu+fra'; rapidocr has one network for all of its languages.
        detector: options of TextDetector. With `rotate` every word is read upside down, too, one that is high and
            narrow in both quarter turns, and the surest text tells where it begins.

    Raises:
        UserError: a value that is none of these, or what the recogniser needs is not installed; in a call: what a
            recogniser of your own returns is something else.
    """

    def __init__(self, recogniser: Any = 'rapidocr', *, language: str | None = None, **detector: Any):
        self.detector = TextDetector(**detector)
        self.both_ways = bool(detector.get('rotate'))
        threads = detector.get('threads')
        if callable(recogniser) and language is not None:
            raise UserError(f'language {language!r} is for tesseract; a recogniser of your own knows its own')
        self.recognise = recogniser if callable(recogniser) else make_recogniser(recogniser, language, threads)

    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...], *, name: str = '') -> list[list[Word]]: ...
    @overload
    def __call__(self, images: ImageLike, *, name: str = '') -> list[Word]: ...
    def __call__(self, images: Any, *, name: str = '') -> Any:
        """The words of an image, or of each of a list of them, in reading order, with `text` and `text_score`.

        Args:
            images, name: what TextDetector takes.

        Returns:
            A list of Word; of a list a list of such lists. The text of a word that cannot be read is ''.

        Raises:
            UserError: it is no image.
        """
        if isinstance(images, (list, tuple)):
            return [self(image, name=name) for image in images]
        return self.read(self.detector(images, name=name))

    def read(self, words: list[Word]) -> list[Word]:
        """Words that were found, read."""
        crops = [word.crop() for word in words]
        turns = [self._turns(crop) for crop in crops]
        views = [np.rot90(crop, turn) for crop, all_of_it in zip(crops, turns, strict=True) for turn in all_of_it]
        texts = iter(self._read([np.ascontiguousarray(view) for view in views]))
        found = [
            _surest(word, [(turn, *next(texts)) for turn in all_of_it])
            for word, all_of_it in zip(words, turns, strict=True)
        ]
        if not self.both_ways:
            return found
        lines = reading_order(levelled_boxes(np.array([word.quad for word in found]).reshape(-1, 4, 2)))
        return [replace(found[word], line=number) for number, line in enumerate(lines) for word in line]

    def _turns(self, crop: np.ndarray) -> tuple[int, ...]:
        """Quarter turns, anticlockwise, in which a crop is read."""
        if not self.both_ways:
            return (0,)
        return (1, 3, 0, 2) if crop.shape[0] >= UPRIGHT * crop.shape[1] else (0, 2)

    def _read(self, crops: list[np.ndarray]) -> list[tuple[str, float]]:
        """Text and score of each crop. Raises UserError: the recogniser returns something else."""
        texts = self.recognise(crops) if crops else []
        try:
            texts = list(texts)
            pairs = [(text, float(score)) for text, score in texts]
            good = len(pairs) == len(crops) and all(isinstance(text, str) and -0.001 < s < 1.001 for text, s in pairs)
        except (TypeError, ValueError):
            good = False
        if not good:
            what = f'(text, score 0..1) of each of {len(crops)} crops'
            raise UserError(f'the recogniser must return {what}, not {repr(texts):.200}')
        return [(text.strip(), min(max(score, 0.0), 1.0)) for text, score in pairs]  # a sum of float32 may be 1.0000001


def _surest(word: Word, texts: list[tuple[int, str, float]]) -> Word:
    """The word with the surest of (turn, text, score), its first corner where reading begins. Recognisers turn high and
    narrow crops by themselves, too, and may then be a little surer: so the first turn that has a text counts."""
    best = max(texts, key=lambda one: one[2])
    turn, text, score = next(one for one in texts if one[1] == best[1] and one[2] > best[2] - SAME)
    return replace(word, quad=np.roll(word.quad, -turn, 0), text=text, text_score=round(score, 5))
