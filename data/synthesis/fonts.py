"""Text fonts: which there are, what they can draw, and a random one for a text."""

from functools import lru_cache
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import ImageFont

from models.errors import UserError

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
        usable = [file for file in found if is_text_font(file) and not any(part in file.name for part in names)]
        if not usable:
            raise UserError(f'--fonts: no font for Latin text in {folder}')
        files += usable
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
