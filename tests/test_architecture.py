"""Arrows point one way: commands -> utils -> models -> ocrdistill, and there is no circle of rooms."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from tests.support import ROOT

COMMANDS = {file.stem for file in ROOT.glob('*.py')}
FOLDERS = {'ocrdistill', 'models', 'utils', 'data', 'teacher', 'benchmarks'}
HEAVY = {'torch', 'torchvision', 'cv2', 'scipy', 'shapely', 'matplotlib', 'yaml', 'tqdm'}  # not for the runtime


def imports(file: Path) -> set[str]:
    """The project's own modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f'{node.module}.{alias.name}' for alias in node.names}
    return {name for name in found if name.split('.')[0] in FOLDERS | COMMANDS}


def room(name: str) -> str:
    """utils.training.loop.Trainer -> utils.training; models.yolo -> models."""
    parts = name.split('.')
    return '.'.join(parts[:2]) if parts[0] == 'utils' else parts[0]


def test_nothing_points_upwards():
    below: set[str] = set()
    for folder in ('ocrdistill', 'models', 'utils'):
        below.add(folder)
        above = FOLDERS - below
        for file in (ROOT / folder).rglob('*.py'):
            upwards = {name for name in imports(file) if name.split('.')[0] in above | COMMANDS}
            assert not upwards, f'{file} imports {upwards}'
    for file in (ROOT / 'data/formats').rglob('*.py'):
        scripts = {name for name in imports(file) if name.startswith('data.') and not name.startswith('data.formats')}
        assert not scripts, f'{file} imports {scripts}'


def test_the_runtime_needs_no_pytorch():
    for file in (ROOT / 'ocrdistill').rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not {name.split('.')[0] for name in names} & HEAVY, file


def test_rooms_make_no_circle():
    graph: dict[str, set[str]] = {}
    for file in (ROOT / 'utils').rglob('*.py'):
        own = room('.'.join(file.relative_to(ROOT).with_suffix('').parts))
        graph.setdefault(own, set()).update({room(name) for name in imports(file)} - {own, 'utils.__init__'})
    assert {'utils.training', 'utils.evaluation', 'utils.loading'} <= set(TopologicalSorter(graph).static_order())


def test_files_are_short():
    for folder in ('ocrdistill', 'utils', 'models', 'data'):
        long = {file.name for file in (ROOT / folder).rglob('*.py') if len(file.read_text().splitlines()) > 400}
        assert not long
