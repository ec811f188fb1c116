"""Every exported format beside PyTorch: the same boxes, mAP50, size and speed, as a Markdown table and JSON.

python benchmarks/exports.py --weights runs/train/exp/weights/best.pt

Exports with export.py twice, with --dynamic and for one size of 640x640; exports that are there already are used again.
Boxes: detect.py's, on test pictures, against the checkpoint's in float32; a box is the same if its IoU is over 0.99 and
its score within 0.01. Speed: the network alone, one picture, medians of rounds in which every format has its turn.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.runtime.cli import positive, run_command

ROOT = Path(__file__).resolve().parents[1]
FORMATS = {
    'ONNX Runtime, float32': ('.onnx', ['--format', 'onnx']),
    'ONNX Runtime, float16': ('_half.onnx', ['--format', 'onnx', '--float16']),
    'OpenVINO, float32': ('.xml', ['--format', 'openvino']),
    'OpenVINO, float16 weights': ('_half.xml', ['--format', 'openvino', '--float16']),
    'OpenVINO, int8': ('_int8.xml', ['--format', 'openvino', '--int8']),
    'TorchScript, float32': ('.torchscript', ['--format', 'torchscript']),
}
NATIVE, FAST = 'PyTorch, float32', 'PyTorch, bfloat16 (detect.py)'
SIZES = {'640x640': (640, 640), '640x384': (384, 640)}  # (height, width); 384 is what a picture of 16:9 needs
SAME_IOU, SAME_SCORE = 0.99, 0.01


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', required=True, metavar='PT', help='checkpoint')
    parser.add_argument('--data', default='data/ICDAR.yaml', metavar='YAML', help='val and test split (%(default)s)')
    parser.add_argument(
        '--pictures', type=positive, default=50, help='test pictures whose boxes are compared (%(default)s)'
    )
    parser.add_argument('--rounds', type=positive, default=15, help='of ten calls, for speed (%(default)s)')
    parser.add_argument('--out', type=Path, default=Path('runs/exports'), help='folder (%(default)s)')
    return parser.parse_args()


def export_all(options: argparse.Namespace) -> dict[str, dict[str, Path]]:
    """{format: {'dynamic' | 'fixed': file}}; those of this checkpoint that are there are taken."""
    from utils.loading.files import file_sha256

    files, of = {}, file_sha256(options.weights)[:8]
    for name, (suffix, flags) in FORMATS.items():
        files[name] = {}
        for kind in ('dynamic', 'fixed'):
            data = f'_{Path(options.data).stem}' if '--int8' in flags else ''  # it shows the ranges of values
            file = options.out / f'{kind}_{of}{data}{suffix}'
            files[name][kind] = file
            if not file.exists():
                print(f'exporting {file}', flush=True)
                weights = Path(options.weights).resolve()
                command = ['export.py', '--weights', weights, '--imgsz', 640, '--out', file.resolve(), *flags]
                command += ['--data', options.data] if '--int8' in flags else []
                command += ['--dynamic'] if kind == 'dynamic' else []
                subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True)
    return files


class Bfloat16:
    """A checkpoint's network as detect.py runs it, its weights cast once."""

    def __init__(self, model):
        self.model = model.to_bfloat16()

    def __call__(self, images):
        return self.model(images.bfloat16())

    def __getattr__(self, name: str):
        return getattr(self.model, name)


def load_all(options: argparse.Namespace, files: dict) -> dict[str, dict]:
    """{format: {'dynamic' | 'fixed': network}}, the checkpoint's first; PyTorch takes any size."""
    import torch

    from models.exported import load_detector
    from utils.runtime.device import has_bfloat16

    native = load_detector(options.weights)
    networks = {NATIVE: {'dynamic': native, 'fixed': native}}
    if has_bfloat16(torch.device('cpu')):
        networks[FAST] = dict.fromkeys(('dynamic', 'fixed'), Bfloat16(load_detector(options.weights)))
    for name, kinds in files.items():
        networks[name] = {kind: load_detector(file) for kind, file in kinds.items()}
    return networks


def compare_boxes(networks: dict, options: argparse.Namespace) -> dict[str, dict]:
    """{format: how many boxes it finds, and how many are the same as the checkpoint's in float32}."""
    import torch
    from tqdm import tqdm

    from utils.detection.detector import Detector
    from utils.loading.config import load_data_config
    from utils.loading.images import load_image
    from utils.loading.listing import list_images

    files = list_images(load_data_config(options.data), 'test')[: options.pictures]
    images = [load_image(file) for file in files]
    detector = Detector(options.weights, device='cpu')
    detector.dtype = torch.float32  # every network casts for itself
    found = {}
    for name, kinds in tqdm(networks.items(), 'boxes', leave=False):
        detector.model = kinds['dynamic']
        found[name] = [detector(image) for image in images]
    return {
        name: {
            'boxes': sum(len(rows) for rows in boxes),
            'same': sum(count_same(*pair) for pair in zip(found[NATIVE], boxes, strict=True)),
        }
        for name, boxes in found.items()
    }


