"""Grids of images with boxes, drawn with OpenCV: batches, and labels beside predictions. All files are written whole or
not at all, and all functions take empty inputs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from models.files import replacing
from utils.detection.drawing import PALETTE, draw_boxes, line_width
from utils.runtime.words import counted

Names = Mapping[int, str] | Sequence[str] | None

PREDICTION_COLOR = (225, 60, 50)  # RGB
IGNORE_COLOR = (150, 150, 150)
FONT = cv2.FONT_HERSHEY_SIMPLEX
MAX_SIDE = 1920  # pixels; longer mosaics are shrunk
PAIR_WIDTH, TITLE_HEIGHT = 956, 30  # pixels of one image of a pair of labels and predictions, and of its title


def save_image(image: np.ndarray, file: Path) -> None:
    """Write an RGB uint8 picture (H, W, 3); the file's suffix chooses the format."""
    file = Path(file)
    # JPEG halves the resolution of colour unless told otherwise: thin coloured lines would go grey.
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, cv2.IMWRITE_JPEG_QUALITY, 90]
    jpeg = file.suffix.lower() in ('.jpg', '.jpeg')
    done, data = cv2.imencode(file.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options if jpeg else [])
    if not done:
        raise OSError(f'cannot encode {file}')
    with replacing(file) as temporary:
        temporary.write_bytes(data.tobytes())


def class_name(names: Names, category: float) -> str:
    """Class name from a dict or list, or the number itself."""
    try:
        return str(int(category) if names is None else names[int(category)])
    except (KeyError, IndexError, TypeError):
        return str(int(category))


def hatch_boxes(image: np.ndarray, boxes: ArrayLike) -> np.ndarray:
    """A copy of the picture with grey diagonal stripes on don't-care boxes (n, 4) xyxy in pixels."""
    image = np.ascontiguousarray(image).copy()
    height, width = image.shape[:2]
    boxes = np.asarray(boxes, float).reshape(-1, 4).round().astype(int)
    inside = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in np.clip(boxes, 0, [width, height, width, height]).tolist():
        inside[y1:y2, x1:x2] = True
    step = 3 * line_width(image) + 3
    stripes = (np.arange(height)[:, None] + np.arange(width)) % (2 * step) < step
    image[inside] = (image[inside] * 0.55 + np.array(IGNORE_COLOR) * 0.45).astype(np.uint8)
    image[inside & stripes] = (image[inside & stripes] * 0.6 + np.array(IGNORE_COLOR) * 0.4).astype(np.uint8)
    for box in boxes.tolist():
        cv2.rectangle(image, box[:2], box[2:], IGNORE_COLOR, 1, cv2.LINE_AA)
    return image


