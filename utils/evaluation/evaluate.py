"""One pass of a detector over a split: losses, mAP, ICDAR hmean, speed."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from models.exported import ExportedModel
from models.yolo import DetectionModel
from ocrdistill.detector import MAX_WORDS
from ocrdistill.nms import usual_iou
from ocrdistill.points import UNSCALED
from ocrdistill.quads import pairwise_quad_iou
from utils.boxes import non_max_suppression, xywh_to_xyxy
from utils.evaluation.icdar import LOWEST_THRESHOLD, ICDARMetrics, boxes_to_quads, read_ground_truth
from utils.evaluation.metrics import IOU_THRESHOLDS, ConfusionMatrix, DetectionMetrics
from utils.loading.batches import Batch
from utils.loading.labels import companion_file, quad_of
from utils.loading.loader import BatchLoader
from utils.quads import decode
from utils.runtime import distributed
from utils.runtime.device import autocast, network_dtype
from utils.runtime.words import counted

# YOLOv5's protocol for mAP.
CONFIDENCE, NMS_IOU, MAX_DETECTIONS = 0.001, 0.6, 300
# hmean is for the boxes that a user gets: detect.py's NMS, down to the lowest threshold that ICDARMetrics keeps.
WORD_CONFIDENCE = LOWEST_THRESHOLD

SCORES = ('precision', 'recall', 'map50', 'map50_95')
QUAD_SCORES = ('quad_map50', 'quad_map50_95')  # of a network with quads, too


@dataclass
class ImageResult:
    """What was found in one picture, all boxes in its own pixels (x1, y1, x2, y2)."""

    path: str
    shape: tuple[int, int]  # height, width
    detections: Tensor  # (n, 6): box, confidence, class; by the protocol of mAP
    words: Tensor  # (w, 6), the same form: at detect.py's stricter NMS, as a user gets them
    labels: Tensor  # (m, 5): class, box
    ignore: Tensor  # (k, 4)
    detection_quads: Tensor | None = None  # (n, 4, 2) of the detections; None: the network predicts none
    word_quads: Tensor | None = None  # (w, 4, 2) of the words
    label_quads: Tensor | None = None  # (m, 4, 2)

    def icdar_quads(self, scale: tuple[float, float] = UNSCALED) -> np.ndarray:
        """(w, 4, 2) int64: the words' quads as hmean takes them and submit.zip holds them; `scale` is of boxes."""
        if self.word_quads is None:
            return boxes_to_quads(self.words[:, :4].numpy(), scale)
        return self.word_quads.round().long().numpy()


@dataclass
class Evaluation:
    """What one pass over a split gave.

    Attributes:
        scores: precision, recall, map50, map50_95; of a network with quads also quad_map50, quad_map50_95.
        losses: unweighted box, obj, cls (with quads edge and quad), empty if no loss was asked for.
        details: DetectionMetrics.compute().
        confusion: ConfusionMatrix.
        speed: milliseconds a picture for 'load', 'network', 'nms'.
        images: every picture's detections and labels.
        protocol: the definition of mAP with the thresholds that were used.
        seconds: that all of it took.
    """

    scores: dict[str, float]
    losses: dict[str, float]
    details: dict[str, Any]
    confusion: ConfusionMatrix
    speed: dict[str, float]
    images: list[ImageResult] = field(repr=False)
    protocol: str
    seconds: float = 0.0
    _icdar: dict[tuple[float, float], ICDARMetrics] = field(default_factory=dict, init=False, repr=False)

    @property
    def quads(self) -> bool:
        """Whether the network predicts quads."""
        return bool(self.images) and self.images[0].word_quads is not None

    @cached_property
    def truths(self) -> list[tuple[np.ndarray, np.ndarray]] | None:
        """The official ground truth of each picture, None if any has none."""
        return read_truths([Path(image.path) for image in self.images])

    def icdar(self, scale: tuple[float, float] = UNSCALED) -> ICDARMetrics | None:
        """ICDAR2015 task 4.1 over the pictures; None where there are no truths. Boxes are scaled as in boxes_to_quads,
        quads stay as they are."""
        if self.truths is None:
            return None
        if scale not in self._icdar:
            self._icdar[scale] = metrics = ICDARMetrics()
            for image, truth in zip(self.images, self.truths, strict=True):
                metrics.update(image.icdar_quads(scale), image.words[:, 4].numpy(), *truth)
        return self._icdar[scale]


