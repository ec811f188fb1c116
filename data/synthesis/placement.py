"""Boards in the picture: a free place for each, and how it is warped and laid over the scene there."""

from dataclasses import dataclass

import cv2
import numpy as np

from data.synthesis.geometry import Camera, box_corners, plane_homography, project, shifted
from data.synthesis.layout import Board
from data.synthesis.painting import paint_panel, paint_words

MARGIN = 16  # pixels around a warped board, into which its blur and shadow reach
BORDER = 3  # pixels between a board and the picture's border


@dataclass
class Placed:
    """A board in the picture: its homography (edges to edges), its own blur's sigma in pixels."""

    board: Board
    homography: np.ndarray
    blur: float


def place_board(
    rng: np.random.Generator, board: Board, camera: Camera, taken: np.ndarray, size: tuple[int, int]
) -> np.ndarray | None:
    """Find a free place for a board; returns its homography, or None when there is none.

    taken: (height // 4, width // 4) uint8, not 0 where boards are; the new board is entered.
    """
    width, height = size
    turn = Camera(*(angle + rng.normal(0, spread) for angle, spread in zip(camera, (6, 3, 1.5), strict=True)))
    flat = plane_homography(turn, board.width, board.height, 1.3 * max(width, board.width))
    corners = project(flat, box_corners(0, 0, board.width, board.height))
    low, high = BORDER - corners.min(0), np.array(size) - BORDER - corners.max(0)
    if rng.random() < 0.07:  # the border may cut this one
        low, high = low - 0.4 * np.ptp(corners, 0), high + 0.4 * np.ptp(corners, 0)
    if (low > high).any():
        return None
    for _ in range(12):
        centre = rng.uniform(low, high)
        outline = np.round((corners + centre) / 4).astype(int)
        mask = np.zeros_like(taken)
        cv2.fillConvexPoly(mask, outline, 1)
        if not (mask & taken).any():
            cv2.polylines(mask, [outline], True, 1, 3)  # a gap between neighbours
            taken |= mask
            return shifted(flat, *centre)
    return None


def warp_board(board: Board, homography: np.ndarray, size: tuple[int, int]) -> tuple | None:
    """Warp a board into the picture's pixels.

    homography: edges of the board's pixels -> edges of the picture's (a pixel's centre is at +0.5).
    size: width, height of the picture.

    Returns:
        (area, colour (h, w, 3) premultiplied, opacity (h, w), ink (h, w)), area being the slices of the picture
        that the board covers; None if it covers nothing.
    """
    corners = project(homography, box_corners(0, 0, board.width, board.height))
    x1, y1 = np.maximum(np.floor(corners.min(0)).astype(int) - MARGIN, 0)
    x2, y2 = np.minimum(np.ceil(corners.max(0)).astype(int) + MARGIN, size)
    if x1 >= x2 or y1 >= y2:
        return None
    # OpenCV's integer coordinates are the pixels' centres.
    matrix = shifted(homography @ shifted(np.eye(3), 0.5, 0.5), -0.5 - x1, -0.5 - y1)
    shape = (int(x2 - x1), int(y2 - y1))
    layers = np.dstack([board.colour, board.opacity])
    warped = cv2.warpPerspective(layers, matrix, shape, flags=cv2.INTER_LINEAR)
    ink = cv2.warpPerspective(board.ink(), matrix, shape, flags=cv2.INTER_LINEAR)
    return np.s_[y1:y2, x1:x2], warped[..., :3], warped[..., 3], ink


def draw_placed(
    rng: np.random.Generator, scene: np.ndarray, placed: Placed, panel: bool, ink: np.ndarray, faint: float
) -> None:
    """Colour a placed board, and lay it over the scene (height, width, 3); its letters are entered in ink."""
    board, size = placed.board, scene.shape[1::-1]
    corners = project(placed.homography, box_corners(0, 0, board.width, board.height))
    x1, y1 = np.clip(corners.min(0).astype(int), 0, np.array(size) - 1)
    x2, y2 = np.clip(corners.max(0).astype(int), (x1 + 1, y1 + 1), size)
    ground = paint_panel(rng, board) if panel else scene[y1:y2:2, x1:x2:2].mean((0, 1))
    paint_words(rng, board, ground, faint)
    warped = warp_board(board, placed.homography, size)
    if warped is None:
        return
    area, colour, opacity, letters = warped
    if placed.blur:
        colour, opacity = (cv2.GaussianBlur(layer, (0, 0), placed.blur) for layer in (colour, opacity))
    if panel and rng.random() < 0.4:  # the board's own shadow on what is behind it
        shift = np.float32([[1, 0, rng.integers(1, 7)], [0, 1, rng.integers(1, 7)]])
        shadow = cv2.warpAffine(opacity, shift, opacity.shape[::-1])
        scene[area] *= 1 - 0.5 * cv2.GaussianBlur(shadow, (0, 0), 3)[..., None]
    scene[area] = scene[area] * (1 - opacity[..., None]) + colour
    np.maximum(ink[area], letters, out=ink[area])
