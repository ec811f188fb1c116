"""Decoded images in memory that loading processes share."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from utils.loading.scan import map_threaded
from utils.runtime import distributed
from utils.runtime.distributed import RUNS_AT_ONCE
from utils.runtime.words import memory

MEMORY_FRACTION = 0.5  # of the free memory that a cache may take


class ImageCache:
    """Images of known sizes in one shared buffer; `cache[i]` is (h, w, 3) uint8, not to be written to.

    Args:
        sizes: (n, 2) int width, height.
    """

    def __init__(self, sizes: np.ndarray):
        self.sizes = sizes
        self.starts = np.concatenate(([0], np.cumsum(sizes.prod(1) * 3)))
        self.buffer = torch.empty(int(self.starts[-1]), dtype=torch.uint8).share_memory_()

    def __getitem__(self, index: int) -> np.ndarray:
        width, height = self.sizes[index].tolist()
        return self.buffer.numpy()[self.starts[index] : self.starts[index + 1]].reshape(height, width, 3)

    @staticmethod
    def filled(sizes: np.ndarray, read: Callable[[int], np.ndarray], split: str) -> 'ImageCache | None':
        """The cache of `read(i)` for every i, None where memory is short; says its size."""
        # Processes of torchrun, and runs of a comparison, each fill a cache of their own.
        sharing = distributed.environment('LOCAL_WORLD_SIZE', 1) * distributed.environment(RUNS_AT_ONCE, 1)
        total, free = int(sizes.prod(1).sum()) * 3, free_memory() // sharing
        text = f'cache of {split}: {memory(total)} of {memory(free)} free memory'
        if total > MEMORY_FRACTION * free:
            print(f'{text}: too little is free, pictures are read from files')
            return None
        print(text)
        cache = ImageCache(sizes)

        def store(index: int) -> None:
            cache[index][:] = read(index)

        map_threaded(store, range(len(sizes)), f'caching {split}')
        return cache


def free_memory() -> int:
    """Bytes that a shared buffer could take: the least of free memory, the container's limit and shared memory."""
    limits = [8 * 2**30]  # where the system does not say
    meminfo, group, shared = Path('/proc/meminfo'), Path('/sys/fs/cgroup'), Path('/dev/shm')
    if meminfo.exists():
        rows = dict(row.split(':', 1) for row in meminfo.read_text().splitlines())
        limits = [int(rows['MemAvailable'].split()[0]) * 1024]
    if (group / 'memory.max').exists() and (limit := (group / 'memory.max').read_text().strip()) != 'max':
        limits.append(int(limit) - int((group / 'memory.current').read_text()))
    if shared.is_dir():
        status = os.statvfs(shared)
        limits.append(status.f_bavail * status.f_frsize)
    return max(min(limits), 0)
