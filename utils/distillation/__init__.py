"""Distillation methods, one a file, found by the file's name; and the Distiller that runs them.

The files lie in utils/distillation/methods.
"""

import importlib
from difflib import get_close_matches

from models.errors import UserError
from utils.distillation.methods import METHODS


def method_names() -> list[str]:
    """The names of all methods."""
    return list(METHODS)


def list_methods() -> str:
    """All methods, a line each: name, terms with default weights, and what it does."""
    rows = []
    for name in method_names():
        module = importlib.import_module(f'utils.distillation.methods.{name}')
        title = module.__doc__.strip().splitlines()[0].rstrip('.')
        terms = ', '.join(f'{term} {weight:g}' for term, weight in module.METHOD.TERMS.items())
        rows.append(f'{name:<9} {title}. Weights: {terms}')
    return '\n'.join(rows)


def find_method(name: str) -> type:
    """The class of a method. Raises UserError with the nearest name."""
    names = method_names()
    if name not in names:
        near = get_close_matches(str(name), names, n=1)
        hint = f', did you mean {near[0]!r}?' if near else f' (known: {", ".join(names)})'
        raise UserError(f'unknown distillation method {str(name)!r}{hint}')
    return importlib.import_module(f'utils.distillation.methods.{name}').METHOD
