"""Where a detector's answers count: the confidence and the word scale that the validation split chose, for each image
size that it was asked about."""

import math
from typing import Any, NamedTuple

MAX_SIDE = 1 << 15  # pixels of a network's input; more needs more memory than there is
DEFAULT_THRESHOLD = 0.25  # of networks for which none was chosen
UNSCALED = (1.0, 1.0)  # the word scale of boxes that are evaluated as they are


class Point(NamedTuple):
    """An operating point.

    Attributes:
        conf_threshold: confidence, None where none was chosen.
        word_scale: factors of width and height that turn a box into the quad that hmean is for.
    """

    conf_threshold: float | None = None
    word_scale: tuple[float, float] = UNSCALED

    @property
    def threshold(self) -> float:
        """The confidence to use: the one that was chosen, or the default."""
        return DEFAULT_THRESHOLD if self.conf_threshold is None else self.conf_threshold


Points = dict[int, Point]  # by the longer side in pixels


def nearest(points: Points, imgsz: int, default: Point) -> Point:
    """The point of the size whose ratio to `imgsz` is nearest to 1; without points the default."""
    return points[min(points, key=lambda size: abs(math.log(size / imgsz)))] if points else default


def middle(points: Points) -> int | None:
    """The middle size, balanced between time and small words; None without points."""
    return sorted(points)[len(points) // 2] if points else None


def is_scale(value: object) -> bool:
    """Whether it is a word scale, as files hold it: two factors, or None where none was chosen."""
    if value is None:
        return True
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, float) and 0 < v <= 2 for v in value)


def is_threshold(value: object) -> bool:
    """Whether it is a confidence, as files hold it: 0 to 1, or None where none was chosen."""
    return value is None or (isinstance(value, float) and 0 <= value <= 1)


def to_plain(points: Points) -> dict[str, Any]:
    """As checkpoints and exported files hold them."""
    return {
        str(size): {'conf_threshold': point.conf_threshold, 'word_scale': list(point.word_scale)}
        for size, point in sorted(points.items())
    }


def from_plain(value: Any) -> Points:
    """What `to_plain` wrote; None stands for no points. Raises ValueError."""
    points: Points = {}
    try:
        for size, entry in (value or {}).items():
            threshold, scale = entry['conf_threshold'], entry['word_scale']
            if not 1 <= int(size) <= MAX_SIDE or not is_threshold(threshold) or not is_scale(scale):
                raise ValueError
            points[int(size)] = Point(threshold, tuple(scale or UNSCALED))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f'its points are {str(value)[:80]!r}') from None
    return points
