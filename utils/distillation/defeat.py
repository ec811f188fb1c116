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
from utils.distillation.logit import binary_divergence
from utils.distillation.mask import decoupled_difference
from utils.loss import assign


class DeFeat(Method):
    """'defeat_obj', 'defeat_bg': as 'mask_obj', 'mask_bg'; 'defeat_pos', 'defeat_neg': mean over the positive and the
    negative anchor-cells of a picture, of all levels together, of T^2 KL(sigmoid(t / T) || sigmoid(s / T)).

    An empty side gives 0. The layers are the neck's maps that feed the head. Options: `temperature` T.
    """

    TERMS = {'defeat_obj': 0.04, 'defeat_bg': 0.02, 'defeat_pos': 0.04, 'defeat_neg': 1.0}
    LAYERS = (17, 20, 23)
    OPTIONS = {'temperature': Option(1.0, 'temperature of the predicted objectness and classes', 0.01, 100)}
    NEEDS_LABELS = True
    SAME_SIZE = True  # anchor-cells are compared one by one

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        inside, outside = decoupled_difference(self, signals, signals.targets)
        positive = assigned_cells(signals, signals.targets)
        cared = torch.cat([level[:, None].expand_as(raw[..., 0]).flatten(1) for level, raw in self._cared(signals)], 1)
        # Logits of all levels together: (B, M, 5 + nc).
        student = torch.cat([raw.flatten(1, 3) for raw in signals.student_maps], 1).float()
        teacher = torch.cat([raw.flatten(1, 3) for raw in signals.teacher_maps], 1).detach().float()
        divergence = binary_divergence(student[..., 4:], teacher[..., 4:], self.options['temperature'])
        negative_cost = positive_cost = divergence[..., 0]  # (B, M)
        if signals.head.nc > 1:
            positive_cost = positive_cost + divergence[..., 1:].mean(2)
        return {
            'defeat_obj': inside,
            'defeat_bg': outside,
            'defeat_pos': masked_mean(positive_cost[:, None], (positive & cared)[:, None]),
            'defeat_neg': masked_mean(negative_cost[:, None], (~positive & cared)[:, None]),
        }
