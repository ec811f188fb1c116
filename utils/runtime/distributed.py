"""Several processes that train one model, started by torchrun; with one process everything here does nothing.

Every process sees its share of each batch. What a term of the loss is divided by (targets, pictures) is summed over the
processes first, so that the terms of all processes add up to those of one process with the whole batch.
"""

import contextlib
import inspect
import os
import sys
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.errors import UserError

RUNS_AT_ONCE = 'OCRDISTILL_RUNS_AT_ONCE'  # environment: runs that a comparison has going beside one another


def environment(name: str, default: int) -> int:
    """A number that torchrun, or a comparison, sets."""
    return int(os.environ.get(name, default))


def requested() -> bool:
    """Whether torchrun started this process as one of several."""
    return environment('WORLD_SIZE', 1) > 1


def restarted() -> bool:
    """Whether torchrun started this process anew after a failure (--max-restarts)."""
    return environment('TORCHELASTIC_RESTART_COUNT', 0) > 0


def start(device: torch.device) -> None:
    """Meet the other processes; all but the first fall silent. Raises UserError."""
    if not requested() or started():
        return
    backend = 'nccl' if device.type == 'cuda' else 'gloo'
    if not dist.is_available() or (backend == 'nccl' and not dist.is_nccl_available()):
        raise UserError(f'this PyTorch cannot train in several processes ({backend} is missing)')
    # Addresses of an attempt before this one lie in torchrun's store still, and would be taken for those of today.
    store, number, count = next(dist.rendezvous('env://'))
    store = dist.PrefixStore(f'attempt {environment("TORCHELASTIC_RESTART_COUNT", 0)}', store)
    where = device if device.type == 'cuda' else None
    dist.init_process_group(backend, store=store, rank=number, world_size=count, device_id=where)
    if rank():
        sys.stdout = open(os.devnull, 'w', errors='backslashreplace')  # noqa: SIM115  until the process ends


def started() -> bool:
    """Whether this process has met others; some builds of PyTorch know no others."""
    return dist.is_available() and dist.is_initialized()


def stop() -> None:
    """Part from the other processes."""
    if started():
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process among those that train together, from 0."""
    return dist.get_rank() if started() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if started() else 1


def part() -> tuple[int, int]:
    """(rank, world): this process's part of what all share."""
    return rank(), world()


def total(value: Tensor) -> Tensor:
    """The sum over all processes, without gradient."""
    if world() == 1:
        return value
    value = value.detach().clone(memory_format=torch.contiguous_format)  # the layout may differ between processes
    dist.all_reduce(value)
    return value


def any_of(flags: Tensor) -> Tensor:
    """Elementwise: whether a flag is set in any process; (n,) numbers -> (n,) numbers."""
    if world() > 1:
        dist.all_reduce(flags, dist.ReduceOp.MAX)
    return flags


def gather(value) -> list:
    """Every process's value (plain data and tensors), in the processes' order, in all of them."""
    if world() == 1:
        return [value]
    values = [None] * world()
    dist.all_gather_object(values, value)
    return values


def from_first(value):
    """The first process's value (plain data)."""
    return gather(value)[0]


def copy_from_first(module: nn.Module) -> None:
    """Make parameters and buffers those of the first process."""
    if world() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), 0)


def wrap(module: nn.Module) -> nn.Module:
    """The module with gradients averaged over the processes; itself with one."""
    if world() == 1:
        return module
    # All begin alike (same seed or checkpoint), and statistics of normalisation that count are the first process's.
    parallel = nn.parallel.DistributedDataParallel
    new = 'forward_sync_buffers' in inspect.signature(parallel).parameters  # its name in newer versions of PyTorch
    alone = {'forward_sync_buffers' if new else 'broadcast_buffers': False}
    # DDP still copies buffers once, as it begins; GPUs exchange nothing that lies on the CPU.
    device = next(module.parameters()).device
    elsewhere = [name for name, buffer in module.named_buffers() if buffer.device != device]
    parallel._set_params_and_buffers_to_ignore_for_model(module, elsewhere)
    return parallel(module, gradient_as_bucket_view=True, **alone)


def accumulating(module: nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """For the batches of a step before its last one: no need to exchange their gradients."""
    return contextlib.nullcontext() if last or world() == 1 else module.no_sync()


@contextlib.contextmanager
def clear_messages() -> Iterator[None]:
    """Say in a line that another process has gone, as whose partner this one must end. Raises UserError."""
    try:
        yield
    except RuntimeError as error:
        lost = ('Connection closed by peer', 'Connection reset by peer', 'Broken pipe', 'Socket Timeout', 'NCCL')
        if world() == 1 or not any(text in str(error) for text in lost):
            raise
        raise UserError(
            f'process {rank()}: another process of this run has ended or cannot be reached; its own message says why'
        ) from None
