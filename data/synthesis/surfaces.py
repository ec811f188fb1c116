"""Drawn surfaces that fill a picture: walls, bricks, planks, fronts and others."""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from data.synthesis.colours import draw_colour, fractal_noise


def plaster(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A painted or concrete wall."""
    grain = fractal_noise(rng, height, width, width // 4, 6) * rng.uniform(0.01, 0.07)
    return draw_colour(rng, 0.15) * (1 + grain)[..., None]


def bricks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Rows of bricks, or tiles when the rows are not offset."""
    high = max(6, int(height * rng.uniform(0.03, 0.14)))
    wide = int(high * rng.choice([1.0, 2.0, 2.6]))
    offset = wide // 2 if rng.random() < 0.6 else 0
    gap = max(1, high // 12)
    y, x = np.arange(height)[:, None], np.arange(width)[None]
    x = x + (y // high % 2) * offset
    shades = 1 + rng.normal(0, rng.choice([0.03, 0.12]), (height // high + 1, (width + offset) // wide + 1))
    shade = shades.astype(np.float32)[y // high, x // wide]
    grain = 1 + fractal_noise(rng, height, width, high, 3) * 0.05
    surface = draw_colour(rng, 0.3) * (shade * grain)[..., None]
    joint = (y % high < gap) | (x % wide < gap)
    surface[joint] = draw_colour(rng, 0) * 0.8
    return surface


def planks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Wooden boards with their grain, lying or standing."""
    standing = rng.random() < 0.5
    if standing:
        height, width = width, height
    high = max(8, int(height * rng.uniform(0.06, 0.25)))
    row = np.arange(height) // high
    shade = (1 + rng.normal(0, 0.1, row[-1] + 1)).astype(np.float32)[row][:, None]
    grain = cv2.resize(rng.standard_normal((height // 2 + 1, width // 60 + 2), np.float32), (width, height))
    grain += fractal_noise(rng, height, width, high, 2) * 0.4
    hue = np.array([rng.uniform(40, 90), rng.uniform(70, 140), rng.uniform(110, 190)], np.float32)
    surface = hue * (shade * (1 + 0.07 * grain))[..., None]
    surface[np.arange(height) % high < max(1, high // 25)] *= 0.4
    return surface.swapaxes(0, 1) if standing else surface


def shutter(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A roller shutter, blind or corrugated sheet."""
    period = height * rng.uniform(0.02, 0.07)
    along = np.arange(height if rng.random() < 0.7 else width, dtype=np.float32)
    wave = 1 + rng.uniform(0.08, 0.25) * np.sin(along * (2 * np.pi / period))
    wave = wave[:, None] if len(along) == height else wave[None]
    grain = 1 + 0.05 * fractal_noise(rng, height, width, width // 3, 4)
    return draw_colour(rng, 0.3) * (wave * grain)[..., None]


def front(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A wall with windows or shelves: rows of panes that differ in what they show."""
    surface = plaster(rng, height, width)
    pane_h, pane_w = int(height * rng.uniform(0.12, 0.4)), int(width * rng.uniform(0.06, 0.25))
    gap_y, gap_x = int(pane_h * rng.uniform(0.05, 0.7)), int(pane_w * rng.uniform(0.05, 0.5))
    glass, frame, mixed = draw_colour(rng, 0.2) * 0.6, draw_colour(rng, 0.2), rng.random() < 0.4
    for y in range(gap_y, height - pane_h, pane_h + gap_y):
        for x in range(gap_x, width - pane_w, pane_w + gap_x):
            pane = surface[y : y + pane_h, x : x + pane_w]
            tint = draw_colour(rng, 0.8) if mixed else glass * rng.uniform(0.6, 1.4)
            pane[:] = (
                tint * np.linspace(rng.uniform(0.5, 1), rng.uniform(0.8, 1.5), pane_h, dtype=np.float32)[:, None, None]
            )
            cv2.rectangle(surface, (x, y), (x + pane_w, y + pane_h), frame.tolist(), max(1, width // 300), cv2.LINE_AA)
    return surface


def foliage(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Leaves, grass or gravel: strong detail at every scale."""
    noise = fractal_noise(rng, height, width, max(height // 28, 8), 4)
    stone = np.full(3, rng.uniform(110, 190), np.float32)
    leaves = np.array([rng.uniform(30, 80), rng.uniform(110, 180), rng.uniform(60, 140)], np.float32)
    tone = leaves if rng.random() < 0.6 else stone
    return tone * np.clip(0.75 + 0.3 * noise, 0.1, 1.6)[..., None]


def night(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A dark street or hall with lamps out of focus."""
    surface = draw_colour(rng, 0.3) * 0.25 * (1 + 0.2 * fractal_noise(rng, height, width, width // 2, 4))[..., None]
    lamps = np.zeros((height // 2, width // 2, 3), np.float32)
    for _ in range(rng.integers(5, 30)):
        x, y = rng.integers(width // 2), rng.integers(height // 2)
        light = draw_colour(rng, 0.4) * rng.uniform(0.3, 0.9)
        cv2.circle(lamps, (int(x), int(y)), int(height * rng.uniform(0.005, 0.04)), light.tolist(), -1, cv2.LINE_AA)
    return surface + cv2.resize(cv2.GaussianBlur(lamps, (0, 0), height / 250), (width, height))


@lru_cache(1)
def load_photograph() -> np.ndarray | None:
    """The photograph that matplotlib ships, or None; kept small, since only blurred crops of it are shown."""
    from matplotlib import cbook

    try:
        return cv2.imread(str(cbook.get_sample_data('grace_hopper.jpg', asfileobj=False)))
    except FileNotFoundError:  # some builds leave the samples out
        return None


def photograph(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A strongly enlarged part of a photograph, in other colours."""
    photo = load_photograph()
    if photo is None:
        return front(rng, height, width)
    wide = int(rng.integers(photo.shape[1] // 4, photo.shape[1]))
    high = min(wide * height // width, photo.shape[0])
    y, x = rng.integers(photo.shape[0] - high + 1), rng.integers(photo.shape[1] - wide + 1)
    crop = cv2.resize(photo[y : y + high, x : x + wide], (width, height), interpolation=cv2.INTER_CUBIC)
    crop = crop[:, :: int(rng.choice([-1, 1]))][..., rng.permutation(3)]
    return crop.astype(np.float32) * rng.uniform(0.6, 1.1)


SURFACES: dict[Callable, float] = {
    plaster: 0.22,
    bricks: 0.2,
    planks: 0.1,
    shutter: 0.1,
    front: 0.18,
    foliage: 0.08,
    night: 0.07,
    photograph: 0.05,
}


def draw_surface(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) float32 BGR of a random kind."""
    kinds = list(SURFACES)
    return kinds[rng.choice(len(kinds), p=list(SURFACES.values()))](rng, height, width)
