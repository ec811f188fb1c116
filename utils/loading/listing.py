"""Which images a split has."""

import contextlib
from pathlib import Path

from models.errors import UserError
from utils.loading.config import DataConfig, listed
from utils.loading.images import SUFFIXES


def list_images(data: DataConfig, split: str) -> list[Path]:
    """The pictures of a split, each once: those of a folder sorted, those of a list file in its order.

    Files that a list names are not looked for here.

    Raises:
        UserError: the yaml lacks the split, or there is no such folder or list file, or no picture in it.
    """
    if split not in data.splits:
        raise UserError(f'{data.file}: there is no split {split!r} (there are: {", ".join(data.splits)})')
    hint = f'; prepare the data with: {data.prepare}' if data.prepare else ''
    if not data.path.is_dir():
        raise UserError(f'{data.file}: the data folder {data.path} does not exist{hint}')
    entry = data.splits[split]
    images = {}
    for source in listed(entry):
        place = data.path / source
        found = images_at(place)
        if found is None:
            raise UserError(f'{data.file}: {split} names {place}, which is neither a folder nor a list file{hint}')
        if not found:
            raise UserError(f'{data.file}: there are no pictures of the split {split!r} in {place}{hint}')
        images.update(dict.fromkeys(found))
    return list(images)


def shared_images(data: DataConfig) -> dict[str, int]:
    """{split: pictures of it that are trained on too}, of the splits where there are any."""
    trained_on = real_files(data, 'train')
    shared = {split: len(trained_on & real_files(data, split)) for split in data.splits if split != 'train'}
    return {split: count for split, count in shared.items() if count}


def real_files(data: DataConfig, split: str) -> set[Path]:
    """The files behind a split's pictures, whatever links lead to them; none where it cannot be listed."""
    with contextlib.suppress(UserError):
        return {real_file(file) for file in list_images(data, split)}
    return set()


def real_file(file: Path) -> Path:
    """The file behind links; what is none (a loop of links, a name that no file can have) stays as it is."""
    try:
        return file.resolve()
    except (OSError, RuntimeError, ValueError):
        return file


def images_at(place: Path) -> list[Path] | None:
    """The pictures in a folder or of a list file; None if the place is neither."""
    if place.is_dir():
        return sorted(file for file in place.rglob('*') if file.suffix.lower() in SUFFIXES)
    if place.suffix == '.txt' and place.is_file():
        try:
            rows = map(str.strip, place.read_text('utf-8-sig', errors='replace').splitlines())
        except OSError as error:
            raise UserError(f'{place}: the list cannot be read ({error.strerror})') from None
        return [place.parent / row for row in rows if row]
    return None
