"""The ICDAR2015 protocol of task 4.1, text localisation: quads, IoU over 0.5, don't-care words, micro-averages.

The rules are the official evaluation's:
- A detection more than half of whose area lies inside one don't-care word does not count.
- Words in the order of their file each take the first free detection whose polygon overlaps with IoU over 0.5; here
  detections come by descending score. Neither don't-care words nor detections that do not count take part.
- Precision and recall over the words and detections of all pictures together; hmean is their harmonic mean.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.errors import UserError
from ocrdistill.points import UNSCALED
from ocrdistill.quads import shared_by_boxes
from ocrdistill.whole_files import replacing
from utils.loading.polygons import polygon_areas
from utils.loading.rows import DONT_CARE, read_rows, unquoted

LOWEST_THRESHOLD = 0.05  # detections with lower scores are not kept
THRESHOLDS = np.arange(5, 96) / 100  # the sweep: 0.05 to 0.95 in steps of 0.01
HEIGHT_SCALES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)  # that are tried on the validation split
WIDTH_SCALES = (1.0, 0.97, 0.94, 0.91)


def read_ground_truth(file: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Quads (n, 4, 2) and don't-care flags (n,) bool, the word is '###', of read_words. Raises UserError."""
    quads, words = read_words(file)
    return quads, np.array([word == DONT_CARE for word in words], bool)


def read_words(file: str | Path) -> tuple[np.ndarray, list[str]]:
    """Read an official gt_img_N.txt: rows x1,y1,...,x4,y4,word (any line end, a BOM, commas in
    the word and a pair of quotes around it are fine).

    Returns:
        Quads (n, 4, 2) int64 in picture pixels, and the n words.

    Raises:
        UserError: the file cannot be read, or a row is not of that form.
    """
    rows = read_rows(Path(file), 'the ICDAR ground truth')
    quads, words = [], []
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        *corners, word = row.split(',', 8)
        try:
            quads.append(np.array([round(float(corner)) for corner in corners], np.int32).reshape(4, 2))
        except (ValueError, OverflowError):
            raise UserError(f'{file}, line {number}: expected x1,y1,x2,y2,x3,y3,x4,y4,word, got {row!r}') from None
        words.append(unquoted(word))
    return np.array(quads, np.int64).reshape(-1, 4, 2), words


def boxes_to_quads(boxes: np.ndarray, scale: tuple[float, float] = UNSCALED) -> np.ndarray:
    """Boxes (n, 4) xyxy in picture pixels -> the integer quads (n, 4, 2) that are evaluated and submitted.

    An upright box around a leaning word is higher than the word, whose quad fills only a part of it; a lower box about
    the same centre overlaps the quad better. Which factors suit a detector is found on the validation split.

    Args:
        boxes: (n, 4).
        scale: factors of width and height about the centre.

    Returns:
        (n, 4, 2), corners clockwise from the top left, rounded to whole pixels.
    """
    low, high = np.split(np.asarray(boxes, float).reshape(-1, 4), 2, 1)
    centre, half = (low + high) / 2, (high - low) / 2 * scale
    x1, y1, x2, y2 = np.rint(np.concatenate((centre - half, centre + half), 1)).astype(np.int64).T
    return np.stack((x1, y1, x2, y1, x2, y2, x1, y2), 1).reshape(-1, 4, 2)


