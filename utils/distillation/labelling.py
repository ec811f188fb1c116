"""Labels of pictures by a teacher: words that it is sure of, don't-care regions where it is not."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import numpy as np
import shapely
from tqdm import tqdm

from models.errors import UserError
from models.yamls import near_program
from ocrdistill.errors import Unreadable
from ocrdistill.rows import corners_of
from utils.detection.detector import Detector
from utils.distillation.craft import CANVAS, WORD, CraftDetector, Words
from utils.distillation.craft_network import MD5
from utils.loading.files import file_sha256, without_images
from utils.loading.images import read_image
from utils.loading.labels import MIN_AREA, Annotations, find_companion, label_row, polygon_areas
from utils.loading.listing import images_at
from utils.loading.rows import read_rows
from utils.loading.scan import Scanned, describe, examine, map_threaded
from utils.runtime.run_folder import command_line, make_folder, sole_writer, write_json, write_text
from utils.runtime.words import counted

CRAFT = 'craft'
SETTINGS = 'teacher.json'  # in the written folder: what its labels are from
MAX_CLASSES = 10_000  # of labels that --missing keeps
COVERED = 0.5  # of a word's area; if labels cover more, they know the word


class Teacher(NamedTuple):
    """What finds words.

    Attributes:
        words: of a picture's file; raises Unreadable.
        quads: their corners are known; False: they are those of upright boxes.
        sure, unsure: scores from which a word is a label, and from which it is don't-care.
        identity: what it is, as plain data.
    """

    words: Callable[[Path], Words]
    quads: bool
    sure: float
    unsure: float
    identity: dict[str, Any]


class TeacherSettings(Protocol):
    """The options that say what the teacher is; see teacher/label.py."""

    teacher: str
    weights: str
    cache: str
    imgsz: int | None
    device: str
    sure: float | None
    unsure: float | None


def make_teacher(options: TeacherSettings) -> Teacher:
    """CRAFT, or the detector of a checkpoint or an exported file.

    Raises:
        UserError: there is no such file, or it is no detector; --unsure is over --sure.
    """
    if options.teacher == CRAFT:
        craft = CraftDetector(options.weights, options.device, options.cache, options.imgsz or CANVAS)
        sure, words, quads, sha = WORD, craft.words, True, ''
        imgsz = craft.canvas
    else:
        detector = Detector(options.teacher, device=options.device, imgsz=options.imgsz)
        sure, sha, imgsz = detector.conf_thres, _digest_of(detector, options.teacher), detector.imgsz
        quads = detector.model.quads

        def words(file: Path) -> Words:
            rows = detector(read_image(file))
            return Words(corners_of(rows), rows[:, 4], rows[:, 5].astype(int))

    default, sure = sure, sure if options.sure is None else options.sure
    # A --sure over the default takes labels away: they become don't-care, and what was don't-care stays it.
    unsure = min(default, sure) / 2 if options.unsure is None else options.unsure
    if unsure > sure:
        raise UserError(f'--unsure {unsure:g} is over --sure {sure:g}: no word could be a label')
    if options.teacher != CRAFT:
        detector.conf_thres = unsure
    identity = {'teacher': options.teacher, 'imgsz': imgsz, 'sure': sure, 'unsure': unsure}
    if not quads:
        identity['rows'] = 'boxes'  # before, their corners
    return Teacher(words, quads, sure, unsure, identity | ({'sha256': sha} if sha else {'md5': MD5}))


def _digest_of(detector: Detector, teacher: str) -> str:
    """What tells one network from another: the SHA-256 of its file, with its weights where they lie beside it."""
    file = near_program(getattr(detector.model, 'file', teacher))  # an export in a folder knows its own
    weights = file.with_suffix('.bin')
    if file.suffix in ('.xml', '.param') and weights.is_file():
        return f'{file_sha256(file)} {file_sha256(weights)}'
    return file_sha256(file)


@dataclass
class Picture:
    """A picture to label.

    Attributes:
        file: where it is.
        name: its path below images/ of the written folder.
        scanned: what is known of it.
    """

    file: Path
    name: PurePosixPath
    scanned: Scanned


class Labeller:
    """Labels pictures into a folder of the project's layout.

    Args:
        teacher: what finds words.
        source: folder of pictures or list file.
        out: folder to write.
        missing: the pictures have labels, to which don't-care regions are added.
        link: link to the pictures instead of copying them.
    """

    def __init__(self, teacher: Teacher, source: Path, out: Path, missing: bool = False, link: bool = False):
        self.teacher, self.source, self.out = teacher, source, out
        self.missing, self.link = missing, link
        self.twins: list[str] = []  # pictures that would share another's label file

    def run(self) -> None:
        """Label what is not labelled yet, or has changed since, and say what was done.

        Raises:
            UserError: no pictures; labels where there should be none, or none where there should be some; a folder
                that is of something else.
        """
        pictures = self._pictures()
        self._is_new()  # refuses before the folder is made
        with sole_writer(make_folder(self.out)):
            if self._is_new():
                write_json(self.out / SETTINGS, self._settings | {'command': command_line()})
            before = 0
            for picture in tqdm(pictures, 'labelling', unit='picture', disable=None):
                if picture.scanned.problem:
                    continue
                if self._is_done(picture):
                    before += 1
                    continue
                try:
                    self._label(picture)
                except Unreadable as error:
                    picture.scanned = Scanned(problem=f'{picture.file}: broken ({error})')
        self._report(pictures, before)

    def _pictures(self) -> list[Picture]:
        """All pictures of the source; raises UserError."""
        listing = images_at(self.source)
        if listing is None:
            raise UserError(f'--source: {self.source} is neither a folder nor a list file (*.txt)')
        if not listing.images:
            raise UserError(f'--source: there are no pictures in {self.source} {listing.left_out()}'.rstrip())
        out = os.path.abspath(self.out)
        if inside := [file for file in listing.images if Path(os.path.abspath(file)).is_relative_to(out)]:
            raise UserError(f'--out {self.out} holds {inside[0]} of --source: choose another --out')
        folder = self.source if self.source.is_dir() else self.source.parent
        files = list(dict.fromkeys(listing.images))  # a list may name one twice
        found = map_threaded(lambda file: examine(file, MAX_CLASSES, 'ignore'), files, 'reading pictures')
        pictures, taken = [], dict[PurePosixPath, Path]()
        for file, scanned in zip(files, found, strict=True):
            name = name_of(file, folder)
            first = taken.setdefault(name.with_suffix(''), file)
            if first == file:
                pictures.append(Picture(file, name, scanned))
            else:
                self.twins.append(f'{file} ({first})')
        labelled = [picture.file for picture in pictures if picture.scanned.labelled]
        if labelled and not self.missing:
            raise UserError(
                f'{len(labelled)} of {counted(len(pictures), "picture")} have labels, the first {labelled[0]}: '
                f'--missing keeps them and adds what they lack'
            )
        if self.missing and not labelled:
            raise UserError(f'--missing: no picture of {self.source} has labels')
        return pictures

    @property
    def _settings(self) -> dict[str, Any]:
        own = {'source': str(self.source.resolve()), 'missing': self.missing, 'link': self.link}
        return self.teacher.identity | own

    def _is_new(self) -> bool:
        """Whether the folder has no settings of this command yet. Raises UserError where another command has labelled
        into it, or something else lies in it."""
        file = self.out / SETTINGS
        if self.source.is_dir() and self.out.resolve().is_relative_to(self.source.resolve()):
            raise UserError(f'--out {self.out} lies in --source {self.source}')
        begun = read_settings(file) if file.is_file() else {}
        if not begun and self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UserError(f'{self.out} exists already: choose another --out, or remove it')
        differs = [key for key, value in self._settings.items() if begun.get(key) != value]
        if begun and differs and (self.out / 'labels').exists():  # without, nothing has been labelled yet
            raise UserError(
                f'{self.out} was begun with another {differs[0]} ({begun.get(differs[0])}): choose another --out'
            )
        return bool(differs)

    def _place(self, picture: Picture, kind: str) -> Path:
        """The file of a kind ('images', 'labels', 'ignore', 'scores') of a picture in the written folder."""
        name = picture.name if kind == 'images' else picture.name.with_suffix('.txt')
        return self.out / kind / name

    def _is_done(self, picture: Picture) -> bool:
        """Whether a picture was labelled, and neither it nor what it has of its own is newer than that."""
        try:
            when = self._place(picture, 'labels').stat().st_mtime_ns
            own = (find_companion(picture.file, kind) for kind in ('labels', 'ignore'))
            unchanged = all(file.stat().st_mtime_ns <= when for file in (picture.file, *filter(None, own)))
            return unchanged and self._place(picture, 'images').exists()
        except OSError:
            return False

    def _label(self, picture: Picture) -> None:
        """Write everything of one picture, its labels last: they say that it is done. Raises Unreadable."""
        size = np.array(picture.scanned.size, float)
        words = with_area(self.teacher.words(picture.file), size)
        words = select(words, words.scores >= self.teacher.unsure)
        # What people marked stays, without --missing their don't-care regions alone: there are no labels.
        labels, ignore = (own_rows(picture.file, kind) for kind in ('labels', 'ignore'))
        unknown = lacking(words.quads, picture.scanned.annotations.scaled(*size))
        sure = np.full(len(unknown), False) if self.missing else words.scores >= self.teacher.sure
        labels += self._rows(words, unknown & sure, size)
        ignore += self._rows(words, unknown & ~sure, size)
        image = self._place(picture, 'images')
        make_folder(image.parent)
        image.unlink(missing_ok=True)
        if self.link:
            image.symlink_to(picture.file.resolve())
        else:
            shutil.copyfile(picture.file, image)
        write_text(self._place(picture, 'ignore'), joined(ignore))
        write_text(self._place(picture, 'scores'), joined(score_rows(words)))
        write_text(self._place(picture, 'labels'), joined(labels))

    def _rows(self, words: Words, chosen: np.ndarray, size: np.ndarray) -> list[str]:
        """Rows of a label file: the words that a mask (n,) chooses, in a picture of size (width, height)."""
        return (quad_rows if self.teacher.quads else box_rows)(select(words, chosen), size)

    def _carried(self, picture: Picture) -> int:
        """How many of a picture's own don't-care regions the written file has."""
        rows = (own_rows(picture.file, 'ignore'), rows_of(self._place(picture, 'ignore')))
        own, written = map(Counter, rows)
        return (own & written).total()

    def _report(self, pictures: list[Picture], before: int) -> None:
        """Say what was done; the numbers are of all pictures, those that were done before included."""
        done = [picture for picture in pictures if not picture.scanned.problem]
        words, ignored = ([len(rows_of(self._place(p, kind))) for p in done] for kind in ('labels', 'ignore'))
        print(
            f'{counted(len(pictures) + len(self.twins), "picture")}: {len(done)} labelled ({before} of them before), '
            f'{len(pictures) + len(self.twins) - len(done)} left out'
        )
        lines = describe([picture.scanned for picture in pictures])
        bare = sum(not picture.scanned.labelled for picture in done)
        if self.missing and bare:
            lines.append(f'{counted(bare, "picture")} without a label file: taken as pictures without legible text')
        if self.twins:
            lines.append(f"skipped {counted(len(self.twins), 'picture')} with another's name: {self.twins[0]}")
        had = sum(self._carried(picture) for picture in done)
        added = f' ({had} from before, {sum(ignored) - had} added)' if had or self.missing else ''
        regions = counted(sum(ignored), "don't-care region")
        lines.append(
            f'{counted(sum(words), "word")}, {regions}{added}, {counted(words.count(0), "picture")} without a word'
        )
        written = images_at(self.out / 'images')
        others = set(written.images if written else ()) - {self._place(picture, 'images') for picture in done}
        if others:
            count, first = counted(len(others), 'picture'), min(others).relative_to(self.out)
            lines.append(
                f'not counted: {count} in {self.out} that --source no longer has, or has broken, the first {first}: '
                f'remove them with their labels'
            )
        lines.append(f'to train on them: add {(self.out / "images").resolve()} to train of a data yaml')
        print('\n'.join(lines))


def read_settings(file: Path) -> dict[str, Any]:
    """What a folder's labels are from. Raises UserError."""
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f'{file} is broken: choose another --out, or remove its folder')
    return content


