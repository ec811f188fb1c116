"""Hint learning: the student's intermediate features imitate the teacher's, everywhere.

Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, equation 3: 1/2 || teacher - r(student) ||^2, with a
convolutional regressor r (here 1x1). FitNets trains the hint as a first stage and the task after it; here both are
trained together, and the squared difference is normalised (see Method.difference).
"""

from torch import Tensor

from utils.distillation.base import Method, Signals, mean_of


class Hint(Method):
    """'hint': 1/2 mean over h, w of E, mean over the layers."""

    TERMS = {'hint': 0.2}
    LAYERS = (4, 6, 9)

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        return {'hint': mean_of([self.difference(signals, layer).mean() / 2 for layer in self.layers])}
