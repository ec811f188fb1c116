"""Reading images: one reader, and one idea of which way is up, for all commands. Pillow alone."""

import contextlib
import io
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from ocrdistill.errors import Unreadable
from ocrdistill.files import HAS_HEIF, HEIF_HINT

LOG = logging.getLogger('ocrdistill')

if HAS_HEIF:
    import pillow_heif

    pillow_heif.register_heif_opener()

# What is read: no EPS, which is a program that Ghostscript would run. The first five need no further module of Pillow.
FORMATS = (
    *('JPEG', 'PNG', 'BMP', 'GIF', 'PPM'),
    *('TIFF', 'WEBP', 'AVIF', 'JPEG2000', 'DIB', 'ICO', 'ICNS', 'PCX', 'PSD', 'SGI', 'DDS', 'QOI', 'XBM'),
    *(('HEIF',) if HAS_HEIF else ()),
    'TGA',  # last, as it takes nearly anything for its own
)
MAX_BYTES = 1 << 30  # of an image's file
JPEG_END = b'\xff\xd9'  # what a complete file ends with
HEIF_START = re.compile(rb'....ftyp(?:heic|heix|hevc|heim|heis|mif1|msf1)', re.DOTALL)
PAGED = ('TIFF', 'GIF', 'WEBP', 'PNG', 'AVIF', 'HEIF')  # formats of which a file may hold several images of one kind
MAX_PAGES = 10_000
THUMBNAIL = 1  # bit of a TIFF page's NewSubfileType
ORIENTATION, SUBFILE_TYPE, BITS, PHOTOMETRIC = 0x0112, 254, 258, 262  # tags
XMP_ORIENTATION = re.compile(rb'tiff:Orientation\s*(?:=\s*["\']|>)\s*([1-8])')
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
DEEP_BITS = 14  # 16-bit images whose values need no more bits are stretched: they would look black

# What another library reads of a file or its bytes: pixels (H, W[, 3 or 4]), RGB(A), or None. It is asked for 16-bit
# colours ('deep'), of which Pillow drops the lower half, formats unknown to Pillow (''), and whole JPEGs ('JPEG').
Decode = Callable[[Path | bytes, int, str], 'np.ndarray | None']

_said: set[str] = set()


def open_image(file: str | Path | bytes | IO[bytes]) -> ImageFile:
    """Pillow's Image.open, for FORMATS alone. The format goes by what the file holds, whatever its name says."""
    image = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS)
    image.filename = (
        ''  # a TIFF that has a name is mapped into memory, where those that lie on their side are scrambled
    )
    return image


def read_image(file: str | Path | bytes, page: int | None = None, decode: Decode | None = None) -> np.ndarray:
    """Read an image of any colour mode and depth, upright as its EXIF says, or else its XMP.

    Args:
        file: a path, or the bytes of a file.
        page: of a file of several images, one of `pages(file)`, which begin with 0; None: the first of them.
        decode: reads what Pillow cannot, see Decode.

    Returns:
        (H, W, 3) uint8 RGB. What is transparent is white, as viewers show it. 16 bits become 8; where the values need
        14 bits or less (12-bit cameras and scanners) these are stretched, and a line says so, once a process. Without
        `decode` that is so of grey only: of 16-bit colours Pillow gives the upper eight bits.

    Raises:
        Unreadable: the file is missing, broken or of an unknown format, or of dark 16-bit colours without `decode`.
    """
    file = file if isinstance(file, bytes) else Path(file)
    if problem := unfit(file):
        raise Unreadable(problem)
    with unreadable():
        try:
            with open_image(file) as image:
                return _pixels(image, file, go_to(image, page), decode)
        except UnidentifiedImageError:
            if decode is None or (pixels := decode(file, page or 0, '')) is None:
                raise Unreadable(_unknown(file)) from None
            return _to_rgb(pixels, _name(file))


