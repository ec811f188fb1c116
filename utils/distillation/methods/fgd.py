"""Focal and global distillation: attend where the teacher attends, every object alike, and keep relations of cells.

Yang et al., Focal and Global Knowledge Distillation for Detectors (FGD), CVPR 2022 (arXiv 2111.11837), section 3.
Spatial attention A^S = h w softmax over the cells of (mean over channels of |F| / T), channel attention
A^C = C softmax over the channels of (mean over cells of |F| / T), with the teacher's in the weights:
    L_fea = sum over foreground and background of weight S A^S A^C (F^T - a(F^S))^2,
    L_at = l1(A^S(T), A^S(S)) + l1(A^C(T), A^C(S)),
    L_global = sum (R(F^T) - R(a(F^S)))^2, R the global context block (GcNet).
S is 1 / the cells of the object that a cell belongs to (of the smallest, where objects overlap), and 1 / the number of
background cells elsewhere, so that objects count alike.

Differences: squared differences are means over channels in units of the teacher's mean square (see Method.difference),
and L_global a mean over cells, where the paper sums; the foreground is divided by the number of objects, so that a
picture with many does not count more; l1 is a mean; attention maps of the adapted student; cells that a don't-care
region overlaps are neither foreground nor background (an object wholly under one still counts in that number).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.yolo import DetectionModel
from utils.distillation.base import Method, Option, Signals, make_convolution, mean_of, mean_square, overlapped_cells


class FGD(Method):
    """'fgd_fg': mean over a picture's objects of the mean over their cells of A^S A^C E; 'fgd_bg': mean over its
    background cells of the same; 'fgd_attention': L_at; 'fgd_global': mean over h, w of the contexts' E.

    Means over layers and pictures. The layers feed the head, as in the paper's feature pyramids. Option: `temperature`
    T of the attention; the paper's 0.5.
    """

    TERMS = {'fgd_fg': 0.01, 'fgd_bg': 0.005, 'fgd_attention': 0.02, 'fgd_global': 0.01}
    LAYERS = (17, 20, 23)
    OPTIONS = {'temperature': Option(0.5, 'temperature of the attention', 0.01, 100)}
    NEEDS_LABELS = True

    def build(self, student: DetectionModel, teacher: DetectionModel, generator: torch.Generator) -> None:
        sizes = {str(own): teacher.channels[its] for own, its in self.teacher_layer.items()}
        self.student_context = nn.ModuleDict({i: ContextBlock(c, generator) for i, c in sizes.items()})
        self.teacher_context = nn.ModuleDict({i: ContextBlock(c, generator) for i, c in sizes.items()})

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        parts = [self._level(signals, layer) for layer in self.layers]
        return {name: mean_of([part[name] for part in parts]) for name in self.TERMS}

    def _level(self, signals: Signals, layer: int) -> dict[str, Tensor]:
        adapted, teacher = self.features(signals, layer)
        unit = mean_square(teacher)
        (t_cells, t_channels), (s_cells, s_channels) = (self._attention(x) for x in (teacher, adapted))
        weighted = ((adapted - teacher).square() * t_channels[:, :, None, None]).mean(1) * t_cells  # (B, h, w)
        weighted = weighted / unit[:, None, None]
        objects, background = scale_masks(signals.targets, signals.ignore, weighted.shape)
        relation = self.student_context[str(layer)](adapted) - self.teacher_context[str(layer)](teacher)
        return {
            'fgd_fg': (weighted * objects).sum((1, 2)).mean(),
            'fgd_bg': (weighted * background).sum((1, 2)).mean(),
            'fgd_attention': (t_cells - s_cells).abs().mean() + (t_channels - s_channels).abs().mean(),
            'fgd_global': (relation.square().mean((1, 2, 3)) / unit).mean(),
        }

    def _attention(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> spatial (B, h, w) and channel attention (B, C); each has the mean 1."""
        strength, temperature = features.abs(), self.options['temperature']
        cells = (strength.mean(1).flatten(1) / temperature).softmax(1) * strength[0, 0].numel()
        channels = (strength.mean((2, 3)) / temperature).softmax(1) * strength.shape[1]
        return cells.view(strength.shape[0], *strength.shape[2:]), channels


class ContextBlock(nn.Module):
    """Global context (Cao et al. 2019, GcNet): what attention sees of the whole map is added to every cell.

    Starts as the identity: its last convolution is 0.
    """

    def __init__(self, channels: int, generator: torch.Generator):
        super().__init__()
        hidden = max(channels // 2, 1)
        first, self.key, last = (
            make_convolution(channels, hidden, generator),
            make_convolution(channels, 1, generator),
            make_convolution(hidden, channels, generator),
        )
        nn.init.zeros_(last.weight)
        self.transform = nn.Sequential(first, nn.LayerNorm([hidden, 1, 1]), nn.ReLU(), last)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> the same."""
        attention = self.key(features).flatten(2).softmax(2)  # (B, 1, h w)
        context = torch.bmm(features.flatten(2), attention.transpose(1, 2))[..., None]  # (B, C, 1, 1)
        return features + self.transform(context)


def scale_masks(targets: Tensor, ignore: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """FGD's masks times scales.

    Args:
        targets, ignore: (N, 6) image, class, x, y, w, h (0..1).
        shape: (B, h, w).

    Returns:
        (B, h, w) foreground: 1 / (cells of the smallest object there * objects of the picture), 0 elsewhere; and
        background: 1 / the picture's background cells, 0 elsewhere.
    """
    batch, *size = shape
    image, number = targets[:, 0].long(), torch.arange(len(targets), device=targets.device)
    own = torch.cat((number[:, None].to(targets), targets[:, 1:]), 1)
    cells = overlapped_cells(own, len(targets), size).float()  # (N, h, w): each object's own
    inverse = cells / cells.sum((1, 2), keepdim=True).clamp(min=1)
    objects = targets.new_zeros(batch, *size, dtype=torch.float32)
    # The smallest object has the greatest inverse.
    objects = objects.scatter_reduce(0, image[:, None, None].expand_as(inverse), inverse, 'amax')
    count = inverse.new_zeros(batch).index_add(0, image, inverse.new_ones(len(targets))).clamp(min=1)
    cared = ~overlapped_cells(ignore, batch, size)
    background = (cared & (objects == 0)).float()
    background = background / background.sum((1, 2), keepdim=True).clamp(min=1)
    return objects * cared / count[:, None, None], background
