"""An image seen at several sizes: the words that the largest one shows, scored by all of them.

A network errs in what is a word more often than in where it ends. What looks like a word at a single size is seldom a
word. Large words are seen as well at smaller sizes, which count for more with them. Two sets of validation images chose
the numbers below, with the shipped N at 1,280 pixels: docs/image-size.md.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ocrdistill.errors import UserError
from ocrdistill.finder import Finder
from ocrdistill.inputs import to_image
from ocrdistill.quads import pairwise_quad_iou
from ocrdistill.rows import corners_of

SHARES = (1.0, 0.75, 0.5)  # of the size that is asked for
SMALL, LARGE = 24, 64  # pixels: heights of words at the full size; between them the weights change with the logarithm
# Of the scores at each size. Their sum is over 1: a mean of several scores is lower than the score of one size, and its
# threshold has to fit both.
OF_SMALL, OF_LARGE = np.array([0.654, 0.272, 0.164]), np.array([0.436, 0.327, 0.327])
SAME_WORD = 0.5  # IoU of the quads that two sizes show
LOWEST_SCORE = 0.1  # that counts at one size, whatever the threshold: it must not change scores


class MultiScale:
    """Finds the words of images as `finder` does, with scores of several sizes. Raises UserError: a network that takes
    images of one size only."""

    def __init__(self, finder: Finder):
        if finder.about.input_size:
            raise UserError('several sizes (--multiscale): this network takes one, export it as ONNX with --dynamic')
        self.finder = finder
        self.looks = [_at(finder, share) for share in SHARES]

    def find(self, images: Sequence[Any], batch_size: int = 1) -> list[np.ndarray]:
        """Rows of several images, as Finder.find."""
        images = [to_image(image, self.finder.decode) for image in images]
        found = [look.find(images, batch_size) for look in self.looks]
        return [
            self._chosen(rescored(looks, self.finder.imgsz / max(image.shape[:2])))
            for image, *looks in zip(images, *found, strict=True)
        ]

    def _chosen(self, rows: np.ndarray) -> np.ndarray:
        """Those over the threshold, best first, as many as are asked for."""
        rows = rows[rows[:, 4] > self.finder.conf_thres]
        return rows[np.argsort(-rows[:, 4], kind='stable')][: self.finder.max_det]


def rescored(looks: Sequence[np.ndarray], scale: float) -> np.ndarray:
    """Rows (ocrdistill.rows) of the first look with the scores of all.

    Args:
        looks: rows of one image at each of SHARES, in pixels of the image.
        scale: the full size over the image's long side.

    Returns:
        As many rows, in the same order; the score is the weighted mean, 0 for a look that does not show the word, and 1
        at most.
    """
    rows = looks[0].copy()
    quads = corners_of(rows)
    scores = np.zeros((len(rows), len(looks)))
    scores[:, 0] = rows[:, 4]
    for number, others in enumerate(looks[1:], 1):
        if len(rows) and len(others):
            overlap = pairwise_quad_iou(quads, corners_of(others), SAME_WORD, rows[:, 5:6] == others[:, 5])
            best = overlap.argmax(1)
            scores[:, number] = np.where(overlap.max(1) > SAME_WORD, others[best, 4], 0)
    sides = np.linalg.norm(quads - np.roll(quads, -1, 1), axis=2)  # (n, 4)
    heights = np.maximum((sides[:, :2] + sides[:, 2:]).min(1) / 2 * scale, 1)
    large = (np.log(heights / SMALL) / np.log(LARGE / SMALL)).clip(0, 1)[:, None]
    weights = (1 - large) * OF_SMALL + large * OF_LARGE
    rows[:, 4] = (scores * weights).sum(1).clip(max=1).round(5)
    return rows


def _at(finder: Finder, share: float) -> Finder:
    """The finder at a share of its size, with all that may count."""
    look = finder.of_a_view()
    look.imgsz = max(round(finder.imgsz * share), 1)
    look.conf_thres = LOWEST_SCORE
    return look
