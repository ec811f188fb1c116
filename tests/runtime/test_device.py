"""What choosing a device changes."""

import torch

from utils.runtime import device


def test_finding_a_device_changes_nothing_and_selecting_one_prepares_the_process(monkeypatch):
    flags, kept = (torch.backends.cuda.matmul, torch.backends.cudnn), []
    for flag in flags:
        monkeypatch.setattr(flag, 'allow_tf32', True)
    monkeypatch.setattr(device, 'keep_freed_memory', lambda: kept.append(True))
    assert device.find_device('cpu') == torch.device('cpu')
    assert all(flag.allow_tf32 for flag in flags) and not kept
    assert device.select_device('cpu') == torch.device('cpu')
    assert not any(flag.allow_tf32 for flag in flags) and kept
