"""What every annotation format is read to, and what the readers share."""

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from tqdm import tqdm

from data.formats.common import BadEntry
from data.formats.image_files import ImageFiles
from ocrdistill.files import walk
from utils.loading.polygons import opened
from utils.loading.rows import DONT_CARE, unquoted

# Bounds that no annotation made by people comes near; they stop what is no such file.
MAX_CORNERS = 1000
MAX_COORDINATE = 1e6  # pixels, either way
MAX_ROW = 100_000  # characters
WORDS = ('transcription', 'text', 'word', 'value', 'utf8_string', 'caption')  # attributes that hold a word
MAX_JSON_BYTES = 1 << 30  # of a file for all images; COCO_Text.json has less than 100 MiB


@dataclass
class Region:
    """A piece of text.

    Attributes:
        polygon: (p, 2) float64 corners x, y in pixels of the picture, p >= 3.
        word: '' where the format has none.
        dont_care: nobody could read it, or it is to be left out for another reason.
        labels: what the annotator called it.
        is_box: the annotator drew an upright box, in which the word may lean; its corners are not the word's.
    """

    polygon: np.ndarray
    word: str = ''
    dont_care: bool = False
    labels: tuple[str, ...] = ()
    is_box: bool = False


@dataclass
class Page:
    """What the annotations say of one picture.

    Attributes:
        name: of the annotation, for messages.
        image: an existing file; None with a problem.
        told: the image is known by what the annotation says alone: its own name is another.
        regions: may be empty: a picture without text.
        bad_rows: what was skipped and why.
        notes: what was read, but may not be what was meant.
        problem: why the picture cannot be used; '' if it can.
        left_out: why it is left out without being wrong ('picture that nobody has annotated'), for counts.
        size: (width, height) in pixels of the picture that was annotated, where the format tells.
        split: 'train', 'val' or 'test', where the format tells.
    """

    name: str
    image: Path | None = None
    told: bool = False
    regions: list[Region] = field(default_factory=list)
    bad_rows: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str = ''
    left_out: str = ''
    size: tuple[int, int] | None = None
    split: str = ''

    @contextlib.contextmanager
    def problems(self) -> Iterator[None]:
        """What is raised as BadEntry while entered becomes the page's problem."""
        try:
            yield
        except BadEntry as error:
            self.problem = str(error)

    def add_rows(self, rows: Iterable, parse: Callable[..., Region]) -> None:
        """Add a region for every row that can be parsed; BadEntry is a bad row.

        A picture none of whose rows can be read is a problem, not a picture without text.
        """
        read = 0
        for number, row in enumerate(rows, 1):
            try:
                region = parse(row)
            except BadEntry as error:
                text = ElementTree.tostring(row, 'unicode') if isinstance(row, ElementTree.Element) else str(row)
                self.bad_rows.append(f'{self.name} row {number} {text.strip()[:60]!a}: {error}')
                continue
            read += 1
            self.regions.append(region)
        if self.bad_rows and not read:
            self.problem = f'no row can be read, the first: {self.bad_rows.pop(0)}'
            self.bad_rows.clear()


def to_polygon(values: Iterable) -> np.ndarray:
    """Numbers or texts x1 y1 x2 y2 ... -> (p, 2) corners. A last corner that repeats the first is left out.

    Raises BadEntry for anything but 3 to MAX_CORNERS corners.
    """
    numbers = [to_number(value) for value in values]
    if len(numbers) % 2 or not 3 <= len(numbers) // 2 <= MAX_CORNERS:
        raise BadEntry(f'{len(numbers)} coordinates, expected x y of 3 to {MAX_CORNERS} corners')
    return opened(np.array(numbers).reshape(-1, 2))


def to_box(x1, y1, x2, y2) -> np.ndarray:
    """Two opposite corners -> (4, 2), clockwise from the top left. Raises BadEntry."""
    (left, right), (top, bottom) = sorted(map(to_number, (x1, x2))), sorted(map(to_number, (y1, y2)))
    return to_polygon((left, top, right, top, right, bottom, left, bottom))


def turned_box(cx: float, cy: float, w: float, h: float, angle: float) -> np.ndarray:
    """(4, 2) corners of a box that is turned clockwise about its centre by an angle in radians."""
    along, down = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    return np.array([cx, cy]) + signs[:, :1] * w * along + signs[:, 1:] * h * down


