"""Which words of a finished picture can be read, and which are don't-care."""

from typing import NamedTuple

import numpy as np

from data.synthesis.geometry import box_corners, project, quad_height, quad_mask, visible_quad
from data.synthesis.placement import Placed
from data.synthesis.settings import STYLES, Style, image_unit

MIN_CONTRAST = 28.0  # levels of 255 between a legible word's ink and its surroundings, in the strongest channel
MAX_BLUR = 0.11  # sigma of the blur, as a share of the word's height, up to which it is legible
MAX_HIDDEN = 0.25  # of a word's area that may be hidden while it is legible


class Word(NamedTuple):
    """One word of a finished picture: quad (4, 2) int, pixels clockwise from its top left; text; legible or '###'."""

    quad: np.ndarray
    text: str
    legible: bool


def min_legible_height(size: tuple[int, int], style: Style = STYLES['signs']) -> float:
    """Pixels below which a word counts as unreadable: for signs 14 at 1280x720, never less than 10."""
    return max(style.legible[1], style.legible[0] * image_unit(size))


def contrast(image: np.ndarray, ink: np.ndarray, quad: np.ndarray) -> float:
    """Levels between a word's letters and what is around them, in the strongest channel.

    Args:
        image: (height, width, 3) float32.
        ink: (height, width) 0..1, where letters are.
        quad: (4, 2) pixels.
    """
    area, inside = quad_mask(quad)
    shape, mask = image[area], ink[area]
    letters = mask**2 * inside
    around = (1 - mask) ** 2 * inside
    if min(letters.sum(), around.sum()) < 1:
        return 0.0
    means = [(shape * weight[..., None]).sum((0, 1)) / weight.sum() for weight in (letters, around)]
    return float(np.abs(means[0] - means[1]).max())


def hidden_fraction(hidden: np.ndarray, quad: np.ndarray) -> float:
    """The share of a quad (4, 2) that is not 0 in `hidden` (height, width)."""
    area, inside = quad_mask(quad)
    return float((inside * (hidden[area] > 0)).sum() / max(inside.sum(), 1))


def finished_words(
    placed: Placed,
    image: np.ndarray,
    ink: np.ndarray,
    blur: float,
    hidden: np.ndarray | None = None,
    style: Style = STYLES['signs'],
) -> list[Word]:
    """The words of a board as they came out in the finished picture (height, width, 3).

    blur: the lens's sigma; hidden: (height, width) uint8, not 0 where something stands before the text.
    """
    size = image.shape[1::-1]
    words = []
    for glyphs in placed.board.words:
        quad = project(placed.homography, box_corners(*glyphs.box))
        if (quad < 0).any() or (quad > np.array(size) - 1).any():
            if (cut := visible_quad(quad, size)) is not None:
                words.append(Word(np.round(cut).astype(int), glyphs.text, False))
            continue
        tall = quad_height(quad)
        legible = (
            tall >= min_legible_height(size, style)
            and np.hypot(blur, placed.blur) <= MAX_BLUR * tall
            and contrast(image, ink, quad) >= MIN_CONTRAST
            and (hidden is None or hidden_fraction(hidden, quad) <= MAX_HIDDEN)
        )
        words.append(Word(np.round(quad).astype(int), glyphs.text, legible))
    return words
