"""Label files in both YOLO forms, and the annotations of one picture as polygons that can be moved and clipped."""

import contextlib
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from models.errors import UserError
from utils.loading.files import is_image, matching, real_file
from utils.loading.polygons import clip_polygons, crosses_itself, opened, polygon_areas, uncrossed
from utils.loading.rows import read_rows

TOLERANCE = 1e-4  # coordinates this far outside 0..1 are rounding
OUTSIDE = 0.05  # and this far, corners of a region at the border; what is farther is in other units
BEYOND = 'it leaves the picture, and is cut at the border'
MIN_AREA = 1e-10  # of the picture's area; regions below it have no area
UNCUT = 0.999  # visible fraction of a region from which its corners are taken as its own
QUAD = 4  # corners
BOX_COLUMNS = 5  # class x y w h
MIN_POLYGON_COLUMNS = 7  # class and three points
TWO_FORMS = 12  # coordinates of a row that holds x y w h and x1 y1 ... x4 y4
SIX_CORNERS = '13 columns are taken as six corners; they could be a box and four corners that do not fit it'
REPEATED = 'four corners with two at one point: they are taken as three'
CROSSING = 'four corners whose edges cross: they are put in order'
MAX_COLUMNS = 2001  # far more than a word has corners


@dataclass(frozen=True)
class Annotations:
    """The regions of one picture.

    Attributes:
        classes: (n,) int64.
        polygons: (n, P, 2) float64 x, y; polygons with fewer than P corners repeat their last one.
        dont_care: (n,) bool; such a region is neither a target nor background.
        visible: (n,) float64, 0..1: the share of the region's area that clipping has left so far.
        edge_weight: (n,) float64: how much the region's polygon says of the quad of its word; 0 where the label was an
            upright box, whose word may lean in it.
    """

    classes: np.ndarray
    polygons: np.ndarray
    dont_care: np.ndarray
    visible: np.ndarray
    edge_weight: np.ndarray

    @staticmethod
    def build(classes, polygons: list[np.ndarray], dont_care: bool = False, edge_weight=1.0) -> 'Annotations':
        """From a list of n polygons (p_i, 2) with at least one corner each; edge_weight is a number or n of them."""
        corners = max(map(len, polygons), default=1)
        padded = [np.concatenate((p, np.repeat(p[-1:], corners - len(p), 0))) for p in polygons]
        return Annotations(
            np.asarray(classes, np.int64).reshape(-1),
            np.asarray(padded, np.float64).reshape(-1, corners, 2),
            np.full(len(polygons), dont_care),
            np.ones(len(polygons)),
            np.broadcast_to(np.asarray(edge_weight, np.float64), len(polygons)).copy(),
        )

    @staticmethod
    def concatenate(parts: list['Annotations']) -> 'Annotations':
        """All regions of several annotations, in their order."""
        corners = max((part.polygons.shape[1] for part in parts), default=1)
        pads = [((0, 0), (0, corners - part.polygons.shape[1]), (0, 0)) for part in parts]
        parts = [part.moved(np.pad(part.polygons, pad, 'edge')) for part, pad in zip(parts, pads, strict=True)]
        names = [each.name for each in fields(Annotations)]
        return Annotations(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, rows) -> 'Annotations':
        """The regions that a mask or an index array (n,) chooses."""
        return Annotations(*(getattr(self, field.name)[rows] for field in fields(self)))

    def moved(self, polygons: np.ndarray) -> 'Annotations':
        """The same regions with other polygons (n, P, 2)."""
        return replace(self, polygons=polygons)

    def weighted(self, factor: float) -> 'Annotations':
        """The same regions with edge_weight times a factor."""
        return replace(self, edge_weight=self.edge_weight * factor)

    def scaled(self, x: float, y: float, left: float = 0, top: float = 0) -> 'Annotations':
        """Corners times (x, y), plus (left, top)."""
        return self.moved(self.polygons * (x, y) + (left, top))

    def projected(self, matrix: np.ndarray) -> 'Annotations':
        """Corners through a (3, 3) affine or perspective matrix."""
        points = self.polygons @ matrix[:, :2].T + matrix[:, 2]  # (n, P, 3)
        return self.moved(points[..., :2] / points[..., 2:])

    def clipped(self, width: float, height: float) -> 'Annotations':
        """Cut exactly to 0..width, 0..height; regions wholly outside are left out, `visible` says what remains."""
        x, y = self.polygons[..., 0], self.polygons[..., 1]
        if len(self) == 0 or (x.min() >= 0 and y.min() >= 0 and x.max() <= width and y.max() <= height):
            return self
        cut = clip_polygons(self.polygons, width, height)
        fraction = polygon_areas(cut) / np.maximum(polygon_areas(self.polygons), 1e-12)
        visible = self.visible * fraction.clip(0, 1)
        return replace(self, polygons=cut, visible=visible)[visible > 0]

    def demoted(self, min_side: float, min_visible: float) -> 'Annotations':
        """Regions with a box side under min_side pixels, or less than min_visible of their area, become don't-care."""
        boxes = self.boxes()
        lost = ((boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf) < min_side) | (self.visible < min_visible)
        return replace(self, dont_care=self.dont_care | lost)

    def as_quads(self, width: int, height: int) -> 'Annotations':
        """The same regions (0..1) of a picture of this size. Where a word has other than four known corners, its quad
        takes their place; if that leaves the picture, the polygon stays, of which no edges are learned."""
        corners = [len(polygon) for polygon in self.polygon_list(1, 1)]
        changed = [row for row, count in enumerate(corners) if count != QUAD and self.edge_weight[row] > 0]
        if not changed:
            return self
        polygons = np.pad(self.polygons, ((0, 0), (0, max(QUAD - self.polygons.shape[1], 0)), (0, 0)), 'edge')
        weight = self.edge_weight.copy()
        for row in changed:
            quad = quad_of(self.polygons[row, : corners[row]] * (width, height)) / (width, height)
            if (quad >= 0).all() and (quad <= 1).all():
                polygons[row] = quad[[0, 1, 2, *[3] * (polygons.shape[1] - 3)]]
            else:
                weight[row] = 0
        return replace(self, polygons=polygons, edge_weight=weight)

    def boxes(self) -> np.ndarray:
        """(n, 4) x1, y1, x2, y2: the tight boxes of the polygons."""
        return np.concatenate((self.polygons.min(1), self.polygons.max(1)), 1)

    def rows(self, width: float, height: float) -> np.ndarray:
        """(n, 5) float32 class, x, y, w, h: the tight boxes, as shares of a picture of this size."""
        boxes = self.boxes() / (width, height, width, height)
        centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        return np.concatenate((self.classes[:, None], centre, side), 1).astype(np.float32)

    def edges(self) -> np.ndarray:
        """(n, 5) float32: the edges t, b, l, r of the regions' quads (utils.quads), and their weight.

        The quad of a polygon with other than four corners is the smallest rectangle around it. A region that was cut
        has weight 0: what is left of it says little of the word's own corners.
        """
        result = np.zeros((len(self), 5), np.float32)
        weight = np.where(self.visible >= UNCUT, self.edge_weight, 0)
        known = np.flatnonzero(weight > 0)
        if len(known):
            import torch  # convert.py answers --help without it

            from utils.quads import encode

            quads = np.stack([quad_of(polygon) for polygon in self[known].polygon_list(1, 1)])
            result[known, :4] = encode(torch.from_numpy(quads))[1].numpy()
            result[known, 4] = weight[known]
        return result

    def polygon_list(self, width: float, height: float) -> list[np.ndarray]:
        """n arrays (p_i, 2) float32 without the repeated last corners, as shares of a picture of this size."""
        last = self.polygons.shape[1] - 1
        differs = (self.polygons != self.polygons[:, -1:]).any(2)  # (n, P)
        counts = np.where(differs.any(1), last - differs[:, ::-1].argmax(1) + 2, 1)
        scaled = (self.polygons / (width, height)).astype(np.float32)
        return [polygon[:count] for polygon, count in zip(scaled, counts, strict=True)]


