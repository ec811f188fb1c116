"""Ideas that were measured on their own: what is used, and what does not pay. docs/performance.md has a run's output.

python benchmarks/tried.py
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from benchmarks.contests import new_model  # noqa: E402
from models.layers import Conv  # noqa: E402
from utils.distillation.base import SquaredDifference  # noqa: E402
from utils.runtime.cli import run_command  # noqa: E402
from utils.runtime.device import autocast, describe, keep_freed_memory, network_dtype, select_device  # noqa: E402
from utils.training.optimizer import norms  # noqa: E402

IMGSZ, BATCH = 640, 8
WIDE = (384, 640)  # height, width: a 16:9 picture at 640
CHANNELS = {320: 80, 640: 40, 1280: 20}  # of X's maps that feed the head: cells a side


def milliseconds(work, device: torch.device, rounds: int = 7) -> float:
    """Median time of a call, after two that warm up."""
    spent = []
    for number in range(rounds + 2):
        start = time.perf_counter()
        work()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        if number > 1:
            spent.append(1000 * (time.perf_counter() - start))
    return statistics.median(spent)


def random_images(device: torch.device, batch: int, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    return torch.rand(batch, 3, *size, device=device).to(dtype).contiguous(memory_format=torch.channels_last)


def step_of(device: torch.device, size: str = 'n', batch: int = BATCH, shape: tuple[int, int] = (IMGSZ, IMGSZ)):
    """(forward and backward of a student, its model)."""
    model = new_model(size, device).to(memory_format=torch.channels_last).train()
    images = random_images(device, batch, shape, network_dtype(device, True))

    def step(run=model) -> None:
        with autocast(device):
            maps = run(images)
        sum(raw.float().square().mean() for raw in maps).backward()
        model.zero_grad()

    return step, model


def allocator(device: torch.device) -> None:
    """In this process from here on: glibc keeps what is freed."""
    step, _ = step_of(device)
    before = milliseconds(step, device)
    keep_freed_memory()
    print(f'N, forward and backward, a picture: {before / BATCH:.1f} ms, freed memory kept (used): ', end='')
    print(f'{milliseconds(step, device) / BATCH:.1f} ms', flush=True)


def compiled(device: torch.device) -> None:
    step, model = step_of(device)
    before = milliseconds(step, device)
    start = time.perf_counter()
    fast = torch.compile(model, dynamic=False)
    step(fast)
    spent = time.perf_counter() - start
    after = milliseconds(lambda: step(fast), device)
    print(f'N, forward and backward, a picture: {before / BATCH:.2f} ms, torch.compile: ', end='')
    print(f'{after / BATCH:.2f} ms, {spent:.0f} s to compile', flush=True)


def statistics_that_stand_still(device: torch.device) -> None:
    """What `--freeze-bn` is worth, alone and translated."""
    for size in ('n', 's'):
        step, model = step_of(device, size)
        found = {'as usual': milliseconds(step, device)}
        for norm in norms(model):
            norm.eval()
        found['--freeze-bn'] = milliseconds(step, device)
        fast = torch.compile(model, dynamic=False)
        found['--freeze-bn --compile'] = milliseconds(lambda step=step, fast=fast: step(fast), device)
        text = ', '.join(f'{name} {value / BATCH:.1f} ms' for name, value in found.items())
        print(f'{size.upper()}, forward and backward, a picture: {text}', flush=True)


def other_steps(device: torch.device) -> None:
    """Other batches, pictures that are no squares, and activations that are computed twice instead of kept."""
    found = {}
    for batch in (4, BATCH, 16, 32):
        step, _ = step_of(device, batch=batch)
        found[f'batch {batch}'] = milliseconds(step, device) / batch
    step, _ = step_of(device, shape=WIDE)
    as_squares = IMGSZ * IMGSZ / (WIDE[0] * WIDE[1])
    found[f'{WIDE[1]} x {WIDE[0]}, for as many pixels'] = milliseconds(step, device) / BATCH * as_squares
    step, _ = step_of(device)
    before, Conv.forward = Conv.forward, twice_activated
    try:
        found['normalisation and SiLU twice'] = milliseconds(step, device) / BATCH
    finally:
        Conv.forward = before
    text = ', '.join(f'{name} {value:.1f} ms' for name, value in found.items())
    print(f'N, forward and backward, a picture: {text}', flush=True)


def twice_activated(self: Conv, x: Tensor) -> Tensor:
    """Conv.forward, which keeps the convolution alone for the way back."""
    return checkpoint(lambda x: self.act(self.bn(x)), self.conv(x), use_reentrant=False)


def differences(device: torch.device) -> None:
    """The normalised difference of X's three maps, forward and backward, for one method."""
    totals = {'widened to float32': 0.0, 'SquaredDifference (used)': 0.0}
    for channels, cells in CHANNELS.items():
        shape = (BATCH, channels, cells, cells)
        a, t = (torch.randn(shape, device=device).to(network_dtype(device, True)) for _ in range(2))
        a, t = (x.contiguous(memory_format=torch.channels_last) for x in (a, t))
        a.requires_grad_()
        ways = (lambda a, t: (a.float() - t.float()).square().mean(1), SquaredDifference.apply)
        for name, way in zip(totals, ways, strict=True):
            totals[name] += milliseconds(lambda way=way, a=a, t=t: way(a, t).mean().backward(), device)
    text = ', '.join(f'{name} {value / BATCH:.2f} ms' for name, value in totals.items())
    print(f'difference of student and X teacher, a picture: {text}', flush=True)


