"""Files that are there whole or not at all."""

import contextlib
import os
import stat
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from ocrdistill.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, to write to; then it is flushed to the disk and takes the place of `path`.

    If anything fails or interrupts, what was at `path` before stays. A missing folder is made.

    Raises:
        UserError: the disk is full, or the folder cannot be made or written to.
    """
    # No longer than a name of its own needs: the file's may be as long as the system allows.
    temporary = path.with_name(f'.{zlib.crc32(os.fsencode(path.name)):08x}.{os.getpid()}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with contextlib.suppress(FileNotFoundError):  # there was none before
            os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
        _flush(temporary, os.O_RDWR)
        _take_place(temporary, path)
        with contextlib.suppress(OSError):  # of systems whose folders cannot be opened
            _flush(path.parent, os.O_RDONLY)  # the name itself must survive a power cut, too
    except OSError as error:
        raise UserError(f'cannot write {path}: {error.strerror or error}') from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _take_place(temporary: Path, path: Path) -> None:
    for wait in (0.1, 0.3, 1.0, None):
        try:
            os.replace(temporary, path)
            break
        except PermissionError:  # on Windows while another program reads the file, such as a virus scanner
            if wait is None or os.name != 'nt':
                raise
            time.sleep(wait)


def _flush(path: Path, mode: int) -> None:
    number = os.open(path, mode)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of writers that were killed. Only for folders that nobody else writes to."""
    for file in folder.glob('.*.tmp'):
        file.unlink(missing_ok=True)
