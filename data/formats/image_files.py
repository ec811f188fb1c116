"""The images that annotations may speak of."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from data.formats.common import BadEntry
from models.errors import UserError
from ocrdistill.files import HAS_HEIF, HEIF, HEIF_HINT, IMAGE_SUFFIXES, left_out, walk
from utils.loading.files import is_image, same_name
from utils.loading.images import probe_image, probe_orientation, stored_size

KINDS = ('images', 'labels', 'annotations', 'gt')  # names of folders beside each other
UPLOAD = re.compile(r'^[0-9a-f]{8}-(?=.)')  # what Label Studio puts before the name of an uploaded file


class Doubt(NamedTuple):
    """How an annotation named an image that another one may name better.

    path: what it said. elsewhere: the image lies in another folder than that; else it is written in another way, or
    the path begins with folders that are not there.
    """

    path: str
    elsewhere: bool = False


class ImageFiles:
    """The images below a folder, found by name. Whatever an annotation says, nothing else is ever returned.

    A name in other case, with accents written in another way, without the characters that web tools leave out, with
    Label Studio's mark of an upload before it, or with escapes of a link (%20) is taken where exactly one file fits.
    """

    def __init__(self, folder: Path, raw_pixels: bool = False):
        """Raises UserError where there is no such folder, or no image in it.

        Args:
            raw_pixels: annotations are in the pixels as they are stored, before EXIF data turn the image.
        """
        if not folder.is_dir():
            raise UserError(f'--images: there is no folder {folder}')
        self.folder, self.raw_pixels = folder, raw_pixels
        files = walk(folder)
        self.others = [file for file in files if not is_image(file)]
        self.by_path = {self.relative(file): file for file in files if is_image(file)}
        if not self.by_path:
            rest = left_out(self.others)
            rest = f'; {rest}' if rest else ''
            raise UserError(f'--images: no pictures in {folder} (looked for {", ".join(sorted(IMAGE_SUFFIXES))}{rest})')
        # From the strictest way of reading a name to the loosest.
        self._ways = (str, same_name, lambda name: same_name(cleaned(name)))
        self._paths = [_index(way, self.by_path.items()) for way in self._ways[:2]]
        by_name = [(file.name, file) for file in self.by_path.values()]
        self._names = [_index(way, by_name) for way in self._ways]
        self._stems = [_index(way, [(file.stem, file) for _, file in by_name]) for way in self._ways]
        self._exact: set[Path] = set()
        self._doubts: dict[Path, Doubt] = {}

    def take_doubt(self, image: Path | None) -> 'Doubt | None':
        """Why an image that was found since this was last asked may be another one's; None where there is no doubt."""
        doubt = None if image is None or image in self._exact else self._doubts.get(image)
        self._exact.clear()
        self._doubts.clear()
        return doubt

    def find(self, path: str) -> Path:
        """The image that a path of another machine means: the one whose path below the folder it ends with, or else
        the one of its name whose folder fits, or else the only one of its name. Raises BadEntry."""
        parts = [part for part in PurePosixPath(path.replace('\\', '/')).parts if part not in ('/', '..')]
        *folders, last = parts or ['']
        bare = UPLOAD.sub('', last)
        for name in dict.fromkeys((last, bare, unquote(last), unquote(bare))):
            for way, paths, names in zip(self._ways, (*self._paths, {}), self._names, strict=True):
                as_written = way is str and name == last
                for start in range(len(parts)):
                    found = paths.get(way('/'.join([*folders[start:], name])), [])
                    if len(found) == 1:
                        if as_written and self._leads_here(folders[:start]):
                            self._exact.add(found[0])
                        else:
                            self._doubts[found[0]] = Doubt(path)
                        return found[0]
                if found := names.get(way(name), []):
                    return self._choose(found, parts, as_written)
        return self._only([], path)

    def find_stem(self, path: Path) -> Path:
        """The image of an annotation file: of the same name without gt_ or poly_gt_, in the same folder below
        --images as the annotation below --annotations, or else anywhere. Raises BadEntry."""
        bare = re.sub('^(poly_)?gt_', '', path.stem, flags=re.IGNORECASE)
        names = dict.fromkeys((path.stem, bare, UPLOAD.sub('', bare), unquote(bare)))
        for way, stems in zip(self._ways, self._stems, strict=True):
            for stem in names:
                if found := stems.get(way(stem), []):
                    as_written = way is str and stem in (path.stem, bare)
                    return self._choose(found, [*path.parent.parts, bare], as_written)
        return self._only([], bare)

    def _leads_here(self, folders: list[str]) -> bool:
        """Whether folders that a path begins with say nothing, or that their last one is the folder of the images."""
        last = _telling(folders)[-1:]
        return not last or last in [
            _telling(place.parts)[-1:] for place in (self.folder.absolute(), self.folder.resolve())
        ]

    def _choose(self, found: list[Path], said: list[str], as_written: bool) -> Path:
        """Of several images of a name the one whose folders fit best. If none fits, the only one is a guess.

        Args:
            said: what the annotation named, folders and name.
        """
        wanted = _telling(said[:-1])
        fits = {file: _fit(_telling(PurePosixPath(self.relative(file)).parent.parts), wanted) for file in found}
        best = max(fits.values())
        file = self._only([file for file in found if fits[file] == best], said[-1])
        path = '/'.join(said)
        if best < 0:
            self._doubts[file] = Doubt(path, elsewhere=True)
        elif not as_written or not (best or self._leads_here(wanted)):
            self._doubts[file] = Doubt(path)
        elif best > 0:  # a name alone says nothing of folders
            self._exact.add(file)
        return file

    def annotated_size(self, image: Path) -> tuple[int, int]:
        """(width, height) of what annotations of an image speak of. Raises Unreadable."""
        size = probe_image(image)
        return stored_size(size, probe_orientation(image)) if self.raw_pixels else size

    def relative(self, file: Path) -> str:
        """The image's path below the folder, with slashes."""
        return file.relative_to(self.folder).as_posix()

    def _only(self, found: list[Path], name: str) -> Path:
        if not found:
            hint = f' ({HEIF_HINT})' if not HAS_HEIF and PurePosixPath(name).suffix.lower() in HEIF else ''
            raise BadEntry(f'no picture {name[-200:]!a} below {self.folder}{hint}')
        if len(found) > 1:
            names = ' and '.join(map(self.relative, found[:2]))
            raise BadEntry(f'{len(found)} pictures are called {name!a}: {names}')
        return found[0]


def cleaned(name: str) -> str:
    """A name as web tools (Django, and so Label Studio) store it: 'photo 1 (1).jpg' becomes 'photo_1_1.jpg'."""
    return re.sub(r'[^-\w.]', '', unicodedata.normalize('NFC', name).strip().replace(' ', '_'))


def _telling(folders: Iterable[str]) -> list[str]:
    """The names of folders but those that say what kind of files they hold."""
    return [name.casefold() for name in folders if name.casefold() not in KINDS]


def _fit(own: list[str], wanted: list[str]) -> int:
    """How well an image's folders fit those that a path names: how many of the last ones are the same; -1 where they
    contradict each other."""
    count = min(len(own), len(wanted))
    return count + (own == wanted) if own[len(own) - count :] == wanted[len(wanted) - count :] else -1


def _index(way, entries) -> dict[str, list[Path]]:
    index = defaultdict(list)
    for name, file in entries:
        index[way(name)].append(file)
    return index
