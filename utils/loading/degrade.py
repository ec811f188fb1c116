"""What cameras and messengers do to pictures: darkness, blur, noise and compression. Training-time changes that leave
the annotations alone. Every random draw comes from the generator passed in; a change whose probability is 0 draws
nothing. Pictures are (H, W, 3) uint8 RGB.
"""

import cv2
import numpy as np

GAMMA = (1.3, 3.0)  # of darkness
BLUR = (0.5, 2.5)  # pixels, the standard deviation
SHAKE = (3, 11)  # pixels, the length of a motion blur
NOISE = (2.0, 15.0)  # grey levels, the standard deviation
QUALITY = (25, 90)  # of JPEG


def degraded(rng: np.random.Generator, image: np.ndarray, hyp: dict) -> np.ndarray:
    """Darkness, blur, noise and JPEG in this order, as a camera adds them, each with its probability in hyp.

    Lengths are in pixels of the picture that is given, also where it is larger than the student sees it.
    """
    for name, change in CHANGES.items():
        if hyp[name] and rng.random() < hyp[name]:
            image = change(rng, image)
    return image


def _darker(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """By a gamma: shadows lose more than lights."""
    table = 255 * np.linspace(0, 1, 256) ** rng.uniform(*GAMMA)
    return cv2.LUT(image, table.round().astype(np.uint8))


def _blurred(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Out of focus, or, as often, shaken along a line."""
    if rng.random() < 0.5:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(*BLUR))
    length, angle = rng.integers(SHAKE[0], SHAKE[1], endpoint=True), rng.uniform(0, np.pi)
    return cv2.filter2D(image, -1, _line(int(length), angle), borderType=cv2.BORDER_REFLECT_101)


def _line(length: int, angle: float) -> np.ndarray:
    """(k, k) float32 weights, with sum 1, along a line of `length` pixels through the middle; angle in radians."""
    side = length // 2 * 2 + 1
    steps = np.linspace(-(length - 1) / 2, (length - 1) / 2, 4 * length)
    x = (steps * np.cos(angle)).round().astype(int) + side // 2
    y = (steps * np.sin(angle)).round().astype(int) + side // 2
    kernel = np.zeros((side, side), np.float32)
    np.add.at(kernel, (y.clip(0, side - 1), x.clip(0, side - 1)), 1)
    return kernel / kernel.sum()


def _noisy(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    grain = rng.standard_normal(image.shape, np.float32) * rng.uniform(*NOISE)
    return (image + grain).round().clip(0, 255).astype(np.uint8)


def _compressed(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    quality = int(rng.integers(QUALITY[0], QUALITY[1], endpoint=True))
    # OpenCV takes and gives BGR; the order matters, since JPEG keeps colours apart from brightness.
    _, data = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


CHANGES = {'dark': _darker, 'blur': _blurred, 'noise': _noisy, 'jpeg': _compressed}
