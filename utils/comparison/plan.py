"""The yaml of a plan: rows with flags of their own, and the steps in which they are run. Its keys are explained in
docs/evidence/README.md."""

import contextlib
import io
import json
import shlex
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from models.errors import UserError
from models.yamls import near_program, read_yaml
from utils.comparison.ledger import KINDS
from utils.comparison.settings import AGREED, RULES
from utils.distillation.recipe import Recipe, read_recipe
from utils.loading.config import listed, load_data_config, place_below
from utils.runtime.hyp import DEFAULTS, check_keys, hyp_of
from utils.runtime.options import MAX_SIDE, parse
from utils.training.options import FROM_SCRATCH, DistillOptions, TrainOptions

KEYS = ('flags', 'ms', 'sizes', 'comparison', 'rows', 'steps')
ROW_KEYS = ('kind', 'comparison', 'method', 'flags')
STEP_KEYS = ('question', 'rows', 'seeds')
ALL = 'all'  # kinds
# The method of the rows that others are compared with. Other controls, such as one with another learning rate, are rows
# of kind control with a method of their own.
CONTROL = 'control'
START = 'the start'
VARIED = {'epochs', 'seed', 'data'}  # options in which rows of a comparison may differ
MULTIPLE = 32  # of pixels, that networks take


@dataclass(frozen=True)
class Row:
    """What is trained with some seeds.

    Attributes:
        label: its name in the plan.
        kind: 'control', 'recipe' or 'teacher'.
        comparison: rows of one may be compared.
        method: what it does, under one name for all lengths and numbers of labels.
        flags: of train.py, of a recipe of distill.py; those that all runs and its kind have come first.
        options: what they mean.
        ms: milliseconds that a crop is expected to take; 0: not known.
    """

    label: str
    kind: str
    comparison: str
    method: str
    flags: list[str]
    options: TrainOptions | DistillOptions
    ms: float

    @cached_property
    def recipe(self) -> Recipe | None:
        """Of a row that is taught."""
        options = self.options
        return read_recipe(options.recipe, options.methods, options) if isinstance(options, DistillOptions) else None

    @cached_property
    def settings(self) -> str:
        """A digest of what the plan says of it, but the seed: it tells a row from what it was before a change. Weights
        are told by their names, not by their content."""
        options = self.options
        content: dict[str, Any] = RULES | {'kind': self.kind, 'start': _start(self)}
        # What is at its default is left out: later versions may have more options.
        content |= {
            name: getattr(options, name) for name, default in AGREED.items() if getattr(options, name) != default
        }
        content |= {name: value for name, value in hyp_of(options).items() if value != DEFAULTS[name]}
        if isinstance(options, TrainOptions) and options.cfg:
            content['cfg'] = options.cfg
        data = read_yaml(options.data)
        content['data'] = {name: value for name, value in data.items() if name not in ('path', 'prepare')}
        if isinstance(options, DistillOptions) and self.recipe is not None:
            recipe = self.recipe.as_dict()
            content['recipe'] = {name: value for name, value in recipe.items() if value not in (None, '')}
            content['unlabelled'] = options.unlabelled
            content |= {'teacher_imgsz': options.teacher_imgsz} if options.teacher_imgsz else {}
            content |= {'maps': options.maps} if self.recipe.needs_maps else {}
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Step:
    """Rows that are run with the same seeds, seed by seed, and the question that they answer."""

    question: str
    rows: list[str]
    seeds: list[int]


@dataclass(frozen=True)
class Plan:
    """A plan as its yaml has it; sizes: longer sides in pixels at which every network is evaluated."""

    file: Path
    sizes: list[int]
    rows: dict[str, Row]
    steps: list[Step]


def read_plan(file: Path) -> Plan:
    """Read a plan. Raises UserError: no such file, an unknown key, row or flag, a value of the wrong form."""
    file = near_program(file)  # its csv lies beside it
    content = _mapping(read_yaml(file), KEYS, str(file))
    if missing := [name for name in ('sizes', 'comparison', 'rows', 'steps') if not content.get(name)]:
        raise UserError(f'{file}: {missing[0]} is missing or empty')
    flags = _mapping(content.get('flags') or {}, (ALL, *KINDS), f'{file}: flags')
    ms = _mapping(content.get('ms') or {}, KINDS, f'{file}: ms')
    if wrong := [value for value in ms.values() if type(value) not in (int, float)]:
        raise UserError(f'{file}: ms has {wrong[0]!r}, expected milliseconds')
    rows = {}
    for label, row in _mapping(content['rows'], None, f'{file}: rows').items():
        rows[label] = _read_row(label, row, flags, ms, str(content['comparison']), file)
    _refuse_unlike(list(rows.values()), file)
    if not isinstance(content['steps'], list):
        raise UserError(f'{file}: steps is {content["steps"]!r}, expected a list')
    steps = [_read_step(step, rows, f'{file}: step {number}') for number, step in enumerate(content['steps'], 1)]
    sizes = content['sizes']
    if not _numbers(sizes) or not all(MULTIPLE <= size <= MAX_SIDE and size % MULTIPLE == 0 for size in sizes):
        raise UserError(f'{file}: sizes is {sizes!r}, expected a list of pixels, multiples of {MULTIPLE}')
    if len(set(sizes)) < len(sizes):
        raise UserError(f'{file}: sizes is {sizes!r}, which has one twice')
    return Plan(file, sorted(content['sizes']), rows, steps)


