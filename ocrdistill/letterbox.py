"""How an image is placed in a network's input: resized, centred on grey, and back."""

import math
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

GREY = 114  # of what the image leaves free
BORDER = 0.5  # of a stride, at least, that is left free in all: words at the edge of an image are found more surely
ROWS_AT_ONCE = 8  # of an output, while it shrinks: what they are the means of stays in the processor's cache


class Letterbox(NamedTuple):
    """How an image was placed in its network input: input pixel = image pixel * scale + pad."""

    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float

    def to_image(self, points: Any, height: int, width: int) -> Any:
        """Input pixels as image pixels, clipped to the image's (height, width).

        Args:
            points: NumPy array or PyTorch tensor (..., 2 n) of floats x, y, x, y ...: boxes x1, y1, x2, y2, or corners.
        """
        result = points * 1.0  # a copy, in either library
        result[..., ::2] = ((result[..., ::2] - self.pad_x) / self.scale_x).clip(0, width)
        result[..., 1::2] = ((result[..., 1::2] - self.pad_y) / self.scale_y).clip(0, height)
        return result


def place(
    image: np.ndarray, side: int, stride: int, fixed: tuple[int, int] | None = None
) -> tuple[np.ndarray, Letterbox]:
    """Resize an image's long side and pad it with grey.

    Args:
        image: (H, W, 3) uint8.
        side: pixels of the long side; no matter with `fixed`.
        stride: the input's sides are multiples of it, the least that leave BORDER free.
        fixed: (h, w) of the input in place of both.

    Returns:
        The input (h, w, 3) uint8, and where the image lies in it.
    """
    height, width = image.shape[:2]
    if fixed:
        side = round(min(fixed[0] / height, fixed[1] / width) * max(height, width))
    new_width, new_height = resized_shape(width, height, side)
    whole_height, whole_width = fixed or (
        math.ceil(length / stride + BORDER) * stride for length in (new_height, new_width)
    )
    top, left = (whole_height - new_height) // 2, (whole_width - new_width) // 2
    resized = resize(image, new_width, new_height)
    if (new_height, new_width) != (whole_height, whole_width):
        padded = np.full((whole_height, whole_width, 3), GREY, np.uint8)
        padded[top : top + new_height, left : left + new_width] = resized
        resized = padded
    return resized, Letterbox(new_width / width, new_height / height, float(left), float(top))


def resized_shape(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) when the longer one becomes `side`; at least one pixel each."""
    ratio = side / max(width, height)
    return max(round(width * ratio), 1), max(round(height * ratio), 1)


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (height, width, 3): by area means where it shrinks, linearly where it grows.

    The same as OpenCV's INTER_AREA and INTER_LINEAR, give or take the rounding. Pillow's own filters look further than
    an area, and the networks have learned from area means.
    """
    old_height, old_width = image.shape[:2]
    if (old_width, old_height) == (width, height):
        return image
    if width > old_width or height > old_height:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    if old_width % width == 0 and old_height % height == 0:
        return np.asarray(Image.fromarray(image).reduce((old_width // width, old_height // height)))
    rows = _shrink(image.reshape(old_height, -1), height).reshape(height, old_width, 3)
    columns = np.ascontiguousarray(rows.transpose(1, 0, 2)).reshape(old_width, -1)
    means = _shrink(columns, width).reshape(width, height, 3).transpose(1, 0, 2)
    return np.ascontiguousarray(np.rint(means).astype(np.uint8))


def _shrink(lines: np.ndarray, count: int) -> np.ndarray:
    """(n, k) -> (count, k) float32: means over the n / count lines that each line of the result covers, in part or
    wholly; count <= n."""
    ends = np.arange(count + 1) * (len(lines) / count)
    result = np.empty((count, lines.shape[1]), np.float32)
    for start in range(0, count, ROWS_AT_ONCE):
        part = ends[start : start + ROWS_AT_ONCE + 1]
        first, last = int(part[0]), min(math.ceil(part[-1] - 1e-6), len(lines))
        line = np.arange(first, last)
        covered = np.minimum(part[1:, None], line + 1) - np.maximum(part[:-1, None], line)
        weights = (covered.clip(min=0) * (count / len(lines))).astype(np.float32)
        np.matmul(weights, lines[first:last].astype(np.float32), out=result[start : start + ROWS_AT_ONCE])
    return result
