"""Boxes drawn on a picture, with OpenCV alone: detect.py must start fast, so no plotting package is imported here."""

import cv2
import numpy as np

from utils.detection.corners import corners_of, has_quads

PALETTE = (  # RGB, the Okabe-Ito colours: told apart by colour-blind readers as well
    (0, 158, 115),
    (213, 94, 0),
    (0, 114, 178),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (240, 228, 66),
)
FONT = cv2.FONT_HERSHEY_SIMPLEX
TEXT_HEIGHT = 22  # pixels of a capital at font scale 1


def line_width(image: np.ndarray) -> int:
    """Pixels of a box's line that suit the size of a picture (H, W, 3)."""
    return max(1, round(sum(image.shape[:2]) / 1000))


def annotate(image: np.ndarray, rows: np.ndarray, names: dict[int, str], options) -> np.ndarray:
    """A copy of an image (H, W, 3) RGB with its boxes (n, 6) or quads (n, 14), a colour a class."""
    for category in sorted({int(category) for category in rows[:, 5]}):
        chosen = rows[rows[:, 5] == category]
        texts = []
        for confidence in chosen[:, 4]:
            parts = [] if options.hide_labels else [names[category]]
            texts.append(' '.join(parts if options.hide_conf else [*parts, f'{confidence:.2f}']))
        colour, quads = PALETTE[category % len(PALETTE)], corners_of(chosen) if has_quads(chosen) else None
        image = draw_boxes(image, chosen[:, :4], texts, colour, options.line_thickness, quads)
    return image


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    texts: list[str],
    color: tuple[int, int, int],
    thickness: int | None = None,
    quads: np.ndarray | None = None,
) -> np.ndarray:
    """Draw boxes, each with a text on a filled background that stays inside the picture.

    Args:
        image: (H, W, 3) uint8; left as it is.
        boxes: (n, 4) x1, y1, x2, y2 in pixels.
        texts: n texts; an empty one draws no label.
        color: in the picture's own order of channels.
        thickness: of the lines in pixels; by default it suits the picture's size.
        quads: (n, 4, 2) to draw in place of the boxes, whose texts stay where they are.

    Returns:
        A copy (H, W, 3) with the boxes.
    """
    canvas = np.ascontiguousarray(image).copy()
    thickness = min(thickness or line_width(image), max(image.shape[:2]))
    corners = np.asarray(boxes, dtype=float).reshape(-1, 4).round().astype(int).tolist()
    if quads is not None:
        cv2.polylines(canvas, list(quads.round().astype(np.int32)), True, color, thickness, cv2.LINE_AA)
    else:
        for x1, y1, x2, y2 in corners:
            cv2.rectangle(canvas, (x1, y1), (x2, y2), color, thickness, cv2.LINE_AA)
    for corner, text in zip(corners, texts, strict=True):  # after all boxes: no line crosses a label
        if text:
            _draw_label(canvas, corner, text, color, thickness)
    return canvas


def _draw_label(canvas: np.ndarray, box: list[int], text: str, color: tuple[int, int, int], thickness: int) -> None:
    """One label: above its box, or inside its top edge where the picture ends; none where it cannot fit at all."""
    height, width = canvas.shape[:2]
    margin = thickness + 1
    scale = max(0.35, (8 + 3 * thickness) / TEXT_HEIGHT)
    stroke = max(1, round(scale * 1.5))
    (text_width, text_height), descent = cv2.getTextSize(text, FONT, scale, stroke)
    label_width, label_height = text_width + 2 * margin, text_height + descent + 2 * margin
    if label_width > width or label_height > height:
        return
    left = min(max(box[0], 0), width - label_width)
    top = box[1] - label_height if box[1] >= label_height else box[1]
    top = min(max(top, 0), height - label_height)
    label = canvas[top : top + label_height, left : left + label_width]  # a view: what is drawn cannot leave it
    label[:] = color
    ink = (0, 0, 0) if sum(color) > 3 * 128 else (255, 255, 255)
    cv2.putText(label, text, (margin, margin + text_height), FONT, scale, ink, stroke, cv2.LINE_AA)