def _read_row(label: Any, row: Any, flags: dict, ms: dict, comparison: str, file: Path) -> Row:
    place = f'{file}: row {label}'
    if not isinstance(label, str):  # the csv would give back another value
        raise UserError(f'{place}: its name is {label!r}, expected text: put it in quotation marks')
    kind = _mapping(row, ROW_KEYS, place).get('kind')
    if kind not in KINDS:
        raise UserError(f'{place}: kind is {kind!r}, expected one of {", ".join(KINDS)}')
    given = [str(text or '') for text in (flags.get(ALL), flags.get(kind), row.get('flags'))]
    try:
        words = [word for text in given for word in shlex.split(text)]
        with contextlib.redirect_stderr(io.StringIO()) as said:
            options = parse(DistillOptions if kind == 'recipe' else TrainOptions, None, words)
    except SystemExit:
        raise UserError(f'{place}: {said.getvalue().rpartition("error: ")[2]}') from None
    except ValueError as error:  # a quotation mark without its other
        raise UserError(f'{place}: {error} in its flags') from None
    load_data_config(options.data)  # a mistake must not show hours later
    if options.batch_size == -1:
        raise UserError(f'{place}: --batch-size -1 goes by the free memory, so that rows could differ: name a number')
    if not options.noval and 0 < options.patience < options.epochs:
        raise UserError(f'{place} could stop early, and rows of one length would differ: give --noval or --patience 0')
    if isinstance(options, DistillOptions):
        read_recipe(options.recipe, options.methods, options)
    method = str(row.get('method') or (CONTROL if kind == 'control' else label))
    return Row(label, kind, str(row.get('comparison') or comparison), method, words, options, float(ms.get(kind) or 0))


def _refuse_unlike(rows: list[Row], file: Path) -> None:
    """Raise a UserError where a row is evaluated on other data than the control that it is compared with, or a recipe's
    options are not the control's."""
    controls = {row.comparison: row for row in reversed(rows) if row.method == CONTROL}
    for row in rows:
        control = controls.get(row.comparison)
        if control is None:
            continue
        if _judged_on(control) != _judged_on(row):
            raise UserError(f'{file}: {control.label} and {row.label} have other data in val or test, or other classes')
        if row.kind == 'teacher' or (row.kind == 'control' and row.method != CONTROL):
            continue
        for name in (START, *sorted(AGREED.keys() - VARIED)):
            values = [_start(each) if name == START else getattr(each.options, name) for each in (control, row)]
            if values[0] != values[1]:
                raise UserError(f'{file}: {name} is {values[0]!r} in {control.label} and {values[1]!r} in {row.label}')
        if not _start(control) and _network(control) != _network(row):
            raise UserError(f'{file}: {control.label} and {row.label} train different networks')
        if hyp_of(control.options) != hyp_of(row.options):
            raise UserError(f'{file}: {control.label} and {row.label} have other hyperparameters (--hyp, --lr0)')


def _judged_on(row: Row) -> tuple:
    """What a row's figures are of: the places of val and test, the classes, and the protocol."""
    data = load_data_config(row.options.data)
    places = [
        [place_below(data.path, place) or data.path / place for place in listed(data.splits.get(split, []))]
        for split in ('val', 'test')
    ]
    return [[place.resolve() for place in of_split] for of_split in places], data.names, data.dont_care


def _start(row: Row) -> str:
    """The weights that the student begins with."""
    weights = row.recipe.student_weights if row.recipe else getattr(row.options, 'weights', '')
    return Path(weights).as_posix() if weights else ''


def _network(row: Row) -> dict[str, Any]:
    """What the student's yaml holds, for a training from scratch; without its anchors, as the teacher gives those."""
    file = row.recipe.student if row.recipe else getattr(row.options, 'cfg', '') or FROM_SCRATCH
    return {name: value for name, value in read_yaml(file).items() if name != 'anchors'}


def _read_step(step: Any, rows: dict[str, Row], place: str) -> Step:
    named, seeds = (_mapping(step, STEP_KEYS, place).get(name) for name in ('rows', 'seeds'))
    if not named or not isinstance(named, list) or not all(isinstance(n, str) for n in named) or not _numbers(seeds):
        raise UserError(f'{place}: rows and seeds must be lists of names and of numbers')
    if unknown := [label for label in named if label not in rows]:
        raise UserError(f'{place} names the row {unknown[0]!r}, which is not in rows')
    for values in (named, seeds):
        if twice := [value for value in values if values.count(value) > 1]:
            raise UserError(f'{place} names {twice[0]!r} twice')
    return Step(str(step.get('question', '')), named, seeds)


def _mapping(value: Any, known: tuple[str, ...] | None, place: str) -> dict:
    """The value, which must be a mapping of known keys. Raises UserError."""
    if not isinstance(value, dict):
        raise UserError(f'{place} is {value!r}, expected rows of the form "name: value"')
    if known is not None:
        check_keys(value, known, place)
    return value


def _numbers(value: Any) -> bool:
    """Whether a value is a list of whole numbers from 0, one at least."""
    return isinstance(value, list) and bool(value) and all(type(each) is int and each >= 0 for each in value)
