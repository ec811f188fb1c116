"""Words of pictures: TextDetector."""

import logging
import math
import operator
import os
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, overload

import numpy as np

from ocrdistill.errors import UserError
from ocrdistill.finder import Finder
from ocrdistill.inputs import ImageLike, to_image
from ocrdistill.metadata import Metadata
from ocrdistill.network import OnnxNetwork, Providers
from ocrdistill.points import MAX_SIDE
from ocrdistill.rows import as_detection, corners_of, in_reading_order, level_crop
from ocrdistill.search import make_find

LOG = logging.getLogger('ocrdistill')
SIZES = {'fast': 640, 'balanced': 960, 'best': 1280}  # pixels of an image's long side
NETWORKS = Path(__file__).parent / 'networks'
INSTALLED = ('n', 's')  # names of networks there
MAX_WORDS, MAX_WORDS_SLICED = 1000, 3000  # of an image; a dense page has some 600
MIN_TILE = 32  # pixels; smaller tiles show no word, and there is no end to them
MAX_THREADS = 1024  # more than any processor has cores; ONNX Runtime fails far above it
CROP_MARGIN = 0.1  # of a word's height: recognisers want some ground around a word


@dataclass(frozen=True, eq=False)
class Word:
    """A word that was found.

    Attributes:
        quad: (4, 2) its corners x, y in pixels of the upright image, clockwise from where reading begins (see rotate).
        box: (4,) x1, y1, x2, y2, the upright box around it.
        score: 0..1.
        line: number of the line of text that it is on, from 0, in reading order.
        category: number of its class; name: that class's name.
        image: (H, W, 3) the whole image.
        text: what it says, where it was read; text_score: how sure that is, 0..1.
    """

    quad: np.ndarray
    box: np.ndarray
    score: float
    line: int
    category: int = 0
    name: str = 'text'
    image: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8), repr=False)
    text: str | None = None
    text_score: float | None = None

    def crop(self, margin: float = CROP_MARGIN) -> np.ndarray:
        """The word made level by perspective, (h, w, 3) uint8, with a margin as a fraction of its height."""
        return level_crop(self.image, self.quad, margin)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as in detections.json."""
        found = as_detection(self.box, self.quad, self.score, self.category, self.name, self.line)
        return found if self.text is None else found | {'text': self.text, 'text_score': self.text_score}


class TextDetector:
    """Finds the words of images. May be called from several threads at once.

    Args:
        model: 'n' (small), or a .onnx file of export.py; 's' (larger) where its file lies beside it (docs/python.md).
        size: 'fast', 'balanced' or 'best', for which the image's long side is 640, 960 or 1,280 pixels; or pixels.
            None: 'balanced', of a .onnx file the size that it was exported for.
        threshold: lowest score, 0..1; None: what was chosen for the size on validation images.
        slice: look at tiles of so many pixels, too, for small words in large images; True: tiles of `size`, of
            a file that takes one oblong size those of its shorter side.
        rotate: find words that are turned by 90, 180 or 270 degrees, too. Which of a word's ends is its beginning only
            reading tells (TextReader): until then it is the left one, or the upper one.
        multiscale: look at 3/4 and 1/2 of the size, too, and score each word by all three: surer with 'best',
            and twice as slow.
        max_words: kept of an image at most; None: 1000, with slices 3000.
        colours: 'RGB' or 'BGR': the order in arrays with three colours. Files and PIL images know theirs.
        threads: of the processor, for one image; None: all cores.
        providers: of ONNX Runtime, e.g. ['CUDAExecutionProvider', 'CPUExecutionProvider'] with onnxruntime-gpu; None:
            the CPU.

    Raises:
        UserError: a value that is none of these, or a file that is no network.
    """

    def __init__(
        self,
        model: str | Path = 'n',
        *,
        size: str | int | None = None,
        threshold: float | None = None,
        slice: int | bool | None = False,
        rotate: bool = False,
        multiscale: bool = False,
        max_words: int | None = None,
        colours: str = 'RGB',
        threads: int | None = None,
        providers: Providers | None = None,
    ):
        self._arguments = {name: value for name, value in locals().items() if name not in ('self', '__class__')}
        if colours not in ('RGB', 'BGR'):
            raise UserError(f"colours: {colours!r}, expected 'RGB' or 'BGR'")
        if threshold is not None and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
            raise UserError(f'threshold: {threshold!r}, expected 0 to 1')
        if slice is not None and not isinstance(slice, bool):
            slice = _whole('slice', slice, MIN_TILE, f'tiles of {MIN_TILE} pixels at least')
        if max_words is not None:
            max_words = _whole('max_words', max_words, 1, '1 or more')
        if threads is not None:
            threads = _whole('threads', threads, 1, f'1 to {MAX_THREADS}', MAX_THREADS)
        network = OnnxNetwork(network_file(model), threads, providers)
        about = network.about
        side = _side(size, about, str(model) in INSTALLED)
        self.names = about.names
        self.threshold = about.point_at(side).threshold if threshold is None else threshold
        self._bgr = colours == 'BGR'
        limit = max_words or (MAX_WORDS_SLICED if slice else MAX_WORDS)
        finder = Finder(network, about, stride=about.stride, imgsz=side, conf_thres=self.threshold, max_det=limit)
        tile = finder.tile if slice is True else slice or None
        if tile and tile < MIN_TILE:
            raise UserError(f'size: {tile}, expected {MIN_TILE} pixels at least with slice')
        self._limit = limit
        self._find = make_find(finder, multiscale=multiscale, tile=tile, rotate=rotate)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and other processes get a detector that opens the network anew."""
        return partial(TextDetector, **self._arguments), ()

    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...], *, name: str = '') -> list[list[Word]]: ...
    @overload
    def __call__(self, images: ImageLike, *, name: str = '') -> list[Word]: ...
    def __call__(self, images: Any, *, name: str = '') -> Any:
        """The words of an image, or of each of a list of them, in reading order.

        Args:
            images: a path, the bytes of a file, a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4) of uint8 or of
                floats from 0 to 1; or a list of these.
            name: what a warning calls the image; '': its path, if it has one.

        Returns:
            A list of Word; of a list a list of such lists.

        Raises:
            UserError: it is no image, or the network cannot be computed.
        """
        if isinstance(images, (list, tuple)):
            return [self(image, name=name) for image in images]
        if self._bgr and isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[2] in (3, 4):
            images = np.ascontiguousarray(images[..., [2, 1, 0, 3][: images.shape[2]]])
        image = to_image(images)
        if image is images:
            image = image.copy()  # a caller may fill one array with frame after frame, and words keep their image
        (found,) = self._find([image])
        if len(found) >= self._limit:
            name = name or (os.fspath(images) if isinstance(images, (str, os.PathLike)) else 'an image')
            LOG.warning('%s: as many words as max_words, %d, allows: there may be others', name, self._limit)
        rows, lines = in_reading_order(found)
        return [
            Word(quad, row[:4], round(float(row[4]), 5), int(line), int(row[5]), self.names[int(row[5])], image)
            for row, quad, line in zip(rows, corners_of(rows), lines, strict=True)
        ]


