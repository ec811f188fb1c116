"""How strongly each term pulls at the student, next to the detection loss; and weights chosen by that."""

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from models.yolo import DetectionModel
from utils.runtime import distributed


@contextlib.contextmanager
def buffers_kept(*modules: nn.Module) -> Iterator[None]:
    """Undo what a forward pass changes in buffers (statistics of normalisation, counters of steps)."""
    saved = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)


def gradient_norms(model: DetectionModel, parts: dict[str, Tensor]) -> dict[str, float]:
    """Norm of each scalar's gradient on the model's layers before the head, or on the head where those are frozen; 0
    where it does not depend on them.

    Frees the graph.
    """
    body = [p for layer in model.model[:-1] for p in layer.parameters() if p.requires_grad]
    parameters = body or [p for p in model.head.parameters() if p.requires_grad]
    norms = {}
    for number, (name, part) in enumerate(parts.items()):
        found: Sequence[Tensor | None] = [None] * len(parameters)
        if part.requires_grad:
            last = number == len(parts) - 1
            found = torch.autograd.grad(part, parameters, retain_graph=not last, allow_unused=True)
        # Each process knows its part of a shared batch, which can be nothing where others have something.
        whole = [
            distributed.total(torch.zeros_like(p) if g is None else g) for g, p in zip(found, parameters, strict=True)
        ]
        norms[name] = float(torch.stack([gradient.float().square().sum() for gradient in whole]).sum().sqrt())
    return norms


def automatic_weight(ratio: float, detection: float, term: float) -> float:
    """The weight that brings a term's gradient norm (at weight 1) to `ratio` of the detection loss's; NaN where one of
    them is 0 or not finite."""
    return ratio * detection / term if 0 < term < math.inf and 0 < detection < math.inf else math.nan


def describe(title: str, terms: dict[str, float], weights: dict[str, float], norms: dict[str, float]) -> str:
    """A batch's balance as a table: value, weight, and gradient norm relative to that of 'detection'."""
    detection = norms['detection']
    rows = [f'{title:<16} {"value":>10} {"weight":>10} {"gradient / detection":>21}']
    for name, value in terms.items():
        fraction = weights[name] * norms[name] / detection if detection else math.nan
        rows.append(f'{name:<16} {value:>10.4g} {weights[name]:>10.4g} {fraction:>21.3f}')
    rows.append("(full weights, on the student's backbone and neck, or on its head where those are frozen)")
    return '\n'.join(rows)
