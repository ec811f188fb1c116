"""Write a checkpoint as an ONNX, OpenVINO, TorchScript, ncnn or LiteRT file, checked against PyTorch, with a card.

python export.py --weights runs/train/exp/weights/best.pt --format onnx --dynamic
"""

import os
import tempfile
from pathlib import Path

from models.yamls import near_program
from utils.export.options import SUFFIXES, ExportOptions
from utils.runtime.cli import run_command
from utils.runtime.options import parse


def parse_options() -> ExportOptions:
    options = parse(ExportOptions, __doc__)
    options.imgsz = options.imgsz * 2 if len(options.imgsz) == 1 else options.imgsz
    options.data, options.calibration = options.data or 'data/ICDAR.yaml', options.calibration or 300
    return options


def target_file(options: ExportOptions) -> Path:
    """--out, or best.onnx, best_half.onnx, best_nms.onnx, best_int8.xml ... beside best.pt."""
    if options.out:
        return options.out
    weights = near_program(options.weights)
    marks = {'half': options.float16, 'small': options.small, 'int8': options.int8, 'nms': options.nms}
    return weights.with_name(
        '_'.join([weights.stem, *(mark for mark, given in marks.items() if given)]) + SUFFIXES[options.format]
    )


def main() -> None:
    options = parse_options()
    from utils.export.job import ExportJob
    from utils.runtime.run_folder import make_folder
    from utils.runtime.words import megabytes

    target = target_file(options)
    job = ExportJob(options)
    make_folder(target.parent)
    # Files get their places when they are complete and checked; what fails leaves nothing behind.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix='.export-') as folder:
        job.write(Path(folder) / target.name, render_images())
        for file in sorted(Path(folder).iterdir()):
            os.replace(file, target.parent / file.name)
            print(f'{target.parent / file.name}: {megabytes((target.parent / file.name).stat().st_size)}')


def render_images() -> list:
    """Pictures with words, (480, 640, 3) uint8 RGB, to compare and to time on."""
    from data.synthesis.image import render_image

    return [render_image(0, 'test', number, (640, 480))[0][:, :, ::-1] for number in range(3)]


if __name__ == '__main__':
    run_command(main)
