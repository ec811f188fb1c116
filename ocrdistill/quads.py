"""Quadrilaterals of words in NumPy: from boxes and edges, their order of corners, areas and overlaps.

The forms are those of utils/quads.py, which computes the same in PyTorch, for training and with gradients.
"""

import numpy as np

SMALL = 1e-9
NEXT = [1, 2, 3, 0]  # corner


def decode(boxes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) xyxy and edges (n, 4) t, b, l, r -> quads (n, 4, 2): TL, TR, BR, BL.

    t and b say how far the upper and lower side climb down, as a share of the box's height; l and r how far the left
    and right one lean right, as a share of its width.
    """
    x0, y0, x1, y1 = boxes.T
    width, height = x1 - x0, y1 - y0
    t, b, left, r = edges.clip(min=0).T
    minus_t, minus_b, minus_left, minus_r = (-edges).clip(min=0).T
    corners = (
        (x0 + minus_left * width, y0 + minus_t * height),
        (x1 - r * width, y0 + t * height),
        (x1 - minus_r * width, y1 - minus_b * height),
        (x0 + left * width, y1 - b * height),
    )
    return np.stack([np.stack(corner, -1) for corner in corners], -2)


def ordered(quads: np.ndarray) -> np.ndarray:
    """(n, 4, 2) -> the same corners clockwise on the screen, from the one that makes them lie nearest to the box's."""
    clockwise = _clockwise(quads)
    low, high = quads.min(1), quads.max(1)
    box = np.stack((low, np.stack((high[:, 0], low[:, 1]), 1), high, np.stack((low[:, 0], high[:, 1]), 1)), 1)
    turns = np.stack([np.roll(clockwise, -turn, 1) for turn in range(4)], 1)  # (n, 4 turns, 4, 2)
    nearest = np.square(turns - box[:, None]).sum((2, 3)).argmin(1)
    return turns[np.arange(len(quads)), nearest]


def signed_areas(polygons: np.ndarray) -> np.ndarray:
    """(n, p, 2) -> (n,) areas; positive where the corners go clockwise on the screen."""
    x, y = (polygons[:, 1:] - polygons[:, :1]).T  # (p - 1, n): the first corner is 0
    return (x[:-1] * y[1:] - x[1:] * y[:-1]).sum(0) / 2


