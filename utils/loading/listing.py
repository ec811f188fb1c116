"""Which images a split has."""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from models.errors import UserError
from ocrdistill.files import left_out, walk
from utils.loading.config import DataConfig, listed, place_below
from utils.loading.files import file_sha256, is_image, matching, real_file
from utils.loading.rows import read_list
from utils.runtime.words import counted


class Listing(NamedTuple):
    """Images, the other files of their folders, the images' edge_weight where the data yaml gives them one, and a line
    where it takes a part of the images."""

    images: list[Path]
    others: list[Path]
    edge_weights: dict[Path, float] = {}
    taken: str = ''

    def left_out(self) -> str:
        """A line on the other files but the images' own labels, '' where there are none."""
        own = {image.with_suffix('.txt') for image in self.images}
        return left_out(file for file in self.others if file not in own and file.name != 'classes.txt')


def list_images(data: DataConfig, split: str) -> list[Path]:
    """The images of a split, each once: those of a folder sorted, those of a list file in its order.

    Files that a list names are not looked for here.

    Raises:
        UserError: the yaml lacks the split, or there is no such folder or list file, or no image in it.
    """
    return list_split(data, split).images


def list_split(data: DataConfig, split: str) -> Listing:
    """The images of a split as list_images has them, and the other files that lie between them."""
    if split not in data.splits:
        raise UserError(f'{data.file}: there is no split {split!r} (there are: {", ".join(data.splits)})')
    hint = f'; prepare the data with: {data.prepare}' if data.prepare else ''
    if not data.path.is_dir():
        raise UserError(f'{data.file}: the data folder {data.path} does not exist{hint}')
    images, others, weights = {}, {}, {}
    for source in listed(data.splits[split]):
        place = place_below(data.path, source) or data.path / source
        found = images_at(place, data.path)
        if found is None:
            raise UserError(f'{data.file}: {split} names {place}, which is neither a folder nor a list file{hint}')
        if not found.images:
            rest = found.left_out()
            rest = f' ({rest})' if rest else ''
            raise UserError(f'{data.file}: there are no pictures of the split {split!r} in {place}{rest}{hint}')
        images.update(dict.fromkeys(found.images))
        others.update(dict.fromkeys(found.others))
        if source in data.edge_weight:
            weights.update(dict.fromkeys(found.images, data.edge_weight[source]))
    if split == 'train' and data.take:
        own = {image.with_suffix('.txt') for image in images}
        rest = [file for file in others if file not in own]
        taken = f'{data.file} takes {data.take} of {counted(len(images), "picture")}'
        return Listing(spread(list(images), data.take, data.file), rest, weights, taken)
    return Listing(list(images), list(others), weights)


