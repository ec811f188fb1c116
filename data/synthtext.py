"""Render pictures of scene text with exact quads: the demo data set, and sample data in ICDAR2015's layout.

    python data/synthtext.py                                          # the demo: 400 + 100 pictures of 640x360
    python data/synthtext.py --size 1280x720 --train 1000 --test 500 --out synth720
    python data/synthtext.py --style incidental --fonts /usr/share/fonts --words /usr/share/dict/words \\
        --backgrounds ICDAR2015/images/train_icdar /usr/share/backgrounds --compare ICDAR2015 --train 20000 --out synth

Words of data/words.txt, numbers, prices and phone numbers stand on sign boards or straight on walls, planks, bricks,
fronts and a photograph. Boards are turned in space and projected; light, shadows, blur, noise and JPEG follow, so
that word sizes and angles resemble ICDAR2015's incidental text. A word's quad is the tight extent of its ink (outline
included, shadow not) in the frame of its board, mapped by the homography that warps the board. Words that end up too
small, too blurred or too faint to read, or that the picture's border cuts, are don't-care ('###').

    OUT/images/{train_icdar,test_icdar}/img_N.jpg
    OUT/labels/, OUT/ignore/   img_N.txt     0 x1 y1 ... x4 y4 (0..1): legible words; don't-care regions
    OUT/gt/                    gt_img_N.txt  x1,y1,...,x4,y4,word: whole pixels, clockwise from the word's top left
    OUT/train.txt, OUT/val.txt               training pictures with N % 10 != 0, and with N % 10 == 0

Sizes follow the picture's: at 1280x720 legible words are 14 pixels high or more (median about 25), at 640x360 10 or
more (median about 16). Picture N is a pure function of (seed, split, N, size) and the installed fonts, which are
matplotlib's and those of the font packages in requirements.txt, as far as they are there.

`--style incidental` is for pre-training: smaller letters, paragraphs, faint, half hidden and more words, in ICDAR2015's
sizes (`--compare` prints both distributions side by side). `--fonts`, `--words` and `--backgrounds` add folders of
fonts, dictionaries (a word a line) and photographs. New text stays away from the text that a photograph's labels/ and
ignore/ files name; that text is don't-care. A picture then depends on these files too.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.backgrounds import draw_photograph, find_photographs
from models.errors import UserError
from utils.cli import run_command
from utils.labels import read_labels

SPLITS = {'train': 'train_icdar', 'test': 'test_icdar'}
MANIFEST = 'synthtext.json'
VERSION = 2  # raise it when the same options give other pictures
TREES = ('images', 'labels', 'ignore', 'gt')

FONT_PACKAGES = (
    'matplotlib',
    'font-roboto',
    'font-lato',
    'font-fjallaone',
    'font-fredoka-one',
    'font-amatic-sc',
    'font-caladea',
    'font-intuitive',
)
# Symbols, a fallback of boxes, and hairlines that vanish at the sizes of scene text.
NO_TEXT_FONTS = ('cmex', 'cmmi', 'cmsy', 'STIXNonUni', 'STIXSiz', 'LastResort', 'Display', 'Thin')

FONT_SUFFIXES = ('.ttf', '.otf')
# What is in an installed folder of fonts, and would draw no Latin letters.
NO_LATIN_FONTS = (
    'Symbol',
    'Dingbat',
    'Emoji',
    'Icon',
    'Bullets',
    'Ornament',
    'Math',
    'Awesome',
    'D050000L',
    'Initials',
)
TEXT_SAMPLE = 'AaEeRtg0159'  # a font that lacks one of these is no text font

MIN_CONTRAST = 28.0  # levels of 255 between a legible word's ink and its surroundings, in the strongest channel
MAX_BLUR = 0.11  # sigma of the blur, as a share of the word's height, up to which it is legible
MARGIN = 16  # pixels around a warped board, into which its blur and shadow reach
MAX_HIDDEN = 0.25  # of a word's area that may be hidden while it is legible
BORDER = 3  # pixels between a board and the picture's border


class Word(NamedTuple):
    """One word of a finished picture: quad (4, 2) int, pixels clockwise from its top left; text; legible or '###'."""

    quad: np.ndarray
    text: str
    legible: bool


class Style(NamedTuple):
    """How text is laid out. Letter sizes are font sizes in pixels of a picture of 1280x720.

    Attributes:
        least_unit: smaller pictures than this share of 1280x720 get relatively larger letters.
        letters: median, spread (of the logarithm), least and greatest.
        legible: least height of a legible word, in pixels of 1280x720, and its floor in pixels of any picture.
        kinds: probabilities of word, line, sign, notice, paragraph.
        boards: least and greatest number a picture.
        roll: spread of their usual roll, degrees.
        faint: probability of hardly visible letters.
        hidden: probability that something stands before the text.
        photograph: probability of a photograph as background, where there are any.
    """

    least_unit: float
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


class Job(NamedTuple):
    """One picture to render and where to."""

    out: str
    seed: int
    split: str
    number: int
    size: tuple[int, int]  # width, height
    material: Material


# ------------------------------------------------------------------------------------------------------------ words


@lru_cache(4)
def vocabulary(files: tuple[str, ...] = ()) -> list[str]:
    """The English words that signs use most; or those of dictionaries, of which the former are still a third."""
    common = (Path(__file__).parent / 'words.txt').read_text(encoding='utf-8').split()
    words = []
    for file in files:
        try:
            content = Path(file).read_text(encoding='utf-8')
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f'{file}: cannot be read as text ({error})') from None
        words += [word for word in content.split() if word.isascii() and word.isalpha() and 2 <= len(word) <= 14]
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


# ------------------------------------------------------------------------------------------------------------ fonts


@lru_cache(4)
def find_fonts(folders: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Text fonts of the installed font packages and of folders: {family: paths}, in the order of their names."""
    files = []
    for package in FONT_PACKAGES:
        try:
            shipped = metadata.distribution(package).files or []
        except metadata.PackageNotFoundError:
            continue
        files += [Path(str(file.locate())) for file in sorted(shipped, key=lambda file: file.name)]
    files = [file for file in files if not any(part in file.name for part in NO_TEXT_FONTS)]
    for folder in folders:
        if not Path(folder).is_dir():
            raise UserError(f'--fonts: no folder {folder}')
        found = sorted(Path(folder).rglob('*'), key=lambda file: file.name)
        names = NO_TEXT_FONTS + NO_LATIN_FONTS
        files += [file for file in found if is_text_font(file) and not any(part in file.name for part in names)]
    families = {}
    for file in files:
        if file.suffix.lower() in FONT_SUFFIXES:
            family = file.stem.split('-')[0]
            family = 'STIX' if family.startswith('STIX') else family
            families.setdefault(family, []).append(str(file))
    if not families:
        raise UserError('no fonts: matplotlib, or a font package of requirements.txt, must be installed')
    return families


