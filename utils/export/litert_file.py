"""LiteRT's (TensorFlow Lite's) file of a network, which litert-torch makes of a PyTorch module."""

from pathlib import Path

import torch

from models.exported import import_package
from utils.export.network import FlatDecoding, quiet


def save_litert(network: FlatDecoding, size: tuple[int, int], file: Path) -> None:
    """Write file (.tflite), float32: one input (1, 3, H, W), one output (1, M, 5 + nc), with quads 5 + nc + 4.

    Args:
        network: what is converted.
        size: (H, W) of the pictures, pixels.

    Raises:
        UserError: litert-torch is missing.
    """
    converter = import_package('litert_torch')
    with quiet():
        converter.convert(network.eval(), (torch.zeros(1, 3, *size),)).export(str(file))
