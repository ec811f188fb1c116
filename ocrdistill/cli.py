"""The command `ocrdistill`: words in pictures, found (detect) and read (read). Imports nothing heavy before it must."""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ocrdistill import __version__
from ocrdistill.command import end_plainly
from ocrdistill.errors import Unreadable, UserError
from ocrdistill.files import MAX_SIDES, UNLIMITED, numbered
from ocrdistill.whole_files import replacing

PICTURES = {'.jpg': 'JPEG', '.jpeg': 'JPEG', '.png': 'PNG', '.webp': 'WEBP'}  # of pictures that are drawn, for Pillow
SIZES = ('fast', 'balanced', 'best')
RECOGNISERS = ('rapidocr', 'tesseract')
FORMATS = ('text', 'json', 'hocr', 'alto')


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='ocrdistill', description='Find and read the words in pictures.')
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    commands = parser.add_subparsers(dest='command', required=True)
    detect = commands.add_parser('detect', help='find words', description='Find words in pictures.')
    read = commands.add_parser('read', help='find words and read them', description='Find words and read them.')
    for command in (detect, read):
        command.add_argument('sources', nargs='+', metavar='FILE|FOLDER', help='pictures; folders with all below them')
        command.add_argument(
            '--model',
            default='n',
            help='n, s where docs/python.md was followed, or a .onnx file of export.py (default n)',
        )
        size = f'{", ".join(SIZES)} or pixels of the long side (default: balanced; a .onnx file: that of its export)'
        command.add_argument('--size', type=_size, metavar='SIZE', help=size)
        command.add_argument(
            '--threshold', type=float, metavar='SCORE', help='lowest score, 0..1 (default: the one in the network)'
        )
        tiles = command.add_argument('--slice', nargs='?', type=_tile, const=True, default=False, metavar='PX')
        tiles.help = 'look at tiles of PX x PX pixels, too (without PX: of --size)'
        turned = 'find words that are turned by 90, 180 or 270 degrees, too'
        command.add_argument('--rotate', action='store_true', help=turned)
        several = 'score words by three sizes: surer with --size best, in twice the time'
        command.add_argument('--multiscale', action='store_true', help=several)
        command.add_argument(
            '--max-words', type=int, metavar='N', help='most words of a picture (1000; 3000 with --slice)'
        )
        command.add_argument('--threads', type=int, metavar='N', help='threads of the processor (default: all cores)')
        where = "ONNX Runtime's, such as CUDAExecutionProvider,CPUExecutionProvider (default: the processor)"
        command.add_argument('--providers', type=_names, metavar='LIST', help=where)
        command.add_argument('--draw', type=_folder, metavar='DIR', help='write pictures with the words outlined')
        command.add_argument('--scores', action='store_true', help='with --draw: write the scores beside the words')
        command.add_argument('--crops', type=_folder, metavar='DIR', help='write each word, levelled, in reading order')
    detect.add_argument('--json', type=Path, metavar='FILE', help='write boxes, corners, scores, lines; - prints them')
    read.add_argument('--format', choices=FORMATS, default='text', help='of what is written (default text)')
    read.add_argument('--out', type=Path, metavar='FILE', help='write there (default: -, print)')
    read.add_argument('--recogniser', choices=RECOGNISERS, default='rapidocr', help='(default rapidocr)')
    read.add_argument('--language', metavar='LANG', help='of tesseract, such as eng or deu+fra')
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command and end the process: 0; 1 after a mistake, with one line on standard error; 2 for flags that are
    unknown or contradict each other; 130, 143 and 129 after Ctrl-C, SIGTERM and SIGHUP, with what was found so far
    written."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.scores and not options.draw:
        parser.error('--scores are drawn: give --draw too')
    if options.command == 'read' and options.language and options.recogniser != 'tesseract':
        parser.error('--language is for --recogniser tesseract')
    logging.basicConfig(format='warning: %(message)s')
    end_plainly(lambda: {'detect': run_detect, 'read': run_read}[options.command](options))


