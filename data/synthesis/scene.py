"""The drawn scene around the text: surfaces seen by the camera, clutter on them, and what stands before text."""

import cv2
import numpy as np

from data.synthesis.colours import draw_colour, fractal_noise
from data.synthesis.geometry import Camera, plane_homography, shifted
from data.synthesis.surfaces import draw_surface


def add_clutter(rng: np.random.Generator, scene: np.ndarray) -> None:
    """Draw posts, boxes, discs, cables and ladders of bars: things that are not text but have its edges."""
    height, width = scene.shape[:2]
    for _ in range(rng.integers(0, 6)):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        colour = (draw_colour(rng, 0.3) * rng.uniform(0.5, 1)).tolist()
        kind = rng.choice(['post', 'box', 'disc', 'cable', 'bars'], p=[0.25, 0.3, 0.15, 0.15, 0.15])
        reach = int(height * rng.uniform(0.03, 0.25))
        thin = max(1, height // 300)
        if kind == 'post':
            cv2.line(scene, (x, 0), (x + int(rng.normal(0, 0.04) * width), height), colour, reach // 4 + 1, cv2.LINE_AA)
        elif kind == 'box':
            shape = cv2.boxPoints(((x, y), (2 * reach, int(reach * rng.uniform(0.5, 4))), rng.normal(0, 6)))
            cv2.fillConvexPoly(scene, shape.astype(int), colour, cv2.LINE_AA)
        elif kind == 'disc':
            cv2.circle(scene, (x, y), reach // 2, colour, int(rng.choice([-1, 2 * thin])), cv2.LINE_AA)
        elif kind == 'cable':
            end = (int(rng.integers(width)), int(rng.integers(height)))
            cv2.line(scene, (x, y), end, colour, thin, cv2.LINE_AA)
        else:
            pitch = max(3, reach // 10)
            for step in range(int(rng.integers(3, 12))):
                bar = (x + step * pitch, y)
                cv2.rectangle(scene, bar, (bar[0] + pitch // 2, y + reach // 2), colour, -1)


def draw_scene(rng: np.random.Generator, camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) float32 BGR: one or two surfaces seen by the camera, with clutter, a little out of focus."""
    width, height = size
    scene = draw_surface(rng, height, width)
    if rng.random() < 0.6:
        # Enlarged about the centre until the turned plane fills the picture; mirrored beyond its rim.
        view = shifted(plane_homography(camera, width, height, 1.5 * width), width / 2, height / 2)
        scene = cv2.warpPerspective(scene, view, size, borderMode=cv2.BORDER_REFLECT_101)
    if rng.random() < 0.45:  # another surface beside or below
        other = draw_surface(rng, height, width)
        cut = rng.uniform(0.25, 0.8)
        if rng.random() < 0.5:
            line = np.array([[0, cut + rng.normal(0, 0.05)], [1, cut + rng.normal(0, 0.05)], [1, 1], [0, 1]])
        else:
            line = np.array([[cut + rng.normal(0, 0.03), 0], [1, 0], [1, 1], [cut + rng.normal(0, 0.03), 1]])
        mask = np.zeros((height, width), np.uint8)
        cv2.fillConvexPoly(mask, (line * size).astype(int), 1)
        scene = np.where(mask[..., None] > 0, other, scene)
    scene = np.ascontiguousarray(scene, np.float32)
    add_clutter(rng, scene)
    scene *= 1 + 0.05 * fractal_noise(rng, height, width, height // 3, 3)[..., None]  # nothing is quite flat
    focus = rng.choice([0.0, 0.7, 1.5, 3.0], p=[0.35, 0.35, 0.2, 0.1]) * height / 720
    return np.clip(cv2.GaussianBlur(scene, (0, 0), focus) if focus else scene, 0, 255)


def hide_some(rng: np.random.Generator, scene: np.ndarray) -> np.ndarray:
    """Lay posts, cables and blurred shapes over the scene; returns where (height, width) uint8."""
    height, width = scene.shape[:2]
    hidden = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(1, 4)):
        mask = np.zeros_like(hidden)
        x, y, thick = (
            int(rng.integers(width)),
            int(rng.integers(height)),
            max(1, int(height * rng.uniform(0.003, 0.05))),
        )
        if rng.random() < 0.6:
            end = (int(rng.normal(x, width / 6)), int(rng.normal(y, height)))
            cv2.line(mask, (x, y), end, 255, thick, cv2.LINE_AA)
        else:
            corners = rng.normal((x, y), height / 14, (7, 2)).astype(np.int32)
            cv2.fillConvexPoly(mask, cv2.convexHull(corners), 255, cv2.LINE_AA)
        cover = draw_colour(rng, 0.3) * (1 + 0.1 * fractal_noise(rng, height, width, 32, 2))[..., None]
        soft = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 2)).astype(np.float32)[..., None] / 255
        scene += (np.clip(cover, 0, 255) - scene) * soft
        hidden |= mask
    return hidden
