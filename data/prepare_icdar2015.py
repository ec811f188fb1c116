"""Turn the four published ICDAR2015 (Challenge 4, incidental scene text) files into the layout that training reads.

    python data/prepare_icdar2015.py --source DIR --out ICDAR2015

DIR holds the four zips as downloaded, or the folders they were unpacked to (each named like its zip). Written are

    images/<split>/img_N.jpg      the published pictures, byte for byte
    labels/<split>/img_N.txt      '0 x1 y1 x2 y2 x3 y3 x4 y4', 0..1: the quads of legible words
    ignore/<split>/img_N.txt      the same form: the '###' regions, which nobody could read
    gt/<split>/gt_img_N.txt       the official ground truth, as published
    train.txt, val.txt            the training pictures without and with a number divisible by ten
    prepared.json                 written last: what was prepared from what, so that a second run has nothing to do

Every file is written beside its place and renamed, so an interrupted run leaves no half file, and a second run
completes it.
"""

import argparse
import hashlib
import io
import json
import math
import re
import stat
import sys
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.formats.common import MAX_TEXT_BYTES, BadEntry, shorten
from models.errors import UserError
from utils.loading.labels import label_row
from utils.loading.rows import DONT_CARE, split_rows, unquoted
from utils.runtime.cli import positive, run_command
from utils.runtime.run_folder import write_bytes
from utils.runtime.words import counted

SITE = 'https://rrc.cvc.uab.es/?ch=4'
EXPECTED = {'train_icdar': 1000, 'test_icdar': 500}
LAYOUT = {'images': 'img_{}.jpg', 'labels': 'img_{}.txt', 'ignore': 'img_{}.txt', 'gt': 'gt_img_{}.txt'}
MARKER = 'prepared.json'
VAL_EVERY = 10  # pictures whose number it divides make up val
# The published pictures have 50 to 500 kB and 1280x720 pixels. The bounds only stop what is no such picture.
MAX_BYTES = {'.jpg': 8 << 20, '.txt': MAX_TEXT_BYTES}
MAX_TOTAL_BYTES = 1 << 30
MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Part:
    """One split and the stems of the two published files that it is made from."""

    split: str
    images: str
    truth: str


PARTS = (
    Part('train_icdar', 'ch4_training_images', 'ch4_training_localization_transcription_gt'),
    Part('test_icdar', 'ch4_test_images', 'Challenge4_Test_Task1_GT'),
)


class Published:
    """The files img_N.jpg or gt_img_N.txt of one published zip, or of the folder it was unpacked to.

    Files are known by their number alone: a path inside a zip never decides where something is written, and links
    and names of any other form are not taken.
    """

    def __init__(self, source: Path, stem: str, pattern: str):
        """Args: folder of the four files, stem of this one, file names with {} for the number. Raises UserError."""
        self.pattern = pattern
        self.suffix = Path(pattern).suffix
        path = source / f'{stem}.zip'
        if path.is_file():
            try:
                self.zip = zipfile.ZipFile(path)
            except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
                raise UserError(f'{path} is no zip ({error}): download it again from {SITE} while logged in') from error
            infos = [info for info in self.zip.infolist() if not stat.S_ISLNK(info.external_attr >> 16)]
            found = [(info.filename, info, info.file_size, info.CRC) for info in infos]
        else:
            self.zip, path = None, source / stem
            files = [f for folder in (path, path / stem) if folder.is_dir() for f in folder.iterdir()]
            stats = [(f, f.lstat()) for f in files]
            found = [
                (f.relative_to(path).as_posix(), f, s.st_size, s.st_mtime_ns)
                for f, s in stats
                if stat.S_ISREG(s.st_mode)
            ]
        self.path = path
        self.entries, self.sizes, self.stamps = {}, {}, {}
        name_form = re.compile(rf'(?:{re.escape(stem)}/)?' + re.escape(pattern).replace(r'\{\}', '([1-9][0-9]{0,5})'))
        for name, entry, size, stamp in found:
            if match := name_form.fullmatch(name):
                number = int(match[1])
                if number in self.entries:
                    raise UserError(f'{path} holds {pattern.format(number)} twice')
                self.entries[number], self.sizes[number], self.stamps[number] = entry, size, stamp
        if sum(self.sizes.values()) > MAX_TOTAL_BYTES:
            raise UserError(f'{path} unpacks to more than {MAX_TOTAL_BYTES >> 30} GiB: not the published file')

    def check_count(self, expected: int) -> None:
        """Raise UserError unless the files are numbered 1..expected without a gap."""
        missing = [self.pattern.format(n) for n in range(1, expected + 1) if n not in self.entries]
        extra = [self.pattern.format(n) for n in sorted(self.entries) if n > expected]
        if missing or extra:
            wrong = [f'{word} {shorten(names)}' for word, names in (('missing', missing), ('unknown', extra)) if names]
            raise UserError(f'{self.path}: {len(self.entries)} of {expected} files; {"; ".join(wrong)} (from {SITE})')

    def read(self, number: int) -> bytes:
        """Return the bytes of file `number`. Raises BadEntry where it is too large, damaged or encrypted."""
        entry, limit = self.entries[number], MAX_BYTES[self.suffix]
        try:
            # A zip may lie about its sizes, and a folder's file may grow: never hold more than the limit.
            with self.zip.open(entry) if self.zip else open(entry, 'rb') as stream:
                content = stream.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
            raise BadEntry(f'cannot be read ({error})') from error
        if len(content) > limit:
            raise BadEntry(f'larger than {limit >> 20} MiB')
        return content


