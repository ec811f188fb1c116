"""From images to rows: letterbox, network, NMS. What computes the network is somebody else's affair."""

import copy
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ocrdistill.errors import UserError
from ocrdistill.images import Decode
from ocrdistill.inputs import to_image
from ocrdistill.letterbox import Letterbox, place
from ocrdistill.nms import select, usual_iou
from ocrdistill.rows import BOX_ROW

MAX_BOXES = 3000  # of one of several views of an image, at least: which of them are kept is known at the end

Network = Callable[[np.ndarray], np.ndarray]  # (B, H, W, 3) uint8 -> decoded (B, M, 5 + nc [+ 4]) float32


class About(Protocol):
    """What must be known of a network: ocrdistill.metadata.Metadata, or a network of models."""

    nc: int
    quads: bool
    input_size: tuple[int, int] | None


class Finder:
    """Finds the boxes of images.

    Args:
        network: the network.
        about: it.
        stride: its inputs are multiples of this.
        imgsz: pixels of the long side as the network sees it.
        conf_thres: lowest confidence.
        iou_thres: overlap above which the worse of two boxes of a class goes; None: ocrdistill.nms.usual_iou.
        max_det: boxes kept of an image at most.
        classes: numbers of the classes to keep, None all.
        decode: reads files that Pillow cannot, see ocrdistill.images.Decode.

    Attributes:
        tile: pixels of a square's side that the network sees at its own size.
        seconds: spent so far in pre-processing, network and NMS.
    """

    def __init__(
        self,
        network: Network,
        about: About,
        *,
        stride: int,
        imgsz: int,
        conf_thres: float,
        iou_thres: float | None = None,
        max_det: int = 1000,
        classes: Sequence[int] | None = None,
        decode: Decode | None = None,
    ):
        self.network, self.about, self.stride, self.imgsz = network, about, stride, imgsz
        self.conf_thres, self.max_det = conf_thres, max_det
        self.tile = min(about.input_size or (imgsz,))
        self.iou_thres = usual_iou(about.quads) if iou_thres is None else iou_thres
        self.classes, self.decode = classes, decode
        self.seconds, self._clock = [0.0, 0.0, 0.0], threading.Lock()

    def find(self, images: Sequence[Any], batch_size: int = 1) -> list[np.ndarray]:
        """Rows of several images of any sizes; those of one network shape go through the network together.

        Args:
            images: a list of what ocrdistill.inputs.to_image takes.
            batch_size: images in the network at a time at most.

        Returns:
            Of each image (n, 6) float64, best first: x1, y1, x2, y2 in the upright image's pixels, confidence, class;
            of a network with quads (n, 14): then x, y of the corners.

        Raises:
            UserError: one of them is no image.
        """
        if not isinstance(images, (list, tuple)):
            raise UserError(f'expected a list of images, got {type(images).__name__}')
        if self.about.input_size:
            batch_size = 1  # an export of one size takes one image
        images = [to_image(image, self.decode) for image in images]
        start = time.perf_counter()
        placed = [place(image, self.imgsz, self.stride, self.about.input_size) for image in images]
        self._add(0, start)
        alike: dict[tuple[int, ...], list[int]] = {}  # numbers of the images of each network shape
        for number, (padded, _) in enumerate(placed):
            alike.setdefault(padded.shape, []).append(number)
        result: dict[int, np.ndarray] = {}
        for numbers in alike.values():
            for first in range(0, len(numbers), batch_size):
                chosen = numbers[first : first + batch_size]
                start = time.perf_counter()
                decoded = self.network(np.stack([placed[number][0] for number in chosen]))
                self._add(1, start)
                start = time.perf_counter()
                for number, cells in zip(chosen, decoded, strict=True):
                    result[number] = self._rows(cells, placed[number][1], *images[number].shape[:2])
                self._add(2, start)
        return [result[number] for number in range(len(images))]

    def of_a_view(self) -> 'Finder':
        """This finder for one of several views whose rows will be merged: what the limit leaves out could be the better
        view of a word, so it comes after that. It shares the network and the clock."""
        other = copy.copy(self)
        other.max_det = max(self.max_det, MAX_BOXES)
        return other

    def _rows(self, decoded: np.ndarray, letterbox: Letterbox, height: int, width: int) -> np.ndarray:
        """Rows of one image, rounded to what is written everywhere; none without area."""
        # Overlaps count within a class only, so classes can be chosen after NMS; the limit comes last.
        rows = select(decoded, self.about.nc, self.conf_thres, self.iou_thres)
        for columns in (slice(4), slice(BOX_ROW, None)):
            rows[:, columns] = letterbox.to_image(rows[:, columns], height, width)
        rows = rows.astype(np.float64)
        if self.classes:
            rows = rows[np.isin(rows[:, 5], self.classes)]
        rows[:, :4], rows[:, BOX_ROW:] = rows[:, :4].round(2), rows[:, BOX_ROW:].round(2)
        rows[:, 4] = rows[:, 4].round(5)
        return rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])][: self.max_det]

    def _add(self, step: int, start: float) -> None:
        with self._clock:
            self.seconds[step] += time.perf_counter() - start
