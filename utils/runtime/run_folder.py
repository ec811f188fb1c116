"""A run's folder and the small files in it."""

import contextlib
import csv
import io
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from models.errors import UserError
from ocrdistill.whole_files import replacing


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


_locks: set[int] = set()  # file descriptors of sole_writer()


def _forget_locks() -> None:
    while _locks:
        os.close(_locks.pop())


if hasattr(os, 'register_at_fork'):
    # A process that reads pictures may outlive its run for some seconds, and must not keep the run's lock.
    os.register_at_fork(after_in_child=_forget_locks)


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other runs and comparisons out of a folder while entered. Raises UserError where one is in it.

    The lock is the system's, on the folder itself, and ends with the process, however that ends. Windows and some
    network file systems have none: nothing is refused there.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    lock = os.open(folder, os.O_RDONLY)
    _locks.add(lock)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f'{folder}: another process is writing to it') from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        _locks.remove(lock)
        os.close(lock)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file: it is there whole or not at all. Raises UserError."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, content) -> None:
    """The same of plain data as JSON."""
    write_text(path, json.dumps(content, indent=2) + '\n')


def write_yaml(path: Path, content: dict) -> None:
    """The same of plain data as yaml, keys in their order."""
    import yaml

    write_text(path, yaml.safe_dump(content, sort_keys=False))


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write a csv whose columns are the keys of all rows; what a row lacks is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(name for row in rows for name in row), lineterminator='\n')
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
