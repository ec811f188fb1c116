"""Reading images for training: their sizes and their pixels."""

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from models.errors import UserError
from utils.detection.sources import Unreadable, read_image, unfit

SUFFIXES = {'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'}
FILE_ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xae\x42\x60\x82'}  # what a complete file ends with
JPEG_START = b'\xff\xd8'
EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height


def probe_image(file: Path) -> tuple[int, int]:
    """(width, height) of a picture as OpenCV will show it (EXIF orientation applied), mostly without decoding it.

    Raises:
        OSError: the file is missing, is no picture, or is cut short.
        Exception: what else a decoder makes of a broken file.
    """
    if file.exists() and (problem := unfit(file)):
        raise OSError(problem)
    with Image.open(file) as image:
        width, height = image.size
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        with open(file, 'rb') as stream:
            stream.seek(-min(16, os.path.getsize(file)), os.SEEK_END)
            complete = stream.read().endswith(FILE_ENDS.get(image.format, b'none'))
        if not complete:
            image.load()  # decodes all of it, and raises if data is missing
        if orientation != 1 and image.format != 'JPEG':
            height, width = _decode(file).shape[:2]
        elif orientation in SIDEWAYS:
            width, height = height, width
    return width, height


def _decode(file: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, EXIF orientation applied; OSError or Unreadable if the file is missing or no picture."""
    content = np.fromfile(file, np.uint8)
    if content[:2].tobytes() != JPEG_START:
        return read_image(file)  # as detect.py reads it: any depth, and what is transparent is white
    image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    if image is None:
        raise OSError('not a picture that OpenCV can decode')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def load_image(file: Path | str) -> np.ndarray:
    """(H, W, 3) uint8 RGB, EXIF orientation applied.

    Raises:
        UserError: the file is missing or no picture.
    """
    try:
        return _decode(Path(file))
    except (OSError, cv2.error, Unreadable) as error:
        raise UserError(f'{file}: the picture cannot be read ({error})') from None
