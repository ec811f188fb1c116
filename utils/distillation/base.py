"""What every distillation method is given and shares: signals, options, adapters, the normalised squared difference,
masks."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import UserError
from models.layers import Detect
from models.yolo import DetectionModel
from ocrdistill.nms import BOX_IOU
from utils.boxes import non_max_suppression, numbers, union_by_image, xywh_to_xyxy
from utils.runtime import distributed
from utils.runtime.device import autocast, has_bfloat16


class Option(NamedTuple):
    """A setting of a method: a number from `min` to `max`, or one of `choices`."""

    default: float | str
    help: str
    min: float = 0.0
    max: float = math.inf
    choices: tuple[str, ...] = ()


@dataclass
class Signals:
    """Everything of one batch that a method may look at.

    Attributes:
        size: (H, W) of the student's input in pixels.
        targets: (N, 6) image, class, x, y, w, h (0..1).
        ignore: (K, 6), the same form: don't-care regions.
        student_maps, teacher_maps: raw maps, one a level, (B, 3, h, w, 5 + nc).
            The teacher's are empty where no method reads them.
        student_features, teacher_features: {layer of that model: (B, C, h, w)}.
        head: the student's head, for anchors and strides, which the teacher shares.
        anchor_t: largest factor between the sides of a target and of an anchor that answers for it.
        teacher_size: (H, W) of the teacher's input; None: that of the student.
        edges: (N, 5) of the targets, see Batch; None: not known.
        maps: (B, 3, H, W) uint8: two maps, and where there is an image (utils.loading.maps); None: not known.
        student_edges, teacher_edges: logits of the edges of quads, one map a level, (B, 3, h, w, 4); None: that model
            predicts no quads.
    """

    size: tuple[int, ...]
    targets: Tensor
    ignore: Tensor
    student_maps: list[Tensor]
    teacher_maps: list[Tensor]
    student_features: dict[int, Tensor]
    teacher_features: dict[int, Tensor]
    head: Detect
    anchor_t: float = 4.0
    teacher_size: tuple[int, ...] | None = None
    edges: Tensor | None = None
    student_edges: list[Tensor] | None = None
    teacher_edges: list[Tensor] | None = None
    maps: Tensor | None = None

    def whole_maps(self) -> list[Tensor]:
        """The student's raw maps as the network gives them, with the edges at their end."""
        if self.student_edges is None:
            return self.student_maps
        return [torch.cat(pair, -1) for pair in zip(self.student_maps, self.student_edges, strict=True)]

    def select(self, images: Tensor) -> 'Signals':
        """The signals of some pictures; (B,) bool."""
        number = images.cumsum(0) - 1  # the new number of each picture that stays

        def rows(boxes: Tensor) -> Tensor:
            image = boxes[:, 0].long()
            return torch.cat((number[image, None].to(boxes), boxes[:, 1:]), 1)[images[image]]

        def part(features: dict[int, Tensor]) -> dict[int, Tensor]:
            return {layer: feature[images] for layer, feature in features.items()}

        return replace(
            self,
            targets=rows(self.targets),
            ignore=rows(self.ignore),
            student_maps=[raw[images] for raw in self.student_maps],
            teacher_maps=[raw[images] for raw in self.teacher_maps],
            student_features=part(self.student_features),
            teacher_features=part(self.teacher_features),
            edges=None if self.edges is None else self.edges[images[self.targets[:, 0].long()]],
            student_edges=self.student_edges and [raw[images] for raw in self.student_edges],
            teacher_edges=self.teacher_edges and [raw[images] for raw in self.teacher_edges],
            maps=None if self.maps is None else self.maps[images],
        )

    @property
    def anchors(self) -> Tensor:
        """(levels, 3, 2) width and height of the anchors in cells of their level, float32."""
        return self.head.anchors.float()

    @torch.no_grad()
    def teacher_boxes(self, confidence: float) -> Tensor:
        """The teacher's detections, in the form of targets.

        Args:
            confidence: that a detection must exceed, 0..1.

        Returns:
            (n, 6) image, class, x, y, w, h (0..1).
        """
        height, width = self.teacher_size or self.size
        found = non_max_suppression(self.head.decode(self.teacher_maps), confidence, BOX_IOU)
        image = torch.cat([boxes.new_full((len(boxes), 1), i) for i, boxes in enumerate(found)])
        boxes = torch.cat(found)
        limit = numbers(boxes, width, height)
        start, end = boxes[:, :2].clamp(min=0).minimum(limit), boxes[:, 2:4].clamp(min=0).minimum(limit)
        return torch.cat((image, boxes[:, 5:6], (start + end) / 2 / limit, (end - start) / limit), 1)