@torch.no_grad()
def evaluate(
    model: DetectionModel | ExportedModel,
    loader: BatchLoader,
    device: torch.device,
    *,
    amp: bool = False,
    conf_thres: float = CONFIDENCE,
    iou_thres: float = NMS_IOU,
    max_det: int = MAX_DETECTIONS,
    loss: Callable[..., dict[str, Tensor]] | None = None,
    title: str = 'validating',
) -> Evaluation:
    """Evaluate a detector by YOLOv5's protocol.

    Args:
        model: in eval mode, on `device`, fused or not; or an exported file's.
        loader: of a dataset without augmentation; where processes share its batches, all get the whole's scores.
        amp: run the network in bfloat16; published figures are float32 figures (False).
        loss: a utils.training.loss.DetectionLoss, to compute the losses on the raw maps too.

    Returns:
        An Evaluation; boxes are compared in the pictures' own pixels.
    """
    batches: list[tuple[list[ImageResult], dict[str, float]]] = []
    clock = dict.fromkeys(('load', 'network', 'nms'), 0.0)
    start = begin = time.perf_counter()
    for batch in tqdm(loader, title, unit='batch', leave=False, delay=2, disable=None):
        clock['load'] += time.perf_counter() - start
        with _timed(clock, 'network', device):
            inputs = to_network(batch.images, device, amp)
            with autocast(device, amp):
                outputs: Any = model(inputs)
            decoded, maps = outputs
            terms = loss(maps, batch.targets, batch.ignore, edges=batch.edges) if loss is not None else {}
        with _timed(clock, 'nms', device):
            found = non_max_suppression(decoded, conf_thres, iou_thres, max_det, multi_label=True, nc=model.nc)
            iou, most = usual_iou(model.quads), max(max_det, MAX_WORDS)
            words = non_max_suppression(decoded, WORD_CONFIDENCE, iou, most, nc=model.nc, by_quads=True)
        batches.append((_images(batch, found, words), {k: float(v) * len(inputs) for k, v in terms.items()}))
        start = time.perf_counter()
    batches, clock = _gathered(batches, clock) if loader.batch_sampler.world > 1 else (batches, clock)
    images = [image for found, _ in batches for image in found]
    sums = {name: sum(terms[name] for _, terms in batches) for name in batches[0][1]}
    scores, details, confusion = _judged(images, model.nc)
    return Evaluation(
        scores=scores,
        losses={name: value / len(images) for name, value in sums.items()},
        details=details,
        confusion=confusion,
        speed={name: 1000 * seconds / len(images) for name, seconds in clock.items()},
        images=images,
        protocol=f'YOLOv5 mAP: confidence {conf_thres:g}, NMS IoU {iou_thres:g}, {max_det} boxes, 101 points; '
        'precision and recall at the best F1',
        seconds=time.perf_counter() - begin,
    )


def _judged(images: list[ImageResult], nc: int) -> tuple[dict[str, float], dict[str, Any], ConfusionMatrix]:
    """The scores over all pictures, mAP's details, and which class was taken for which."""
    metrics, quad_metrics, confusion = DetectionMetrics(nc), DetectionMetrics(nc), ConfusionMatrix(nc)
    for image in images:
        metrics.update(image.detections, image.labels, image.ignore)
        confusion.update(image.detections, image.labels, image.ignore)
        if image.detection_quads is not None and image.label_quads is not None:
            same_class = (image.detections[:, 5:6] == image.labels[:, 0]).numpy()
            quads = image.detection_quads.numpy(), image.label_quads.numpy()
            overlaps = torch.from_numpy(pairwise_quad_iou(*quads, IOU_THRESHOLDS[0] - 0.01, same_class))
            quad_metrics.update(image.detections, image.labels, image.ignore, overlaps)
    details = metrics.compute()
    scores = {name: float(details[name]) for name in SCORES}
    if images and images[0].detection_quads is not None:
        of_quads = quad_metrics.compute()
        scores |= {f'quad_{name}': float(of_quads[name]) for name in ('map50', 'map50_95')}
    return scores, details, confusion


