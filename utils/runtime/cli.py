"""How every command starts and ends: exit status, one-line errors."""

import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable

from models.errors import UserError
from ocrdistill.signals import raise_on_signals


def run_command(main: Callable[[], None]) -> None:
    """Run a command's main and end the process with its status.

    0 on success; 1 with one line on standard error for a UserError, or an OSError about a file; 130, 143 and 129 after
    Ctrl-C, SIGTERM and SIGHUP, of which the latter two are turned into KeyboardInterrupt, so that one path saves what
    there is. argparse exits with 2 by itself.
    """

    warnings.filterwarnings('ignore', module=r'PIL\.')  # of files that are broken, which our own lines name
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks ends no run
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')
    raise_on_signals()
    try:
        main()
    except UserError as error:
        _say(f'error: {" ".join(str(error).split())}')
        sys.exit(1)
    except KeyboardInterrupt as error:
        _say('interrupted')
        sys.exit(128 + getattr(error, 'signal', signal.SIGINT))
    except BrokenPipeError:
        # The reader of our output (head, less) went away: silence the interpreter's own complaint at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a folder that may not be entered, a name that is too long
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)  # a full disk has no name
        if error.filename is None and not full:
            raise
        place = f'{error.filename}: ' if error.filename is not None else ''
        _say(f'error: {place}{error.strerror}')
        sys.exit(1)
    except Exception as error:
        if type(error).__name__ == 'CalledProcessError':  # of subprocess: the child has said why, in its last line
            _say(f'error: {_last_words(error)}')
            sys.exit(1)
        if not _is_lack_of_memory(error):
            raise
        owner = 'GPU' if type(error).__name__ == 'OutOfMemoryError' else 'machine'
        _say(f'error: the {owner} ran out of memory; try a smaller --batch-size or --imgsz')
        sys.exit(1)


def positive(text: str) -> int:
    """A positive whole number, as a type for argparse."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _say(message: str) -> None:
    """A last line on standard error; a progress bar that is not at its end ends its own line first."""
    if 'tqdm' in sys.modules:
        for bar in list(getattr(sys.modules['tqdm'].tqdm, '_instances', ())):
            bar.close()
    print(message, file=sys.stderr)


def _last_words(error) -> str:
    """Of a subprocess.CalledProcessError."""
    said = error.stderr or ''
    lines = (said if isinstance(said, str) else said.decode(errors='replace')).strip().splitlines()
    return f'a command ended with status {error.returncode}: {lines[-1] if lines else error.cmd}'


def _is_lack_of_memory(error: Exception) -> bool:
    """Of Python, NumPy, OpenCV or PyTorch, none of which is imported here."""
    names = {base.__name__ for base in type(error).__mro__}
    words = ('not enough memory', "can't allocate memory", 'Insufficient memory', 'Failed to allocate')
    return bool(names & {'MemoryError', 'OutOfMemoryError'}) or any(word in str(error) for word in words)
