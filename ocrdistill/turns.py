"""Text that is turned by 90, 180 or 270 degrees: an image is looked at as it is and on its side.

The turn with more words, by the sum of their scores, is the way the image lies. In the other one the network takes many
things for words. So of its words only those count that are clearly wider than high in it, as real ones mostly are.

Upside-down text looks to the networks as upright text does: their scores are a coin toss between the two. So half turns
are not looked at, and what reads from left to right or from top to bottom is taken for the way the text runs.
"""

from collections.abc import Callable

import numpy as np

from ocrdistill.nms import class_nms, quad_nms
from ocrdistill.rows import BOX_ROW, corners_of, has_quads

TURNS = 2  # quarter turns that are looked at
WIDE = 1.5  # times as wide as high, by its upright box, is a word that counts in the turn with fewer words


def detect_turned(
    image: np.ndarray, detect: Callable[[list[np.ndarray]], list[np.ndarray]], iou_thres: float, max_det: int
) -> np.ndarray:
    """Words of an image, each in the turn in which it is surer.

    Args:
        image: (H, W, 3) uint8 RGB.
        detect: takes a list of such images, returns rows (n, 6) or (n, 14) of each (ocrdistill.rows).
        iou_thres: overlap above which the less sure of two words of a class goes.
        max_det: words kept at most.

    Returns:
        Rows in pixels of the image as it is, best first. Corners begin where reading begins, unless the text stands on
        its head or runs upwards.
    """
    height, width = image.shape[:2]
    views = [np.ascontiguousarray(np.rot90(image, turn)) for turn in range(TURNS)]
    found = detect(views)
    main = int(np.argmax([rows[:, 4].sum() for rows in found]))
    kept = [rows if turn == main else rows[_are_wide(rows)] for turn, rows in enumerate(found)]
    rows = np.concatenate([turned_back(rows, turn, width, height) for turn, rows in enumerate(kept)])
    rows = rows[np.argsort(-rows[:, 4], kind='stable')]
    if not len(rows):
        return rows
    if has_quads(rows):
        keep = quad_nms(corners_of(rows), rows[:, 5], iou_thres)
    else:
        keep = class_nms(rows[:, :4], rows[:, 5], iou_thres)
    return rows[keep][:max_det]


def _are_wide(rows: np.ndarray) -> np.ndarray:
    """(n,) whether each box is WIDE times as wide as high."""
    width, height = (rows[:, 2:4] - rows[:, :2]).T
    return width >= WIDE * height


def turned_back(rows: np.ndarray, turn: int, width: int, height: int) -> np.ndarray:
    """Rows that were found in an image after np.rot90(image, turn), in pixels of the image (width, height) itself."""
    result = rows.copy()
    ends = _turned_points(rows[:, :4].reshape(-1, 2, 2), turn, width, height)
    result[:, :4] = np.concatenate((ends.min(1), ends.max(1)), 1).round(2)  # a difference has digits of its own
    if has_quads(rows):
        result[:, BOX_ROW:] = _turned_points(corners_of(rows), turn, width, height).reshape(-1, 8).round(2)
    return result


def _turned_points(points: np.ndarray, turn: int, width: int, height: int) -> np.ndarray:
    """Points (..., 2) of a turned image in the image itself."""
    x, y = points[..., 0], points[..., 1]
    return np.stack(((x, y), (width - y, x), (width - x, height - y), (y, height - x))[turn], -1)
