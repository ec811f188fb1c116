"""Yaml files, of which nothing but plain data is ever made, and not too much of it."""

import codecs
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from models.errors import UserError

ROOT = Path(__file__).resolve().parents[1]  # of the program
MAX_BYTES = 1 << 20
MAX_NODES = 100_000  # aliases written out


class PlainLoader(yaml.SafeLoader):
    """A safe loader that refuses a mapping in which a key stands twice (one of the values would be lost), and aliases
    that make a small file large."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _size(node, {}) > MAX_NODES:
            raise yaml.MarkedYAMLError(problem=f'more than {MAX_NODES} values', problem_mark=node.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f'{key.value!r} stands there twice', problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Count of the values below a node, those of an alias each time it is named."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_NODES + 1  # what holds itself has no end
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for row in node.value for part in row]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def near_program(file: Path | str) -> Path:
    """A file as it is named, below the current folder; where there is none, the program's own of that name. What lies
    in runs/ is nobody's own: another run of that name would be taken for the one that is meant."""
    own = ROOT / file  # an absolute file is itself
    of_runs = Path(file).parts[:1] == ('runs',)
    return own if own.is_file() and not of_runs and not os.path.lexists(file) else Path(file)


def read_yaml(file: Path | str) -> dict[str, Any]:
    """The mapping in a yaml file; see near_program.

    Raises:
        UserError: no such file, not yaml (with the line), not a mapping of names to values, or far too large.
    """
    file = near_program(file)
    try:
        with open(file, 'rb') as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f'{file}: larger than {MAX_BYTES >> 20} MiB, no yaml of ours')
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # of PowerShell
        values = yaml.load(content.decode('utf-16' if wide else 'utf-8-sig'), PlainLoader)  # noqa: S506  a SafeLoader
    except FileNotFoundError:
        raise UserError(f'{file}: no such file') from None
    except IsADirectoryError:
        raise UserError(f'{file}: a folder, expected a yaml file') from None
    except OSError as error:
        raise UserError(f'{file}: cannot be read ({error.strerror})') from None
    except UnicodeDecodeError:
        raise UserError(f'{file}: no text, expected a yaml file') from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, 'problem_mark', None), getattr(error, 'problem', None) or 'cannot be parsed'
        where = f'line {mark.line + 1}, column {mark.column + 1}: ' if mark else ''
        raise UserError(f'{file}: not valid yaml: {where}{problem}') from None
    except UserError:
        raise
    except Exception as error:  # what yaml makes of !!int abc, of the 99th of May, of a thousand brackets
        raise UserError(f'{file}: not valid yaml: {type(error).__name__} {error}') from None
    if not isinstance(values, dict):
        raise UserError(f'{file}: expected rows of the form "name: value"')
    return values