def name_of(file: Path, folder: Path) -> PurePosixPath:
    """A picture's path below a folder, without folders named `images`; the name alone of one that lies elsewhere, such
    as `../photos/a.jpg` of a list."""
    file, folder = (Path(os.path.abspath(place)) for place in (file, folder))
    below = file.relative_to(folder).parts if file.is_relative_to(folder) else (file.name,)
    return without_images(PurePosixPath(*below))


def select(words: Words, rows: np.ndarray) -> Words:
    """The words that a mask (n,) chooses."""
    return Words(*(part[rows] for part in words))


def with_area(words: Words, size: np.ndarray) -> Words:
    """The words with any area inside a picture of size (width, height), corners clamped to it."""
    quads = words.quads.clip(0, size)
    return select(words._replace(quads=quads), polygon_areas(quads) >= MIN_AREA * size.prod())


def lacking(quads: np.ndarray, known: Annotations) -> np.ndarray:
    """(n,) bool: of which quads (n, 4, 2) the known regions together cover COVERED of the area at most."""
    regions = shapely.union_all(shapely.make_valid(shapely.polygons(known.polygons)))
    found = shapely.make_valid(shapely.polygons(quads))
    lacks: np.ndarray = shapely.area(shapely.intersection(found, regions)) <= COVERED * shapely.area(found)
    return lacks


