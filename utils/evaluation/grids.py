"""Pages of images with what is marked in them: batches, previews, detections beside the truth. Drawn with OpenCV and
Pillow. All files are written whole or not at all, and all functions take empty inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from ocrdistill.drawing import PALETTE, Colour, draw_words, line_width
from ocrdistill.rows import corners_of
from ocrdistill.whole_files import replacing
from utils.boxes import xywh_to_xyxy
from utils.evaluation.verdicts import DONT_CARE, MISSED, RIGHT, WRONG, Verdict
from utils.loading.batches import Batch
from utils.loading.labels import quad_of

Names = Mapping[int, str] | Sequence[str] | None

DONT_CARE_COLOR = (150, 150, 150)
VERDICT_COLORS = {RIGHT: PALETTE[0], WRONG: PALETTE[1], MISSED: (250, 220, 40), DONT_CARE: DONT_CARE_COLOR}
PAPER, INK = (255, 255, 255), (50, 50, 50)
PAGE_WIDTH, ROW_HEIGHT = 1920, 540  # pixels of a page, and of one row of its images at most
PREVIEW_HEIGHT = 360  # of a row of a preview
LINE = 2  # pixels
GAP, CAPTION, HEADER = 8, 24, 34  # pixels between images, of a name above one, and of a line above all
LETTERS = 16  # pixels


@dataclass
class Tile:
    """An image of a page, and what is drawn on it, in its own pixels.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        marks: (quads (n, 4, 2), colour, text on each or '') one over the other.
        hatched: (k, 4, 2) don't-care regions.
        caption: above it; '': none.
    """

    image: np.ndarray
    marks: list[tuple[np.ndarray, Colour, str]] = field(default_factory=list)
    hatched: np.ndarray = field(default_factory=lambda: np.zeros((0, 4, 2)))
    caption: str = ''

    def drawn(self, scale: float) -> np.ndarray:
        """The image at another size; lines and letters are drawn at the size in which they are seen."""
        size = [max(round(side * scale), 1) for side in self.image.shape[1::-1]]
        image = cv2.resize(self.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        image = hatch(image, self.hatched * scale)
        quads, colours, texts = [np.zeros((0, 4, 2))], [], []
        for marked, colour, text in self.marks:
            quads.append(np.asarray(marked, float).reshape(-1, 4, 2) * scale)
            colours += [colour] * len(quads[-1])
            texts += [text] * len(quads[-1])
        return draw_words(image, np.concatenate(quads), colours, texts, LINE)


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


def hatch(image: np.ndarray, quads: ArrayLike) -> np.ndarray:
    """A copy of the picture with grey diagonal stripes on don't-care regions (n, 4, 2) in pixels."""
    image = np.ascontiguousarray(image).copy()
    height, width = image.shape[:2]
    polygons = list(np.asarray(quads, float).reshape(-1, 4, 2).round().astype(np.int32))
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [polygon], 1)
    inside = mask.astype(bool)
    step = 3 * line_width(image) + 3
    stripes = (np.arange(height)[:, None] + np.arange(width)) % (2 * step) < step
    image[inside] = (image[inside] * 0.8 + np.array(DONT_CARE_COLOR) * 0.2).astype(np.uint8)
    image[inside & stripes] = (image[inside & stripes] * 0.6 + np.array(DONT_CARE_COLOR) * 0.4).astype(np.uint8)
    return cv2.polylines(image, polygons, True, DONT_CARE_COLOR, 1, cv2.LINE_AA)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's own: it is there, and has more letters than OpenCV's."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / 'fonts/ttf/DejaVuSans.ttf', size)


def _shortened(text: str, width: int) -> str:
    """The text, or its beginning and '…' where it is wider than so many pixels."""
    font = _font(LETTERS)
    text = ''.join(letter if letter.isprintable() else '\N{REPLACEMENT CHARACTER}' for letter in text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f'{text}…') > width:
        text = text[:-1]
    return f'{text}…'


