"""What ends a command without a traceback."""

from ocrdistill.errors import Interrupted, UserError, first_line

__all__ = ['Interrupted', 'UserError', 'first_line']
