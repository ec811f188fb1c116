"""How an image is searched: at one size or several, whole or in tiles too, as it is or on its side too."""

from collections.abc import Callable
from functools import partial

import numpy as np

from ocrdistill.finder import Finder
from ocrdistill.multiscale import MultiScale
from ocrdistill.tiles import SLICE_OVERLAP, detect_sliced
from ocrdistill.turns import detect_turned

Find = Callable[[list[np.ndarray]], list[np.ndarray]]  # images (H, W, 3) -> rows of each (ocrdistill.rows)


def make_find(
    finder: Finder,
    *,
    multiscale: bool = False,
    tile: int | None = None,
    overlap: float = SLICE_OVERLAP,
    rotate: bool = False,
    batch_size: int = 1,
) -> Find:
    """What finds the rows of a list of images.

    Args:
        finder: looks at one image in one way.
        multiscale: score words by several sizes.
        tile: pixels of the side of tiles that are looked at, too; None: none.
        overlap: share of a tile that its neighbours show, too.
        rotate: look at each image on its side, too.
        batch_size: images, tiles or turns in the network at a time at most.

    Raises:
        UserError: the network takes images of one size, and several are asked for.
    """
    looks = finder.of_a_view() if tile or rotate else finder
    find: Find = partial((MultiScale(looks) if multiscale else looks).find, batch_size=batch_size)
    if tile:
        limit = (looks if rotate else finder).max_det
        find = _of_each(partial(detect_sliced, detect=find, size=tile, overlap=overlap, max_det=limit))
    if rotate:
        find = _of_each(partial(detect_turned, detect=find, iou_thres=finder.iou_thres, max_det=finder.max_det))
    return find


def _of_each(find: Callable[[np.ndarray], np.ndarray]) -> Find:
    return lambda images: [find(image) for image in images]
