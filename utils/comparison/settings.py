"""All that a run's figures depend on, and how two runs differ in it."""

import argparse
import contextlib
import json
import os
import platform
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch

from utils.distillation.recipe import parse_recipe
from utils.runtime.device import describe, find_device
from utils.runtime.hyp import read_yaml
from utils.runtime.options import add_training_options

# Change no figure, or are compared by content (hyp, lr0 and label_smoothing as hyp.*; device as its type).
UNTOLD = {
    'name',
    'project',
    'exist_ok',
    'resume',
    'workers',
    'cache',
    'save_period',
    'save_every',
    'skip_nonfinite',  # but for the steps that it leaves out, where a run would have stopped
    'noplots',
    'device',
    'hyp',
    'lr0',
    'label_smoothing',
}
UNKNOWN = 'unknown'  # content of a file that is not there any more


@cache
def fingerprint(file: str) -> str:
    """What a file holds, in short: '' for no file, UNKNOWN for a missing one; a yaml's comments do not count."""
    if not file:
        return ''
    if not Path(file).is_file():
        return UNKNOWN
    yaml = file.endswith(('.yaml', '.yml'))
    content = json.dumps(read_yaml(file), sort_keys=True).encode() if yaml else Path(file).read_bytes()
    return f'sha256 {sha256(content).hexdigest()[:16]}'


def flatten(content: dict, prefix: str) -> Iterator[tuple[str, object]]:
    """('prefix.key.key', value) of nested dicts."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from flatten(value, f'{prefix}.{key}')
        else:
            yield f'{prefix}.{key}', value


@cache
def shared_options() -> frozenset[str]:
    """Names of the training options that must be the same in every run."""
    parser = argparse.ArgumentParser()
    add_training_options(parser)
    return frozenset(vars(parser.parse_args([]))) - UNTOLD


def settings_of(opt: dict, hyp: dict) -> dict[str, object]:
    """All that a run's figures depend on, by name; files by their content.

    Args:
        opt: a run's opt.yaml, or what it would be.
        hyp: all hyperparameters.
    """
    found = {key: opt.get(key) for key in sorted(shared_options())}
    found |= {'data': os.path.normpath(opt['data']), 'device type': device_type(opt['device'])}
    found |= {**dict(flatten(hyp, 'hyp')), **dict(flatten(read_yaml(opt['data']), 'data'))}
    if 'recipe_content' not in opt:
        cfg = opt['cfg'] or ('' if opt['weights'] else 'models/yolov5n.yaml')
        return found | {'cfg': fingerprint(cfg), 'weights': fingerprint(opt['weights'])}
    recipe = parse_recipe(opt['recipe_content'], 'opt.yaml').as_dict()
    for key in ('teacher', 'teacher_weights', 'student', 'student_weights'):
        found[key] = fingerprint(recipe.pop(key))
    del recipe['teacher_scale']  # teacher_imgsz tells it
    more = {key: opt.get(key) for key in ('teacher_imgsz', 'unlabelled')}
    return found | more | dict(flatten(recipe, 'recipe'))


def device_type(spec: str) -> str:
    """'cpu' or 'cuda' of a --device option."""
    if spec == 'cpu' or (not spec and not torch.cuda.is_available()):
        return 'cpu'
    return 'cuda'


def first_difference(then: dict, now: dict) -> str | None:
    """The first setting that differs, with both values; None if none does."""
    for key in dict.fromkeys((*now, *then)):
        if key in UNTOLD:  # an earlier version told it
            continue
        values = then.get(key), now.get(key)
        if values[0] != values[1] and UNKNOWN not in values:
            return f'{key} was {values[0]!r}, now it is {values[1]!r}'
    return None


def machine(device: str) -> str:
    """The processor, and the GPU where the runs use one."""
    names = []
    with contextlib.suppress(OSError):
        rows = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        names = [row.partition(':')[2].strip() for row in rows if row.startswith('model name')]
    text = f'{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores'
    chosen = find_device(device)
    return f'{text}; {describe(chosen)}' if chosen.type == 'cuda' else f'{text}; no GPU used'
