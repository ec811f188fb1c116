"""What ends a command without a traceback."""

from ocrdistill.errors import UserError

__all__ = ['Interrupted', 'UserError']


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP; `signal` is its number. Commands exit with 128 + signal."""

    def __init__(self, signal: int):
        super().__init__(signal)
        self.signal = signal
