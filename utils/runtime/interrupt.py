"""Ctrl-C, SIGTERM and SIGHUP in a loop that must not stop just anywhere."""

import contextlib
import signal
import sys
from collections.abc import Iterator

from models.errors import Interrupted
from ocrdistill.signals import STOPPING, let_go_of_terminal


class StopRequest:
    """While entered, the first Ctrl-C, SIGTERM or SIGHUP is only noted; a second one interrupts at once.

    Signals that were ignored before (nohup) stay so.

    Attributes:
        number: of the signal that was noted, 0 if none was.
    """

    def __init__(self):
        self.number, self.deferring, self._before = 0, True, {}

    def __enter__(self) -> 'StopRequest':
        for number in (signal.SIGINT, *STOPPING):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, _frame) -> None:
        let_go_of_terminal(number)
        if self.number or not self.deferring:
            raise Interrupted(number)
        self.number = number
        with contextlib.suppress(RuntimeError):  # the signal came while a line was being written there
            print('\nstopping after this step, which is saved; once more: at once', file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """For a stretch that may be interrupted anywhere."""
        self.deferring = False
        try:
            if self.number:
                raise Interrupted(self.number)
            yield
        finally:
            self.deferring = True
