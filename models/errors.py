"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """A wrong path, file, option or checkpoint. Commands print its message as one line and exit with status 1."""
