"""Pearson distillation: features imitated up to scale and shift of each channel.

Cao et al., PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient, NeurIPS 2022
(arXiv 2207.02039), section 3: features are standardised per channel over the batch and its cells, and half the mean
squared difference of both, which is 1 - r, is minimised. As published the statistics are of the whole batch: the one
term here that depends on which pictures share a batch.

Differences: an adapter to the teacher's channels always; the mean over layers where the paper sums.
"""

import torch
from torch import Tensor

from utils.distillation.base import Method, Signals, mean_of

SMALLEST = 1e-6  # variance of a channel, added before the root: constant channels become 0


class PKD(Method):
    """'pkd': half the mean squared difference of the standardised features, mean over the layers.

    0 for features that agree up to each channel's scale and shift, 1 for unrelated ones. The layers are those that
    feed the head, as in the paper's feature pyramids.
    """

    TERMS = {'pkd': 0.05}
    LAYERS = (17, 20, 23)

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        terms = []
        for layer in self.layers:
            student, teacher = map(standardised, self.features(signals, layer))
            terms.append((student - teacher).square().mean() / 2)
        return {'pkd': mean_of(terms)}


def standardised(features: Tensor) -> Tensor:
    """(B, C, h, w) -> zero mean and unit variance of each channel over batch and cells."""
    variance, mean = torch.var_mean(features, (0, 2, 3), correction=0, keepdim=True)
    return (features - mean) * (variance + SMALLEST).rsqrt()
