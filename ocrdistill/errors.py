"""What goes wrong because of what was given."""


class UserError(Exception):
    """A wrong path, file, option or checkpoint. Commands print its message as one line and exit with status 1."""


class Unreadable(OSError):
    """A file that is no image or video, or a broken one; the message says why."""
