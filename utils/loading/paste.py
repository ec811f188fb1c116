"""Words of one picture pasted into another (copy-paste, Ghiasi 2021, with the patches around the words)."""

import cv2
import numpy as np

from utils.loading.augment import Example
from utils.loading.labels import UNCUT, Annotations

MARGIN = 0.25  # of a word's height, of background that comes with it
WORDS = 8  # are pasted at most
TRIES = 10  # places that are tried for a word


def paste_words(rng: np.random.Generator, example: Example, donor: Example) -> Example:
    """Paste some of the donor's words where the picture has no regions; all that a patch holds comes with it.

    Both pictures must be of one size. Words that the donor's frame cuts, or whose patch would cut another region,
    stay. The patches' borders fade into the picture.
    """
    image, annotations = example
    height, width = image.shape[:2]
    image, taken, parts = image.copy(), list(annotations.boxes()), [annotations]
    for patch in _patches(rng, donor[1], width, height):
        x1, y1, x2, y2 = patch
        place = _free_place(rng, x2 - x1, y2 - y1, width, height, np.array(taken))
        if place is None:
            continue
        left, top = place
        _fade_in(image[top : top + y2 - y1, left : left + x2 - x1], donor[0][y1:y2, x1:x2])
        parts.append(donor[1][_inside(donor[1].boxes(), patch)].scaled(1, 1, left - x1, top - y1))
        taken.append(np.array([left, top, left + x2 - x1, top + y2 - y1], float))
    return image, Annotations.concatenate(parts)


def _patches(rng: np.random.Generator, regions: Annotations, width: int, height: int) -> list[tuple[int, ...]]:
    """x1, y1, x2, y2 in whole pixels around whole words; each patch holds whole regions only."""
    boxes, patches = regions.boxes(), []
    words = np.flatnonzero(~regions.dont_care & (regions.visible >= UNCUT))
    for word in rng.permutation(words)[: rng.integers(1, WORDS, endpoint=True)]:
        margin = MARGIN * (boxes[word, 3] - boxes[word, 1])
        low = np.floor(boxes[word, :2] - margin).clip(0).astype(int)
        high = np.ceil(boxes[word, 2:] + margin).clip(None, (width, height)).astype(int)
        patch = (*low.tolist(), *high.tolist())
        if (_touching(boxes, patch) <= _inside(boxes, patch)).all():
            patches.append(patch)
    return patches


def _touching(boxes: np.ndarray, patch) -> np.ndarray:
    """(n,) whether boxes (n, 4) overlap a patch x1, y1, x2, y2."""
    x1, y1, x2, y2 = patch
    return (boxes[:, 0] < x2) & (boxes[:, 2] > x1) & (boxes[:, 1] < y2) & (boxes[:, 3] > y1)


def _inside(boxes: np.ndarray, patch) -> np.ndarray:
    x1, y1, x2, y2 = patch
    return (boxes[:, 0] >= x1) & (boxes[:, 2] <= x2) & (boxes[:, 1] >= y1) & (boxes[:, 3] <= y2)


def _free_place(
    rng: np.random.Generator, w: int, h: int, width: int, height: int, taken: np.ndarray
) -> tuple[int, int] | None:
    """Left and top of a rectangle (w, h) that overlaps none of the taken boxes (n, 4); None if no try finds one."""
    for _ in range(TRIES):
        left, top = (int(rng.integers(0, room, endpoint=True)) for room in (width - w, height - h))
        if not len(taken) or not _touching(taken, (left, top, left + w, top + h)).any():
            return left, top
    return None


def _fade_in(target: np.ndarray, patch: np.ndarray) -> None:
    """Write a patch (h, w, 3) over the target in place; over its outer tenth both are mixed."""
    h, w = patch.shape[:2]
    y, x = (np.minimum(np.arange(n) + 1, n - np.arange(n)) for n in (h, w))  # 1 at the border
    reach = max(min(h, w) / 10, 1)
    share = np.minimum(np.minimum(y[:, None], x) / reach, 1).astype(np.float32)[..., None]
    target[:] = cv2.convertScaleAbs(patch * share + target * (1 - share)).reshape(patch.shape)