def quad_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of each pair of convex quads, (n, 4, 2) and (n, 4, 2) -> (n,) float64, 0 for quads without area."""
    centre = (a.mean(1, keepdims=True) + b.mean(1, keepdims=True)) / 2  # rounding is least around 0
    a, b = (_clockwise((quads - centre).astype(np.float64)) for quads in (a, b))
    area_a, area_b = signed_areas(a), signed_areas(b)
    # The border of what they share is a's within b and b's within a, so its area is a sum over both (Green's theorem).
    # Of sides that lie on each other a's alone count, and only where both quads are on the same side of them. No more
    # than the smaller quad: sides of no length bound nothing.
    shared = _area_along(a, b, True) + _area_along(b, a, False)
    shared = shared.clip(0, np.minimum(area_a, area_b))
    return shared / (area_a + area_b - shared).clip(min=SMALL)


def _area_along(quads: np.ndarray, within: np.ndarray, count: bool) -> np.ndarray:
    """What the parts of the sides of clockwise quads (n, 4, 2) within others add to the area that they enclose: (n,).

    The parts are found as Cyrus and Beck (1978) clip lines. `count`: also those on a side that has the same direction.
    """
    (x, y), (u, v) = np.ascontiguousarray(quads.T), np.ascontiguousarray(within.T)  # (4, n) each
    dx, dy, du, dv = (values[NEXT] - values for values in (x, y, u, v))
    margin = (du * dx[:, None] + dv * dy[:, None]) * (SMALL / np.hypot(dx, dy).clip(min=SMALL))[:, None]
    margin = margin if count else -np.abs(margin)  # (4 sides of quads, 4 of within, n): most where they are parallel
    inside = du * (y[:, None] - v) - dv * (x[:, None] - u) + margin
    change = du * dy[:, None] - dv * dx[:, None]
    with np.errstate(all='ignore'):
        crossing = -inside / change  # as a share of the side
    start = np.where(change > 0, crossing, (change == 0) & (inside < 0)).max(1).clip(min=0)
    end = np.where(change < 0, crossing, 1).min(1).clip(max=1)
    return ((end - start).clip(min=0) * (x * dy - y * dx)).sum(0) / 2


def pairwise_quad_iou(a: np.ndarray, b: np.ndarray, above: float, wanted: np.ndarray | bool) -> np.ndarray:
    """IoU of the wanted (n, m) pairs of quads (n, 4, 2) and (m, 4, 2) -> (n, m), 0 where it cannot exceed `above`.

    Quads share at most what their upright boxes do, and IoU > t means that they share more than t / (1 + t) of both
    areas' sum: few pairs are left to be cut.
    """
    shared = shared_by_boxes(*(np.concatenate((quads.min(1), quads.max(1)), 1) for quads in (a, b)))
    areas = np.abs(signed_areas(a))[:, None] + np.abs(signed_areas(b))
    row, column = np.nonzero((shared > above / (1 + above) * areas) & wanted)
    result = np.zeros_like(shared)
    result[row, column] = quad_iou(a[row], b[column])
    return result


def shared_by_boxes(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Areas that boxes (n, 4) and (m, 4) xyxy share: (n, m)."""
    x0, y0, x1, y1 = np.ascontiguousarray(a.T)[:, :, None]
    u0, v0, u1, v1 = np.ascontiguousarray(b.T)
    width, height = np.minimum(x1, u1) - np.maximum(x0, u0), np.minimum(y1, v1) - np.maximum(y0, v0)
    return width.clip(min=0) * height.clip(min=0)


def cut(polygons: np.ndarray, by: np.ndarray) -> np.ndarray:
    """What of convex polygons (n, p, 2) lies inside convex clockwise quads (n, 4, 2): (n, p + 4, 2).

    Corners that a polygon has fewer are repetitions of its last one; where nothing is left all are one point.
    """
    for side in range(4):
        start, end = by[:, side], by[:, (side + 1) % 4]
        along = (end - start)[:, None]
        offset = polygons - start[:, None]
        distance = along[..., 0] * offset[..., 1] - along[..., 1] * offset[..., 0]  # (n, p), positive inside
        inside, beyond = distance >= 0, np.roll(distance, -1, 1)
        crossing = inside != np.roll(inside, -1, 1)  # on the edge from this corner to the next
        step = np.where(crossing, distance / np.where(crossing, distance - beyond, 1), 0)
        cuts = polygons + step[..., None] * (np.roll(polygons, -1, 1) - polygons)
        points = np.stack((polygons, cuts), 2).reshape(
            len(polygons), 2 * polygons.shape[1], 2
        )  # corner, cut, corner ...
        keep = np.stack((inside, crossing), 2).reshape(points.shape[:2])
        polygons = kept_points(points, keep, polygons.shape[1] + 1)
    return polygons


def kept_points(points: np.ndarray, keep: np.ndarray, count: int) -> np.ndarray:
    """The first `count` points (n, k, 2) that keep (n, k) says, in their order; the last fills what remains."""
    order = np.argsort(~keep, 1, kind='stable')
    last = (keep.sum(1, keepdims=True) - 1).clip(0, count - 1)
    order = np.take_along_axis(order, np.minimum(np.arange(count), last), 1)
    return np.take_along_axis(points, order[..., None], 1)


def _clockwise(quads: np.ndarray) -> np.ndarray:
    return np.where((signed_areas(quads) < 0)[:, None, None], quads[:, ::-1], quads)
