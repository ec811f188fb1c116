"""All that a run's metrics depend on, and how two runs differ in it."""

import json
import os
import subprocess
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch

from models.errors import UserError
from models.yamls import near_program, read_yaml
from utils.distillation.recipe import parse_recipe
from utils.loading.config import load_data_config
from utils.loading.labels import find_companion
from utils.loading.listing import digest, length, list_images, new_images
from utils.runtime.device import describe, find_device, has_bfloat16, processor_name
from utils.runtime.hyp import DEFAULTS
from utils.runtime.options import options_of
from utils.training.options import FROM_SCRATCH, TrainingOptions

# Training options that must be the same in every run, with their defaults; the others change no metric, or are compared
# by content (hyp, lr0 and label_smoothing as hyp.*; device as its type).
AGREED = {name: each.default for name, each in options_of(TrainingOptions).items() if each.agree}
FREE = options_of(TrainingOptions).keys() - AGREED
# Rules of training that have changed. Earlier versions did without telling: rates that fell from epoch to epoch.
RULES = {'fall of learning rates': 'from batch to batch'}
DEVICE_TYPE = 'device type'
UNKNOWN = 'unknown'  # content of a file that is not there any more
UNLABELLED = 'pictures without labels'
SPLITS = {f'pictures of {split}': split for split in ('train', 'val', 'test')}
# What a version meant that did not tell a setting.
EARLIER = (
    AGREED | {f'hyp.{name}': value for name, value in DEFAULTS.items()} | dict.fromkeys((*SPLITS, UNLABELLED), UNKNOWN)
)


def fingerprint(file: str) -> str:
    """What a file holds, in short: '' for no file, UNKNOWN for a missing one; a yaml's comments do not count."""
    if not file:
        return ''
    path = near_program(file)
    if not path.is_file():
        return UNKNOWN
    about = path.stat()
    return _fingerprint(str(path), about.st_mtime_ns, about.st_size)


@cache
def _fingerprint(file: str, _time: int, _size: int) -> str:
    """Once for each state of a file: a plan's teachers change while it runs."""
    yaml = file.endswith(('.yaml', '.yml'))
    content = json.dumps(read_yaml(file), sort_keys=True).encode() if yaml else Path(file).read_bytes()
    return f'sha256 {sha256(content).hexdigest()[:16]}'


@cache
def pictures(data: str, split: str) -> str:
    """The pictures of a split by name and size in bytes, and their labels, in short; UNKNOWN where there are none. Read
    once, as runs of one comparison share them."""
    try:
        files = list_images(load_data_config(data), split)
    except UserError:
        return UNKNOWN
    return content_of(files, ('labels', 'ignore'))


@cache
def unlabelled_pictures(place: str, data: str) -> str:
    """The same of pictures without labels (--unlabelled)."""
    try:
        files, _ = new_images(Path(place), load_data_config(data))
    except UserError:
        return UNKNOWN
    return content_of(files)


def content_of(files: list[Path], companions: tuple[str, ...] = ()) -> str:
    """Names, sizes in bytes and companions of pictures, in short; UNKNOWN if one is not there any more."""
    content = sha256()
    for file in files:
        if not (size := length(file)):
            return UNKNOWN
        content.update(f'{file.name} {size}'.encode(errors='surrogateescape'))
        for kind in companions:
            companion = find_companion(file, kind)
            content.update(digest(companion).encode() if companion else b'-')
    return f'{len(files)}, sha256 {content.hexdigest()[:16]}'


def flatten(content: dict, prefix: str) -> Iterator[tuple[str, object]]:
    """('prefix.key.key', value) of nested dicts."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from flatten(value, f'{prefix}.{key}')
        else:
            yield f'{prefix}.{key}', value


def settings_of(opt: dict, hyp: dict) -> dict[str, object]:
    """All that a run's metrics depend on, by name; files by their content.

    Args:
        opt: a run's opt.yaml, or what it would be; what an earlier version lacked was at its default.
        hyp: all hyperparameters.
    """
    found = {key: opt.get(key, default) for key, default in sorted(AGREED.items())}
    found |= {'data': os.path.normpath(opt['data']), DEVICE_TYPE: device_type(opt['device'])} | RULES
    found |= {name: pictures(opt['data'], split) for name, split in SPLITS.items()}
    found |= {**dict(flatten(hyp, 'hyp')), **dict(flatten(read_yaml(opt['data']), 'data'))}
    if 'recipe_content' not in opt:
        cfg = opt['cfg'] or ('' if opt['weights'] else FROM_SCRATCH)
        return found | {'cfg': fingerprint(cfg), 'weights': fingerprint(opt['weights'])}
    known = parse_recipe(opt['recipe_content'], 'opt.yaml')
    recipe = known.as_dict()
    for key in ('teacher', 'teacher_weights', 'student', 'student_weights'):
        found[key] = fingerprint(recipe.pop(key))
    del recipe['teacher_scale']  # teacher_imgsz tells it
    of_maps = ('maps',) if known.needs_maps else ()
    more = {key: opt.get(key) for key in ('teacher_imgsz', 'unlabelled', *of_maps)}
    if opt.get('unlabelled'):
        more[UNLABELLED] = unlabelled_pictures(opt['unlabelled'], opt['data'])
    return found | more | dict(flatten(recipe, 'recipe'))


def device_type(spec: str) -> str:
    """'cpu' or 'cuda' of a --device option."""
    if spec == 'cpu' or (not spec and not torch.cuda.is_available()):
        return 'cpu'
    return 'cuda'


def first_difference(then: dict, now: dict) -> str | None:
    """The first setting that differs, with both values; None if none does."""
    for key in dict.fromkeys((*now, *then)):
        if key in FREE:  # an earlier version told it
            continue
        values = then.get(key, EARLIER.get(key)), now.get(key)
        if values[0] != values[1] and UNKNOWN not in values:
            return f'{key} was {values[0]!r}, now it is {values[1]!r}'
    return None


def processor(device: str) -> str:
    """The kind of processor that runs compute on: that of the GPU where one is used. Virtual machines often give
    processors with and without bfloat16 one name; networks train in it where it is."""
    chosen = find_device(device)
    if chosen.type == 'cuda':
        return describe(chosen)
    return processor_name() + (', bfloat16' if has_bfloat16(chosen) else '')


def machine(device: str) -> str:
    """The processor, and the GPU where the runs use one."""
    text = f'{processor("cpu")}, {os.cpu_count()} cores'
    chosen = find_device(device)
    return f'{text}; {describe(chosen)}' if chosen.type == 'cuda' else f'{text}; no GPU used'


@cache
def commit() -> str:
    """The commit of the code, '+' at its end where tracked files but results differ from it; UNKNOWN without git."""
    git = ['git', '-C', str(Path(__file__).parent)]
    code = ['--', ':/', ':(top,exclude)docs/evidence/*.csv']
    try:
        found = subprocess.run([*git, 'rev-parse', '--short=10', 'HEAD'], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, 'diff', '--quiet', 'HEAD', *code], capture_output=True, check=False)
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return found.stdout.strip() + ('+' if changed.returncode else '')
