"""What a comparison counts: the metrics, their means over seeds, and paired differences."""

import math
import statistics
from typing import NamedTuple

import numpy as np

METRICS = {
    'precision': 'precision',
    'recall': 'recall',
    'map50': 'mAP50',
    'map50_95': 'mAP50-95',
    'quad_map50': 'quad mAP50',  # these two of networks with quads only
    'quad_map50_95': 'quad mAP50-95',
    'icdar_hmean': 'ICDAR hmean',
}
COMPARED = ('map50', 'map50_95', 'quad_map50', 'quad_map50_95', 'icdar_hmean')

DRAWS = 10_000  # of pictures, with replacement, for an interval


class Difference(NamedTuple):
    """A mean of paired differences and its 95 % confidence interval; None where one pair has none."""

    mean: float
    low: float | None
    high: float | None
    pairs: int


def mean_sd(values: list[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1); None where there are too few values."""
    return (
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )


def paired_difference(ours: dict[int, float], control: dict[int, float]) -> Difference | None:
    """Ours minus control over the seeds that both have, with Student's t interval; None without a common seed.

    Args:
        ours, control: seed -> metric.
    """
    from scipy.stats import t

    differences = [ours[seed] - control[seed] for seed in sorted(ours.keys() & control.keys())]
    if not differences:
        return None
    mean, sd = mean_sd(differences)
    if sd is None:
        return Difference(mean, None, None, 1)
    half = float(t.ppf(0.975, len(differences) - 1)) * sd / math.sqrt(len(differences))
    return Difference(mean, mean - half, mean + half, len(differences))


def hmean(counts: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall: (..., 3) words found, detections, words -> (...); 0 where there are none.

    It is 2 found / (detections + words).
    """
    return 2 * counts[..., 0] / np.maximum(counts[..., 1] + counts[..., 2], 1)


def hmean_difference(ours: np.ndarray, first: np.ndarray, seed: int = 0) -> Difference:
    """The difference of two detectors on the same pictures, with the interval of the paired bootstrap over pictures
    (Efron and Tibshirani 1993, section 13.3: percentiles).

    It says whether other pictures would show the same. It knows nothing of other trainings: two runs with another seed
    differ too.

    Args:
        ours, first: (n, 3) of each picture: words found, detections that count, words that count.
    """
    both = np.stack((ours, first), 1).reshape(len(ours), 6).astype(float)
    picked = np.random.default_rng(seed).multinomial(len(both), np.full(len(both), 1 / len(both)), DRAWS)
    sums = (picked @ both).reshape(DRAWS, 2, 3)
    low, high = np.percentile(hmean(sums[:, 0]) - hmean(sums[:, 1]), (2.5, 97.5))
    return Difference(float(hmean(ours.sum(0)) - hmean(first.sum(0))), float(low), float(high), len(both))