def detector(device: torch.device) -> None:
    """Ways to run the fused N on one picture."""
    model = new_model('n', device).eval().requires_grad_(False).fuse().to(memory_format=torch.channels_last)
    images = random_images(device, 1, WIDE, torch.float32)
    found = {}
    with torch.inference_mode():
        found['float32'] = milliseconds(lambda: model(images), device, 30)
        with autocast(device):
            found['autocast'] = milliseconds(lambda: model(images), device, 30)
        model.to_bfloat16()
        images = images.to(torch.bfloat16)
        found['bfloat16 (used)'] = milliseconds(lambda: model(images), device, 30)
    with torch.no_grad(), contextlib.redirect_stderr(None):
        traced = torch.jit.freeze(torch.jit.trace(Maps(model).eval(), images, check_trace=False))
        found['traced and frozen'] = milliseconds(lambda: traced(images), device, 30)
    if device.type == 'cpu':
        found['SiLU inside the convolution'] = with_swish(model, images)
    text = ', '.join(f'{name} {value:.1f} ms' for name, value in found.items())
    print(f'N, one picture of {WIDE[1]} x {WIDE[0]}: {text}', flush=True)


class Maps(nn.Module):
    """A network whose output can be traced."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.raw_maps(images)[0])


def with_swish(model, images: Tensor) -> float:
    """oneDNN's own fusion, by the private operator that torch.compile uses."""
    fused = torch.ops.mkldnn._convolution_pointwise.default

    def forward(self, x: Tensor) -> Tensor:
        c = self.conv
        return fused(x, c.weight, c.bias, c.padding, c.stride, c.dilation, c.groups, 'swish', [], '')

    before, Conv.forward = Conv.forward, forward
    try:
        with torch.inference_mode():
            return milliseconds(lambda: model(images), images.device, 30)
    finally:
        Conv.forward = before


def worker_batches(device: torch.device) -> None:
    """What handing pictures over from a worker process costs, with no work done on them."""
    for workers in (0, 1, 2):
        loader = torch.utils.data.DataLoader(Constant(), 16, num_workers=workers, persistent_workers=workers > 0)
        list(loader)
        spent = milliseconds(lambda loader=loader: sum(len(batch) for batch in loader), torch.device('cpu'), 3)
        print(f'handing over pictures, {workers} worker processes: {spent / len(Constant()):.2f} ms each', flush=True)


class Constant(torch.utils.data.Dataset):
    """Ready pictures."""

    def __len__(self) -> int:
        return 640

    def __getitem__(self, _index: int) -> Tensor:
        return torch.zeros(3, IMGSZ, IMGSZ, dtype=torch.uint8)


def onnx_runtime(device: torch.device) -> None:
    """Options of ONNX Runtime for the package's network, one picture after another."""
    import onnxruntime as ort

    levels = ort.GraphOptimizationLevel
    ideas = {
        'as the package opens it (used)': {},
        'no graph optimisation': {'graph_optimization_level': levels.ORT_DISABLE_ALL},
        'basic ones': {'graph_optimization_level': levels.ORT_ENABLE_BASIC},
        'extended ones': {'graph_optimization_level': levels.ORT_ENABLE_EXTENDED},
        'operators in parallel': {'execution_mode': ort.ExecutionMode.ORT_PARALLEL},
        'threads that sleep': {'session.intra_op.allow_spinning': '0'},
        'tiny numbers as zero': {'session.set_denormal_as_zero': '1'},
    }
    images = torch.rand(1, 3, *WIDE).numpy()
    found = {}
    for name, settings in ideas.items():
        options = ort.SessionOptions()
        options.log_severity_level = 3
        for key, value in settings.items():
            options.add_session_config_entry(key, value) if '.' in key else setattr(options, key, value)
        session = ort.InferenceSession(ROOT / 'ocrdistill/networks/n.onnx', options, ['CPUExecutionProvider'])
        found[name] = milliseconds(
            lambda session=session: session.run(None, {'images': images}), torch.device('cpu'), 60
        )
    text = ', '.join(f'{name} {value:.1f}' for name, value in found.items())
    print(f'ONNX Runtime, N, one picture of {WIDE[1]} x {WIDE[0]}, ms: {text}', flush=True)


IDEAS = {
    idea.__name__: idea
    for idea in (
        allocator,
        differences,
        detector,
        worker_batches,
        compiled,
        statistics_that_stand_still,
        other_steps,
        onnx_runtime,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('ideas', nargs='*', metavar='IDEA', help=f'of {", ".join(IDEAS)} (all, a process each)')
    parser.add_argument('--device', default='', help="'cpu' or the number of a GPU (default: a GPU if there is one)")
    options = parser.parse_args()
    if set(options.ideas) - set(IDEAS):
        parser.error(f'ideas are: {", ".join(IDEAS)}')
    if len(options.ideas) == 1:
        # The allocator's setting cannot be undone: it waits until its own idea was measured without.
        allocator_waits = options.ideas == ['allocator']
        gpu = options.device != 'cpu' and torch.cuda.is_available()
        device = torch.device('cpu') if allocator_waits and not gpu else select_device(options.device)
        IDEAS[options.ideas[0]](device)
        return
    print(describe(select_device(options.device)), flush=True)
    for idea in options.ideas or IDEAS:
        subprocess.run([sys.executable, __file__, idea, '--device', options.device], check=True)


if __name__ == '__main__':
    run_command(main)