def rows_of(
    shapes: Sequence[tuple[int, int]], width: int, height: float, across: int | None = None
) -> list[tuple[list[int], float]]:
    """Which images stand side by side, so that each row is as wide as the page and none of it is left empty.

    Args:
        shapes: (height, width) of the images.
        width: of the page in pixels.
        height: of a row at most; where the images of the last row are too few for it, the row is not as wide.
        across: images of a row; None: as many as it takes for the height.

    Returns:
        (numbers of its images, their height) of each row.
    """
    rows: list[tuple[list[int], float]] = []
    row: list[int] = []
    for number in range(len(shapes)):
        row.append(number)
        fitting = (width - GAP * (len(row) - 1)) / sum(shapes[index][1] / shapes[index][0] for index in row)
        full = fitting <= height if across is None else len(row) == across
        if full or number == len(shapes) - 1:
            rows.append((row, max(min(fitting, height), 1)))
            row = []
    return rows


def save_page(
    tiles: Sequence[Tile],
    file: Path,
    *,
    title: str = '',
    legend: Sequence[tuple[str, Colour]] = (),
    width: int = PAGE_WIDTH,
    height: float = ROW_HEIGHT,
    across: int | None = None,
) -> None:
    """Write a page of images in rows.

    Args:
        tiles: from left to right, from top to bottom.
        file: where to.
        title: above them.
        legend: (words, their colour) under the title.
        width: of the page in pixels.
        height: of one row at most.
        across: images of a row; None: as many as it takes for the height.
    """
    if not tiles:
        title, legend, width = 'no pictures', (), 480
    caption = CAPTION if any(tile.caption for tile in tiles) else 0
    places, top = [], HEADER * (bool(title) + bool(legend))
    for row, high in rows_of([tile.image.shape[:2] for tile in tiles], width, height, across):
        left = 0
        for index in row:
            tile = tiles[index]
            image = tile.drawn(high / tile.image.shape[0])[:, : width - left]
            places.append((left, top + caption, image, tile.caption))
            left += image.shape[1] + GAP
        top += round(high) + caption + GAP
    page = Image.new('RGB', (width, max(top - GAP, 160 if not tiles else 1)), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((4, HEADER / 2), _shortened(title, width - 8), INK, _font(LETTERS), 'lm')
    _draw_legend(draw, legend, HEADER * 1.5 if title else HEADER / 2)
    for left, under, image, text in places:
        page.paste(Image.fromarray(image), (left, under))
        draw.text((left + 2, under - CAPTION / 2), _shortened(text, image.shape[1] - 4), INK, _font(LETTERS), 'lm')
    save_image(np.asarray(page), file)


def _draw_legend(draw: ImageDraw.ImageDraw, legend: Sequence[tuple[str, Colour]], middle: float) -> None:
    """A line of coloured squares with their words, its middle at this height."""
    left, side = 4.0, LETTERS * 0.8
    for text, color in legend:
        draw.rectangle((left, middle - side / 2, left + side, middle + side / 2), color)
        draw.text((left + side + 6, middle), text, INK, _font(LETTERS), 'lm')
        left += side + 6 + _font(LETTERS).getlength(text) + 28


def plot_batch(batch: Batch, file: Path, names: Names = None) -> None:
    """A batch as the network sees it, with its labels as they lie and, hatched, its don't-care regions.

    Args:
        batch: not empty.
        file: where to.
        names: class names, written if there are several.
    """
    tiles = [_tile(batch, number, names) for number in range(len(batch.images))]
    across = int(np.ceil(np.sqrt(len(tiles))))
    high, wide = batch.images.shape[2:]
    width = min(across * (wide + GAP) - GAP, PAGE_WIDTH)
    save_page(tiles, file, width=width, height=high, across=across)


def plot_preview(batch: Batch, file: Path, names: Names = None) -> None:
    """Pictures that were not augmented, without the grey around them, with their labels, regions and file names."""
    tiles = []
    for number, (path, place) in enumerate(zip(batch.paths, batch.letterboxes, strict=True)):
        tile = _tile(batch, number, names)
        corner = np.array([round(place.pad_x), round(place.pad_y)])
        height, width = batch.shapes[number]
        end = corner + np.round([width * place.scale_x, height * place.scale_y]).astype(int)
        tile.image = tile.image[corner[1] : end[1], corner[0] : end[0]]
        tile.marks = [(quads - corner, color, text) for quads, color, text in tile.marks]
        tile.hatched, tile.caption = tile.hatched - corner, Path(path).name
        tiles.append(tile)
    save_page(tiles, file, legend=[*_classes(names), (DONT_CARE, DONT_CARE_COLOR)], height=PREVIEW_HEIGHT)


def _classes(names: Names) -> list[tuple[str, Colour]]:
    """The classes and their colours."""
    count = len(names) if names is not None else 1
    return [(class_name(names, number), PALETTE[number % len(PALETTE)]) for number in range(min(count, len(PALETTE)))]


def _tile(batch: Batch, number: int, names: Names) -> Tile:
    """An image of a batch with its labels, each class in its colour and, if there are several, with its name."""
    image = np.ascontiguousarray(batch.images[number].numpy().transpose(1, 2, 0))
    size = np.array(image.shape[1::-1])
    mine = np.flatnonzero(batch.targets[:, 0].numpy() == number)
    classes = batch.targets[:, 1].numpy().astype(int)
    marks = []
    for category in np.unique(classes[mine]):
        # (n, 4, 2): the rectangle around a polygon of more corners
        quads = [quad_of(batch.polygons[index] * size) for index in mine if classes[index] == category]
        marks.append((np.array(quads), PALETTE[category % len(PALETTE)], _label(names, category)))
    regions = xywh_to_xyxy(batch.ignore[batch.ignore[:, 0] == number, 2:])
    return Tile(image, marks, corners_of(regions.numpy()) * size)


def _label(names: Names, category: int | None) -> str:
    """What is written at a word: the name of its class where there are several."""
    return class_name(names, category) if category is not None and names is not None and len(names) > 1 else ''


def plot_predictions(
    images: Sequence[np.ndarray],
    verdicts: Sequence[Verdict],
    captions: Sequence[str],
    file: Path,
    names: Names = None,
    title: str = '',
) -> None:
    """What was found in pictures: right, wrong, missed and don't-care in colours, with their counts in all of them.

    Args:
        images: list of (H, W, 3) RGB uint8.
        verdicts: of each, in its pixels.
        captions: of each; its verdict's counts follow.
        file: where to.
        names: class names, written if there are several.
        title: above all.
    """
    tiles = [
        _judged(image, verdict, caption, names)
        for image, verdict, caption in zip(images, verdicts, captions, strict=True)
    ]
    total = _total(verdicts)
    save_page(tiles, file, title=title, legend=[(f'{total[kind]} {kind}', VERDICT_COLORS[kind]) for kind in total])


def plot_side_by_side(
    images: Sequence[np.ndarray],
    verdicts: Mapping[str, Sequence[Verdict]],
    file: Path,
    title: str = '',
) -> None:
    """What several models found in the same pictures: a column for each model.

    Args:
        images: list of (H, W, 3) RGB uint8.
        verdicts: of each image, by the model's name.
        file: where to.
        title: above all.
    """
    tiles = [
        _judged(image, judged[number], model)
        for number, image in enumerate(images)
        for model, judged in verdicts.items()
    ]
    legend = list(VERDICT_COLORS.items())
    save_page(tiles, file, title=title, legend=legend, height=PAGE_WIDTH, across=len(verdicts))


def _judged(image: np.ndarray, verdict: Verdict, caption: str, names: Names = None) -> Tile:
    """An image with its verdict, which is also counted in the caption."""
    marks = [(quads, VERDICT_COLORS[kind], _label(names, category)) for kind, quads, category in verdict.marks]
    return Tile(image, marks, verdict.regions, f'{caption}: {_in_words(verdict.counts())}')


def _total(verdicts: Sequence[Verdict]) -> dict[str, int]:
    return {kind: sum(verdict.counts()[kind] for verdict in verdicts) for kind in VERDICT_COLORS}


def _in_words(counts: Mapping[str, int]) -> str:
    return ', '.join(f'{count} {name}' for name, count in counts.items() if count) or 'no text, and none found'
