"""Render pictures of scene text with exact quads: the demo data set, and sample data in ICDAR2015's layout.

    python data/synthtext.py                                          # the demo: 400 + 100 pictures of 640x360
    python data/synthtext.py --size 1280x720 --train 1000 --test 500 --out synth720
    python data/synthtext.py --style incidental --fonts /usr/share/fonts --words /usr/share/dict/words \\
        --backgrounds ICDAR2015/train.txt /usr/share/backgrounds --compare ICDAR2015 --train 20000 --out synth

Words of data/words.txt, numbers, prices and phone numbers stand on sign boards or straight on walls, planks, bricks,
fronts and a photograph. Boards are turned in space and projected; light, shadows, blur, noise and JPEG follow, so
that word sizes and angles resemble ICDAR2015's incidental text. A word's quad is the tight extent of its ink (outline
included, shadow not) in the frame of its board, mapped by the homography that warps the board. Words that end up too
small, too blurred or too faint to read, or that the picture's border cuts, are don't-care ('###').

    OUT/images/{train_icdar,test_icdar}/img_N.jpg
    OUT/labels/, OUT/ignore/   img_N.txt     0 x1 y1 ... x4 y4 (0..1): legible words; don't-care regions
    OUT/gt/                    gt_img_N.txt  x1,y1,...,x4,y4,word: whole pixels, clockwise from the word's top left
    OUT/train.txt, OUT/val.txt               training pictures with N % 10 != 0, and with N % 10 == 0

Sizes follow the picture's: at 1280x720 legible words are 14 pixels high or more (median about 25), at 640x360 10 or
more (median about 16). Picture N is a pure function of (seed, split, N, size) and the installed fonts, which are
matplotlib's and those of the font packages in requirements.txt, as far as they are there.

`--style incidental` is for pre-training: smaller letters, paragraphs, faint, half hidden and more words, in ICDAR2015's
sizes (`--compare` prints both distributions side by side). `--fonts`, `--words` and `--backgrounds` add folders of
fonts, dictionaries (a word a line) and photographs. New text stays away from the text that a photograph's labels/ and
ignore/ files name; that text is don't-care. A picture then depends on these files too.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.synthesis.fonts import find_fonts
from data.synthesis.image import render_image
from data.synthesis.photographs import check_photographs, find_photographs
from data.synthesis.settings import SPLITS, STYLES, Material
from data.synthesis.statistics import compare_with, measure, summarise
from data.synthesis.words import vocabulary
from models.errors import UserError
from utils.loading.labels import label_row
from utils.loading.rows import DONT_CARE
from utils.runtime.cli import run_command
from utils.runtime.cores import usable_cores
from utils.runtime.run_folder import write_json

MANIFEST = 'synthtext.json'
VERSION = 2  # raise it when the same options give other pictures
TREES = ('images', 'labels', 'ignore', 'gt')


class Job(NamedTuple):
    """One picture to render and where to."""

    out: str
    seed: int
    split: str
    number: int
    size: tuple[int, int]  # width, height
    material: Material


def write_image(job: Job) -> list[tuple[float, float, float, bool]]:
    """Render one picture and write its four files; returns (width, height, angle, legible) of its words."""
    image, words, quality = render_image(*job[1:])
    out, folder, stem = Path(job.out), SPLITS[job.split], f'img_{job.number}'
    encoded, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded, 'OpenCV is built without JPEG'
    (out / 'images' / folder / f'{stem}.jpg').write_bytes(data.tobytes())
    for tree, legible in (('labels', True), ('ignore', False)):
        rows = [label_row(0, (word.quad / job.size).ravel()) for word in words if word.legible == legible]
        (out / tree / folder / f'{stem}.txt').write_text(''.join(rows), encoding='utf-8')
    rows = [','.join([*map(str, word.quad.ravel()), word.text if word.legible else DONT_CARE]) + '\n' for word in words]
    (out / 'gt' / folder / f'gt_{stem}.txt').write_text(''.join(rows), encoding='utf-8')
    return [measure(word) for word in words]


def start_worker() -> None:
    """One process, one core; Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def render_all(jobs: list[Job], workers: int) -> list[tuple[float, float, float, bool]]:
    """Render the jobs on so many processes; returns the measures of all words."""
    measures = []
    with tqdm(total=len(jobs), unit='picture', desc='render') as bar:
        if workers == 1:
            for job in jobs:
                measures += write_image(job)
                bar.update()
        else:
            # spawn: the same on every system, and safe beside threads
            with ProcessPoolExecutor(workers, get_context('spawn'), start_worker) as pool:
                try:
                    for words in pool.map(write_image, jobs, chunksize=4):
                        measures += words
                        bar.update()
                except BrokenProcessPool:
                    raise UserError(
                        'a process that renders was killed (out of memory?); --workers 1 needs less'
                    ) from None
    return measures


def write_lists(out: Path, count: int) -> None:
    """Write train.txt and val.txt: the training pictures, those with a number divisible by ten apart."""
    rows = {'train.txt': [], 'val.txt': []}
    for number in range(1, count + 1):
        rows['train.txt' if number % 10 else 'val.txt'].append(f'./images/{SPLITS["train"]}/img_{number}.jpg\n')
    for name, lines in rows.items():
        (out / name).write_text(''.join(lines), encoding='utf-8')
    if count and not rows['val.txt']:
        print('val.txt is empty: every tenth picture is for val')


