"""Judge a detector on a split: precision, recall, mAP50, mAP50-95, and ICDAR2015's hmean where its ground truth is.

python val.py --weights runs/distill/xn_maskdiff_PFI/weights/best.pt --data data/ICDAR.yaml --task test
"""

from utils.evaluation.options import ValOptions
from utils.runtime.cli import run_command
from utils.runtime.options import parse


def parse_options() -> ValOptions:
    return parse(ValOptions, __doc__)


def main() -> None:
    options = parse_options()
    from models.errors import UserError
    from models.exported import default_device, is_exported, load_detector, long_side
    from utils.evaluation.evaluate import evaluate
    from utils.evaluation.report import choose_scale, choose_threshold, figures, print_scores, write_report
    from utils.loading.config import load_data_config
    from utils.loading.dataset import TextDataset
    from utils.loading.loader import build_loader
    from utils.runtime.device import describe, select_device
    from utils.runtime.run_folder import command_line, make_run_folder, write_yaml

    if options.half and is_exported(options.weights):
        raise UserError(f'--half is for checkpoints: {options.weights} computes as it was exported')
    device = select_device(options.device or default_device(options.weights))
    model = load_detector(options.weights, device)
    options.imgsz = long_side(model, options.imgsz)
    if model.input_size and model.input_size != (options.imgsz, options.imgsz):
        raise UserError(f'{options.weights} takes no squares: val.py needs an export of a square or a dynamic one')
    data = load_data_config(options.data)
    if model.nc != data.nc:
        raise UserError(f'{options.weights} knows {model.nc} classes, {options.data} names {data.nc}')
    if model.nc > 1 and dict(model.names) != data.names:
        raise UserError(f'{options.weights} has the classes {dict(model.names)}, {options.data} {data.names}')
    rect = model.input_size is None  # an export of one size takes squares
    dataset = TextDataset(data, options.task, options.imgsz, rect=rect, pad=0.5, batch_size=options.batch_size)
    print(dataset.summary)
    _check_icdar(options, dataset.files)
    evaluation = evaluate(
        model,
        build_loader(dataset, options.batch_size, options.workers),
        device,
        amp=options.half,
        conf_thres=options.conf_thres,
        iou_thres=options.iou_thres,
        max_det=options.max_det,
    )
    scale, threshold, origin = _choices(options, model, evaluation)
    folder = make_run_folder(options.project, options.name, options.exist_ok)
    context = {
        'conf_threshold_from': origin,
        'weights': options.weights,
        'imgsz': options.imgsz,
        'precision_of': 'bfloat16 where the processor has it' if options.half else model.precision,
        'conf_thres': options.conf_thres,
        'iou_thres': options.iou_thres,
        'device': describe(device),
        'command': command_line(),
    }
    write_yaml(folder / 'opt.yaml', vars(options))
    if options.task == 'val' and evaluation.truths is not None:
        context['best_word_scale'] = choose_scale(evaluation)
        context['best_conf_threshold'] = choose_threshold(evaluation, context['best_word_scale'])
    content = figures(evaluation, data, options.task, threshold, scale, **context)
    write_report(folder, evaluation, content, data, plots=not options.noplots)
    if options.save_icdar:
        save_submission(folder / 'submit.zip', evaluation.images, threshold, scale)
        print(f'submit.zip: words over {threshold:.2f}, boxes times {scale[0]:g} x {scale[1]:g}')
    print_scores(content)
    if 'best_conf_threshold' in context:
        width, height = context['best_word_scale']
        print(
            f'highest hmean on these pictures at confidence {context["best_conf_threshold"]:.2f}, boxes times '
            f'{width:g} x {height:g} (for --icdar-conf and --word-scale)'
        )
    speed = ', '.join(f'{name} {value:.1f}' for name, value in evaluation.speed.items())
    print(f'milliseconds a picture: {speed} ({describe(device)}, batches of {options.batch_size})')
    print(f'results: {folder}')


def _choices(options: ValOptions, model, evaluation) -> tuple[tuple[float, float], float, str]:
    """The word scale and the threshold of the ICDAR figures, and where the threshold comes from."""
    from utils.evaluation.report import choose_scale, choose_threshold

    scale = tuple(options.word_scale or model.word_scale)
    if options.word_scale is None and model.conf_threshold is None and options.task == 'val':
        scale = choose_scale(evaluation)
    if options.icdar_conf is not None:
        return scale, options.icdar_conf, '--icdar-conf'
    if model.conf_threshold is not None:
        of_data = f' of {model.trained_on}' if model.trained_on else ''
        return scale, model.conf_threshold, f'the checkpoint, chosen on val{of_data}'
    if options.task == 'val':
        return scale, choose_threshold(evaluation, scale), 'chosen on these pictures, the validation split'
    return scale, 0.25, 'the default: the checkpoint holds none'


def _check_icdar(options: ValOptions, files: list) -> None:
    """Say why there will be no ICDAR figures where only some pictures have ground truth. Raises UserError where
    --icdar-conf or --save-icdar would have no use, or where the ground truth cannot be read."""
    from collections import Counter

    from models.errors import UserError
    from utils.evaluation.evaluate import read_truths, without_truth

    read_truths(files)  # before the pictures go through the network
    missing = without_truth(files)
    asked = '--icdar-conf' if options.icdar_conf is not None else '--word-scale' if options.word_scale else ''
    if missing and asked and not options.save_icdar:
        raise UserError(f'{asked}: there is no ICDAR ground truth of {missing[0]} ({len(missing)} pictures)')
    if 0 < len(missing) < len(files):
        print(f'no ICDAR figures: {len(missing)} pictures have no ground truth, the first {missing[0]}')
    stem, count = Counter(file.stem for file in files).most_common(1)[0]
    if options.save_icdar and count > 1:
        raise UserError(f'--save-icdar: {count} pictures are called {stem}, and res_{stem}.txt can be for one only')


def save_submission(file, images, threshold: float, scale: tuple[float, float]) -> None:
    """The words over the threshold, scaled as they are judged, as the Robust Reading site takes them."""
    from pathlib import Path

    from utils.evaluation.icdar import write_submission

    quads = {}
    for image in images:
        over = (image.words[:, 4] >= threshold).numpy()
        quads[Path(image.path).name] = image.judged_quads(scale)[over]
    write_submission(file, quads)


if __name__ == '__main__':
    run_command(main)
