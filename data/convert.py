"""Turn annotated pictures of other formats into the layout that training reads.

    python data/convert.py --from labelme --annotations DIR --out mydata
    python train.py --data mydata/data.yaml ...

Written are, below --out,

    images/<split>/...      the pictures, byte for byte, in the subfolders that they lie in (--link: symbolic links)
    labels/<split>/...txt   '0 x1 y1 x2 y2 ...', 0..1: polygons of legible words; '0 x y w h' where a box was drawn
    ignore/<split>/...txt   the same form: what nobody could read ('###', illegible, --ignore-label, --min-height)
    gt/<split>/...txt       ICDAR2015's form, for val.py's hmean: only where every region of a split has four corners
    data.yaml               for --data
    preview.jpg             the first pictures with their boxes: look at it before you train

Annotations are in pixels of the upright picture, as viewers show it (--raw-pixels: of the picture as it is stored).
What cannot be used is named and skipped; pictures without an annotation and files of other kinds are counted.
"""

import argparse
import hashlib
import math
import os
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.formats import FORMATS, Format
from data.formats.common import shorten
from data.formats.items import LONG_SIDE, Item, Unread, read_items
from data.formats.pages import Region
from data.formats.skipped import Skipped
from models.errors import UserError
from utils.loading.labels import companion_file, label_row, quad_of
from utils.loading.listing import among, first_copies
from utils.loading.polygons import clip_polygons
from utils.loading.rows import DONT_CARE
from utils.runtime.cli import run_command
from utils.runtime.run_folder import make_folder, write_text, write_yaml
from utils.runtime.words import counted

# The dataset is imported where it is used: it needs torch, and --help is answered at once.

SPLITS = ('train', 'val', 'test')
PREVIEW = 16  # pictures
PARTIAL = '.partial'  # ends the name of a folder that is not complete
QUAD, SIX = 4, 6  # corners


def choose_splits(items: list[Item], val: float, test: float) -> int:
    """Give every item without a split of its own one, by a hash of its name: the same names give the same splits.

    Copies of a picture go where it goes, or else a network would be judged by what it has learned. At least one picture
    goes to each split that is asked for. Returns how many pictures are copies of others. Raises UserError where too few
    are left to train with.
    """
    if all(item.page.split for item in items):
        return 0
    ordered = sorted(items, key=lambda item: hashlib.sha256(os.fsencode(item.name)).digest())
    groups = defaultdict(list)
    for item, first in zip(ordered, first_copies([item.page.image for item in ordered]), strict=True):
        groups[first].append(item)
    free = []  # groups, each of which counts as one picture
    for group in groups.values():
        told = next((item.page.split for item in group if item.page.split), '')
        if told:
            _put(group, told)
        else:
            free.append(group)
    copies = len(items) - len(groups)
    if not free:
        return copies
    fractions = {'val': val, 'test': test}
    there = {item.page.split for item in items}  # splits that annotations fill
    wanted = {split: fraction for split, fraction in fractions.items() if fraction and split not in there}
    counts = {split: max(round(fraction * len(free)), 1) for split, fraction in wanted.items()}
    if sum(counts.values()) >= len(free) + ('train' in there):
        asked = ' and '.join(f'{count} in {split}' for split, count in counts.items())
        pictures = counted(len(free), 'usable picture is', 'usable pictures are')
        raise UserError(
            f'{pictures} too few for {asked} and the rest in train' + ' (copies not counted)' * bool(copies)
        )
    chosen = [split for split, count in counts.items() for _ in range(count)]
    for group, split in zip(free, chosen + ['train'] * (len(free) - len(chosen)), strict=True):
        _put(group, split)
    return copies


def _put(items: list[Item], split: str) -> None:
    """Into a split, but for those with one of their own."""
    for item in items:
        item.split = item.page.split or split


def write_item(item: Item, out: Path, link: bool, with_gt: bool) -> None:
    """Write a picture and its labels."""
    file = out / 'images' / item.split / item.name
    rows = defaultdict(list)
    for region in item.page.regions:
        rows['ignore' if region.dont_care else 'labels'].append(_label_row(region, item.size))
        rows['gt'].append(_truth_row(region, item.size))
    for kind in ('labels', 'ignore', 'gt') if with_gt else ('labels', 'ignore'):
        write_text(companion_file(file, kind), ''.join(rows[kind]))
    make_folder(file.parent)
    if link:
        file.symlink_to(item.page.image.resolve())
    else:
        shutil.copyfile(item.page.image, file)


