"""Exponential moving average of a model's weights."""

import math
from copy import deepcopy

import torch

from models.yolo import DetectionModel


class ModelEMA:
    """Average of the weights over the optimizer's steps; the model that is validated and kept.

    The decay grows from 0 to DECAY: DECAY (1 - exp(-updates / TAU)), so that early weights are forgotten soon.
    """

    DECAY, TAU = 0.9999, 2000.0

    def __init__(self, model: DetectionModel):
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.updates = 0

    @torch.no_grad()
    def update(self, model: DetectionModel) -> None:
        """Take one step towards the model's present weights and running statistics."""
        self.updates += 1
        fraction = 1 - self.DECAY * (1 - math.exp(-self.updates / self.TAU))
        own, new = self._tensors(self.model), self._tensors(model)
        torch._foreach_lerp_(own[True], new[True], fraction)
        torch._foreach_copy_(own[False], new[False])

    @staticmethod
    def _tensors(model: DetectionModel) -> dict[bool, list[torch.Tensor]]:
        """A model's parameters and buffers, those of floating point (True) apart from counters (False)."""
        found = {True: [], False: []}
        for tensor in (*model.parameters(), *model.buffers()):
            found[tensor.is_floating_point()].append(tensor)
        return found
