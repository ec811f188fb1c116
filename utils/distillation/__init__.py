"""Distillation methods, one a file, found by their names in a registry; and the Distiller that runs them."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from typing import TYPE_CHECKING

from models.errors import UserError
from utils.distillation.methods import METHODS

if TYPE_CHECKING:
    from utils.distillation.base import Method


def list_methods() -> str:
    """All methods, a line each: name, what it does and its terms with default weights; or what is wrong with its
    file."""
    return '\n'.join(f'{name:<9} {_line(name)}' for name in METHODS)


def find_method(name: str) -> type[Method]:
    """The class of a method. Raises UserError: an unknown name (with the nearest one), or a file that is wrong."""
    if name not in METHODS:
        near = get_close_matches(str(name), METHODS, n=1)
        hint = f', did you mean {near[0]!r}?' if near else f' (known: {", ".join(METHODS)})'
        raise UserError(f'unknown distillation method {str(name)!r}{hint}')
    return _load(name)[0]


def _line(name: str) -> str:
    try:
        method, title = _load(name)
    except UserError as error:
        return f'cannot be used: {error}'
    terms = ', '.join(f'{term} {weight:g}' for term, weight in method.TERMS.items())
    return f'{title}. Weights: {terms}'


def _load(name: str) -> tuple[type[Method], str]:
    """The class of a known method, and the first line of its file's docstring. Raises UserError."""
    from utils.distillation.base import Method  # imports PyTorch

    module_name, wanted = f'utils.distillation.methods.{name}', METHODS[name]
    file = module_name.replace('.', '/') + '.py'
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a file raises that is wrong
        raise UserError(f'{file}: {type(error).__name__}: {" ".join(str(error).split())}') from error
    method, title = getattr(module, wanted, None), (module.__doc__ or '').strip()
    if not isinstance(method, type) or not issubclass(method, Method):
        raise UserError(f'{file}: there is no class {wanted} that extends Method')
    if not title:
        raise UserError(f'{file}: there is no docstring; its first line tells what the method does')
    if not method.TERMS:
        raise UserError(f'{file}: {wanted} has no TERMS')
    if method.forward is Method.forward:
        raise UserError(f'{file}: {wanted} has no forward')
    return method, title.splitlines()[0].rstrip('.')