def own_rows(image: Path, kind: str) -> list[str]:
    """The rows of a picture's own `labels` or `ignore` file; none where there is no such file."""
    file = find_companion(image, kind)
    return [] if file is None else rows_of(file)


def rows_of(file: Path) -> list[str]:
    """The rows of a label file that hold something."""
    return [row for row in read_rows(file, 'the labels') if row.strip()]


def quad_rows(words: Words, size: np.ndarray) -> list[str]:
    """Rows of a label file: class x1 y1 ... x4 y4, 0..1 of a picture of size (width, height)."""
    return class_rows(words.classes, (words.quads / size).reshape(-1, 8))


def box_rows(words: Words, size: np.ndarray) -> list[str]:
    """Rows of a label file: class x y w h, 0..1 of a picture of size (width, height). They teach no corners."""
    low, high = words.quads.min(1) / size, words.quads.max(1) / size
    return class_rows(words.classes, np.concatenate(((low + high) / 2, high - low), 1))


def class_rows(classes: np.ndarray, values: np.ndarray) -> list[str]:
    """A class and its numbers, row by row."""
    return [label_row(category, row).rstrip() for category, row in zip(classes, values, strict=True)]


def score_rows(words: Words) -> list[str]:
    """Rows of what was found: score x1 y1 ... x4 y4, in pixels."""
    rows = zip(words.scores, words.quads.reshape(-1, 8), strict=True)
    return [f'{score:.4f} ' + ' '.join(f'{value:.1f}' for value in row) for score, row in rows]


def joined(rows: list[str]) -> str:
    """The text of a file of rows."""
    return ''.join(f'{row}\n' for row in rows)