def turned_by(box: np.ndarray, attributes: Mapping) -> tuple[np.ndarray, bool]:
    """A box (4, 2) as CVAT turns it, and whether it stays upright. An attribute named rotation has the degrees; the box
    is written as it was before."""
    angle = 0.0
    with contextlib.suppress(BadEntry):  # an attribute of the user's own that has this name
        angle = math.radians(to_number(attributes.get('rotation') or 0))
    (x1, y1), (x2, y2) = box[0], box[2]
    return turned_box((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, angle), not angle


def word_of(*sources: Mapping) -> str:
    """The word among an annotation's attributes, '' where there is none."""
    return next((str(source[name]) for source in sources for name in WORDS if source.get(name)), '')


def to_number(value) -> float:
    """Raises BadEntry for what is no number of a picture's pixels."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, TypeError, OverflowError):
        number = math.nan
    if not abs(number) <= MAX_COORDINATE:
        raise BadEntry(f'{str(value)[:30]!a} is no coordinate')
    return number


def expect(value, kind: type, what: str):
    """The value, if it is of the kind. Raises BadEntry."""
    if not isinstance(value, kind):
        raise BadEntry(f'{what} is missing or no {kind.__name__}')
    return value


def annotation_files(folder: Path, suffixes: Iterable[str]) -> Iterator[tuple[Path, Path]]:
    """Files with one of the suffixes, recursively, hidden ones left out, and their paths below the folder; behind a
    progress bar."""
    files = [file for file in walk(folder) if file.suffix.lower() in suffixes]
    for file in tqdm(files, 'reading', unit='file', leave=False, delay=2):
        yield file, file.relative_to(folder)


def word_region(
    polygon: np.ndarray, word: str, dont_care: bool = False, labels: tuple[str, ...] = (), *, is_box: bool = False
) -> Region:
    """A region of a word; '###' and what is marked so are don't-care. One pair of quotes is not part of the word."""
    word = unquoted(word)
    return Region(polygon, word, dont_care or word == DONT_CARE, labels, is_box)


def own_image(file: Path, images: ImageFiles) -> Path | None:
    """The image of an annotation file's own name; None where there is none, or several."""
    with contextlib.suppress(BadEntry):
        return images.find_stem(file)
    return None


def image_of(path, file: Path, images: ImageFiles, page: Page) -> Path:
    """The image of an annotation file that also names one: that of the file's own name comes first.

    Where both exist and differ the page gets a note: a file that was copied or renamed keeps the old name inside.

    Args:
        path: what the file says, of any type.
        file: the annotation, below the folder of annotations.

    Raises:
        BadEntry: neither is there.
    """
    named = problem = None
    try:
        named = images.find(expect(path, str, 'the name of the picture'))
    except BadEntry as error:
        problem = error
    own = own_image(file, images)
    found = own or named
    page.told = own is None
    if found is None:
        raise problem or BadEntry(f'there is no picture for {file}')
    if own and named and own != named:
        page.notes.append(f'{page.name}: it names {images.relative(named)}, {images.relative(own)} is taken')
    return found


def to_size(width, height) -> tuple[int, int]:
    """(width, height) in whole pixels. Raises BadEntry for what is none."""
    width, height = to_number(width), to_number(height)
    if width < 1 or height < 1:
        raise BadEntry(f'the picture is {width:g}x{height:g} pixels large')
    return round(width), round(height)


def read_bounded(file: Path, limit: int) -> bytes:
    """The bytes of a file. Raises BadEntry for more than `limit` of them, or a file that cannot be read."""
    try:
        with open(file, 'rb') as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise BadEntry(f'cannot be read ({error.strerror})') from None
    if len(content) > limit:
        raise BadEntry(f'larger than {limit >> 10} KiB')
    if content.startswith(b'PK\3\4'):
        raise BadEntry('a zip archive: unpack it first')
    return content


def load_json(file: Path, limit: int):
    """The content of a JSON file. Raises BadEntry for what is none."""
    try:
        return json.loads(read_bounded(file, limit))
    except (ValueError, RecursionError) as error:  # ValueError also of what is no Unicode
        if isinstance(error, BadEntry):
            raise
        raise BadEntry(f'no JSON ({error})') from None


def points_of(points) -> list[tuple]:
    """[[x, y], ...]. Raises BadEntry."""
    points = [tuple(expect(point, list, 'a point')) for point in expect(points, list, '"points"')]
    if any(len(point) != 2 for point in points):
        raise BadEntry('a point is not [x, y]')
    return points
