"""Run a detector over a split and judge it: losses, mAP, ICDAR hmean, speed."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from models.yolo import DetectionModel
from utils.boxes import class_nms, non_max_suppression, xywh_to_xyxy
from utils.dataset import Batch, BatchLoader
from utils.device import autocast
from utils.labels import companion_file
from utils.loss import DetectionLoss
from utils.metrics import ConfusionMatrix, DetectionMetrics

# YOLOv5's protocol for mAP.
CONFIDENCE, NMS_IOU, MAX_DETECTIONS = 0.001, 0.6, 300
WORD_NMS_IOU = 0.45  # detect.py's default: hmean is for the boxes that a user gets


@dataclass
class Picture:
    """What was found in one picture, all boxes in its own pixels (x1, y1, x2, y2)."""

    path: str
    shape: tuple[int, int]  # height, width
    detections: Tensor  # (n, 6): box, confidence, class
    labels: Tensor  # (m, 5): class, box
    ignore: Tensor  # (k, 4)


@dataclass
class Evaluation:
    """Figures of one pass over a split.

    Attributes:
        scores: precision, recall, map50, map50_95.
        losses: unweighted box, obj, cls, empty if no loss was asked for.
        details: DetectionMetrics.compute().
        confusion: ConfusionMatrix.
        speed: milliseconds a picture for 'load', 'network', 'nms'.
        pictures: every picture's detections and labels.
    """

    scores: dict[str, float]
    losses: dict[str, float]
    details: dict
    confusion: ConfusionMatrix
    speed: dict[str, float]
    pictures: list[Picture] = field(repr=False)


@torch.no_grad()
def evaluate(
    model: DetectionModel,
    loader: BatchLoader,
    device: torch.device,
    *,
    amp: bool = False,
    conf_thres: float = CONFIDENCE,
    iou_thres: float = NMS_IOU,
    max_det: int = MAX_DETECTIONS,
    loss: DetectionLoss | None = None,
    title: str = 'validating',
) -> Evaluation:
    """Judge a detector by YOLOv5's protocol.

    Args:
        model: in eval mode, on `device`, fused or not.
        loader: of a dataset without augmentation.
        amp: run the network in bfloat16; published figures are float32 figures (False).
        loss: also compute the losses on the raw maps.

    Returns:
        An Evaluation; boxes are judged in the pictures' own pixels.
    """
    metrics, confusion = DetectionMetrics(model.nc), ConfusionMatrix(model.nc)
    pictures: list[Picture] = []
    sums: dict[str, Tensor] = {}
    clock = dict.fromkeys(('load', 'network', 'nms'), 0.0)
    start = time.perf_counter()
    for batch in tqdm(loader, title, unit='batch', leave=False, delay=2, disable=None):
        clock['load'] += time.perf_counter() - start
        start = time.perf_counter()
        images = to_network(batch.images, device)
        with autocast(device, amp):
            decoded, maps = model(images)
        if loss is not None:
            for name, term in loss(maps, batch.targets, batch.ignore).items():
                sums[name] = sums.get(name, 0.0) + term * len(images)
        _wait(device)
        clock['network'] += time.perf_counter() - start
        start = time.perf_counter()
        found = non_max_suppression(decoded, conf_thres, iou_thres, max_det, multi_label=True)
        _wait(device)
        clock['nms'] += time.perf_counter() - start
        for picture in _pictures(batch, found):
            metrics.update(picture.detections, picture.labels, picture.ignore)
            confusion.update(picture.detections, picture.labels, picture.ignore)
            pictures.append(picture)
        start = time.perf_counter()
    details = metrics.compute()
    return Evaluation(
        scores={name: float(details[name]) for name in ('precision', 'recall', 'map50', 'map50_95')},
        losses={name: float(value) / len(pictures) for name, value in sums.items()},
        details=details,
        confusion=confusion,
        speed={name: 1000 * seconds / len(pictures) for name, seconds in clock.items()},
        pictures=pictures,
    )


def to_network(images: Tensor, device: torch.device) -> Tensor:
    """(B, 3, H, W) uint8 -> float32 0..1 on the device, channels last."""
    images = images.to(device, non_blocking=True)
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def _wait(device: torch.device) -> None:
    """Timings of a GPU mean nothing before it is done."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _pictures(batch: Batch, found: list[Tensor]) -> list[Picture]:
    """Detections and labels of a batch, mapped to each picture's own pixels."""
    height, width = batch.images.shape[2:]
    size = torch.tensor([width, height, width, height])
    result = []
    for number, detections in enumerate(found):
        letterbox, shape = batch.letterboxes[number], batch.shapes[number]
        targets = batch.targets[batch.targets[:, 0] == number]
        ignore = batch.ignore[batch.ignore[:, 0] == number]
        detections = detections.cpu()  # noqa: PLW2901
        detections[:, :4] = letterbox.to_picture(detections[:, :4], *shape)
        boxes = letterbox.to_picture(xywh_to_xyxy(targets[:, 2:6]) * size, *shape)
        regions = letterbox.to_picture(xywh_to_xyxy(ignore[:, 2:6]) * size, *shape)
        labels = torch.cat((targets[:, 1:2], boxes), 1)
        result.append(Picture(batch.paths[number], shape, detections, labels, regions))
    return result


def collect_icdar(pictures: list[Picture], iou_thres: float = WORD_NMS_IOU):
    """ICDAR2015 task 4.1 over the pictures, as an ICDARMetrics; None if any lacks its official ground truth."""
    from utils.icdar import ICDARMetrics, boxes_to_quads, read_ground_truth

    truths = [companion_file(Path(picture.path), 'gt') for picture in pictures]
    if not all(truth is not None and truth.is_file() for truth in truths):
        return None
    metrics = ICDARMetrics()
    for picture, truth in zip(pictures, truths, strict=True):
        words = words_of(picture, iou_thres)
        metrics.update(boxes_to_quads(words[:, :4].numpy()), words[:, 4].numpy(), *read_ground_truth(truth))
    return metrics


def words_of(picture: Picture, iou_thres: float = WORD_NMS_IOU) -> Tensor:
    """The detections (n, 6) that remain at detect.py's stricter NMS, best first."""
    found = picture.detections
    return found[class_nms(found[:, :4], found[:, 4], found[:, 5], iou_thres)]