def is_text_font(file: Path) -> bool:
    """Whether a file is a font that has Latin letters and digits."""
    if file.suffix.lower() not in FONT_SUFFIXES:
        return False
    try:
        return all(has_glyph(str(file), character) for character in TEXT_SAMPLE)
    except OSError:
        return False


@lru_cache(512)
def open_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    """A font at a size in pixels; basic layout, so that pictures do not depend on whether libraqm is there."""
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(1 << 16)
def has_glyph(path: str, character: str) -> bool:
    """Whether a font draws a character, and as something other than its 'missing' box."""
    font = open_font(path, 24)
    mask = bytes(font.getmask(character))
    return any(mask) and mask != bytes(font.getmask('\U0010fffd'))


def draw_font(rng: np.random.Generator, text: str, families: dict[str, list[str]]) -> str:
    """Path of a random font, families evenly, that has all characters of `text`."""
    names = list(families)
    for _ in range(20):
        styles = families[names[rng.integers(len(names))]]
        path = styles[rng.integers(len(styles))]
        if all(has_glyph(path, character) for character in set(text) - {' '}):
            return path
    return path  # a box for a missing glyph is text all the same


# ----------------------------------------------------------------------------------------------------------- boards


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
    unit = max(picture_unit(size), style.least_unit)
    median, spread, least, greatest = style.letters
    letters = unit * float(np.clip(rng.lognormal(np.log(median), spread), least, greatest))
    case = str(rng.choice(['upper', 'title', 'lower'], p=[0.45, 0.42, 0.13]))
    kind = str(rng.choice(KINDS, p=style.kinds))
    lines, letters = draw_lines(rng, kind, case, letters, words)
    sizes = [max(round(least * unit), 6, round(letters * rng.choice([1.0, 1.0, 0.8]))) for _ in lines]
    if kind in ('sign', 'notice') and rng.random() < 0.5:
        sizes[0] = round(sizes[0] * rng.uniform(1.2, 1.9))  # a heading
    panel = kind in ('sign', 'notice') or rng.random() < 0.55
    pad = round(letters * rng.uniform(0.25, 0.9)) if panel else round(letters * 0.3)
    return typeset(rng, lines, sizes, max(pad, 4), find_fonts(material.fonts)), panel


def draw_lines(
    rng: np.random.Generator, kind: str, case: str, letters: float, words: list[str]
) -> tuple[list[list[str]], float]:
    """The words of one of KINDS line by line, and the size of its letters, from their usual size in pixels."""

    def line(least: int, greatest: int) -> list[str]:
        return draw_line(rng, int(rng.integers(least, greatest + 1)), case, words)

    if kind == 'word':
        return [line(1, 1)], letters * rng.uniform(1, 1.5)
    if kind == 'line':
        return [line(2, 3)], letters
    if kind == 'sign':
        return [line(1, 2) for _ in range(rng.integers(2, 4))], letters
    if kind == 'notice':
        return [line(1, 3) for _ in range(rng.integers(3, 6))], letters * 0.75
    return [line(2, 5) for _ in range(rng.integers(3, 8))], letters * 0.6


def picture_unit(size: tuple[int, int]) -> float:
    """A picture's size (width, height) as a share of 1280x720."""
    return min(size[0] / 1280, size[1] / 720)


# ---------------------------------------------------------------------------------------------------------- colours


def luminance(colour: np.ndarray) -> float:
    """Brightness 0..255 of a BGR colour (3,)."""
    return float(np.dot(colour, (0.114, 0.587, 0.299)))


def draw_colour(rng: np.random.Generator, vivid: float = 0.5) -> np.ndarray:
    """A random BGR colour (3,) float32 0..255; vivid: the chance that it is a strong one."""
    if rng.random() < vivid:
        hue, saturation, value = rng.integers(180), rng.integers(110, 225), rng.integers(90, 250)
    else:
        hue, saturation, value = rng.integers(180), rng.integers(0, 60), 255 * rng.uniform(0.02, 1) ** 0.6
    pixel = np.array([[[hue, saturation, value]]], np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)


def draw_ink_colour(rng: np.random.Generator, ground: np.ndarray, faint: float = 0.05) -> np.ndarray:
    """A colour for letters on `ground` (3,): mostly strong contrast, as signs have; `faint`: chance of hardly any."""
    if rng.random() < faint:
        return np.clip(ground + rng.choice([-1, 1]) * rng.uniform(8, 22), 0, 255).astype(np.float32)
    least = rng.choice([60, 90, 120])
    for _ in range(20):
        white = np.full(3, rng.uniform(225, 255), np.float32)
        black = np.full(3, rng.uniform(0, 40), np.float32)
        colour = [white, black, draw_colour(rng, 0.85)][rng.choice(3, p=[0.35, 0.25, 0.4])]
        if abs(luminance(colour) - luminance(ground)) > least:
            return colour
    return np.full(3, 245.0 if luminance(ground) < 128 else 15.0, np.float32)


