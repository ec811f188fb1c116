"""Boards: what is written on them, how large, and where the ink of each word is, in a flat frame."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from data.synthesis.fonts import draw_font, find_fonts, open_font
from data.synthesis.settings import KINDS, STYLES, Material, image_unit
from data.synthesis.words import draw_line, vocabulary


@dataclass
class Glyphs:
    """The ink of one word: masks (h, w) 0..1 of the letters and of the letters with outline, and their place."""

    text: str
    face: np.ndarray
    ink: np.ndarray
    x: int  # of the masks' left edge in the frame of the board
    y: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 of the ink's edges in the frame of the board."""
        height, width = self.ink.shape
        return self.x, self.y, self.x + width, self.y + height


@dataclass
class Board:
    """Text set in a flat frame, to be coloured and warped: premultiplied BGR (h, w, 3) 0..255, opacity (h, w) 0..1."""

    width: int
    height: int
    words: list[Glyphs]
    colour: np.ndarray = field(init=False)
    opacity: np.ndarray = field(init=False)

    def __post_init__(self):
        self.colour = np.zeros((self.height, self.width, 3), np.float32)
        self.opacity = np.zeros((self.height, self.width), np.float32)

    def paint(self, mask: np.ndarray, colour: np.ndarray, x: int = 0, y: int = 0) -> None:
        """Lay `colour` ((3,) or (h, w, 3)) over the board through `mask` (h, w) 0..1, whose top left is (x, y)."""
        x1, y1 = max(x, 0), max(y, 0)
        x2, y2 = min(x + mask.shape[1], self.width), min(y + mask.shape[0], self.height)
        if x1 >= x2 or y1 >= y2:
            return
        mask = mask[y1 - y : y2 - y, x1 - x : x2 - x]
        area = np.s_[y1:y2, x1:x2]
        self.colour[area] += (colour - self.colour[area]) * mask[..., None]
        self.opacity[area] += (1 - self.opacity[area]) * mask

    def ink(self) -> np.ndarray:
        """(h, w) 0..1: where the letters' faces are."""
        result = np.zeros((self.height, self.width), np.float32)
        for word in self.words:
            area = np.s_[word.y : word.y + word.face.shape[0], word.x : word.x + word.face.shape[1]]
            np.maximum(result[area], word.face, out=result[area])
        return result


def draw_glyphs(text: str, path: str, size: int, outline: int = 0, tracking: int = 0) -> Glyphs:
    """Draw a word; its x and y are relative to the pen's start on the baseline. tracking: pixels between letters."""
    font = open_font(path, size)
    left, top, right, bottom = font.getbbox(text, anchor='ls', stroke_width=outline)
    margin = outline + 2
    canvas = (int(right - left) + tracking * len(text) + 2 * margin, int(bottom - top) + 2 * margin)
    origin = np.array([margin - left, margin - top])

    def mask(stroke: int) -> np.ndarray:
        image = Image.new('L', canvas)
        pen, draw = origin.astype(float), ImageDraw.Draw(image)
        for part in text if tracking else [text]:
            draw.text(tuple(pen), part, fill=255, font=font, anchor='ls', stroke_width=stroke)
            pen[0] += font.getlength(part) + tracking
        return np.asarray(image, np.float32) / 255

    face = mask(0)
    ink = mask(outline) if outline else face
    visible = ink >= 0.2 * ink.max()  # hairlines of small letters are faint
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    area = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Glyphs(text, face[area], ink[area], int(columns[0] - origin[0]), int(rows[0] - origin[1]))


def typeset(
    rng: np.random.Generator, lines: list[list[str]], sizes: list[int], pad: int, families: dict[str, list[str]]
) -> Board:
    """Set lines of words in one font, no ink over another word's.

    Args:
        lines: words, line by line.
        sizes: font size of each line in pixels.
        pad: free pixels around the text.
        families: fonts to choose from.
    """
    path = draw_font(rng, ''.join(map(''.join, lines)), families)
    outlined = rng.random() < 0.12
    tracked = rng.random() < 0.12
    space, leading = rng.uniform(0.25, 0.5), rng.uniform(0.15, 0.6)
    rows, top = [], 0
    for line, size in zip(lines, sizes, strict=True):
        outline = max(1, round(size * 0.05)) if outlined else 0
        tracking = round(size * 0.12) if tracked else 0
        row = [draw_glyphs(word, path, size, outline, tracking) for word in line]
        baseline, x = top - min(word.y for word in row), 0
        for word in row:
            word.x, word.y = x, word.y + baseline
            x = word.box[2] + max(3, round(size * space)) + 2 * outline
        top = max(word.box[3] for word in row) + max(2, round(size * leading))
        rows.append(row)

    width = max(row[-1].box[2] for row in rows)
    shift = 0.0 if rng.random() < 0.45 else 0.5  # left or centred
    for row in rows:
        free = width - row[-1].box[2]
        for word in row:
            word.x, word.y = word.x + pad + round(free * shift), word.y + pad
    words = [word for row in rows for word in row]
    return Board(width + 2 * pad, max(word.box[3] for word in words) + pad, words)


def draw_board(rng: np.random.Generator, size: tuple[int, int], material: Material) -> tuple[Board, bool]:
    """Draw what is written and how large; returns the board, still without colour, and whether it is a panel.

    size: the picture's width and height, which set the letters' size.
    """
    style, words = STYLES[material.style], vocabulary(material.words)
    unit = max(image_unit(size), style.min_unit)
    median, spread, low, high = style.letters
    letters = unit * float(np.clip(rng.lognormal(np.log(median), spread), low, high))
    case = str(rng.choice(['upper', 'title', 'lower'], p=[0.45, 0.42, 0.13]))
    kind = str(rng.choice(KINDS, p=style.kinds))
    lines, letters = draw_lines(rng, kind, case, letters, words)
    sizes = [max(round(low * unit), 6, round(letters * rng.choice([1.0, 1.0, 0.8]))) for _ in lines]
    if kind in ('sign', 'notice') and rng.random() < 0.5:
        sizes[0] = round(sizes[0] * rng.uniform(1.2, 1.9))  # a heading
    panel = kind in ('sign', 'notice') or rng.random() < 0.55
    pad = round(letters * rng.uniform(0.25, 0.9)) if panel else round(letters * 0.3)
    return typeset(rng, lines, sizes, max(pad, 4), find_fonts(material.fonts)), panel


def draw_lines(
    rng: np.random.Generator, kind: str, case: str, letters: float, words: list[str]
) -> tuple[list[list[str]], float]:
    """The words of one of KINDS line by line, and the size of its letters, from their usual size in pixels."""

    def line(low: int, high: int) -> list[str]:
        return draw_line(rng, int(rng.integers(low, high + 1)), case, words)

    if kind == 'word':
        return [line(1, 1)], letters * rng.uniform(1, 1.5)
    if kind == 'line':
        return [line(2, 3)], letters
    if kind == 'sign':
        return [line(1, 2) for _ in range(rng.integers(2, 4))], letters
    if kind == 'notice':
        return [line(1, 3) for _ in range(rng.integers(3, 6))], letters * 0.75
    return [line(2, 5) for _ in range(rng.integers(3, 8))], letters * 0.6