def quad_of(polygon: np.ndarray) -> np.ndarray:
    """(p, 2) -> (4, 2): itself, or the smallest rectangle around it."""
    return polygon if len(polygon) == QUAD else cv2.boxPoints(cv2.minAreaRect(polygon.astype(np.float32)))


def companion_file(image: Path, kind: str) -> Path | None:
    """Where an image's `labels`, `ignore` or `gt` file belongs, whether or not it exists.

    The last folder named `images` is replaced by the kind; ground truth is named gt_<image>.txt. Without such a
    folder labels lie beside the image, and the other kinds nowhere (None).
    """
    place = _companion(image, kind)
    return place and place[0] / place[1]


def _companion(image: Path, kind: str) -> tuple[Path, str] | None:
    """The same as the folder above `images` and the path from there. The kind is written as `images` is: Labels for
    Images."""
    parts = list(image.parts)
    name = f'gt_{image.stem}.txt' if kind == 'gt' else f'{image.stem}.txt'
    for place in range(len(parts) - 2, -1, -1):
        if (written := parts[place]).lower() == 'images':
            kind = kind.upper() if written.isupper() else kind.capitalize() if written[0].isupper() else kind
            return Path(*parts[:place]), Path(kind, *parts[place + 1 : -1], name).as_posix()
    return (image.parent, name) if kind == 'labels' else None


