"""DetectionModel: YOLOv5 (v6.0 and later) built from a yaml."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.errors import UserError
from models.layers import C3, SPPF, Concat, Conv, Detect
from models.yamls import read_yaml
from ocrdistill.points import UNSCALED, Point, Points, nearest

CFG_KEYS = {'nc', 'depth_multiple', 'width_multiple', 'anchors', 'backbone', 'head'}
USUAL_SIDE = 640  # pixels, as YOLOv5 has it
OPTIONAL_KEYS = {'quads', 'ch', 'inplace'}  # the last two of public checkpoints, where they mean nothing to us
STRIDES = [8, 16, 32]
# A model yaml may come from anybody: no network that it describes may take all memory. YOLOv5-X has 87 million weights.
MAX_WEIGHTS, MAX_CLASSES = 500_000_000, 10_000


def load_cfg(cfg: str | Path | dict[str, Any]) -> dict[str, Any]:
    """Read and check a model's yaml (a path or its dict). Raises UserError."""
    if not isinstance(cfg, dict):
        cfg = read_yaml(cfg)
    missing = CFG_KEYS - {'nc'} - cfg.keys()
    if missing:
        raise UserError(f'the model yaml lacks {", ".join(sorted(missing))}')
    unknown = cfg.keys() - CFG_KEYS - OPTIONAL_KEYS
    if unknown:
        raise UserError(f'the model yaml has unknown keys: {", ".join(sorted(map(str, unknown)))}')
    for key in ('depth_multiple', 'width_multiple'):
        if not isinstance(cfg[key], int | float) or not 0 < cfg[key] < 100:
            raise UserError(f'the model yaml: {key} is {cfg[key]!r}, expected a positive number')
    if not isinstance(cfg.get('quads', False), bool):
        raise UserError(f'the model yaml: quads is {cfg["quads"]!r}, expected true or false')
    return deepcopy(cfg)


