"""SIGTERM and SIGHUP end a command as Ctrl-C does, so that one path saves what there is."""

import contextlib
import os
import signal
import stat
from typing import Any

from ocrdistill.errors import Interrupted

# SIGHUP comes when the terminal or its connection is closed; Windows has none.
HANGUP = getattr(signal, 'SIGHUP', None)
STOPPING = (signal.SIGTERM, HANGUP) if HANGUP else (signal.SIGTERM,)


def raise_on_signals() -> None:
    """Let both raise Interrupted, unless they are ignored (nohup)."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, _frame: Any) -> None:
    let_go_of_terminal(number)
    raise Interrupted(number)


def let_go_of_terminal(number: int) -> None:
    """After SIGHUP nobody reads the terminal, and every write to it fails: write nowhere instead."""
    if number == HANGUP:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in (1, 2):
            with contextlib.suppress(OSError):  # closed before
                if stat.S_ISCHR(os.fstat(output).st_mode):  # no file or pipe
                    os.dup2(nowhere, output)
        os.close(nowhere)
