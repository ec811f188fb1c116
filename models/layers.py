"""Building blocks of YOLOv5 (v6.0 and later).

Attribute names give the state-dict keys of public YOLOv5 weights (`conv`, `bn`, `cv1`, `m` ...) and must stay.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

BN_EPS, BN_MOMENTUM = 1e-3, 0.03
EDGES = 4  # of a quad


class Conv(nn.Module):
    """Convolution, batch normalisation, SiLU: (B, c_in, H, W) -> (B, c_out, H/stride, W/stride)."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, padding: int | None = None):
        super().__init__()
        if padding is None:
            padding = kernel // 2
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.bn.training:
            return self.act(self._folded(x))
        return self.act(self.bn(self.conv(x)))

    def _folded(self, x: Tensor) -> Tensor:
        """What `bn(conv(x))` is with statistics that stand still, in one pass: a shorter step of training."""
        scale = self.bn.weight * torch.rsqrt(self.bn.running_var + self.bn.eps)
        bias = self.bn.bias - self.bn.running_mean * scale
        return functional.conv2d(
            x, self.conv.weight * scale.view(-1, 1, 1, 1), bias, self.conv.stride, self.conv.padding
        )

    def fuse(self) -> None:
        """Fold the batch normalisation's running statistics into the convolution (inference only)."""
        if not isinstance(self.bn, nn.Identity):
            self.conv = fuse_conv_bn_eval(self.conv, self.bn)
            self.bn = nn.Identity()


