"""Large pictures in overlapping tiles, so that small words are seen at the picture's own resolution.

A picture is looked at in several views: the whole of it once, which finds the words that are larger than a tile, and
its tiles. What several views found is merged by these rules:

- Two boxes of different views and of one class are the same text if, cut to what both views see, their overlap is more
  than SAME_TEXT of the smaller one's area; where there are quads, that of the quads too. Boxes of one view have been
  through NMS and are left as they are.
- A box that ends within TOUCH pixels of a view's border where the picture goes on is cut. Whole boxes come first, by
  confidence: each removes the weaker ones of the same text, and the cut ones whatever their confidence.
- Cut boxes of the same text, in order of confidence, are parts of one word that no view has whole: they become the box
  around both, with the better confidence.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ocrdistill.quads import cut, ordered, signed_areas
from ocrdistill.rows import BOX_ROW, corners_of, has_quads

SLICE_OVERLAP = 0.2  # fraction of a tile's side
SAME_TEXT = 0.6
AT_ONCE = 32  # views; a large picture has hundreds, and each is copied at the network's size
TOUCH = 4.0  # pixels; boxes of cut words end about there


class View(NamedTuple):
    """What is seen of a picture: x1, y1, x2, y2 in its whole pixels."""

    x1: int
    y1: int
    x2: int
    y2: int


def make_views(width: int, height: int, size: int, overlap: float) -> list[View]:
    """The whole picture and, if it is larger than one, its tiles.

    Args:
        width: of the picture in pixels,
        height: likewise.
        size: pixels of a tile's side; where the picture is narrower or lower, so is the tile.
        overlap: neighbouring tiles share at least this fraction of a tile's side, 0 to under 1.

    Returns:
        The whole picture, then tiles row by row; all tiles are of one size and spread evenly.
    """
    whole = View(0, 0, width, height)
    if max(width, height) <= size:
        return [whole]
    columns, rows = _starts(width, size, overlap), _starts(height, size, overlap)
    return [whole, *(View(x, y, min(x + size, width), min(y + size, height)) for y in rows for x in columns)]


def _starts(length: int, size: int, overlap: float) -> list[int]:
    """Where the tiles along one side begin; the last one ends with the picture."""
    if length <= size:
        return [0]
    steps = math.ceil((length - size) / max(math.floor(size * (1 - overlap)), 1))
    return [round(step * (length - size) / steps) for step in range(steps + 1)]


def detect_sliced(
    image: np.ndarray, detect: Callable[[list[np.ndarray]], list[np.ndarray]], size: int, overlap: float, max_det: int
) -> np.ndarray:
    """Boxes of a picture, from the whole of it and its tiles.

    Args:
        image: (H, W, 3) uint8 RGB.
        detect: takes a list of such pictures, returns rows (n, 6) or (n, 14) of each (ocrdistill.rows).
        size: pixels of a tile's side.
        overlap: see make_views.
        max_det: boxes kept of the picture at most.

    Returns:
        Rows in pixels of the picture, best first.
    """
    height, width = image.shape[:2]
    views = make_views(width, height, size, overlap)
    found = []
    for first in range(0, len(views), AT_ONCE):
        found += detect([image[view.y1 : view.y2, view.x1 : view.x2] for view in views[first : first + AT_ONCE]])
    for rows, view in zip(found, views, strict=True):
        for columns in (slice(4), slice(BOX_ROW, None)):  # the box, the corners; a sum has digits of its own
            points = rows[:, columns]
            points[:] = (points + np.tile(view[:2], points.shape[1] // 2)).round(2)
    return merge_views(found, views)[:max_det]


def merge_views(found: list[np.ndarray], views: list[View]) -> np.ndarray:
    """One list of boxes from those of overlapping views, by the rules above.

    Args:
        found: of each view its rows (n, 6) or (n, 14), in the picture's pixels.
        views: the first one is the whole picture.

    Returns:
        Rows (n, 6) or (n, 14), best first.
    """
    rows = np.concatenate(found)
    sight = np.repeat(np.array(views, float), [len(boxes) for boxes in found], 0)  # (n, 4): where each box was seen
    # Every box against all that come after it; a joined box has seen what its parts have, and is looked at anew.
    incomplete = _is_cut(rows, sight, views[0])
    order = np.lexsort((-rows[:, 4], incomplete))
    rows, sight, incomplete = rows[order], sight[order], incomplete[order]
    kept = []
    while len(rows):
        same = _same_text(rows, sight)
        if incomplete[0] and same.any():
            part = int(same.argmax())
            rows[0, :4] = _around(rows[0, :4], rows[part, :4])
            if has_quads(rows):
                corners = _quad_around(corners_of(rows[[0, part]]))
                corners = corners.clip(views[0][:2], views[0][2:]).round(2)  # as all others, in the picture
                rows[0, BOX_ROW:], rows[0, :4] = corners.ravel(), np.concatenate((corners.min(-2), corners.max(-2)))
            sight[0] = _around(sight[0], sight[part])
            rows, sight, incomplete = (np.delete(values, part, 0) for values in (rows, sight, incomplete))
            continue
        kept.append(rows[0])
        rest = ~same
        rest[0] = False
        rows, sight, incomplete = rows[rest], sight[rest], incomplete[rest]
    merged = np.array(kept).reshape(-1, rows.shape[1])
    return merged[np.argsort(-merged[:, 4], kind='stable')]


def _around(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The box (4,) around two."""
    return np.concatenate((np.minimum(first[:2], second[:2]), np.maximum(first[2:], second[2:])))


