"""CRAFT's maps of pictures and the words in them. Maps are kept on disk: computed once, they serve to label pictures
(teacher/label.py) and to teach (method `maps`).

A file of maps is named by the SHA-256 of its picture's file, so copies, links and other names of a picture find it. It
is a grey PNG that any viewer shows: the region map above, the affinity map below, 0 to 1 as 0 to 255.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from models.errors import UserError
from ocrdistill.quads import ordered
from utils.distillation.craft_network import CRAFT, load_weights
from utils.loading.augment import resize_long_side, resized_shape
from utils.loading.files import file_sha256
from utils.loading.images import probe_image, read_image
from utils.runtime.device import network_dtype, select_device
from utils.runtime.run_folder import write_bytes

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB, 0..1
MULTIPLE = 32  # of a side of the network's input
WORD = 0.7  # a word's letters reach this region score
LETTER, LINK = 0.4, 0.4  # region and affinity from which a pixel belongs to a word
LEAST_PIXELS = 10  # of the maps; less is no word
SQUARE = 0.1  # sides of a rectangle that differ less say nothing of its angle
CANVAS = 1280  # longer side of the pictures that CRAFT sees, in pixels
STRIDE = 2  # of its maps


class MapCache:
    """Maps by picture.

    Args:
        folder: where they lie; of pictures that CRAFT saw at one size.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)

    def file(self, image: Path | str) -> Path:
        """Where the maps of a picture are, or will be. Raises UserError: the picture cannot be read."""
        return self.folder / f'{_digest(str(image))}.png'

    def has(self, image: Path | str) -> bool:
        """Whether there are maps of a picture."""
        return self.file(image).is_file()

    def read(self, image: Path | str) -> np.ndarray:
        """(2, h, w) uint8 region and affinity. Raises UserError: there are none, or the file is no such thing."""
        file = self.file(image)
        if not file.is_file():
            raise UserError(f'{image}: there are no maps of CRAFT in {self.folder} (python teacher/craft.py --help)')
        both = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_GRAYSCALE)
        if both is None or both.shape[0] % 2:
            raise UserError(f'{file}: no maps of CRAFT; remove the file')
        return both.reshape(2, both.shape[0] // 2, both.shape[1])

    def write(self, image: Path | str, maps: np.ndarray) -> None:
        """Keep maps (2, h, w) uint8 of a picture."""
        content = cv2.imencode('.png', maps.reshape(-1, maps.shape[2]))[1]
        write_bytes(self.file(image), content.tobytes())


@cache
def _digest(image: str) -> str:
    try:
        return file_sha256(image)
    except OSError as error:
        raise UserError(f'{image}: the picture cannot be read ({error.strerror})') from None


class Words(NamedTuple):
    """Words of a picture.

    Attributes:
        quads: (n, 4, 2) float64 x, y in its pixels, clockwise.
        scores: (n,) 0..1.
        classes: (n,) int.
    """

    quads: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


class CraftDetector:
    """CRAFT with all that turns a picture into words. Pictures whose maps are in the cache need no network.

    Args:
        weights: file of the network; it is read when a picture has no maps yet.
        device: see select_device.
        cache: folder of the maps, which lie in a folder of the size below it.
        canvas: longer side in pixels to which pictures are brought.
    """

    def __init__(self, weights: Path | str, device: str, cache: Path | str, canvas: int = CANVAS):
        self.weights, self.canvas = weights, canvas
        self.device = select_device(device)
        self.dtype = network_dtype(self.device, amp=True)
        self.cache = MapCache(Path(cache) / str(canvas))
        self.network: CRAFT | None = None

    def maps(self, file: Path) -> np.ndarray:
        """(2, h, w) uint8 region and affinity of a picture, 0..1 as 0..255, from the cache or computed and kept there.

        Raises:
            UserError: the weights cannot be read, or the file of maps.
            Unreadable: the picture cannot be read.
        """
        if self.cache.has(file):
            return self.cache.read(file)
        maps = self.compute(read_image(file))
        self.cache.write(file, maps)
        return maps

    @torch.inference_mode()
    def compute(self, image: np.ndarray) -> np.ndarray:
        """The same of pixels (H, W, 3) uint8 RGB."""
        if self.network is None:
            network = load_weights(self.weights)
            self.network = network.to(self.device, self.dtype).to(memory_format=torch.channels_last)
        image = resize_long_side(image, self.canvas)
        height, width = image.shape[:2]
        padded = cv2.copyMakeBorder(image, 0, -height % MULTIPLE, 0, -width % MULTIPLE, cv2.BORDER_CONSTANT)
        pixels = torch.from_numpy(padded).to(self.device).permute(2, 0, 1)[None] / 255  # (1, 3, H, W), channels last
        mean, deviation = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        found = self.network(((pixels - mean) / deviation).to(self.dtype))[0].float()
        found = found[:, : -(-height // STRIDE), : -(-width // STRIDE)]
        return (found.clamp(0, 1) * 255).round().byte().cpu().numpy()

    def words(self, file: Path) -> Words:
        """The words of a picture, all that the maps show; those with a score over WORD are CRAFT's own answer."""
        size = probe_image(file)  # first: it says so where the picture cannot be read
        return self.words_in(self.maps(file), size)

    def words_in(self, maps: np.ndarray, size: tuple[int, int]) -> Words:
        """The same of the maps of a picture of size (width, height)."""
        found = words_of(maps)
        quads = found.quads * STRIDE * (np.array(size) / resized_shape(*size, self.canvas))
        return found._replace(quads=quads.clip(0, size))


def words_of(maps: np.ndarray) -> Words:
    """Words of maps (2, h, w) uint8, in pixels of the maps, whose scores are their highest region scores.

    Section 3.3 of the paper: pixels of letters or of links that touch are a word, the smallest rectangle around it is
    its quad. The published maps show letters smaller than they are, so that what is found grows with its size first;
    by how much is not in the paper but in the authors' code (github.com/clovaai/CRAFT-pytorch, MIT), as are the least
    size and the upright boxes of squares.
    """
    region, affinity = maps / np.float32(255)
    letters, links = region > LETTER, affinity > LINK
    _, labels, stats, _ = cv2.connectedComponentsWithStats((letters | links).astype(np.uint8), connectivity=4)
    quads, scores = [], []
    for number, (x, y, width, height, pixels) in enumerate(stats.tolist()):
        if number == 0 or pixels < LEAST_PIXELS:  # 0 is the background
            continue
        window = np.s_[y : y + height, x : x + width]
        own = labels[window] == number
        # What links alone show is only what lies between two letters.
        shape = own & (letters[window] | ~links[window])
        if not shape.any():
            continue
        grow = int(2 * np.sqrt(pixels * min(width, height) / (width * height)))
        quads.append(rectangle(grown(shape, grow)) + (x - grow, y - grow))
        scores.append(region[window][own].max())
    corners = np.array(quads, np.float64).reshape(-1, 4, 2)
    return Words(ordered(corners), np.array(scores, np.float32), np.zeros(len(scores), int))


def grown(shape: np.ndarray, by: int) -> np.ndarray:
    """(h, w) bool -> (h + 2 by, w + 2 by) uint8, dilated by a square of by + 1 pixels."""
    return cv2.dilate(np.pad(shape, by).astype(np.uint8), np.ones((by + 1, by + 1), np.uint8))


def rectangle(shape: np.ndarray) -> np.ndarray:
    """(4, 2) corners of the smallest rectangle around the pixels of a shape (h, w), upright where it is square."""
    points = np.argwhere(shape)[:, ::-1].astype(np.float32)
    rotated = cv2.minAreaRect(points)
    sides = sorted(rotated[1])
    if sides[1] / max(sides[0], 1e-5) - 1 <= SQUARE:
        (left, top), (right, bottom) = points.min(0), points.max(0)
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    return cv2.boxPoints(rotated)
