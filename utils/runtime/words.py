"""Words of messages. Imports nothing."""


def counted(count: int, noun: str, plural: str = '') -> str:
    """'1 image', '2 images'. The plural is given where it is more than the noun and an s: 'box', 'boxes'."""
    return f'{count} {noun}' if count == 1 else f'{count} {plural or noun + "s"}'


def memory(count: int) -> str:
    """'12 KiB', '3.4 MiB' or '1.2 GiB' of a number of bytes."""
    for power, unit in ((30, 'GiB'), (20, 'MiB')):
        if count >= 1 << power:
            return f'{count / (1 << power):.1f} {unit}'
    return f'{count / 1024:.0f} KiB'


def megabytes(size: int) -> str:
    """Bytes as '7.08 MB', below a megabyte with two digits that are not zero: '0.0015 MB'."""
    return f'{size / 1e6:.2f} MB' if size >= 1e6 else f'{size / 1e6:.2g} MB'  # noqa: PLR2004
