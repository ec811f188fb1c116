"""What several tests share: places, running a command as a user does, small models."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / 'shared'


def run_script(*arguments, cwd=ROOT, timeout=300) -> subprocess.CompletedProcess:
    """Run a command of the repository as a user does."""
    script, *rest = arguments
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': ''}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, rest)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def small_cfg(width: float = 0.125, nc: int = 1) -> dict:
    """A YOLOv5 of a fraction of N's width, for tests that train."""
    import yaml

    cfg = yaml.safe_load((ROOT / 'models/yolov5n.yaml').read_text())
    return cfg | {'width_multiple': width, 'nc': nc}


def boxes_of(rng: np.random.Generator, n: int, batch: int) -> torch.Tensor:
    """(n, 6) random targets of one class, inside the picture."""
    size = rng.uniform(0.05, 0.4, (n, 2))
    centre = size / 2 + rng.uniform(0, 1, (n, 2)) * (1 - size)
    image = rng.integers(0, batch, (n, 1))
    return torch.tensor(np.concatenate((image, np.zeros((n, 1)), centre, size), 1), dtype=torch.float32)
