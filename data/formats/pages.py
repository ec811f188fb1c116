"""What every annotation format is read to, and the pictures that annotations may speak of."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from data.formats.common import BadEntry
from models.errors import UserError
from utils.loading.files import IMAGE_SUFFIXES

SUFFIXES = IMAGE_SUFFIXES
# Bounds that no annotation made by people comes near; they stop what is no such file.
MAX_CORNERS = 1000
MAX_COORDINATE = 1e6  # pixels, either way
MAX_ROW = 100_000  # characters


@dataclass
class Region:
    """A piece of text.

    Attributes:
        polygon: (p, 2) float64 corners x, y in pixels of the picture, p >= 3.
        word: '' where the format has none.
        dont_care: nobody could read it, or it is to be left out for another reason.
        labels: what the annotator called it.
    """

    polygon: np.ndarray
    word: str = ''
    dont_care: bool = False
    labels: tuple[str, ...] = ()


@dataclass
class Page:
    """What the annotations say of one picture.

    Attributes:
        name: of the annotation, for messages.
        picture: an existing file; None with a problem.
        regions: may be empty: a picture without text.
        bad_rows: what was skipped and why.
        problem: why the picture cannot be used; '' if it can.
        size: (width, height) in pixels of the picture that was annotated, where the format tells.
        split: 'train', 'val' or 'test', where the format tells.
    """

    name: str
    image: Path | None = None
    regions: list[Region] = field(default_factory=list)
    bad_rows: list[str] = field(default_factory=list)
    problem: str = ''
    size: tuple[int, int] | None = None
    split: str = ''

    def add_rows(self, rows: Iterable, parse: Callable[..., Region | None]) -> None:
        """Add a region for every row that can be parsed; None is no region, BadEntry a bad row.

        A picture none of whose rows can be read is a problem, not a picture without text.
        """
        read = 0
        for number, row in enumerate(rows, 1):
            try:
                region = parse(row)
            except BadEntry as error:
                self.bad_rows.append(f'{self.name} row {number} {str(row).strip()[:60]!a}: {error}')
                continue
            read += 1
            if region is not None:
                self.regions.append(region)
        if self.bad_rows and not read:
            self.problem = f'no row can be read, the first: {self.bad_rows.pop(0)}'
            self.bad_rows.clear()


class ImageFiles:
    """The pictures below a folder, found by name. Whatever an annotation says, nothing else is ever returned."""

    def __init__(self, folder: Path):
        """Raises UserError where there is no such folder, or no picture in it."""
        if not folder.is_dir():
            raise UserError(f'--images: there is no folder {folder}')
        self.folder = folder
        self.by_path: dict[str, Path] = {}
        self._by_name, self._by_stem = defaultdict(list), defaultdict(list)
        for file in sorted(folder.rglob('*')):
            relative = file.relative_to(folder)
            hidden = any(part.startswith('.') for part in relative.parts)
            if file.suffix.lower() in SUFFIXES and not hidden and file.is_file():
                self.by_path[relative.as_posix()] = file
                self._by_name[file.name].append(file)
                self._by_stem[file.stem].append(file)
        if not self.by_path:
            raise UserError(f'--images: no pictures in {folder} (looked for {", ".join(sorted(SUFFIXES))})')

    def find(self, path: str) -> Path:
        """The picture that a path of another machine means: the one whose path below the folder it ends with, or else
        the only one of its name. Raises BadEntry."""
        parts = [part for part in PurePosixPath(path.replace('\\', '/')).parts if part not in ('/', '..')]
        for start in range(len(parts)):
            found = self.by_path.get('/'.join(parts[start:]))
            if found:
                return found
        return self._only(self._by_name.get(parts[-1], []) if parts else [], path)

    def find_stem(self, path: Path) -> Path:
        """The picture of an annotation file: of the same name without gt_ or poly_gt_, in the same folder below
        --images as the annotation below --annotations, or else anywhere. Raises BadEntry."""
        for stem in (path.stem, path.stem.removeprefix('gt_'), path.stem.removeprefix('poly_gt_')):
            found = self._by_stem.get(stem, [])
            beside = [file for file in found if file.parent == self.folder / path.parent]
            if found:
                return self._only(beside or found, stem)
        return self._only([], path.stem.removeprefix('poly_').removeprefix('gt_'))

    def relative(self, file: Path) -> str:
        """The picture's path below the folder, with slashes."""
        return file.relative_to(self.folder).as_posix()

    def _only(self, found: list[Path], name: str) -> Path:
        if not found:
            raise BadEntry(f'no picture {name[-200:]!a} below {self.folder}')
        if len(found) > 1:
            names = ' and '.join(map(self.relative, found[:2]))
            raise BadEntry(f'{len(found)} pictures are called {name!a}: {names}')
        return found[0]


def to_polygon(values: Iterable) -> np.ndarray:
    """Numbers or texts x1 y1 x2 y2 ... -> (p, 2) corners. Raises BadEntry for anything but 3 to MAX_CORNERS corners."""
    numbers = [to_number(value) for value in values]
    if len(numbers) % 2 or not 3 <= len(numbers) // 2 <= MAX_CORNERS:
        raise BadEntry(f'{len(numbers)} coordinates, expected x y of 3 to {MAX_CORNERS} corners')
    return np.array(numbers).reshape(-1, 2)


def to_box(x1, y1, x2, y2) -> np.ndarray:
    """Two opposite corners -> (4, 2), clockwise from the top left. Raises BadEntry."""
    (left, right), (top, bottom) = sorted(map(to_number, (x1, x2))), sorted(map(to_number, (y1, y2)))
    return to_polygon((left, top, right, top, right, bottom, left, bottom))


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


def annotation_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files with one of the suffixes, recursively, hidden ones left out."""
    files = sorted(file for file in folder.rglob('*') if file.suffix.lower() in suffixes and file.is_file())
    return [file for file in files if not any(part.startswith('.') for part in file.relative_to(folder).parts)]


def read_bounded(file: Path, limit: int) -> bytes:
    """The bytes of a file. Raises BadEntry for more than `limit` of them, or a file that cannot be read."""
    try:
        with open(file, 'rb') as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise BadEntry(f'cannot be read ({error.strerror})') from None
    if len(content) > limit:
        raise BadEntry(f'larger than {limit >> 10} KiB')
    return content


def load_json(file: Path, limit: int):
    """The content of a JSON file. Raises BadEntry for what is none."""
    try:
        return json.loads(read_bounded(file, limit))
    except (ValueError, RecursionError) as error:  # ValueError also of what is no Unicode
        if isinstance(error, BadEntry):
            raise
        raise BadEntry(f'no JSON ({error})') from None