def run_detect(options: argparse.Namespace) -> None:
    """`ocrdistill detect`."""
    from ocrdistill.detector import TextDetector
    from ocrdistill.reading.formats import to_json

    images = Images(options.sources, (options.draw, options.crops))
    printed = options.json is not None and str(options.json) == '-'
    with Report(to_json if options.json else None, None if printed else options.json, images) as report:
        detector = TextDetector(**detector_options(options))
        for name, image in images:
            words = detector(image, name=str(name))
            report.add(name, image, words)
            print(f'{name}: {counted(len(words), "word")}', file=sys.stderr if printed else sys.stdout, flush=True)
            write_pictures(options, name, image, words, images)
    images.end()


def run_read(options: argparse.Namespace) -> None:
    """`ocrdistill read`."""
    from ocrdistill.reading.formats import FORMATS as WRITERS
    from ocrdistill.reading.formats import to_text
    from ocrdistill.reading.reader import TextReader

    images = Images(options.sources, (options.draw, options.crops))
    out = None if str(options.out) == '-' else options.out
    write: Callable[[list[Any]], str] = WRITERS[options.format]
    if options.format == 'text':
        write = partial(to_text, named=images.several)
    with Report(write, out, images) as report:
        reader = TextReader(options.recogniser, language=options.language, **detector_options(options))
        for name, image in images:
            words = reader(image, name=str(name))
            report.add(name, image, words)
            if images.several or out:
                print(f'{name}: {counted(len(words), "word")}', file=sys.stderr, flush=True)
            write_pictures(options, name, image, words, images)
    images.end()


class Report:
    """What is told of all images, written at the end; as a context manager also at an error or an interruption, of the
    images before.

    Args:
        write: makes the text of pages, '' where nothing is to be written; None: there is none.
        file: where to; None: it is printed.
        images: the sources, which it must not replace.

    Raises:
        UserError: the file is a source or a folder. An OSError where it cannot be written; both before any image.
    """

    def __init__(self, write: Callable[[list[Any]], str] | None, file: Path | None, images: 'Images'):
        self.write, self.file = write, file
        self.pages: list[Any] = []
        if file is None:
            if write and sys.stdout is None:
                raise UserError('standard output is closed: name a file')
            return
        images.protect(file)
        if file.is_dir():
            raise UserError(f'{file} is a folder: name a file')
        file.parent.mkdir(parents=True, exist_ok=True)
        new = not file.exists()
        if new or file.is_file():  # no pipe, whose reader would see its end
            with file.open('ab'):  # it may be written
                pass
        if new:
            file.resolve().unlink()  # not a link to it

    def add(self, name: Any, image: Any, words: list[Any]) -> None:
        """Keep the words of an image (H, W, 3), without its pixels."""
        from dataclasses import replace

        import numpy as np

        from ocrdistill.reading.formats import Page

        if self.write:
            none = np.zeros((0, 0, 3), np.uint8)  # not a slice, which would keep all of it
            kept = [replace(word, image=none) for word in words]
            self.pages.append(Page(str(name), image.shape[1], image.shape[0], kept))

    def __enter__(self) -> 'Report':
        return self

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if self.write is None or (error is not None and not self.pages):
            return
        text = self.write(self.pages)
        if not text:
            return
        if self.file is not None:
            place = self.file.resolve()
            # No pipe, which exists where its resolved name does not; no file in a folder that takes no other one.
            whole = (place.is_file() or not self.file.exists()) and os.access(place.parent, os.W_OK)
            with replacing(place) if whole else contextlib.nullcontext(self.file) as file:
                # What UTF-8 cannot hold, of names, becomes an escape, which JSON reads back.
                file.write_text(text, encoding='utf-8', errors='backslashreplace')
            return
        if hasattr(sys.stdout, 'reconfigure'):
            sys.stdout.reconfigure(encoding='utf-8', errors='backslashreplace')
        sys.stdout.write(text)


