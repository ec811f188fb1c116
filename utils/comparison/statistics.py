"""What a comparison counts: the metrics, their means over seeds, and paired differences."""

import math
import statistics
from typing import NamedTuple

METRICS = {
    'precision': 'precision',
    'recall': 'recall',
    'map50': 'mAP50',
    'map50_95': 'mAP50-95',
    'quad_map50': 'quad mAP50',  # these two of networks with quads only
    'quad_map50_95': 'quad mAP50-95',
    'icdar_hmean': 'ICDAR hmean',
}
COMPARED = ('map50', 'map50_95', 'quad_map50', 'icdar_hmean')


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
