"""Devices and precision: where to compute, and in which number format."""

import contextlib

import torch

from models.errors import UserError


def select_device(spec: str = '') -> torch.device:
    """The device of a --device option: '' (a GPU if there is one), 'cpu', '0' or 'cuda:0'.

    Raises:
        UserError: no such device.
    """
    # float32 means float32: TensorFloat-32 would round published figures.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    spec = str(spec).strip().lower().removeprefix('cuda:')
    if spec == 'cpu':
        return torch.device('cpu')
    if spec in ('', 'cuda'):
        if spec and not torch.cuda.is_available():
            raise UserError('--device cuda: no CUDA GPU can be used here; use --device cpu')
        return torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')
    if not spec.isdigit():
        raise UserError(f"--device {spec}: expected 'cpu' or the number of one GPU")
    if not torch.cuda.is_available():
        raise UserError(f'--device {spec}: no CUDA GPU can be used here; use --device cpu')
    if int(spec) >= torch.cuda.device_count():
        raise UserError(f'--device {spec}: there are only {torch.cuda.device_count()} GPUs; use --device 0')
    return torch.device(f'cuda:{spec}')


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 natively."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(device: torch.device, enabled: bool = True) -> contextlib.AbstractContextManager:
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