def _gathered(batches: list[Any], clock: dict[str, float]) -> tuple[list[Any], dict[str, float]]:
    """The batches of all processes in the order that one process has them, and the clocks' sum."""
    found = distributed.gather((batches, clock))
    turns = itertools.zip_longest(*(mine for mine, _ in found))
    ordered = [batch for turn in turns for batch in turn if batch is not None]
    return ordered, {name: sum(spent[name] for _, spent in found) for name in clock}


def to_network(images: Tensor, device: torch.device, amp: bool = False) -> Tensor:
    """(B, 3, H, W) uint8 -> 0..1 on the device, channels last; with amp in bfloat16 where the device has it, which is
    what the first convolution would round them to."""
    images = images.to(device, non_blocking=True)
    return images.to(network_dtype(device, amp), memory_format=torch.channels_last).div_(255)


@contextlib.contextmanager
def _timed(clock: dict[str, float], step: str, device: torch.device) -> Iterator[None]:
    """Add the seconds of what is done while entered; of a GPU they mean nothing before it is done."""
    start = time.perf_counter()
    yield
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    clock[step] += time.perf_counter() - start


def _images(batch: Batch, found: list[Tensor], words: list[Tensor]) -> list[ImageResult]:
    """Detections and labels of a batch, mapped to each picture's own pixels."""
    height, width = batch.images.shape[2:]
    size = torch.tensor([width, height, width, height])
    result = []

    def in_image(rows: Tensor, number: int) -> tuple[Tensor, Tensor | None]:
        """Rows (n, 6) of boxes, and the quads (n, 4, 2) of rows that have edges."""
        rows, place, shape = rows.cpu(), batch.letterboxes[number], batch.shapes[number]
        boxes = torch.cat((place.to_image(rows[:, :4], *shape), rows[:, 4:6]), 1)
        has_edges = rows.shape[1] > 6
        return boxes, place.to_image(decode(rows[:, :4], rows[:, 6:]), *shape) if has_edges else None

    for number in range(len(found)):
        letterbox, shape = batch.letterboxes[number], batch.shapes[number]
        here = batch.targets[:, 0] == number
        targets = batch.targets[here]
        ignore = batch.ignore[batch.ignore[:, 0] == number]
        inputs = xywh_to_xyxy(targets[:, 2:6]) * size
        regions = letterbox.to_image(xywh_to_xyxy(ignore[:, 2:6]) * size, *shape)
        labels = torch.cat((targets[:, 1:2], letterbox.to_image(inputs, *shape)), 1)
        detections, detection_quads = in_image(found[number], number)
        words_here, word_quads = in_image(words[number], number)
        # Not of the batch's edges: a loss has none where it does not know a word's corners.
        corners = [quad_of(batch.polygons[row] * (width, height)) for row in torch.nonzero(here).flatten().tolist()]
        label_quads = torch.from_numpy(np.array(corners, np.float32).reshape(-1, 4, 2))
        quads = (detection_quads, word_quads, letterbox.to_image(label_quads, *shape))
        result.append(ImageResult(batch.paths[number], shape, detections, words_here, labels, regions, *quads))
    return result


def read_truths(files: list[Path]) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """The official ground truth of each picture (see read_ground_truth); None if any has none. Raises UserError."""
    if without_truth(files):
        return None
    return [read_ground_truth(truth) for file in files if (truth := companion_file(file, 'gt'))]


def check_truths(files: list[Path]) -> list[Path]:
    """Read the official ground truth before the pictures go through a network, and say why there will be no ICDAR
    metrics where only some pictures have any. Returns those that have none. Raises UserError: it cannot be read."""
    missing = without_truth(files)
    if not missing:
        read_truths(files)
    elif len(missing) < len(files):
        without = counted(len(missing), 'picture has', 'pictures have')
        print(f'no ICDAR metrics: {without} no ground truth, the first {missing[0]}')
    return missing


def without_truth(files: list[Path]) -> list[Path]:
    """The pictures that have no official ground truth at hand."""
    truths = [companion_file(file, 'gt') for file in files]
    return [file for file, truth in zip(files, truths, strict=True) if truth is None or not truth.is_file()]