def read_manifest(out: Path) -> dict | None:
    """What an earlier run left in the folder; None for a new or empty one.

    Raises:
        UserError: the folder holds something else.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f'{out} is a file; --out names a folder')
    if not out.exists() or not any(out.iterdir()):
        return None
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding='utf-8'))
        return {'options': manifest['options'], 'complete': manifest['complete'], 'summary': manifest['summary']}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f'{out} is not empty and not made by this script; choose another --out') from None


def digest(rows: list[str]) -> str:
    """What stands for a long list in the manifest."""
    return hashlib.sha256(os.fsencode('\n'.join(rows))).hexdigest()[:16]


def parse_size(text: str) -> tuple[int, int]:
    """'1280x720' -> (1280, 720)."""
    try:
        width, height = map(int, text.lower().split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not WIDTHxHEIGHT, such as 640x360') from None
    if not (320 <= width <= 8192 and 180 <= height <= 8192):
        raise argparse.ArgumentTypeError(f'{text}: width must be 320..8192 and height 180..8192 pixels')
    return width, height


def parse_count(text: str) -> int:
    """A count of 0 or more."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f'{text!r} is not a count')
    return int(text)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n', 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--out', type=Path, default=Path('demo_data'), help='folder to make')
    parser.add_argument('--train', type=parse_count, default=400, help='training pictures (every tenth is for val)')
    parser.add_argument('--test', type=parse_count, default=100, help='test pictures')
    parser.add_argument('--size', type=parse_size, default='640x360', help='of the pictures, WIDTHxHEIGHT in pixels')
    parser.add_argument('--style', choices=STYLES, default='signs', help='of the text: clear signs, or incidental text')
    parser.add_argument('--fonts', nargs='+', default=[], metavar='DIR', help='more fonts (ttf, otf; subfolders too)')
    parser.add_argument('--words', nargs='+', default=[], metavar='FILE', help='dictionaries, a word a line')
    parser.add_argument(
        '--backgrounds',
        nargs='+',
        default=[],
        metavar='DIR',
        help='folders of photographs (subfolders too), or lists of them (txt)',
    )
    parser.add_argument(
        '--compare', type=Path, metavar='DIR', help='print the measures of this prepared data set beside ours'
    )
    parser.add_argument('--seed', type=parse_count, default=0, help='other seeds give other pictures')
    parser.add_argument('--workers', type=parse_count, default=0, help='processes; 0: one for every core')
    parser.add_argument('--force', action='store_true', help='render anew what an earlier run has made')
    return parser.parse_args()


def holds_pictures(out: Path, counts: dict[str, int]) -> bool:
    """Whether a data set still has the pictures of each split."""
    folders = {split: out / 'images' / SPLITS[split] for split in counts}
    return all(len(list(folders[split].glob('img_*.jpg'))) == count for split, count in counts.items())


def main() -> None:
    """Make the data set, unless it is there."""
    args = parse_options()
    inside = [folder for folder in map(Path, args.backgrounds) if args.out.resolve().is_relative_to(folder.resolve())]
    if inside:  # our own pictures would become backgrounds
        raise UserError(f'--out {args.out} lies in --backgrounds {inside[0]}: choose another folder')
    material = Material(args.style, *(tuple(map(str, part)) for part in (args.fonts, args.words, args.backgrounds)))
    fonts = sorted(Path(path).name for paths in find_fonts(material.fonts).values() for path in paths)
    options = {'version': VERSION, 'seed': args.seed, 'train': args.train, 'test': args.test}
    options |= {'size': list(args.size), 'fonts': fonts, 'style': args.style}
    options |= {
        'words': digest(vocabulary(material.words)),
        'photographs': digest(find_photographs(material.backgrounds)),
    }
    earlier = read_manifest(args.out)
    if earlier and not args.force and earlier['options'] != options:
        raise UserError(f'{args.out} was made with other options or fonts; --force replaces it')
    compared = f'\n{args.compare}: {compare_with(args.compare, args.size)}' if args.compare else ''
    counts = {'train': args.train, 'test': args.test}
    if earlier and earlier['complete'] and not args.force and holds_pictures(args.out, counts):
        print(f'{args.out} is complete, nothing to do (--force renders it anew)\n{earlier["summary"]}{compared}')
        return
    check_photographs(find_photographs(material.backgrounds), args.size)
    args.out.mkdir(parents=True, exist_ok=True)
    # Written first, the manifest makes the folder ours even if the run is interrupted; it says complete at the end.
    write_json(args.out / MANIFEST, {'options': options, 'complete': False, 'summary': ''})
    for tree in TREES:
        shutil.rmtree(args.out / tree, ignore_errors=True)
        for folder in SPLITS.values():
            (args.out / tree / folder).mkdir(parents=True)

    jobs = [
        Job(str(args.out), args.seed, split, number, args.size, material)
        for split, count in counts.items()
        for number in range(1, count + 1)
    ]
    workers = max(1, min(args.workers or usable_cores(), len(jobs)))
    measures = render_all(jobs, workers)
    summary = summarise(len(jobs), measures)
    write_lists(args.out, args.train)
    write_json(args.out / MANIFEST, {'options': options, 'complete': True, 'summary': summary})
    print(f'{args.out}: {summary}{compared}')


if __name__ == '__main__':
    run_command(main)