@dataclass
class Tally:
    """What one split came to."""

    images: list[int] = field(default_factory=list)  # numbers, ascending
    counts: Counter = field(default_factory=Counter)  # words, dont_care
    skipped_images: list[str] = field(default_factory=list)
    skipped_rows: list[str] = field(default_factory=list)

    def describe(self, split: str) -> list[str]:
        """Return the summary's lines."""
        words, dont_care = self.counts['words'], self.counts['dont_care']
        lines = [
            f'{split}: {counted(len(self.images), "picture")}, {counted(words + dont_care, "box", "boxes")}: '
            f"{counted(words, 'word')}, {dont_care} don't-care; skipped {counted(len(self.skipped_images), 'picture')} "
            f'and {counted(len(self.skipped_rows), "row")}'
        ]
        return lines + [f'  skipped {reason}' for reason in self.skipped_images + self.skipped_rows]


def open_sources(source: Path) -> dict[str, tuple[Published, Published]]:
    """Return {split: (pictures, ground truths)} with their counts checked. Raises UserError naming what is missing."""
    if not source.is_dir():
        raise UserError(f'no folder {source}: --source names the folder with the four zips from {SITE} (Downloads)')
    stems = [stem for part in PARTS for stem in (part.images, part.truth)]
    missing = [f'{s}.zip' for s in stems if not (source / f'{s}.zip').is_file() and not (source / s).is_dir()]
    if missing:
        raise UserError(
            f'{source} lacks {", ".join(missing)}: download from {SITE} (Downloads; needs a free registration)'
        )
    sources = {}
    for part in PARTS:
        pair = Published(source, part.images, LAYOUT['images']), Published(source, part.truth, LAYOUT['gt'])
        for published in pair:
            published.check_count(EXPECTED[part.split])
        sources[part.split] = pair
    return sources


def image_size(content: bytes) -> tuple[int, int]:
    """Return (width, height) in pixels of a JPEG that decodes to its end. Raises BadEntry."""
    try:
        with Image.open(io.BytesIO(content), formats=['JPEG']) as image:
            if math.prod(image.size) > MAX_PIXELS:
                raise BadEntry(f'{image.width}x{image.height} pixels are too many')
            image.load()
            return image.size
    except BadEntry:
        raise
    except Exception as error:  # decoders raise what they like at a broken file
        raise BadEntry(f'broken JPEG ({error})') from error


