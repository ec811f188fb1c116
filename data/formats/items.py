"""From what annotations say of pictures to the pictures that a data set can have."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from data.formats import Format
from data.formats.common import BadEntry
from data.formats.image_files import ImageFiles
from data.formats.pages import Page, Region
from data.formats.skipped import Skipped
from models.errors import UserError
from ocrdistill.files import walk
from ocrdistill.images import pages
from utils.loading.files import is_image, without_images
from utils.loading.images import probe_image, probe_orientation, stored_size, upright_points
from utils.loading.labels import CROSSING, MIN_AREA, QUAD, REPEATED
from utils.loading.polygons import clip_polygons, polygon_areas, uncrossed
from utils.runtime.words import counted

LONG_SIDE = 640  # pixels, of --min-height


@dataclass
class Item:
    """A picture to write.

    Attributes:
        page: what was read of it, without the regions that have no area inside it.
        name: its path below images/<split>/, without folders named images: labels would be looked for beside them.
        size: (width, height) of the upright picture in pixels.
        split: 'train', 'val' or 'test'.
    """

    page: Page
    name: PurePosixPath
    size: tuple[int, int]
    split: str

    @property
    def key(self) -> PurePosixPath:
        """Of its label file, which pictures that differ in their suffix alone would share."""
        return self.name.with_suffix('')


@dataclass
class Unread:
    """Which regions become don't-care: those with one of the labels, those lower than min_height.

    min_height: pixels of the picture when its longer side has LONG_SIDE; of a box its height, of other regions the
        shorter side, as their text may run up or down.
    met: all labels of the regions that it was asked about.
    """

    labels: set[str]
    min_height: float = 0.0
    met: set[str] = field(default_factory=set)

    def __call__(self, region: Region, size: tuple[int, int]) -> bool:
        self.met.update(region.labels)
        if not self.labels.isdisjoint(region.labels):
            return True
        height = np.ptp(region.polygon[:, 1]) if region.is_box else height_of(region.polygon)
        return self.min_height > 0 and height * LONG_SIDE / max(size) < self.min_height


def height_of(polygon: np.ndarray) -> float:
    """The shorter side of the least rectangle, at any angle, around a polygon (p, 2)."""
    import cv2

    return min(cv2.minAreaRect(polygon.astype(np.float32))[1])


def read_items(form: Format, annotations: Path, images: Path | None, unread: Unread, skipped: Skipped) -> list[Item]:
    """All usable pictures of one set of annotations.

    Args:
        form: how to read them.
        annotations: their folder or file, as the form says.
        images: folder of the pictures; None takes that of the annotations.
        unread: which regions become don't-care.
        skipped: what cannot be used is added here.

    Raises:
        UserError: no such folder or file, or nothing in it can be used.
    """
    if not (annotations.is_dir() if form.place == 'folder' else annotations.is_file()):
        raise UserError(f'{annotations} is no {form.place}: expected a {form.place} with {form.form}')
    files = ImageFiles(images or (annotations if form.place == 'folder' else annotations.parent), skipped.raw_pixels)
    skipped.there.update(files.by_path.values())
    _note_files(form, annotations, files, skipped)
    items: dict[PurePosixPath, Item] = {}
    for page in _settled(form.read(annotations, files), files, skipped):
        again = page.image in skipped.annotated
        skipped.annotated.add(page.image)
        if page.left_out:
            skipped.left_out[page.left_out] += 1
            continue
        try:
            item = _check(page, files, items, unread, skipped.turned)
        except BadEntry as error:
            message = f'{page.name}: {error}'
            if again or page.image is None:
                skipped.entries.append(message)
            else:
                skipped.failed[page.image] = message
            continue
        if page.image in skipped.failed:  # another annotation of it can be used
            skipped.entries.append(skipped.failed.pop(page.image))
        skipped.rows += page.bad_rows
        skipped.notes += page.notes
        items[item.key] = item
    if not items:
        reasons = [*skipped.failed.values(), *skipped.entries]
        why = f', the first: {reasons[0]}' if reasons else f': no {form.form}'
        raise UserError(f'{annotations}: no picture can be used{why}')
    _note_folders(list(items.values()), skipped)
    return list(items.values())


def _note_folders(items: list[Item], skipped: Skipped) -> None:
    """Note folders that look like splits, of pictures that get another one."""
    tops = {item.name.parts[0].casefold() for item in items if len(item.name.parts) > 1 and not item.page.split}
    if 'train' in tops and (names := sorted(tops & {'val', 'valid', 'validation', 'test'})):
        told = ', '.join(['train', *names])
        skipped.notes.append(
            f'folders called {told}: their pictures are divided anew (--test-annotations names a test set)'
        )


def _settled(found: Iterable[Page], files: ImageFiles, skipped: Skipped) -> Iterable[Page]:
    """The pages, the doubtful ones later: a picture is that of the annotation that names it best.

    First come those that name it as it is, then those whose own name is not the picture's ('a copy.json' may be an old
    state of a.json), then those that write it in another way, and last those whose picture lies in another folder.
    """
    certain, told, loose, elsewhere = [], [], [], []
    for page in found:
        doubt = files.take_doubt(page.image)
        if doubt is None:
            (told if page.told else certain).append(page)
        else:
            (elsewhere if doubt.elsewhere else loose).append((page, doubt.path))
    yield from certain
    yield from told
    named = {page.image for page in [*certain, *told] if not (page.left_out or page.problem)}
    for page, path in sorted(loose, key=lambda pair: pair[0].told):
        if page.image in named:
            page.problem, page.image = f'no picture {path!a} below {files.folder}', None
        yield page
    named.update(page.image for page, _ in loose)
    used, claims = [], Counter(page.image for page, _ in elsewhere)
    for page, path in elsewhere:
        if page.image in named or claims[page.image] > 1:
            page.problem, page.image = f'no picture {path!a} below {files.folder}', None
        else:
            used.append(f'{path!a} as {files.relative(page.image)}')
        yield page
    if used:
        count = counted(len(used), 'picture was', 'pictures were')
        skipped.notes.append(f'{count} found by name alone, in another folder than annotated, the first: {used[0]}')


def _note_files(form: Format, annotations: Path, files: ImageFiles, skipped: Skipped) -> None:
    """Note the files that are no images, and which of them are annotations."""
    found = set(files.others)
    if annotations.is_dir():
        found.update(file for file in walk(annotations) if not is_image(file))
        skipped.annotations.update(file for file in found if file.suffix.lower() in form.suffixes)
    else:
        skipped.annotations.add(annotations)
    skipped.others |= found


def _check(page: Page, images: ImageFiles, taken: dict[PurePosixPath, Item], unread: Unread, turned: set[Path]) -> Item:
    """The item of a page; its picture is added to `turned` where it is. Raises BadEntry where the picture is broken, of
    another size, or was there before."""
    if page.problem:
        raise BadEntry(page.problem)
    name = without_images(PurePosixPath(images.relative(page.image)))
    item = Item(page, name, (0, 0), page.split or 'train')
    if item.key in taken:
        first = taken[item.key].page
        if first.image != page.image:
            raise BadEntry(f'{name} would share its label file with {images.relative(first.image)}: rename one of them')
        raise BadEntry(f'{name} was annotated already, as {first.name}')
    try:
        size, count = probe_image(page.image), len(pages(page.image))
    except Exception as error:  # decoders raise what they like at a broken file
        raise BadEntry(f'{page.image.name} is broken ({error})') from None
    if _turn(page, images, size):
        turned.add(page.image)
    if count > 1:
        page.notes.append(f'{name}: the first of its {count} pages is used')
    kept = _usable(page, size, unread)
    if page.regions and not kept:
        raise BadEntry('no region has an area inside the picture')
    page.regions, item.size = kept, size
    return item


def _usable(page: Page, size: tuple[int, int], unread: Unread) -> list[Region]:
    """The regions of a page that have an area in its picture of `size`, each place once; the others are named."""
    kept: dict[bytes, Region] = {}  # by their corners
    for region in page.regions:
        drawn, region.polygon = region.polygon, uncrossed(region.polygon)
        if region.polygon is not drawn:
            page.notes.append(f'{page.name}, {region.word[:60]!a}: {CROSSING}')
        if polygon_areas(clip_polygons(region.polygon[None], *size))[0] < MIN_AREA * size[0] * size[1]:
            page.bad_rows.append(f'{page.name}, {region.word[:60]!a}: no area inside the picture')
            continue
        if len(region.polygon) == QUAD and (region.polygon == np.roll(region.polygon, 1, 0)).all(1).any():
            page.notes.append(f'{page.name}, {region.word[:60]!a}: {REPEATED}')
        region.dont_care |= unread(region, size)
        first = kept.setdefault(region.polygon.tobytes(), region)
        if first is not region:
            page.bad_rows.append(f'{page.name}, {region.word[:60]!a}: repeats an earlier region')
            if first.dont_care:  # what one of them reads is a word
                kept[region.polygon.tobytes()] = region
    return list(kept.values())


def _turn(page: Page, images: ImageFiles, size: tuple[int, int]) -> bool:
    """Bring regions that are in the pixels as stored to the upright picture, of `size`. Returns whether its EXIF data
    turn the picture and no annotated size tells the two apart. Raises BadEntry where it was annotated at another size.
    """
    orientation = probe_orientation(page.image)
    stored = stored_size(size, orientation)
    own, other = (stored, size) if images.raw_pixels else (size, stored)
    if page.size and page.size != own:
        annotated, found = (f'{width}x{height}' for width, height in (page.size, own))
        fits = f'; it fits {"without" if images.raw_pixels else "with"} --raw-pixels' if page.size == other else ''
        raise BadEntry(f'annotated at {annotated} pixels, but {images.relative(page.image)} has {found}{fits}')
    if images.raw_pixels:
        for region in page.regions:
            region.polygon = upright_points(region.polygon, orientation, stored)
    return orientation != 1 and not (page.size and own != other)
