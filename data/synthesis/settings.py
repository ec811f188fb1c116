"""What pictures can be asked for: splits, styles of text, and the material they are made of."""

from typing import NamedTuple

SPLITS = {'train': 'train_icdar', 'test': 'test_icdar'}  # names of their folders


class Style(NamedTuple):
    """How text is laid out. Letter sizes are font sizes in pixels of a picture of 1280x720.

    Attributes:
        min_unit: smaller pictures than this share of 1280x720 get relatively larger letters.
        letters: median, spread (of the logarithm), minimum and maximum.
        legible: minimum height of a legible word, in pixels of 1280x720, and its floor in pixels of any picture.
        kinds: probabilities of word, line, sign, notice, paragraph.
        boards: minimum and maximum number a picture.
        roll: spread of their usual roll, degrees.
        faint: probability of hardly visible letters.
        hidden: probability that something stands before the text.
        photograph: probability of a photograph as background, where there are any.
    """

    min_unit: float
    letters: tuple[float, float, float, float]
    legible: tuple[float, float]
    kinds: tuple[float, ...]
    boards: tuple[int, int]
    roll: float
    faint: float
    hidden: float
    photograph: float


KINDS = ('word', 'line', 'sign', 'notice', 'paragraph')
STYLES = {
    'signs': Style(0.7, (29, 0.5, 16, 150), (14, 10), (0.3, 0.25, 0.33, 0.12, 0), (2, 5), 4, 0.05, 0, 0.75),
    'incidental': Style(0, (31, 0.68, 9, 200), (11, 5.5), (0.3, 0.22, 0.26, 0.12, 0.1), (2, 8), 7, 0.09, 0.15, 0.8),
}


class Material(NamedTuple):
    """What pictures are made of. Nothing given: the packages' fonts, data/words.txt, and drawn surfaces."""

    style: str = 'signs'
    fonts: tuple[str, ...] = ()  # folders
    words: tuple[str, ...] = ()  # files, a word a line
    backgrounds: tuple[str, ...] = ()  # folders of photographs


PLAIN = Material()


def image_unit(size: tuple[int, int]) -> float:
    """A picture's size (width, height) as a share of 1280x720."""
    return min(size[0] / 1280, size[1] / 720)