def write_submission(zip_path: str | Path, quads: Mapping[str, np.ndarray]) -> None:
    """Write what the Robust Reading site takes: a zip with a file res_img_N.txt per picture, a row per quad.

    Args:
        zip_path: where to; it appears whole or not at all, and equal quads give equal bytes.
        quads: integer quads (n, 4, 2) by picture name, with or without suffix (img_1, img_1.jpg).
    """
    zip_path = Path(zip_path)
    with replacing(zip_path) as temporary, zipfile.ZipFile(temporary, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, words in quads.items():
            rows = np.asarray(words, np.int64).reshape(-1, 8).tolist()
            entry = zipfile.ZipInfo(f'res_{Path(name).stem}.txt', date_time=(1980, 1, 1, 0, 0, 0))
            text = ''.join(','.join(map(str, row)) + '\n' for row in rows)
            archive.writestr(entry, text, zipfile.ZIP_DEFLATED)


def _overlaps(first: np.ndarray, second: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(n, m) areas that quads share, computed where `wanted` (n, m) says so, else 0."""
    import shapely  # here, so that detection works without it

    shared = np.zeros(wanted.shape)
    rows, columns = np.nonzero(wanted)
    if len(rows):
        polygons = [shapely.polygons(quads.astype(float)) for quads in (first, second)]
        # A quad whose sides cross has no well-defined inside; its valid form is what polygon clipping makes of it.
        left, right = (np.where(shapely.is_valid(p), p, shapely.make_valid(p)) for p in polygons)
        shared[rows, columns] = shapely.area(shapely.intersection(left[rows], right[columns]))
    return shared


def match_words(detections: np.ndarray, words: np.ndarray, dont_care: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match the detections of one picture with its words.

    A detection's match depends on better-scored ones alone, so it holds for any threshold on the score.

    Args:
        detections: (n, 4, 2) integer quads by descending score.
        words: (m, 4, 2) integer quads in the order of the ground-truth file.
        dont_care: (m,) bool.

    Returns:
        answers (m,) int, the detection that found each word, -1 for none and for don't-care words; counts (n,) bool,
        False for detections on don't-care words.
    """
    detections, words = np.asarray(detections).reshape(-1, 4, 2), np.asarray(words).reshape(-1, 4, 2)
    dont_care = np.asarray(dont_care, bool)
    area, word_area = polygon_areas(detections)[:, None], polygon_areas(words)
    bound = shared_by_boxes(*(np.concatenate((quads.min(1), quads.max(1)), 1) for quads in (detections, words)))
    # The bounding boxes rule most pairs out before polygons are cut: IoU > 0.5 is 3 * shared > the areas' sum.
    possible = np.where(dont_care, 2 * bound > area, 3 * bound > area + word_area)
    shared = _overlaps(detections, words, possible)
    on_dont_care = np.asarray(2 * shared > area)[:, dont_care].any(1)

    counts = np.asarray(~on_dont_care)
    overlaps = (3 * shared > area + word_area) & counts[:, None]
    answers, free = np.full(len(words), -1), np.ones(len(detections), bool)
    for word in np.flatnonzero(~dont_care):
        candidates = np.flatnonzero(overlaps[:, word] & free)
        if len(candidates):
            answers[word] = candidates[0]
            free[candidates[0]] = False
    return answers, counts


def evaluate_image(
    detections: np.ndarray, words: np.ndarray, dont_care: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """`match_words` as flags of the detections.

    Returns:
        matched (n,) bool; counts (n,) bool, False for detections on don't-care words; how many words count.
    """
    answers, counts = match_words(detections, words, dont_care)
    matched = np.zeros(len(counts), bool)
    matched[answers[answers >= 0]] = True
    return matched, counts, int((~np.asarray(dont_care, bool)).sum())


class ICDARMetrics:
    """Collects pictures, then gives precision, recall and hmean at any threshold on the detections' scores."""

    def __init__(self) -> None:
        self.words = 0
        self.scores: list[np.ndarray] = []  # of the detections that count, an array per picture; as below
        self.matched: list[np.ndarray] = []

    def update(self, detections: np.ndarray, scores: np.ndarray, words: np.ndarray, dont_care: np.ndarray) -> None:
        """Add one picture.

        Args:
            detections: (n, 4, 2) integer quads in picture pixels, in any order (see boxes_to_quads).
            scores: (n,).
            words: (m, 4, 2) and
            dont_care: (m,), both as from read_ground_truth.
        """
        scores = np.asarray(scores, np.float32)
        order = np.argsort(-scores, kind='stable')
        order = order[scores[order] >= LOWEST_THRESHOLD]
        matched, counts, words_here = evaluate_image(np.asarray(detections)[order], words, dont_care)
        self.words += words_here
        self.scores.append(scores[order][counts])
        self.matched.append(matched[counts])

    def at(self, threshold: float) -> dict[str, float]:
        """Figures of the detections that score at least `threshold`.

        Returns:
            icdar_precision, icdar_recall, icdar_hmean; 0 where there is nothing to divide by.

        Raises:
            UserError: a threshold under 0.05, where detections were not kept.
        """
        if threshold < LOWEST_THRESHOLD:
            raise UserError(
                f'ICDAR metrics need a confidence threshold of at least {LOWEST_THRESHOLD}, not {threshold}'
            )
        curve = self._curve(np.array([threshold]))
        return {f'icdar_{name}': float(curve[name][0]) for name in ('precision', 'recall', 'hmean')}

    def sweep(self) -> tuple[float, dict[str, np.ndarray]]:
        """The threshold of the highest hmean (the lowest such), and the curve: threshold, precision, recall, hmean."""
        curve = self._curve(THRESHOLDS)
        return float(THRESHOLDS[curve['hmean'].argmax()]), curve

    def _curve(self, thresholds: np.ndarray) -> dict[str, np.ndarray]:
        scores = np.concatenate([np.zeros(0, np.float32), *self.scores])
        matched = np.concatenate([np.zeros(0, bool), *self.matched])
        order = np.argsort(scores, kind='stable')
        # Scores are float32: so is the threshold they are compared with, as in any comparison with a float32 tensor.
        below = np.searchsorted(scores[order], thresholds.astype(np.float32), side='left')
        hits = np.concatenate((np.cumsum(matched[order][::-1])[::-1], [0]))[below]
        precision = hits / np.maximum(len(scores) - below, 1)
        recall = hits / max(self.words, 1)
        hmean = 2 * precision * recall / np.maximum(precision + recall, 1e-16)
        return {'threshold': thresholds, 'precision': precision, 'recall': recall, 'hmean': hmean}
