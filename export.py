"""Write a checkpoint as an ONNX, OpenVINO or TorchScript file, checked against PyTorch, with a model card beside it.

python export.py --weights runs/train/exp/weights/best.pt --format onnx --dynamic
"""

import argparse
import os
import tempfile
from pathlib import Path

from utils.runtime.cli import run_command

SUFFIXES = {'onnx': '.onnx', 'openvino': '.xml', 'torchscript': '.torchscript'}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--weights', required=True, metavar='PT', help='checkpoint, ours or a public YOLOv5 .pt')
    add('--format', choices=tuple(SUFFIXES), default='onnx', help='(%(default)s)')
    add('--imgsz', type=int, nargs='+', default=[640], metavar='PX', help='side, or height and width, pixels (640)')
    add('--dynamic', action='store_true', help='take any number of pictures of any size that is a multiple of 32')
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        '--half', action='store_true', help='float16 weights, half the bytes; what runs them may compute in float32'
    )
    precision.add_argument('--int8', action='store_true', help='openvino: 8-bit convolutions, calibrated on --data')
    add('--data', metavar='YAML', help='of --int8: its train calibrates, its val judges (data/ICDAR.yaml)')
    add('--calibration', type=int, metavar='N', help='of --int8: training pictures for it (300)')
    add('--nms', action='store_true', help='onnx: end with NMS: boxes, scores and classes come out, for other programs')
    add('--conf-thres', type=float, help="of --nms: confidence, 0..1 (default: the checkpoint's own, else 0.25)")
    add('--iou-thres', type=float, help='of --nms: overlap, 0..1 (default 0.45)')
    add('--max-det', type=int, help='of --nms: boxes of a class in a picture (default 300)')
    add('--license', metavar='TEXT', help='of the weights, for metadata and card (default: what is known of them)')
    add('--out', type=Path, metavar='FILE', help='(default: beside the checkpoint, named after it and the options)')
    options = parser.parse_args()
    _check(parser, options)
    options.imgsz = tuple(options.imgsz * 2 if len(options.imgsz) == 1 else options.imgsz)
    options.data, options.calibration = options.data or 'data/ICDAR.yaml', options.calibration or 300
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with status 2 where options make no sense or contradict each other."""
    suffix = SUFFIXES[options.format]
    _check_size(parser, options)
    if options.half and options.format == 'torchscript':
        parser.error('--half: for onnx and openvino')
    if options.int8 and options.format != 'openvino':
        parser.error('--int8: for openvino')
    for name in ('data', 'calibration'):
        if getattr(options, name) is not None and not options.int8:
            parser.error(f'--{name} belongs to --int8')
    if options.calibration is not None and options.calibration < 1:
        parser.error('--calibration: at least 1')
    if options.nms and options.format != 'onnx':
        parser.error('--nms: for onnx')
    for name in ('conf_thres', 'iou_thres', 'max_det'):
        value = getattr(options, name)
        if value is not None and not options.nms:
            parser.error(f'--{name.replace("_", "-")} belongs to --nms')
        if value is not None and not (value >= 1 if name == 'max_det' else 0 <= value <= 1):
            parser.error(f'--{name.replace("_", "-")}: out of range')
    if options.out is not None and options.out.suffix != suffix:
        parser.error(f'--out: a name that ends in {suffix}')


def _check_size(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if len(options.imgsz) > 2 or any(side < 32 or side % 32 for side in options.imgsz):
        parser.error('--imgsz: one or two multiples of 32')
    oblong = len(set(options.imgsz)) > 1
    if oblong and options.dynamic:
        parser.error('--dynamic: one --imgsz, the longer side of any picture')
    if oblong and options.int8:
        parser.error('--int8: a square --imgsz, as the validation split is judged at it')


def target_file(options: argparse.Namespace) -> Path:
    """--out, or best.onnx, best_half.onnx, best_nms.onnx, best_int8.xml ... beside best.pt."""
    if options.out:
        return options.out
    weights = Path(options.weights)
    marks = [name for name in ('half', 'int8', 'nms') if getattr(options, name)]
    return weights.with_name('_'.join([weights.stem, *marks]) + SUFFIXES[options.format])


def main() -> None:
    options = parse_options()
    from utils.export.job import ExportJob
    from utils.runtime.run_folder import make_folder

    target = target_file(options)
    job = ExportJob(options)
    make_folder(target.parent)
    # Files get their places when they are complete and checked; what fails leaves nothing behind.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix='.export-') as folder:
        job.write(Path(folder) / target.name, render_images())
        for file in sorted(Path(folder).iterdir()):
            os.replace(file, target.parent / file.name)
            print(f'{target.parent / file.name}: {(target.parent / file.name).stat().st_size / 1e6:.2f} MB')


def render_images() -> list:
    """Pictures with words, (480, 640, 3) uint8 RGB, to compare and to time on."""
    from data.synthesis.image import render_image

    return [render_image(0, 'test', number, (640, 480))[0][:, :, ::-1] for number in range(3)]


if __name__ == '__main__':
    run_command(main)