def find_companion(image: Path, kind: str) -> Path | None:
    """An existing `labels` or `ignore` file of an image, None if there is none.

    It lies where it belongs (companion_file), for labels also beside the image, or in one of these places of the file
    that a link leads to. Names of files and folders may differ in case and in how accents are written.
    """
    for place in dict.fromkeys((image, real_file(image))):
        beside = [(place.parent, f'{place.stem}.txt')] if kind == 'labels' else []
        for candidate in (_companion(place, kind), *beside):
            found = candidate and matching(*candidate)
            if (
                found
                and os.path.isfile(found)
                and (found.stem == place.stem or not _has_image(place.parent, found.stem))
            ):
                return found
    return None


def _has_image(folder: Path, stem: str) -> bool:
    """Whether a file whose name differs in case alone belongs to an image of its own."""
    return any(file.stem == stem and is_image(file) for file in folder.iterdir())


class LabelFile(NamedTuple):
    """What a label file holds.

    Attributes:
        annotations: its regions, 0..1.
        boxes: (n,) bool: the region's row was an upright box, whose word may lean in it.
        skipped: a message for every row that was not used.
        notes: a message for every row that was used, but has a form of its own.
        problem: why nothing in it can be used; '' if something can, or if it has no rows: an image without text.
    """

    annotations: Annotations
    boxes: np.ndarray
    skipped: list[str]
    notes: list[str]
    problem: str


def read_label_file(file: Path, nc: int, dont_care: bool = False, confidences: bool = False) -> LabelFile:
    """Read a label file of box rows (class x y w h) and polygon rows (class x1 y1 x2 y2 ...), fractions of the image.

    What reaches over the image's border is cut at it. Four corners whose edges cross are put in order; a last
    corner that repeats the first is left out. A row of a box and its four corners in one counts as the corners; if they
    do not fit each other it is skipped.

    Args:
        file: an existing file; any line end, a byte order mark, UTF-16 and blank lines are allowed.
        nc: number of classes.
        dont_care: what to mark the regions as.
        confidences: rows may end with a confidence, as detect.py writes them; it is left out.

    Returns:
        What it says. Rows are skipped that are not numbers, have a wrong number of columns or no area, or repeat
        another.

    Raises:
        UserError: a coordinate outside -.05..1.05, a negative side of a box, or a class outside 0..nc-1. The whole file
            is then likely to be in other units or of other classes, and skipping rows would train on the wrong data.
            Or the file cannot be opened, or is too large.
    """
    rows, skipped = [], []
    for number, line in enumerate(read_rows(file, 'the labels'), 1):
        place = f'{file}:{number}'
        try:
            if line.strip():
                rows.append((place, *_parse_row(line, confidences)))
        except ValueError as error:
            skipped.append(f'{place}: {error}')
    two_forms = any(_holds_two_forms(coordinates) for _, _, coordinates in rows)
    notes, kept = [], {}  # (class, corners) -> corners, whether it was a box
    for place, category, coordinates in rows:
        _check_range(category, coordinates, nc, place)
        try:
            polygon, note = _corners(coordinates, two_forms)
            key = (category, polygon.tobytes())
            if key in kept:
                raise ValueError('repeats an earlier row')
        except ValueError as error:
            skipped.append(f'{place}: {error}')
            continue
        if note:
            notes.append(f'{place}: {note}')
        kept[key] = polygon, len(coordinates) == BOX_COLUMNS - 1
    classes, polygons = [category for category, _ in kept], [polygon for polygon, _ in kept.values()]
    boxes = np.array([is_box for _, is_box in kept.values()], bool)
    # Where the picture's border cuts a word, the corners on it are not the word's.
    whole = np.array([((polygon > 0) & (polygon < 1)).all() for polygon in polygons], bool)
    annotations = Annotations.build(classes, polygons, dont_care, (whole & ~boxes).astype(float))
    problem = ''
    if skipped and not kept:
        count = f'none of its {len(skipped)} rows can be used' if len(skipped) > 1 else 'its only row cannot be used'
        problem = f'{count}; row {skipped[0].removeprefix(f"{file}:")}'
    return LabelFile(annotations, boxes, skipped, notes, problem)


def label_row(category: int, values: Iterable[float]) -> str:
    """A row of a label file with its line end: the class, and x y w h or x1 y1 x2 y2 ..., 0..1."""
    return f'{category} ' + ' '.join(f'{value:.6f}' for value in values) + '\n'


