"""Detectors of words side by side: ours at three sizes, RapidOCR's and CRAFT, in size, time and hmean.

    python benchmarks/detectors.py --task val --detectors fast balanced best rapidocr --craft WEIGHTS

Task 4.1 of ICDAR2015, each detector at the threshold that its package ships. All look at the same pictures in one
process, one detector after the other, with the same number of threads. The time is the wall's, the median of the first
--timed pictures with decoding, after a warm-up. The other pictures count for hmean alone; CRAFT, which is slow, takes
its maps of them from --craft-cache where it has them (python teacher/craft.py makes them). Parameters are counted with
batch normalisation folded in. The interval is that of the paired bootstrap over pictures (95 %). RapidOCR's detector
finds lines, not words: hmean counts them as they are. benchmarks/runtime.py says how to install RapidOCR beside this
project's OpenCV, docs/labelling.md how to get CRAFT's weights.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.reading import installed, timed
from utils.runtime.cli import positive, run_command

HEAD = ('detector', 'parameters, M', 'file, MB', 'precision', 'recall', 'hmean', 'more than the first', 'ms a picture')
OURS = ('fast', 'balanced', 'best', 'multiscale', 'rotate')
WAYS = ('multiscale', 'rotate')  # of these: best, and this flag
Find = Callable[[Path], np.ndarray]  # from a file to quads (n, 4, 2) in pixels, best first


class Detector(NamedTuple):
    """find: what is timed; quick: the same answer by a shorter way; file: the network's; parameters: in it."""

    find: Find
    quick: Find
    file: Path
    parameters: int


def ours(size: str, model: str, threads: int) -> Detector:
    from ocrdistill import TextDetector
    from ocrdistill.detector import network_file

    flags = {way: True for way in WAYS if way == size}
    detector = TextDetector(model, size='best' if flags else size, threads=threads, **flags)

    def find(file: Path) -> np.ndarray:
        words = sorted(detector(file), key=lambda word: -word.score)
        return np.array([word.quad for word in words])

    return onnx_detector(find, network_file(model))


def rapidocr(threads: int) -> Detector:
    """RapidOCR's detector alone."""
    from ocrdistill.network import import_onnxruntime

    import_onnxruntime()
    package = installed('rapidocr')
    params = {'Global.log_level': 'critical', 'EngineConfig.onnxruntime.intra_op_num_threads': threads}
    engine = package.RapidOCR(params=params)

    def find(file: Path) -> np.ndarray:
        found = engine(str(file), use_det=True, use_cls=False, use_rec=False)
        return np.zeros((0, 4, 2)) if found.boxes is None else np.array(found.boxes)

    (network,) = Path(package.__file__).parent.glob('models/*det*.onnx')
    return onnx_detector(find, network)


def onnx_detector(find: Find, file: Path) -> Detector:
    """A detector with its network's parameters: the weights in floating point of an ONNX file."""
    import onnx

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    weights = onnx.load(file).graph.initializer
    return Detector(find, find, file, sum(int(np.prod(w.dims)) for w in weights if w.data_type in floats))


def craft(weights: str, cache: str) -> Detector:
    """CRAFT on the CPU; quick from its cached maps."""
    from utils.distillation.craft import WORD, CraftDetector, Words
    from utils.distillation.craft_network import load_weights
    from utils.loading.images import read_image

    detector = CraftDetector(weights, 'cpu', cache)

    def find(file: Path) -> np.ndarray:
        image = read_image(file)
        return best_first(detector.words_in(detector.compute(image), image.shape[1::-1]))

    def quick(file: Path) -> np.ndarray:
        return best_first(detector.words(file))

    def best_first(words: Words) -> np.ndarray:
        order = np.argsort(-words.scores, kind='stable')
        return words.quads[order[words.scores[order] >= WORD]]

    parameters = sum(p.numel() for p in load_weights(weights).parameters())
    return Detector(find, quick, Path(weights), parameters)


class Measured(NamedTuple):
    """counts: (n, 3) of each picture the words found, the detections and the words; milliseconds: median of some."""

    counts: np.ndarray
    milliseconds: float
    megabytes: float
    millions: float


def measure(detector: Detector, files: list[Path], count: int, name: str) -> Measured:
    """Run a detector over the pictures; the first `count` are timed."""
    from utils.evaluation.icdar import evaluate_image, read_ground_truth

    counts, times = [], []
    for quads, truth, seconds in timed(detector.find, files, name, count, detector.quick):
        times.append(seconds)
        words = np.rint(quads.reshape(-1, 4, 2)).astype(np.int64)
        matched, counted, legible = evaluate_image(words, *read_ground_truth(truth))
        counts.append((matched.sum(), counted.sum(), legible))
    median = 1000 * float(np.nanmedian(times))
    return Measured(np.array(counts), median, detector.file.stat().st_size / 1e6, detector.parameters / 1e6)


def table(results: dict[str, Measured]) -> list[str]:
    """Markdown: a row a detector, and the difference of its hmean to the first one's."""
    from utils.comparison.statistics import hmean, hmean_difference
    from utils.comparison.table import markdown

    first = next(iter(results.values()))
    rows = []
    for name, found in results.items():
        hits, detections, words = found.counts.sum(0)
        against = '' if found is first else interval(hmean_difference(found.counts, first.counts))
        cells = [name, f'{found.millions:.2f}', f'{found.megabytes:.1f}', f'{hits / max(detections, 1):.3f}']
        cells += [f'{hits / max(words, 1):.3f}', f'{hmean(found.counts.sum(0)):.3f}', against]
        rows.append([*cells, f'{found.milliseconds:.0f}'])
    return markdown(list(HEAD), rows)


def interval(difference) -> str:
    """A utils.comparison.statistics.Difference as text."""
    return f'{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='data/ICDAR.yaml', help='data yaml (%(default)s)')
    parser.add_argument('--task', choices=('val', 'test'), default='val', help='(%(default)s)')
    parser.add_argument('--detectors', nargs='+', choices=(*OURS, 'rapidocr'), default=list(OURS))
    parser.add_argument('--model', default='n', help='of ours: n, s or a .onnx file (%(default)s)')
    parser.add_argument('--craft', metavar='PTH', help='CRAFT too, with these weights')
    parser.add_argument('--craft-cache', default='runs/craft', metavar='DIR', help='of its maps (%(default)s)')
    parser.add_argument('--threads', type=positive, default=2, metavar='N', help='of each detector (%(default)s)')
    parser.add_argument('--timed', type=positive, default=20, metavar='N', help='pictures that are timed (%(default)s)')
    parser.add_argument('--limit', type=positive, metavar='N', help='look at the first N pictures only')
    options = parser.parse_args()
    import torch

    from utils.export.card import machine
    from utils.loading.config import load_data_config
    from utils.loading.listing import list_images

    torch.set_num_threads(options.threads)
    files = list_images(load_data_config(options.data), options.task)[: options.limit]
    makers: dict[str, Callable[[], Detector]] = {'rapidocr': lambda: rapidocr(options.threads)}
    for size in OURS:
        makers[size] = lambda size=size: ours(size, options.model, options.threads)
    names = list(options.detectors)
    if options.craft:
        makers['craft'] = lambda: craft(options.craft, options.craft_cache)
        names.append('craft')
    detectors = {name: makers[name]() for name in names}  # all, before the first looks at hundreds of pictures
    results = {name: measure(detectors[name], files, options.timed, name) for name in names}
    count = min(options.timed, len(files))
    print(f'{len(files)} pictures of {options.task}, {count} of them timed; {machine(options.threads)}')
    print('\n'.join(table(results)))


if __name__ == '__main__':
    run_command(main)