def read_all(path: Path, decode: Decode | None = None) -> Iterator[tuple[int, np.ndarray | Unreadable]]:
    """The images in a file: each number of `pages(path)`, with the pixels as read_image gives them, or why not.

    The file stays open: a frame of an animation is made from those before it, and would need all of them anew.

    Raises:
        Unreadable: as pages.
    """
    numbers = pages(path)
    if len(numbers) == 1:  # also of a format that Pillow does not know
        try:
            yield numbers[0], read_image(path, numbers[0], decode)
        except Unreadable as error:
            yield numbers[0], error
        return
    if numbers[-1] == MAX_PAGES - 1:
        LOG.warning('%s: pages after the first %d are not read', path, MAX_PAGES)
    with open_image(path) as image:
        for number in numbers:
            found: np.ndarray | Unreadable
            try:
                with unreadable():
                    image.seek(number)
                    found = _pixels(image, path, number, decode)
            except Unreadable as error:
                found = error
            yield number, found


@contextlib.contextmanager
def unreadable() -> Iterator[None]:
    """Whatever is raised inside becomes Unreadable: decoders raise what they like at a broken file."""
    try:
        yield
    except Unreadable:
        raise
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None
    except Exception as error:
        raise _broken(error) from None


def _broken(error: Exception) -> Unreadable:
    """Of what a decoder raises."""
    if isinstance(error, MemoryError):
        return Unreadable('there is not enough memory for it')
    if isinstance(error, Image.DecompressionBombError):
        return Unreadable(f'more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels: make it smaller')
    return Unreadable(f'broken image: {error}')


