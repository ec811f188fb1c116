"""Training-time changes of pictures and their annotations. Every random draw comes from the generator passed in.

Coordinates are continuous: pixel i spans i..i+1, so a picture w wide covers 0..w. Pictures are (H, W, 3) uint8 RGB.
"""

import math

import cv2
import numpy as np

from ocrdistill.letterbox import GREY, resized_shape
from utils.loading.labels import Annotations

MIN_SIDE = 2.0  # pixels; a target that becomes smaller is a don't-care region from then on
MIN_VISIBLE = 0.2  # a target of which less than this share of its area is left likewise
WHOLE = 0.95  # in crops, words that the frame cuts further than this are don't-care: most of them cannot be read
MAX_TILT = 0.5  # perspective may at most halve or double sizes within a picture; more could reach the horizon

Example = tuple[np.ndarray, Annotations]  # a picture and its regions, in its pixels


def resize_long_side(image: np.ndarray, size: int) -> np.ndarray:
    """Resize so that the longer side is `size` pixels: by area means when it shrinks, linearly when it grows.

    ocrdistill.letterbox.resize is the same without OpenCV, give or take the rounding, and takes several times as long.
    """
    height, width = image.shape[:2]
    new_width, new_height = resized_shape(width, height, size)
    if (new_width, new_height) == (width, height):
        return image
    how = cv2.INTER_AREA if max(width, height) > size else cv2.INTER_LINEAR
    return cv2.resize(image, (new_width, new_height), interpolation=how)


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


def random_gain(rng: np.random.Generator, hyp: dict, small: float = 1.0) -> float:
    """How much larger a picture becomes: from 1 - scale to 1 + scale, or with zoom from 1 - scale to zoom, where half
    as large is as frequent as twice as large.

    Args:
        rng, hyp: see random_projection.
        small: how many times smaller than others this picture is: it is reduced by so much less.
    """
    least = min((1 - hyp['scale']) * small, 1.0)
    if hyp['zoom']:
        return math.exp(rng.uniform(math.log(least), math.log(max(hyp['zoom'], least))))
    return rng.uniform(least, 1 + hyp['scale'])


def random_projection(
    rng: np.random.Generator, hyp: dict, source: tuple, target: tuple, larger: float = 1.0
) -> np.ndarray:
    """A random matrix that takes a picture's centre near the middle of the output.

    Args:
        rng: the generator.
        hyp: degrees, translate (share of the output), scale and zoom (gain), aspect (factor), shear (degrees),
            perspective (per pixel).
        source: (width, height) of the picture.
        target: (width, height) of the output.
        larger: how many times larger the picture is than those that hyp is for.

    Returns:
        (3, 3) float64, from picture to output coordinates.
    """
    tilt = rng.uniform(-hyp['perspective'], hyp['perspective'], 2) / larger
    angle = math.radians(rng.uniform(-hyp['degrees'], hyp['degrees']))
    gain = random_gain(rng, hyp)
    shear = np.tan(np.radians(rng.uniform(-hyp['shear'], hyp['shear'], 2)))
    shift = 0.5 + rng.uniform(-hyp['translate'], hyp['translate'], 2)
    middle = np.array(source) / 2
    return _projection(middle, shift * target, middle, tilt, angle, gain * random_stretch(rng, hyp), shear)


