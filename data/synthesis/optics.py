"""From the scene to a photograph of it: light, lens and sensor."""

import cv2
import numpy as np


def draw_light(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) float32 gains: gradient, vignette, lamp, cast shadows, the light's colour, dark scenes."""
    width, height = size[0] // 4, size[1] // 4  # light is smooth: a quarter of the picture's size does
    x, y = np.linspace(-1, 1, width, dtype=np.float32)[None], np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    gain = 1 + x * rng.normal(0, 0.2) + y * rng.normal(0, 0.2) - (x**2 + y**2) * rng.uniform(0, 0.15)
    if rng.random() < 0.2:  # a lamp or a reflection
        distance = (x - rng.uniform(-1, 1)) ** 2 + (y - rng.uniform(-1, 1)) ** 2
        gain += rng.uniform(0.2, 0.7) * np.exp(-distance / rng.uniform(0.05, 0.6))
    gain = gain.astype(np.float32)
    for _ in range(rng.choice([0, 1, 2], p=[0.6, 0.25, 0.15])):
        corners = rng.uniform(-0.3, 1.3, (int(rng.integers(3, 6)), 2)) * (width, height)
        shade = np.zeros((height, width), np.float32)
        cv2.fillConvexPoly(shade, cv2.convexHull(corners.astype(np.int32)), rng.uniform(0.15, 0.5))
        gain *= 1 - cv2.GaussianBlur(shade, (0, 0), rng.uniform(0.5, 8))
    exposure = rng.uniform(0.25, 0.55) if rng.random() < 0.12 else rng.uniform(0.8, 1.25)
    tint = np.array([1 + rng.normal(0, 0.06), 1, 1 + rng.normal(0, 0.06)], np.float32)
    light = np.clip(gain, 0.15, 2)[..., None] * tint * np.float32(exposure)
    return cv2.resize(light, size, interpolation=cv2.INTER_LINEAR)


def blur_lens(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, float]:
    """Defocus or shake the whole picture; returns it with the blur's sigma in pixels."""
    unit = image.shape[0] / 720
    kind = rng.choice(['sharp', 'defocus', 'motion'], p=[0.45, 0.4, 0.15])
    if kind == 'defocus':
        sigma = rng.uniform(0.5, 1.6) * max(unit, 0.6)
        return cv2.GaussianBlur(image, (0, 0), sigma), sigma
    if kind == 'motion':
        length = max(3.0, rng.uniform(3, 10) * unit)
        radius = int(np.ceil(length / 2))
        reach = np.array([np.cos(angle := rng.uniform(0, np.pi)), np.sin(angle)]) * length / 2
        kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
        for step in np.linspace(-1, 1, 8 * radius + 1):
            x, y = np.round(radius + reach * step).astype(int)
            kernel[y, x] += 1
        return cv2.filter2D(image, -1, kernel / kernel.sum()), length / np.sqrt(12)
    return image, 0.0


def add_sensor_noise(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add grain, stronger in dim light, and blotches of colour; clip to 0..255."""
    height, width = image.shape[:2]
    strength = rng.uniform(0.5, 5) * (1.6 if image.mean() < 60 else 1)
    # A patch of noise, repeated at a random offset and mirrored, spares most of the time that random numbers take.
    patch = rng.standard_normal((256, 256), np.float32)
    patch = np.roll(patch, rng.integers(256, size=2), (0, 1))
    tiles = np.tile(np.block([[patch, patch[:, ::-1]], [patch[::-1], patch.T]]), (height // 512 + 1, width // 512 + 1))
    blotches = rng.standard_normal((height // 8 + 1, width // 8 + 1, 3), np.float32)
    noise = cv2.resize(blotches, (width, height)) * np.float32(strength * 0.4)
    noise += tiles[:height, :width, None] * np.float32(strength)
    return np.clip(image + noise, 0, 255)