def _whole(option: str, value: Any, least: int, expected: str, most: float = math.inf) -> int:
    """A whole number, Python's or NumPy's. Raises UserError."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number <= most:
        raise UserError(f'{option}: {value!r}, expected {expected}')
    return number


def network_file(model: str | Path) -> Path:
    """The .onnx file that a model's name stands for. Raises UserError."""
    if not isinstance(model, (str, os.PathLike)):
        raise UserError(f'model: {model!r}, expected a name or a .onnx file')
    if str(model) not in INSTALLED:
        return Path(model)
    file = NETWORKS / f'{model}.onnx'
    if not file.is_file():
        there = ', '.join(sorted(repr(path.stem) for path in NETWORKS.glob('*.onnx'))) or 'none'
        raise UserError(f'the network {model!r} is not installed (there: {there}); docs/python.md says how to add it')
    return file


def _side(size: str | int | None, about: Metadata, installed: bool) -> int:
    """Pixels of the long side. Raises UserError."""
    if size is None and not installed:
        return about.long_side
    chosen = 'balanced' if size is None else size
    expected = f'{", ".join(map(repr, SIZES))} or pixels'
    side = _whole('size', SIZES.get(chosen, chosen) if isinstance(chosen, str) else chosen, 1, expected, MAX_SIDE)
    if about.input_size and side != about.long_side:
        LOG.warning('%s takes %d pixels only, whatever size says', about.file, about.long_side)
        return about.long_side
    return side