class Bottleneck(nn.Module):
    """1x1 and 3x3 convolution, added to the input if `shortcut`; (B, c, H, W) -> (B, c, H, W)."""

    def __init__(self, channels: int, shortcut: bool):
        super().__init__()
        self.cv1 = Conv(channels, channels, 1)
        self.cv2 = Conv(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.cv2(self.cv1(x))
        return x + out if self.shortcut else out


class C3(nn.Module):
    """Cross-stage partial block with three 1x1 convolutions and `number` bottlenecks on one of its two branches."""

    def __init__(self, c_in: int, c_out: int, number: int = 1, shortcut: bool = True):
        super().__init__()
        hidden = c_out // 2
        self.cv1 = Conv(c_in, hidden)
        self.cv2 = Conv(c_in, hidden)
        self.cv3 = Conv(2 * hidden, c_out)
        self.m = nn.Sequential(*[Bottleneck(hidden, shortcut) for _ in range(number)])

    def forward(self, x: Tensor) -> Tensor:
        deep, plain = self.m(self.cv1(x)), self.cv2(x)
        return self.cv3(torch.cat([deep, plain], 1))


class SPPF(nn.Module):
    """Spatial pyramid pooling: three max-poolings in a row see 5, 9 and 13 cells; joined with their input."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 5):
        super().__init__()
        self.cv1 = Conv(c_in, c_in // 2)
        self.cv2 = Conv(c_in // 2 * 4, c_out)
        self.m = nn.MaxPool2d(kernel, stride=1, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.cv1(x)]
        for _ in range(3):
            levels.append(self.m(levels[-1]))
        return self.cv2(torch.cat(levels, 1))


class Concat(nn.Module):
    """Join maps along the channels."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat(maps, 1)


class Detect(nn.Module):
    """The detection head: a 1x1 convolution for each level gives, for each of its anchors, box, objectness, classes.

    Args:
        nc: number of classes.
        anchors: (levels, anchors, 2) width and height in pixels.
        channels: input channels of each level.
        strides: pixels a cell of each level.

    Attributes:
        quad: with add_quads, a convolution for each level that gives the four edges of each anchor's word
            (utils.quads).
    """

    anchors: Tensor  # the buffer below

    def __init__(self, nc: int, anchors: Tensor, channels: list[int], strides: list[int]):
        super().__init__()
        self.nc = nc
        self.outputs = 5 + nc
        self.m = nn.ModuleList(nn.Conv2d(c, anchors.shape[1] * self.outputs, 1) for c in channels)
        self.register_buffer('anchors', anchors / torch.tensor(strides).view(-1, 1, 1))  # in cells, as YOLOv5 has them
        self.strides = strides
        self.quad: nn.ModuleList | None = None

    def add_quads(self) -> None:
        """Give the head edges, all zero at first: every quad is its upright box. Draws no random numbers."""
        self.quad = nn.ModuleList()
        for conv in self.m:
            anchors = conv.out_channels // self.outputs
            edges = nn.utils.skip_init(nn.Conv2d, conv.in_channels, anchors * EDGES, 1)
            nn.init.zeros_(edges.weight)
            nn.init.zeros_(edges.bias)
            self.quad.append(edges)

    def fuse(self) -> None:
        """Let one convolution of each level give boxes and edges (inference only)."""
        if self.quad:
            pairs = zip(self.m, self.quad, strict=True)
            self.m = nn.ModuleList(_joined(boxes, edges, self.anchors.shape[1]) for boxes, edges in pairs)
            self.quad = nn.ModuleList()  # there are quads, but none has convolutions of its own

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features (B, c, h, w) of each level -> raw maps (B, anchors, h, w, 5 + nc), logits; with quads 5 + nc + 4."""
        anchors = self.anchors.shape[1]
        maps = [_by_anchor(conv(x), anchors) for conv, x in zip(self.m, features, strict=True)]
        if not self.quad:
            return maps
        edges = [_by_anchor(conv(x), anchors) for conv, x in zip(self.quad, features, strict=True)]
        return [torch.cat(pair, -1) for pair in zip(maps, edges, strict=True)]

    def decode(self, maps: list[Tensor]) -> Tensor:
        """Raw maps -> (B, M, 5 + nc) float32: x, y, w, h in pixels, objectness and class scores (0..1).

        YOLOv5: xy = (2 s - 0.5 + cell) stride, wh = (2 s)^2 anchor, s = sigmoid(logit). With quads four more
        columns: the edges (-1..1), tanh of their logits.
        """
        rows = []
        for raw, anchors, stride in zip(maps, self.anchors.float(), self.strides, strict=True):
            b, _, h, w, _ = raw.shape
            # Contiguous: a strided sigmoid rounds in other ways, and boxes must not depend on whether there are quads.
            own = raw if self.quad is None else raw[..., : self.outputs].contiguous()
            xy, wh, scores = own.float().sigmoid().split((2, 2, 1 + self.nc), -1)
            y, x = torch.meshgrid(torch.arange(h, device=raw.device), torch.arange(w, device=raw.device), indexing='ij')
            xy = (2 * xy - 0.5 + torch.stack((x, y), -1)) * stride
            wh = (2 * wh).square() * (anchors * stride).view(1, -1, 1, 1, 2)
            edges = raw[..., self.outputs :].float().tanh()  # no columns without quads
            rows.append(torch.cat((xy, wh, scores, edges), -1).flatten(1, 3))
        return torch.cat(rows, 1)


def _by_anchor(out: Tensor, anchors: int) -> Tensor:
    """(B, anchors * columns, h, w) -> (B, anchors, h, w, columns)."""
    b, _, h, w = out.shape
    return out.view(b, anchors, -1, h, w).permute(0, 1, 3, 4, 2)


def _joined(boxes: nn.Conv2d, edges: nn.Conv2d, anchors: int) -> nn.Conv2d:
    """One 1x1 convolution that gives, for each anchor, the channels of both."""
    joined = nn.utils.skip_init(nn.Conv2d, boxes.in_channels, boxes.out_channels + edges.out_channels, 1)
    for name in ('weight', 'bias'):
        parts = [getattr(conv, name).detach().unflatten(0, (anchors, -1)) for conv in (boxes, edges)]
        setattr(joined, name, nn.Parameter(torch.cat(parts, 1).flatten(0, 1), requires_grad=False))
    return joined
