"""Prediction-guided feature imitation: imitate where the two heads disagree.

Li et al., Knowledge Distillation for Object Detection via Rank Mimicking and Prediction-guided Feature Imitation,
AAAI 2022, equations 6 to 8: P is the squared difference of the predicted class scores, and the features' squared
difference is weighted by P. Differences: YOLOv5 scores are sigmoid(obj) * sigmoid(cls), for one class sigmoid(obj)
alone (its class branch is untrained); P is detached; the squared difference of features is normalised.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.errors import UserError
from models.yolo import DetectionModel
from utils.distillation.base import Method, Signals, mean_of


class PFI(Method):
    """'pfi': mean over h, w of P E on each map that feeds the head, mean over the layers."""

    TERMS = {'pfi': 20.0}
    LAYERS = (17, 20, 23)

    def __init__(
        self, student: DetectionModel, teacher: DetectionModel, layers: Sequence[int], generator: torch.Generator
    ):
        feeding = student.sources[-1]
        strangers = [i for i in layers if i not in feeding]
        if strangers:
            raise UserError(f'pfi: layers {strangers} do not feed the head; its layers are among {feeding}')
        super().__init__(student, teacher, layers, generator)
        self.levels = {layer: feeding.index(layer) for layer in self.layers}

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        terms = []
        for layer, level in self.levels.items():
            student, teacher = scores(signals.student_maps[level]), scores(signals.teacher_maps[level])
            gap = (student - teacher).square().mean((1, 4)).detach()  # (B, h, w), mean over anchors and classes
            terms.append((gap * self.difference(signals, layer)).mean())
        return {'pfi': mean_of(terms)}


def scores(raw: Tensor) -> Tensor:
    """Raw map (B, 3, h, w, 5 + nc) -> predicted scores (B, 3, h, w, nc), float32."""
    objectness, classes = raw[..., 4:5].float().sigmoid(), raw[..., 5:].float().sigmoid()
    return objectness if classes.shape[-1] == 1 else objectness * classes


METHOD = PFI
