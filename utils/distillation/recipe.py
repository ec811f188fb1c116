"""A recipe: teacher, student and the distillation methods with layers, weights and options, from a yaml or a flag."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import UserError
from models.yamls import read_yaml
from utils.distillation import find_method
from utils.distillation.base import Method, Option
from utils.runtime.hyp import check_keys
from utils.training.options import DECAYS, DistillOptions, TeacherOptions

KEYS = (
    'teacher',
    'teacher_weights',
    'teacher_scale',
    'student',
    'student_weights',
    'warmup_epochs',
    'decay',
    'methods',
)
METHOD_KEYS = ('layers', 'teacher_layers', 'weights', 'options')
WEIGHT_FLAGS = {'mask_diff': 'mask', 'PFI_diff': 'pfi', 'feature_diff': 'hint'}  # option: method
REPLACED = {  # option: what it takes the place of
    'cfg_teacher': 'teacher',
    'cfg_student': 'student',
    'teacher_weights': 'teacher_weights',
    'student_weights': 'student_weights',
}
AUTO = 'auto'
AUTO_TOTAL = 0.3  # of the norm of the detection loss's gradient: the norms of all terms of weight 'auto', added


@dataclass
class MethodUse:
    """One method as a recipe uses it."""

    method: type[Method]
    layers: list[int]
    weights: dict[str, float | str]  # one for each of the method's terms: a number, or 'auto' or 'auto:RATIO'
    options: dict[str, float | str]  # those that differ from the method's defaults
    teacher_layers: list[int] | None = None  # the teacher's beside each of layers; None: the same


@dataclass
class Recipe:
    """A recipe's content; see recipes/xn_maskdiff_PFI.yaml for the form.

    Attributes:
        teacher, student: model yamls.
        teacher_weights, student_weights: checkpoints ('' for a student from scratch).
        teacher_scale: size of the teacher's pictures relative to the student's.
        warmup_epochs: over which distillation weights grow from 0.
        decay: how they end: 'constant', or falling to 0 along a line ('linear') or half a cosine ('cosine').
        methods: {name: MethodUse}.
    """

    teacher: str
    teacher_weights: str
    teacher_scale: float
    student: str
    student_weights: str
    warmup_epochs: float
    decay: str
    methods: dict[str, MethodUse]

    def teacher_imgsz(self, imgsz: int, crop: int | None = None) -> int | None:
        """Longer side in pixels of the teacher's pictures where it is not the student's.

        Raises:
            UserError: the network cannot take pictures of that size, or squares of `crop` pixels at that scale.
        """
        if self.teacher_scale == 1:
            return None
        size = round(imgsz * self.teacher_scale, 6)  # 800 times 2.2 is 1760.0000000000002
        if size < 64 or size % 32:
            raise UserError(
                f"teacher_scale {self.teacher_scale:g} makes {size:g} pixels of the student's {imgsz}, "
                f'expected a multiple of 32, at least 64'
            )
        if crop and round(crop * self.teacher_scale, 6) % 32:
            raise UserError(
                f'teacher_scale {self.teacher_scale:g} makes {crop * self.teacher_scale:g} pixels of --crop {crop}, '
                f'expected a multiple of 32'
            )
        return int(size)

    @property
    def needs_maps(self) -> bool:
        """Whether a method reads CRAFT's maps."""
        return any(use.method.NEEDS_MAPS for use in self.methods.values())

    @property
    def reads_teacher(self) -> bool:
        """Whether a method reads what the teacher says."""
        return any(use.method.READS_TEACHER for use in self.methods.values())

    def override(self, flag: str, method: str, value: float) -> None:
        """Set a method's weight from a command's flag: its first term gets the value, the others keep their ratio.

        Raises:
            UserError: the recipe does not use the method, or has no ratio to keep.
        """
        if method not in self.methods:
            raise UserError(
                f'{flag} has no effect: this recipe does not use {method} (it uses {", ".join(self.methods)})'
            )
        if not 0 <= value < math.inf:
            raise UserError(f'{flag} {value}: a weight is 0 or more')
        weights = self.methods[method].weights
        self.methods[method].weights = scaled_weights(weights, value, flag)

    def as_dict(self) -> dict[str, Any]:
        """The recipe as its yaml has it."""
        methods = {}
        for name, use in self.methods.items():
            methods[name] = {key: value for key in METHOD_KEYS if (value := getattr(use, key))}
        return {key: getattr(self, key) for key in KEYS[:-1]} | {'methods': methods}


