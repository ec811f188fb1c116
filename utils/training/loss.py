"""YOLOv5's detection loss: which cells answer for which target, and the box, objectness and class terms; for a head
with quads also the terms of edges and quads."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.yolo import DetectionModel
from utils.boxes import ciou_miss, numbers, union_by_image, xywh_to_xyxy
from utils.quads import decode, quad_iou

OBJECTNESS_BALANCE = (4.0, 1.0, 0.4)  # weights of strides 8, 16 and 32 (YOLOv5)
EDGE_BETA = 0.1  # of an edge's SmoothL1: errors below are squared
FOCAL_ALPHA = 0.25  # Lin et al. 2017, section 4.1
# A target belongs to its own cell and to the nearer neighbour in x and in y: own, left, upper, right, lower.
OFFSETS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5))


def scaled_gains(hyp: dict, nc: int, imgsz: int, quads: bool = False) -> dict[str, float]:
    """The terms' weights as YOLOv5 scales them: cls by nc / 80, obj by (imgsz / 640)^2."""
    gains = {'box': hyp['box'], 'obj': hyp['obj'] * (imgsz / 640) ** 2, 'cls': hyp['cls'] * nc / 80}
    return gains | ({'edge': hyp['edge'], 'quad': hyp['quad']} if quads else {})


