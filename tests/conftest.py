"""What several tests share: the place of the reference data, small models, a tiny data set."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / 'shared'
sys.path.insert(0, str(ROOT))

from models.yolo import DetectionModel  # noqa: E402

torch.set_num_threads(2)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of `make test &`; the tests' commands would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory) -> Path:
    """A rendered data set of 30 small pictures; returns its yaml."""
    folder = tmp_path_factory.mktemp('tiny')
    result = run_script('data/synthtext.py', '--out', folder / 'set', '--train', 24, '--test', 6, '--size', '320x192')
    assert result.returncode == 0, result.stderr
    yaml = folder / 'tiny.yaml'
    yaml.write_text(f'path: {folder / "set"}\ntrain: train.txt\nval: val.txt\ntest: images/test_icdar\nnames: [text]\n')
    return yaml


@pytest.fixture(scope='module')
def one_thread():
    """Small networks gain nothing from more, and bits depend on the number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def nano() -> DetectionModel:
    """YOLOv5-N for one class, the same random weights every time."""
    torch.manual_seed(0)
    return DetectionModel(ROOT / 'models/yolov5n.yaml', nc=1)


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
