"""A CRAFT of a 64th of the published width, with random weights, in the place of the published one."""

import functools
import hashlib
from pathlib import Path

import pytest
import torch

from utils.distillation import craft_network
from utils.distillation.craft_network import CRAFT

WIDTH = 1 / 64


def tiny_craft() -> CRAFT:
    """The same random weights every time, statistics of normalisation that are not 0 and 1."""
    torch.manual_seed(0)
    model = CRAFT(WIDTH).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return model


def publish(patch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Save the tiny weights as the published ones are, and make the commands expect them. Returns the file."""
    file = folder / 'craft.pth'
    torch.save({f'module.{key}': value for key, value in tiny_craft().state_dict().items()}, file)
    patch.setattr(craft_network, 'MD5', hashlib.md5(file.read_bytes()).hexdigest())
    patch.setattr(craft_network, 'CRAFT', functools.partial(CRAFT, WIDTH))
    return file
