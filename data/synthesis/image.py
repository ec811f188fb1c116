"""One picture from first to last: background, boards, what hides them, light, lens, and its words."""

import cv2
import numpy as np

from data.synthesis.geometry import draw_camera
from data.synthesis.layout import draw_board
from data.synthesis.legibility import Word, finished_words
from data.synthesis.optics import add_sensor_noise, blur_lens, draw_light
from data.synthesis.photographs import draw_photograph, find_photographs
from data.synthesis.placement import Placed, draw_placed, place_board
from data.synthesis.scene import draw_scene, hide_some
from data.synthesis.settings import PLAIN, SPLITS, STYLES, Material
from utils.loading.rows import DONT_CARE


def render_image(
    seed: int, split: str, number: int, size: tuple[int, int], material: Material = PLAIN
) -> tuple[np.ndarray, list[Word], int]:
    """Render picture `number` of a split.

    Args:
        size: width, height in pixels.

    Returns:
        (the picture (height, width, 3) uint8 BGR, its words, the JPEG quality to write it with).
    """
    rng = np.random.default_rng([seed, list(SPLITS).index(split), number, *size])
    style = STYLES[material.style]
    camera = draw_camera(rng, style.roll)
    taken = np.zeros((size[1] // 4, size[0] // 4), np.uint8)
    words = []
    photographs = find_photographs(material.backgrounds)
    if photographs and rng.random() < style.photograph:
        scene, quads = draw_photograph(rng, photographs, size)
        words = [Word(np.round(quad).astype(int), DONT_CARE, False) for quad in quads]
        for quad in quads:
            cv2.fillConvexPoly(taken, np.round(quad / 4).astype(int), 1)
        taken = cv2.dilate(taken, np.ones((3, 3), np.uint8))
    else:
        scene = draw_scene(rng, camera, size)
    ink = np.zeros(scene.shape[:2], np.float32)
    boards = []
    for _ in range(rng.integers(style.boards[0], style.boards[1] + 1)):
        for _attempt in range(4):
            board, panel = draw_board(rng, size, material)
            homography = place_board(rng, board, camera, taken, size)
            if homography is not None:
                blur = rng.uniform(1, 3.5) * max(size[1] / 720, 0.6) if rng.random() < 0.06 else 0.0
                boards.append(Placed(board, homography, blur))
                draw_placed(rng, scene, boards[-1], panel, ink, style.faint)
                break
    hidden = hide_some(rng, scene) if rng.random() < style.hidden else None
    scene *= draw_light(rng, size)
    image, blur = blur_lens(rng, np.clip(scene, 0, 255))
    image = add_sensor_noise(rng, image)
    words += [word for placed in boards for word in finished_words(placed, image, ink, blur, hidden, style)]
    return np.round(image).astype(np.uint8), words, int(rng.integers(40, 96))
