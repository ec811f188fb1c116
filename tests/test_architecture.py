"""The rooms: arrows point from commands to utils to models, and never in a circle (docs/architecture.md)."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT


def imported(file: Path) -> set[str]:
    """The modules that a file imports, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update({node.module} | {f'{node.module}.{name.name}' for name in node.names})
    return found


@pytest.mark.parametrize(
    ('folder', 'above'), [('models', ['utils', 'data']), ('utils', ['data', 'benchmarks']), ('data/formats', [])]
)
def test_no_arrow_points_upwards(folder, above):
    commands = {file.stem for file in ROOT.glob('*.py')}
    refused = commands | set(above) | {'teacher', 'tests'} | {f'data.{file.stem}' for file in ROOT.glob('data/*.py')}
    for file in (ROOT / folder).rglob('*.py'):
        tops = {name.partition('.')[0] for name in imported(file)} | imported(file)
        assert not tops & refused, file


def test_rooms_use_each_other_in_no_circle():
    rooms = {path.name for path in (ROOT / 'utils').iterdir() if (path / '__init__.py').is_file()}
    graph = {
        room: {name.split('.')[1] for file in (ROOT / 'utils' / room).rglob('*.py') for name in imported(file)
               if name.startswith('utils.') and name.split('.')[1] in rooms - {room}}
        for room in rooms
    }  # fmt: skip
    assert len(list(TopologicalSorter(graph).static_order())) == len(rooms)  # raises CycleError
    assert {'evaluation', 'loading', 'runtime'} <= graph['training'] and not graph['runtime']
