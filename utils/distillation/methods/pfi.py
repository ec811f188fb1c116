"""Prediction-guided feature imitation: imitate where the two heads disagree.

Li et al., Knowledge Distillation for Object Detection via Rank Mimicking and Prediction-guided Feature Imitation,
AAAI 2022, equations 6 to 8: P is the squared difference of the predicted class scores, and the features' squared
difference is weighted by P. Differences: YOLOv5 scores are sigmoid(obj) * sigmoid(cls), for one class sigmoid(obj)
alone (its class branch is untrained); P is detached; the squared difference of features is normalised; the choice of
a region is ours.
"""

import torch
from torch import Tensor

from models.yolo import DetectionModel
from utils.distillation.base import (
    Method,
    Option,
    Signals,
    levels_of,
    masked_mean,
    mean_of,
    overlapped_cells,
    scores,
)
from utils.distillation.methods.mask import CONFIDENCE, REGIONS, reads_labels, region_boxes


class PFI(Method):
    """'pfi': mean over h, w of P E on each map that feeds the head, mean over the layers.

    Options: with a `region`, the mean is over the cells that its boxes overlap, without don't-care (no such cell: 0);
    `confidence` of the teacher's detections.
    """

    TERMS = {'pfi': 6.0}
    LAYERS = (17, 20, 23)
    OPTIONS = {
        'region': Option(
            'everywhere',
            'the cells that count: all, or under boxes of labels, teacher or both',
            choices=('everywhere', *REGIONS),
        ),
        'confidence': CONFIDENCE,
    }
    SAME_SIZE = True  # P compares the two heads cell by cell

    def build(self, student: DetectionModel, teacher: DetectionModel, generator: torch.Generator) -> None:
        self.levels = levels_of('pfi', student, self.layers)
        self.needs_labels = reads_labels('pfi', self.options)

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        boxes = None if self.options['region'] == 'everywhere' else region_boxes(signals, **self.options)
        terms = []
        for layer, level in self.levels.items():
            student, teacher = scores(signals.student_maps[level]), scores(signals.teacher_maps[level])
            gap = (student - teacher).square().mean((1, 4)).detach()  # (B, h, w), mean over anchors and classes
            cost = gap * self.difference(signals, layer)
            if boxes is None:
                terms.append(cost.mean())
                continue
            batch, *size = cost.shape
            cells = overlapped_cells(boxes, batch, size) & ~overlapped_cells(signals.ignore, batch, size)
            terms.append(masked_mean(cost, cells))
        return {'pfi': mean_of(terms)}