def upright_rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a PIL image, by the rules of read_image. Raises Unreadable."""
    deep = is_deep(image)  # before it is decoded
    name = getattr(image, 'filename', '') or ''
    if image.format == 'TIFF':
        image.filename = ''  # type: ignore[attr-defined]  # as in open_image
    try:
        pixels, orientation = _decoded(image, deep)
    finally:
        if image.format == 'TIFF':
            image.filename = name  # type: ignore[attr-defined]
    pixels = _to_rgb(pixels, _name(Path(os.fsdecode(name))))
    return np.ascontiguousarray(UPRIGHT.get(orientation, np.asarray)(pixels))


def pages(file: str | Path | bytes) -> list[int]:
    """Numbers of the images in a file: [0] of most; all pages of a TIFF but thumbnails, all frames of an animation.

    Args:
        file: a path, or the bytes of a file.

    Raises:
        Unreadable: the file is missing, broken or of an unknown format.
    """
    file = file if isinstance(file, bytes) else Path(file)
    if problem := unfit(file):
        raise Unreadable(problem)
    with unreadable():
        try:
            with open_image(file) as image:
                return pages_of(image)
        except UnidentifiedImageError:
            return [0]


def pages_of(image: Image.Image) -> list[int]:
    """`pages` of an image that Pillow has opened; of a TIFF it is at its last page then. MAX_PAGES at most. Behind a
    broken page of a TIFF none can be found: it is the last."""
    if image.format != 'TIFF':
        return list(range(min(getattr(image, 'n_frames', 1), MAX_PAGES) if image.format in PAGED else 1))
    found = []
    for number in range(MAX_PAGES):  # n_frames would count all that a file claims to have
        try:
            image.seek(number)
        except EOFError:  # after its last page
            break
        except Exception:  # Pillow raises what it likes at a broken one
            found.append(number)
            break
        if not image.tag_v2.get(SUBFILE_TYPE, 0) & THUMBNAIL:  # type: ignore[attr-defined]
            found.append(number)
    return found or [0]


def go_to(image: Image.Image, page: int | None = None) -> int:
    """Go to a page of an image that Pillow has opened, None: the first of `pages_of`. Returns its number."""
    if page is None:
        page = pages_of(image)[0] if image.format == 'TIFF' else 0
    if page or image.format == 'TIFF':
        image.seek(page)
    return page


def unfit(file: Path | bytes) -> str:
    """Why a file is not even opened; '' if it is: a device or pipe never ends, and a huge one takes all memory."""
    if isinstance(file, bytes):
        return '' if file else 'no bytes'
    try:
        status = file.stat()
    except (OSError, ValueError) as error:  # ValueError of a name that no file can have
        return getattr(error, 'strerror', None) or str(error)
    if not stat.S_ISREG(status.st_mode):
        return 'no file'
    if not status.st_size:
        return 'an empty file'
    return f'larger than {MAX_BYTES >> 30} GiB' if status.st_size > MAX_BYTES else ''


def orientation_of(image: Image.Image) -> int:
    """1 to 8: what EXIF says, or else XMP; 1 where neither says anything that is known."""
    if known := _known_to_pillow(image):
        return known
    xmp = image.info.get('XML:com.adobe.xmp') or image.info.get('xmp') or b''
    match = XMP_ORIENTATION.search(xmp.encode() if isinstance(xmp, str) else xmp)
    return int(match[1]) if match else 1


def _known_to_pillow(image: Image.Image) -> int:
    """1 to 8: what EXIF says, or XMP in a form that Pillow knows; 0 for nothing."""
    value: Any = None
    with contextlib.suppress(Exception):  # a broken EXIF spoils no pixels, and Pillow raises what it likes at it
        value = image.getexif().get(ORIENTATION)
    return int(value) if value in range(1, 9) else 0


def _decoded(image: Image.Image, deep: bool) -> tuple[np.ndarray, int]:
    """What Pillow decodes, and the orientation that is left: it turns a TIFF itself, as far as it knows."""
    turned = image.format == 'TIFF' and _known_to_pillow(image)  # asked before it forgets
    image.load()
    return _values(image, deep), 1 if turned else orientation_of(image)


def _pixels(image: Image.Image, file: Path | bytes, page: int, decode: Decode | None) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright, of an open image."""
    deep = is_deep(image)  # before the orientation, for which Pillow decodes a PNG
    pixels = None
    if deep and decode:
        pixels = decode(file, page, 'deep')
        if pixels is not None and pixels.ndim == 3 and not image.has_transparency_data:
            pixels = pixels[..., :3]  # the fourth channel of a TIFF may be anything
    elif decode and image.format == 'JPEG' and image.mode in ('L', 'RGB') and end_of(file).endswith(JPEG_END):
        pixels = decode(file, page, 'JPEG')
    if pixels is None:
        pixels, orientation = _decoded(image, deep)
    elif image.format == 'TIFF' and image.tag_v2.get(ORIENTATION) in range(1, 9):  # type: ignore[attr-defined]
        orientation = 1  # OpenCV has turned it; XMP it does not know
    else:
        orientation = orientation_of(image)
    upright = UPRIGHT.get(orientation, np.asarray)(_to_rgb(pixels, _name(file)))
    return np.ascontiguousarray(upright)


def is_deep(image: Image.Image) -> bool:
    """Whether Pillow would drop the lower half of 16-bit colours."""
    raw = str([tile[3] for tile in getattr(image, 'tile', ())])  # what was made in memory has none
    deep = (';16' in raw and 'BGR;16' not in raw) or (image.format == 'PPM' and '65535' in raw)  # BGR;16: 5, 6, 5 bits
    return not image.mode.startswith('I') and deep


