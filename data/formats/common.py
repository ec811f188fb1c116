"""What the readers of annotations and the makers of data sets share."""

# Bounds that published files stay far below; they only stop what is no such file.
MAX_TEXT_BYTES = 1 << 20  # of the annotations of one image


class BadEntry(ValueError):
    """One image, annotation or row that cannot be used; the message says why."""


def shorten(names: list[str]) -> str:
    """Return the names as one phrase, the first few of many."""
    most = 8
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')
