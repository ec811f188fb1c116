"""A recipe: teacher, student and the distillation methods with layers and weights, read from recipes/*.yaml."""

import math
from dataclasses import dataclass
from pathlib import Path

from models.errors import UserError
from utils.distillation import find_method
from utils.hyp import check_keys, read_yaml

KEYS = ('teacher', 'teacher_weights', 'student', 'student_weights', 'warmup_epochs', 'methods')
METHOD_KEYS = ('layers', 'weights')


@dataclass
class MethodUse:
    """One method as a recipe uses it."""

    method: type
    layers: list[int]
    weights: dict[str, float]  # one for each of the method's terms


@dataclass
class Recipe:
    """A recipe's content; see recipes/xn_maskdiff_PFI.yaml for the form.

    Attributes:
        teacher, student: model yamls.
        teacher_weights, student_weights: checkpoints ('' for a student from scratch).
        warmup_epochs: over which distillation weights grow from 0.
        methods: {name: MethodUse}.
    """

    teacher: str
    teacher_weights: str
    student: str
    student_weights: str
    warmup_epochs: float
    methods: dict[str, MethodUse]

    def override(self, flag: str, method: str, value: float) -> None:
        """Set a method's weight from a command's flag: its first term gets the value, the others keep their ratio.

        Raises:
            UserError: the recipe does not use the method.
        """
        if method not in self.methods:
            raise UserError(
                f'{flag} has no effect: this recipe does not use {method} (it uses {", ".join(self.methods)})'
            )
        if not 0 <= value < math.inf:
            raise UserError(f'{flag} {value}: a weight is 0 or more')
        weights = self.methods[method].weights
        first = next(iter(weights))
        if weights[first] == 0:
            raise UserError(f'{flag}: the recipe gives {first} the weight 0, of which no ratio can be kept')
        factor = value / weights[first]
        self.methods[method].weights = {term: weight * factor for term, weight in weights.items()}

    def as_dict(self) -> dict:
        """The recipe as its yaml has it."""
        methods = {name: {'layers': use.layers, 'weights': use.weights} for name, use in self.methods.items()}
        return {key: getattr(self, key) for key in KEYS[:-1]} | {'methods': methods}


def load_recipe(file: str | Path) -> Recipe:
    """Read a recipe's yaml; see parse_recipe."""
    return parse_recipe(read_yaml(file), file)


def parse_recipe(values: dict, file: str | Path) -> Recipe:
    """Check a recipe's content.

    Args:
        values: as in the yaml.
        file: what errors name.

    Raises:
        UserError: unknown keys, methods or terms, or values of another form.
    """
    check_keys(values, KEYS, file)
    missing = [key for key in ('teacher', 'student', 'methods') if not values.get(key)]
    if missing:
        raise UserError(f'{file}: {", ".join(missing)} missing or empty')
    if not isinstance(values['methods'], dict):
        raise UserError(f'{file}: methods must be rows of the form "mask: {{layers: [17, 20, 23]}}"')
    warmup = values.get('warmup_epochs', 3)
    if not isinstance(warmup, int | float) or not 0 <= warmup < math.inf:
        raise UserError(f'{file}: warmup_epochs is {warmup!r}, expected a number of epochs, 0 or more')
    return Recipe(
        teacher=str(values['teacher']),
        teacher_weights=str(values.get('teacher_weights') or ''),
        student=str(values['student']),
        student_weights=str(values.get('student_weights') or ''),
        warmup_epochs=warmup,
        methods={name: _read_use(name, use or {}, file) for name, use in values['methods'].items()},
    )


def _read_use(name: str, use: dict, file: str | Path) -> MethodUse:
    method = find_method(name)
    if not isinstance(use, dict):
        raise UserError(f'{file}: {name} must hold layers and weights')
    check_keys(use, METHOD_KEYS, f'{file}: {name}')
    given = use.get('weights') or {}
    if not isinstance(given, dict):
        raise UserError(f'{file}: weights of {name} must be rows of the form "{next(iter(method.TERMS))}: 0.04"')
    check_keys(given, method.TERMS, f'{file}: weights of {name}')
    for term, weight in given.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise UserError(f'{file}: the weight of {term} is {weight!r}, expected a number, 0 or more')
    layers = use.get('layers', list(method.LAYERS))
    if not isinstance(layers, list):
        raise UserError(f'{file}: layers of {name} must be a list of layer numbers')
    return MethodUse(method, layers, method.TERMS | given)
