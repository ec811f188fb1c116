"""Masked feature imitation: objects and background apart, each as a mean over its own cells.

Guo et al., Distilling Object Detectors via Decoupled Features (DeFeat), CVPR 2021, equations 2 and 3: the neck's
features are split by the binary mask of the ground-truth boxes, and each part has a weight of its own. Differences:
the parts are divided by their own cell counts (DeFeat: N_obj, N_bg, summed over channels), the squared difference is
normalised (see Method.difference), and cells that a don't-care region overlaps belong to neither part, even under a
target. The teacher's detections in place of the ground truth, or beside it, are ours. For DeFeat's response part see
the method `defeat`.
"""

from typing import Any

import torch
from torch import Tensor

from models.errors import UserError
from models.yolo import DetectionModel
from utils.distillation.base import Method, Option, Signals, masked_mean, mean_of, overlapped_cells

REGIONS = ('ground-truth', 'teacher', 'union')
CONFIDENCE = Option(0.25, "confidence that the teacher's detections must exceed, for region teacher or union", 0, 1)


class Mask(Method):
    """'mask_obj': sum(M E) / (2 sum M); 'mask_bg': sum((1 - M) E) / (2 sum(1 - M)); means over the layers.

    M is 1 on cells that a box of the region overlaps. An empty side gives 0. The layers are the maps that feed the
    head: what it reads is what the student must learn. Options: `region`, whose boxes count, and `confidence`.
    """

    TERMS = {'mask_obj': 0.04, 'mask_bg': 0.02}
    LAYERS = (17, 20, 23)
    OPTIONS = {
        'region': Option('ground-truth', 'whose boxes are the objects: of labels, teacher or both', choices=REGIONS),
        'confidence': CONFIDENCE,
    }

    def build(self, student: DetectionModel, teacher: DetectionModel, generator: torch.Generator) -> None:
        self.needs_labels = reads_labels('mask', self.options)

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        objects, background = decoupled_difference(self, signals, region_boxes(signals, **self.options))
        return {'mask_obj': objects, 'mask_bg': background}


def decoupled_difference(method: Method, signals: Signals, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Half the difference E of adapted student and teacher inside and outside (n, 6) boxes, each a mean over its own
    cells without don't-care, then over pictures and the method's layers."""
    inside, outside = [], []
    for layer in method.layers:
        difference = method.difference(signals, layer)  # (B, h, w)
        batch, *size = difference.shape
        objects = overlapped_cells(boxes, batch, size)
        cared = ~overlapped_cells(signals.ignore, batch, size)
        inside.append(masked_mean(difference, objects & cared) / 2)
        outside.append(masked_mean(difference, ~objects & cared) / 2)
    return mean_of(inside), mean_of(outside)


def region_boxes(signals: Signals, region: str, confidence: float) -> Tensor:
    """The (n, 6) boxes, image, class, x, y, w, h (0..1), of one of REGIONS."""
    if region == 'ground-truth':
        return signals.targets
    found = signals.teacher_boxes(confidence)
    return found if region == 'teacher' else torch.cat((signals.targets.to(found), found))


def reads_labels(name: str, options: dict[str, Any]) -> bool:
    """Whether the options' region is made of labels, too. Raises UserError for a confidence that nothing reads."""
    if options['confidence'] != CONFIDENCE.default and options['region'] not in ('teacher', 'union'):
        raise UserError(f'{name}: confidence has no effect with region {options["region"]}')
    return options['region'] in ('ground-truth', 'union')
