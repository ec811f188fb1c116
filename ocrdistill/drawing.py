"""Words drawn on a picture, with Pillow: thin outlines, and labels that cover no word and no other label."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
PALETTE: tuple[Colour, ...] = (  # RGB, the Okabe-Ito colours: told apart by colour-blind readers as well
    (0, 158, 115),
    (213, 94, 0),
    (0, 114, 178),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (240, 228, 66),
)
SCORES = np.array([(213, 94, 0), (240, 228, 66), (0, 158, 115)], float)  # at 0, a half and 1
FINE = 4  # parts of a pixel that an outline is drawn in, and averaged
FINEST_MASK = 4_000_000  # pixels; a larger outline has lines so thick that it needs no more


def line_width(image: np.ndarray) -> int:
    """Pixels of a word's line that suit the size of a picture (H, W, 3)."""
    return max(1, round(sum(image.shape[:2]) / 1200))


def score_colour(score: float) -> Colour:
    """From vermilion (0) through yellow to green (1)."""
    red, green, blue = (round(float(np.interp(score, (0, 0.5, 1), SCORES[:, channel]))) for channel in range(3))
    return red, green, blue


def draw_words(
    image: np.ndarray,
    quads: np.ndarray,
    colours: Sequence[Colour],
    texts: Sequence[str] = (),
    thickness: int | None = None,
) -> np.ndarray:
    """Outline words.

    Args:
        image: (H, W, 3) uint8; left as it is.
        quads: (n, 4, 2) x, y in pixels.
        colours: n colours, in the picture's own order of channels.
        texts: n labels, an empty one for none. A label stands above its word, else below or beside it, inside the
            picture. Where it could only lie on a word or on another label there is none.
        thickness: of the lines in pixels; by default it suits the picture's size.

    Returns:
        A copy (H, W, 3).
    """
    canvas = Image.fromarray(np.ascontiguousarray(image))
    width = min(thickness or line_width(image), max(image.shape[:2]))
    for quad, colour in zip(quads, colours, strict=True):
        _outline(canvas, np.asarray(quad, float), colour, width)
    if any(texts):
        _label_all(canvas, np.asarray(quads, float), colours, texts, width)
    return np.array(canvas)


def _outline(canvas: Image.Image, quad: np.ndarray, colour: Colour, width: int) -> None:
    """One quad (4, 2), with smooth edges."""
    size = np.array(canvas.size)
    low = np.floor(quad.min(0) - width).clip(-2 * width, size).astype(int)
    high = np.ceil(quad.max(0) + width).clip(0, size + 2 * width).astype(int) + 1
    columns, rows = (high - low).tolist()
    if columns < 1 or rows < 1:
        return  # all of it lies outside
    fine = FINE if columns * rows * FINE**2 <= FINEST_MASK else 1
    mask = Image.new('L', (columns * fine, rows * fine))
    points = [tuple(point) for point in ((quad - low) * fine).tolist()]
    ImageDraw.Draw(mask).line([*points, *points[:2]], 255, max(round(width * fine), 1), joint='curve')
    canvas.paste(colour, tuple(low.tolist()), mask.reduce(fine) if fine > 1 else mask)


def _label_all(
    canvas: Image.Image, quads: np.ndarray, colours: Sequence[Colour], texts: Sequence[str], width: int
) -> None:
    """The texts of quads (n, 4, 2), each where it covers nothing."""
    margin = width + 1
    font = ImageFont.load_default(8 + 3 * width)
    top, bottom = font.getbbox('Ag')[1::2]
    taken = np.concatenate((quads.min(1) - width, quads.max(1) + width), 1)  # (m, 4) xyxy
    draw = ImageDraw.Draw(canvas)
    for quad, colour, text in zip(quads, colours, texts, strict=True):
        size = np.array([font.getlength(text) + 2 * margin, bottom - top + 2 * margin])
        place = _free_place(quad, np.ceil(size), np.array(canvas.size), taken, width) if text else None
        if place is None:
            continue
        x1, y1, x2, y2 = place.tolist()
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), colour)
        ink = (0, 0, 0) if sum(colour) > 3 * 128 else (255, 255, 255)
        draw.text((x1 + margin, y1 + margin - top), text, ink, font)
        taken = np.concatenate((taken, place[None]))


def _free_place(
    quad: np.ndarray, size: np.ndarray, limit: np.ndarray, taken: np.ndarray, width: int
) -> np.ndarray | None:
    """Where a label (w, h) near a quad covers nothing: x1, y1, x2, y2, or None."""
    (x1, y1), (x2, y2) = np.floor(quad.min(0) - width), np.ceil(quad.max(0) + width)
    w, h = size
    corners = [(x1, y1 - h), (x2 - w, y1 - h), (x1, y2), (x2 - w, y2), (x2, y1), (x1 - w, y1), (x2, y2 - h)]
    if (size > limit).any():
        return None
    inside = np.array(corners).clip(0, limit - size)
    for place in np.concatenate((inside, inside + size), 1):
        low, high = np.maximum(place[:2], taken[:, :2]), np.minimum(place[2:], taken[:, 2:])
        if not (low < high).all(1).any():
            return place
    return None
