"""What a detector takes for an image."""

import os
import re
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from ocrdistill.errors import Unreadable, UserError, first_line
from ocrdistill.images import Decode, pages, read_image, unreadable, upright_rgb

ImageLike: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray
ROUNDING = 1e-3  # by which floats may leave 0..1: resizing by cubic curves takes them that far
TAKEN = (
    "give a path, a file's bytes, a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4), RGB, of uint8 or of floats "
    'from 0 to 1'
)


def to_image(image: Any, decode: Decode | None = None) -> np.ndarray:
    """The pixels of what a user means by an image.

    Args:
        image: a path; the bytes of a file; a PIL image, which is turned upright as its EXIF says; or an array (H, W),
            (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, of uint8 or of floats from 0 to 1.
        decode: reads files that Pillow cannot, see ocrdistill.images.Decode.

    Returns:
        (H, W, 3) uint8 RGB. What is transparent is white.

    Raises:
        UserError: it is something else, has no pixels, or is a file that cannot be read or holds several images.
    """
    if isinstance(image, str) and re.match(r'[A-Za-z][\w+.-]+://', image) and not os.path.exists(image):
        raise UserError(f'{image}: addresses are not read; give the file, or its bytes')
    if isinstance(image, (str, os.PathLike)):
        return _read(Path(image), decode)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _read(bytes(image), decode)
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if not isinstance(image, np.ndarray):
        raise UserError(f'{type(image).__name__} is no image: {TAKEN}')
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise UserError(f'an array {image.shape} is no image: {TAKEN}')
    if not image.size:
        raise UserError(f'an array {image.shape} is an image without pixels')
    if np.issubdtype(image.dtype, np.floating):
        if not (image.min() >= -ROUNDING and image.max() <= 1 + ROUNDING):  # neither holds of nan
            raise UserError(f'an array of {image.dtype} from {image.min():g} to {image.max():g} is no image: {TAKEN}')
        image = (image * 255).round().clip(0, 255).astype(np.uint8)
    if image.dtype != np.uint8:
        raise UserError(f'an array of {image.dtype} is no image: {TAKEN}')
    if image.ndim == 3 and image.shape[2] == 3:
        return image
    if image.ndim == 3 and image.shape[2] == 4:
        return upright_rgb(Image.fromarray(image, 'RGBA'))
    return np.repeat(image.reshape(*image.shape[:2], 1), 3, 2)


def _read(file: Path | bytes, decode: Decode | None) -> np.ndarray:
    name = f'a file of {len(file)} bytes' if isinstance(file, bytes) else file
    try:
        numbers = pages(file)
        if len(numbers) > 1:
            more = 'give what ocrdistill.images.read_image(file, page) gives, pages from 0'
            raise UserError(f'{name} holds {len(numbers)} images: {more}')
        return read_image(file, numbers[0], decode)
    except Unreadable as error:
        raise UserError(f'{name}: the picture cannot be read ({error})') from None


def _from_pil(image: Image.Image) -> np.ndarray:
    if 0 in image.size:
        raise UserError('an image without pixels')
    try:
        with unreadable():  # files that are read late, or were closed
            return upright_rgb(image)
    except Unreadable as error:
        raise UserError(f'an image that cannot be read ({first_line(error)})') from None
