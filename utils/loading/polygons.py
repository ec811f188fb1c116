"""Polygons (n, P, 2): their areas, what of them lies inside an image, whether their edges cross. Needs no torch."""

import numpy as np

from ocrdistill.quads import kept_points, signed_areas


def polygon_areas(polygons: np.ndarray) -> np.ndarray:
    """(n, P, 2) -> (n,) areas, whatever the direction of the corners."""
    return np.abs(signed_areas(polygons))


def clip_polygons(polygons: np.ndarray, width: float, height: float) -> np.ndarray:
    """Cut polygons (n, P, 2) to 0..width, 0..height, side by side (Sutherland & Hodgman 1974), all at once.

    Exact for convex polygons; a concave one may keep edges without area along the border. A polygon that lies
    outside shrinks to a point.

    Returns:
        (n, Q, 2), the last corner repeated where a polygon has fewer than Q.
    """
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        polygons = _keep_side(polygons, axis, limit, sign)
    return polygons


def _keep_side(polygons: np.ndarray, axis: int, limit: float, sign: int) -> np.ndarray:
    """Cut away what lies beyond one line: x or y (axis) below (sign 1) or above (sign -1) the limit."""
    distance = sign * (polygons[..., axis] - limit)  # (n, P)
    inside = distance >= 0
    if inside.all():
        return polygons
    crossing = inside != np.roll(inside, -1, 1)  # on the edge from this corner to the next
    step = np.where(crossing, distance - np.roll(distance, -1, 1), 1)
    cuts = polygons + (distance / step)[..., None] * (np.roll(polygons, -1, 1) - polygons)
    cuts[..., axis] = limit

    # Each corner is followed by the cut on its edge.
    points = np.stack((polygons, cuts), 2).reshape(len(polygons), 2 * polygons.shape[1], 2)
    keep = np.stack((inside, crossing), 2).reshape(points.shape[:2])
    return kept_points(points, keep, max(int(keep.sum(1).max()), 1))


def crosses_itself(polygon: np.ndarray) -> bool:
    """Whether two edges of a polygon (p, 2) that are no neighbours cross."""
    start, end = polygon, np.roll(polygon, -1, 0)

    def side(points: np.ndarray) -> np.ndarray:  # (p, 2) -> (p, p): of each edge (row), where each point lies
        (x, y), (along_x, along_y) = np.moveaxis(points[None] - start[:, None], 2, 0), (end - start).T[..., None]
        return np.sign(along_x * y - along_y * x)

    parted = side(start) * side(end) < 0  # the line through an edge parts another edge's ends
    return bool((parted & parted.T).any())


def opened(polygon: np.ndarray) -> np.ndarray:
    """A polygon (p, 2) without a last corner that repeats the first, as closed rings have. Four corners stay four."""
    return polygon[:-1] if len(polygon) > 4 and (polygon[0] == polygon[-1]).all() else polygon


def uncrossed(polygon: np.ndarray) -> np.ndarray:
    """A polygon (p, 2); four corners whose edges cross, as row by row they do, in the order around their quad."""
    if len(polygon) != 4 or not crosses_itself(polygon):
        return polygon
    orders = ((0, 1, 3, 2), (0, 2, 1, 3))
    return next(polygon[list(order)] for order in orders if not crosses_itself(polygon[list(order)]))
