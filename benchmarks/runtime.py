"""The package ocrdistill beside detect.py and RapidOCR's detector: time to the first word, and of a warm call.

    python benchmarks/runtime.py photo.jpg --rapidocr
    python benchmarks/runtime.py photo.jpg --int8 data/ICDAR.yaml --keep networks/

First a process of its own for each program, from its start to the words of the picture, median of --starts. Then all
programs in one process, call by call in turn, at 640 pixels: median milliseconds, and their ratio to detect.py's.
RapidOCR takes 736 pixels of the shorter side by itself; a row of its own has it at 640 of the longer one.

With --int8 also ONNX Runtime's own 8-bit convolutions, calibrated on 100 training pictures; --keep leaves the file
there, for `val.py --weights`. --rapidocr needs its package without its dependencies, which would replace this project's
OpenCV: pip install --no-deps --target rapid rapidocr==3.10.0 pyclipper omegaconf antlr4-python3-runtime==4.9.3 colorlog
six, and PYTHONPATH=rapid.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ocrdistill.detector import network_file
from ocrdistill.network import import_onnxruntime
from utils.runtime.cli import positive, run_command

ROOT = Path(__file__).resolve().parents[1]
SIDE = 640
CALIBRATION = 100  # pictures
STARTS = {
    'ocrdistill': 'from ocrdistill import TextDetector; TextDetector(size=640)(sys.argv[1])',
    'detect.py': 'from detect import Detector; '
    "Detector('weights/ocrdistill-n.pt', device='cpu', imgsz=640)(sys.argv[1])",
    'rapidocr': 'from rapidocr import RapidOCR; RapidOCR()(sys.argv[1], use_cls=False, use_rec=False)',
}


def start(program: str, image: Path) -> float:
    """Seconds of a fresh process until the words of the picture are known."""
    begin = time.perf_counter()
    code = f'import sys; {STARTS[program]}'
    subprocess.run([sys.executable, '-c', code, str(image)], cwd=ROOT, capture_output=True, check=True)
    return time.perf_counter() - begin


def callers(options: argparse.Namespace, folder: Path) -> dict[str, Callable[[], Any]]:
    """What each program does with the picture."""
    from ocrdistill import TextDetector
    from ocrdistill.images import read_image
    from utils.detection.detector import Detector

    image = read_image(options.image)
    networks = {'ocrdistill': network_file('n')}
    if options.int8:
        networks['ocrdistill, int8'] = quantise(networks['ocrdistill'], folder / 'n_int8.onnx', options.int8)
    detectors = {name: TextDetector(file, size=SIDE, threads=options.threads) for name, file in networks.items()}
    detectors['detect.py'] = Detector(str(ROOT / 'weights/ocrdistill-n.pt'), device='cpu', imgsz=SIDE)
    result = {name: lambda detector=detector: detector(image) for name, detector in detectors.items()}
    if options.rapidocr:
        from rapidocr import RapidOCR

        pixels, same_size = image[..., ::-1].copy(), {'Det.limit_type': 'max', 'Det.limit_side_len': SIDE}
        for name, params in {'rapidocr': {}, f'rapidocr, {SIDE} pixels': same_size}.items():
            engine = RapidOCR(params={'Global.log_level': 'critical'} | params)
            result[name] = lambda engine=engine: engine(pixels, use_cls=False, use_rec=False)
    return result


def quantise(source: Path, target: Path, data: str) -> Path:
    """8-bit convolutions by ONNX Runtime's static quantisation; what decodes behind the head's stays in float."""
    import onnx
    from onnxruntime import quantization

    model = onnx.load(source)
    graph = model.graph
    behind, left = set(), {output.name for output in graph.output}
    for node in reversed(graph.node):
        if left & set(node.output) and node.op_type != 'Conv':
            behind.add(node.name)
            left |= set(node.input)
    target.parent.mkdir(parents=True, exist_ok=True)
    quantization.quantize_static(
        str(source),
        str(target),
        Calibration(data),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        nodes_to_exclude=sorted(behind),
        op_types_to_quantize=['Conv'],
    )
    quantised = onnx.load(target)
    del quantised.metadata_props[:]  # the quantiser has added its own
    quantised.metadata_props.extend(model.metadata_props)
    for entry in quantised.metadata_props:
        if entry.key == 'precision':
            entry.value = json.dumps('int8')
    onnx.save(quantised, target)
    return target


class Calibration:
    """Training pictures as ONNX Runtime's quantiser asks for them."""

    def __init__(self, data: str):
        self.batches = self._read(data)

    def get_next(self) -> dict[str, Any] | None:
        return next(self.batches, None)

    def _read(self, data: str) -> Iterator[dict[str, Any]]:
        import numpy as np

        from ocrdistill.images import read_image
        from ocrdistill.letterbox import place
        from utils.loading.config import load_data_config
        from utils.loading.listing import list_images

        files = list_images(load_data_config(data), 'train')
        for file in files[:: max(len(files) // CALIBRATION, 1)][:CALIBRATION]:
            padded, _ = place(read_image(file), SIDE, 32, (SIDE, SIDE))
            yield {'images': padded.transpose(2, 0, 1)[None].astype(np.float32) / 255}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('image', type=Path, help='a picture of about a megapixel')
    parser.add_argument('--rapidocr', action='store_true', help="RapidOCR's detector, too")
    parser.add_argument('--int8', metavar='YAML', help='an 8-bit network, calibrated on the train split of this data')
    parser.add_argument('--keep', type=Path, metavar='DIR', help='of --int8: leave the network there')
    parser.add_argument('--threads', type=positive, metavar='N', help='of ocrdistill (default: all cores)')
    parser.add_argument('--starts', type=positive, default=3, metavar='N', help='processes of each program (default 3)')
    parser.add_argument('--repeats', type=positive, default=20, metavar='N', help='warm calls of each (default 20)')
    options = parser.parse_args()
    if options.keep and not options.int8:
        parser.error('--keep goes with --int8')
    options.image = options.image.resolve()
    import_onnxruntime()

    names = [name for name in STARTS if name != 'rapidocr' or options.rapidocr]
    first = {name: statistics.median(start(name, options.image) for _ in range(options.starts)) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        calls = callers(options, options.keep or Path(folder))
        times: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(options.repeats + 2):
            for name, call in calls.items():
                begin = time.perf_counter()
                call()
                if turn > 1:
                    times[name].append(1000 * (time.perf_counter() - begin))
    warm = {name: statistics.median(values) for name, values in times.items()}
    print("| program | start to words, s | warm, ms | of detect.py's |\n|---|---|---|---|")
    for name, milliseconds in warm.items():
        begin = f'{first[name]:.2f}' if name in first else ''
        print(f'| {name} | {begin} | {milliseconds:.1f} | {milliseconds / warm["detect.py"]:.2f} |')


if __name__ == '__main__':
    run_command(main)
