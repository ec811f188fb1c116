"""What ends a command without a traceback."""

from ocrdistill.errors import Interrupted, UserError

__all__ = ['Interrupted', 'UserError']
