"""Whether an exported file computes what PyTorch does, and how fast."""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.errors import UserError
from models.exported import ExportedModel
from ocrdistill import letterbox
from utils.boxes import non_max_suppression
from utils.quads import decode

# Largest difference that is let pass, by what the file computes or stores its weights in. float16 has 11 bits, 5e-4 of
# a value, which sixty layers add up; the largest differences are those of boxes that no threshold lets through.
BOUNDS = {'float32': 1e-3, 'float16': 2e-2}


class OutputDifference(NamedTuple):
    """Largest differences over all cells: of scores, and of x, y, w, h as a share of the box's longer side."""

    scores: float
    boxes: float


def place(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    """A picture (h, w, 3) uint8 RGB, letterboxed, as a network's input (1, 3, H, W), 0..1."""
    padded, _ = letterbox.place(image, max(size), 1, size)
    # A view that is mirrored stays one where nothing is resized or padded; torch takes none.
    return torch.from_numpy(np.ascontiguousarray(padded)).permute(2, 0, 1)[None].float().div(255).contiguous()


def make_batches(images: list[np.ndarray], size: tuple[int, int], dynamic: bool) -> list[Tensor]:
    """Inputs to compare on: one picture each, or where sizes are open three batches of other numbers and sizes too."""
    batches = [place(image, size) for image in images]
    if dynamic:
        for number, shape in ((2, (320, 512)), (3, (416, 160))):
            batches.append(torch.cat([place(image, shape) for image in images[:number]]))
    return batches


@torch.inference_mode()
def compare(reference: Callable, exported: Callable, batches: Iterable[Tensor]) -> OutputDifference:
    """Largest differences of two networks' decoded output (B, M, 5 + nc); infinite where one is not finite."""
    largest = torch.zeros(2)
    for images in batches:
        expected, given = reference(images)[0], exported(images)[0]
        if expected.shape != given.shape or not bool(torch.isfinite(given).all()):
            return OutputDifference(float('inf'), float('inf'))
        distance = (expected - given).abs()
        boxes = distance[..., :4].amax(-1) / expected[..., 2:4].amax(-1)
        largest = torch.maximum(largest, torch.stack((distance[..., 4:].max(), boxes.max())))
    return OutputDifference(*largest.tolist())


def compare_nms(network: ExportedModel, select: Callable, batches: Iterable[Tensor], nms: dict) -> int:
    """Check the NMS inside a graph against ours, on the same decoded boxes.

    Args:
        network: images -> (decoded (B, M, 5 + nc), ...), the graph without NMS; its nc.
        select: images as numpy -> (detections (N, 6) or, with quads, (N, 14), picture (N,)), the graph with it.
        nms: conf_thres, iou_thres, max_det.

    Returns:
        How many boxes were compared.

    Raises:
        UserError: they are not the same boxes.
    """
    compared = 0
    for images in batches:
        detections, image = select(images.numpy())
        decoded = network(images)[0]
        limits = nms['conf_thres'], nms['iou_thres'], decoded.shape[1]
        for number, rows in enumerate(non_max_suppression(decoded, *limits, nc=network.nc)):
            expected = with_corners(best_of_classes(rows, nms['max_det']))
            given = _sorted(detections[image == number])
            if given.shape != expected.shape or not np.allclose(given, _sorted(expected.numpy()), atol=1e-2):
                raise UserError('the NMS inside the exported graph finds other boxes than PyTorch: nothing is written')
            compared += len(given)
    return compared


def best_of_classes(rows: Tensor, count: int) -> Tensor:
    """Rows of non_max_suppression, best first: so many of each class, as a graph keeps them."""
    keep = torch.zeros(len(rows), dtype=torch.bool)
    for category in rows[:, 5].unique():
        keep[(rows[:, 5] == category).nonzero()[:count, 0]] = True
    return rows[keep]


def with_corners(rows: Tensor) -> Tensor:
    """Rows of non_max_suppression, edges (n, 10) replaced by corners (n, 14)."""
    if rows.shape[1] == 6:
        return rows
    return torch.cat((rows[:, :6], decode(rows[:, :4], rows[:, 6:]).flatten(1)), 1)


def _sorted(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort((rows[:, 0], rows[:, 1], -rows[:, 4]))]


@torch.inference_mode()
def measure(network: Callable, images: Tensor, repeats: int = 20) -> float:
    """Median milliseconds of a call."""
    for _ in range(3):
        network(images)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        network(images)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
