"""Which parameters are trained, and by which optimizer."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.errors import UserError
from models.yolo import DetectionModel

MAX_GRADIENT = 10.0  # norm at which gradients are clipped, as YOLOv5
NORMS = (_BatchNorm, nn.LayerNorm)
DECAY_BATCH = 64  # the batch that hyp's weight_decay is for


def build_optimizer(
    model: DetectionModel, criterion: nn.Module, hyp: dict, name: str, batch: int
) -> torch.optim.Optimizer:
    """SGD (Nesterov) or AdamW over three groups: decayed weights, normalisation weights, biases.

    Args:
        criterion: its parameters (adapters) are trained too.
        batch: images a step; weight decay is hyp's for 64 and scales with it.
    """
    groups = {'weight': [], 'norm': [], 'bias': []}
    for module in (*model.modules(), *criterion.modules()):
        for key, parameter in module.named_parameters(recurse=False):
            kind = 'bias' if key == 'bias' else 'norm' if isinstance(module, NORMS) else 'weight'
            groups[kind].append(parameter)
    decay = {'weight': hyp['weight_decay'] * batch / DECAY_BATCH}
    parts = [
        {'params': parameters, 'kind': kind, 'initial_lr': hyp['lr0'], 'weight_decay': decay.get(kind, 0.0)}
        for kind, parameters in groups.items()
        if parameters
    ]
    if name == 'AdamW':
        return torch.optim.AdamW(parts, lr=hyp['lr0'], betas=(hyp['momentum'], 0.999), fused=True)
    return torch.optim.SGD(parts, lr=hyp['lr0'], momentum=hyp['momentum'], nesterov=hyp['momentum'] > 0, fused=True)


def norms(model: nn.Module) -> list[_BatchNorm]:
    """The layers of batch normalisation."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def freeze(model: DetectionModel, count: int) -> list[nn.Module]:
    """Freeze the first `count` layers; returns them (their normalisation must stay in eval mode too)."""
    if count >= len(model.model):
        raise UserError(f'--freeze {count}: the model has {len(model.model)} layers, at least one must train')
    layers = list(model.model[:count])
    for layer in layers:
        layer.requires_grad_(False)
    return layers