class DetectionModel(nn.Module):
    """A YOLOv5 detector.

    Args:
        cfg: path to a model yaml, or its dict.
        ch: channels of the pictures. The commands have 3; others are for your own loops.
        nc: number of classes; None takes the yaml's.
        anchors: (levels, anchors * 2) pixels in place of the yaml's.
        quads: whether the head predicts quads (utils.quads); None takes the yaml's `quads`, false where it has none.

    Attributes:
        quads: whether it does.
        stride: (levels,) pixels a cell of each raw map.
        names: {class index: name}.
        conf_threshold: the confidence chosen on the validation split, None before it is chosen.
        word_scale: factors of width and height that turn a box into the quad that hmean is for, chosen on the same
            split.
        points: {longer side in pixels: the threshold and word scale that were chosen for images of this size}.
        trained_on: the data yaml whose validation split that was, None where it is not known.
        long_side: pixels of the longer side that val.py and export.py take unless they are told: those of the
            training, 640 for weights with `points` and for those that do not say.
        pretrained: training begins with it, and every entry is of trained weights.
        channels: output channels of each layer.
        layer_strides: pixels a cell of each layer's output.
        input_size, precision: as of an ExportedModel, which may take one size only or compute in another precision.

    Raises:
        UserError: the yaml is missing, broken or describes something else.
    """

    input_size: tuple[int, int] | None = None
    precision = 'float32'

    def __init__(
        self,
        cfg: str | Path | dict[str, Any] = 'models/yolov5n.yaml',
        ch: int = 3,
        nc: int | None = None,
        anchors: Sequence[Sequence[float]] | None = None,
        quads: bool | None = None,
    ):
        super().__init__()
        self.yaml = load_cfg(cfg)
        if nc is not None:
            self.yaml['nc'] = int(nc)
        if anchors is not None:
            self.yaml['anchors'] = [list(map(float, level)) for level in anchors]
        self.nc = self.yaml.get('nc', 80)
        if type(self.nc) is not int or not 0 < self.nc <= MAX_CLASSES:
            raise UserError(f'the model yaml: nc is {self.nc!r}, expected a number of classes')
        try:
            self.model, self.sources, self.channels, self.layer_strides = _build(self.yaml, ch, self.nc)
        except UserError:
            raise
        except Exception as error:  # whatever Python makes of layers that are none
            raise UserError(f'the model yaml cannot be built: {error}') from error
        if self.head.strides != STRIDES:
            raise UserError(f'the model has strides {self.head.strides}, only {STRIDES} are supported')
        # Layers whose outputs a later layer asks for; the others are freed at once.
        self._kept = {i for source in self.sources for i in ([source] if isinstance(source, int) else source)}
        self.stride = torch.tensor(self.head.strides, dtype=torch.float32)
        self.names = {i: 'text' if self.nc == 1 else f'class{i}' for i in range(self.nc)}
        self.conf_threshold: float | None = None
        self.word_scale: tuple[float, float] = UNSCALED
        self.points: Points = {}
        self.trained_on: str | None = None
        self.long_side = USUAL_SIDE
        self.pretrained = False
        self._initialise()
        if quads if quads is not None else self.yaml.get('quads', False):
            self.yaml['quads'] = True
            self.head.add_quads()
        else:
            self.yaml.pop('quads', None)

    @property
    def quads(self) -> bool:
        return self.head.quad is not None

    def point_at(self, imgsz: int) -> Point:
        """Threshold and word scale for images whose longer side has this many pixels."""
        return nearest(self.points, imgsz, Point(self.conf_threshold, self.word_scale))

    @property
    def head(self) -> Detect:
        return cast(Detect, self.model[-1])

    def forward(self, images: Tensor, taps: Sequence[int] = ()) -> list[Tensor] | tuple[Any, ...]:
        """Run the network.

        Args:
            images: (B, 3, H, W), 0..1; H and W multiples of 32.
            taps: numbers of layers whose outputs are wanted too (0 .. the layer before the head).

        Returns:
            In train mode the raw maps, a list of (B, 3, H/s, W/s, 5 + nc); in eval mode (decoded (B, M, 5 + nc) with
            x, y, w, h in pixels, raw maps). With quads both have four more columns, see Detect. With taps: that and
            {layer: feature map (B, C, h, w)}.
        """
        maps, features = self.raw_maps(images, taps)
        result: Any = maps if self.training else (self.head.decode(maps), maps)
        return (result, features) if taps else result

    def raw_maps(self, images: Tensor, taps: Sequence[int] = ()) -> tuple[list[Tensor], dict[int, Tensor]]:
        """(raw maps, {layer: feature map}) in either mode, without decoding; see forward()."""
        outputs: list[Tensor | None] = []
        features: dict[int, Tensor] = {}
        x: Any = images  # the head's is a list
        for index, (layer, source) in enumerate(zip(self.model, self.sources, strict=True)):
            if isinstance(source, int):
                x = layer(outputs[source] if source >= 0 else x)
            else:
                x = layer([outputs[i] for i in source])
            outputs.append(x if index in self._kept else None)
            if index in taps:
                features[index] = x
        if len(features) != len(set(taps)) or len(self.model) - 1 in taps:
            raise ValueError(f'taps {list(taps)} are not all layers 0..{len(self.model) - 2}')
        return x, features

    def fuse(self) -> 'DetectionModel':
        """Fold every batch normalisation into its convolution, and the head's edges into its boxes'; leaves the model
        in eval mode, cannot be undone."""
        self.eval()
        for module in self.modules():
            if isinstance(module, (Conv, Detect)):
                module.fuse()
        return self.eval()  # what was put in place of the normalisation too

    def to_bfloat16(self) -> 'DetectionModel':
        """Cast the weights of a fused model once; the head's anchors stay float32, as what it decodes does."""
        for parameter in self.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
        return self

    def _initialise(self) -> None:
        """Head biases so that a fresh detector expects about 8 objects a 640-pixel picture and each class at 0.6/nc."""
        for conv, stride in zip(self.head.m, self.head.strides, strict=True):
            bias = cast(Tensor, conv.bias).data.view(-1, self.head.outputs)
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)
            bias[:, 5:] += math.log(0.6 / (self.nc - 0.99999))


@dataclass(frozen=True)
class Row:
    """A row of the model yaml, as its layer is built from it."""

    cfg: dict[str, Any]
    nc: int
    c_in: list[int]  # channels of each input
    strides: list[float]  # pixels a cell of each input
    width: int  # output channels, scaled
    repeats: int  # scaled
    args: list[Any]  # without the output channels


