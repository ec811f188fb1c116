"""How every command starts and ends: exit status, one-line errors."""

import contextlib
import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import IO

from ocrdistill.errors import UserError
from ocrdistill.signals import raise_on_signals


def say_last(line: str) -> None:
    """A last line on standard error."""
    print(line, file=sys.stderr)


def end_plainly(main: Callable[[], None], say: Callable[[str], None] = say_last) -> None:
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
        if sys.stdout is not None:
            sys.stdout.flush()  # here, and not when the interpreter ends, where a failure has no handler
    except UserError as error:
        say(f'error: {" ".join(str(error).split())}')
        sys.exit(1)
    except KeyboardInterrupt as error:
        say('interrupted')
        sys.exit(128 + getattr(error, 'signal', signal.SIGINT))
    except OSError as error:  # a folder that may not be entered, a name that is too long
        if is_broken_pipe(error):  # the reader of our output (head, less) went away: no complaint at exit
            silence(sys.stdout)
            return
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):  # a full disk has no name
            raise
        if error.filename is None and sys.stdout is not None:
            with contextlib.suppress(OSError):
                sys.stdout.flush()  # it may be another disk that is full
            with contextlib.suppress(OSError):  # of a stream that is no file
                silence(sys.stdout)  # if not, what it holds would fail once more
        say(f'error: {"" if error.filename is None else f"{error.filename}: "}{error.strerror}')
        sys.exit(1)


def is_broken_pipe(error: OSError) -> bool:
    """Whether the reader of a stream has gone. Windows says so by another number."""
    gone = os.name == 'nt' and error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or gone


def silence(stream: IO[str]) -> None:
    """Let a stream lead nowhere, so that no later line or flush complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
