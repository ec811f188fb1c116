"""CRAFT's maps: from the student's features one can tell where letters are, and where two of a word meet.

Baek et al., Character Region Awareness for Text Detection, CVPR 2019: a detector of another kind, whose region and
affinity maps show single letters, of which a detector of words learns nothing from its labels. Ours: a 1x1 convolution
on the student's features of stride 8 predicts both maps, averaged to its cells. The loss is CRAFT's own (its squared
difference, with the same confidence everywhere), as a mean over cells: 1/2 (prediction - map)^2. The convolution starts
as the one that fits the first batch best, as adapters do, and is left out of the student.

The teacher here is CRAFT, not the recipe's. Its maps are made before (teacher/craft.py) and go through augmentation
with the pictures. No labels are read.
"""

import torch
from torch import Tensor, nn

from models.yolo import DetectionModel
from ocrdistill.letterbox import GREY
from utils.distillation.base import Method, Signals, make_convolution, mean_of, resize
from utils.loading.maps import INSIDE


class Maps(Method):
    """'maps': 1/2 mean over cells and the two maps of the squared difference, mean over the layers."""

    TERMS = {'maps': 40.0}
    LAYERS = (17,)
    ADAPTS = False
    NEEDS_MAPS = True
    READS_TEACHER = False

    def build(self, student: DetectionModel, teacher: DetectionModel, generator: torch.Generator) -> None:
        self.teacher_layer = {}  # nothing is read of the recipe's teacher
        self.adapters = nn.ModuleDict(
            {str(layer): make_convolution(student.channels[layer], 2, generator) for layer in self.layers}
        )

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        return {'maps': mean_of([self.difference(signals, layer).mean() / 2 for layer in self.layers])}

    def unit(self, teacher: Tensor) -> Tensor:
        """1: maps have the same scale in every picture, also where there is no text."""
        return teacher.new_ones(len(teacher))

    def _aligned(self, signals: Signals, layer: int) -> tuple[Tensor, Tensor]:
        """The student's features of a layer, and the maps on the same grid, 0..1; 0 where there is no picture."""
        assert signals.maps is not None  # distill.py makes the data set give them
        student = signals.student_features[layer]
        maps, inside = signals.maps.float().split([2, 1], 1)
        # Grey margins lie in all three channels; the third, INSIDE in pictures, says how much of a pixel is margin,
        # also where a picture and the margin of another were blended.
        margin = GREY * (INSIDE - inside) / (INSIDE - GREY)
        return student, resize((maps - margin).clamp(min=0) / 255, student.shape[2:])
