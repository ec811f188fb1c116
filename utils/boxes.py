"""Boxes: their forms, overlaps, and non-maximum suppression, in PyTorch: for training and validation."""

import math

import torch
from torch import Tensor
from torchvision.ops import nms

from ocrdistill.nms import MAX_CANDIDATES, UPRIGHT_IOU, quad_nms
from utils.quads import decode


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre x, centre y, width, height -> corners x1, y1, x2, y2."""
    centre, half = boxes[..., :2], boxes[..., 2:4] / 2
    return torch.cat((centre - half, centre + half), -1)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """(..., 4) corners x1, y1, x2, y2 -> centre x, centre y, width, height."""
    top_left, bottom_right = boxes[..., :2], boxes[..., 2:4]
    return torch.cat(((top_left + bottom_right) / 2, bottom_right - top_left), -1)


def numbers(like: Tensor, *values: float) -> Tensor:
    """Values as a tensor (n,) of the type and place of another; a GPU is not waited for, as it is by new_tensor."""
    return torch.stack([like.new_full((), value) for value in values])


def ciou_miss(a: Tensor, b: Tensor) -> Tensor:
    """1 - CIoU of boxes (..., 4) xyxy, pair by pair: (...).

    Zheng et al., Distance-IoU Loss, AAAI 2020 (arXiv 1911.08287), equations 8 to 11; alpha is a constant to the
    gradient. torchvision's complete_box_iou_loss gives the same, and waits for a GPU five times.
    """
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]  # width and height
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    around = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    shared_area, area_a, area_b = (size[..., 0] * size[..., 1] for size in (shared, size_a, size_b))
    iou = shared_area / (area_a + area_b - shared_area + 1e-7)
    between = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2  # the centres
    distance = between.square().sum(-1) / (around.square().sum(-1) + 1e-7)
    angle_a, angle_b = (torch.atan(size[..., 0] / size[..., 1]) for size in (size_a, size_b))
    aspect = 4 / math.pi**2 * (angle_b - angle_a).square()
    with torch.no_grad():
        alpha = aspect / (1 - iou + aspect + 1e-7)
    return 1 - iou + distance + alpha * aspect


def class_nms(boxes: Tensor, confidence: Tensor, category: Tensor, iou_thres: float) -> Tensor:
    """Indices of the boxes (n, 4) that no better box of their class overlaps by more than iou_thres; best first."""
    if not len(boxes):
        return torch.zeros(0, dtype=torch.long, device=boxes.device)
    # Classes are moved apart, so that one pass serves them all.
    apart = boxes + category.to(boxes)[:, None] * (boxes.max() - boxes.min() + 1)
    return nms(apart, confidence, iou_thres)


def non_max_suppression(
    decoded: Tensor,
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    max_det: int = 300,
    multi_label: bool = False,
    nc: int | None = None,
    by_quads: bool = False,
) -> list[Tensor]:
    """Boxes of a batch, best first, without those that overlap a better one of their class.

    Args:
        decoded: (B, M, 5 + nc) network output: x, y, w, h in pixels, objectness, class scores (all 0..1); of a head
            with quads four more columns, the edges.
        conf_thres: confidence (objectness * class score) that a box must exceed.
        iou_thres: overlap with a better box of the same class above which a box is dropped.
        max_det: boxes kept of each image at most.
        multi_label: True: every class over the threshold gives a box (validation); False: only the best class does.
        nc: number of classes; None: decoded has no edges.
        by_quads: overlaps are those of the quads, so that words which lean side by side do not drop each other. Boxes
            that overlap by more than UPRIGHT_IOU are one word all the same.

    Returns:
        B tensors (n, 6) float32: x1, y1, x2, y2, confidence, class; with edges (n, 10): t, b, l, r (utils.quads) too.
    """
    decoded = decoded.float()
    nc = decoded.shape[2] - 5 if nc is None else nc
    by_quads = by_quads and decoded.shape[2] > 5 + nc
    result = []
    for rows in decoded:
        rows = rows[rows[:, 4] > conf_thres]  # noqa: PLW2901  most cells end here
        scores = rows[:, 5 : 5 + nc] * rows[:, 4:5]  # (m, nc)
        if multi_label and nc > 1:
            row, category = (scores > conf_thres).nonzero(as_tuple=True)
            confidence = scores[row, category]
        else:
            confidence, category = scores.max(1)
            row = (confidence > conf_thres).nonzero(as_tuple=True)[0]
            confidence, category = confidence[row], category[row]
        if len(row) > MAX_CANDIDATES:
            best = confidence.topk(MAX_CANDIDATES).indices
            row, confidence, category = row[best], confidence[best], category[best]
        boxes = xywh_to_xyxy(rows[row, :4])
        keep = class_nms(boxes, confidence, category, max(iou_thres, UPRIGHT_IOU) if by_quads else iou_thres)
        found = torch.cat((boxes, confidence[:, None], category[:, None].float(), rows[row, 5 + nc :]), 1)[keep]
        if by_quads:
            quads = decode(found[:, :4], found[:, 6:]).cpu().numpy()
            found = found[torch.from_numpy(quad_nms(quads, found[:, 5].cpu().numpy(), iou_thres))]
        result.append(found[:max_det])
    return result


def union_by_image(masks: Tensor, image: Tensor, batch: int) -> Tensor:
    """Union of masks (K, h, w) bool by the picture that each belongs to: (batch, h, w) bool."""
    count = masks.new_zeros((batch, *masks.shape[1:]), dtype=torch.float32)
    return count.index_add_(0, image, masks.float()) > 0
