"""Which files of a folder are images: one list of suffixes and one way to look, for all commands."""

import importlib.util
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ocrdistill.errors import UserError

HEIF = frozenset(['.heic', '.heif'])  # read where pillow-heif is installed
HEIF_HINT = 'to read HEIC images: pip install pillow-heif'
HAS_HEIF = importlib.util.find_spec('pillow_heif') is not None
IMAGE_SUFFIXES = (
    frozenset(['.apng', '.avif', '.bmp', '.dib', '.gif', '.jfif', '.jp2', '.jpe', '.jpeg', '.jpg', '.mpo', '.pbm'])
    | frozenset(['.pgm', '.png', '.pnm', '.ppm', '.tga', '.tif', '.tiff', '.webp'])
    | (HEIF if HAS_HEIF else frozenset())
)

UNLIMITED = 1 << 30
MAX_SIDES = {  # pixels of an image's side that a form can hold
    **dict.fromkeys(('.jpg', '.jpeg', '.jpe', '.jfif'), 65_500),
    '.webp': 16_383,
}


def absolute(path: Path) -> Path:
    """The absolute path, with its links. What ends in '..' becomes the real folder: behind a link '..' leads elsewhere
    than os.path.abspath, which reads the text alone, would say."""
    end = max((number for number, part in enumerate(path.parts, 1) if part == '..'), default=0)
    real = os.path.realpath(Path(*path.parts[:end])) if end else ''
    return Path(os.path.abspath(Path(real, *path.parts[end:])))


def walk(folder: Path) -> list[Path]:
    """All files below a folder, sorted; links that lead nowhere count as files, so that someone can name them.

    Linked folders are entered. A folder that several links lead to is entered once, by its own path if that lies below
    `folder` too. Files and folders whose name begins with a dot are left out.

    Raises:
        UserError: a folder cannot be listed.
    """
    files, links, seen = [], [], set()

    def enter(place: str) -> None:
        status = os.stat(place)
        # Some drives of Windows number nothing.
        key = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(place)
        if key in seen:
            return
        seen.add(key)
        with os.scandir(place) as entries:
            visible = [entry for entry in entries if not entry.name.startswith('.')]
        for entry in visible:
            if not os.path.isdir(entry.path):  # entry.is_dir() raises for a link to itself
                files.append(Path(entry.path))
            elif entry.is_symlink():
                links.append(entry.path)
            else:
                enter(entry.path)

    try:
        enter(str(folder))
        while links:  # each may bring more
            links.sort(reverse=True)
            enter(links.pop())
    except (OSError, RecursionError) as error:
        reason = getattr(error, 'strerror', None) or 'too deep'
        raise UserError(
            f'{getattr(error, "filename", None) or folder}: the folder cannot be listed ({reason})'
        ) from None
    return sorted(files)


def left_out(files: Iterable[Path]) -> str:
    """'left out: 2 .mp4, 1 .pdf' of files that a command does not read, '' for none; says what reads HEIC."""
    counts = Counter(file.suffix.lower() or 'without a suffix' for file in files)
    if not counts:
        return ''
    kinds = ', '.join(f'{count} {kind}' for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    hint = '' if HEIF.isdisjoint(counts) or HAS_HEIF else f' ({HEIF_HINT})'
    return f'left out: {kinds}{hint}'


def numbered(count: int) -> list[str]:
    """'000', '001' ...: equally long, so that files sorted by name are in their order."""
    digits = max(3, len(str(count - 1)))
    return [f'{number:0{digits}d}' for number in range(count)]
