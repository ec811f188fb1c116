"""Devices and precision: where to compute, and in which number format."""

import contextlib
import ctypes
import platform
from pathlib import Path
from typing import Any

import torch

from models.errors import UserError
from utils.runtime import distributed


def select_device(spec: str = '') -> torch.device:
    """The device of a --device option (see find_device), and this process prepared to compute with it: what asks for
    "the" GPU then means it."""
    device = find_device(spec)
    use_full_float32()
    keep_freed_memory()
    if device.type == 'cuda':
        torch.cuda.set_device(device)  # is_bf16_supported asks for the current one
    return device


def find_device(spec: str = '') -> torch.device:
    """The device of a --device option, which changes nothing: '' (a GPU if there is one), 'cpu', '0' or 'cuda:0'.

    Processes of torchrun each take a GPU of their own: that of their number on this machine, or of a list as '2,3'.

    Raises:
        UserError: no such device.
    """
    spec = str(spec).strip().lower().replace('cuda:', '')
    if spec == 'cpu' or (not spec and not torch.cuda.is_available()):
        return torch.device('cpu')
    number = str(distributed.environment('LOCAL_RANK', 0)) if spec in ('', 'cuda') else _of_process(spec)
    if not number.isdigit():
        raise UserError(f"--device {number}: expected 'cpu' or the number of one GPU")
    if not torch.cuda.is_available():
        raise UserError(f'--device {spec}: no CUDA GPU can be used here; use --device cpu')
    if int(number) >= torch.cuda.device_count():
        many = distributed.environment('LOCAL_WORLD_SIZE', 1) > 1
        advice = 'start one process for each' if many else 'use --device 0'
        raise UserError(f'--device {number}: GPUs here: {torch.cuda.device_count()}; {advice}')
    return torch.device(f'cuda:{number}')


def _of_process(spec: str) -> str:
    """The GPU of this process of a list. Raises UserError."""
    numbers, processes = spec.split(','), distributed.environment('LOCAL_WORLD_SIZE', 1)
    if len(numbers) == 1 and processes == 1:
        return spec
    if len(numbers) == 1 and spec == str(distributed.environment('LOCAL_RANK', 0)):
        return spec
    if len(set(numbers)) < len(numbers):
        raise UserError(f'--device {spec}: a GPU is named twice')
    if len(numbers) != processes:
        advice = (
            f'training has a process for each ("torchrun --nproc_per_node {len(numbers)}"), other commands take one GPU'
        )
        if processes > 1:
            advice = 'name as many, or leave --device out'
        raise UserError(f'--device {spec}: {len(numbers)} GPUs for {processes} processes on this machine; {advice}')
    return numbers[distributed.environment('LOCAL_RANK', 0)].strip()


def use_full_float32() -> None:
    """float32 means float32: TensorFloat-32 would round published figures."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def keep_freed_memory() -> None:
    """Let the C library keep freed blocks of any size for the next use, where it is glibc.

    By default it gives large ones back to the system, which must clear every page of them anew when the next picture's
    activations ask for memory: on a CPU that can cost more than the convolutions. The process's peak stays the same.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # TypeError: Windows has no library without a name
        libc = ctypes.CDLL(None)
        libc.mallopt(ctypes.c_int(-4), ctypes.c_int(0))  # M_MMAP_MAX: no block is mapped by itself
        libc.mallopt(ctypes.c_int(-1), ctypes.c_int(2**31 - 1))  # M_TRIM_THRESHOLD: the heap does not shrink


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 natively."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    # oneDNN says yes to every processor with AVX-512, and then emulates: twice as slow as float32.
    emulated = platform.machine().lower() in ('x86_64', 'amd64') and not torch.cpu._is_avx512_bf16_supported()
    return not emulated


def network_dtype(device: torch.device, amp: bool) -> torch.dtype:
    """What a network's pictures are given in: bfloat16 where it is wanted and native."""
    return torch.bfloat16 if amp and has_bfloat16(device) else torch.float32


def autocast(device: torch.device, enabled: bool = True) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 for the network where the device has it; nothing otherwise."""
    if enabled and has_bfloat16(device):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def describe(device: torch.device) -> str:
    """One line for logs."""
    if device.type == 'cuda':
        properties = torch.cuda.get_device_properties(device)
        return f'{properties.name}, {properties.total_memory / 2**30:.0f} GiB'
    return f'CPU, {torch.get_num_threads()} threads'


def processor_name() -> str:
    """The processor as the system calls it."""
    with contextlib.suppress(OSError, StopIteration):
        rows = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        return next(row.partition(':')[2].strip() for row in rows if row.startswith('model name'))
    return platform.processor() or platform.machine()
