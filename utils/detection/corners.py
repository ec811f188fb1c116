"""The four corners of found words: read from rows, levelled crops, and boxes of the words as if their lines were level.

A row is x1, y1, x2, y2, confidence, class, and of a network with quads x, y of the corners TL, TR, BR, BL, clockwise
from where reading begins; all in pixels of the image.
"""

import math

import cv2
import numpy as np

BOX_ROW, QUAD_ROW = 6, 14


def corners_of(rows: np.ndarray) -> np.ndarray:
    """Rows (n, 6) or (n, 14) -> quads (n, 4, 2); without quads the corners of the boxes."""
    if rows.shape[1] == QUAD_ROW:
        return rows[:, BOX_ROW:].reshape(-1, 4, 2)
    return rows[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def has_quads(rows: np.ndarray) -> bool:
    """Whether rows have corners."""
    return rows.shape[1] == QUAD_ROW


def levelled_boxes(quads: np.ndarray) -> np.ndarray:
    """Upright boxes (n, 4) of quads (n, 4, 2) that were turned so that the text lies level.

    The turn is the median direction of the upper and lower sides, each as often as it is long.
    """
    if not len(quads):
        return np.zeros((0, 4))
    along = (quads[:, 1] - quads[:, 0]) + (quads[:, 2] - quads[:, 3])
    angles, lengths = np.arctan2(along[:, 1], along[:, 0]), np.hypot(*along.T)
    order = np.argsort(angles)
    middle = np.searchsorted(lengths[order].cumsum(), lengths.sum() / 2)
    cos, sin = np.cos(angles[order][middle]), np.sin(angles[order][middle])
    turned = quads @ np.array([[cos, -sin], [sin, cos]])
    return np.concatenate((turned.min(1), turned.max(1)), 1)


def level_crop(image: np.ndarray, quad: np.ndarray, margin: float) -> np.ndarray:
    """A word made level by perspective.

    Args:
        image: (H, W, 3) uint8.
        quad: (4, 2) TL, TR, BR, BL in pixels.
        margin: around the word, as a fraction of its height; it follows the word's sides.

    Returns:
        (h, w, 3), as wide and high as the longer of the quad's opposite sides, and the margin. What lies outside the
        image repeats its border.
    """
    quad = quad.astype(np.float32)
    top, right, bottom, left = (np.linalg.norm(quad[(i + 1) % 4] - quad[i]) for i in range(4))
    width, height = max(top, bottom, 1), max(left, right, 1)
    border = margin * height
    size = max(round(width + 2 * border), 1), max(round(height + 2 * border), 1)
    inner = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32) + border
    # OpenCV's coordinates are 0 at the centre of the first pixel, ours at its corner.
    matrix = cv2.getPerspectiveTransform(quad - 0.5, inner.astype(np.float32) - 0.5)
    return cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def upright_crop(image: np.ndarray, box: list[float], margin: float) -> np.ndarray:
    """What lies in a box (x1, y1, x2, y2), in whole pixels, and a margin around it as a fraction of its height."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box
    border = margin * (y2 - y1)
    left, top = max(math.floor(x1 - border), 0), max(math.floor(y1 - border), 0)
    right, bottom = min(math.ceil(x2 + border), width), min(math.ceil(y2 + border), height)
    return image[top:bottom, left:right]
