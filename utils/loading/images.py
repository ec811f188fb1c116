"""The runtime's reader of images with OpenCV behind it: 16-bit colours, formats that Pillow does not know, fast JPEGs.

Needs no torch.
"""

import contextlib
import io
import logging
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from tqdm import tqdm

from models.errors import UserError
from ocrdistill import images
from ocrdistill.errors import Unreadable

SAMPLES = 277  # tag of a TIFF: numbers a pixel


class _AboveBars(logging.Handler):
    """Warnings on lines of their own, whatever progress is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(f'warning: {record.getMessage()}', file=sys.stderr)


images.LOG.addHandler(_AboveBars())
images.LOG.propagate = False


def read_image(path: Path, page: int | None = None) -> np.ndarray:
    """As ocrdistill.images.read_image: (H, W, 3) uint8 RGB, upright. Raises Unreadable."""
    return images.read_image(path, page, decode_with_opencv)


def load_image(file: Path | str) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright. Raises UserError: the file is missing or no image."""
    try:
        return read_image(Path(file))
    except Unreadable as error:
        raise UserError(f'{file}: the picture cannot be read ({error})') from None


def probe_image(file: Path) -> tuple[int, int]:
    """(width, height) of an image as read_image gives it; a JPEG is not decoded.

    Raises:
        Unreadable: the file is missing, is no image, or is broken; a JPEG: is cut short.
    """
    if problem := images.unfit(file):
        raise Unreadable(problem)
    try:
        with images.open_image(file) as image:
            if image.format == 'JPEG' and images.end_of(file).endswith(images.JPEG_END):
                return stored_size(image.size, images.orientation_of(image))
    except Exception:  # noqa: BLE001  whatever is wrong, the reader below names it
        pass
    height, width = read_image(file).shape[:2]
    return width, height


def probe_orientation(file: Path) -> int:
    """1 to 8, as EXIF numbers them: how read_image turns an image; 1, not at all, of what cannot be read."""
    with contextlib.suppress(Exception), images.open_image(file) as image:  # decoders raise what they like
        images.go_to(image)
        return images.orientation_of(image)
    return 1


def stored_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) of the pixels as they are stored, of an upright image's."""
    return size[::-1] if orientation in images.SIDEWAYS else size


def upright_points(points: np.ndarray, orientation: int, stored: tuple[int, int]) -> np.ndarray:
    """Points (n, 2) x, y of an image's pixels as they are stored, (width, height) of them -> of the upright image."""
    width, height = stored
    corners = np.array([[(0, 0), (width, 0)], [(0, height), (width, height)]], float)  # [row][column]
    upright = images.UPRIGHT.get(orientation, np.asarray)(corners)  # which stored corner comes where
    axes = np.stack([upright[0, 1], upright[1, 0]]) - upright[0, 0]
    turned: np.ndarray = (points - upright[0, 0]) @ np.sign(axes).T
    return turned


def decode_with_opencv(file: Path | bytes, page: int, kind: str) -> np.ndarray | None:
    """What an ocrdistill.images.Decode is: (H, W[, 3 or 4]) RGB(A) of whatever type, None if OpenCV cannot read it."""
    try:
        content = np.frombuffer(file, np.uint8) if isinstance(file, bytes) else np.fromfile(file, np.uint8)
        if kind == 'JPEG':  # the same pixels as Pillow's, sooner; of a damaged one what it can read
            return cv2.imdecode(content, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if page:
            pixels = cv2.imdecodemulti(content, cv2.IMREAD_UNCHANGED, range=(page, page + 1))[1][0]
        else:
            pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    except (OSError, IndexError, cv2.error):  # too many pixels, for one
        return None
    if kind == '' and pixels is not None and pixels.ndim == 2 and _samples(content.tobytes()) > 1:
        return None  # 16-bit grey with alpha, of which OpenCV reads the grey alone
    if pixels is not None and pixels.ndim == 3:
        return pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return pixels


def _samples(content: bytes) -> int:
    """Numbers that a pixel of a TIFF's first page has; 1 of other formats."""
    with contextlib.suppress(Exception):  # Pillow raises what it likes at what is no TIFF
        tags = ImageFileDirectory_v2(content[: 16 if content[2] == 43 else 8])  # 43: a BigTIFF, whose header is longer
        stream = io.BytesIO(content)
        stream.seek(tags.next)
        tags.load(stream)
        return int(tags.get(SAMPLES, 1))
    return 1
