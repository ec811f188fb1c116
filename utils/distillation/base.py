"""What every distillation method is given and shares: signals, adapters, the normalised squared difference, masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.errors import UserError
from models.yolo import DetectionModel
from utils.boxes import union_by_image, xywh_to_xyxy


@dataclass
class Signals:
    """Everything of one batch that a method may look at.

    Attributes:
        size: (H, W) of the network's input in pixels.
        targets: (N, 6) image, class, x, y, w, h (0..1).
        ignore: (K, 6), the same form: don't-care regions.
        student_maps, teacher_maps: raw maps, one a level, (B, 3, h, w, 5 + nc).
        student_features, teacher_features: {layer: (B, C, h, w)}.
    """

    size: tuple[int, int]
    targets: Tensor
    ignore: Tensor
    student_maps: list[Tensor]
    teacher_maps: list[Tensor]
    student_features: dict[int, Tensor]
    teacher_features: dict[int, Tensor]


class Method(nn.Module):
    """A distillation method; forward(signals) returns {term: unweighted float32 scalar}, means over the batch.

    Subclasses set:
        TERMS: {term: default weight}.
        LAYERS: the layers that they look at by default.

    Args:
        student, teacher: the two models; only their real channel counts and the heads' inputs are read.
        layers: numbers of the layers to look at.
        generator: draws the adapters' weights, so that the student's random numbers are not shifted.
    """

    TERMS: dict[str, float] = {}
    LAYERS: tuple[int, ...] = (17, 20, 23)

    def __init__(
        self, student: DetectionModel, teacher: DetectionModel, layers: Sequence[int], generator: torch.Generator
    ):
        super().__init__()
        self.layers = check_layers(layers, student, teacher)
        self.adapters = nn.ModuleDict(
            {str(i): make_adapter(student.channels[i], teacher.channels[i], generator) for i in self.layers}
        )

    def difference(self, signals: Signals, layer: int) -> Tensor:
        """E of a layer, (B, h, w) float32: the squared difference of adapted student and teacher, mean over channels,
        in units of the teacher's mean square there (detached, per picture). The normalisation is ours."""
        student, teacher = signals.student_features[layer], signals.teacher_features[layer]
        if student.shape[2:] != teacher.shape[2:]:
            raise UserError(
                f'layer {layer}: the student has a map of {tuple(student.shape[2:])} cells, the teacher of '
                f'{tuple(teacher.shape[2:])}'
            )
        adapted = self.adapters[str(layer)](student).float()
        teacher = teacher.detach().float()
        scale = teacher.square().mean((1, 2, 3)).clamp(min=1e-12)
        return (adapted - teacher).square().mean(1) / scale[:, None, None]


def check_layers(layers: Sequence[int], student: DetectionModel, teacher: DetectionModel) -> list[int]:
    """Layers that both models have, before their heads. Raises UserError."""
    last = min(len(student.model), len(teacher.model)) - 2
    bad = [i for i in layers if not (isinstance(i, int) and 0 <= i <= last)]
    if bad or not layers or len(set(layers)) != len(layers):
        raise UserError(f'layers {list(layers)}: expected different layer numbers from 0 to {last}')
    return list(layers)


def make_adapter(student: int, teacher: int, generator: torch.Generator) -> nn.Conv2d:
    """A 1x1 convolution from the student's channels to the teacher's, He-initialised from the generator."""
    state = torch.get_rng_state()  # a convolution draws its first weights from the global generator; undo that
    adapter = nn.Conv2d(student, teacher, 1)
    torch.set_rng_state(state)
    with torch.no_grad():
        adapter.weight.normal_(0, (2 / student) ** 0.5, generator=generator)
        adapter.bias.zero_()
    return adapter


def overlapped_cells(boxes: Tensor, batch: int, size: tuple[int, int]) -> Tensor:
    """Cells that a box overlaps with any area: floor of the start, ceil of the end.

    Args:
        boxes: (N, 6) image, class, x, y, w, h (0..1).
        batch: pictures.
        size: (h, w) of the map.

    Returns:
        (batch, h, w) bool.
    """
    h, w = size
    corners = xywh_to_xyxy(boxes[:, 2:6].float()) * boxes.new_tensor([w, h, w, h], dtype=torch.float32)
    start, end = (corners[:, :2] + 1e-4).floor(), (corners[:, 2:] - 1e-4).ceil()  # rounding of 0..1 must not add cells
    x, y = torch.arange(w, device=boxes.device), torch.arange(h, device=boxes.device)
    in_x = (x >= start[:, 0:1]) & (x < end[:, 0:1])  # (N, w)
    in_y = (y >= start[:, 1:2]) & (y < end[:, 1:2])  # (N, h)
    return union_by_image(in_y[:, :, None] & in_x[:, None, :], boxes[:, 0].long(), batch)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B, h, w) values over each picture's mask, then over the pictures; an empty mask counts 0."""
    mask = mask.to(values.dtype)
    return ((values * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)).mean()


def mean_of(values: list[Tensor]) -> Tensor:
    """Mean over the levels."""
    return torch.stack(values).mean()
