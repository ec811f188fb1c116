"""A training step in float32 and in bfloat16, turn by turn: which of them this processor is faster in.

python benchmarks/precision.py
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.runtime.cli import positive, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', nargs='+', default=['n', 's'], help='of YOLOv5 (%(default)s)')
    parser.add_argument('--batch-size', type=positive, default=8, metavar='N', help='images a step (%(default)s)')
    parser.add_argument('--repeats', type=positive, default=4, metavar='N', help='of each (%(default)s)')
    options = parser.parse_args()
    import torch

    from models.yolo import DetectionModel
    from utils.export.card import machine
    from utils.runtime.device import has_bfloat16

    native = 'native' if has_bfloat16(torch.device('cpu')) else 'emulated'
    print(f'{machine(torch.get_num_threads())}; bfloat16 is {native}')
    images = torch.rand(options.batch_size, 3, 640, 640).contiguous(memory_format=torch.channels_last)
    for size in options.sizes:
        model = DetectionModel(f'models/yolov5{size}.yaml', nc=1).to(memory_format=torch.channels_last).train()
        times: dict[bool, list[float]] = {False: [], True: []}
        for repeat in range(options.repeats + 1):
            for half, spent in times.items():
                start = time.perf_counter()
                with torch.autocast('cpu', torch.bfloat16, enabled=half):
                    maps = model(images)
                sum(raw.float().square().mean() for raw in maps).backward()
                if repeat:  # the first prepares
                    spent.append(1000 * (time.perf_counter() - start) / options.batch_size)
        float32, bfloat16 = (statistics.median(spent) for spent in times.values())
        print(f'{size}: float32 {float32:.0f} ms an image, bfloat16 {bfloat16:.0f} ms')


if __name__ == '__main__':
    run_command(main)
