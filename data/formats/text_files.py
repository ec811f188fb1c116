"""Formats in text files: ICDAR2013, ICDAR2015, ICDAR2017-MLT (and 2019), Total-Text, YOLO, PPOCRLabel."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from data.formats.common import MAX_TEXT_BYTES, BadEntry
from data.formats.image_files import ImageFiles
from data.formats.mat_file import read_mat
from data.formats.pages import (
    MAX_JSON_BYTES,
    MAX_ROW,
    Page,
    Region,
    annotation_files,
    expect,
    points_of,
    read_bounded,
    to_box,
    to_polygon,
    word_region,
)
from models.errors import UserError
from models.yamls import read_yaml
from utils.loading.labels import read_label_file
from utils.loading.rows import DONT_CARE, split_rows

PADDLE_ILLEGIBLE = '*'  # beside '###'
CLASSES, MAX_CLASSES = 'classes.txt', 1000  # of YOLO
MAX_MAT_BYTES = 64 << 10  # Total-Text's have a few KiB; compressed ones may unpack to a thousand times their size
SCRIPTS = 'Arabic|Bangla|Chinese|Hindi|Japanese|Korean|Latin|Mixed|None|Symbols'  # of MLT 2017 and 2019

_NUMBER, _BETWEEN = r'([-+]?\d+(?:\.\d*)?)', r'(?:\s*,\s*|\s+)'
ICDAR2013_ROW = re.compile(rf'\s*{(_NUMBER + _BETWEEN) * 4}"(.*)"\s*')
# Literals as Python 2 prints them; they are taken apart by these expressions and never evaluated.
_NUMBERS, _TEXT = r'\[\[([-+.\d\s,]*)\]\]', r"""u?('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
TOTAL_TEXT_ROW = re.compile(
    rf'\s*x:\s*{_NUMBERS},\s*y:\s*{_NUMBERS},\s*ornt:\s*\[[^\[\]]*\],\s*transcriptions:\s*\[(?:{_TEXT})?\],?\s*',
    re.DOTALL,
)

FLAGGED = re.compile(r'(?:[^,]*,){8}\s*[01]\s*,\s*".*"\s*')  # RCTW-17: whether a word is difficult, and the word
MORE_CORNERS = re.compile(r'(?:\s*-?\d+(?:\.\d*)?\s*,){8}(?:\s*-?(?:0|[1-9]\d*)(?:\.\d*)?\s*,){2}')  # before the word

Rows = tuple[Callable[[bytes], list], Callable[..., Region]]  # splits a file's content, parses a row


def read_icdar2013(folder: Path, images: ImageFiles) -> Iterator[Page]:
    """ICDAR2013's gt_NAME.txt: boxes and words."""
    return _read_files(folder, images, {'.txt': (_lines, _parse_icdar2013)})


def read_icdar2015(folder: Path, images: ImageFiles) -> Iterator[Page]:
    """ICDAR2015's gt_NAME.txt: quads and words."""
    return _read_files(folder, images, {'.txt': (_icdar2015_rows, _parse_icdar2015)})


def read_mlt(folder: Path, images: ImageFiles) -> Iterator[Page]:
    """ICDAR2017-MLT's gt_NAME.txt: quads, scripts and words."""
    return _read_files(folder, images, {'.txt': (_lines, _parse_mlt)})


def read_ppocrlabel(file: Path, images: ImageFiles) -> Iterator[Page]:
    """PPOCRLabel's Label.txt, and PaddleOCR's lists of the same form: a row an image, its path and JSON."""
    try:
        rows = _lines(read_bounded(file, MAX_JSON_BYTES))
        if not any('\t' in row for row in rows):
            raise BadEntry('no row has a tab between the path of a picture and its regions')
    except BadEntry as error:
        raise UserError(f'{file} is no Label.txt of PPOCRLabel: {error}') from None
    for number, row in enumerate(rows, 1):
        page = Page(f'{file.name} row {number}')
        path, _, content = row.partition('\t')
        try:
            page.image = images.find(path.strip())
            regions = expect(json.loads(content), list, 'what follows the tab')
        except (ValueError, RecursionError) as error:  # also BadEntry
            page.problem = str(error) if isinstance(error, BadEntry) else f'no JSON after the tab ({error})'
        else:
            page.add_rows(regions, _parse_ppocrlabel)
        yield page


def _parse_ppocrlabel(region) -> Region:
    region = expect(region, dict, 'the region')
    polygon = to_polygon(value for point in points_of(region.get('points')) for value in point)
    labels = (str(region['key_cls']),) if region.get('key_cls') else ()
    word = str(region.get('transcription') or '')
    return word_region(polygon, word, region.get('difficult') is True or word == PADDLE_ILLEGIBLE, labels)


def read_total_text(folder: Path, images: ImageFiles) -> Iterator[Page]:
    """Total-Text's poly_gt_NAME.txt or .mat: polygons and words."""
    rows = {'.txt': (_total_text_rows, _parse_total_text), '.mat': (_mat_rows, _parse_mat)}
    return _read_files(folder, images, rows)


def read_yolo(folder: Path, images: ImageFiles) -> Iterator[Page]:
    """Label files in both YOLO forms, also with a confidence; their numbers are fractions of the image. All classes are
    words; their labels are the names in classes.txt, obj.names or data.yaml, or else the numbers."""
    names = _class_names(folder)
    for file, relative in annotation_files(folder, ('.txt',)):
        if file.name == CLASSES:
            continue
        page = Page(relative.as_posix())
        try:
            page.image = images.find_stem(relative)
            size = images.annotated_size(page.image)
            labels = read_label_file(file, nc=MAX_CLASSES, confidences=True)
        except (BadEntry, UserError, OSError) as error:
            page.problem = str(error)
        else:
            page.bad_rows, page.notes, page.problem = labels.skipped, labels.notes, labels.problem
            found = zip(labels.annotations.polygon_list(1, 1), labels.annotations.classes, labels.boxes, strict=True)
            page.regions = [
                Region(polygon.astype(float) * size, labels=(names.get(int(row), str(row)),), is_box=bool(is_box))
                for polygon, row, is_box in found
            ]
        yield page


def _class_names(folder: Path) -> dict[int, str]:
    """Names of the classes by number, where a file in the folder or above it lists them; a data.yaml may lie above
    train/labels."""
    for place in (folder, *folder.absolute().parents[:2]):
        for name in (CLASSES, 'obj.names'):
            with contextlib.suppress(BadEntry):
                rows = split_rows(read_bounded(place / name, MAX_TEXT_BYTES))
                return {number: row.strip() for number, row in enumerate(rows) if row.strip()}
        with contextlib.suppress(UserError):
            names = read_yaml(place.absolute() / 'data.yaml').get('names')
            found = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else ()
            return {int(number): str(name) for number, name in found if str(number).isdecimal()}
    return {}


def _read_files(folder: Path, images: ImageFiles, kinds: dict[str, Rows]) -> Iterator[Page]:
    """A page of every annotation file in the folder; `kinds` says how to read each suffix."""
    for file, relative in annotation_files(folder, kinds):
        page = Page(relative.as_posix())
        split, parse = kinds[file.suffix.lower()]
        with page.problems():
            page.image = images.find_stem(relative)
            rows = split(read_bounded(file, MAX_MAT_BYTES if file.suffix.lower() == '.mat' else MAX_TEXT_BYTES))
            page.add_rows(rows, parse)
        yield page


def _lines(content: bytes) -> list[str]:
    return [row for row in split_rows(content) if row.strip()]


def _parse_icdar2013(row: str) -> Region:
    match = ICDAR2013_ROW.fullmatch(_bounded(row))
    if not match:
        raise BadEntry('expected x1 y1 x2 y2 "word" or x1, y1, x2, y2, "word"')
    return word_region(to_box(*match.groups()[:4]), match[5], is_box=True)


def _icdar2015_rows(content: bytes) -> list[str]:
    """Raises BadEntry where all of several rows go on with coordinates, as those of CTW1500 and ArT do (one row alone
    may be of a word that is a number), or all rows with a flag: its don't-care words would count as words."""
    rows = _lines(content)
    if len(rows) > 1 and all(map(MORE_CORNERS.match, rows)):
        raise BadEntry('more than four corners in every row')
    if rows and all(map(FLAGGED.fullmatch, rows)):
        raise BadEntry('a flag, 0 or 1, before the word in every row, as RCTW-17 has it: take the flags out')
    return rows


def _parse_icdar2015(row: str) -> Region:
    fields = _bounded(row).split(',', 8)
    if len(fields) < 9:
        raise BadEntry(f'{len(fields)} of 9 fields')
    if re.match(rf'(?:{SCRIPTS}),', fields[8]):  # its don't-care words would count as words
        raise BadEntry('a script before the word: --from icdar2017-mlt reads such rows')
    return word_region(to_polygon(fields[:8]), fields[8])


def _parse_mlt(row: str) -> Region:
    fields = _bounded(row).split(',', 9)
    if len(fields) < 10:
        raise BadEntry(f'{len(fields)} of 10 fields')
    return word_region(to_polygon(fields[:8]), fields[9])


def _bounded(row: str) -> str:
    if len(row) > MAX_ROW:
        raise BadEntry(f'longer than {MAX_ROW} characters')
    return row


def _total_text_rows(content: bytes) -> list[str]:
    """Rows begin with 'x:'; the arrays of long polygons go over several lines."""
    text = '\n'.join(split_rows(content))
    return [row for row in re.split(r'^(?=[^\S\n]*x:)', text, flags=re.MULTILINE) if row.strip()]


def _parse_total_text(row: str) -> Region:
    match = TOTAL_TEXT_ROW.fullmatch(_bounded(row))
    if not match:
        raise BadEntry("expected x: [[..]], y: [[..]], ornt: [u'c'], transcriptions: [u'word']")
    xs, ys = (re.split(r'[\s,]+', group.strip()) for group in match.groups()[:2])
    return _total_text_region(xs, ys, _unescape(match[3][1:-1]) if match[3] else '')


def _unescape(text: str) -> str:
    r"""A Python literal's escapes (\xe9, \u20ac, \') as the characters that they stand for."""
    names = {'n': '\n', 'r': '\r', 't': '\t'}

    def character(match: re.Match) -> str:
        code = match[1] or match[2] or match[3]
        if code is None:
            return names.get(match[4], match[4])
        return chr(int(code, 16)) if int(code, 16) <= 0x10FFFF else '\ufffd'

    return re.sub(r'\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|(.))', character, text, flags=re.DOTALL)


def _mat_rows(content: bytes) -> list:
    """The rows of a Total-Text .mat file: cells 'x:', xs, 'y:', ys, word, orientation."""
    try:
        return list(read_mat(content, 'polygt'))
    except Exception as error:  # whatever comes of a broken file
        raise BadEntry(f'no Total-Text polygons ({type(error).__name__}: {error})') from None


def _parse_mat(row) -> Region:
    try:
        xs, ys, word = row[1].ravel().tolist(), row[3].ravel().tolist(), row[4].ravel().tolist()
    except (IndexError, AttributeError):
        raise BadEntry("expected the cells 'x:', xs, 'y:', ys, word, orientation") from None
    return _total_text_region(xs, ys, str(word[0]) if word else '')


def _total_text_region(xs: list, ys: list, word: str) -> Region:
    """'#', '###' and a missing word say that nobody could read it."""
    if len(xs) != len(ys):
        raise BadEntry(f'{len(xs)} x but {len(ys)} y')
    return Region(
        to_polygon(value for pair in zip(xs, ys, strict=True) for value in pair), word, word in ('', '#', DONT_CARE)
    )
