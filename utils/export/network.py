"""The network that goes into an export, and its TorchScript form."""

import contextlib
import copy
import logging
import warnings

import torch
from torch import Tensor, nn

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