def auto_ratios(weights: dict[str, float | str]) -> dict[str, float]:
    """{term: wanted gradient norm relative to the detection loss's} of the terms whose weight is automatic."""
    wanted = {term: weight for term, weight in weights.items() if isinstance(weight, str)}
    fraction = AUTO_TOTAL / max(sum(weight == AUTO for weight in wanted.values()), 1)
    return {term: _auto_ratio(weight) or fraction for term, weight in wanted.items()}


def scaled_weights(weights: Mapping[str, float | str], value: float, flag: str) -> dict[str, float | str]:
    """The weights with the first one at `value` and the others in the same ratio to it. Raises UserError."""
    first = next(iter(weights))
    numbers = {term: weight for term, weight in weights.items() if not isinstance(weight, str)}
    if len(numbers) < len(weights):
        if len(weights) > 1:
            raise UserError(f'{flag}: the recipe has automatic weights for {first}, of which no ratio can be kept')
        return {first: value}
    if numbers[first] == 0:
        raise UserError(f'{flag}: the recipe gives {first} the weight 0, of which no ratio can be kept')
    return {term: weight * value / numbers[first] for term, weight in numbers.items()}


def read_shorthand(text: str) -> dict[str, Any]:
    """'mask,pfi=20,cwd=auto' -> the `methods` of a recipe: each method with its defaults; a number is the weight of its
    first term, the others keep their ratio to it. Raises UserError."""
    methods = {}
    for entry in text.split(','):
        name, given, value = (part.strip() for part in entry.partition('='))
        if name in methods:
            raise UserError(f'--methods {text}: {name} stands there twice')
        terms = find_method(name).TERMS
        weights: dict[str, float | str] = {}
        if given and value.split(':')[0] == AUTO:
            weights |= dict.fromkeys(terms, value)
        elif given:
            try:
                weights = scaled_weights(terms, float(value), '--methods')
            except ValueError:
                raise UserError(f'--methods: {entry}: expected a number, or auto, after "="') from None
        methods[name] = {'weights': weights}
    return methods


def read_recipe(file: str, methods: str | None, options: TeacherOptions) -> Recipe:
    """A recipe under the options that replace parts of it.

    Args:
        file: its yaml.
        methods: shorthand in place of the yaml's methods.
        options: of distill.py, which has weights of methods too, or of compare.py.

    Raises:
        UserError: see parse_recipe; a weight of a method that is not used, or that the shorthand gives too.
    """
    content, source = read_yaml(file), file
    if methods:
        content['methods'], source = read_shorthand(methods), f'--methods {methods}'
    for name, key in (('kd_warmup', 'warmup_epochs'), ('kd_decay', 'decay')):
        if getattr(options, name) is not None:
            content[key] = getattr(options, name)
    recipe = parse_recipe(content, source)
    for name, attribute in REPLACED.items():
        if getattr(options, name) is not None:
            setattr(recipe, attribute, getattr(options, name))
    if not isinstance(options, DistillOptions):
        return recipe
    for name, method in WEIGHT_FLAGS.items():
        weight = getattr(options, name)
        if weight is not None and methods and _gives_weight(methods, method):
            raise UserError(f'--{name} contradicts --methods {methods}: both give a weight of {method}')
        if weight is not None:
            recipe.override(f'--{name}', method, weight)
    return recipe


def _gives_weight(methods: str, method: str) -> bool:
    parts = (part.partition('=') for part in methods.split(','))
    return any(equals and name.strip() == method for name, equals, _ in parts)


