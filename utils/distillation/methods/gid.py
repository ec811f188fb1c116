"""General instance distillation: imitate features, relations and predictions where the two models differ most.

Dai et al., General Instance Distillation for Object Detection (GID), CVPR 2021 (arXiv 2103.02340). The GI score of an
anchor-cell is max over classes |p_t - p_s|, its GI box that of the model with the higher score; non-maximum suppression
(overlap 0.3) leaves at most K = 10 instances of a picture. With their ROI-aligned features t_i, s_i the losses are
    L_feature = mean_i ||t_i - a(s_i)||^2,
    L_relation = mean_{i != j} smooth_L1(||t_i - t_j|| / phi(t) - ||s_i - s_j|| / phi(s)), phi(x) = mean ||x_i - x_j||,
    L_response = mean over the anchor-cells assigned to the GI boxes of L_cls(y_t, y_s) + L_reg(r_t, r_s).

Differences: scores are sigmoid(obj) * sigmoid(cls), for one class sigmoid(obj) alone; an instance's features are taken
from every layer and the layers averaged; the features' difference is normalised by the teacher's mean square (see
Method.difference); relations are those of the adapted features, and means over pairs; the assignment is YOLOv5's; L_cls
is the divergence of the binary objectness and, for several classes, of the binary classes (mean over classes), L_reg is
1 - CIoU, both with weight 1. No labels are read, so that don't-care cells take part like others.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, roi_align

from utils.boxes import numbers, xywh_to_xyxy, xyxy_to_xywh
from utils.distillation.base import Method, Option, Signals, masked_mean, mean_of, mean_square, scores
from utils.distillation.methods.defeat import assigned_cells, flat
from utils.distillation.methods.logit import binary_divergence, box_miss

POOLED = 7  # cells along each side of an instance's features
SAMPLES = 2  # along each side of such a cell


class GID(Method):
    """'gid_feature', 'gid_relation', 'gid_response': the losses above, means over the instances (pairs of instances,
    assigned anchor-cells of all levels) of a picture, then over the pictures; the first two also over the layers.

    A picture without instances, as of two equal models, gives 0. The layers are the neck's maps that feed the head.
    Options: `instances` K and `overlap`.
    """

    TERMS = {'gid_feature': 0.01, 'gid_relation': 0.03, 'gid_response': 0.01}
    LAYERS = (17, 20, 23)
    OPTIONS = {
        'instances': Option(10, 'instances of a picture at most', 1, 300),
        'overlap': Option(0.3, 'IoU with a better instance above which one is dropped', 0, 1),
    }
    SAME_SIZE = True  # scores are compared anchor-cell by anchor-cell
    TEACHES_HEAD = True

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        boxes, valid = general_instances(signals, self.options['instances'], self.options['overlap'])
        features, relations = [], []
        for layer in self.layers:
            adapted, teacher = self.features(signals, layer)
            s, t = instance_features(adapted, boxes), instance_features(teacher, boxes)  # (B, K, D)
            gap = (s - t).square().mean(2) / mean_square(teacher)[:, None]  # (B, K)
            features.append(masked_mean(gap[:, None], valid[:, None]))
            relations.append(relation_gap(s, t, valid))
        response = response_gap(signals, boxes, valid)
        return {'gid_feature': mean_of(features), 'gid_relation': mean_of(relations), 'gid_response': response}


@torch.no_grad()
def general_instances(signals: Signals, count: int, overlap: float) -> tuple[Tensor, Tensor]:
    """The boxes about which the two models disagree most.

    Returns:
        (B, count, 4) x1, y1, x2, y2 (0..1, inside the picture), best first, and (B, count) whether there is one.
    """
    student, teacher = (flat([scores(raw) for raw in maps]) for maps in (signals.student_maps, signals.teacher_maps))
    gap = (teacher - student).abs().amax(2)  # (B, M)
    decode = signals.head.decode
    ours, theirs = decode(signals.student_maps)[..., :4], decode(signals.teacher_maps)[..., :4]
    boxes = torch.where((teacher.amax(2) > student.amax(2))[..., None], theirs, ours)
    height, width = signals.size
    boxes = (xywh_to_xyxy(boxes) / numbers(boxes, width, height, width, height)).clamp(0, 1)
    gap = gap.masked_fill((boxes[..., 2:] <= boxes[..., :2]).any(2), 0)  # nothing of these lies in the picture
    picked, valid = [], []
    for _ in range(count):  # greedy suppression, of all pictures at once and without waiting for the device
        score, best = gap.max(1, keepdim=True)  # (B, 1)
        box = boxes.gather(1, best[..., None].expand(-1, -1, 4))  # (B, 1, 4)
        picked.append(box)
        valid.append(score > 0)
        gap = gap.masked_fill(box_iou(box, boxes)[:, 0] > overlap, 0).scatter(1, best, 0)
    return torch.cat(picked, 1), torch.cat(valid, 1)


def instance_features(features: Tensor, boxes: Tensor) -> Tensor:
    """ROI-aligned features: (B, C, h, w) and (B, K, 4) boxes xyxy (0..1) -> (B, K, C * POOLED^2)."""
    batch, count = boxes.shape[:2]
    h, w = features.shape[2:]
    image = torch.arange(batch, device=boxes.device).repeat_interleave(count)
    cells = boxes.flatten(0, 1) * numbers(boxes, w, h, w, h)
    regions = torch.cat((image[:, None].to(cells), cells), 1)  # (B K, 5)
    pooled = roi_align(features, regions, POOLED, sampling_ratio=SAMPLES, aligned=True)
    return pooled.flatten(1).view(batch, count, -1)


def relation_gap(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """L_relation of features (B, K, D), of which (B, K) are valid; fewer than two in a picture give 0."""
    pairs = valid[:, :, None] & valid[:, None, :] & ~torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)

    def relations(features: Tensor) -> Tensor:
        distance = torch.cdist(features, features, compute_mode='donot_use_mm_for_euclid_dist')  # (B, K, K)
        mean = (distance * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)
        least = 1e-3 * features.detach().norm(dim=2).mean(1) + 1e-12  # smaller distances are rounding, not relations
        return distance / mean.maximum(least)[:, None, None]

    return masked_mean(F.smooth_l1_loss(relations(student), relations(teacher), reduction='none'), pairs)


def response_gap(signals: Signals, boxes: Tensor, valid: Tensor) -> Tensor:
    """L_response at the anchor-cells that are assigned to the valid ones of (B, K, 4) boxes, xyxy (0..1)."""
    batch, count = valid.shape
    image = torch.arange(batch, device=boxes.device).repeat_interleave(count)
    boxes = xyxy_to_xywh(boxes * valid[..., None]).flatten(0, 1)  # no anchor answers for a box without size
    image = image[:, None].to(boxes)
    targets = torch.cat((image, torch.zeros_like(image), boxes), 1)  # (B K, 6)
    assigned = assigned_cells(signals, targets)  # (B, M)
    cost = []
    for student, teacher, anchors in zip(signals.student_maps, signals.teacher_maps, signals.anchors, strict=True):
        student, teacher = student.float(), teacher.detach().float()  # noqa: PLW2901
        divergence = binary_divergence(student[..., 4:], teacher[..., 4:])  # (B, 3, h, w, 1 + nc)
        classes = divergence[..., 1:].mean(-1) if signals.head.nc > 1 else 0  # untrained for one class
        cost.append(divergence[..., 0] + classes + box_miss(student, teacher, anchors))
    return masked_mean(flat(cost)[:, None], assigned[:, None])
