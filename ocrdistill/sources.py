"""Which images the commands look at, and the pages of their files."""

import os
import re
from collections.abc import Container, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ocrdistill.errors import Unreadable, UserError
from ocrdistill.files import IMAGE_SUFFIXES, absolute, left_out, walk
from ocrdistill.images import Decode, read_all

DRAWN = 'left out: {} in folders that are written to'


def find_images(sources: Sequence[str | Path], outputs: Sequence[Path] = ()) -> tuple[dict[PurePosixPath, Path], str]:
    """The images that files and folders (recursive) mean.

    Args:
        sources: the files and folders.
        outputs: folders that are written to. What lies below one is no source, unless it is asked for: an earlier run
            has drawn it.

    Returns:
        {name: file}, the name its path below the folder that holds all of them; and a line on what lies in the folders
        and is left out, '' for nothing.

    Raises:
        UserError: there is no such source, they hold no images, or one is written to.
    """
    files, roots, rest, drawn = [], [], [], 0
    for given in sources:
        source = Path(given)
        if not str(given):  # of a shell variable that is not set; as a path it would be the current folder
            raise UserError('a source is empty: name a file or a folder')
        if not os.path.exists(source):
            raise UserError(f'no such source: {given}' + (' (addresses are not read)' if '://' in str(given) else ''))
        if not source.is_dir():
            files.append(source)
            roots.append(absolute(source).parent)
            continue
        refuse_output(source, outputs)
        below, count = without_drawn(walk(source), source, outputs)
        drawn += count
        files += sorted((file for file in below if file.suffix.lower() in IMAGE_SUFFIXES), key=natural_key)
        rest += [file for file in below if file.suffix.lower() not in IMAGE_SUFFIXES]
        roots.append(absolute(source))
    if not files:
        why = left_out(rest) or (DRAWN.format(drawn) if drawn else 'it is empty')
        raise UserError(f'no images in {", ".join(map(str, sources))} ({why})')
    try:
        root = os.path.commonpath(roots)
    except ValueError as error:  # of two drives of Windows
        raise UserError(f'the sources have no folder in common ({error})') from None
    notes = [left_out(rest), DRAWN.format(drawn) if drawn else '']
    found = {PurePosixPath(file.relative_to(root).as_posix()): file for file in map(absolute, files)}
    return found, '; '.join(filter(None, notes))


def without_drawn(files: list[Path], source: Path, outputs: Sequence[Path]) -> tuple[list[Path], int]:
    """The files below a folder without those in folders below it that are written to, and how many these are."""
    below = [folder for folder in outputs if lies_in(folder, source)]
    kept = [file for file in files if not any(lies_in(file, folder) for folder in below)]
    return kept, len(files) - len(kept)


def refuse_output(source: Path, outputs: Sequence[Path]) -> None:
    """Raise a UserError where a folder of sources is also one that pictures are written to."""
    for folder in outputs:
        if os.path.realpath(folder) == os.path.realpath(source):
            raise UserError(f'{folder} is the source itself: what is written there would be read the next time')


def lies_in(path: Path, folder: Path) -> bool:
    """Whether it lies below a folder and is not the folder itself."""
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def natural_key(file: Path) -> list[tuple[int, str]]:
    """A key that sorts img_2 before img_10."""
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in re.split(r'(\d+)', str(file))]


def read_pages(
    path: Path, name: PurePosixPath, taken: Container[PurePosixPath], decode: Decode | None = None
) -> Iterator[tuple[PurePosixPath, np.ndarray | Unreadable]]:
    """The images in a file.

    Args:
        path: the file.
        name: its name in what is written. From the second on an image's name ends with _page2, _page3 and so on.
        taken: names of other files.
        decode: see ocrdistill.images.Decode.

    Yields:
        Name and (H, W, 3) uint8 RGB, or why there is none.
    """
    try:
        for count, (_, image) in enumerate(read_all(path, decode), 1):
            yield name if count == 1 else _page_name(name, count, taken), image
    except Unreadable as error:
        yield name, error


def _page_name(name: PurePosixPath, count: int, taken: Container[PurePosixPath]) -> PurePosixPath:
    """scan_page2.tif of scan.tif, and scan.tif_page2.tif beside another file that is named so."""
    chosen = name.with_name(f'{name.stem}_page{count}{name.suffix}')
    return chosen if chosen not in taken else name.with_name(f'{name.name}_page{count}{name.suffix}')


def refuse_unread(failed: Sequence[str], total: int) -> None:
    """Raise a UserError that names what could not be read of so many images, if there is any."""
    if failed:
        more = f' and {len(failed) - 5} more' if len(failed) > 5 else ''
        raise UserError(f'{len(failed)} of {total} could not be read: {"; ".join(failed[:5])}{more}')
