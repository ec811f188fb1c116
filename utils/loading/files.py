"""Which files a name means. Suffixes and the walk through folders are the runtime's, for all commands alike."""

import contextlib
import hashlib
import os
import unicodedata
from collections import defaultdict
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ocrdistill.files import IMAGE_SUFFIXES


def is_image(file: Path) -> bool:
    """Whether a file's name is that of an image; the file itself is not looked at."""
    return file.suffix.lower() in IMAGE_SUFFIXES


def real_file(file: Path) -> Path:
    """The file behind links; what is none (a loop of links, a name that no file can have) stays as it is."""
    try:
        return file.resolve()
    except (OSError, RuntimeError, ValueError):
        return file


def without_images(path: PurePosixPath) -> PurePosixPath:
    """A relative path without its folders named `images`: what lies in them has its labels elsewhere."""
    return PurePosixPath(*(part for part in path.parts[:-1] if part.lower() != 'images'), path.name)


def file_sha256(path: Path | str) -> str:
    """The SHA-256 of a file's content, in hexadecimal. Raises OSError."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def same_name(name: str) -> str:
    """What is equal for names that differ only in case or in how accents are written (NFC, NFD)."""
    return unicodedata.normalize('NFC', unicodedata.normalize('NFC', name).casefold())


def matching(folder: Path, path: str) -> Path | None:
    """What a path means below a folder: what exists, or else the only thing whose name is the same but for case and
    accents. Backslashes separate too. None where nothing fits, or several do."""
    place = folder
    exact = folder / path
    with contextlib.suppress(OSError, ValueError):
        if os.path.exists(exact):
            return exact
        for part in PurePosixPath(path.replace('\\', '/')).parts:
            if part == '..' or os.path.exists(place / part):
                place /= part
                continue
            found = _names(str(place), os.stat(place).st_mtime_ns).get(same_name(part), [])
            if len(found) != 1:
                return None
            place /= found[0]
        return place
    return None


@lru_cache(1000)
def _names(folder: str, _changed: int) -> dict[str, list[str]]:
    """Names in a folder by what is the same of them; anew when the folder has changed."""
    names = defaultdict(list)
    for name in os.listdir(folder):
        names[same_name(name)].append(name)
    return names
