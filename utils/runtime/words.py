"""Words of messages. Imports nothing."""


def counted(count: int, noun: str, plural: str = '') -> str:
    """'1 image', '2 images'. The plural is given where it is more than the noun and an s: 'box', 'boxes'."""
    return f'{count} {noun}' if count == 1 else f'{count} {plural or noun + "s"}'
