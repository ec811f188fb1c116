"""A run's folder and the small files in it."""

import csv
import io
import json
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from models.errors import UserError
from models.files import replacing


def make_run_folder(project: str | Path, name: str, exist_ok: bool = False) -> Path:
    """Create project/name, or name2, name3 ... if it exists and may not be reused. Raises UserError."""
    if not name:
        raise UserError('--name is empty')
    folder = Path(project) / name
    if exist_ok:
        return make_folder(folder)
    make_folder(folder.parent)
    number = 1
    while not _made(folder):
        number += 1
        folder = Path(project) / f'{name}{number}'
    return folder


def _made(folder: Path) -> bool:
    """Create a folder; False where it exists, if only because a run that started together with this one made it."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError(f'cannot make the folder {folder}: {error.strerror}') from None
    return True


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot make the folder {folder}: {error.strerror}') from None
    return folder


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file: it is there whole or not at all. Raises UserError."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, content) -> None:
    write_text(path, json.dumps(content, indent=2) + '\n')


def write_yaml(path: Path, content: dict) -> None:
    import yaml

    write_text(path, yaml.safe_dump(content, sort_keys=False))


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write a csv whose columns are the keys of the first row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(['python', *sys.argv])


def versions() -> dict[str, str]:
    """Versions of what a run's figures may depend on."""
    found = {'python': platform.python_version()}
    for package in ('torch', 'torchvision', 'numpy', 'opencv-python'):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = 'unknown'
    return found