def random_crop(
    rng: np.random.Generator,
    hyp: dict,
    example: Example,
    side: int,
    small: float = 1.0,
    larger: tuple[float, float] = (1.0, 1.0),
) -> Example:
    """A square of `side` pixels cut from a randomly projected picture, around a word that is drawn from all its words.

    Where the picture is large enough the square lies inside it; without words it lies anywhere. Words that its frame
    cuts become don't-care regions. `translate` has no meaning here.

    Args:
        small: see random_gain.
        larger: how many times larger the picture and the square are than those that hyp is for.
    """
    picture_times, square_times = larger
    image, annotations = example
    size = np.array(image.shape[1::-1], float)
    tilt = rng.uniform(-hyp['perspective'], hyp['perspective'], 2) / picture_times
    angle = math.radians(rng.uniform(-hyp['degrees'], hyp['degrees']))
    gain = random_gain(rng, hyp, small) * random_stretch(rng, hyp) * (square_times / picture_times)  # (2,)
    shear = np.tan(np.radians(rng.uniform(-hyp['shear'], hyp['shear'], 2)))
    place = rng.uniform(0, 1, 2)
    words = annotations.boxes()[~annotations.dont_care]
    reach = side / 2 / gain  # of the square, in pixels of the picture
    if len(words):
        box = words[rng.integers(len(words))]
        slack = np.maximum(reach - (box[2:] - box[:2]) / 2, 0)
        centre = (box[:2] + box[2:]) / 2 + (2 * place - 1) * slack
    else:
        centre = place * size
    # A picture smaller than the square lies anywhere in it.
    low, high = np.minimum(reach, size - reach), np.maximum(reach, size - reach)
    centre = np.where(size > 2 * reach, centre.clip(low, high), low + (high - low) * place)
    matrix = _projection(centre, np.full(2, side / 2), np.maximum(centre, size - centre), tilt, angle, gain, shear)
    return project(example, matrix, (side, side), WHOLE, MIN_SIDE * square_times)


def random_stretch(rng: np.random.Generator, hyp: dict) -> np.ndarray:
    """(2,) factors 1 / f and f of width and height, whose ratio is up to 1 + aspect either way."""
    if not hyp['aspect']:
        return np.ones(2)
    factor = math.exp(rng.uniform(-1, 1) * math.log(1 + hyp['aspect']) / 2)
    return np.array([1 / factor, factor])


def _projection(
    centre: np.ndarray, to: np.ndarray, reach: np.ndarray, tilt: np.ndarray, angle: float, gain, shear: np.ndarray
) -> np.ndarray:
    """The (3, 3) matrix that takes `centre` (x, y) to `to`: tilted, turned by `angle` (radians), sheared, enlarged.

    Args:
        reach: (2,) pixels from the centre to the farthest edge in x and y, where the tilt is greatest.
        tilt: (2,) per pixel.
        gain: (2,) factors of width and height.
        shear: (2,) tangents.
    """
    # At the picture's edges the homogeneous coordinate is 1 +- this.
    greatest = (np.abs(tilt) * reach).sum()
    tilt_x, tilt_y = tilt * min(1.0, MAX_TILT / max(greatest, 1e-12))
    (x, y), (to_x, to_y), (shear_x, shear_y), (gain_x, gain_y) = centre, to, shear, gain
    to_centre = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    tilted = np.array([[1, 0, 0], [0, 1, 0], [tilt_x, tilt_y, 1]])
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[gain_x * cos, gain_x * sin, 0], [-gain_y * sin, gain_y * cos, 0], [0, 0, 1]])
    sheared = np.array([[1, shear_x, 0], [shear_y, 1, 0], [0, 0, 1]])
    to_output = np.array([[1, 0, to_x], [0, 1, to_y], [0, 0, 1]])
    return to_output @ sheared @ turn @ tilted @ to_centre


def project(
    example: Example,
    matrix: np.ndarray,
    size: tuple[int, int],
    min_visible: float = MIN_VISIBLE,
    min_side: float = MIN_SIDE,
) -> Example:
    """Take a picture and its regions through a matrix to an output of size (width, height).

    Targets that become smaller than `min_side` or are cut too much become don't-care regions: they are not background.
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
    return image, annotations.projected(matrix).clipped(*size).demoted(min_side, min_visible)


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


def random_turn(rng: np.random.Generator, example: Example, probability: float) -> Example:
    """Turn a picture by a quarter, to either side, with the probability. Where that is 0, nothing is drawn."""
    if not probability or rng.random() >= probability:
        return example
    image, annotations = example
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        clockwise = np.array([[0, -1, height], [1, 0, 0], [0, 0, 1]], float)
        return cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE), annotations.projected(clockwise)
    back = np.array([[0, 1, 0], [-1, 0, width], [0, 0, 1]], float)
    return cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE), annotations.projected(back)


def blend(rng: np.random.Generator, first: Example, second: Example) -> Example:
    """MixUp (Zhang 2018): a weighted mean of two pictures of one size, with the regions of both."""
    fraction = rng.beta(32.0, 32.0)
    image = cv2.addWeighted(first[0], fraction, second[0], 1 - fraction, 0)
    return image, Annotations.concatenate([first[1], second[1]])
