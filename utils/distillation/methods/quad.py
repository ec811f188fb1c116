"""The teacher's quads: the student's four edges follow the teacher's where the teacher sees a word.

Ours; the form is the box part of `logit` (Mehta and Ozturk 2018): sum(o_T SmoothL1(e_S - e_T)) / sum(o_T), with o_T the
teacher's objectness and e the edges (utils.quads). Both models must predict quads.

No labels are read: don't-care cells weigh what the teacher thinks of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import UserError
from models.yolo import DetectionModel
from utils.distillation.base import Method, Signals, mean_of
from utils.training.loss import EDGE_BETA


class Quad(Method):
    """'quad_edges': the SmoothL1 of the edges (mean of the four), weighted by the teacher's objectness.

    A mean over each image's anchor-cells, then over images and levels. It looks at the heads' maps alone: no layers.
    """

    TERMS = {'quad_edges': 0.3}
    LAYERS = ()
    SAME_SIZE = True
    ADAPTS = False

    def build(self, student: DetectionModel, teacher: DetectionModel, generator: torch.Generator) -> None:
        if not student.quads:
            raise UserError('quad: the student predicts no quads (--quads, or quads: true in its model yaml)')
        if not teacher.quads:
            raise UserError('quad: the teacher predicts no quads (--teacher_weights of a training with --quads)')

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        levels = []
        assert signals.student_edges is not None  # build() asked for both
        assert signals.teacher_edges is not None
        for student, teacher, raw in zip(
            signals.student_edges, signals.teacher_edges, signals.teacher_maps, strict=True
        ):
            weight = raw[..., 4].detach().float().sigmoid()  # (B, 3, h, w)
            miss = F.smooth_l1_loss(
                student.float().tanh(), teacher.detach().float().tanh(), beta=EDGE_BETA, reduction='none'
            ).mean(-1)
            levels.append(((weight * miss).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-6)).mean())
        return {'quad_edges': mean_of(levels)}
