"""What choosing a device changes."""

import pytest
import torch

from utils.runtime import device

FLAGS = (torch.backends.cuda.matmul, torch.backends.cudnn)


@pytest.fixture
def tensor_float_32():
    """Allowed, as some programs want it."""
    before = [flag.allow_tf32 for flag in FLAGS]
    for flag in FLAGS:
        flag.allow_tf32 = True
    yield
    for flag, value in zip(FLAGS, before, strict=True):
        flag.allow_tf32 = value


def test_finding_a_device_changes_nothing_and_selecting_one_prepares_the_process(tensor_float_32, monkeypatch):
    kept = []
    monkeypatch.setattr(device, 'keep_freed_memory', lambda: kept.append(True))
    assert device.find_device('cpu') == torch.device('cpu')
    assert all(flag.allow_tf32 for flag in FLAGS) and not kept
    assert device.select_device('cpu') == torch.device('cpu')
    assert not any(flag.allow_tf32 for flag in FLAGS) and kept