def _label_row(region: Region, size: tuple[int, int]) -> str:
    inside = clip_polygons(region.polygon[None], *size)[0] / size
    if region.is_box:  # whose corners say nothing of a word that leans in it
        low, high = inside.min(0), inside.max(0)
        inside = np.array([(low + high) / 2, high - low])
    elif len(inside) == SIX:  # as a row it could be taken for a box and four corners: half an edge more says the same
        inside = np.insert(inside, 1, inside[:2].mean(0), 0)
    return label_row(0, inside.ravel())


def _truth_row(region: Region, size: tuple[int, int]) -> str:
    seen = region.polygon
    if (seen != seen.clip(0, size)).any():  # a word of which half is outside could be matched by nothing that is found
        seen = quad_of(clip_polygons(seen[None], *size)[0])
    corners = ','.join(f'{value:.0f}' for value in seen.ravel())
    word = DONT_CARE if region.dont_care else ' '.join(region.word.split()).encode(errors='replace').decode()
    return f'{corners},{word}\n'


def write_set(items: list[Item], out: Path, link: bool) -> None:
    """Write everything but the preview, under a temporary name until it is complete."""
    used = [split for split in SPLITS if any(item.split == split for item in items)]
    others = with_others(items)
    # A folder that is there stays, as it may be a mount or a link.
    partial = out / PARTIAL if out.is_dir() else out.with_name(f'.{out.name}{PARTIAL}')
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    try:
        for item in tqdm(items, 'writing', unit='picture', disable=None):
            write_item(item, partial, link, with_gt=item.split not in others)
        splits = {split: f'images/{split}' for split in used}  # of the yaml's own folder, so that it can be moved
        write_yaml(partial / 'data.yaml', {**splits, 'names': {0: 'text'}, 'dont_care': 'ignore'})
        if partial.parent == out:
            for part in sorted(partial.iterdir(), reverse=True):  # data.yaml last: without it there is no data set
                os.replace(part, out / part.name)
        else:
            os.replace(partial, out)
    except OSError as error:
        raise UserError(f'cannot write {out}: {error}') from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def with_others(items: list[Item]) -> Counter:
    """How many regions of a split have other than four corners; ICDAR's ground truth cannot hold them."""
    return Counter(item.split for item in items for region in item.page.regions if len(region.polygon) != QUAD)


def write_preview(out: Path) -> None:
    """Draw the first training pictures with their labels, which also reads all labels once."""
    from utils.evaluation.grids import plot_preview
    from utils.loading.config import load_data_config
    from utils.loading.dataset import TextDataset
    from utils.loading.loader import build_loader

    data = load_data_config(out / 'data.yaml')
    dataset = TextDataset(data, 'train', 640, rect=False)
    batch = next(iter(build_loader(dataset, PREVIEW, workers=0)))
    plot_preview(batch, out / 'preview.jpg', data.names)


