"""Whether the anchors suit the data."""

from collections.abc import Sequence

import numpy as np
import torch


def anchor_recall(
    labels: list[np.ndarray], shapes: np.ndarray, anchors: torch.Tensor, sides: Sequence[float], limit: float
) -> float:
    """Fraction of targets that some anchor can answer for.

    Args:
        labels: per picture (n, 5) class, x, y, w, h (0..1).
        shapes: (pictures, 2) width, height.
        anchors: (levels, 3, 2) pixels.
        sides: longer side of each picture as the network sees it, pixels.
        limit: anchor_t, the largest factor between a target's and an anchor's side.
    """
    sizes = [
        rows[:, 3:5] * shape * (side / shape.max()) for rows, shape, side in zip(labels, shapes, sides, strict=True)
    ]
    sizes = torch.from_numpy(np.concatenate(sizes)).float()
    if not len(sizes):
        return 1.0
    ratio = sizes[:, None] / anchors.view(1, -1, 2)
    return float((torch.maximum(ratio, 1 / ratio).amax(2).amin(1) < limit).float().mean())
