"""The model card beside an export: what it is, what its figures mean, how to use it."""

from pathlib import Path

from ocrdistill.nms import usual_iou
from utils.runtime.device import processor_name

FORMATS = {'.onnx': 'ONNX', '.xml': 'OpenVINO IR', '.torchscript': 'TorchScript', '.param': 'ncnn', '.tflite': 'LiteRT'}


def write_card(metadata: dict, file: Path, facts: dict[str, str]) -> str:
    """Markdown.

    Args:
        metadata: of `utils.export.metadata.describe`.
        file: the exported file.
        facts: more rows for the table of what was measured on this export.
    """
    height, width = metadata['imgsz']
    size = f'{width}x{height} pixels' + (', any multiples of 32 are taken' if metadata['dynamic'] else ', only')
    threshold = metadata['conf_threshold']
    source = metadata['source']
    data = source.get('chosen_on') or (source['options'] or {}).get('data')
    on_val = f'chosen on val of `{data}`' if data else 'chosen on the validation split'
    chosen = source.get('conf_threshold_from') or on_val
    rows = {
        'format': f'{FORMATS[file.suffix]}, {metadata["precision"]}',
        'input size': size,
        'classes': ', '.join(metadata['names'].values()),
        'confidence threshold': f'{threshold:g}, {chosen}' if threshold is not None else 'none',
        **_other_sizes(metadata),
        **facts,
    }
    lines = [f'# {file.name}', '', f'A YOLOv5 detector, exported by OCRdistill from `{source["file"]}`.', '']
    lines += ['| | |', '|---|---|', *(f'| {name} | {value} |' for name, value in rows.items()), '']
    lines += [
        '## Training',
        '',
        *_training(metadata),
        '',
        '## Input and output',
        '',
        *_contract(metadata, 'B, ' if file.suffix != '.param' else ''),
        '',
    ]
    return '\n'.join([*lines, '## Licence', '', metadata['license'], ''])


def _other_sizes(metadata: dict) -> dict[str, str]:
    """The thresholds of a file that takes several sizes."""
    points = metadata['points'] if metadata['dynamic'] else {}
    known = {size: point['conf_threshold'] for size, point in points.items() if point['conf_threshold'] is not None}
    chosen = ', '.join(f'{threshold:g} at {size}' for size, threshold in known.items())
    return {'thresholds by image size': chosen} if chosen else {}


def machine(threads: int) -> str:
    """The processor and the number of threads, for figures of speed."""
    return f'{processor_name()}, {threads} threads'


def _training(metadata: dict) -> list[str]:
    """Where the weights come from and what they scored."""
    source = metadata['source']
    options, metrics = source['options'], source['metrics']
    if not options:
        return ['The checkpoint does not say what it was trained on, nor any figures.']
    lines = [f'- {name}: `{value}`' for name, value in options.items()]
    if metrics:
        width, height = source['word_scale']
        threshold = source['conf_threshold']
        protocol = ''
        if 'icdar_hmean' in metrics and threshold is not None:
            scaled = f'boxes times {width:g} x {height:g} (width, height) about their centres'
            judged = 'quads' if metadata['quads'] else f'{scaled}; the boxes that this file gives are not scaled'
            protocol = f' icdar_* is ICDAR2015 task 4.1 at the threshold {threshold:g}, of {judged}.'
        averaged = 'averaged' in options
        moment = 'Of the average' if averaged else f'After epoch {source["epoch"]} (the first is 0)'
        if source['epoch'] == -1:
            moment = 'Of the weights that the training began with, as no epoch was better'
        last, kept = averaged or options.get('noval'), source.get('conf_threshold_from')
        chosen = 'threshold and scale' if last else 'epoch, threshold and scale'
        other = source.get('chosen_on') not in (None, options.get('data'))
        if kept or other:
            chosen = 'nothing' if last else 'the epoch'
        if threshold is None:  # of a training that goes on
            chosen = 'no threshold'
        elsewhere = f'Val of `{source["chosen_on"]}` chose the threshold. ' if other and not kept else ''
        scores = ', '.join(f'{name} {value:.4f}' for name, value in metrics.items())
        lines += [
            '',
            f'{moment}, on the split `val` of `{options.get("data", "unknown")}` at {options.get("imgsz", "unknown")} '
            f'pixels: {scores}. mAP as YOLOv5 defines it (confidence 0.001, NMS IoU 0.6), precision and recall are at '
            f'the best F1.{protocol} This split chose {chosen}. {elsewhere}'
            'For figures of a test set run `val.py --task test`.',
        ]
    return lines


def _contract(metadata: dict, batch: str) -> list[str]:
    """The lines of input and output; batch: the first dimension of both, '' for ncnn's tensors of one picture."""
    nms = metadata['nms']
    classes = len(metadata['names'])
    lines = [
        f'- `images` ({batch}3, H, W) float32, RGB, 0..1. The picture is '
        + (
            'resized to any long side, then centred on grey 114; H and W are the least multiples of 32 that leave 16 '
            'pixels of grey in all (640 x 480 becomes 672 x 512).'
            if metadata['dynamic']
            else 'scaled by the smaller of H / height and W / width, then centred on grey 114.'
            f'{" B is 1." if batch else ""}'
        )
    ]
    if nms:
        return [
            *lines,
            f'- `detections` (N, {6 + 8 * metadata["quads"]}): x1, y1, x2, y2 in pixels of the input, score, class'
            f'{", x and y of the four corners" if metadata["quads"] else ""}. '
            f'NMS is done: scores over {nms["conf_thres"]:g}, IoU {nms["iou_thres"]:g}, {nms["max_det"]} a class.',
            '- `picture` (N,) int64: which picture of the batch a row is from.',
        ]
    edges = ', and the four edges of a quad (docs/quads.md)' if metadata['quads'] else ''
    return [
        *lines,
        f'- `boxes` ({batch}M, {5 + classes + 4 * metadata["quads"]}) float32: centre x and y, width, height in pixels '
        f'of the input, objectness, class scores{edges}. Confidence is objectness times class score; NMS is yours to '
        f'do (detect.py: IoU {usual_iou(metadata["quads"])}).',
    ]