def paint_panel(rng: np.random.Generator, board: Board) -> np.ndarray:
    """Paint the board's surface: colour, gradient, dirt, rounded corners, a rim or a stripe. Returns the colour."""
    height, width = board.height, board.width
    colour = draw_colour(rng, 0.55)
    corner = int(rng.choice([0, 0, 0.08, 0.2]) * min(height, width))
    mask = np.zeros((height, width), np.uint8)
    cv2.rectangle(mask, (corner, 0), (width - 1 - corner, height - 1), 255, -1)
    cv2.rectangle(mask, (0, corner), (width - 1, height - 1 - corner), 255, -1)
    for x in (corner, width - 1 - corner):
        for y in (corner, height - 1 - corner):
            cv2.circle(mask, (x, y), corner, 255, -1, cv2.LINE_AA)
    slope = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * rng.normal(0, 0.06)
    dirt = fractal_noise(rng, height, width, max(width // 3, 8), 3) * rng.choice([0.0, 0.02, 0.05])
    surface = np.clip(colour * (1 + slope + dirt)[..., None], 0, 255)
    board.paint(mask.astype(np.float32) / 255, surface)

    style = rng.random()
    if style < 0.35:  # a rim
        inset, thick = int(rng.integers(0, 3)), max(1, min(height, width) // 40)
        rim = np.zeros_like(mask)
        cv2.rectangle(rim, (inset, inset), (width - 1 - inset, height - 1 - inset), 255, thick)
        board.paint(rim.astype(np.float32) / 255 * board.opacity, draw_ink_colour(rng, colour))
    elif style < 0.5:  # a stripe in the padding below the text
        free = height - max(word.box[3] for word in board.words)
        if free > 6:
            board.paint(
                board.opacity[-free // 3 :], draw_colour(rng, 0.9), 0, height - board.opacity[-free // 3 :].shape[0]
            )
    return colour


def paint_words(rng: np.random.Generator, board: Board, ground: np.ndarray, faint: float) -> None:
    """Paint shadows, extrusions, outlines and letters; ground: the colour (3,) below; faint: see draw_ink_colour."""
    style = str(rng.choice(['plain', 'shadow', 'extruded'], p=[0.78, 0.13, 0.09]))
    colour = draw_ink_colour(rng, ground, faint)
    dark, strength = colour * 0.35, rng.uniform(0.35, 0.7)
    edge = draw_ink_colour(rng, colour)
    fade = 1 - rng.choice([0.0, 0.0, 0.15, 0.35]) * np.linspace(0, 1, board.height, dtype=np.float32)
    worn = rng.random() < 0.05
    for word in board.words:
        reach = max(1, round(word.ink.shape[0] * 0.06))
        if style == 'shadow':
            spread = np.pad(word.ink, 2 * reach)
            soft = cv2.GaussianBlur(spread, (0, 0), reach * 0.7) * strength
            board.paint(soft, np.zeros(3, np.float32), word.x - reach, word.y - reach)
        elif style == 'extruded':
            for step in range(reach, 0, -1):
                board.paint(word.ink, dark, word.x + step, word.y + step)
        if word.ink is not word.face:
            board.paint(word.ink, edge, word.x, word.y)
        face = word.face
        if worn:
            face = face * np.clip(0.9 + 0.5 * fractal_noise(rng, *face.shape, 6, 2), 0.3, 1)
        shade = fade[word.y : word.y + face.shape[0], None, None]
        board.paint(face, np.broadcast_to(colour * shade, (*face.shape, 3)), word.x, word.y)


# --------------------------------------------------------------------------------------------------------- geometry


class Camera(NamedTuple):
    """How a plane is turned before it is seen: degrees about the vertical, the horizontal and the optical axis."""

    yaw: float
    pitch: float
    roll: float


def draw_camera(rng: np.random.Generator, spread: float) -> Camera:
    """The picture's view: mostly almost upright and frontal, as ICDAR2015's; spread: of the usual roll, degrees."""
    roll = rng.normal(-2, spread) if rng.random() < 0.8 else rng.normal(0, 14)
    yaw, pitch, roll = np.clip([rng.normal(0, 20), rng.normal(0, 9), roll], [-50, -25, -40], [50, 25, 40])
    return Camera(float(yaw), float(pitch), float(roll))


def plane_homography(camera: Camera, width: float, height: float, focal: float) -> np.ndarray:
    """(3, 3): the pixels of a width x height plane, turned about its centre, -> the picture, centre at (0, 0).

    focal: focal length, and distance of the plane's centre, in pixels; so the scale at the centre is 1.
    """
    yaw, pitch, roll = np.radians(camera)
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    turn = about_z @ about_x @ about_y
    view = np.stack([turn[:, 0], turn[:, 1], [0, 0, focal]], 1)  # columns: the plane's x, its y, its centre
    centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    return np.diag([focal, focal, 1.0]) @ view @ centre


def project(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (n, 2) by a homography; (n, 2)."""
    mapped = np.c_[points, np.ones(len(points))] @ homography.T
    return mapped[:, :2] / mapped[:, 2:]


def box_corners(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """(4, 2): corners of a box, clockwise from its top left."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float)


def shifted(homography: np.ndarray, x: float, y: float) -> np.ndarray:
    """A homography followed by a shift."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], float) @ homography


def warp_board(board: Board, homography: np.ndarray, size: tuple[int, int]) -> tuple | None:
    """Warp a board into the picture's pixels.

    homography: edges of the board's pixels -> edges of the picture's (a pixel's centre is at +0.5).
    size: width, height of the picture.

    Returns:
        (area, colour (h, w, 3) premultiplied, opacity (h, w), ink (h, w)), area being the slices of the picture
        that the board covers; None if it covers nothing.
    """
    corners = project(homography, box_corners(0, 0, board.width, board.height))
    x1, y1 = np.maximum(np.floor(corners.min(0)).astype(int) - MARGIN, 0)
    x2, y2 = np.minimum(np.ceil(corners.max(0)).astype(int) + MARGIN, size)
    if x1 >= x2 or y1 >= y2:
        return None
    # OpenCV's integer coordinates are the pixels' centres.
    matrix = shifted(homography @ shifted(np.eye(3), 0.5, 0.5), -0.5 - x1, -0.5 - y1)
    shape = (int(x2 - x1), int(y2 - y1))
    layers = np.dstack([board.colour, board.opacity])
    warped = cv2.warpPerspective(layers, matrix, shape, flags=cv2.INTER_LINEAR)
    ink = cv2.warpPerspective(board.ink(), matrix, shape, flags=cv2.INTER_LINEAR)
    return np.s_[y1:y2, x1:x2], warped[..., :3], warped[..., 3], ink


# ------------------------------------------------------------------------------------------------------ backgrounds


def fractal_noise(rng: np.random.Generator, height: int, width: int, cell: int, octaves: int) -> np.ndarray:
    """(height, width) float32 smooth noise of about unit spread; cell: pixels of its coarsest detail."""
    result = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = max(cell >> octave, 2)
        grid = rng.standard_normal((height // step + 2, width // step + 2), np.float32)
        result += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR) * 0.6**octave
    return result


def plaster(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A painted or concrete wall."""
    grain = fractal_noise(rng, height, width, width // 4, 6) * rng.uniform(0.01, 0.07)
    return draw_colour(rng, 0.15) * (1 + grain)[..., None]


def bricks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Rows of bricks, or tiles when the rows are not offset."""
    high = max(6, int(height * rng.uniform(0.03, 0.14)))
    wide = int(high * rng.choice([1.0, 2.0, 2.6]))
    offset = wide // 2 if rng.random() < 0.6 else 0
    gap = max(1, high // 12)
    y, x = np.arange(height)[:, None], np.arange(width)[None]
    x = x + (y // high % 2) * offset
    shades = 1 + rng.normal(0, rng.choice([0.03, 0.12]), (height // high + 1, (width + offset) // wide + 1))
    shade = shades.astype(np.float32)[y // high, x // wide]
    grain = 1 + fractal_noise(rng, height, width, high, 3) * 0.05
    surface = draw_colour(rng, 0.3) * (shade * grain)[..., None]
    joint = (y % high < gap) | (x % wide < gap)
    surface[joint] = draw_colour(rng, 0) * 0.8
    return surface


def planks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Wooden boards with their grain, lying or standing."""
    standing = rng.random() < 0.5
    if standing:
        height, width = width, height
    high = max(8, int(height * rng.uniform(0.06, 0.25)))
    row = np.arange(height) // high
    shade = (1 + rng.normal(0, 0.1, row[-1] + 1)).astype(np.float32)[row][:, None]
    grain = cv2.resize(rng.standard_normal((height // 2 + 1, width // 60 + 2), np.float32), (width, height))
    grain += fractal_noise(rng, height, width, high, 2) * 0.4
    hue = np.array([rng.uniform(40, 90), rng.uniform(70, 140), rng.uniform(110, 190)], np.float32)
    surface = hue * (shade * (1 + 0.07 * grain))[..., None]
    surface[np.arange(height) % high < max(1, high // 25)] *= 0.4
    return surface.swapaxes(0, 1) if standing else surface


def shutter(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A roller shutter, blind or corrugated sheet."""
    period = height * rng.uniform(0.02, 0.07)
    along = np.arange(height if rng.random() < 0.7 else width, dtype=np.float32)
    wave = 1 + rng.uniform(0.08, 0.25) * np.sin(along * (2 * np.pi / period))
    wave = wave[:, None] if len(along) == height else wave[None]
    grain = 1 + 0.05 * fractal_noise(rng, height, width, width // 3, 4)
    return draw_colour(rng, 0.3) * (wave * grain)[..., None]


def front(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A wall with windows or shelves: rows of panes that differ in what they show."""
    surface = plaster(rng, height, width)
    pane_h, pane_w = int(height * rng.uniform(0.12, 0.4)), int(width * rng.uniform(0.06, 0.25))
    gap_y, gap_x = int(pane_h * rng.uniform(0.05, 0.7)), int(pane_w * rng.uniform(0.05, 0.5))
    glass, frame, mixed = draw_colour(rng, 0.2) * 0.6, draw_colour(rng, 0.2), rng.random() < 0.4
    for y in range(gap_y, height - pane_h, pane_h + gap_y):
        for x in range(gap_x, width - pane_w, pane_w + gap_x):
            pane = surface[y : y + pane_h, x : x + pane_w]
            tint = draw_colour(rng, 0.8) if mixed else glass * rng.uniform(0.6, 1.4)
            pane[:] = (
                tint * np.linspace(rng.uniform(0.5, 1), rng.uniform(0.8, 1.5), pane_h, dtype=np.float32)[:, None, None]
            )
            cv2.rectangle(surface, (x, y), (x + pane_w, y + pane_h), frame.tolist(), max(1, width // 300), cv2.LINE_AA)
    return surface


def foliage(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Leaves, grass or gravel: strong detail at every scale."""
    noise = fractal_noise(rng, height, width, max(height // 28, 8), 4)
    stone = np.full(3, rng.uniform(110, 190), np.float32)
    leaves = np.array([rng.uniform(30, 80), rng.uniform(110, 180), rng.uniform(60, 140)], np.float32)
    tone = leaves if rng.random() < 0.6 else stone
    return tone * np.clip(0.75 + 0.3 * noise, 0.1, 1.6)[..., None]


def night(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A dark street or hall with lamps out of focus."""
    surface = draw_colour(rng, 0.3) * 0.25 * (1 + 0.2 * fractal_noise(rng, height, width, width // 2, 4))[..., None]
    lamps = np.zeros((height // 2, width // 2, 3), np.float32)
    for _ in range(rng.integers(5, 30)):
        x, y = rng.integers(width // 2), rng.integers(height // 2)
        light = draw_colour(rng, 0.4) * rng.uniform(0.3, 0.9)
        cv2.circle(lamps, (int(x), int(y)), int(height * rng.uniform(0.005, 0.04)), light.tolist(), -1, cv2.LINE_AA)
    return surface + cv2.resize(cv2.GaussianBlur(lamps, (0, 0), height / 250), (width, height))


@lru_cache(1)
def load_photograph() -> np.ndarray | None:
    """The photograph that matplotlib ships, or None; kept small, since only blurred crops of it are shown."""
    from matplotlib import cbook

    try:
        return cv2.imread(str(cbook.get_sample_data('grace_hopper.jpg', asfileobj=False)))
    except FileNotFoundError:  # some builds leave the samples out
        return None


def photograph(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A strongly enlarged part of a photograph, in other colours."""
    photo = load_photograph()
    if photo is None:
        return front(rng, height, width)
    wide = int(rng.integers(photo.shape[1] // 4, photo.shape[1]))
    high = min(wide * height // width, photo.shape[0])
    y, x = rng.integers(photo.shape[0] - high + 1), rng.integers(photo.shape[1] - wide + 1)
    crop = cv2.resize(photo[y : y + high, x : x + wide], (width, height), interpolation=cv2.INTER_CUBIC)
    crop = crop[:, :: int(rng.choice([-1, 1]))][..., rng.permutation(3)]
    return crop.astype(np.float32) * rng.uniform(0.6, 1.1)


SURFACES: dict[Callable, float] = {
    plaster: 0.22,
    bricks: 0.2,
    planks: 0.1,
    shutter: 0.1,
    front: 0.18,
    foliage: 0.08,
    night: 0.07,
    photograph: 0.05,
}


def draw_surface(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) float32 BGR of a random kind."""
    kinds = list(SURFACES)
    return kinds[rng.choice(len(kinds), p=list(SURFACES.values()))](rng, height, width)


def add_clutter(rng: np.random.Generator, scene: np.ndarray) -> None:
    """Draw posts, boxes, discs, cables and ladders of bars: things that are not text but have its edges."""
    height, width = scene.shape[:2]
    for _ in range(rng.integers(0, 6)):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        colour = (draw_colour(rng, 0.3) * rng.uniform(0.5, 1)).tolist()
        kind = rng.choice(['post', 'box', 'disc', 'cable', 'bars'], p=[0.25, 0.3, 0.15, 0.15, 0.15])
        reach = int(height * rng.uniform(0.03, 0.25))
        thin = max(1, height // 300)
        if kind == 'post':
            cv2.line(scene, (x, 0), (x + int(rng.normal(0, 0.04) * width), height), colour, reach // 4 + 1, cv2.LINE_AA)
        elif kind == 'box':
            shape = cv2.boxPoints(((x, y), (2 * reach, int(reach * rng.uniform(0.5, 4))), rng.normal(0, 6)))
            cv2.fillConvexPoly(scene, shape.astype(int), colour, cv2.LINE_AA)
        elif kind == 'disc':
            cv2.circle(scene, (x, y), reach // 2, colour, int(rng.choice([-1, 2 * thin])), cv2.LINE_AA)
        elif kind == 'cable':
            end = (int(rng.integers(width)), int(rng.integers(height)))
            cv2.line(scene, (x, y), end, colour, thin, cv2.LINE_AA)
        else:
            pitch = max(3, reach // 10)
            for step in range(int(rng.integers(3, 12))):
                bar = (x + step * pitch, y)
                cv2.rectangle(scene, bar, (bar[0] + pitch // 2, y + reach // 2), colour, -1)


def draw_scene(rng: np.random.Generator, camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) float32 BGR: one or two surfaces seen by the camera, with clutter, a little out of focus."""
    width, height = size
    scene = draw_surface(rng, height, width)
    if rng.random() < 0.6:
        # Enlarged about the centre until the turned plane fills the picture; mirrored beyond its rim.
        view = shifted(plane_homography(camera, width, height, 1.5 * width), width / 2, height / 2)
        scene = cv2.warpPerspective(scene, view, size, borderMode=cv2.BORDER_REFLECT_101)
    if rng.random() < 0.45:  # another surface beside or below
        other = draw_surface(rng, height, width)
        cut = rng.uniform(0.25, 0.8)
        if rng.random() < 0.5:
            line = np.array([[0, cut + rng.normal(0, 0.05)], [1, cut + rng.normal(0, 0.05)], [1, 1], [0, 1]])
        else:
            line = np.array([[cut + rng.normal(0, 0.03), 0], [1, 0], [1, 1], [cut + rng.normal(0, 0.03), 1]])
        mask = np.zeros((height, width), np.uint8)
        cv2.fillConvexPoly(mask, (line * size).astype(int), 1)
        scene = np.where(mask[..., None] > 0, other, scene)
    scene = np.ascontiguousarray(scene, np.float32)
    add_clutter(rng, scene)
    scene *= 1 + 0.05 * fractal_noise(rng, height, width, height // 3, 3)[..., None]  # nothing is quite flat
    focus = rng.choice([0.0, 0.7, 1.5, 3.0], p=[0.35, 0.35, 0.2, 0.1]) * height / 720
    return np.clip(cv2.GaussianBlur(scene, (0, 0), focus) if focus else scene, 0, 255)


# --------------------------------------------------------------------------------------------------- light and lens


def draw_light(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) float32 gains: gradient, vignette, lamp, cast shadows, the light's colour, dark scenes."""
    width, height = size[0] // 4, size[1] // 4  # light is smooth: a quarter of the picture's size does
    x, y = np.linspace(-1, 1, width, dtype=np.float32)[None], np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    gain = 1 + x * rng.normal(0, 0.2) + y * rng.normal(0, 0.2) - (x**2 + y**2) * rng.uniform(0, 0.15)
    if rng.random() < 0.2:  # a lamp or a reflection
        distance = (x - rng.uniform(-1, 1)) ** 2 + (y - rng.uniform(-1, 1)) ** 2
        gain += rng.uniform(0.2, 0.7) * np.exp(-distance / rng.uniform(0.05, 0.6))
    gain = gain.astype(np.float32)
    for _ in range(rng.choice([0, 1, 2], p=[0.6, 0.25, 0.15])):
        corners = rng.uniform(-0.3, 1.3, (int(rng.integers(3, 6)), 2)) * (width, height)
        shade = np.zeros((height, width), np.float32)
        cv2.fillConvexPoly(shade, cv2.convexHull(corners.astype(np.int32)), rng.uniform(0.15, 0.5))
        gain *= 1 - cv2.GaussianBlur(shade, (0, 0), rng.uniform(0.5, 8))
    exposure = rng.uniform(0.25, 0.55) if rng.random() < 0.12 else rng.uniform(0.8, 1.25)
    tint = np.array([1 + rng.normal(0, 0.06), 1, 1 + rng.normal(0, 0.06)], np.float32)
    light = np.clip(gain, 0.15, 2)[..., None] * tint * np.float32(exposure)
    return cv2.resize(light, size, interpolation=cv2.INTER_LINEAR)


def blur_lens(rng: np.random.Generator, picture: np.ndarray) -> tuple[np.ndarray, float]:
    """Defocus or shake the whole picture; returns it with the blur's sigma in pixels."""
    unit = picture.shape[0] / 720
    kind = rng.choice(['sharp', 'defocus', 'motion'], p=[0.45, 0.4, 0.15])
    if kind == 'defocus':
        sigma = rng.uniform(0.5, 1.6) * max(unit, 0.6)
        return cv2.GaussianBlur(picture, (0, 0), sigma), sigma
    if kind == 'motion':
        length = max(3.0, rng.uniform(3, 10) * unit)
        radius = int(np.ceil(length / 2))
        reach = np.array([np.cos(angle := rng.uniform(0, np.pi)), np.sin(angle)]) * length / 2
        kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
        for step in np.linspace(-1, 1, 8 * radius + 1):
            x, y = np.round(radius + reach * step).astype(int)
            kernel[y, x] += 1
        return cv2.filter2D(picture, -1, kernel / kernel.sum()), length / np.sqrt(12)
    return picture, 0.0


def add_sensor_noise(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Add grain, stronger in dim light, and blotches of colour; clip to 0..255."""
    height, width = picture.shape[:2]
    strength = rng.uniform(0.5, 5) * (1.6 if picture.mean() < 60 else 1)
    # A patch of noise, repeated at a random offset and mirrored, spares most of the time that random numbers take.
    patch = rng.standard_normal((256, 256), np.float32)
    patch = np.roll(patch, rng.integers(256, size=2), (0, 1))
    tiles = np.tile(np.block([[patch, patch[:, ::-1]], [patch[::-1], patch.T]]), (height // 512 + 1, width // 512 + 1))
    blotches = rng.standard_normal((height // 8 + 1, width // 8 + 1, 3), np.float32)
    noise = cv2.resize(blotches, (width, height)) * np.float32(strength * 0.4)
    noise += tiles[:height, :width, None] * np.float32(strength)
    return np.clip(picture + noise, 0, 255)


# ---------------------------------------------------------------------------------------------------------- picture


@dataclass
class Placed:
    """A board in the picture: its homography (edges to edges), its own blur's sigma in pixels."""

    board: Board
    homography: np.ndarray
    blur: float


def place_board(
    rng: np.random.Generator, board: Board, camera: Camera, taken: np.ndarray, size: tuple[int, int]
) -> np.ndarray | None:
    """Find a free place for a board; returns its homography, or None when there is none.

    taken: (height // 4, width // 4) uint8, not 0 where boards are; the new board is entered.
    """
    width, height = size
    turn = Camera(*(angle + rng.normal(0, spread) for angle, spread in zip(camera, (6, 3, 1.5), strict=True)))
    flat = plane_homography(turn, board.width, board.height, 1.3 * max(width, board.width))
    corners = project(flat, box_corners(0, 0, board.width, board.height))
    low, high = BORDER - corners.min(0), np.array(size) - BORDER - corners.max(0)
    if rng.random() < 0.07:  # the border may cut this one
        low, high = low - 0.4 * np.ptp(corners, 0), high + 0.4 * np.ptp(corners, 0)
    if (low > high).any():
        return None
    for _ in range(12):
        centre = rng.uniform(low, high)
        outline = np.round((corners + centre) / 4).astype(int)
        mask = np.zeros_like(taken)
        cv2.fillConvexPoly(mask, outline, 1)
        if not (mask & taken).any():
            cv2.polylines(mask, [outline], True, 1, 3)  # a gap between neighbours
            taken |= mask
            return shifted(flat, *centre)
    return None


def draw_placed(
    rng: np.random.Generator, scene: np.ndarray, placed: Placed, panel: bool, ink: np.ndarray, faint: float
) -> None:
    """Colour a placed board, and lay it over the scene (height, width, 3); its letters are entered in ink."""
    board, size = placed.board, scene.shape[1::-1]
    corners = project(placed.homography, box_corners(0, 0, board.width, board.height))
    x1, y1 = np.clip(corners.min(0).astype(int), 0, np.array(size) - 1)
    x2, y2 = np.clip(corners.max(0).astype(int), (x1 + 1, y1 + 1), size)
    ground = paint_panel(rng, board) if panel else scene[y1:y2:2, x1:x2:2].mean((0, 1))
    paint_words(rng, board, ground, faint)
    warped = warp_board(board, placed.homography, size)
    if warped is None:
        return
    area, colour, opacity, letters = warped
    if placed.blur:
        colour, opacity = (cv2.GaussianBlur(layer, (0, 0), placed.blur) for layer in (colour, opacity))
    if panel and rng.random() < 0.4:  # the board's own shadow on what is behind it
        shift = np.float32([[1, 0, rng.integers(1, 7)], [0, 1, rng.integers(1, 7)]])
        shadow = cv2.warpAffine(opacity, shift, opacity.shape[::-1])
        scene[area] *= 1 - 0.5 * cv2.GaussianBlur(shadow, (0, 0), 3)[..., None]
    scene[area] = scene[area] * (1 - opacity[..., None]) + colour
    np.maximum(ink[area], letters, out=ink[area])


def quad_mask(quad: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    """Of a quad (4, 2) inside the picture: the slices of its upright box, and the mask (h, w) uint8 0 or 1 in there."""
    x1, y1 = np.maximum(quad.min(0).astype(int), 0)
    x2, y2 = quad.max(0).astype(int) + 1
    inside = np.zeros((y2 - y1, x2 - x1), np.uint8)
    cv2.fillConvexPoly(inside, np.round(quad - (x1, y1)).astype(int), 1)
    return np.s_[y1:y2, x1:x2], inside


def contrast(picture: np.ndarray, ink: np.ndarray, quad: np.ndarray) -> float:
    """Levels between a word's letters and what is around them, in the strongest channel.

    Args:
        picture: (height, width, 3) float32.
        ink: (height, width) 0..1, where letters are.
        quad: (4, 2) pixels.
    """
    area, inside = quad_mask(quad)
    shape, mask = picture[area], ink[area]
    letters = mask**2 * inside
    around = (1 - mask) ** 2 * inside
    if min(letters.sum(), around.sum()) < 1:
        return 0.0
    means = [(shape * weight[..., None]).sum((0, 1)) / weight.sum() for weight in (letters, around)]
    return float(np.abs(means[0] - means[1]).max())


def quad_height(quad: np.ndarray) -> float:
    """The mean length of a quad's left and right side."""
    return float(np.linalg.norm(quad[[3, 2]] - quad[[0, 1]], axis=1).mean())


def min_legible_height(size: tuple[int, int], style: Style = STYLES['signs']) -> float:
    """Pixels below which a word counts as unreadable: for signs 14 at 1280x720, never less than 10."""
    return max(style.legible[1], style.legible[0] * picture_unit(size))


def visible_quad(quad: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """The upright box around the part of a quad inside the picture; None if that is smaller than 3 pixels."""
    frame = box_corners(0, 0, size[0] - 1, size[1] - 1).astype(np.float32)
    _, shape = cv2.intersectConvexConvex(quad.astype(np.float32), frame)
    if shape is None:
        return None
    low, high = shape.reshape(-1, 2).min(0), shape.reshape(-1, 2).max(0)
    return box_corners(*low, *high) if (high - low).min() >= 3 else None


def judge_words(
    placed: Placed,
    picture: np.ndarray,
    ink: np.ndarray,
    blur: float,
    hidden: np.ndarray | None = None,
    style: Style = STYLES['signs'],
) -> list[Word]:
    """The words of a board as they came out in the finished picture (height, width, 3).

    blur: the lens's sigma; hidden: (height, width) uint8, not 0 where something stands before the text.
    """
    size = picture.shape[1::-1]
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
            and contrast(picture, ink, quad) >= MIN_CONTRAST
            and (hidden is None or hidden_share(hidden, quad) <= MAX_HIDDEN)
        )
        words.append(Word(np.round(quad).astype(int), glyphs.text, legible))
    return words


def hidden_share(hidden: np.ndarray, quad: np.ndarray) -> float:
    """The share of a quad (4, 2) that is not 0 in `hidden` (height, width)."""
    area, inside = quad_mask(quad)
    return float((inside * (hidden[area] > 0)).sum() / max(inside.sum(), 1))


def hide_some(rng: np.random.Generator, scene: np.ndarray) -> np.ndarray:
    """Lay posts, cables and blurred shapes over the scene; returns where (height, width) uint8."""
    height, width = scene.shape[:2]
    hidden = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(1, 4)):
        mask = np.zeros_like(hidden)
        x, y, thick = (
            int(rng.integers(width)),
            int(rng.integers(height)),
            max(1, int(height * rng.uniform(0.003, 0.05))),
        )
        if rng.random() < 0.6:
            end = (int(rng.normal(x, width / 6)), int(rng.normal(y, height)))
            cv2.line(mask, (x, y), end, 255, thick, cv2.LINE_AA)
        else:
            corners = rng.normal((x, y), height / 14, (7, 2)).astype(np.int32)
            cv2.fillConvexPoly(mask, cv2.convexHull(corners), 255, cv2.LINE_AA)
        cover = draw_colour(rng, 0.3) * (1 + 0.1 * fractal_noise(rng, height, width, 32, 2))[..., None]
        soft = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 2)).astype(np.float32)[..., None] / 255
        scene += (np.clip(cover, 0, 255) - scene) * soft
        hidden |= mask
    return hidden


def render_picture(
    seed: int, split: str, number: int, size: tuple[int, int], material: Material = PLAIN
) -> tuple[np.ndarray, list[Word], int]:
    """Render picture `number` of a split.

    Args:
        size: width, height in pixels.

    Returns:
        (the picture (height, width, 3) uint8 BGR, its words, the JPEG quality to write it with).
    """
    rng = np.random.default_rng([seed, list(SPLITS).index(split), number, *size])
    style = STYLES[material.style]
    camera = draw_camera(rng, style.roll)
    taken = np.zeros((size[1] // 4, size[0] // 4), np.uint8)
    words = []
    photographs = find_photographs(material.backgrounds)
    if photographs and rng.random() < style.photograph:
        scene, quads = draw_photograph(rng, photographs, size)
        words = [Word(np.round(quad).astype(int), '###', False) for quad in quads]
        for quad in quads:
            cv2.fillConvexPoly(taken, np.round(quad / 4).astype(int), 1)
        taken = cv2.dilate(taken, np.ones((3, 3), np.uint8))
    else:
        scene = draw_scene(rng, camera, size)
    ink = np.zeros(scene.shape[:2], np.float32)
    boards = []
    for _ in range(rng.integers(style.boards[0], style.boards[1] + 1)):
        for _attempt in range(4):
            board, panel = draw_board(rng, size, material)
            homography = place_board(rng, board, camera, taken, size)
            if homography is not None:
                blur = rng.uniform(1, 3.5) * max(size[1] / 720, 0.6) if rng.random() < 0.06 else 0.0
                boards.append(Placed(board, homography, blur))
                draw_placed(rng, scene, boards[-1], panel, ink, style.faint)
                break
    hidden = hide_some(rng, scene) if rng.random() < style.hidden else None
    scene *= draw_light(rng, size)
    picture, blur = blur_lens(rng, np.clip(scene, 0, 255))
    picture = add_sensor_noise(rng, picture)
    words += [word for placed in boards for word in judge_words(placed, picture, ink, blur, hidden, style)]
    return np.round(picture).astype(np.uint8), words, int(rng.integers(40, 96))


# ------------------------------------------------------------------------------------------------------------ files


def label_row(quad: np.ndarray, size: tuple[int, int]) -> str:
    """A quad (4, 2) in pixels as a YOLO polygon row of class 0."""
    return '0 ' + ' '.join(f'{value:.6f}' for value in (quad / size).ravel())


def write_picture(job: Job) -> list[tuple[float, float, float, bool]]:
    """Render one picture and write its four files; returns (width, height, angle, legible) of its words."""
    picture, words, quality = render_picture(*job[1:])
    out, folder, stem = Path(job.out), SPLITS[job.split], f'img_{job.number}'
    encoded, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded, 'OpenCV is built without JPEG'
    (out / 'images' / folder / f'{stem}.jpg').write_bytes(data.tobytes())
    for tree, legible in (('labels', True), ('ignore', False)):
        rows = [label_row(word.quad, job.size) + '\n' for word in words if word.legible == legible]
        (out / tree / folder / f'{stem}.txt').write_text(''.join(rows), encoding='utf-8')
    rows = [','.join([*map(str, word.quad.ravel()), word.text if word.legible else '###']) + '\n' for word in words]
    (out / 'gt' / folder / f'gt_{stem}.txt').write_text(''.join(rows), encoding='utf-8')
    return [measure(word) for word in words]


def measure_labels(folder: Path, size: tuple[int, int]) -> list[tuple[float, float, float, bool]]:
    """The measures of all words of a prepared data set's training pictures, as if they had this size in pixels."""
    measures = []
    for tree, legible in (('labels', True), ('ignore', False)):
        for file in sorted((folder / tree / SPLITS['train']).glob('*.txt')):
            regions = read_labels(file, nc=1)[0].scaled(*size).polygons
            measures += [measure(Word(quad, '', legible)) for quad in regions if len(quad) == 4]
    return measures


def measure(word: Word) -> tuple[float, float, float, bool]:
    """Width, height (pixels), angle (degrees) and legibility of a word, for the summary."""
    x, y = word.quad[1] - word.quad[0]
    return float(np.hypot(x, y)), quad_height(word.quad), float(np.degrees(np.arctan2(y, x))), word.legible


def start_worker() -> None:
    """One process, one core; Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def render_all(jobs: list[Job], workers: int) -> list[tuple[float, float, float, bool]]:
    """Render the jobs on so many processes; returns the measures of all words."""
    measures = []
    with tqdm(total=len(jobs), unit='picture', desc='render') as bar:
        if workers == 1:
            for job in jobs:
                measures += write_picture(job)
                bar.update()
        else:
            # spawn: the same on every system, and safe beside threads
            with get_context('spawn').Pool(workers, start_worker) as pool:
                for words in pool.imap_unordered(write_picture, jobs, chunksize=4):
                    measures += words
                    bar.update()
    return measures


def write_lists(out: Path, count: int) -> None:
    """Write train.txt and val.txt: the training pictures, those with a number divisible by ten apart."""
    rows = {'train.txt': [], 'val.txt': []}
    for number in range(1, count + 1):
        rows['train.txt' if number % 10 else 'val.txt'].append(f'./images/{SPLITS["train"]}/img_{number}.jpg\n')
    for name, lines in rows.items():
        (out / name).write_text(''.join(lines), encoding='utf-8')


def write_manifest(out: Path, manifest: dict) -> None:
    """Write the manifest in one step, so that it is never half a file."""
    part = out / (MANIFEST + '.part')
    part.write_text(json.dumps(manifest, indent=1) + '\n', encoding='utf-8')
    os.replace(part, out / MANIFEST)


def read_manifest(out: Path) -> dict | None:
    """What an earlier run left in the folder; None for a new or empty one.

    Raises:
        UserError: the folder holds something else.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f'{out} is a file; --out names a folder')
    if not out.exists() or not any(out.iterdir()):
        return None
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding='utf-8'))
        return {'options': manifest['options'], 'complete': manifest['complete'], 'summary': manifest['summary']}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f'{out} is not empty and not made by this script; choose another --out') from None


def summarise(pictures: int, measures: list[tuple[float, float, float, bool]]) -> str:
    """Lines that say how many pictures and words there are, and how large the words."""
    legible = np.array([row[:3] for row in measures if row[3]]).reshape(-1, 3)
    lines = [f"{pictures} pictures, {len(legible)} words, {len(measures) - len(legible)} don't-care regions"]
    if len(legible):
        lines.append('words, percentiles      5     25     50     75     95')
        for name, values in zip(('width (pixels)', 'height (pixels)', 'angle (degrees)'), legible.T, strict=True):
            lines.append(
                f'{name:<18}' + ''.join(f'{value:7.1f}' for value in np.percentile(values, [5, 25, 50, 75, 95]))
            )
    return '\n'.join(lines)


def compare_with(folder: Path, size: tuple[int, int]) -> str:
    """The summary of a prepared data set's training pictures, as if they had this size. Raises UserError."""
    pictures = len(list((folder / 'labels' / SPLITS['train']).glob('*.txt')))
    if not pictures:
        raise UserError(f'--compare: no labels in {folder / "labels" / SPLITS["train"]}')
    return summarise(pictures, measure_labels(folder, size))


def digest(rows: list[str]) -> str:
    """What stands for a long list in the manifest."""
    return hashlib.sha256('\n'.join(rows).encode()).hexdigest()[:16]


def parse_size(text: str) -> tuple[int, int]:
    """'1280x720' -> (1280, 720)."""
    try:
        width, height = map(int, text.lower().split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not WIDTHxHEIGHT, such as 640x360') from None
    if not (320 <= width <= 8192 and 180 <= height <= 8192):
        raise argparse.ArgumentTypeError(f'{text}: width must be 320..8192 and height 180..8192 pixels')
    return width, height


def parse_count(text: str) -> int:
    """A count of 0 or more."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f'{text!r} is not a count')
    return int(text)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n', 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--out', type=Path, default=Path('demo_data'), help='folder to make')
    parser.add_argument('--train', type=parse_count, default=400, help='training pictures (every tenth is for val)')
    parser.add_argument('--test', type=parse_count, default=100, help='test pictures')
    parser.add_argument('--size', type=parse_size, default='640x360', help='of the pictures, WIDTHxHEIGHT in pixels')
    parser.add_argument('--style', choices=STYLES, default='signs', help='of the text: clear signs, or incidental text')
    parser.add_argument('--fonts', nargs='+', default=[], metavar='DIR', help='more fonts (ttf, otf; subfolders too)')
    parser.add_argument('--words', nargs='+', default=[], metavar='FILE', help='dictionaries, a word a line')
    parser.add_argument(
        '--backgrounds',
        nargs='+',
        default=[],
        metavar='DIR',
        help='photographs (jpg, png, webp; subfolders too), or lists of them (txt)',
    )
    parser.add_argument(
        '--compare', type=Path, metavar='DIR', help='print the measures of this prepared data set beside ours'
    )
    parser.add_argument('--seed', type=parse_count, default=0, help='other seeds give other pictures')
    parser.add_argument('--workers', type=parse_count, default=0, help='processes; 0: one for every core')
    parser.add_argument('--force', action='store_true', help='render anew what an earlier run has made')
    return parser.parse_args()


def main() -> None:
    """Make the data set, unless it is there."""
    args = parse_options()
    material = Material(args.style, *(tuple(map(str, part)) for part in (args.fonts, args.words, args.backgrounds)))
    fonts = sorted(Path(path).name for paths in find_fonts(material.fonts).values() for path in paths)
    options = {'version': VERSION, 'seed': args.seed, 'train': args.train, 'test': args.test}
    options |= {'size': list(args.size), 'fonts': fonts, 'style': args.style}
    options |= {
        'words': digest(vocabulary(material.words)),
        'photographs': digest(find_photographs(material.backgrounds)),
    }
    earlier = read_manifest(args.out)
    if earlier and not args.force:
        if earlier['options'] != options:
            raise UserError(f'{args.out} was made with other options or fonts; --force replaces it')
        if earlier['complete']:
            print(f'{args.out} is complete, nothing to do (--force renders it anew)\n{earlier["summary"]}')
            return
    args.out.mkdir(parents=True, exist_ok=True)
    # Written first, the manifest makes the folder ours even if the run is interrupted; it says complete at the end.
    write_manifest(args.out, {'options': options, 'complete': False, 'summary': ''})
    for tree in TREES:
        shutil.rmtree(args.out / tree, ignore_errors=True)
        for folder in SPLITS.values():
            (args.out / tree / folder).mkdir(parents=True)

    counts = {'train': args.train, 'test': args.test}
    jobs = [
        Job(str(args.out), args.seed, split, number, args.size, material)
        for split, count in counts.items()
        for number in range(1, count + 1)
    ]
    workers = max(1, min(args.workers or count_cores(), len(jobs)))
    measures = render_all(jobs, workers)
    summary = summarise(len(jobs), measures)
    if args.compare:
        summary += f'\n{args.compare}: ' + compare_with(args.compare, args.size)
    write_lists(args.out, args.train)
    write_manifest(args.out, {'options': options, 'complete': True, 'summary': summary})
    print(f'{args.out}: {summary}')


if __name__ == '__main__':
    run_command(main)