def _values(image: Image.Image, deep: bool) -> np.ndarray:
    """Pixels as numbers: (H, W) uint16 or float64, (H, W, 4) uint16 RGBA, or (H, W, 3 or 4) uint8 RGB(A).

    Of 16-bit colours (`deep`) Pillow gives the upper eight bits. Raises Unreadable: they hold next to nothing.
    """
    if image.mode.startswith('I;16') or (image.mode == 'I' and image.format == 'PPM'):
        values = np.asarray(image).astype(np.uint16)
        tags = image.tag_v2 if image.format == 'TIFF' else {}  # type: ignore[attr-defined]
        if tags.get(PHOTOMETRIC) == 0:  # 0 is white: Pillow turns such values round with 8 bits, but not with more
            return ((1 << tags[BITS][0]) - 1 - values).astype(np.uint16)
        if isinstance(clear := image.info.get('transparency'), int):  # of a PNG: the value that shows what is behind
            shown = values != clear
            return np.stack([values * shown] * 3 + [shown * np.uint16(65535)], 2)
        return values
    if image.mode in ('I', 'F'):
        return np.asarray(image, np.float64)
    pixels = np.asarray(image.convert('RGBA' if image.has_transparency_data else 'RGB'))
    if deep and pixels[..., :3].max(initial=0) < 1 << (DEEP_BITS - 8) and not _black_on_nothing(pixels):
        raise Unreadable('dark colours of 16 bits, of which Pillow reads the upper 8 only: save it with 8 bits')
    return pixels


def _black_on_nothing(pixels: np.ndarray) -> bool:
    """Whether (H, W, 3 or 4) RGB(A) is a black drawing on transparent ground, which becomes white: not dark at all."""
    seen = pixels[..., 3:] > 0
    return bool(seen.size and not seen.all() and not (pixels[..., :3] * seen).any())


def _name(file: Path | bytes) -> str:
    """In what is told."""
    return (file.name if isinstance(file, Path) else '') or 'an image'


def _unknown(file: Path | bytes) -> str:
    """What is told of content that Pillow does not know."""
    if isinstance(file, bytes):
        start = file[:16]
    else:
        with open(file, 'rb') as stream:
            start = stream.read(16)
    return HEIF_HINT if HEIF_START.match(start) else 'no image, or of an unknown format'


def _to_rgb(values: np.ndarray, name: str) -> np.ndarray:
    """(H, W[, 1, 3 or 4]) of any type -> (H, W, 3) uint8 on white."""
    if values.dtype == np.uint16:
        values = _eight_bits(values, name)
    elif values.dtype != np.uint8:
        values = values.astype(np.float64)  # no range of values is agreed: take the image's own
        finite = np.isfinite(values)
        low, high = values.min(where=finite, initial=np.inf), values.max(where=finite, initial=-np.inf)
        low, high = (low, high) if low <= high else (0.0, 0.0)  # no value is a number
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
        values = ((values - low) * (255 / max(high - low, 1e-12))).round().astype(np.uint8)
    if values.ndim == 2 or values.shape[2] == 1:
        values = np.repeat(values.reshape(*values.shape[:2], 1), 3, 2)
    if values.shape[2] == 4:
        image = Image.fromarray(np.ascontiguousarray(values), 'RGBA')
        values = np.array(Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB'))
    return values


def _eight_bits(values: np.ndarray, name: str) -> np.ndarray:
    """uint16 -> uint8. Of values that need DEEP_BITS or less, the bits that are needed count; alpha is not one."""
    colours = values[..., :3] if values.ndim == 3 else values
    bits = int(colours.max(initial=0)).bit_length()
    white = 65535
    if 0 < bits <= DEEP_BITS:
        white = (1 << max(bits, 8)) - 1
        if 'bits' not in _said:
            _said.add('bits')
            told = '%s: its values need %d of 16 bits, they are stretched (others like it are too)'
            LOG.warning(told, name, bits)
    eight = (np.minimum(values, white).astype(np.float32) * (255 / white)).round().astype(np.uint8)
    if values.ndim == 3 and values.shape[2] == 4:
        eight[..., 3] = (values[..., 3] / 257).round().astype(np.uint8)
    return eight


def end_of(file: Path | bytes) -> bytes:
    """The last bytes of a file, which tell whether it is all there."""
    if isinstance(file, bytes):
        return file[-16:]
    with open(file, 'rb') as stream:
        stream.seek(-min(16, os.path.getsize(file)), os.SEEK_END)
        return stream.read()
