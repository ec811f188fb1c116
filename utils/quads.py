"""Word quadrilaterals as an upright box and four signed edges, and the IoU of quads. PyTorch, float32.

A quad has the corners TL, TR, BR, BL, clockwise on the screen (y points down), in the cyclic order that lies nearest to
the corners of its upright box. With W, H the box's sides, its edges say how far each side of the quad leans:

    t = (y_TR - y_TL) / H   b = (y_BR - y_BL) / H   l = (x_BL - x_TL) / W   r = (x_BR - x_TR) / W    each in -1..1

Zero is the upright box. The form is exact where each side of the box has a corner of the quad at the end that its edges
say, as almost all words have, and continuous through level text; it jumps only at 45 degrees.
"""

import torch
from torch import Tensor

SMALL = 1e-9


def encode(quads: Tensor) -> tuple[Tensor, Tensor]:
    """Quads (N, 4, 2) x, y in either direction from any corner -> boxes (N, 4) xyxy and edges (N, 4) t, b, l, r."""
    low, high = quads.amin(1), quads.amax(1)  # (N, 2)
    boxes = torch.cat((low, high), 1)
    corners = ordered(quads)
    top_left, top_right, bottom_right, bottom_left = corners.unbind(1)
    lean = torch.stack(
        (
            (top_right - top_left)[:, 1],
            (bottom_right - bottom_left)[:, 1],
            (bottom_left - top_left)[:, 0],
            (bottom_right - top_right)[:, 0],
        ),
        1,
    )
    width, height = (high - low).clamp(min=SMALL).unbind(1)
    return boxes, (lean / torch.stack((height, height, width, width), 1)).clamp(-1, 1)


def decode(boxes: Tensor, edges: Tensor) -> Tensor:
    """Boxes (N, 4) xyxy and edges (N, 4) t, b, l, r -> quads (N, 4, 2): TL, TR, BR, BL."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    width, height = x1 - x0, y1 - y0
    t, b, left, r = edges.clamp(min=0).unbind(-1)
    minus_t, minus_b, minus_left, minus_r = (-edges).clamp(min=0).unbind(-1)
    corners = (
        (x0 + minus_left * width, y0 + minus_t * height),
        (x1 - r * width, y0 + t * height),
        (x1 - minus_r * width, y1 - minus_b * height),
        (x0 + left * width, y1 - b * height),
    )
    return torch.stack([torch.stack(corner, -1) for corner in corners], -2)


def ordered(quads: Tensor) -> Tensor:
    """(N, 4, 2) -> the same corners clockwise on the screen, from the one that makes them lie nearest to the box's."""
    clockwise = _clockwise(quads)
    low, high = quads.amin(1), quads.amax(1)
    box = torch.stack((low, torch.stack((high[:, 0], low[:, 1]), 1), high, torch.stack((low[:, 0], high[:, 1]), 1)), 1)
    turns = torch.stack([clockwise.roll(-turn, 1) for turn in range(4)], 1)  # (N, 4 turns, 4, 2)
    nearest = (turns - box[:, None]).square().sum((2, 3)).argmin(1)
    return turns[torch.arange(len(quads), device=quads.device), nearest]


def signed_areas(polygons: Tensor) -> Tensor:
    """(N, P, 2) -> (N,) areas; positive where the corners go clockwise on the screen."""
    x, y = (polygons - polygons[:, :1]).unbind(-1)
    return (x * y.roll(-1, 1) - x.roll(-1, 1) * y).sum(1) / 2


def quad_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of each pair of convex quads, (N, 4, 2) and (N, 4, 2) -> (N,), 0 for quads without area; differentiable.

    The first is cut by the four sides of the second (Sutherland & Hodgman 1974), all pairs at once.
    """
    centre = (a.detach().mean(1, keepdim=True) + b.detach().mean(1, keepdim=True)) / 2  # rounding is least around 0
    a, b = (_clockwise((quad - centre).float()) for quad in (a, b))
    area_a, area_b = signed_areas(a), signed_areas(b)
    # No more than the smaller one: sides of no length cut nothing away.
    shared = torch.minimum(signed_areas(cut(a, b)).clamp(min=0), torch.minimum(area_a, area_b))
    union = area_a + area_b - shared
    return shared / union.clamp(min=SMALL)


def _clockwise(quads: Tensor) -> Tensor:
    return torch.where((signed_areas(quads) < 0)[:, None, None], quads.flip(1), quads)


def cut(polygons: Tensor, by: Tensor) -> Tensor:
    """What of convex polygons (N, P, 2) lies inside convex clockwise quads (N, 4, 2): (N, P + 4, 2).

    Corners that a polygon has fewer are repetitions of its last one; where nothing is left all are one point.
    """
    for side in range(4):
        start, end = by[:, side], by[:, (side + 1) % 4]
        along = (end - start)[:, None]
        offset = polygons - start[:, None]
        distance = along[..., 0] * offset[..., 1] - along[..., 1] * offset[..., 0]  # (N, P), positive inside
        inside, beyond = distance >= 0, distance.roll(-1, 1)
        crossing = inside != inside.roll(-1, 1)  # on the edge from this corner to the next
        step = distance / torch.where(crossing, distance - beyond, 1)
        cuts = polygons + torch.where(crossing, step, 0)[..., None] * (polygons.roll(-1, 1) - polygons)
        points = torch.stack((polygons, cuts), 2).flatten(1, 2)  # (N, 2 P, 2): each corner, the cut on its edge
        polygons = _kept(points, torch.stack((inside, crossing), 2).flatten(1), polygons.shape[1] + 1)
    return polygons


def _kept(points: Tensor, keep: Tensor, count: int) -> Tensor:
    """The first `count` points (N, K, 2) that keep (N, K) says, in their order; the last fills what remains."""
    slot = torch.where(keep, keep.cumsum(1) - 1, count).clamp(max=count)
    number = torch.arange(points.shape[1], device=points.device).expand_as(slot)
    order = slot.new_zeros(len(points), count + 1).scatter_(1, slot, number)[:, :count]
    last = (keep.sum(1, keepdim=True) - 1).clamp(0, count - 1)
    filled = torch.minimum(torch.arange(count, device=points.device).expand_as(order), last)
    return points.gather(1, order.gather(1, filled)[..., None].expand(-1, -1, 2))
