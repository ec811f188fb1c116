"""Hyperparameters: their names, defaults and ranges, read from a yaml of data/hyps."""

import math
from difflib import get_close_matches
from pathlib import Path

from models.errors import UserError
from models.yamls import read_yaml

# name: (default, minimum, maximum). Meanings and units stand in data/hyps/scratch-low.yaml.
RANGES = {
    'lr0': (0.01, 0.0, 1.0),
    'lrf': (0.01, 0.0, 1.0),
    'momentum': (0.937, 0.0, 0.9999),
    'weight_decay': (0.0005, 0.0, 1.0),
    'warmup_epochs': (3.0, 0.0, 1000.0),
    'warmup_momentum': (0.8, 0.0, 0.9999),
    'warmup_bias_lr': (0.1, 0.0, 1.0),
    'box': (0.05, 0.0, 100.0),
    'cls': (0.5, 0.0, 100.0),
    'cls_pw': (1.0, 0.01, 100.0),
    'obj': (1.0, 0.0, 100.0),
    'obj_pw': (1.0, 0.01, 100.0),
    'edge': (0.1, 0.0, 100.0),
    'quad': (0.05, 0.0, 100.0),
    'quad_warmup': (1.0, 0.0, 1000.0),
    'iou_t': (0.2, 0.0, 1.0),
    'anchor_t': (4.0, 1.0, 100.0),
    'fl_gamma': (0.0, 0.0, 10.0),
    'label_smoothing': (0.0, 0.0, 0.5),
    'hsv_h': (0.015, 0.0, 0.5),
    'hsv_s': (0.7, 0.0, 1.0),
    'hsv_v': (0.4, 0.0, 1.0),
    'degrees': (0.0, 0.0, 180.0),
    'translate': (0.1, 0.0, 0.9),
    'scale': (0.5, 0.0, 0.95),
    'zoom': (0.0, 0.0, 10.0),
    'aspect': (0.0, 0.0, 2.0),
    'shear': (0.0, 0.0, 60.0),
    'perspective': (0.0, 0.0, 0.001),
    'flipud': (0.0, 0.0, 1.0),
    'fliplr': (0.5, 0.0, 1.0),
    'turn': (0.0, 0.0, 1.0),
    'mosaic': (1.0, 0.0, 1.0),
    'mixup': (0.0, 0.0, 1.0),
    'paste': (0.0, 0.0, 1.0),
    'dark': (0.0, 0.0, 1.0),
    'blur': (0.0, 0.0, 1.0),
    'noise': (0.0, 0.0, 1.0),
    'jpeg': (0.0, 0.0, 1.0),
}
DEFAULTS = {name: default for name, (default, _, _) in RANGES.items()}


def check_keys(given, known, file: Path | str) -> None:
    """Raise a UserError for the first key that is not known, with the nearest one that is."""
    for key in given:
        if key not in known:
            near = get_close_matches(str(key), list(known), n=1, cutoff=0.5)
            hint = f', did you mean {near[0]!r}?' if near else f' (known: {", ".join(known)})'
            raise UserError(f'{file}: unknown key {str(key)!r}{hint}')


def check_hyp(values: dict, source: Path | str = 'hyp') -> dict[str, float]:
    """All hyperparameters, the given ones over the defaults.

    Args:
        values: name -> number; text that is a number ('1e-3', which yaml reads as text) counts as one.
        source: what errors name.

    Returns:
        Every name of DEFAULTS -> float.

    Raises:
        UserError: an unknown name, a value that is no number, or one outside its range.
    """
    check_keys(values, RANGES, source)
    result = dict(DEFAULTS)
    for name, value in values.items():
        _, low, high = RANGES[name]
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isnan(number):
            raise UserError(f'{source}: {name} is {value!r}, expected a number')
        if not low <= number <= high:
            raise UserError(f'{source}: {name} is {number:g}, expected {low:g} to {high:g}')
        result[name] = number
    return result


def load_hyp(file: Path | str) -> dict[str, float]:
    """Read a hyperparameter yaml; see `check_hyp`."""
    return check_hyp(read_yaml(file), file)


def hyp_of(options) -> dict[str, float]:
    """The hyperparameters of a command: the file of --hyp under --lr0 and --label-smoothing. Raises UserError."""
    given = {'lr0': options.lr0, 'label_smoothing': options.label_smoothing}
    values = load_hyp(options.hyp) | {key: value for key, value in given.items() if value is not None}
    return check_hyp(values, 'options')