class Images:
    """The images that the sources mean, one after the other; those that cannot be read are counted.

    Iterating yields name and pixels (H, W, 3).
    """

    def __init__(self, sources: list[str], outputs: Sequence[Path | None] = ()):
        from ocrdistill.sources import find_images

        self.files, self.left_out = find_images(sources, [folder for folder in outputs if folder])
        self.real = {os.path.realpath(file) for file in self.files.values()}
        self.failed: list[str] = []
        self.written: set[Path] = set()
        self.count = 0

    @property
    def several(self) -> bool:
        return len(self.files) > 1

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        from ocrdistill.sources import read_pages

        if self.left_out:
            print(self.left_out, file=sys.stderr)
        for own, file in self.files.items():
            for name, image in read_pages(file, own, self.files):
                self.count += 1
                if isinstance(image, Unreadable):
                    self.failed.append(f'{name} ({image})')
                    print(f'{name}: not read ({image})', file=sys.stderr, flush=True)
                else:
                    yield name, image

    def save(self, image: Any, file: Path) -> None:
        """Write an image (H, W, 3), as PNG where the name's own form may lose colours or holds no image of that size;
        under another name where this run has used that name already. Raises UserError: it would overwrite a source."""
        from PIL import Image

        kept = file.suffix.lower() in PICTURES
        if not kept or max(image.shape[:2]) > MAX_SIDES.get(file.suffix.lower(), UNLIMITED):
            file = file.with_name(f'{file.name}.png')
        while file in self.written:  # a.tif and a.tif.png both become a.tif.png
            file = file.with_name(f'annotated_{file.name}')
        self.written.add(file)
        self.protect(file)
        with replacing(Path(os.path.realpath(file))) as temporary:  # a link stays one
            Image.fromarray(image).save(temporary, PICTURES[file.suffix.lower()], quality=95)

    def protect(self, file: Path) -> None:
        """Raises UserError where a file that is to be written is a source."""
        if os.path.realpath(file) in self.real:
            raise UserError(f'{file} is a source itself: choose another place')

    def end(self) -> None:
        """Raises UserError that names what could not be read."""
        from ocrdistill.sources import refuse_unread

        refuse_unread(self.failed, self.count)


def detector_options(options: argparse.Namespace) -> dict[str, Any]:
    """What both commands hand to TextDetector."""
    names = ('model', 'size', 'threshold', 'slice', 'rotate', 'multiscale', 'max_words', 'threads', 'providers')
    return {name: getattr(options, name) for name in names}


def draw(image: Any, words: list[Any], file: Path, with_scores: bool, images: Images) -> None:
    """Write a copy of an image with its words."""
    import numpy as np

    from ocrdistill.drawing import draw_words, score_colour

    quads = np.array([word.quad for word in words]).reshape(-1, 4, 2)
    scores = [word.score if word.text_score is None else word.text_score for word in words]
    texts = [f'{score:.2f}' for score in scores] if with_scores else []
    annotated = draw_words(image, quads, [score_colour(score) for score in scores], texts)
    images.save(annotated, file)


def write_pictures(options: argparse.Namespace, name: Any, image: Any, words: list[Any], images: Images) -> None:
    """What --draw and --crops ask for of an image."""
    if options.draw:
        draw(image, words, options.draw / name, options.scores, images)
    if options.crops:
        for number, word in zip(numbered(len(words)), words, strict=True):
            images.save(word.crop(), options.crops / name.with_name(f'{name.name}_{number}.png'))


def counted(count: int, noun: str) -> str:
    return f'{count} {noun}' if count == 1 else f'{count} {noun}s'


def _size(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(',')]


def _folder(text: str) -> Path:
    if not text:  # of a shell variable that is not set; as a path it would be the current folder
        raise argparse.ArgumentTypeError('it is empty: name a folder')
    return Path(text)


def _tile(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is no number of pixels; name the pictures before --slice')
    return int(text)
