"""How an image is placed in a network's input: resized, centred on grey, and back."""

import math
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

GREY = 114  # of what the image leaves free
BORDER = 0.5  # of a stride, at least, that is left free in all: words at the edge of an image are found more surely
# While an image shrinks. Larger matrices hold more zeros, smaller ones need more calls; the cache holds so many rows.
PIXELS_AT_ONCE, ROWS_AT_ONCE = 12, 128
MOST_REDUCED = 64  # times; what shrinks more shrinks by a whole number first, in little memory


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
    factors = old_width // (width * MOST_REDUCED) + 1, old_height // (height * MOST_REDUCED) + 1
    if max(factors) > 1:
        image = np.asarray(Image.fromarray(image).reduce(factors))
    return _area_means(image, _blocks(old_height / factors[1], height), _blocks(old_width / factors[0], width))


def _area_means(image: np.ndarray, down: '_Blocks', across: '_Blocks') -> np.ndarray:
    """(H, W, 3) uint8 -> (height, width, 3), neither side larger: rows first, then columns, some rows at a time."""
    height, width = down.length, across.length
    lines = image.reshape(len(image), -1)
    # The three colours of a pixel lie side by side: each takes its own among the weights of a block of columns.
    weights = np.zeros((*across.weights.shape[:2], 3, across.weights.shape[2], 3), np.float32)
    for colour in range(3):
        weights[:, :, colour, :, colour] = across.weights
    weights = weights.reshape(len(weights), 3 * weights.shape[1], -1)
    _, taken, given = weights.shape
    group = min(max(ROWS_AT_ONCE // down.size, 1), len(down.first))
    rows = np.zeros((group * down.size, lines.shape[1]), np.float32)
    means = np.empty((len(rows), given * len(weights)), np.float32)
    result = np.empty((height, 3 * width), np.uint8)
    for begin in range(0, len(down.first), group):
        blocks = zip(down.first[begin : begin + group], down.weights[begin : begin + group], strict=True)
        for number, (first, shares) in enumerate(blocks):
            block = lines[first : first + len(shares)].astype(np.float32)
            np.matmul(shares.T, block, out=rows[number * down.size : (number + 1) * down.size])
        for number, (first, shares) in enumerate(zip(across.first, weights, strict=True)):
            part = rows[:, 3 * first : 3 * first + taken]
            np.matmul(part, shares, out=means[:, number * given : (number + 1) * given])
        some = result[begin * down.size : begin * down.size + len(means)]
        np.rint(means[: len(some), : 3 * width], out=some, casting='unsafe')
    return result.reshape(height, width, 3)


class _Blocks(NamedTuple):
    """How a side shrinks, in blocks of as many pixels of the result each."""

    length: int  # pixels of the result
    size: int  # of these in a block
    first: list[int]  # old pixel where each block begins
    weights: np.ndarray  # (blocks, old pixels, size): what part of a new pixel each old one is; 0 beyond the side


def _blocks(old: float, new: int) -> _Blocks:
    """`old` may end within the last pixel, where a side was reduced before."""
    size = min(max(round(PIXELS_AT_ONCE * new / old), 1), new)
    ends = np.minimum(np.arange(-(-new // size) * size + 1) * (old / new), old)
    low, high = ends[:-1].reshape(-1, 1, size), ends[1:].reshape(-1, 1, size)
    first = low[:, :, :1].astype(int)
    pixels = math.ceil(old)
    taken = min(math.ceil((high[:, :, -1:] - first).max() - 1e-6), pixels)
    first = np.minimum(first, pixels - taken)
    pixel = first + np.arange(taken)[:, None]
    covered = np.minimum(high, pixel + 1) - np.maximum(low, pixel)
    return _Blocks(new, size, first.ravel().tolist(), (covered.clip(min=0) * (new / old)).astype(np.float32))
