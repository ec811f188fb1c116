"""Colour on a board: its panel, and its letters with their shadows, extrusions and outlines."""

import cv2
import numpy as np

from data.synthesis.colours import draw_colour, draw_ink_colour, fractal_noise
from data.synthesis.layout import Board


def paint_panel(rng: np.random.Generator, board: Board) -> np.ndarray:
    """Paint the board's surface: colour, gradient, dirt, rounded corners, a rim or a stripe. Returns the colour."""
    height, width = board.height, board.width
    colour = draw_colour(rng, 0.55)
    corner = int(rng.choice([0, 0, 0.08, 0.2]) * min(height, width))
    mask = np.zeros((height, width), np.uint8)
    cv2.rectangle(mask, (corner, 0), (width - 1 - corner, height - 1), 255, -1)
    cv2.rectangle(mask, (0, corner), (width - 1, height - 1 - corner), 255, -1)
    for x in (corner, width - 1 - corner):
        for y in (corner, height - 1 - corner):
            cv2.circle(mask, (x, y), corner, 255, -1, cv2.LINE_AA)
    slope = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * rng.normal(0, 0.06)
    dirt = fractal_noise(rng, height, width, max(width // 3, 8), 3) * rng.choice([0.0, 0.02, 0.05])
    surface = np.clip(colour * (1 + slope + dirt)[..., None], 0, 255)
    board.paint(mask.astype(np.float32) / 255, surface)

    style = rng.random()
    if style < 0.35:  # a rim
        inset, thick = int(rng.integers(0, 3)), max(1, min(height, width) // 40)
        rim = np.zeros_like(mask)
        cv2.rectangle(rim, (inset, inset), (width - 1 - inset, height - 1 - inset), 255, thick)
        board.paint(rim.astype(np.float32) / 255 * board.opacity, draw_ink_colour(rng, colour))
    elif style < 0.5:  # a stripe in the padding below the text
        free = height - max(word.box[3] for word in board.words)
        if free > 6:
            board.paint(
                board.opacity[-free // 3 :], draw_colour(rng, 0.9), 0, height - board.opacity[-free // 3 :].shape[0]
            )
    return colour


def paint_words(rng: np.random.Generator, board: Board, ground: np.ndarray, faint: float) -> None:
    """Paint shadows, extrusions, outlines and letters; ground: the colour (3,) below; faint: see draw_ink_colour."""
    style = str(rng.choice(['plain', 'shadow', 'extruded'], p=[0.78, 0.13, 0.09]))
    colour = draw_ink_colour(rng, ground, faint)
    dark, strength = colour * 0.35, rng.uniform(0.35, 0.7)
    edge = draw_ink_colour(rng, colour)
    fade = 1 - rng.choice([0.0, 0.0, 0.15, 0.35]) * np.linspace(0, 1, board.height, dtype=np.float32)
    worn = rng.random() < 0.05
    for word in board.words:
        reach = max(1, round(word.ink.shape[0] * 0.06))
        if style == 'shadow':
            spread = np.pad(word.ink, 2 * reach)
            soft = cv2.GaussianBlur(spread, (0, 0), reach * 0.7) * strength
            board.paint(soft, np.zeros(3, np.float32), word.x - reach, word.y - reach)
        elif style == 'extruded':
            for step in range(reach, 0, -1):
                board.paint(word.ink, dark, word.x + step, word.y + step)
        if word.ink is not word.face:
            board.paint(word.ink, edge, word.x, word.y)
        face = word.face
        if worn:
            height, width = face.shape
            face = face * np.clip(0.9 + 0.5 * fractal_noise(rng, height, width, 6, 2), 0.3, 1)
        shade = fade[word.y : word.y + face.shape[0], None, None]
        board.paint(face, np.broadcast_to(colour * shade, (*face.shape, 3)), word.x, word.y)
