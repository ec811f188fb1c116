"""Detectors of words side by side: ours at three sizes, RapidOCR's and CRAFT, in hmean and in time.

    python benchmarks/detectors.py --task test --detectors fast balanced best rapidocr craft

Task 4.1 of ICDAR2015, each detector at the threshold that its package ships. All look at the same pictures in one
process, one detector after the other, with the same number of threads; the time is the wall's, of a picture with
decoding, after a warm-up. RapidOCR's detector finds lines, not words: hmean counts them as they are.
pip install '.[read]' brings RapidOCR; docs/labelling.md says where CRAFT's weights are.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.reading import timed
from utils.runtime.cli import run_command

OURS = ('fast', 'balanced', 'best')
Find = Callable[[Path], np.ndarray]  # from a file to quads (n, 4, 2) in pixels, best first


def ours(size: str, model: str, threads: int) -> Find:
    from ocrdistill import TextDetector

    detector = TextDetector(model, size=size, threads=threads)

    def find(file: Path) -> np.ndarray:
        words = sorted(detector(file), key=lambda word: -word.score)
        return np.array([word.quad for word in words])

    return find


def rapidocr(threads: int) -> Find:
    """RapidOCR's detector alone."""
    from ocrdistill.network import import_onnxruntime

    import_onnxruntime()
    from rapidocr import RapidOCR

    params = {'Global.log_level': 'critical', 'EngineConfig.onnxruntime.intra_op_num_threads': threads}
    engine = RapidOCR(params=params)

    def find(file: Path) -> np.ndarray:
        found = engine(str(file), use_det=True, use_cls=False, use_rec=False)
        return np.zeros((0, 4, 2)) if found.boxes is None else np.array(found.boxes)

    return find


def craft(weights: str) -> Find:
    from utils.distillation.craft import STRIDE, WORD, CraftDetector, words_of
    from utils.loading.augment import resized_shape
    from utils.loading.images import read_image

    detector = CraftDetector(weights, 'cpu')

    def find(file: Path) -> np.ndarray:
        image = read_image(file)
        height, width = image.shape[:2]
        words = words_of(detector.compute(image))  # not from the cache: its time is measured
        scale = STRIDE * np.array((width, height)) / resized_shape(width, height, detector.canvas)
        order = np.argsort(-words.scores, kind='stable')
        return (words.quads * scale)[order[words.scores[order] >= WORD]]

    return find


def measure(find: Find, files: list[Path], name: str) -> dict[str, float]:
    """Scores over the pictures, and milliseconds a picture (median)."""
    from utils.evaluation.icdar import ICDARMetrics, read_ground_truth

    metrics, times = ICDARMetrics(), []
    for quads, truth, seconds in timed(find, files, name):
        times.append(seconds)
        words = np.rint(quads.reshape(-1, 4, 2)).astype(np.int64)
        metrics.update(words, np.ones(len(words)), *read_ground_truth(truth))
    return metrics.at(0.5) | {'milliseconds': 1000 * float(np.median(times))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='data/ICDAR.yaml', help='data yaml (%(default)s)')
    parser.add_argument('--task', choices=('val', 'test'), default='val', help='(%(default)s)')
    parser.add_argument('--detectors', nargs='+', choices=(*OURS, 'rapidocr', 'craft'), default=list(OURS))
    parser.add_argument('--model', default='n', help='of ours: n, s or a .onnx file (%(default)s)')
    parser.add_argument(
        '--craft-weights', default='teacher/craft/craft_mlt_25k.pth', metavar='PTH', help='(%(default)s)'
    )
    parser.add_argument('--threads', type=int, default=2, metavar='N', help='of each detector (%(default)s)')
    parser.add_argument('--limit', type=int, metavar='N', help='look at the first N pictures only')
    options = parser.parse_args()
    import torch

    from utils.export.card import machine
    from utils.loading.config import load_data_config
    from utils.loading.listing import list_split

    torch.set_num_threads(options.threads)
    files = list_split(load_data_config(options.data), options.task).images[: options.limit]
    makers: dict[str, Callable[[], Find]] = {
        'rapidocr': lambda: rapidocr(options.threads),
        'craft': lambda: craft(options.craft_weights),
    }
    for size in OURS:
        makers[size] = lambda size=size: ours(size, options.model, options.threads)
    results = {name: measure(makers[name](), files, name) for name in options.detectors}
    print(f'{len(files)} pictures of {options.task}; {machine(options.threads)}')
    print('| detector | precision | recall | hmean | ms a picture |\n|---|---|---|---|---|')
    for name, found in results.items():
        scores = ' | '.join(f'{found[f"icdar_{key}"]:.3f}' for key in ('precision', 'recall', 'hmean'))
        print(f'| {name} | {scores} | {found["milliseconds"]:.0f} |')


if __name__ == '__main__':
    run_command(main)