def parse_recipe(values: dict[str, Any], file: str | Path) -> Recipe:
    """Check a recipe's content.

    Args:
        values: as in the yaml.
        file: what errors name.

    Raises:
        UserError: unknown keys, methods, terms or options, or values of another form.
    """
    check_keys(values, KEYS, file)
    missing = [key for key in ('teacher', 'student', 'methods') if not values.get(key)]
    if missing:
        raise UserError(f'{file}: {", ".join(missing)} missing or empty')
    if not isinstance(values['methods'], dict):
        raise UserError(f'{file}: methods must be rows of the form "mask: {{layers: [17, 20, 23]}}"')
    warmup, decay = values.get('warmup_epochs', 3), values.get('decay', DECAYS[0])
    scale = values.get('teacher_scale', 1)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise UserError(f'{file}: teacher_scale is {scale!r}, expected a number above 0')
    if isinstance(warmup, bool) or not isinstance(warmup, int | float) or not 0 <= warmup < math.inf:
        raise UserError(f'{file}: warmup_epochs is {warmup!r}, expected a number of epochs, 0 or more')
    if decay not in DECAYS:
        raise UserError(f'{file}: decay is {decay!r}, expected one of {", ".join(DECAYS)}')
    return Recipe(
        teacher=str(values['teacher']),
        teacher_weights=str(values.get('teacher_weights') or ''),
        teacher_scale=scale,
        student=str(values['student']),
        student_weights=str(values.get('student_weights') or ''),
        warmup_epochs=warmup,
        decay=decay,
        methods={name: _read_use(name, use or {}, file) for name, use in values['methods'].items()},
    )


def _read_use(name: str, use: dict[str, Any], file: str | Path) -> MethodUse:
    method = find_method(name)
    if not isinstance(use, dict):
        raise UserError(f'{file}: {name} must hold some of {", ".join(METHOD_KEYS)}')
    check_keys(use, METHOD_KEYS, f'{file}: {name}')
    for key in ('weights', 'options'):
        if not isinstance(use.get(key) or {}, dict):
            raise UserError(f'{file}: {key} of {name} must be rows of the form "name: value"')
    given, options = use.get('weights') or {}, use.get('options') or {}
    check_keys(given, method.TERMS, f'{file}: weights of {name}')
    for term, weight in given.items():
        _check_weight(term, weight, file)
    check_keys(options, method.OPTIONS, f'{file}: options of {name}')
    for key, value in options.items():
        _check_option(f'{file}: {key} of {name}', value, method.OPTIONS[key])
    layers = use.get('layers', list(method.LAYERS))
    if not isinstance(layers, list) or any(type(layer) is not int for layer in layers):
        raise UserError(
            f'{file}: layers of {name} is {layers!r}, expected a list of layer numbers, such as [17, 20, 23]'
        )
    theirs = use.get('teacher_layers')
    if (layers or theirs is not None) and not method.LAYERS:
        raise UserError(f"{file}: {name} looks at the heads' maps, it takes no layers")
    numbers = isinstance(theirs, list) and all(type(layer) is int for layer in theirs)
    if theirs is not None and (not numbers or len(theirs) != len(layers)):
        raise UserError(
            f'{file}: teacher_layers of {name} must be a list of numbers, one for each of its layers {layers}'
        )
    if theirs is not None and method.NEEDS_MAPS:
        raise UserError(f"{file}: {name} looks at CRAFT's maps, it takes no teacher_layers")
    return MethodUse(method, layers, method.TERMS | given, options, theirs)


def _check_weight(term: str, weight: object, file: str | Path) -> None:
    if isinstance(weight, str) and (weight == AUTO or _auto_ratio(weight) is not None):
        return
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise UserError(
            f"{file}: the weight of {term} is {weight!r}, expected a number, 0 or more, or 'auto' or 'auto:RATIO'"
        )


def _auto_ratio(weight: str) -> float | None:
    """'auto:0.2' -> 0.2; None for anything else."""
    name, _, number = weight.partition(':')
    try:
        ratio = float(number)
    except ValueError:
        return None
    return ratio if name == AUTO and 0 < ratio < math.inf else None


def _check_option(what: str, value: Any, option: Option) -> None:
    if option.choices:
        if value not in option.choices:
            raise UserError(f'{what} is {value!r}, expected one of {", ".join(option.choices)}')
        return
    number = isinstance(value, int if isinstance(option.default, int) else int | float) and not isinstance(value, bool)
    if not number or not option.min <= value <= option.max:
        kind = 'a whole number' if isinstance(option.default, int) else 'a number'
        raise UserError(f'{what} is {value!r}, expected {kind} from {option.min:g} to {option.max:g}')
