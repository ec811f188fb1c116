"""How good detections are: YOLOv5's mAP, and the confusion of classes. Boxes in pixels, everything in float32.

The definition is YOLOv5's, so that figures can be compared; it is not quite COCO's
(tests/evaluation/test_metrics.py says how far apart they are):
- Ten IoU thresholds, .50 to .95. In a picture, a detection claims the label of its class that it overlaps most. At a
  threshold, a label goes to the highest-scored detection that claims it with at least that IoU; the others are false.
- Per class, detections of the whole data set by descending score give a curve of precision over recall. AP is the
  integral (trapezoids between 101 evenly spaced recalls) of its envelope, the curve extended by (0, 1) and (1, 0).
  That last point costs a curve that reaches recall 1 half a step: the highest AP is .995.
- Precision and recall are given at the confidence that maximises F1 (mean over classes, smoothed).
- Don't-care regions: a detection that found no label, and more than half of which lies inside one region, does not
  count at all.
"""

from typing import Any

import numpy as np
from torch import Tensor
from torchvision.ops import box_iou

from ocrdistill.quads import shared_by_boxes

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10).astype(np.float32)
CONFIDENCES = np.linspace(0, 1, 1000)  # the confidence axis of the curves, and the recall axis of the PR curve
RECALLS = np.linspace(0, 1, 101)
F1_WINDOW = 101  # steps of the confidence axis over which F1 is averaged before its peak is looked for


