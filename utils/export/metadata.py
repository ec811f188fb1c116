"""What an exported file says of itself: how to use it, and where it comes from."""

import math
from pathlib import Path

from models.checkpoint import Checkpoint
from models.yolo import DetectionModel
from ocrdistill.letterbox import BORDER, GREY
from ocrdistill.metadata import FORMAT, VERSION
from ocrdistill.points import UNSCALED, to_plain
from utils.runtime.run_folder import versions

# Of a checkpoint's options, those that tell what its figures are worth; paths of outputs and the like stay behind.
TOLD = ('kind', 'data', 'epochs', 'imgsz', 'crop', 'batch_size', 'seed', 'weights', 'cfg', 'student_weights', 'noval')
TOLD += ('recipe', 'methods', 'teacher_weights', 'maps')
TOLD += ('averaged', 'shares')  # of teacher/average.py
LICENCES = {
    True: 'Program: Apache-2.0. Weights: what the terms of the training data and of the starting weights allow.',
    False: 'Of the weights: their publisher says (public YOLOv5 weights: AGPL-3.0 or GPL-3.0).',
}


def describe(
    checkpoint: Checkpoint,
    model: DetectionModel,
    *,
    size: tuple[int, int],
    dynamic: bool,
    precision: str,
    licence: str | None = None,
) -> dict:
    """Metadata of an export, plain data.

    Args:
        checkpoint: what is exported.
        model: its network.
        size: (H, W) in pixels; with `dynamic` the size that is suggested.
        precision: 'float32', 'float16' or 'int8'.
        licence: of the weights; None says what is known.
    """
    own = checkpoint.meta.get('format') == FORMAT
    threshold, scale = model.point_at(max(size))
    options, metrics = checkpoint.meta.get('options') or {}, checkpoint.meta.get('metrics') or {}
    return {
        'format': FORMAT,
        'version': VERSION,
        'names': {str(number): name for number, name in model.names.items()},
        'quads': model.quads,
        'stride': int(model.stride.max()),
        'imgsz': list(size),
        'dynamic': dynamic,
        'precision': precision,
        'preprocessing': {
            'colours': 'RGB',
            'range': [0, 1],
            'layout': 'NCHW',
            'letterbox': (
                f'long side to imgsz, centred on grey {GREY}, sides the least multiples of stride that leave '
                f'{BORDER:g} stride of grey in all'
                if dynamic
                else f'scaled by the smaller of H / height and W / width, centred on grey {GREY}'
            ),
        },
        'conf_threshold': threshold,
        'word_scale': list(scale),
        'points': to_plain(model.points),
        'nms': None,  # conf_thres, iou_thres, max_det, where a format puts NMS inside
        'license': licence or LICENCES[own],
        'source': {
            'file': Path(checkpoint.path).name,
            'options': {name: _told(options[name]) for name in TOLD if _says_something(name, options)},
            'epoch': checkpoint.meta.get('epoch'),
            # Without NaN, the score of an epoch that was not validated: JSON has no such number.
            'metrics': {name: value for name, value in metrics.items() if math.isfinite(value)},
            'conf_threshold': checkpoint.meta.get('conf_threshold'),  # of the metrics
            'word_scale': list(checkpoint.meta.get('word_scale') or UNSCALED),
            'chosen_on': _told(checkpoint.meta.get('chosen_on')),  # None: on val of the training's data
            'conf_threshold_from': checkpoint.meta.get('conf_threshold_from'),  # None: chosen on val
        },
        'versions': versions(),
    }


def _says_something(name: str, options: dict) -> bool:
    """Whether an option was given, and had a use: methods replace the recipe, and CRAFT's maps the teacher."""
    if name == 'recipe' and options.get('methods'):
        return False
    if name == 'teacher_weights' and options.get('teacher_scores') == {}:  # its scores are asked for where it is read
        return False
    return options.get(name) not in (None, '')


def _told(value):
    """An option's value; of a path from the root only the name, as the rest tells of a machine."""
    if isinstance(value, list):
        return [_told(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
