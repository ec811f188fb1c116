"""From a network's decoded output to the words of one image: threshold and non-maximum suppression, in NumPy."""

from collections.abc import Callable

import numpy as np

from ocrdistill.quads import decode, pairwise_quad_iou, shared_by_boxes

BOX_IOU, QUAD_IOU = 0.45, 0.3  # overlap above which two boxes, or two quads, are one word (docs/quads.md)
UPRIGHT_IOU = 0.8  # of upright boxes that are taken for one word before their quads are compared
AT_ONCE = 64  # that are compared to all others: memory grows with their number
MAX_CANDIDATES = 30_000  # boxes of one image that enter NMS at most, the most confident first


def usual_iou(quads: bool) -> float:
    """The overlap above which the worse of two goes, unless another one is asked for."""
    return QUAD_IOU if quads else BOX_IOU


def select(decoded: np.ndarray, nc: int, conf_thres: float, iou_thres: float) -> np.ndarray:
    """Boxes of one image, best first, without those that overlap a better one of their class.

    Args:
        decoded: (M, 5 + nc) float32: x, y, w, h in pixels, objectness, class scores (0..1); of a head with quads
            (M, 5 + nc + 4), the edges at the end.
        nc: number of classes.
        conf_thres: confidence (objectness * class score) that a box must exceed.
        iou_thres: overlap above which the worse of two goes. It is that of the quads where there are some, so that
            words which lean side by side do not drop each other; boxes over UPRIGHT_IOU are one word all the same.

    Returns:
        (n, 6) float32: x1, y1, x2, y2, confidence, class; with quads (n, 14): the corners too.
    """
    rows = decoded[decoded[:, 4] > conf_thres]  # most cells end here
    scores = rows[:, 5 : 5 + nc] * rows[:, 4:5]  # (m, nc)
    category, confidence = scores.argmax(1), scores.max(1, initial=0)
    best = np.flatnonzero(confidence > conf_thres)
    best = best[np.argsort(-confidence[best], kind='stable')[:MAX_CANDIDATES]]
    rows, category, confidence = rows[best], category[best], confidence[best]
    half = rows[:, 2:4] / 2
    boxes = np.concatenate((rows[:, :2] - half, rows[:, :2] + half), 1)
    quads = decoded.shape[1] > 5 + nc
    keep = class_nms(boxes, category, max(iou_thres, UPRIGHT_IOU) if quads else iou_thres)
    parts = [boxes[keep], confidence[keep, None], category[keep, None].astype(np.float32)]
    if quads:
        corners = decode(boxes[keep], rows[keep, 5 + nc :])
        alone = quad_nms(corners, category[keep], iou_thres)
        parts = [part[alone] for part in (*parts, corners.reshape(-1, 8))]
    return np.concatenate(parts, 1)


def class_nms(boxes: np.ndarray, category: np.ndarray, iou_thres: float) -> np.ndarray:
    """Indices of the boxes (n, 4), best first, that no better one of their class (n,) overlaps by over iou_thres."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1)

    def overlap(some: np.ndarray, left: np.ndarray) -> np.ndarray:
        shared = shared_by_boxes(boxes[some], boxes[left])
        # As a product, not a quotient: a box without area overlaps nothing.
        over = shared > iou_thres * (areas[some, None] + areas[left] - shared)
        return over & (category[some, None] == category[left])

    return _greedy(len(boxes), overlap)


def quad_nms(quads: np.ndarray, category: np.ndarray, iou_thres: float) -> np.ndarray:
    """The same of quads (n, 4, 2)."""

    def overlap(some: np.ndarray, left: np.ndarray) -> np.ndarray:
        wanted = np.triu(category[some, None] == category[left], 1)  # `left` begins with `some`
        return pairwise_quad_iou(quads[some], quads[left], iou_thres, wanted) > iou_thres

    return _greedy(len(quads), overlap)


def _greedy(count: int, overlap: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Indices of those of `count` things, best first, that stay: overlap(some, left) says which of some (n,) and left
    (m,) are one word, (n, m) bool. Of these the worse one goes if the better one stays."""
    kept, left = [np.zeros(0, int)], np.arange(count)
    while len(left):
        some, rest = left[:AT_ONCE], left[AT_ONCE:]
        over = overlap(some, left)
        stays = [True] * len(some)
        for first, second in np.argwhere(np.triu(over[:, : len(some)], 1)).tolist():  # `first` is decided by then
            if stays[first]:
                stays[second] = False
        kept.append(some[stays])
        left = rest[~over[stays, len(some) :].any(0)]
    return np.concatenate(kept)