def spread(images: list[Path], count: int, source: Path) -> list[Path]:
    """So many of the images, evenly over their order, always the same. Raises UserError where there are not so many."""
    if count > len(images):
        raise UserError(f'{source}: take is {count}, and train has {counted(len(images), "picture")}')
    return [images[number * len(images) // count] for number in range(count)]


def new_images(place: Path, data: DataConfig) -> tuple[list[Path], Listing]:
    """Images of a folder or list file that are in no split, and no copies of such images, each once; and the listing of
    all.

    Raises:
        UserError: the place is neither, or nothing is left.
    """
    listing = images_at(place)
    if listing is None or not listing.images:
        raise UserError(f'unlabelled pictures: {place} is no folder or list file of pictures')
    listing = listing._replace(images=list(dict.fromkeys(listing.images)))
    known = set().union(*(real_files(data, split) for split in data.splits))
    images = [file for file, is_known in zip(listing.images, among(listing.images, known), strict=True) if not is_known]
    if not images:
        raise UserError(f'unlabelled pictures: all {len(listing.images)} of {place} are in a split of {data.file}')
    return images, listing


def twins(images: list[Path]) -> str:
    """A line on images that share a label file, as a.jpg and a.png do; '' for none."""
    alike = defaultdict(list)
    for image in images:
        alike[image.with_suffix('')].append(image)
    found = [group for group in alike.values() if len(group) > 1]
    if not found:
        return ''
    first = ' and '.join([str(found[0][0]), *(image.name for image in found[0][1:])])
    return f'{sum(map(len, found))} pictures share a label file with another: {first}' + ', ...' * (len(found) > 1)


def shared_images(data: DataConfig, trained_on: Iterable[Path]) -> dict[str, int]:
    """{split: images of it that are trained on too}, of the splits where there are any."""
    trained_on = set(map(real_file, trained_on))
    others = {split: list(real_files(data, split)) for split in data.splits if split != 'train'}
    shared = {split: sum(among(files, trained_on)) for split, files in others.items()}
    return {split: count for split, count in shared.items() if count}


def selected_on_test(data: DataConfig) -> bool:
    """Whether val, which chooses epoch and threshold, has pictures of test, so that figures on test are too good."""
    return 'test' in data.splits and any(among(real_files(data, 'test'), real_files(data, 'val')))


def real_files(data: DataConfig, split: str) -> set[Path]:
    """The files behind a split's images, whatever links lead to them; none where it cannot be listed."""
    with contextlib.suppress(UserError):
        return set(map(real_file, list_images(data, split)))
    return set()


def images_at(place: Path, folder: Path | None = None) -> Listing | None:
    """The images in a folder or of a list file; None if the place is neither.

    Args:
        folder: where the images of a list file may lie too, if not in the list's own folder.
    """
    if place.is_dir():
        files = walk(place)
        return Listing([file for file in files if is_image(file)], [file for file in files if not is_image(file)])
    if place.suffix.lower() == '.txt' and place.is_file():
        bases = dict.fromkeys((place.parent, folder or place.parent))
        return Listing([image_of_row(row, bases) for row in read_list(place)], [])
    return None


def image_of_row(row: str, folders: Iterable[Path]) -> Path:
    """The image that a row of a list file names: a path from one of the folders, with slashes or backslashes.

    Where there is no such file, it is the one that the end of the path leads to, two names at least: lists are written
    on other machines, and CVAT puts data/ before every path. Where nothing fits, the row as it stands.
    """
    parts = [part for part in PurePosixPath(row.replace('\\', '/')).parts if part != '.']
    for start in range(max(len(parts) - 1, 1)):
        for folder in folders:
            if found := matching(folder, row if start == 0 else '/'.join(parts[start:])):
                return found
    return next(iter(folders)) / row


def among(files: Iterable[Path], others: Iterable[Path]) -> list[bool]:
    """Which files are others: the same file whatever links lead to it, or a copy of it."""
    contents = defaultdict(dict)  # of each length: the files, and their digests once they are asked for
    for other in set(map(real_file, others)):
        contents[length(other)][other] = None
    found = []
    for file in map(real_file, files):
        alike = contents.get(length(file), {})
        if alike and file not in alike:
            for other in alike:
                alike[other] = alike[other] or digest(other)
            found.append(digest(file) in alike.values())
        else:
            found.append(bool(alike))
    return found


def first_copies(files: list[Path]) -> list[Path]:
    """For every file the first one with its content: of most files themselves."""
    lengths = list(map(length, files))
    count = Counter(lengths)
    firsts: dict[tuple[int, str], Path] = {}
    keys = [(size, digest(file) if count[size] > 1 else '') for file, size in zip(files, lengths, strict=True)]
    return [firsts.setdefault(key, file) for key, file in zip(keys, files, strict=True)]


def length(file: Path) -> int:
    """Bytes of a file, 0 where there is none to read."""
    with contextlib.suppress(OSError, ValueError):
        return file.stat().st_size
    return 0


def digest(file: Path) -> str:
    """Of a file's content; of one that cannot be read its own name, which no other has."""
    with contextlib.suppress(OSError):
        return file_sha256(file)
    return str(file)
