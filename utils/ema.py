"""Exponential moving average of a model's weights."""

import math
from copy import deepcopy

import torch

from models.yolo import DetectionModel


class ModelEMA:
    """Average of the weights over the optimizer's steps; the model that is validated and kept.

    The decay grows from 0 to `decay`: decay (1 - exp(-updates / tau)), so that early weights are forgotten soon.
    """

    def __init__(self, model: DetectionModel, decay: float = 0.9999, tau: float = 2000.0):
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.decay, self.tau, self.updates = decay, tau, 0

    @torch.no_grad()
    def update(self, model: DetectionModel) -> None:
        """Take one step towards the model's present weights and running statistics."""
        self.updates += 1
        share = 1 - self.decay * (1 - math.exp(-self.updates / self.tau))
        own, new = self.model.state_dict(), model.state_dict()
        floats = [key for key, value in own.items() if value.is_floating_point()]
        torch._foreach_lerp_([own[key] for key in floats], [new[key] for key in floats], share)
        for key in own.keys() - set(floats):
            own[key].copy_(new[key])
