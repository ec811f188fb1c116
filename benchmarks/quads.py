"""What quads cost, how well box and edges hold the words of ICDAR2015, and what predicted edges lose against true ones.

python benchmarks/quads.py
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.runtime.cli import positive, run_command

EDGES_OF = 0.3  # IoU of boxes over which a true word's edges are taken


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--gt', default='ICDAR2015/gt', metavar='DIR', help='official ground truth (%(default)s)')
    parser.add_argument('--data', default='data/ICDAR.yaml', help='data yaml whose val shows that loss (%(default)s)')
    parser.add_argument('--repeats', type=positive, default=20, help='of each timing (%(default)s)')
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    import torch

    from utils.export.card import machine

    print(f'machine: {machine(torch.get_num_threads())}')
    hold_words(Path(options.gt))
    time_iou(options.repeats)
    time_nms(options.repeats)
    time_detection(options.repeats)
    for size in (640, 1280):
        own, true = hmean_of_edges(options.data, size)
        print(f'val at {size} pixels, best threshold: hmean {own:.4f}, with true edges in the same boxes {true:.4f}')


def hmean_of_edges(data: str, size: int) -> tuple[float, float]:
    """hmean of the shipped N's quads, and of its boxes with the edges of the true words that overlap them most."""
    import numpy as np
    import torch
    from torchvision.ops import box_iou

    from models.errors import UserError
    from utils.detection.detector import Detector
    from utils.evaluation.evaluate import read_truths
    from utils.evaluation.icdar import LOWEST_THRESHOLD, ICDARMetrics
    from utils.evaluation.split import EvaluationSplit
    from utils.loading.config import load_data_config
    from utils.quads import decode, encode

    detector = Detector('weights/ocrdistill-n.pt', imgsz=size, conf_thres=LOWEST_THRESHOLD, device='cpu', amp=False)
    files = EvaluationSplit(load_data_config(data), 'val', size).files
    of_own, of_true, truths = ICDARMetrics(), ICDARMetrics(), read_truths(files)
    if truths is None:
        raise UserError(f'{data}: pictures of val have no ICDAR ground truth (gt/)')
    for file, (quads, dont_care) in zip(files, truths, strict=True):
        rows = detector(file)
        corners = rows[:, 6:].reshape(-1, 4, 2)
        of_own.update(corners.round().astype(int), rows[:, 4], quads, dont_care)
        if len(quads):
            boxes, edges = encode(torch.from_numpy(quads.astype(np.float32)))
            found = torch.from_numpy(rows[:, :4].astype(np.float32))
            overlap, nearest = box_iou(found, boxes).max(1)
            edges = torch.where(overlap[:, None] > EDGES_OF, edges[nearest], 0)
            corners = decode(found, edges).numpy()
        of_true.update(corners.round().astype(int), rows[:, 4], quads, dont_care)
    own, true = (float(metrics.sweep()[1]['hmean'].max()) for metrics in (of_own, of_true))
    return own, true


def hold_words(folder: Path) -> None:
    """IoU of every legible word with what box and edges make of it."""
    import numpy as np
    import torch

    from models.errors import UserError
    from utils.evaluation.icdar import read_ground_truth
    from utils.quads import decode, encode, quad_iou

    files = sorted(folder.rglob('gt_*.txt'))
    if not files:
        raise UserError(f'{folder} holds no gt_*.txt; prepare ICDAR2015 first (docs/icdar2015.md)')
    found = [read_ground_truth(file) for file in files]
    quads = torch.from_numpy(np.concatenate([quads[~flags] for quads, flags in found])).float()
    iou = quad_iou(decode(*encode(quads)), quads)
    print(f'{len(quads)} legible words: IoU with their quad {iou.mean():.4f} on average, {iou.min():.3f} at worst')


def time_iou(repeats: int, pairs: int = 20_000) -> None:
    import torch

    from utils.quads import decode, quad_iou

    generator = torch.Generator().manual_seed(0)
    first, second = random_quads(pairs, generator), random_quads(pairs, generator)
    a, b = (decode(*parts).requires_grad_() for parts in (first, second))
    forward = median(lambda: quad_iou(a.detach(), b.detach()), repeats)
    both = median(lambda: quad_iou(a, b).sum().backward(), repeats)
    print(f'IoU of {pairs} pairs of quads: {forward:.0f} ms, with gradients {both:.0f} ms')


def time_nms(repeats: int, words: int = 100) -> None:
    import torch

    from utils.boxes import non_max_suppression, xyxy_to_xywh

    generator = torch.Generator().manual_seed(1)
    boxes, edges = random_quads(words, generator)
    copies = 5  # cells that answer for a word
    boxes = boxes.repeat(copies, 1) + torch.randn(words * copies, 4, generator=generator)
    confidence = torch.rand(words * copies, 1, generator=generator) * 0.5 + 0.5
    rows = torch.cat((xyxy_to_xywh(boxes), confidence, torch.ones_like(confidence), edges.repeat(copies, 1)), 1)[None]
    upright = median(lambda: non_max_suppression(rows, nc=1), repeats)
    quads = median(lambda: non_max_suppression(rows, nc=1, by_quads=True), repeats)
    left = len(non_max_suppression(rows, nc=1, by_quads=True)[0])
    print(f'NMS of {words * copies} boxes, {left} words left: upright {upright:.1f} ms, by quads {quads:.1f} ms')


def time_detection(repeats: int) -> None:
    """The shipped N, and the same with a head for quads, turn by turn."""
    import torch

    from models.checkpoint import anchors_of, read_checkpoint, ready, transfer
    from models.yolo import DetectionModel

    checkpoint = read_checkpoint('weights/ocrdistill-n.pt')
    models = []
    for quads in (False, True):
        model = DetectionModel(checkpoint.yaml, nc=1, anchors=anchors_of(checkpoint), quads=quads)
        transfer(model, checkpoint)
        models.append(ready(model))
    images = torch.rand(1, 3, 384, 640).contiguous(memory_format=torch.channels_last)
    times: list[list[float]] = [[], []]
    with torch.inference_mode():
        for _ in range(repeats + 3):
            for model, spent in zip(models, times, strict=True):
                start = time.perf_counter()
                model(images)
                spent.append(1000 * (time.perf_counter() - start))
    ratios = [with_quads / without for without, with_quads in zip(*(spent[3:] for spent in times), strict=True)]
    plain, quads = (statistics.median(spent[3:]) for spent in times)
    print(f'N at 640 x 384: {plain:.1f} ms, with quads {quads:.1f} ms, ratio of pairs {statistics.median(ratios):.3f}')


def random_quads(count: int, generator):
    """(boxes (n, 4), edges (n, 4)) of words that lean a little, near to each other."""
    import torch

    centre = torch.rand(count, 2, generator=generator) * 600
    half = torch.rand(count, 2, generator=generator) * torch.tensor([60.0, 20.0]) + 5
    lean = (torch.rand(count, 2, generator=generator) - 0.5).repeat_interleave(2, 1)
    return torch.cat((centre - half, centre + half), 1), lean


def median(run: Callable, repeats: int) -> float:
    """Milliseconds of a call."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


if __name__ == '__main__':
    run_command(main)
