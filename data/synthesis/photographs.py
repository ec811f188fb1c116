"""Photographs as backgrounds of rendered text: parts of them, and where they have text of their own."""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from models.errors import UserError
from ocrdistill.files import walk
from ocrdistill.images import UPRIGHT, open_image, orientation_of
from utils.loading.files import is_image
from utils.loading.images import load_image
from utils.loading.labels import find_companion, read_label_file
from utils.loading.listing import image_of_row
from utils.loading.rows import read_list

MAX_PIXELS = 100_000_000
MIN_CROP = 0.4  # of the largest part of a photograph that has the picture's form


@lru_cache(4)
def find_photographs(folders: tuple[str, ...]) -> list[str]:
    """Paths of all photographs in the folders and the list files (*.txt), sorted within each. Raises UserError."""
    found = []
    for place in map(Path, folders):
        if place.is_file() and place.suffix.lower() == '.txt':
            files = [str(image_of_row(row, [place.parent])) for row in read_list(place)]
        else:
            files = sorted(str(file) for file in walk(place) if is_image(file)) if place.is_dir() else []
        if not files:
            raise UserError(f'--backgrounds: no photographs in {place}')
        found += files
    return found


def check_photographs(photographs: list[str], size: tuple[int, int]) -> None:
    """Read each and its labels once, so that a broken one does not end the work when it is drawn at last. Raises
    UserError."""
    broken = []
    for file in tqdm(photographs, 'reading photographs', unit='picture', leave=False, disable=None):
        try:
            read_reduced(Path(file), size)
            own_text(Path(file))
        except UserError as error:
            broken.append(str(error))
    if broken:
        raise UserError(f'--backgrounds: {len(broken)} of {len(photographs)} cannot be used, such as {broken[0]}')


def draw_photograph(
    rng: np.random.Generator, photographs: list[str], size: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A part of a random photograph, half of the time mirrored.

    Args:
        size: width, height in pixels.

    Returns:
        (the picture (height, width, 3) float32 BGR 0..255, upright boxes (4, 2) in pixels around the photograph's own
        text, clockwise from the top left, as far as its labels/ and ignore/ files name it).

    Raises:
        UserError: a photograph cannot be read.
    """
    file = Path(photographs[rng.integers(len(photographs))])
    photo = read_reduced(file, size)
    high, wide = photo.shape[:2]
    fraction = rng.uniform(MIN_CROP, 1) * min(wide / size[0], high / size[1])
    crop_w, crop_h = max(int(size[0] * fraction), 1), max(int(size[1] * fraction), 1)
    x, y = int(rng.integers(wide - crop_w + 1)), int(rng.integers(high - crop_h + 1))
    scene = cv2.resize(photo[y : y + crop_h, x : x + crop_w], size, interpolation=cv2.INTER_AREA).astype(np.float32)
    boxes = (own_text(file) * (wide, high, wide, high) - (x, y, x, y)) * np.tile(np.array(size) / (crop_w, crop_h), 2)
    if rng.random() < 0.5:
        scene = np.ascontiguousarray(scene[:, ::-1])
        boxes[:, [0, 2]] = size[0] - boxes[:, [2, 0]]
    boxes = boxes.clip(0, np.tile(np.array(size) - 1, 2))
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf) >= 2]
    return scene, [np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]) for x1, y1, x2, y2 in boxes]


def read_reduced(file: Path, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 BGR; a JPEG is decoded at 1/2 or 1/4 where that is still larger than `size`. Raises UserError."""
    try:
        with open_image(file) as image:
            (wide, high), orientation, form = image.size, orientation_of(image), image.format
        if wide * high > MAX_PIXELS:
            raise UserError(f'{file}: {wide}x{high} pixels are more than {MAX_PIXELS // 10**6} million')
        if form not in ('JPEG', 'MPO'):  # MPO: a JPEG with more pictures behind it
            return np.ascontiguousarray(load_image(file)[..., ::-1])
        spare = min(wide / size[0], high / size[1])
        flag = cv2.IMREAD_COLOR
        for factor, reduced in ((2, cv2.IMREAD_REDUCED_COLOR_2), (4, cv2.IMREAD_REDUCED_COLOR_4)):
            flag = reduced if spare >= factor else flag
        # Not by imread: OpenCV takes no name that is no UTF-8.
        photo = cv2.imdecode(np.fromfile(file, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f'{file}: the photograph cannot be read ({error})') from None
    if photo is None:
        return np.ascontiguousarray(load_image(file)[..., ::-1])
    return np.ascontiguousarray(UPRIGHT.get(orientation, np.asarray)(photo))


def own_text(file: Path) -> np.ndarray:
    """(n, 4) x1, y1, x2, y2, 0..1: boxes of the words and don't-care regions that label files name.

    Raises:
        UserError: none of a file's rows can be used: its text would count as background.
    """
    boxes = [np.zeros((0, 4))]
    for kind in ('labels', 'ignore'):
        companion = find_companion(file, kind)
        if companion is not None:
            labels = read_label_file(companion, nc=1)
            if labels.problem:
                raise UserError(f'{companion}: {labels.problem}')
            boxes.append(labels.annotations.boxes())
    return np.concatenate(boxes)