def _mosaic(tiles: list[np.ndarray], columns: int, gap: int = 4) -> np.ndarray:
    """Pictures of one size in a grid on white, shrunk to MAX_SIDE."""
    height, width = tiles[0].shape[:2]
    rows = math.ceil(len(tiles) / columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = tile
    scale = MAX_SIDE / max(canvas.shape[:2])
    return cv2.resize(canvas, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else canvas


def _empty(text: str) -> np.ndarray:
    image = np.full((160, 480, 3), 255, np.uint8)
    return cv2.putText(image, text, (20, 88), FONT, 0.7, (90, 90, 90), 1, cv2.LINE_AA)


def plot_batch(
    images: Any, targets: ArrayLike, ignore: ArrayLike | None, file: Path, names: Names = None, max_images: int = 16
) -> None:
    """A batch as the network sees it, with its targets and, hatched, its don't-care regions.

    Args:
        images: (B, 3, H, W) uint8 RGB.
        targets: (N, 6) image, class, x, y, w, h, as shares of H and W.
        ignore: (K, 6), the same form, or None.
        file: where to.
        names: class names, written if there are several.
        max_images: the first so many pictures are shown.
    """
    targets = np.asarray(targets, float).reshape(-1, 6)
    ignore = np.asarray([] if ignore is None else ignore, float).reshape(-1, 6)
    tiles = []
    for index, image in enumerate(images[:max_images]):
        tile = np.ascontiguousarray(np.asarray(image).transpose(1, 2, 0))
        mine, hatched = targets[targets[:, 0] == index], ignore[ignore[:, 0] == index]
        tile = hatch_boxes(tile, _pixels(hatched[:, 2:], tile))
        tiles.append(_draw_classes(tile, _pixels(mine[:, 2:], tile), mine[:, 1], names))
    save_image(_mosaic(tiles, math.ceil(math.sqrt(len(tiles)))) if tiles else _empty('no pictures'), file)


def _draw_classes(image: np.ndarray, boxes: np.ndarray, classes: np.ndarray, names: Names) -> np.ndarray:
    """The boxes, each class in its colour and, if there are several, with its name."""
    for category in np.unique(classes.astype(int)):
        chosen = boxes[classes == category]
        text = class_name(names, category) if names is not None and len(names) > 1 else ''
        image = draw_boxes(image, chosen, [text] * len(chosen), PALETTE[category % len(PALETTE)])
    return image


def _pixels(boxes: np.ndarray, image: np.ndarray) -> np.ndarray:
    """xywh as shares of the picture -> xyxy in its pixels."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate((centre - half, centre + half), 1) * np.tile(image.shape[1::-1], 2)


def _titled(image: np.ndarray, title: str, height: int) -> np.ndarray:
    """The picture on a white ground of PAIR_WIDTH x height pixels, under a title."""
    tile = np.full((height + TITLE_HEIGHT, PAIR_WIDTH, 3), 255, np.uint8)
    tile[TITLE_HEIGHT : TITLE_HEIGHT + image.shape[0], : image.shape[1]] = image
    return cv2.putText(tile, title, (6, 21), FONT, 0.6, (40, 40, 40), 1, cv2.LINE_AA)


def plot_predictions(
    images: Sequence[np.ndarray],
    labels: Sequence[ArrayLike],
    ignore: Sequence[ArrayLike] | None,
    detections: Sequence[ArrayLike],
    file: Path,
    names: Names = None,
) -> None:
    """Each row a picture twice: its labels at the left, what was detected at the right.

    Args:
        images: list of (H, W, 3) RGB uint8.
        labels: list of (m, 5) class, x1, y1, x2, y2 in the picture's pixels.
        ignore: list of (k, 4) don't-care boxes xyxy, or None.
        detections: list of (n, 6) x1, y1, x2, y2, score, class.
        file: where to.
        names: class names, written if there are several.
    """
    ignore = [[]] * len(images) if ignore is None else ignore
    rows = [
        _pair(image, np.asarray(actual, float).reshape(-1, 5), skipped, np.asarray(found, float).reshape(-1, 6), names)
        for image, actual, skipped, found in zip(images, labels, ignore, detections, strict=True)
    ]
    save_image(np.vstack(rows) if rows else _empty('no pictures'), file)


def _pair(image: np.ndarray, labels: np.ndarray, ignore: ArrayLike, detections: np.ndarray, names: Names) -> np.ndarray:
    """One row of plot_predictions; lines and letters are drawn at the size in which they are seen."""
    height = round(PAIR_WIDTH * min(image.shape[0] / image.shape[1], 1.2))
    scale = min(PAIR_WIDTH / image.shape[1], height / image.shape[0])
    size = [max(int(side * scale), 1) for side in image.shape[1::-1]]
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    hatched = np.asarray(ignore, float).reshape(-1, 4) * scale

    several = names is not None and len(names) > 1
    texts = [(f'{class_name(names, c)} ' if several else '') + f'{score:.2f}' for score, c in detections[:, 4:]]
    left = _draw_classes(hatch_boxes(image, hatched), labels[:, 1:] * scale, labels[:, 0], names)
    right = draw_boxes(image, detections[:, :4] * scale, texts, PREDICTION_COLOR)
    regions = ', ' + counted(len(hatched), "don't-care region") if len(hatched) else ''
    return np.hstack(
        (
            _titled(left, counted(len(labels), 'label') + regions, height),
            np.full((height + TITLE_HEIGHT, 8, 3), 255, np.uint8),
            _titled(right, counted(len(detections), 'detection'), height),
        )
    )
