"""The network that goes into an export, and its TorchScript form."""

import contextlib
import copy
import logging
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from models.layers import Detect
from models.yolo import DetectionModel

LOUD = ('torch.onnx', 'onnxscript', 'onnx_ir', 'torch.export', 'torch.utils.cpp_extension', 'nncf')


class Decoding(nn.Module):
    """A fused network that takes and gives float32, whatever it computes in.

    Args:
        model: in eval mode, fused.
        half: run the network in float16. Boxes are decoded in float32 all the same: float16 has whole pixels only,
            from 1024 on.
    """

    def __init__(self, model: DetectionModel, half: bool = False):
        super().__init__()
        self.model = copy.deepcopy(model)
        self.dtype = torch.float16 if half else torch.float32
        anchors = self.model.head.anchors
        self.model.to(self.dtype)
        self.model.head.anchors = anchors
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float32 RGB, 0..1 -> (B, M, 5 + nc) float32: x, y, w, h in pixels, objectness, classes; with
        quads four more columns, see Detect.decode."""
        return self.model(images.to(self.dtype))[0]


class FlatDecoding(nn.Module):
    """A fused network of one picture and one size, decoded in fewer dimensions, for converters to phones' formats.

    The levels are joined before their boxes are decoded, and what turns a cell's numbers into pixels is stored for
    every cell: pnnx loses boxes' places where numbers of (h, w, 2) meet maps of five dimensions, as in Detect.decode.

    Args:
        model: in eval mode, fused.
        size: (H, W) of the pictures, pixels.
    """

    def __init__(self, model: DetectionModel, size: tuple[int, int]):
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        steps, corners, sides = cell_constants(self.model.head, size)
        self.register_buffer('steps', steps)
        self.register_buffer('corners', corners)
        self.register_buffer('sides', sides)

    def forward(self, images: Tensor) -> Tensor:
        """(1, 3, H, W) float32 RGB, 0..1 -> (1, M, 5 + nc) float32, with quads four more columns, as of Decoding."""
        maps, _ = self.model.raw_maps(images)
        rows = torch.cat([raw.flatten(1, 3) for raw in maps], 1)  # (1, M, 5 + nc or more)
        own = self.model.head.outputs
        xy, wh, scores = rows[..., :own].sigmoid().split((2, 2, own - 4), -1)
        parts = [xy * self.steps + self.corners, (2 * wh).square() * self.sides, scores]
        if self.model.quads:
            parts.append(rows[..., own:].tanh())
        return torch.cat(parts, -1)


def cell_constants(head: Detect, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """What `Detect.decode` multiplies by and adds, for all cells of a picture of (H, W) pixels, each (1, M, 2):
    xy = steps * sigmoid + corners, wh = sides * (2 sigmoid)^2."""
    steps, corners, sides = [], [], []
    for anchors, stride in zip(head.anchors.float(), head.strides, strict=True):
        h, w = size[0] // stride, size[1] // stride
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')
        corner = (torch.stack((x, y), -1) - 0.5) * stride  # (h, w, 2)
        corners.append(corner.expand(len(anchors), -1, -1, -1).flatten(0, 2))
        sides.append((anchors * stride).repeat_interleave(h * w, 0))
        steps.append(torch.full_like(corners[-1], 2.0 * stride))
    return torch.cat(steps)[None], torch.cat(corners)[None], torch.cat(sides)[None]


def trace(network: nn.Module, size: tuple[int, int]) -> torch.jit.ScriptModule:
    """A network as TorchScript, for pictures of (H, W) pixels, one at a time."""
    with quiet(), torch.no_grad():
        return torch.jit.trace(network, torch.zeros(1, 3, *size), check_trace=False)


def drop_traces(file: Path) -> None:
    """Take the places in source files, which name this machine's folders, out of a TorchScript file."""
    with zipfile.ZipFile(file) as archive:
        kept = [(info, archive.read(info)) for info in archive.infolist() if not info.filename.endswith('.debug_pkl')]
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
        for info, content in kept:
            archive.writestr(info, content)


def to_torchscript(network: Decoding, size: tuple[int, int], dynamic: bool) -> torch.jit.ScriptModule:
    """The network as a frozen TorchScript graph; its sizes stay open where `dynamic`."""
    example = torch.zeros(2, 3, 256, 320) if dynamic else torch.zeros(1, 3, *size)
    network = copy.deepcopy(network).to(memory_format=torch.channels_last)  # several times as fast on a CPU
    with quiet(), torch.no_grad():
        return torch.jit.freeze(torch.jit.trace(network, example, check_trace=False))


@contextlib.contextmanager
def quiet():
    """Silence what exporters say to their own developers; that the graph is right is checked by running it."""
    loud = [logging.getLogger(name) for name in LOUD]
    levels = [logger.level for logger in loud]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for logger in loud:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loud, levels, strict=True):
                logger.setLevel(level)