class Method(nn.Module):
    """A distillation method; forward(signals) returns {term: unweighted float32 scalar}, means over the batch.

    What a method reads of a layer: difference() (E, per cell), features() (adapted) or unadapted_features(); and the
    heads' maps in the signals. Subclasses write forward(), perhaps build(), and set:
        TERMS: {term: default weight}.
        LAYERS: the layers that they look at by default; empty for a method that looks at the raw maps alone.
        OPTIONS: {name: Option}.
        NEEDS_LABELS: whether it says nothing of pictures without labels.
        SAME_SIZE: whether it compares predictions cell by cell, so that both models must see the same size.
        TEACHES_HEAD: whether it also teaches the head's predictions, beside its layers.
        ADAPTS: whether it brings the student's features to the teacher's channels by 1x1 convolutions.
        NEEDS_MAPS: whether it reads the signals' maps.
        READS_TEACHER: whether it reads what the teacher says; where no method does, the teacher does not run.

    Args:
        student, teacher: the two models; only their real channel counts and the heads' inputs are read.
        layers: numbers of the student's layers to look at.
        generator: draws the adapters' weights, so that the student's random numbers are not shifted. They hold until
            fit_adapters.
        options: values in place of the defaults.
        teacher_layers: the teacher's layers beside `layers`, in their order; None: the same numbers.

    Attributes:
        options: {name: value}, complete.
        needs_labels: NEEDS_LABELS, unless the options change it.
        teacher_layer: {layer: the teacher's layer beside it}.
    """

    TERMS: dict[str, float] = {}
    LAYERS: tuple[int, ...] = (17, 20, 23)
    OPTIONS: dict[str, Option] = {}
    NEEDS_LABELS = False
    SAME_SIZE = False
    TEACHES_HEAD = False
    ADAPTS = True
    NEEDS_MAPS = False
    READS_TEACHER = True

    def __init__(
        self,
        student: DetectionModel,
        teacher: DetectionModel,
        layers: Sequence[int],
        generator: torch.Generator,
        options: dict[str, float | str] | None = None,
        teacher_layers: Sequence[int] | None = None,
    ):
        super().__init__()
        self.layers = check_layers(layers, student) if self.LAYERS else []
        theirs = layers if teacher_layers is None else teacher_layers
        theirs = check_layers(theirs, teacher, 'teacher_layers') if self.LAYERS else []
        self.teacher_layer = dict(zip(self.layers, theirs, strict=True))
        defaults = {name: option.default for name, option in self.OPTIONS.items()}
        self.options: dict[str, Any] = defaults | (options or {})
        self.needs_labels = self.NEEDS_LABELS
        adapted = self.teacher_layer.items() if self.ADAPTS else []
        self.adapters = nn.ModuleDict(
            {
                str(own): make_convolution(student.channels[own], teacher.channels[its], generator)
                for own, its in adapted
            }
        )
        self.build(student, teacher, generator)

    def build(self, student: DetectionModel, teacher: DetectionModel, generator: torch.Generator) -> None:
        """What a method sets up of its own, once layers, options and adapters are there."""

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        """The method's terms of a batch; TERMS may have more, for other numbers of classes."""
        raise NotImplementedError

    def features(self, signals: Signals, layer: int) -> tuple[Tensor, Tensor]:
        """The adapted student's and the teacher's features of a layer, both (B, C, h, w) float32 on the student's
        grid: a teacher that saw another size is averaged (or interpolated) to it. The teacher's are detached."""
        adapted, teacher = self._computed_features(signals, layer)
        return adapted.float(), teacher.float()

    def unadapted_features(self, signals: Signals, layer: int) -> tuple[Tensor, Tensor]:
        """As features(), but the student's have its own channels: (B, c, h, w) and (B, C, h, w)."""
        student, teacher = self._aligned(signals, layer)
        return student.float(), teacher.float()

    def difference(self, signals: Signals, layer: int) -> Tensor:
        """E of a layer, (B, h, w) float32: the squared difference of adapted student and teacher, mean over channels,
        in units of the teacher's mean square there (detached, per picture). The normalisation is ours."""
        adapted, teacher = self._computed_features(signals, layer)
        squared: Tensor = SquaredDifference.apply(adapted, teacher)
        return squared / self.unit(teacher)[:, None, None]

    def unit(self, teacher: Tensor) -> Tensor:
        """(B,) what squared differences from the teacher's features (B, C, h, w) are counted in, float32, never 0."""
        return mean_square(teacher)

    @torch.no_grad()
    def fit_adapters(self, signals: Signals) -> None:
        """Set the adapters to the linear maps that bring a batch's features of the student nearest to the teacher's.

        Random adapters would pull the student apart before they have learnt anything: their differences are many
        times the teacher's own size. FitNets (Romero 2015, section 2.2) trains the regressor in a stage before the
        task; for a 1x1 regressor the best beginning has a closed form, ridge regression, which minimises the mean of E.
        """
        for layer in map(int, self.adapters):
            adapter = self._adapter(layer)
            student, teacher = self._aligned(signals, layer)
            count = student.shape[1] + 1  # the last is the bias
            squares = torch.zeros(count, count, dtype=torch.float64, device=student.device)
            products = squares.new_zeros(count, teacher.shape[1])
            for s, t, unit in zip(student, teacher, self.unit(teacher), strict=True):
                x = F.pad(s.flatten(1).double(), (0, 0, 0, 1), value=1.0) / unit.double().sqrt()  # (count, cells)
                y = t.flatten(1).double() / unit.double().sqrt()  # (C, cells)
                squares += x @ x.T
                products += x @ y.T
            squares, products = distributed.total(squares), distributed.total(products)
            cells = distributed.total(torch.full((), float(student[:, 0].numel()), device=student.device))
            # As much weight as `count` cells have: little for 100,000 cells, enough where fewer cells than channels
            # leave the map undetermined.
            squares.diagonal().add_(squares.diagonal().mean() * count / cells)
            solution = torch.linalg.solve(squares, products).to(adapter.weight.dtype)  # (count, C)
            adapter.weight.copy_(solution[:-1].T[:, :, None, None])
            cast(Tensor, adapter.bias).copy_(solution[-1])

    def _computed_features(self, signals: Signals, layer: int) -> tuple[Tensor, Tensor]:
        """features() in the precision that they were computed in."""
        student, teacher = self._aligned(signals, layer)
        return self._adapt(student, layer), teacher

    def _aligned(self, signals: Signals, layer: int) -> tuple[Tensor, Tensor]:
        """The student's features of a layer, and the teacher's on the same grid, detached."""
        student = signals.student_features[layer]
        teacher = signals.teacher_features[self.teacher_layer[layer]].detach()
        if student.shape[2:] != teacher.shape[2:]:
            if signals.teacher_size in (None, signals.size):
                raise UserError(
                    f'layer {layer}: the student has a map of {tuple(student.shape[2:])} cells, the teacher of '
                    f'{tuple(teacher.shape[2:])}'
                )
            teacher = resize(teacher.float(), student.shape[2:])
        return student, teacher

    def _adapt(self, student: Tensor, layer: int) -> Tensor:
        """a(S) of a layer: (B, C, h, w) in the student's channels -> in the teacher's."""
        fast = student.dtype == torch.bfloat16 and has_bfloat16(student.device)  # as the network itself
        with autocast(student.device, fast):
            return self._adapter(layer)(student if fast else student.float())

    def _adapter(self, layer: int) -> nn.Conv2d:
        return cast(nn.Conv2d, self.adapters[str(layer)])