def _quad_around(quads: np.ndarray) -> np.ndarray:
    """The quad (4, 2) of one word whose parts are quads (2, 4, 2): the smallest rectangle around both."""
    points = quads.reshape(-1, 2)
    # One side of the smallest rectangle runs through two of the points: all pairs are tried.
    along = (points[:, None] - points)[np.triu_indices(len(points), 1)]
    length = np.hypot(*along.T)
    along = np.concatenate((along[length > 0] / length[length > 0, None], [[1.0, 0]]))  # (p, 2), of length 1
    axes = np.stack((along, along[:, ::-1] * (-1, 1)), 1)  # (p, 2 axes, 2)
    spread = axes @ points.T  # (p, 2 axes, points)
    low, high = spread.min(2), spread.max(2)
    best = np.prod(high - low, 1).argmin()
    (u0, v0), (u1, v1) = low[best], high[best]
    return ordered((np.array([(u0, v0), (u1, v0), (u1, v1), (u0, v1)]) @ axes[best])[None])[0]


def _is_cut(rows: np.ndarray, sight: np.ndarray, whole: View) -> np.ndarray:
    """(n,) bool: the box ends at a border of its view inside the picture."""
    touches = np.abs(rows[:, :4] - sight) < TOUCH
    return (touches & (sight != np.array(whole))).any(1)


def _same_text(rows: np.ndarray, sight: np.ndarray) -> np.ndarray:
    """(n,) bool: which boxes show the text of the first one, seen from elsewhere."""
    low, high = np.maximum(sight[0, :2], sight[:, :2]), np.minimum(sight[0, 2:], sight[:, 2:])
    common = np.concatenate((low, np.maximum(low, high)), 1)  # without area where the two views share nothing
    least, most = common[:, [0, 1, 0, 1]], common[:, [2, 3, 2, 3]]
    boxes, first = rows[:, :4].clip(least, most), rows[0, :4].clip(least, most)
    shared = np.minimum(boxes[:, 2:], first[:, 2:]) - np.maximum(boxes[:, :2], first[:, :2])
    areas = np.minimum(np.prod(boxes[:, 2:] - boxes[:, :2], 1), np.prod(first[:, 2:] - first[:, :2], 1))
    same = shared.clip(min=0).prod(1) > SAME_TEXT * areas
    elsewhere = (sight != sight[0]).any(1)
    same &= elsewhere & (rows[:, 5] == rows[0, 5])
    if has_quads(rows) and same.any():
        same[same] = _quads_overlap(corners_of(rows), common, np.flatnonzero(same))
    return same


def _quads_overlap(quads: np.ndarray, common: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether the first quad and each of `others`, cut to what both views see, share most of the smaller one."""
    second, sight = quads[others], common[others]
    window = corners_of(sight)
    first = cut(np.broadcast_to(quads[:1], second.shape), window)
    areas = np.minimum(signed_areas(first), signed_areas(cut(second, window)))
    return signed_areas(cut(first, second)) > SAME_TEXT * areas
