"""From a network's decoded output to the words of one image: threshold and non-maximum suppression, in NumPy."""

import numpy as np

from ocrdistill.quads import decode, pairwise_quad_iou, shared_by_boxes

BOX_IOU, QUAD_IOU = 0.45, 0.3  # overlap above which two boxes, or two quads, are one word (docs/quads.md)
UPRIGHT_IOU = 0.8  # of upright boxes that are taken for one word before their quads are compared
QUADS_AT_ONCE = 1000  # that are compared to all others: memory grows with their number
BOXES_AT_ONCE = 64  # likewise, of boxes
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
    kept, left = [np.zeros(0, int)], np.arange(len(boxes))
    while len(left):
        some, rest = left[:BOXES_AT_ONCE], left[BOXES_AT_ONCE:]
        shared = shared_by_boxes(boxes[some], boxes[left])
        # As a product, not a quotient: a box without area overlaps nothing.
        over = shared > iou_thres * (areas[some, None] + areas[left] - shared)
        over &= category[some, None] == category[left]
        alone = _alone(np.argwhere(np.triu(over[:, : len(some)], 1)), len(some))
        kept.append(some[alone])
        left = rest[~over[alone, len(some) :].any(0)]
    return np.concatenate(kept)


def quad_nms(quads: np.ndarray, category: np.ndarray, iou_thres: float) -> np.ndarray:
    """Which quads (n, 4, 2), best first, no better one of their class (n,) overlaps by over iou_thres: (n,) bool."""
    over = [np.zeros((0, 2), int)]
    for start in range(0, len(quads), QUADS_AT_ONCE):
        some, rest = slice(start, start + QUADS_AT_ONCE), slice(start, None)
        ahead = np.triu(category[some, None] == category[rest], 1)
        found = pairwise_quad_iou(quads[some], quads[rest], iou_thres, ahead) > iou_thres
        over.append(np.argwhere(found) + start)
    return _alone(np.concatenate(over), len(quads))


def _alone(over: np.ndarray, count: int) -> np.ndarray:
    """Which of `count` things stay, (count,) bool: of each pair (k, 2) that is one word, by its better and in their
    order, the worse one goes if the better one stays."""
    keep = [True] * count
    for first, second in over.tolist():  # whether the better one stays is known then
        if keep[first]:
            keep[second] = False
    return np.array(keep, bool)