class SquaredDifference(torch.autograd.Function):
    """Mean over the channels of (a - t)^2: two (B, C, h, w) -> (B, h, w) float32; t gets no gradient.

    The same as (a - t).square().mean(1), in a fifth of the time on a CPU and with half the memory kept for the way
    back: in bfloat16 nothing is widened, only the sum is float32. The difference is rounded to bfloat16 as both
    features were before, which is exact once they are within a factor of two.
    """

    @staticmethod
    def forward(ctx: Any, adapted: Tensor, teacher: Tensor) -> Tensor:
        gap = adapted - teacher
        ctx.save_for_backward(gap)
        norm = torch.linalg.vector_norm(gap, dim=1, dtype=torch.promote_types(gap.dtype, torch.float32))
        return norm.square() / gap.shape[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (gap,) = ctx.saved_tensors
        return gap * (gradient * (2 / gap.shape[1])).to(gap.dtype)[:, None], None


def mean_square(teacher: Tensor) -> Tensor:
    """(B, C, h, w) -> (B,) float32: the unit of squared differences of features, never 0."""
    norm = torch.linalg.vector_norm(teacher, dim=(1, 2, 3), dtype=torch.promote_types(teacher.dtype, torch.float32))
    return (norm.square() / teacher[0].numel()).clamp(min=1e-12)


def resize(features: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size): area means when it shrinks, bilinear when it grows."""
    (high, wide), (h, w) = features.shape[2:], size
    if h > high or w > wide:
        return F.interpolate(features, size=(h, w), mode='bilinear', align_corners=False)
    if high % h == 0 and wide % w == 0:
        return F.adaptive_avg_pool2d(features, (h, w))
    return covered(high, h).to(features) @ features @ covered(wide, w).to(features).T


def covered(cells: int, parts: int) -> Tensor:
    """(parts, cells): which share of each of so many equal parts of a side each of its cells covers."""
    cell = torch.arange(cells + 1) / cells
    part = torch.arange(parts + 1) / parts
    common = torch.minimum(cell[1:], part[1:, None]) - torch.maximum(cell[:-1], part[:-1, None])
    return common.clamp(min=0) * parts


def scores(raw: Tensor) -> Tensor:
    """Raw map (B, 3, h, w, 5 + nc) -> predicted scores (B, 3, h, w, nc), float32: sigmoid(obj) * sigmoid(cls), for one
    class sigmoid(obj) alone, as its class branch is untrained."""
    objectness, classes = raw[..., 4:5].float().sigmoid(), raw[..., 5:].float().sigmoid()
    return objectness if classes.shape[-1] == 1 else objectness * classes


def levels_of(name: str, model: DetectionModel, layers: Collection[int]) -> dict[int, int]:
    """{layer: the head's level that it feeds}. Raises UserError for layers that do not feed the head."""
    feeding = cast(list[int], model.sources[-1])
    strangers = [i for i in layers if i not in feeding]
    if strangers:
        raise UserError(f'{name}: layers {strangers} do not feed the head; its layers are among {feeding}')
    return {layer: feeding.index(layer) for layer in layers}


def check_layers(layers: Sequence[int], model: DetectionModel, what: str = 'layers') -> list[int]:
    """Layers that a model has, before its head; `what` is their name in errors. Raises UserError."""
    last = len(model.model) - 2
    bad = [i for i in layers if not (type(i) is int and 0 <= i <= last)]
    if bad or not layers or len(set(layers)) != len(layers):
        raise UserError(f'{what} {list(layers)}: expected different layer numbers from 0 to {last}')
    return list(layers)


def make_convolution(c_in: int, c_out: int, generator: torch.Generator, kernel: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size of its input, He-initialised from the generator."""
    state = torch.get_rng_state()  # a convolution draws its first weights from the global generator; undo that
    convolution = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)
    torch.set_rng_state(state)
    with torch.no_grad():
        convolution.weight.normal_(0, (2 / (c_in * kernel**2)) ** 0.5, generator=generator)
        cast(Tensor, convolution.bias).zero_()
    return convolution


def overlapped_cells(boxes: Tensor, batch: int, size: Sequence[int]) -> Tensor:
    """Cells that a box overlaps with any area: floor of the start, ceil of the end.

    Args:
        boxes: (N, 6) image, class, x, y, w, h (0..1).
        batch: pictures.
        size: (h, w) of the map.

    Returns:
        (batch, h, w) bool.
    """
    h, w = size
    corners = xywh_to_xyxy(boxes[:, 2:6].float())
    corners = corners * numbers(corners, w, h, w, h)
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