def count_same(expected, given) -> int:
    """How many words (n, 6), with quads (n, 14), have their like in the other list, each used once."""
    from ocrdistill.quads import pairwise_quad_iou
    from ocrdistill.rows import corners_of

    overlaps = pairwise_quad_iou(corners_of(expected), corners_of(given), SAME_IOU, True)
    free, same = set(range(len(given))), 0
    for row, iou in zip(expected, overlaps, strict=True):
        like = [j for j in free if iou[j] > SAME_IOU and abs(given[j, 4] - row[4]) <= SAME_SCORE]
        if like:
            free.remove(max(like, key=iou.__getitem__))
            same += 1
    return same


def evaluate_all(networks: dict, options: argparse.Namespace) -> dict[str, float]:
    """{format: mAP50 on val}, of the networks for any size."""
    import torch

    from utils.evaluation.report import evaluate_split
    from utils.evaluation.split import EvaluationSplit
    from utils.loading.config import load_data_config

    split = EvaluationSplit(load_data_config(options.data), 'val', 640, batch_size=16)
    return {
        name: evaluate_split(kinds['dynamic'], split, torch.device('cpu'), title=name).scores['map50']
        for name, kinds in networks.items()
    }


def measure_all(networks: dict, rounds: int) -> dict[str, dict[str, float]]:
    """{format: {column: median milliseconds of a call}}; every round gives each its turn."""
    import torch

    times: dict = {}
    for size, (height, width) in SIZES.items():
        images = torch.rand(1, 3, height, width).to(memory_format=torch.channels_last)
        turns = {f'any size, {size}': 'dynamic'}
        if height == width:
            turns = {f'one size, {size}': 'fixed'} | turns
        for number in range(rounds + 1):
            for name, kinds in networks.items():
                for column, kind in turns.items():
                    spent = [_time(kinds[kind], images) for _ in range(10)]
                    if number:  # the first round warms up
                        times.setdefault(name, {}).setdefault(column, []).extend(spent)
                    time.sleep(0.05)  # threads that wait for more work let go of the cores
    return {name: {c: round(statistics.median(t), 1) for c, t in columns.items()} for name, columns in times.items()}


def _time(network, images) -> float:
    import torch

    start = time.perf_counter()
    with torch.inference_mode():
        network(images)
    return 1000 * (time.perf_counter() - start)


def megabytes(file: Path) -> float:
    """Of a file; an OpenVINO .xml has its weights beside it."""
    size = file.stat().st_size + (file.with_suffix('.bin').stat().st_size if file.suffix == '.xml' else 0)
    return round(size / 1e6, 2)


def table(rows: dict[str, dict]) -> str:
    from utils.comparison.table import markdown

    speeds = list(rows[NATIVE]['ms'])
    header = ['format', 'MB', 'boxes', 'the same', 'mAP50 on val', *(f'ms, {column}' for column in speeds)]
    lines = []
    for name, row in rows.items():
        cells = [name, f'{row["MB"]:.2f}', str(row['boxes']), str(row['same']), f'{row["map50"]:.4f}']
        lines.append(cells + [f'{row["ms"][column]:.1f}' for column in speeds])
    return '\n'.join(markdown(header, lines))


def check(rows: dict[str, dict]) -> None:
    """Raise UserError unless float32 exports find the same boxes and int8 loses no more than a point of mAP50."""
    from models.errors import UserError

    native = rows[NATIVE]
    for name, row in rows.items():
        if name.endswith('float32') and not native['boxes'] == row['boxes'] == row['same']:
            raise UserError(f'{name}: other boxes than PyTorch in float32')
    lost = native['map50'] - rows['OpenVINO, int8']['map50']
    if lost > 0.01:
        raise UserError(f'int8 loses {100 * lost:.1f} points of mAP50')


def main() -> None:
    options = parse_options()
    import torch

    from utils.export.card import machine
    from utils.runtime.run_folder import make_folder, versions, write_json, write_text

    make_folder(options.out)
    files = export_all(options)
    networks = load_all(options, files)
    boxes, map50 = compare_boxes(networks, options), evaluate_all(networks, options)
    speed = measure_all(networks, options.rounds)
    rows = {}
    for name in networks:
        file = files[name]['dynamic'] if name in files else Path(options.weights)
        rows[name] = {**boxes[name], 'map50': map50[name], 'ms': speed[name], 'MB': megabytes(file)}
    about = {'machine': machine(torch.get_num_threads()), 'weights': options.weights, 'pictures': options.pictures}
    write_json(options.out / 'exports.json', {**about, 'versions': versions(), 'formats': rows})
    write_text(options.out / 'exports.md', table(rows) + '\n')
    print(f'{table(rows)}\n{about["machine"]}; {options.pictures} test pictures; files in {options.out}')
    check(rows)


if __name__ == '__main__':
    run_command(main)
