"""Decoupled features and decoupled predictions: objects and background each with weights and counts of their own.

Guo et al., Distilling Object Detectors via Decoupled Features (DeFeat), CVPR 2021 (arXiv 2103.14475): the neck's
features inside and outside the ground-truth boxes (equations 2 and 3, see `mask`), and the classifications of positive
and of negative proposals apart, each the KL divergence of softened predictions, a mean over its own count.

Differences: for the features see `mask`. A one-stage detector has no proposals: the anchor-cells that YOLOv5 assigns
to targets are the positives, all others the negatives. Its scores are sigmoids: the divergence is that of the binary
objectness, and on positives also of the binary classes (mean over classes), which are trained there alone. Both
sides share one temperature. Cells that a don't-care region overlaps belong to neither side, even under a target.
"""

import torch
from torch import Tensor

from utils.distillation.base import Method, Option, Signals, masked_mean, overlapped_cells
from utils.distillation.methods.logit import binary_divergence
from utils.distillation.methods.mask import decoupled_difference
from utils.training.loss import assign


class DeFeat(Method):
    """'defeat_obj', 'defeat_bg': as 'mask_obj', 'mask_bg'; 'defeat_pos', 'defeat_neg': mean over the positive and the
    negative anchor-cells of a picture, of all levels together, of T^2 KL(sigmoid(t / T) || sigmoid(s / T)).

    An empty side gives 0. The layers are the neck's maps that feed the head. Options: `temperature` T.
    """

    TERMS = {'defeat_obj': 0.04, 'defeat_bg': 0.02, 'defeat_pos': 0.01, 'defeat_neg': 1.0}
    LAYERS = (17, 20, 23)
    OPTIONS = {'temperature': Option(1.0, 'temperature of the predicted objectness and classes', 0.01, 100)}
    NEEDS_LABELS = True
    SAME_SIZE = True  # anchor-cells are compared one by one
    TEACHES_HEAD = True

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        inside, outside = decoupled_difference(self, signals, signals.targets)
        student, teacher = flat(signals.student_maps).float(), flat(signals.teacher_maps).detach().float()
        divergence = binary_divergence(student[..., 4:], teacher[..., 4:], self.options['temperature'])
        objectness = divergence[..., 0]  # (B, M)
        classes = divergence[..., 1:].mean(2) if signals.head.nc > 1 else 0  # untrained for one class
        positive, cared = assigned_cells(signals, signals.targets), cared_cells(signals)  # (B, M)
        return {
            'defeat_obj': inside,
            'defeat_bg': outside,
            'defeat_pos': masked_mean((objectness + classes)[:, None], (positive & cared)[:, None]),
            'defeat_neg': masked_mean(objectness[:, None], (~positive & cared)[:, None]),
        }


def flat(maps: list[Tensor]) -> Tensor:
    """Maps (B, 3, h, w, ...), one a level -> (B, M, ...): the anchor-cells of all levels in a row."""
    return torch.cat([level.flatten(1, 3) for level in maps], 1)


def assigned_cells(signals: Signals, targets: Tensor) -> Tensor:
    """Anchor-cells that answer for any of (N, 6) targets: (B, M) bool, in the order of `flat`."""
    masks = []
    for raw, anchors in zip(signals.student_maps, signals.anchors, strict=True):
        cells, _ = assign(targets.float(), anchors, raw.shape[2:4], signals.anchor_t)
        mask = torch.zeros(raw.shape[:4], dtype=torch.bool, device=raw.device)
        mask[cells] = True
        masks.append(mask)
    return flat(masks)


def cared_cells(signals: Signals) -> Tensor:
    """Anchor-cells that no don't-care region overlaps: (B, M) bool, in the order of `flat`."""
    masks = []
    for raw in signals.student_maps:
        ignored = overlapped_cells(signals.ignore, len(raw), raw.shape[2:4])
        masks.append(~ignored[:, None].expand(raw.shape[:4]))
    return flat(masks)
