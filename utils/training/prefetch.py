"""Batches on their way to the device."""

import functools
from collections.abc import Iterator

import torch

from utils.loading.batches import Batch
from utils.loading.loader import BatchLoader


def ahead(loader: BatchLoader, device: torch.device) -> Iterator[Batch]:
    """The loader's batches on the device; a GPU copies each while it computes with the one before."""
    if device.type != 'cuda':
        yield from loader
        return
    stream = side_stream(device)
    waiting = None
    for batch in loader:
        with torch.cuda.stream(stream):
            copied = to_device(batch, device), stream.record_event()
        if waiting is not None:
            yield _arrived(*waiting, device)
        waiting = copied
    if waiting is not None:
        yield _arrived(*waiting, device)


@functools.cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all epochs: memory that was freed in a stream is used again in that stream alone."""
    return torch.cuda.Stream(device)


def _arrived(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """A batch that the side stream copied, safe to compute with."""
    now = torch.cuda.current_stream(device)
    now.wait_event(copied)
    for value in batch:
        if isinstance(value, torch.Tensor):
            value.record_stream(now)  # its memory must not be given away before the computation is over
    return batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device; plain lists stay."""
    return batch._replace(
        **{
            name: value.to(device, non_blocking=True)
            for name, value in batch._asdict().items()
            if isinstance(value, torch.Tensor)
        }
    )
