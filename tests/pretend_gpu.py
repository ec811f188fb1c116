"""Run a command as if there were a GPU: python tests/pretend_gpu.py distill.py --device 0 ...

Tensors "on" the GPU are tensors of the CPU with a mark, which what is computed from them takes over. What CUDA refuses
is refused: one operation on tensors of both, NumPy on a GPU's. Streams and memory are idle stand-ins: it finds a tensor
that was left behind, and nothing about speed, precision or the order of copies.
"""

import contextlib
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ROOT = Path(__file__).resolve().parents[1]
MIXED = ('__getitem__', '__setitem__', 'index_put_', 'copy_', '__deepcopy__', '_has_compatible_shallow_copy_type')
CPU, GPU = torch.device('cpu'), torch.device('cuda:0')


class Refused(RuntimeError):
    """What CUDA would have refused."""


def tensors(value) -> list[Tensor]:
    """All of a nest of lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for part in value for tensor in tensors(part)] if isinstance(value, list | tuple) else []


def marked(tensor: Tensor) -> bool:
    return tensor.__dict__.get('on_gpu', False)


def mark(value, on_gpu: bool):
    for tensor in tensors(value):
        tensor.__dict__['on_gpu'] = on_gpu
    return value


def is_gpu(device) -> bool:
    return torch.device(device).type == 'cuda'


def is_device(value) -> bool:
    return isinstance(value, torch.device) or isinstance(value, str) and value.startswith(('cpu', 'cuda'))


def require_one_device(name: str, given: list[Tensor]) -> bool:
    """Whether all are the GPU's, but for numbers of the CPU in tensors without dimensions. Raises Refused."""
    on_gpu = any(map(marked, given))
    bare = name in ('cat', 'stack')  # even numbers must be where the rest is
    if on_gpu and any(not marked(tensor) and (tensor.dim() or bare) for tensor in given):
        raise Refused(f'{name}: tensors of the GPU and of the CPU')
    return on_gpu


class PretendedGPU(TorchFunctionMode):
    """Marks tensors, and refuses what CUDA refuses."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, kwargs = function.__name__, kwargs or {}
        given = tensors([args, kwargs])
        if name in ('__get__', '__set__'):
            return self.attribute(function, *args)
        if name in ('to', 'cpu'):
            return self.move(*args, *(['cpu'] if name == 'cpu' else []), **kwargs)
        if kwargs.get('device') is not None:
            return mark(function(*args, **kwargs | {'device': CPU}), is_gpu(kwargs['device']))
        if name in ('numpy', '__array__') and marked(args[0]):
            raise Refused(f'{name}: the tensor is on the GPU')
        if name in ('__getitem__', '__setitem__', 'index_put_') and not marked(args[0]) and any(map(marked, given)):
            raise Refused(f'{name}: indices or values of the GPU for a tensor of the CPU')
        if name in MIXED:
            return mark(function(*args, **kwargs), marked(args[0]))
        if name in ('tensor', 'as_tensor') and not isinstance(args[0], Tensor):
            return mark(function(*args, **kwargs), False)
        on_gpu = require_one_device(name, given)
        return mark(function(*args, **kwargs), on_gpu)

    @staticmethod
    def attribute(function, tensor: Tensor, *value):
        name = function.__self__.__name__
        if name == 'device' and marked(tensor):
            return GPU
        if name == 'is_cuda':
            return marked(tensor)
        for assigned in tensors(value):
            if name == 'data':
                mark(tensor, marked(assigned))
            elif marked(assigned) != marked(tensor):
                raise Refused(f'{name}: of another device than its tensor')
        return mark(function(tensor, *value), marked(tensor))

    @staticmethod
    def move(tensor: Tensor, *args, device=None, **kwargs) -> Tensor:
        named = [is_gpu(value) for value in (device, *args) if is_device(value)]
        named += [marked(value) for value in args if isinstance(value, Tensor)]  # its device and number format
        on_gpu = named[0] if named else marked(tensor)
        args = [CPU if is_device(value) else value for value in args]
        moved = tensor.to(*args, **kwargs) if args or kwargs else tensor
        if moved is tensor and on_gpu != marked(tensor):
            moved = tensor.clone()
        return mark(moved, on_gpu)


def same_device(function):
    """A function of torchvision's, which modes do not see."""

    def wrapped(*args, **kwargs):
        on_gpu = require_one_device(function.__name__, tensors([args, kwargs]))
        return mark(function(*args, **kwargs), on_gpu)

    return wrapped


class Autocast(torch.autocast):
    def __init__(self, device_type: str, *args, **kwargs):
        super().__init__('cpu', *args, **kwargs)


def parameter(cls, data=None, requires_grad=True, make=nn.Parameter.__new__):
    """nn.Parameter's __new__, which modes do not see either."""
    return mark(make(cls, data, requires_grad), data is not None and marked(data))


def pretend() -> None:
    """Put stand-ins in the places of torch.cuda's functions."""
    stand_ins = {
        'is_available': lambda: True,
        'is_initialized': lambda: True,
        'is_bf16_supported': lambda **_: True,
        'device_count': lambda: 1,
        'current_device': lambda: 0,
        'get_device_properties': lambda *_: SimpleNamespace(name='pretended GPU', total_memory=2**36, major=9),
        'mem_get_info': lambda *_: (2**36, 2**36),
        'memory_reserved': lambda *_: 0,
        'max_memory_allocated': lambda *_: 2**30,
        'stream': lambda _: contextlib.nullcontext(),
    }
    idle = ('set_device', 'manual_seed_all', 'reset_peak_memory_stats', 'empty_cache', 'synchronize', '_lazy_init')
    idle += ('Stream', 'Event', 'current_stream')
    for name, stand_in in (stand_ins | {name: MagicMock() for name in idle}).items():
        setattr(torch.cuda, name, stand_in)
    torch.accelerator.current_stream = lambda *_: SimpleNamespace(is_capturing=lambda: False)
    torch.accelerator.current_device_index = lambda: 0
    torch.accelerator.set_device_index = MagicMock()
    torch.autocast = Autocast
    nn.Parameter.__new__ = parameter
    Tensor.record_stream = lambda *_: None
    Tensor.pin_memory = lambda tensor, *_: tensor
    for name in ('nms', 'batched_nms'):
        setattr(torchvision.ops, name, same_device(getattr(torchvision.ops, name)))


if __name__ == '__main__':
    sys.argv.pop(0)
    sys.path[0] = str(ROOT)
    pretend()
    with PretendedGPU():
        runpy.run_path(sys.argv[0], run_name='__main__')
