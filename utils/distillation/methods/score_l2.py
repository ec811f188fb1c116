"""Feature imitation where the teacher sees something: the squared difference weighted by the teacher's scores.

Its published relative is Du et al., Distilling Object Detectors with Feature Richness (FRS), NeurIPS 2021: the mask of
a level is the teacher's class score, the maximum over the classes, and weights the squared difference of the features
that feed the head (the loss of the FPN layers there). In our terms: sum_hw W E / sum_hw W, W = max over anchors and
classes of the teacher's score.

Differences: YOLOv5 scores are sigmoid(obj) * sigmoid(cls), for one class sigmoid(obj) alone; a cell has three anchors,
of which the best counts; each picture is divided by the sum of its own weights; the squared difference is normalised
(see Method.difference); the head's part of FRS is left out (see `logit`). No labels are read, so that don't-care cells
weigh what the teacher thinks of them.
"""

import torch
from torch import Tensor

from models.yolo import DetectionModel
from utils.distillation.base import Method, Signals, levels_of, mean_of, resize, scores


class ScoreL2(Method):
    """'score_l2': sum(W E) / sum(W) of each picture and map that feeds the head, mean over the layers and pictures.

    The teacher's layers must feed its head, whose scores weight them; those of another size are resized, scores too.
    """

    TERMS = {'score_l2': 0.02}
    LAYERS = (17, 20, 23)

    def build(self, student: DetectionModel, teacher: DetectionModel, generator: torch.Generator) -> None:
        levels = levels_of('score_l2', teacher, self.teacher_layer.values())
        self.levels = {own: levels[its] for own, its in self.teacher_layer.items()}

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        terms = []
        for layer, level in self.levels.items():
            difference = self.difference(signals, layer)  # (B, h, w)
            weight = scores(signals.teacher_maps[level].detach()).amax((1, 4))[:, None]  # (B, 1, h, w)
            if weight.shape[2:] != difference.shape[1:]:
                weight = resize(weight, difference.shape[1:])
            weight = weight[:, 0]
            terms.append(((weight * difference).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)).mean())
        return {'score_l2': mean_of(terms)}