def parse_row(row: str, width: int, height: int) -> tuple[list[float], str]:
    """Read 'x1,y1,...,x4,y4,word'; the word may hold commas.

    Returns: eight coordinates x1 y1 .. x4 y4 clamped to the picture, 0..1 of width and height, and the word.
    Raises: BadEntry for fewer fields, for what is no number, and for a quad without area inside the picture.
    """
    fields = row.split(',', 8)
    if len(fields) < 9:
        raise BadEntry(f'{len(fields)} of 9 fields')
    try:
        pixels = [float(value) for value in fields[:8]]
    except ValueError:
        raise BadEntry('a coordinate is no number') from None
    if not all(map(math.isfinite, pixels)):
        raise BadEntry('a coordinate is not finite')
    quad = [min(max(value / (height if i % 2 else width), 0.0), 1.0) for i, value in enumerate(pixels)]
    xs, ys = quad[0::2], quad[1::2]
    if max(xs) == min(xs) or max(ys) == min(ys):
        raise BadEntry('no area inside the picture')
    return quad, fields[8]


def convert_truth(content: bytes, name: str, size: tuple[int, int], tally: Tally) -> dict[str, bytes]:
    """Return {'labels': ..., 'ignore': ...}: the two label files that one official ground truth becomes.

    Args: the file's bytes, its name for messages, (width, height) of its picture in pixels, the split's tally, which
    counts the words and names the skipped rows.
    """
    rows = {'labels': [], 'ignore': []}
    # Only the coordinates and '###' matter here, so a word in another encoding does no harm.
    for number, row in enumerate(split_rows(content), start=1):
        if not row.strip():
            continue
        try:
            quad, word = parse_row(row, *size)
        except BadEntry as error:
            tally.skipped_rows.append(f'{name} row {number} {row.strip()[:60]!a}: {error}')
            continue
        is_word = unquoted(word) != DONT_CARE
        tally.counts['words' if is_word else 'dont_care'] += 1
        rows['labels' if is_word else 'ignore'].append(label_row(0, quad))
    return {kind: ''.join(lines).encode() for kind, lines in rows.items()}


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; one that already holds just this is left alone."""
    if not (path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content):
        write_bytes(path, content)


def targets(out: Path, split: str, number: int) -> dict[str, Path]:
    """Return {kind: path} of the four files of one picture."""
    return {kind: out / kind / split / pattern.format(number) for kind, pattern in LAYOUT.items()}


def prepare_split(images: Published, truths: Published, out: Path, split: str, last: int) -> Tally:
    """Write the four files of pictures 1..last of a split; what cannot be used is skipped and named in the tally."""
    tally = Tally()
    for kind in LAYOUT:
        (out / kind / split).mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(1, last + 1), desc=split, unit='picture', disable=None):
        paths, reading = targets(out, split, number), images
        try:
            contents = {'images': images.read(number)}
            size = image_size(contents['images'])
            reading = truths
            contents['gt'] = truths.read(number)
        except BadEntry as error:
            tally.skipped_images.append(f'{reading.pattern.format(number)} of {reading.path.name}: {error}')
            for path in paths.values():
                path.unlink(missing_ok=True)  # of an earlier, better source
            continue
        contents |= convert_truth(contents['gt'], paths['gt'].name, size, tally)
        # The picture comes last: where it is, its labels are too.
        for kind in ('gt', 'ignore', 'labels', 'images'):
            write_file(paths[kind], contents[kind])
        tally.images.append(number)
    return tally


def write_lists(out: Path, numbers: list[int]) -> str:
    """Write train.txt and val.txt, rows relative to themselves, and return a line that says how long they are."""
    lists = {'train.txt': [n for n in numbers if n % VAL_EVERY], 'val.txt': [n for n in numbers if not n % VAL_EVERY]}
    for name, chosen in lists.items():
        rows = [f'./images/train_icdar/{LAYOUT["images"].format(n)}\n' for n in chosen]
        write_file(out / name, ''.join(rows).encode())
    return ', '.join(f'{name}: {counted(len(chosen), "picture")}' for name, chosen in lists.items())


def source_digest(sources: dict[str, tuple[Published, Published]], limit: int | None) -> str:
    """Return a digest of the published files (sizes, and checksums or times) and of the limit."""
    listing = [[limit, VAL_EVERY]]
    for split, pair in sources.items():
        for published in pair:
            listing += [[split, n, published.sizes[n], published.stamps[n]] for n in sorted(published.entries)]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def result_digest(out: Path, images: dict[str, list[int]]) -> str | None:
    """Return a digest of the names and sizes of all that was written, or None where a file is missing."""
    files = [out / 'train.txt', out / 'val.txt']
    files += [path for split, numbers in images.items() for n in numbers for path in targets(out, split, n).values()]
    try:
        listing = [[path.relative_to(out).as_posix(), path.stat().st_size] for path in files]
    except OSError:
        return None
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def finished_summary(out: Path, source: str) -> str | None:
    """Return the summary of an earlier complete run from the same source, or None where there is work to do."""
    try:
        done = json.loads((out / MARKER).read_text(encoding='utf-8'))
        same = done['source'] == source and done['result'] == result_digest(out, done['pictures'])
        return done['summary'] if same else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # no marker, or not one of ours: prepare anew


def refuse_larger(out: Path, lasts: dict[str, int]) -> None:
    """Raise UserError where `out` holds pictures beyond the limit: a folder of pictures would mix two preparations."""
    for split, last in lasts.items():
        folder = out / 'images' / split
        for path in folder.iterdir() if folder.is_dir() else ():
            if (match := re.fullmatch(r'img_(\d+)\.jpg', path.name)) and int(match[1]) > last:
                raise UserError(
                    f'{out} holds more pictures ({split}/{path.name}) than --limit {last}: use another --out'
                )


def refuse_foreign(out: Path) -> None:
    """Raise UserError where `out` is a data set that this program did not make."""
    ours = (out / MARKER).is_file() or (out / 'gt/train_icdar').is_dir()
    of_others = any((out / name).is_file() for name in ('synthtext.json', 'data.yaml'))  # which have such a gt/, too
    if of_others or ((out / 'images').exists() and not ours):
        raise UserError(f'{out} holds another data set: use another --out')


def prepare(source: Path, out: Path, limit: int | None = None) -> str:
    """Prepare the data set and return the summary.

    Args:
        source: folder with the four published zips, or with the folders they were unpacked to.
        out: folder to write; made where it is missing, completed where it is not.
        limit: take only the first `limit` pictures of each split.
    Raises: UserError for missing or incomplete published files, and for a place that cannot be written.
    """
    sources = open_sources(source)
    stamp = source_digest(sources, limit)
    if summary := finished_summary(out, stamp):
        return f'{out} is complete already\n{summary}'
    lasts = {split: min(limit or count, count) for split, count in EXPECTED.items()}
    try:
        refuse_foreign(out)
        refuse_larger(out, lasts)
        out.mkdir(parents=True, exist_ok=True)
        (out / MARKER).unlink(missing_ok=True)
        tallies = {split: prepare_split(*pair, out, split, lasts[split]) for split, pair in sources.items()}
        images = {split: tally.images for split, tally in tallies.items()}
        lines = [line for split, tally in tallies.items() for line in tally.describe(split)]
        summary = '\n'.join([*lines, write_lists(out, images['train_icdar'])])
        done = {'source': stamp, 'result': result_digest(out, images), 'pictures': images, 'summary': summary}
        write_file(out / MARKER, json.dumps(done).encode())
    except OSError as error:
        raise UserError(f'cannot write {out}: {error}') from error
    return f'prepared {out}\n{summary}'


def main() -> None:
    parser = argparse.ArgumentParser(description='Prepare ICDAR2015 (Challenge 4) for training and evaluation.')
    parser.add_argument(
        '--source', type=Path, required=True, help=f'folder with the four zips from {SITE}, or with them unpacked'
    )
    parser.add_argument('--out', type=Path, default=Path('ICDAR2015'), help='folder to write (default: %(default)s)')
    parser.add_argument('--limit', type=positive, help='take only the first N pictures of each split, for a trial')
    opt = parser.parse_args()
    print(prepare(opt.source, opt.out, opt.limit))


if __name__ == '__main__':
    run_command(main)
