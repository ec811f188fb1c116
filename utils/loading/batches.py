"""Samples, how they are joined to batches, and in which order an epoch takes them."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler, default_collate

from ocrdistill.letterbox import Letterbox
from utils.loading.labels import Annotations


class Sample(NamedTuple):
    """One picture as the network sees it; its annotations are in pixels of `image`."""

    image: Tensor  # (3, H, W) uint8 RGB
    annotations: Annotations
    path: str
    shape: tuple[int, int]  # original (height, width)
    letterbox: Letterbox
    labelled: bool  # False: nobody has said what is in it
    maps: Tensor | None = None  # (3, H, W) uint8, see utils.loading.maps; None: not wanted


class Batch(NamedTuple):
    """Pictures of one size, and what is in them."""

    images: Tensor  # (B, 3, H, W) uint8 RGB
    targets: Tensor  # (N, 6) float32: image, class, x, y, w, h (0..1 of W, H)
    ignore: Tensor  # (K, 6) float32, the same form: don't-care regions
    polygons: list[np.ndarray]  # N arrays (P, 2) float32 x, y (0..1), aligned with targets
    paths: list[str]
    shapes: list[tuple[int, int]]  # original (height, width)
    letterboxes: list[Letterbox]  # from original to input pixels; meaningless after augmentation
    labelled: Tensor | None = None  # (B,) bool; None: all pictures have labels
    edges: Tensor | None = None  # (N, 5) float32 t, b, l, r (utils.quads) and their weight, aligned with targets
    whole: int | None = None  # pictures of the batch in all processes that share it; None: B
    maps: Tensor | None = None  # (B, 3, H, W) uint8, see utils.loading.maps; None: not wanted


def collate(samples: list[Sample]) -> Batch:
    """Join samples of one size; annotations become shares of the input, targets apart from don't-care regions."""
    images = default_collate([sample.image for sample in samples])  # a worker writes into shared memory at once
    height, width = images.shape[2:]
    targets, ignore, polygons, edges = [], [], [], []
    for number, sample in enumerate(samples):
        annotations = sample.annotations
        rows = annotations.rows(width, height)
        rows = np.concatenate((np.full((len(rows), 1), number, np.float32), rows), 1)
        targets.append(rows[~annotations.dont_care])
        ignore.append(rows[annotations.dont_care])
        polygons += annotations[~annotations.dont_care].polygon_list(width, height)
        edges.append(annotations[~annotations.dont_care].edges())
    return Batch(
        images,
        torch.from_numpy(np.concatenate(targets)),
        torch.from_numpy(np.concatenate(ignore)),
        polygons,
        [sample.path for sample in samples],
        [sample.shape for sample in samples],
        [sample.letterbox for sample in samples],
        None if all(sample.labelled for sample in samples) else torch.tensor([sample.labelled for sample in samples]),
        torch.from_numpy(np.concatenate(edges)),
        maps=None if samples[0].maps is None else default_collate([sample.maps for sample in samples]),
    )


class EpochBatches(Sampler):
    """Batches of (epoch, index), every picture once, the last batch possibly smaller.

    The order is a function of (seed, epoch).

    Args:
        n: pictures.
        batch_size: of all processes together.
        seed, shuffle: of the order.
        part: (rank, world): shuffled batches are shared out among the processes, others go to them in turn.

    Attributes:
        epoch: set it before each.
        start: batches at the beginning of an epoch that are left out.
    """

    def __init__(self, n: int, batch_size: int, seed: int = 0, shuffle: bool = True, part: tuple[int, int] = (0, 1)):
        self.n, self.batch_size, self.seed, self.shuffle = n, batch_size, seed, shuffle
        self.rank, self.world = part
        self.epoch = self.start = 0

    def __len__(self) -> int:
        batches = -(-self.n // self.batch_size)
        return batches if self.shuffle else len(range(self.rank, batches, self.world))

    def size(self, number: int) -> int:
        """Pictures of a batch in all processes."""
        return min(self.batch_size, self.n - number * self.batch_size)

    def share(self, number: int) -> int:
        """Pictures of a shuffled batch in this process."""
        return self.size(number) // self.world + (self.rank < self.size(number) % self.world)

    def __iter__(self):
        order = (
            np.random.default_rng((self.seed, self.epoch)).permutation(self.n) if self.shuffle else np.arange(self.n)
        )
        whole = [order[at : at + self.batch_size] for at in range(0, self.n, self.batch_size)][self.start :]
        if self.shuffle:
            mine = [np.array_split(batch, self.world)[self.rank] for batch in whole]
        else:
            mine = whole[self.rank :: self.world]
        return iter([[(self.epoch, int(index)) for index in batch] for batch in mine])
