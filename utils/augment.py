"""Training-time changes of pictures and their annotations. Every random draw comes from the generator passed in.

Coordinates are continuous: pixel i spans i..i+1, so a picture w wide covers 0..w. Pictures are (H, W, 3) uint8 RGB.
"""

import math

import cv2
import numpy as np

from utils.labels import Annotations

GREY = 114  # of the letterbox and of what lies outside a moved picture
MIN_SIDE = 2.0  # pixels; a target that becomes smaller is a don't-care region from then on
MIN_VISIBLE = 0.2  # a target of which less than this share of its area is left likewise
MAX_TILT = 0.5  # perspective may at most halve or double sizes within a picture; more could reach the horizon

Example = tuple[np.ndarray, Annotations]  # a picture and its regions, in its pixels


def resize_long_side(image: np.ndarray, size: int) -> np.ndarray:
    """Resize so that the longer side is `size` pixels: by area means when it shrinks, linearly when it grows."""
    height, width = image.shape[:2]
    new_width, new_height = resized_shape(width, height, size)
    if (new_width, new_height) == (width, height):
        return image
    how = cv2.INTER_AREA if max(width, height) > size else cv2.INTER_LINEAR
    return cv2.resize(image, (new_width, new_height), interpolation=how)


def resized_shape(width: int, height: int, size: int) -> tuple[int, int]:
    """(width, height) after `resize_long_side`; at least one pixel each."""
    ratio = size / max(width, height)
    return max(round(width * ratio), 1), max(round(height * ratio), 1)


def pad_to(image: np.ndarray, height: int, width: int) -> tuple[np.ndarray, int, int]:
    """Centre a picture on grey of (height, width), which must hold it; returns it with its left and top margins."""
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    bottom, right = height - image.shape[0] - top, width - image.shape[1] - left
    if not (top or left or bottom or right):
        return image, 0, 0
    padded = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(GREY,) * 3)
    return padded, left, top


def compose_mosaic(rng: np.random.Generator, examples: list[Example], size: int) -> Example:
    """Four pictures around a random point of a square of 2 * size pixels, cut where they reach over its border."""
    side = 2 * size
    canvas = np.full((side, side, 3), GREY, np.uint8)
    centre_x, centre_y = rng.integers(size // 2, side - size // 2 + 1, size=2).tolist()
    parts = []
    for corner, (image, annotations) in enumerate(examples):
        height, width = image.shape[:2]
        left = centre_x - (width if corner % 2 == 0 else 0)
        top = centre_y - (height if corner < 2 else 0)
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, side), min(top + height, side)
        canvas[y1:y2, x1:x2] = image[y1 - top : y2 - top, x1 - left : x2 - left]
        parts.append(annotations.scaled(1, 1, left, top))
    return canvas, Annotations.concatenate(parts).clipped(side, side)


def random_projection(rng: np.random.Generator, hyp: dict, source: tuple, target: tuple) -> np.ndarray:
    """A random matrix that takes a picture's centre near the middle of the output.

    Args:
        rng: the generator.
        hyp: degrees, translate (share of the output), scale (gain), shear (degrees), perspective (per pixel).
        source: (width, height) of the picture.
        target: (width, height) of the output.

    Returns:
        (3, 3) float64, from picture to output coordinates.
    """
    tilt_x, tilt_y = rng.uniform(-hyp['perspective'], hyp['perspective'], 2)
    angle = math.radians(rng.uniform(-hyp['degrees'], hyp['degrees']))
    gain = rng.uniform(1 - hyp['scale'], 1 + hyp['scale'])
    shear_x, shear_y = np.tan(np.radians(rng.uniform(-hyp['shear'], hyp['shear'], 2)))
    shift_x, shift_y = 0.5 + rng.uniform(-hyp['translate'], hyp['translate'], 2)

    # At the picture's edges the homogeneous coordinate is 1 +- reach.
    reach = abs(tilt_x) * source[0] / 2 + abs(tilt_y) * source[1] / 2
    weaken = min(1.0, MAX_TILT / max(reach, 1e-12))
    to_centre = np.array([[1, 0, -source[0] / 2], [0, 1, -source[1] / 2], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, 1, 0], [tilt_x * weaken, tilt_y * weaken, 1]])
    cos, sin = gain * math.cos(angle), gain * math.sin(angle)
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    shear = np.array([[1, shear_x, 0], [shear_y, 1, 0], [0, 0, 1]])
    to_output = np.array([[1, 0, shift_x * target[0]], [0, 1, shift_y * target[1]], [0, 0, 1]])
    return to_output @ shear @ turn @ tilt @ to_centre


def project(example: Example, matrix: np.ndarray, size: tuple[int, int]) -> Example:
    """Take a picture and its regions through a matrix to an output of size (width, height).

    Targets that become too small or are cut too much become don't-care regions: they are not background.
    """
    image, annotations = example
    # OpenCV's coordinates are 0 at the centre of the first pixel, ours at its corner.
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    pixels = np.linalg.inv(shift) @ matrix @ shift
    options = {'flags': cv2.INTER_LINEAR, 'borderMode': cv2.BORDER_CONSTANT, 'borderValue': (GREY,) * 3}
    if np.array_equal(matrix[2], (0, 0, 1)):
        image = cv2.warpAffine(image, pixels[:2], size, **options)
    else:
        image = cv2.warpPerspective(image, pixels, size, **options)
    return image, annotations.projected(matrix).clipped(*size).demoted(MIN_SIDE, MIN_VISIBLE)


def jitter_hsv(rng: np.random.Generator, image: np.ndarray, hue: float, saturation: float, value: float) -> np.ndarray:
    """Shift the hue by up to `hue` of the colour circle; multiply saturation and value by 1 +- their numbers."""
    draws = rng.uniform(-1, 1, 3)
    if not (hue or saturation or value):
        return image
    levels = np.arange(256)
    table = np.empty((1, 256, 3), np.uint8)
    table[0, :, 0] = (levels + round(draws[0] * hue * 180)) % 180  # OpenCV's 8-bit hue is 0..179
    table[0, :, 1] = (levels * (1 + draws[1] * saturation)).clip(0, 255)
    table[0, :, 2] = (levels * (1 + draws[2] * value)).clip(0, 255)
    return cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB)


def random_flips(rng: np.random.Generator, example: Example, upside_down: float, mirrored: float) -> Example:
    """Flip upside down and left to right, each with its probability."""
    image, annotations = example
    height, width = image.shape[:2]
    flip_y, flip_x = rng.random(2) < (upside_down, mirrored)
    if flip_y:
        image, annotations = cv2.flip(image, 0), annotations.scaled(1, -1, 0, height)
    if flip_x:
        image, annotations = cv2.flip(image, 1), annotations.scaled(-1, 1, width, 0)
    return image, annotations


def blend(rng: np.random.Generator, first: Example, second: Example) -> Example:
    """MixUp (Zhang 2018): a weighted mean of two pictures of one size, with the regions of both."""
    share = rng.beta(32.0, 32.0)
    image = cv2.addWeighted(first[0], share, second[0], 1 - share, 0)
    return image, Annotations.concatenate([first[1], second[1]])
