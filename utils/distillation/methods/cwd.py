"""Channel-wise distillation: each channel says where it looks, as a distribution over the cells.

Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021 (arXiv 2011.13256), section 3.2:
phi(y) = softmax over the cells of y / tau, and tau^2 / C sum over channels of KL(phi(teacher) || phi(student)). As
published, with an adapter to the teacher's channels; adding a constant to a channel changes nothing. tau 1 is what
detectors' necks are distilled with (MMRazor's configurations).
"""

from torch import Tensor

from utils.distillation.base import Method, Option, Signals, mean_of


class CWD(Method):
    """'cwd': tau^2 times the mean over channels of the divergence, mean over the layers.

    The layers are those that feed the head: there a channel's peaks are where the objects are.
    """

    TERMS = {'cwd': 0.2}
    LAYERS = (17, 20, 23)
    OPTIONS = {'tau': Option(1.0, 'temperature: larger ones look at more than the peaks', 0.01, 100)}

    def forward(self, signals: Signals) -> dict[str, Tensor]:
        tau, terms = self.options['tau'], []
        for layer in self.layers:
            # (B, C, h w): log of each channel's distribution over the cells
            student, teacher = ((x / tau).flatten(2).log_softmax(2) for x in self.features(signals, layer))
            divergence = (teacher.exp() * (teacher - student)).sum(2).clamp(min=0)  # rounding can bring it below
            terms.append(divergence.mean() * tau**2)
        return {'cwd': mean_of(terms)}