def _parse_row(row: str, confidences: bool = False) -> tuple[int, np.ndarray]:
    """Class and coordinates, (4,) of a box or (2 p,) of a polygon; ValueError says what is wrong with the row."""
    columns = row.split()
    if len(columns) > MAX_COLUMNS:
        raise ValueError(f'more than {MAX_COLUMNS} columns')
    try:
        values = np.array([float(column) for column in columns])
    except ValueError:
        raise ValueError(f'not a row of numbers{_why_no_numbers(columns)}') from None
    if not np.isfinite(values).all():
        raise ValueError('a number that is not finite')
    has_confidence = len(values) > BOX_COLUMNS and len(values) % 2 == 0 and 0 <= values[-1] <= 1
    if has_confidence and confidences:
        values = values[:-1]
    elif len(values) != BOX_COLUMNS and (len(values) < MIN_POLYGON_COLUMNS or len(values) % 2 == 0):
        guess = f'; column {len(values)} looks like a confidence' if has_confidence else ''
        raise ValueError(
            f'{len(values)} columns, expected 5 (class x y w h) or 7, 9, ... (class x1 y1 x2 y2 ...){guess}'
        )
    if values[0] != int(values[0]):
        raise ValueError(f'class {columns[0]} is not a whole number')
    return int(values[0]), values[1:]


def _why_no_numbers(columns: list[str]) -> str:
    if ',' in ''.join(columns):
        return ': it has commas, expected spaces alone'
    with contextlib.suppress(ValueError):
        if len(columns) > 1 and all(map(math.isfinite, map(float, columns[1:]))):
            return f': the class is {columns[0][:30]!a}, expected its number'
    return ''


def _check_range(category: int, coordinates: np.ndarray, nc: int, place: str) -> None:
    if not 0 <= category < nc:
        raise UserError(f'{place}: class {category}, but the data yaml names classes 0 to {nc - 1}')
    worst = coordinates[np.abs(coordinates - 0.5).argmax()]
    sides = coordinates[2:] if len(coordinates) == BOX_COLUMNS - 1 else [0]
    if not -OUTSIDE <= worst <= 1 + OUTSIDE or min(sides) < -TOLERANCE:
        raise UserError(f'{place}: coordinate {worst:g} is outside 0..1 (labels are shares of width and height)')


def _corners(coordinates: np.ndarray, two_forms: bool) -> tuple[np.ndarray, str]:
    """(4,) x, y, w, h or (2 p,) corners -> (p, 2) corners inside the picture, clockwise from the top left for a box,
    and what to say.

    `two_forms`: the file has rows of a box and its corners. ValueError of a region without area, and of such a row
    where the box and the corners do not fit.
    """
    polygon, note = (
        (_box_corners(coordinates), '') if len(coordinates) == BOX_COLUMNS - 1 else _drawn(coordinates, two_forms)
    )
    if np.abs(polygon - 0.5).max(initial=0) > 0.5 + TOLERANCE:
        note = BEYOND
        if len(coordinates) > BOX_COLUMNS - 1:
            polygon = clip_polygons(polygon[None], 1, 1)[0]
    polygon = polygon.clip(0, 1)  # what is left is rounding, or a box
    if polygon_areas(polygon[None])[0] < MIN_AREA:
        raise ValueError('a region without area')
    return polygon, note


def _drawn(coordinates: np.ndarray, two_forms: bool) -> tuple[np.ndarray, str]:
    """_corners of a row of corners. What is no polygon, since edges cross or its first corner (the box's centre) lies
    among the last four, is a row of two forms too, if the first four numbers can be a box of the picture."""
    if len(coordinates) != TWO_FORMS:
        polygon = opened(coordinates.reshape(-1, 2))
        if len(polygon) == QUAD and (repeated := (polygon == np.roll(polygon, 1, 0)).all(1)).any():
            return polygon[~repeated], REPEATED
        ordered = uncrossed(polygon)
        return ordered, '' if ordered is polygon else CROSSING
    polygon = coordinates.reshape(-1, 2)
    if _holds_two_forms(coordinates):
        return polygon[2:], 'two forms in one row, a box and its four corners: the corners are taken'
    hull = cv2.convexHull(polygon[2:].astype(np.float32))
    among = cv2.pointPolygonTest(hull, polygon[0].tolist(), False) > 0
    box = _box_corners(coordinates[:4])
    in_picture = box.min() >= 0 and box.max() <= 1
    if two_forms or crosses_itself(polygon) or (among and in_picture):
        raise ValueError('two forms in one row, a box and four corners that do not fit it')
    return opened(polygon), SIX_CORNERS if in_picture or among else ''


def _holds_two_forms(coordinates: np.ndarray) -> bool:
    """Whether the numbers of a row are a box and four corners whose box it is, but for rounding."""
    if len(coordinates) != TWO_FORMS:
        return False
    box, corners = _box_corners(coordinates[:4]), coordinates[4:].reshape(-1, 2)
    room = np.maximum(0.1 * coordinates[2:4], 0.002)
    return bool((abs(box[0] - corners.min(0)) <= room).all() and (abs(box[2] - corners.max(0)) <= room).all())


def _box_corners(box: np.ndarray) -> np.ndarray:
    x, y, w, h = box * (1, 1, 0.5, 0.5)
    return np.array([(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)])