Built = tuple[nn.Module, float]  # a layer, and pixels a cell of its output


def _conv(row: Row) -> Built:
    layer = Conv(row.c_in[0], row.width, *row.args)
    return layer, row.strides[0] * layer.conv.stride[0]


def _c3(row: Row) -> Built:
    return C3(row.c_in[0], row.width, row.repeats, *row.args), row.strides[0]


def _sppf(row: Row) -> Built:
    return SPPF(row.c_in[0], row.width, *row.args), row.strides[0]


def _upsample(row: Row) -> Built:
    factor, mode = row.args[:2]
    layer, stride = nn.Upsample(scale_factor=factor, mode=mode), row.strides[0] / factor
    if stride < 1:
        raise UserError('the model yaml describes maps larger than the picture')
    return layer, stride


def _concat(row: Row) -> Built:
    return Concat(), row.strides[0]


def _detect(row: Row) -> Built:
    anchors = torch.tensor(row.cfg['anchors'], dtype=torch.float32).view(len(row.c_in), -1, 2)
    return Detect(row.nc, anchors, row.c_in, [int(stride) for stride in row.strides]), row.strides[0]


BUILDERS: dict[str, Callable[[Row], Built]] = {
    'Conv': _conv,
    'C3': _c3,
    'SPPF': _sppf,
    'nn.Upsample': _upsample,
    'Concat': _concat,
    'Detect': _detect,
}
SCALED = ('Conv', 'C3', 'SPPF')  # layers whose output channels the yaml gives
OLD = ('Focus', 'SPP', 'BottleneckCSP')


def _build(
    cfg: dict[str, Any], ch: int, nc: int
) -> tuple[nn.Sequential, list[int | list[int]], list[int], list[float]]:
    """Layers, where each takes its input from (absolute numbers, -1: the layer before), their channels and strides."""
    layers: list[nn.Module] = []
    sources: list[int | list[int]] = []
    channels: list[int] = []
    strides: list[float] = []
    weights: float = 0
    outputs = sum(len(level) for level in cfg['anchors']) * (5 + nc)  # of the head
    for number, (source, repeats, name, args) in enumerate(cfg['backbone'] + cfg['head']):
        absolute = [i if i >= 0 else number + i for i in ([source] if isinstance(source, int) else source)]
        c_in = [channels[i] if i >= 0 else ch for i in absolute]
        count = max(round(repeats * cfg['depth_multiple']), 1) if repeats > 1 else repeats
        width = _width(args[0], cfg['width_multiple']) if name in SCALED else sum(c_in)
        weights += _weights_at_most(sum(c_in), width, args, repeats, outputs)
        if weights > MAX_WEIGHTS:
            raise UserError(f'the model yaml describes more than {MAX_WEIGHTS / 1e9:g} billion weights')
        strides_in = [strides[i] if i >= 0 else 1 for i in absolute]
        layer, stride = _builder(name)(Row(cfg, nc, c_in, strides_in, width, count, args[1:]))
        layers.append(layer)
        sources.append(absolute if not isinstance(source, int) else (source if source == -1 else absolute[0]))
        channels.append(width)
        strides.append(stride)
    if not isinstance(layers[-1], Detect):
        raise UserError('the last layer of a detector must be Detect')
    return nn.Sequential(*layers), sources, channels, strides


def _builder(name: str) -> Callable[[Row], Built]:
    """What builds a layer of this name. Raises UserError."""
    if name in OLD:
        raise UserError(f'the model uses {name}, of YOLOv5 before v6.0; only v6.0 and later are supported')
    if name not in tuple(BUILDERS):  # a tuple: a yaml may hold a list for a name
        raise UserError(f'the model uses an unknown layer {name!r}')
    return BUILDERS[name]


def _weights_at_most(c_in: int, width: int, args: list[Any], repeats: int, outputs: int) -> float:
    """A bound on a layer's weights, before any memory is taken: no kernel is larger than the layer's largest number."""
    numbers = [abs(number) for number in args[1:] if isinstance(number, int | float)]
    return max(c_in, width) * (max(repeats, 1) * width * max([1, *numbers]) ** 2 + outputs)


def _width(channels: int, multiple: float) -> int:
    """Scaled channels, rounded up to a multiple of 8."""
    return math.ceil(channels * multiple / 8) * 8