class DetectionLoss:
    """YOLOv5's three terms (with quads two more), unweighted, each a mean over the batch (float32).

    Args:
        model: gives anchors, strides and the number of classes.
        hyp: anchor_t, cls_pw, obj_pw, fl_gamma and label_smoothing are used; the gains are the caller's.
    """

    def __init__(self, model: DetectionModel, hyp: dict):
        self.anchors = model.head.anchors.detach().float()  # (levels, 3, 2), in cells
        self.nc, self.quads = model.nc, model.quads
        self.anchor_t = hyp['anchor_t']
        self.gamma = hyp.get('fl_gamma', 0.0)
        self.cls_pw, self.obj_pw = hyp.get('cls_pw', 1.0), hyp.get('obj_pw', 1.0)
        smoothing = hyp.get('label_smoothing', 0.0)
        self.positive, self.negative = 1 - smoothing / 2, smoothing / 2

    def __call__(
        self,
        maps: list[Tensor],
        targets: Tensor,
        ignore: Tensor | None = None,
        total: Callable[[Tensor], Tensor] = lambda counts: counts,
        edges: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms.

        Args:
            maps: raw maps (B, 3, h, w, 5 + nc), one a level; of a head with quads 5 + nc + 4.
            targets: (N, 6) rows image, class, x, y, w, h (0..1).
            ignore: (K, 6), the same form: don't-care regions. Cells without a target whose centre lies in one leave
                the objectness sum; its denominator stays.
            total: sums the counts that means are over, (n,), over all processes that share the batch; the terms of the
                processes then add up to the batch's. There may be no picture in this one.
            edges: (N, 5) the targets' edges t, b, l, r (utils.quads) and their weight, 0 where a target's quad is not
                known; None: of none.

        Returns:
            {'box', 'obj', 'cls'}; their weighted sum times the batch size is YOLOv5's loss. With quads also 'edge', the
            SmoothL1 of the edges, and 'quad', 1 - IoU of predicted and true quad, both times the target's weight, and
            means over the cells that answer for a target of a known quad.
        """
        anchors = self.anchors.to(maps[0].device)
        targets = targets.to(maps[0].device, torch.float32)
        box = obj = cls = edge = quad = maps[0].new_zeros((), dtype=torch.float32)
        known = torch.zeros_like(targets[:, 0]) if edges is None else edges[:, 4].to(targets)
        assigned_to = [
            candidates(targets, of_level, raw.shape[2:4], self.anchor_t)
            for raw, of_level in zip(maps, anchors, strict=True)
        ]
        images = torch.full((), len(maps[0]), device=targets.device)
        *counts, images = total(torch.stack([*(valid.sum() for *_, valid in assigned_to), images]))
        if self.quads:
            weights = [torch.where(valid, known[row], 0) for _, row, valid in assigned_to]
            known_counts = total(torch.stack([(weight > 0).sum() for weight in weights]))
        for level, raw in enumerate(maps):
            raw = raw.float()  # noqa: PLW2901
            (image, anchor, y, x), row, valid = assigned_to[level]
            count = counts[level].clamp(min=1)
            predicted = at_cells(raw, (image, anchor, y, x))  # (n, 5 + nc)
            found, aim = self._boxes(predicted, targets[row], anchors[level][anchor], x, y, raw.shape[2:4])
            miss = ciou_miss(found, aim)
            box = box + torch.where(valid, miss, 0).sum() / count
            wanted, assigned = self._wanted(raw.shape[:4], (image, anchor, y, x), miss.detach(), valid)
            if self.nc > 1:
                cost = self._class_loss(predicted[:, 5 : 5 + self.nc], targets[row, 1].long())
                cls = cls + torch.where(valid, cost, 0).sum() / count
            cost = self._entropy(raw[..., 4], wanted, self.obj_pw)
            if ignore is not None and len(ignore):
                inside = centres_inside(ignore.to(raw.device), raw.shape[0], raw.shape[2:4])
                cost = cost.masked_fill(inside[:, None] & ~assigned, 0.0)
            obj = obj + cost.sum() / (images.clamp(min=1) * math.prod(raw.shape[1:4])) * OBJECTNESS_BALANCE[level]
            if self.quads and edges is not None:
                sums = quad_misses(found, aim, predicted[:, 5 + self.nc :], edges.to(targets)[row, :4], weights[level])
                count = known_counts[level].clamp(min=1)
                edge, quad = edge + sums[0] / count, quad + sums[1] / count
        return {'box': box, 'obj': obj, 'cls': cls} | ({'edge': edge, 'quad': quad} if self.quads else {})

    def _boxes(self, predicted: Tensor, targets: Tensor, anchors: Tensor, x: Tensor, y: Tensor, size) -> tuple:
        """The box of each assigned prediction and that of its target, both (n, 4) xyxy in cells."""
        grid = numbers(targets, size[1], size[0])
        s = predicted[:, :4].sigmoid()
        centre = 2 * s[:, :2] - 0.5 + torch.stack((x, y), 1)
        # A width that underflows to 0 would make the aspect term of CIoU 0/0.
        size_ = ((2 * s[:, 2:]).square() * anchors).clamp(min=1e-4)
        aim = torch.cat((targets[:, 2:4] * grid, targets[:, 4:6] * grid), 1)
        return xywh_to_xyxy(torch.cat((centre, size_), 1)), xywh_to_xyxy(aim)

    @staticmethod
    def _wanted(shape: tuple, cells: tuple, miss: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """(B, A, h, w) the objectness that each prediction should have (its CIoU), and whether a target is its own."""
        _, anchors, h, w = shape
        image, anchor, y, x = cells
        size = math.prod(shape)
        place = torch.where(valid, ((image * anchors + anchor) * h + y) * w + x, size)  # one cell more takes the rest
        # Of targets that share a prediction the last counts; writing them at once would let threads choose.
        order = torch.arange(len(place), device=place.device)
        last = place.new_full((size + 1,), -1).scatter_reduce_(0, place, order, 'amax')
        score = torch.where(last[place] == order, (1 - miss).clamp(min=0), 0)
        wanted = miss.new_zeros(size + 1).scatter_add_(0, place, score)
        return wanted[:-1].view(shape), last[:-1].view(shape) >= 0

    def _class_loss(self, logits: Tensor, category: Tensor) -> Tensor:
        """(n, nc) logits -> (n,) mean over the classes."""
        wanted = torch.full_like(logits, self.negative)
        wanted.scatter_(1, category[:, None], self.positive)
        return self._entropy(logits, wanted, self.cls_pw).mean(1)

    def _entropy(self, logits: Tensor, wanted: Tensor, positive_weight: float) -> Tensor:
        """Binary cross entropy of each element, modulated to the focal loss (Lin 2017) if gamma > 0."""
        weight = None if positive_weight == 1 else numbers(logits, positive_weight)
        cost = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight, reduction='none')
        if self.gamma > 0:
            p = logits.sigmoid()
            # Not 1 - p, whose rounding to 0 has no finite gradient for gammas below 1.
            wrong = (wanted * (-logits).sigmoid() + (1 - wanted) * p).clamp(min=1e-12)
            alpha = wanted * FOCAL_ALPHA + (1 - wanted) * (1 - FOCAL_ALPHA)
            cost = cost * alpha * wrong.pow(self.gamma)
        return cost


def at_cells(raw: Tensor, cells: tuple[Tensor, ...]) -> Tensor:
    """Rows (n, C) of a raw map (B, A, h, w, C) at image, anchor, y, x, each (n,).

    The same as raw[cells], whose gradient several threads of a processor add in another order each time.
    """
    _, anchors, h, w, columns = raw.shape
    image, anchor, y, x = cells
    # In the order in which the head's maps lie in memory.
    return F.embedding(((image * h + y) * w + x) * anchors + anchor, raw.permute(0, 2, 3, 1, 4).reshape(-1, columns))


def quad_misses(
    boxes: Tensor, true_boxes: Tensor, logits: Tensor, true_edges: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted sums of the SmoothL1 of edges (mean of the four) and of 1 - IoU of the quads.

    Args:
        boxes, true_boxes: (n, 4) xyxy.
        logits: (n, 4) of the predicted edges.
        true_edges: (n, 4).
        weight: (n,), 0 for most.
    """
    some = weight > 0  # a GPU is waited for here: computing the IoU of all candidates would cost more
    boxes, true_boxes, logits, true_edges, weight = (
        part[some] for part in (boxes, true_boxes, logits, true_edges, weight)
    )
    edges = logits.tanh()
    cost = F.smooth_l1_loss(edges, true_edges, beta=EDGE_BETA, reduction='none').mean(1)
    overlap = quad_iou(decode(boxes, edges), decode(true_boxes, true_edges))
    return (weight * cost).sum(), (weight * (1 - overlap)).sum()


def candidates(
    targets: Tensor, anchors: Tensor, size: Sequence[int], anchor_t: float
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor, Tensor]:
    """The cells of one level that may answer for each target, and which of them do.

    A target belongs to every anchor whose width and height differ from its own by less than a factor `anchor_t`, in
    its own cell and in up to two neighbours. How many these are is never asked: a GPU would have to be waited for.

    Args:
        targets: (N, 6) image, class, x, y, w, h (0..1).
        anchors: (A, 2) in cells.
        size: (h, w) of the map.

    Returns:
        ((image, anchor, y, x), each (n,) int64 and inside the map), (n,) the rows of `targets` that they belong to,
        and (n,) bool, whether they answer; n = 5 A N.
    """
    h, w = size
    grid = numbers(targets, w, h)
    centre, extent = targets[:, 2:4] * grid, targets[:, 4:6] * grid  # (N, 2), in cells
    ratio = extent[None] / anchors[:, None]  # (A, N, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(2) < anchor_t  # (A, N)
    before, after = centre, grid - centre
    near_low = (before % 1 < 0.5) & (before > 1)  # (N, 2): the left / upper neighbour is the nearer one
    near_high = (after % 1 < 0.5) & (after > 1)
    neighbour = torch.stack((torch.ones_like(near_low[:, 0]), *near_low.T, *near_high.T))  # (5, N)
    valid = neighbour[:, None] & fits[None]  # (5, A, N)

    cell = (centre - torch.stack([numbers(centre, *offset) for offset in OFFSETS])[:, None]).long()  # (5, N, 2)
    x, y = cell[..., 0].clamp(0, w - 1), cell[..., 1].clamp(0, h - 1)
    row = torch.arange(len(targets), device=targets.device)
    anchor = torch.arange(len(anchors), device=targets.device)
    parts = (targets[:, 0].long(), anchor[:, None], y[:, None], x[:, None], row)
    image, anchor, y, x, row = (part.expand(valid.shape).flatten() for part in parts)
    return (image, anchor, y, x), row, valid.flatten()


def assign(targets: Tensor, anchors: Tensor, size: Sequence[int], anchor_t: float) -> tuple[tuple[Tensor, ...], Tensor]:
    """Those of the `candidates` that answer: ((image, anchor, y, x), each (n,)), and (n,) rows of `targets`."""
    cells, row, valid = candidates(targets, anchors, size, anchor_t)
    return tuple(part[valid] for part in cells), row[valid]


def centres_inside(regions: Tensor, batch: int, size: Sequence[int]) -> Tensor:
    """Cells whose centre lies in a region: (K, 6) image, class, x, y, w, h (0..1) -> (batch, h, w) bool."""
    h, w = size
    corners = xywh_to_xyxy(regions[:, 2:6])
    x = (torch.arange(w, device=regions.device) + 0.5) / w
    y = (torch.arange(h, device=regions.device) + 0.5) / h
    in_x = (x >= corners[:, 0:1]) & (x <= corners[:, 2:3])  # (K, w)
    in_y = (y >= corners[:, 1:2]) & (y <= corners[:, 3:4])  # (K, h)
    return union_by_image(in_y[:, :, None] & in_x[:, None, :], regions[:, 0].long(), batch)
