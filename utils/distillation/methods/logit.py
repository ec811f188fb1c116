"""Objectness-scaled imitation of the predictions: boxes and classes count where the teacher sees an object.

Mehta and Ozturk, Object detection at 200 Frames Per Second, ECCV Workshops 2018 (arXiv 1805.06361), section on
objectness scaled distillation: with o_T the teacher's objectness, f the detector's own losses and the teacher's
predictions for the truth, f_obj(o_T, o_S) + o_T f_bb(b_T, b_S) + o_T f_cl(p_T, p_S). One-stage detectors predict
everywhere, and without o_T the teacher's meaningless boxes of the background would prevail.

Differences: f are YOLOv5's losses (1 - CIoU, binary cross entropy) in place of YOLOv2's; the teacher's entropy is
subtracted, so that equal predictions cost 0 (the gradients are the same); means over anchor-cells, not sums; no
feature-map NMS, as in YOLOv5 neighbouring cells share a target on purpose. Don't-care cells take part like others:
the method reads no labels, and what the teacher thinks of a region that nobody labelled is all that is known of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.boxes import ciou_miss, xywh_to_xyxy
from utils.distillation.base import Method, Signals, mean_of


class Logit(Method):
    """'logit_box': mean of o_T (1 - CIoU); 'logit_obj': of KL(o_T || o_S); 'logit_cls': of o_T KL(p_T || p_S).

    Means over the anchor-cells (and classes) of a level, then over the levels. 'logit_cls' needs several classes. It
    looks at the heads' maps alone: no layers.
    """

    TERMS = {'logit_box': 20.0, 'logit_obj': 3.0, 'logit_cls': 10.0}
    LAYERS = ()
    SAME_SIZE = True
    ADAPTS = False

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        box, obj, cls = [], [], []
        for student, teacher, anchors in zip(signals.student_maps, signals.teacher_maps, signals.anchors, strict=True):
            student, teacher = student.float(), teacher.detach().float()  # noqa: PLW2901  (B, 3, h, w, 5 + nc)
            objectness = teacher[..., 4:5].sigmoid()  # (B, 3, h, w, 1)
            box.append((objectness[..., 0] * box_miss(student, teacher, anchors)).mean())
            obj.append(binary_divergence(student[..., 4], teacher[..., 4]).mean())
            cls.append((objectness * binary_divergence(student[..., 5:], teacher[..., 5:])).mean())
        terms = {'logit_box': mean_of(box), 'logit_obj': mean_of(obj)}
        # For one class the class branches are untrained.
        return terms if signals.head.nc == 1 else terms | {'logit_cls': mean_of(cls)}


def binary_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of each element, in nats: logits, softened by the temperature -> the same shape.

    Times temperature^2, so that the gradient keeps its size (Hinton et al. 2015, section 2).
    """
    student, teacher = student / temperature, teacher / temperature
    wanted = teacher.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(teacher, wanted, reduction='none')
    cross = F.binary_cross_entropy_with_logits(student, wanted, reduction='none')
    return (cross - entropy) * temperature**2


def box_miss(student: Tensor, teacher: Tensor, anchors: Tensor) -> Tensor:
    """1 - CIoU (Zheng 2020) of the two boxes that each anchor-cell predicts.

    Args:
        student, teacher: raw maps of a level (B, 3, h, w, 5 + nc), float32.
        anchors: (3, 2) in cells.

    Returns:
        (B, 3, h, w).
    """

    def boxes(raw: Tensor) -> Tensor:
        s = raw[..., :4].sigmoid()
        # Both boxes are of one cell, so its place does not matter; the least size keeps CIoU's aspect term finite.
        size = ((2 * s[..., 2:]).square() * anchors[:, None, None]).clamp(min=1e-3)
        return xywh_to_xyxy(torch.cat((2 * s[..., :2], size), -1)) * 1000  # ciou_miss adds 1e-7 to areas

    return ciou_miss(boxes(student), boxes(teacher))
