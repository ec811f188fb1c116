"""How every command starts and ends: exit status, one-line errors."""

import contextlib
import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import IO, Any

from ocrdistill.errors import UserError
from ocrdistill.signals import raise_on_signals

NAMELESS = (errno.ENOSPC, errno.EDQUOT, errno.EPIPE)  # a full disk; a reader that went away, of /dev/stdout say


def say_last(line: str) -> None:
    """A last line on standard error."""
    print(line, file=sys.stderr)


class Outlasting:
    """A text stream whose reader may go away (head, less, a tee that Ctrl-C ended): what follows leads nowhere, and the
    command goes on, as its results are in files."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable[..., Any], *arguments: str) -> None:
        try:
            act(*arguments)
        except OSError as error:
            if not is_broken_pipe(error):
                raise
            silence(self._stream)


def end_plainly(main: Callable[[], None], say: Callable[[str], None] = say_last) -> None:
    """Run a command's main and end the process with its status.

    0 on success; 1 with one line on standard error for a UserError, or an OSError about a file; 130, 143 and 129 after
    Ctrl-C, SIGTERM and SIGHUP, of which the latter two are turned into KeyboardInterrupt, so that one path saves what
    there is. argparse exits with 2 by itself.
    """
    with contextlib.ExitStack() as streams:
        if sys.stdout is not None:  # if it is closed, print writes nowhere
            streams.enter_context(contextlib.redirect_stdout(Outlasting(sys.stdout)))
        # Where standard error is closed, print would write to standard output.
        errors = sys.stderr or streams.enter_context(open(os.devnull, 'w', encoding='utf-8'))
        streams.enter_context(contextlib.redirect_stderr(Outlasting(errors)))
        _end(main, say)


def _end(main: Callable[[], None], say: Callable[[str], None]) -> None:
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
    except MemoryError:
        say('error: there is not enough memory')
        sys.exit(1)
    except KeyboardInterrupt as error:
        say('interrupted')
        sys.exit(128 + getattr(error, 'signal', signal.SIGINT))
    except OSError as error:  # a folder that may not be entered, a name that is too long
        if error.filename is None and error.errno not in NAMELESS:
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
