"""Masked generative distillation: from a part of the student's cells, generate all of the teacher's.

Yang et al., Masked Generative Distillation (MGD), ECCV 2022 (arXiv 2205.01529), section 3: cells of the adapted student
are dropped at random with probability lambda (one mask for all channels), two 3x3 convolutions with a ReLU between
generate the teacher's features from what is left, and the squared difference to the teacher is minimised. lambda 0.65
is the paper's for one-stage detectors.

Differences: the squared difference is a mean, in units of the teacher's mean square (see Method.difference), where the
paper sums. The mask is a function of a seed and a step counter that checkpoints keep, so that it is the
same on every device and after resuming. A student that equals its teacher does not cost 0: the generator has to fill
the gaps.
"""

import torch
from torch import Tensor, nn

from models.yolo import DetectionModel
from utils.distillation.base import Method, Option, Signals, make_convolution, mean_of, mean_square
from utils.runtime.device import autocast


class MGD(Method):
    """'mgd': half the mean over h, w of the generated features' E, mean over the layers.

    The layers feed the head, as in the paper's feature pyramids. Option: `ratio`, the share of dropped cells. The
    generator has 18 C^2 weights for a teacher with C channels: 30 million for YOLOv5-X at stride 32.
    """

    TERMS = {'mgd': 0.12}
    LAYERS = (17, 20, 23)
    OPTIONS = {'ratio': Option(0.65, 'share of the cells that are dropped', 0, 1)}

    seed: Tensor
    step: Tensor

    def build(self, student: DetectionModel, teacher: DetectionModel, generator: torch.Generator) -> None:
        self.generators = nn.ModuleDict(
            {str(own): make_generator(teacher.channels[its], generator) for own, its in self.teacher_layer.items()}
        )
        self.register_buffer('seed', torch.randint(2**31, (), generator=generator))
        self.register_buffer('step', torch.zeros((), dtype=torch.long))

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        # Drawn on the CPU, where a seed gives the same numbers on every machine. Levels and pictures follow each other.
        random = torch.Generator().manual_seed(int(self.seed + self.step))
        terms = []
        for layer in self.layers:
            adapted, teacher = self.features(signals, layer)
            batch, _, *size = adapted.shape
            kept = torch.rand(batch, 1, *size, generator=random) >= self.options['ratio']  # one for all channels
            with autocast(adapted.device, signals.student_features[layer].dtype == torch.bfloat16):
                generated = self.generators[str(layer)](adapted * kept.to(adapted, non_blocking=True)).float()
            cost = (generated - teacher).square().mean((1, 2, 3)) / mean_square(teacher)
            terms.append(cost.mean() / 2)
        if self.training:
            self.step += 1
        return {'mgd': mean_of(terms)}


def make_generator(channels: int, generator: torch.Generator) -> nn.Sequential:
    """Two 3x3 convolutions with a ReLU between."""
    first, second = (make_convolution(channels, channels, generator, 3) for _ in range(2))
    return nn.Sequential(first, nn.ReLU(), second)
