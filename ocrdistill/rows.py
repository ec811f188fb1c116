"""What is found, as rows: their corners, levelled crops, and boxes of the words as if their lines were level.

A row is x1, y1, x2, y2, confidence, class, and of a network with quads x, y of the corners TL, TR, BR, BL, clockwise
from where reading begins; all in pixels of the image.
"""

import math
from typing import Any

import numpy as np

from ocrdistill.reading_order import reading_order

BOX_ROW, QUAD_ROW = 6, 14
CROPPED_AT_ONCE = 1 << 18  # pixels; each needs some 140 bytes meanwhile


def corners_of(rows: np.ndarray) -> np.ndarray:
    """Rows (n, 14) -> quads (n, 4, 2); of other rows, which begin with a box, the corners of the boxes."""
    if rows.shape[1] == QUAD_ROW:
        return rows[:, BOX_ROW:].reshape(-1, 4, 2)
    return rows[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def has_quads(rows: np.ndarray) -> bool:
    """Whether rows have corners."""
    return rows.shape[1] == QUAD_ROW


def as_detection(
    box: np.ndarray, quad: np.ndarray, score: float, category: int, name: str, line: int
) -> dict[str, Any]:
    """A word as plain data, as detections.json has it."""
    found = {'box': box.tolist(), 'quad': quad.tolist(), 'score': float(score), 'class': int(category)}
    return found | {'name': name, 'line': int(line)}


def in_reading_order(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 6) or (n, 14) as people read them, and the number (n,) of the line of text that each is on."""
    lines = reading_order(levelled_boxes(corners_of(rows)) if has_quads(rows) else rows[:, :4])
    order = [word for line in lines for word in line]
    return rows[order], np.repeat(np.arange(len(lines)), [len(line) for line in lines])


def levelled_boxes(quads: np.ndarray) -> np.ndarray:
    """Upright boxes (n, 4) of quads (n, 4, 2) that were turned so that the text lies level.

    The turn is the median direction of the upper and lower sides, each as often as it is long, but none more often than
    the median of these: one long sign that runs down a wall turns no page.
    """
    if not len(quads):
        return np.zeros((0, 4))
    along = (quads[:, 1] - quads[:, 0]) + (quads[:, 2] - quads[:, 3])
    angles, lengths = np.arctan2(along[:, 1], along[:, 0]), np.hypot(*along.T)
    # Angles from the mean direction, so that those of upside-down text are not split in two at half a turn.
    mean = np.arctan2(*along.sum(0)[::-1])
    angles = (angles - mean + np.pi) % (2 * np.pi) - np.pi
    order = np.argsort(angles)
    often = lengths[order].clip(max=np.median(lengths))
    middle = np.searchsorted(often.cumsum(), often.sum() / 2)
    angle = angles[order][middle] + mean
    cos, sin = np.cos(angle), np.sin(angle)
    turned = quads @ np.array([[cos, -sin], [sin, cos]])
    return np.concatenate((turned.min(1), turned.max(1)), 1)


def level_crop(image: np.ndarray, quad: np.ndarray, margin: float) -> np.ndarray:
    """A word made level by perspective.

    Args:
        image: (H, W, 3) uint8.
        quad: (4, 2) TL, TR, BR, BL in pixels.
        margin: around the word, as a fraction of its height, or of twice its width where that is less, as of words
            that run down; it follows the word's sides.

    Returns:
        (h, w, 3), as wide and high as the longer of the quad's opposite sides, and the margin. What lies outside the
        image repeats its border.
    """
    quad = quad.astype(float)
    top, right, bottom, left = np.linalg.norm(np.roll(quad, -1, 0) - quad, axis=1).tolist()
    width, height = max(top, bottom, 1.0), max(left, right, 1.0)
    border = margin * min(height, 2 * width)
    size = max(round(width + 2 * border), 1), max(round(height + 2 * border), 1)
    inner = np.array([(0, 0), (width, 0), (width, height), (0, height)]) + border
    matrix, rows = _perspective(inner, quad), max(CROPPED_AT_ONCE // size[0], 1)
    parts = []
    for first in range(0, size[1], rows):
        x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(first, min(first + rows, size[1])) + 0.5)
        points = _project(matrix, np.stack((x.ravel(), y.ravel()), 1))
        parts.append(_sample(image, points).reshape(-1, size[0], 3))
    return np.concatenate(parts)


def _perspective(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 3x3 matrix that takes four points (4, 2) to four others."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -x * u, -y * u), (0, 0, 0, x, y, 1, -x * v, -y * v)]
        values += [u, v]
    # Least squares: a quad without area has no one solution, and still gets a crop.
    return np.append(np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0], 1).reshape(3, 3)


def _project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (n, 2) through a 3x3 matrix."""
    x, y, w = (np.column_stack((points, np.ones(len(points)))) @ matrix.T).T
    return np.stack((x, y), 1) / np.where(np.abs(w) < 1e-9, 1e-9, w)[:, None]


def _sample(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Colours (n, 3) uint8 at points (n, 2) of an image (H, W, 3), linear between its pixels' centres."""
    last = np.array(image.shape[1::-1]) - 1
    places = np.nan_to_num(points - 0.5).clip(0, last)
    low = np.minimum(places.astype(int), np.maximum(last - 1, 0))
    right, down = (places - low).astype(np.float32).T[..., None]
    (x0, y0), (x1, y1) = low.T, np.minimum(low + 1, last).T
    upper = image[y0, x0] * (1 - right) + image[y0, x1] * right
    lower = image[y1, x0] * (1 - right) + image[y1, x1] * right
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)


def upright_crop(image: np.ndarray, box: list[float], margin: float) -> np.ndarray:
    """What lies in a box (x1, y1, x2, y2), in whole pixels, and a margin around it as a fraction of its height."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box
    border = margin * (y2 - y1)
    left, top = max(math.floor(x1 - border), 0), max(math.floor(y1 - border), 0)
    right, bottom = min(math.ceil(x2 + border), width), min(math.ceil(y2 + border), height)
    return image[top:bottom, left:right]