def summarise(items: list[Item]) -> list[str]:
    """A line a split."""
    lines = []
    for split in SPLITS:
        regions = [item.page.regions for item in items if item.split == split]
        counts = Counter(region.dont_care for page in regions for region in page)
        if regions:
            empty = sum(not page for page in regions)
            unread = counted(counts[True], "don't-care region")
            text = f'{split}: {counted(len(regions), "picture")}, {counted(counts[False], "word")}, {unread}'
            lines.append(text + (f', {counted(empty, "picture")} without text' if empty else ''))
    for split, count in with_others(items).items():
        lines.append(f'{split}: no gt/, so no hmean: {counted(count, "region has", "regions have")} not four corners')
    return lines


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    forms = '\n'.join(f'  {name:14} a {form.place} with {form.form}' for name, form in FORMATS.items())
    parser = argparse.ArgumentParser(
        description=f'{__doc__}\nformats:\n{forms}', formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--from', dest='form', required=True, choices=FORMATS, metavar='FORMAT', help='one of the formats above')
    add('--annotations', type=Path, required=True, metavar='PATH', help='folder or file, as the format says')
    add('--images', type=Path, metavar='DIR', help='pictures, subfolders too (default: where the annotations are)')
    add('--test-annotations', type=Path, metavar='PATH', help='of a test set that has annotations of its own')
    add('--test-images', type=Path, metavar='DIR', help='its pictures (default: where its annotations are)')
    add('--out', type=Path, required=True, metavar='DIR', help='folder to write; must be new or empty')
    add('--val', type=float, metavar='SHARE', help='of the pictures that chooses checkpoints, 0 to 1 (default 0.1)')
    add('--test', type=float, metavar='SHARE', help='of the pictures that is kept for figures, 0 to 1 (default 0)')
    add('--ignore-label', nargs='+', default=[], metavar='NAME', help="labels of regions that become don't-care")
    add(
        '--min-height',
        type=float,
        default=0.0,
        metavar='PX',
        help=f"lower regions become don't-care, in pixels of the picture at {LONG_SIDE} on its longer side (0: none)",
    )
    add(
        '--raw-pixels',
        action='store_true',
        help='annotations are in the pixels as stored, before the picture is turned by its EXIF data',
    )
    add('--link', action='store_true', help='link to the pictures instead of copying them')
    options = parser.parse_args(arguments)
    form = FORMATS[options.form]
    if not all(0 <= fraction < 1 for fraction in (options.val or 0, options.test or 0)):
        parser.error('--val and --test: 0 or more, and less than 1')
    if not 0 <= options.min_height < math.inf:
        parser.error('--min-height: 0 or more')
    if options.ignore_label and not form.labels:
        parser.error(f'--ignore-label: {options.form} has no labels')
    if options.test and options.test_annotations:
        parser.error('--test takes a share of the pictures, --test-annotations names others: give one of them')
    if options.test_images and not options.test_annotations:
        parser.error('--test-images goes with --test-annotations')
    return options


def collect(options: argparse.Namespace, form: Format, skipped: Skipped) -> list[Item]:
    """All items with their splits. Raises UserError where they cannot make a data set."""
    unread = Unread(set(options.ignore_label), options.min_height)
    items = read_items(form, options.annotations, options.images, unread, skipped)
    others = []
    if options.test_annotations:
        if any(item.page.split == 'test' for item in items):
            raise UserError('--test-annotations: the annotations name pictures for test themselves')
        others = read_items(form, options.test_annotations, options.test_images, unread, skipped)
        for item in others:
            item.split = 'test'
    tests = others or [item for item in items if item.page.split == 'test']
    known = among([item.page.image for item in items], [item.page.image for item in tests])
    free = [item for item, is_known in zip(items, known, strict=True) if item.page.split == 'test' or not is_known]
    skipped.of_test, items = len(items) - len(free), free
    if unknown := unread.labels - unread.met:
        there_are = f'there are: {shorten(sorted(unread.met))}' if unread.met else 'no region has a label'
        raise UserError(f'--ignore-label: no region is labelled {shorten(sorted(unknown))} ({there_are})')
    there = {item.page.split for item in items}
    for split in ('val', 'test'):
        if getattr(options, split) and (split in there or '' not in there):
            skipped.notes.append(f'--{split} has no effect: the annotations say which pictures are for what')
    skipped.copies = choose_splits(items, 0.1 if options.val is None else options.val, options.test or 0)
    items += others
    if not all(any(item.split == split for item in items) for split in ('train', 'val')):
        raise UserError(f'training needs pictures in train and in val{"" if form.sets else " (--val)"}')
    if not any(not region.dont_care for item in items if item.split == 'train' for region in item.page.regions):
        raise UserError('no picture of train has a word: there is nothing to train on')
    return items


def main() -> None:
    options = parse_options()
    out, form, skipped = options.out, FORMATS[options.form], Skipped(raw_pixels=options.raw_pixels)
    if out.resolve() == Path.cwd():
        raise UserError(f'--out {out} is the current folder: name a new one')
    if out.exists() and (not out.is_dir() or any(part.name != PARTIAL for part in out.iterdir())):
        raise UserError(f'{out} exists already: choose another --out, or remove it')
    try:
        items = collect(options, form, skipped)
    except UserError:
        print('\n'.join(skipped.describe()))  # it may be the reason
        raise
    write_set(items, out, options.link)
    print('\n'.join([*summarise(items), *skipped.describe()]))
    write_preview(out)
    print(f'written: {out / "data.yaml"} (for --data), {out / "preview.jpg"} (look whether the boxes are right)')


if __name__ == '__main__':
    run_command(main)
