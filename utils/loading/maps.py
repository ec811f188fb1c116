"""Maps of pictures, such as where CRAFT sees letters, that go through augmentation with them."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from utils.loading.dataset import TextDataset
from utils.loading.degrade import CHANGES

COLOURS = ('hsv_h', 'hsv_s', 'hsv_v', *CHANGES)  # hyperparameters that leave all in its place
INSIDE = 255  # third channel, where there is a picture


class MapDataset(TextDataset):
    """The maps of another data set's pictures, in their places.

    The sample of (epoch, index) is that of the other data set, whose augmentation depends on these numbers alone, with
    other pixels: two maps, and INSIDE where there is a picture. So a mosaic of maps has the maps of the mosaic's
    pictures, each where its picture is. Colours are left as they are.

    Args:
        pictures: the other data set.
        read: from a picture's file to two maps (2, h, w) uint8 of all of it, of any size.
    """

    def __init__(self, pictures: TextDataset, read: Callable[[Path], np.ndarray]):
        vars(self).update(vars(pictures))
        self.hyp = pictures.hyp | dict.fromkeys(COLOURS, 0.0)
        self.maps, self._cache, self._maps_of = None, None, read

    def _read(self, index: int) -> np.ndarray:
        size = self._held_shape(index)
        maps = [cv2.resize(each, size, interpolation=cv2.INTER_LINEAR) for each in self._maps_of(self.files[index])]
        return np.dstack((*maps, np.full_like(maps[0], INSIDE)))
