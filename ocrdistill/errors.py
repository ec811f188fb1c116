"""What ends a command without a traceback."""


class UserError(Exception):
    """A wrong path, file, option or checkpoint. Commands print its message as one line and exit with status 1."""


class Unreadable(OSError):
    """A file that is no image or video, or a broken one; the message says why."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP; `signal` is its number. Commands exit with 128 + signal."""

    def __init__(self, signal: int):
        super().__init__(signal)
        self.signal = signal


def first_line(error: Exception) -> str:
    """What an error says, in a line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
