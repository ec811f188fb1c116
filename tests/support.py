"""What several tests share: places, running a command as a user does, small models."""

import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import torch

from ocrdistill.signals import STOPPING

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


def run_here(script, *arguments, cwd=ROOT) -> subprocess.CompletedProcess:
    """The same in this process, seconds faster: where the process itself is not what is tested."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    before = sys.argv, sys.path.copy(), Path.cwd(), torch.get_num_threads(), torch.is_grad_enabled()
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    sys.argv = [str(script), *map(str, arguments)]
    os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(str(ROOT / script), run_name='__main__')
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=err)
    except Exception:
        status = 1
        traceback.print_exc(file=err)
    finally:
        sys.argv, sys.path[:] = before[0], before[1]
        os.chdir(before[2])
        torch.set_num_threads(before[3])
        torch.set_grad_enabled(before[4])
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(sys.argv, status, out.getvalue(), err.getvalue())


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
