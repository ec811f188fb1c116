"""Rank mimicking: of the anchors that answer for one object, prefer those that the teacher prefers.

Li et al., Knowledge Distillation for Object Detection via Rank Mimicking and Prediction-guided Feature Imitation,
AAAI 2022 (arXiv 2112.04840), section on rank mimicking: a softmax over the scores of an object's positive anchors is
their rank distribution, and the term is KL(teacher || student), mean over the objects.

Differences: YOLOv5 scores are sigmoid(obj) * sigmoid(cls) of the object's class, for one class sigmoid(obj) alone; the
anchors are those of all levels that YOLOv5 assigns to the object; the mean over objects is taken picture by picture;
anchor-cells that a don't-care region overlaps take no part, even under a target.
"""

import torch
from torch import Tensor

from utils.distillation.base import Method, Signals, overlapped_cells, scores
from utils.training.loss import assign


class Rank(Method):
    """'rank': KL(softmax p_t || softmax p_s) over the anchor-cells of an object, mean over the objects of a picture.

    Objects with no anchor-cell or a single one count 0, as do pictures without objects. It looks at the heads' maps
    alone: no layers.
    """

    TERMS = {'rank': 10.0}
    LAYERS = ()
    NEEDS_LABELS = True
    SAME_SIZE = True
    ADAPTS = False

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        student, teacher, row = answers(signals)  # the anchor-cells of all objects, (n,) each
        objects, batch = len(signals.targets), len(signals.student_maps[0])
        student, teacher = log_softmax(student, row, objects), log_softmax(teacher, row, objects)
        divergence = summed(teacher.exp() * (teacher - student), row, objects)  # (N,)
        image = signals.targets[:, 0].long()
        count = summed(torch.ones_like(divergence), image, batch)
        return {'rank': (summed(divergence, image, batch) / count.clamp(min=1)).mean()}


def answers(signals: Signals) -> tuple[Tensor, Tensor, Tensor]:
    """The anchor-cells that answer for each target, over all levels: the student's and the teacher's score for the
    target's class, and the target's row, (n,) each."""
    student, teacher, rows = [], [], []
    targets = signals.targets.float()
    for raw, wanted, anchors in zip(signals.student_maps, signals.teacher_maps, signals.anchors, strict=True):
        (image, anchor, y, x), row = assign(targets, anchors, raw.shape[2:4], signals.anchor_t)
        kept = ~overlapped_cells(signals.ignore, len(raw), raw.shape[2:4])[image, y, x]
        cells, row = (image[kept], anchor[kept], y[kept], x[kept]), row[kept]
        category = targets[row, 1:2].long() * (signals.head.nc > 1)  # scores have one column for one class
        # Not at_cells: its gradient lies otherwise in memory, and with weight 0 training would not be its control's to
        # the last bit.
        student.append(scores(raw[cells]).gather(1, category)[:, 0])
        teacher.append(scores(wanted[cells].detach()).gather(1, category)[:, 0])
        rows.append(row)
    return torch.cat(student), torch.cat(teacher), torch.cat(rows)


def log_softmax(score: Tensor, group: Tensor, groups: int) -> Tensor:
    """Log of the softmax of (n,) scores 0..1 within their groups; so small, their exponentials cannot overflow."""
    return score - summed(score.exp(), group, groups).log()[group]


def summed(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Sums of (n,) values by group: (groups,)."""
    return values.new_zeros(groups).index_add(0, group, values)