def greedy_pairs(iou: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair rows with columns by descending overlap, each at most once.

    Args:
        iou: (n, m) overlaps.
        threshold: least overlap of a pair.

    Returns:
        Row and column indices of the pairs, the best pair first.
    """
    rows, columns = np.nonzero(iou >= threshold)
    order = np.argsort(-iou[rows, columns], kind='stable')
    free_rows, free_columns = set(rows.tolist()), set(columns.tolist())
    pairs = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row in free_rows and column in free_columns:
            free_rows.remove(row)
            free_columns.remove(column)
            pairs.append((row, column))
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def claimed_overlaps(iou: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between which IoU thresholds each detection finds its label.

    Args:
        iou: (n, m) overlaps of detections and labels, 0 where their classes differ.
        scores: (n,).

    Returns:
        own (n,): the highest overlap with any label. rival (n,): the highest `own` among better-scored detections that
        claim the same label. A detection is a hit at the thresholds t with rival < t <= own.
    """
    own, rival = np.zeros(len(iou), iou.dtype), np.zeros(len(iou), iou.dtype)
    if iou.size:
        own, claimed = iou.max(1), iou.argmax(1).tolist()
        highest = np.zeros(iou.shape[1], iou.dtype)
        for detection in np.argsort(-scores, kind='stable').tolist():
            label = claimed[detection]
            rival[detection] = highest[label]
            highest[label] = max(highest[label], own[detection])
    return own, rival


def inside_ignored(boxes: Tensor, ignore: Tensor | None) -> np.ndarray:
    """(n,) bool: is more than half of the box (n, 4) inside one of the don't-care boxes (k, 4)?"""
    if ignore is None or not len(ignore):
        return np.zeros(len(boxes), bool)
    areas = (boxes[:, 2:4] - boxes[:, :2]).clamp(min=0).prod(1).numpy()
    return np.any(shared_by_boxes(boxes.numpy(), ignore.numpy()) > areas[:, None] / 2, 1)


def average_precision(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under the envelope of a precision-recall curve: trapezoids between 101 evenly spaced recalls.

    Args:
        recall: (n,) ascending.
        precision: (n,).
    """
    return float(np.trapezoid(np.interp(RECALLS, *_envelope(recall, precision)), RECALLS))


def _envelope(recall: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve with its two end points; precision raised to the best that any higher recall has."""
    recall = np.concatenate(([0.0], recall, [1.0]))
    precision = np.concatenate(([1.0], precision, [0.0]))
    return recall, np.maximum.accumulate(precision[::-1])[::-1]


def _precision_recall(
    scores: np.ndarray, hits: np.ndarray, counted: np.ndarray, n_labels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall of one class when only detections down to a score are kept.

    Args:
        scores: (n,).
        hits: (n, t) bool, the detection found a label at that IoU threshold.
        counted: (n, t) bool, it is a hit or a false alarm, and not left out.
        n_labels: labels of the class, at least 1.

    Returns:
        Distinct scores (u,), descending, precision (u, t) and recall (u, t) down to them.
    """
    order = np.argsort(-scores, kind='stable')
    scores = scores[order]
    # No threshold separates equal scores: they stand or fall together, whatever order the pictures came in.
    last_of_equals = np.flatnonzero(np.diff(scores, append=-np.inf))
    found = hits[order].cumsum(0)[last_of_equals]
    claimed = counted[order].cumsum(0)[last_of_equals]
    precision = np.divide(found, claimed, out=np.ones(found.shape), where=claimed > 0)
    return scores[last_of_equals], precision, found / n_labels


def _smooth(values: np.ndarray) -> np.ndarray:
    """Moving average over F1_WINDOW steps; the ends are continued with their own values."""
    return np.convolve(np.pad(values, F1_WINDOW // 2, mode='edge'), np.full(F1_WINDOW, 1 / F1_WINDOW), mode='valid')


class DetectionMetrics:
    """Collects the detections of a data set picture by picture and computes precision, recall, F1 and mAP.

    Args:
        nc: number of classes.
    """

    def __init__(self, nc: int):
        self.nc = nc
        self.label_counts = np.zeros(nc, np.int64)
        self.scores: list[np.ndarray] = []  # here and below, one array per picture
        self.classes: list[np.ndarray] = []
        self.hits: list[np.ndarray] = []
        self.counted: list[np.ndarray] = []

    def update(
        self, detections: Tensor, labels: Tensor, ignore: Tensor | None = None, overlaps: Tensor | None = None
    ) -> None:
        """Add one picture. All boxes are in the same pixel frame.

        Args:
            detections: (n, 6) x1, y1, x2, y2, score, class.
            labels: (m, 5) class, x1, y1, x2, y2.
            ignore: (k, 4) don't-care boxes, or None.
            overlaps: (n, m) IoU of detections and labels in place of that of their boxes (of their quads, say).
        """
        detections, labels = detections.detach().float().cpu(), labels.detach().float().cpu()
        self.label_counts += np.bincount(labels[:, 0].long().numpy(), minlength=self.nc)
        if not len(detections):
            return
        boxes = detections[:, :4]
        iou = box_iou(boxes, labels[:, 1:]) if overlaps is None else overlaps.clone()
        iou[detections[:, 5:6] != labels[None, :, 0]] = 0
        own, rival = claimed_overlaps(iou.numpy(), detections[:, 4].numpy())
        hits = (rival[:, None] < IOU_THRESHOLDS) & (own[:, None] >= IOU_THRESHOLDS)
        ignored = inside_ignored(boxes, None if ignore is None else ignore.detach().float().cpu())
        self.scores.append(detections[:, 4].numpy())
        self.classes.append(detections[:, 5].long().numpy())
        self.hits.append(hits)
        self.counted.append(hits | ~ignored[:, None])

    def compute(self) -> dict[str, Any]:
        """Figures over all pictures so far. Means are over the classes that have labels; without any, all is 0.

        Returns:
            precision, recall, f1: floats, at the confidence best_f1_conf, which maximises F1 at IoU .5.
            map50, map50_95: floats.
            ap: (nc, 10) AP per class and IoU threshold, 0 for a class without labels.
            labels: (nc,) how many labels each class has.
            curves: for plots, at IoU .5: confidence (1000,); precision, recall, f1 over it, each (c, 1000); axis_recall
                (1000,) and pr (c, 1000), the precision over it; classes (c,), those with labels; ap50 (c,);
                best_f1_conf.
        """
        curves, ap = self._curves()
        present = curves['classes']
        best, report = 0, dict.fromkeys(('precision', 'recall', 'f1', 'map50', 'map50_95'), 0.0)
        if len(present):
            best = int(_smooth(curves['f1'].mean(0)).argmax())
            report = {name: float(curves[name][:, best].mean()) for name in ('precision', 'recall', 'f1')}
            report |= {'map50': float(ap[present, 0].mean()), 'map50_95': float(ap[present].mean())}
        return report | {
            'best_f1_conf': float(CONFIDENCES[best]),
            'ap': ap,
            'labels': self.label_counts.copy(),
            'curves': curves | {'best_f1_conf': float(CONFIDENCES[best])},
        }

    def _curves(self) -> tuple[dict[str, Any], np.ndarray]:
        """compute()'s curves and ap."""
        columns = len(IOU_THRESHOLDS)
        scores = np.concatenate([np.zeros(0, np.float32), *self.scores])
        classes = np.concatenate([np.zeros(0, np.int64), *self.classes])
        hits = np.concatenate([np.zeros((0, columns), bool), *self.hits])
        counted = np.concatenate([np.zeros((0, columns), bool), *self.counted])

        present = np.flatnonzero(self.label_counts)
        ap = np.zeros((self.nc, columns))
        over_confidence = {name: np.zeros((len(present), len(CONFIDENCES))) for name in ('precision', 'recall', 'pr')}
        for row, category in enumerate(present):
            of_class = classes == category
            if not counted[of_class, 0].any():
                continue
            steps, precision, recall = _precision_recall(
                scores[of_class], hits[of_class], counted[of_class], self.label_counts[category]
            )
            ap[category] = [average_precision(recall[:, t], precision[:, t]) for t in range(columns)]
            # np.interp wants an ascending axis: negative confidence. Over the highest score nothing is claimed.
            over_confidence['precision'][row] = np.interp(-CONFIDENCES, -steps, precision[:, 0], left=1)
            over_confidence['recall'][row] = np.interp(-CONFIDENCES, -steps, recall[:, 0], left=0)
            over_confidence['pr'][row] = np.interp(CONFIDENCES, *_envelope(recall[:, 0], precision[:, 0]))
        p, r = over_confidence['precision'], over_confidence['recall']
        f1 = 2 * p * r / np.maximum(p + r, 1e-16)
        axes = {'confidence': CONFIDENCES, 'axis_recall': CONFIDENCES, 'classes': present, 'ap50': ap[present, 0]}
        return over_confidence | axes | {'f1': f1}, ap


class ConfusionMatrix:
    """Counts which class was taken for which; the last row and column are the background.

    Args:
        nc: number of classes.
    """

    CONFIDENCE = 0.25  # that a detection must exceed to count
    OVERLAP = 0.45  # IoU at which a detection and a label of whatever class belong together

    def __init__(self, nc: int):
        self.nc = nc
        self.matrix = np.zeros((nc + 1, nc + 1), np.int64)  # rows: what was predicted; columns: what is there

    def update(self, detections: Tensor, labels: Tensor, ignore: Tensor | None = None) -> None:
        """Add one picture; the arguments are DetectionMetrics.update's."""
        detections, labels = detections.detach().float().cpu(), labels.detach().float().cpu()
        detections = detections[detections[:, 4] > self.CONFIDENCE]
        predicted, actual = detections[:, 5].long().numpy(), labels[:, 0].long().numpy()
        found, label = greedy_pairs(box_iou(detections[:, :4], labels[:, 1:]).numpy(), self.OVERLAP)
        ignored = inside_ignored(detections[:, :4], None if ignore is None else ignore.detach().float().cpu())
        ignored[found] = False
        false_alarms = np.delete(predicted, np.union1d(found, np.flatnonzero(ignored)))
        missed, nothing = np.delete(actual, label), self.nc
        np.add.at(self.matrix, (predicted[found], actual[label]), 1)
        np.add.at(self.matrix[:, nothing], false_alarms, 1)
        np.add.at(self.matrix[nothing], missed, 1)
