"""Masked feature imitation: objects and background apart, each as a mean over its own cells.

Guo et al., Distilling Object Detectors via Decoupled Features (DeFeat), CVPR 2021, equations 2 and 3: the neck's
features are split by the binary mask of the ground-truth boxes, and each part has a weight of its own. Differences:
the parts are divided by their own cell counts (DeFeat: N_obj, N_bg, summed over channels), the squared difference is
normalised (see Method.difference), and cells that a don't-care region overlaps belong to neither part, even under a
target.
"""

from torch import Tensor

from utils.distillation.base import Method, Signals, masked_mean, mean_of, overlapped_cells


class Mask(Method):
    """'mask_obj': sum(M E) / (2 sum M); 'mask_bg': sum((1 - M) E) / (2 sum(1 - M)); means over the layers.

    M is 1 on cells that a ground-truth box overlaps. An empty side gives 0.
    """

    TERMS = {'mask_obj': 0.04, 'mask_bg': 0.02}
    LAYERS = (17, 20, 23)

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        objects, background = [], []
        for layer in self.layers:
            difference = self.difference(signals, layer)  # (B, h, w)
            batch, *size = difference.shape
            inside = overlapped_cells(signals.targets, batch, size)
            cared = ~overlapped_cells(signals.ignore, batch, size)
            objects.append(masked_mean(difference, inside & cared) / 2)
            background.append(masked_mean(difference, ~inside & cared) / 2)
        return {'mask_obj': mean_of(objects), 'mask_bg': mean_of(background)}


METHOD = Mask
