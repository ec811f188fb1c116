"""Random colours and noise, of which surfaces and letters are painted."""

import cv2
import numpy as np


def luminance(colour: np.ndarray) -> float:
    """Brightness 0..255 of a BGR colour (3,)."""
    return float(np.dot(colour, (0.114, 0.587, 0.299)))


def draw_colour(rng: np.random.Generator, vivid: float = 0.5) -> np.ndarray:
    """A random BGR colour (3,) float32 0..255; vivid: the chance that it is a strong one."""
    if rng.random() < vivid:
        hue, saturation, value = rng.integers(180), rng.integers(110, 225), rng.integers(90, 250)
    else:
        hue, saturation, value = rng.integers(180), rng.integers(0, 60), 255 * rng.uniform(0.02, 1) ** 0.6
    pixel = np.array([[[hue, saturation, value]]], np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)


def draw_ink_colour(rng: np.random.Generator, ground: np.ndarray, faint: float = 0.05) -> np.ndarray:
    """A colour for letters on `ground` (3,): mostly strong contrast, as signs have; `faint`: chance of hardly any."""
    if rng.random() < faint:
        return np.clip(ground + rng.choice([-1, 1]) * rng.uniform(8, 22), 0, 255).astype(np.float32)
    least = rng.choice([60, 90, 120])
    for _ in range(20):
        white = np.full(3, rng.uniform(225, 255), np.float32)
        black = np.full(3, rng.uniform(0, 40), np.float32)
        colour = [white, black, draw_colour(rng, 0.85)][rng.choice(3, p=[0.35, 0.25, 0.4])]
        if abs(luminance(colour) - luminance(ground)) > least:
            return colour
    return np.full(3, 245.0 if luminance(ground) < 128 else 15.0, np.float32)


def fractal_noise(rng: np.random.Generator, height: int, width: int, cell: int, octaves: int) -> np.ndarray:
    """(height, width) float32 smooth noise of about unit spread; cell: pixels of its coarsest detail."""
    result = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = max(cell >> octave, 2)
        grid = rng.standard_normal((height // step + 2, width // step + 2), np.float32)
        result += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR) * 0.6**octave
    return result
