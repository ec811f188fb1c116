"""Learning rates, momentum and the size of a step over the time of a training."""

import math

import torch

WARMUP_BATCHES = 100  # that warm-up lasts at least


class Schedule:
    """YOLOv5's schedule, a warm-up and a fall of the learning rate, from batch to batch: trainings of few epochs end at
    a low rate too.

    Args:
        hyp: lrf, warmup_epochs, warmup_momentum, warmup_bias_lr and momentum.
        epochs: of the whole training.
        batches: of an epoch.
        accumulate: batches whose gradients make a step after the warm-up, in which their number grows from 1.
        cosine: along half a cosine, otherwise in a straight line.
    """

    def __init__(self, hyp: dict, epochs: int, batches: int, accumulate: int, cosine: bool):
        self.hyp, self.epochs, self.batches, self.accumulate, self.cosine = hyp, epochs, batches, accumulate, cosine
        # Never over a third of the training.
        self.warmup = min(max(hyp['warmup_epochs'], WARMUP_BATCHES / batches), epochs / 3)

    def set(self, optimizer: torch.optim.Optimizer, epoch: int, batch: int) -> int:
        """Set learning rates and momentum for this batch of this epoch; returns how many batches make a step."""
        hyp = self.hyp
        passed = epoch + batch / self.batches
        base = learning_rate_fraction(passed / self.epochs, hyp['lrf'], self.cosine)
        warm = min(passed / self.warmup, 1.0) if hyp['warmup_epochs'] else 1.0
        for group in optimizer.param_groups:
            of_bias = group['kind'] == 'bias' and isinstance(optimizer, torch.optim.SGD)
            start = hyp['warmup_bias_lr'] if of_bias else 0.0
            group['lr'] = start + (group['initial_lr'] * base - start) * warm
            if 'momentum' in group:
                group['momentum'] = hyp['warmup_momentum'] + (hyp['momentum'] - hyp['warmup_momentum']) * warm
        return max(1, round(1 + (self.accumulate - 1) * warm))


def learning_rate_fraction(passed: float, final: float, cosine: bool) -> float:
    """From 1 to `final` over the training, of which a share has passed, in a straight line or along half a cosine."""
    if cosine:
        passed = (1 - math.cos(math.pi * passed)) / 2
    return 1 + (final - 1) * passed
