"""Evaluate a detector on a split: precision, recall, mAP50, mAP50-95, and ICDAR2015's hmean where its ground truth is.

python val.py --weights runs/distill/xn_maskdiff_PFI/weights/best.pt --data data/ICDAR.yaml --task test

Limits of the shipped weights: words lower than 8 pixels, when the longer side of the picture has 640, are mostly missed
at 640 pixels (--imgsz 1280 helps); other scripts than Latin were hardly seen.
"""

import contextlib
from pathlib import Path

from utils.evaluation.options import ValOptions
from utils.runtime.cli import run_command
from utils.runtime.options import parse


def main() -> None:
    options = parse(ValOptions, __doc__)
    from models.exported import default_device
    from utils.evaluation.report import evaluate_split
    from utils.runtime.device import select_device
    from utils.runtime.run_folder import make_run_folder

    device = select_device(options.device or default_device(options.weights))
    model = load_model(options, device)
    split = build_split(options, model)
    folder = make_run_folder(options.project, options.name, options.exist_ok)  # before the work, as it may fail
    try:
        report = evaluate_split(
            model,
            split,
            device,
            workers=options.workers,
            choose=options.task == 'val' and model.point_at(options.imgsz).conf_threshold is None,
            threshold=options.icdar_conf,
            scale=tuple(options.word_scale) if options.word_scale else None,
            amp=options.bfloat16,
            conf_thres=options.conf_thres,
            iou_thres=options.iou_thres,
            max_det=options.max_det,
        )
    except BaseException:
        with contextlib.suppress(OSError):  # it is not empty
            folder.rmdir()
        raise
    write(options, folder, model, report, device)


def load_model(options: ValOptions, device):
    """The network of --weights, with --imgsz resolved to the size that it takes. Raises UserError."""
    from models.errors import UserError
    from models.exported import is_exported, load_detector, long_side

    if options.bfloat16 and is_exported(options.weights):
        raise UserError(f'--bfloat16 is for checkpoints: {options.weights} computes as it was exported')
    model = load_detector(options.weights, device)
    if options.word_scale and model.quads:
        raise UserError(f'--word-scale is for boxes: {options.weights} predicts quads, which stay as they are')
    options.imgsz = long_side(model, options.imgsz)
    if model.input_size and model.input_size != (options.imgsz, options.imgsz):
        raise UserError(f'{options.weights} takes no squares: val.py needs an export of a square or a dynamic one')
    return model


def build_split(options: ValOptions, model):
    """The images of --task, which must be of the model's classes. Raises UserError."""
    from models.errors import UserError
    from utils.evaluation.split import EvaluationSplit, require_class_count
    from utils.loading.config import load_data_config

    data = load_data_config(options.data)
    require_class_count(model, options.weights, data)
    if model.nc > 1 and dict(model.names) != data.names:
        raise UserError(f'{options.weights} has the classes {dict(model.names)}, {options.data} {data.names}')
    squares = model.input_size is not None  # an export of one size
    split = EvaluationSplit(data, options.task, options.imgsz, batch_size=options.batch_size, squares=squares)
    print(split.summary)
    _check_icdar(options, split.files)
    return split


def _check_icdar(options: ValOptions, files: list) -> None:
    """As check_truths. Raises UserError also where --icdar-conf or --word-scale would have no use, or where two
    pictures would need one file of --save-icdar."""
    from collections import Counter

    from models.errors import UserError
    from utils.evaluation.evaluate import check_truths
    from utils.runtime.words import counted

    missing = check_truths(files)
    asked = '--icdar-conf' if options.icdar_conf is not None else '--word-scale' if options.word_scale else ''
    if missing and asked and not options.save_icdar:
        raise UserError(f'{asked}: there is no ICDAR ground truth of {missing[0]} ({counted(len(missing), "picture")})')
    stem, count = Counter(file.stem for file in files).most_common(1)[0]
    if options.save_icdar and count > 1:
        raise UserError(f'--save-icdar: {count} pictures are called {stem}, and res_{stem}.txt can be for one only')


def write(options: ValOptions, folder: Path, model, report, device) -> None:
    """Write the run's folder and print what a person wants to know of it."""
    from utils.evaluation.report import CHOSEN, RESULTS, choose_point, print_scores
    from utils.runtime.device import describe
    from utils.runtime.run_folder import command_line, write_yaml

    for name in RESULTS:  # --exist-ok: none of an earlier evaluation stays beside those of this one
        (folder / name).unlink(missing_ok=True)
    write_yaml(folder / 'opt.yaml', vars(options))
    evaluation, point = report.evaluation, report.point
    context = {
        'conf_threshold_from': point.origin,
        'weights': options.weights,
        'imgsz': options.imgsz,
        'precision_of': 'bfloat16 where the processor has it' if options.bfloat16 else model.precision,
        'conf_thres': options.conf_thres,
        'iou_thres': options.iou_thres,
        'device': describe(device),
        'command': command_line(),
    }
    best = choose_point(evaluation) if options.task == 'val' and evaluation.truths is not None else None
    best = best if best and best.origin == CHOSEN else None  # else nothing was found
    if best:
        context |= {'best_word_scale': best.scale, 'best_conf_threshold': best.threshold}
    metrics = report.metrics(**context)
    report.write(folder, metrics, plots=not options.noplots)
    if options.save_icdar:
        report.write_submission(folder / 'submit.zip')
        print(f'submit.zip: words over {point.threshold:.2f}, {_form(model, point)}')
    print_scores(metrics)
    if best:
        print(
            f'highest hmean on these pictures at confidence {best.threshold:.2f}, {_form(model, best)} '
            f'(for --icdar-conf{"" if model.quads else " and --word-scale"})'
        )
    speed = ', '.join(f'{name} {value:.1f}' for name, value in evaluation.speed.items())
    print(f'milliseconds a picture: {speed} ({describe(device)}, batches of {options.batch_size})')
    print(f'results: {folder}')


def _form(model, point) -> str:
    """How hmean takes the words."""
    return 'quads' if model.quads else f'boxes times {point.scale[0]:g} x {point.scale[1]:g}'


if __name__ == '__main__':
    run_command(main)
