"""How a training step scales over processes of one machine, each with one thread:

    python benchmarks/scaling.py

Runs train.py with the same global batch in 1 and in N processes (torchrun, gloo), and prints seconds of an epoch (the
median without the first and the last), the ratio, and the bytes of gradients that a step exchanges.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.rendered import render  # noqa: E402
from utils.runtime.cli import positive, run_command  # noqa: E402


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--processes', type=positive, default=2, help='(%(default)s)')
    parser.add_argument('--pictures', type=positive, default=64, help='rendered, an epoch (%(default)s)')
    parser.add_argument('--imgsz', type=positive, default=640, help='pixels (%(default)s)')
    parser.add_argument('--batch-size', type=positive, default=16, help='of all processes together (%(default)s)')
    parser.add_argument(
        '--epochs', type=positive, default=4, help='3 or more; first and last do not count (%(default)s)'
    )
    parser.add_argument('--cfg', default='models/yolov5n.yaml', help='(%(default)s)')
    options = parser.parse_args()
    if options.epochs < 3:
        parser.error('--epochs: 3 or more, the first and the last one do not count')
    return options


def epoch_seconds(options: argparse.Namespace, data: Path, processes: int) -> float:
    """Median over the epochs but the first and the last."""
    launch = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}'] if processes > 1 else []
    flags = ['--cfg', options.cfg, '--data', data, '--imgsz', options.imgsz, '--batch-size', options.batch_size]
    flags += ['--epochs', options.epochs, '--workers', 0, '--device', 'cpu', '--noval', '--noplots']
    flags += ['--project', data.parent, '--name', f'run{processes}', '--save-every', 60]
    subprocess.run(
        [sys.executable, *launch, 'train.py', *map(str, flags)],
        cwd=ROOT,
        env=os.environ | {'OMP_NUM_THREADS': '1'},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with open(data.parent / f'run{processes}/results.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    return statistics.median(float(row['seconds']) for row in rows[1:-1])  # the last one validates


def main() -> None:
    options = parse_options()
    from models.yolo import DetectionModel
    from utils.export.card import machine

    with tempfile.TemporaryDirectory() as folder:
        data = render(Path(folder), options.pictures)
        one, many = (epoch_seconds(options, data, count) for count in (1, options.processes))
    size = sum(parameter.numel() * 4 for parameter in DetectionModel(options.cfg, nc=1).parameters())
    print(f'{machine(1)} in each process; {options.cfg}, {options.imgsz} pixels, batch {options.batch_size}')
    print(f'1 process: {one:.2f} s an epoch; {options.processes}: {many:.2f} s; {one / many:.2f} times as fast')
    print(f'gradients of a step: {size / 1e6:.1f} MB')


if __name__ == '__main__':
    run_command(main)
