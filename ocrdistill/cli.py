"""The command `ocrdistill`: words in pictures, found (detect) and read (read). Imports nothing heavy before it must."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ocrdistill.errors import Unreadable, UserError

SIZES = ('fast', 'balanced', 'best')
RECOGNISERS = ('rapidocr', 'tesseract')
FORMATS = ('text', 'json', 'hocr', 'alto')


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='ocrdistill', description='Find and read the words in pictures.')
    commands = parser.add_subparsers(dest='command', required=True)
    detect = commands.add_parser('detect', help='find words', description='Find words in pictures.')
    read = commands.add_parser('read', help='find words and read them', description='Find words and read them.')
    for command in (detect, read):
        command.add_argument('sources', nargs='+', metavar='FILE|FOLDER', help='pictures; folders with all below them')
        command.add_argument('--model', default='n', help='n, s, or a .onnx file of export.py (default n)')
        size = f'{", ".join(SIZES)} or pixels of the long side (default balanced)'
        command.add_argument('--size', default='balanced', type=_size, metavar='SIZE', help=size)
        command.add_argument('--threshold', type=float, metavar='SCORE', help='lowest score, 0..1 (default: as chosen)')
        tiles = command.add_argument('--slice', nargs='?', type=int, const=True, default=False, metavar='PX')
        tiles.help = 'look at tiles of PX x PX pixels, too (default: of --size)'
        command.add_argument('--rotate', action='store_true', help='find words in all four quarter turns')
        several = 'score words by three sizes: surer with --size best, nearly twice as slow'
        command.add_argument('--multiscale', action='store_true', help=several)
        command.add_argument('--max-words', type=int, metavar='N', help='of a picture (1000; 3000 with --slice)')
        command.add_argument('--threads', type=int, metavar='N', help='of the processor (default: all cores)')
        command.add_argument('--draw', type=Path, metavar='DIR', help='write pictures with the words outlined')
        command.add_argument('--scores', action='store_true', help='with --draw: write the scores beside the words')
    detect.add_argument('--json', type=Path, metavar='FILE', help='write boxes, corners, scores, lines; - prints them')
    detect.add_argument('--crops', type=Path, metavar='DIR', help='write each word, levelled, in reading order')
    read.add_argument('--format', choices=FORMATS, default='text', help='of what is written (default text)')
    read.add_argument('--out', type=Path, metavar='FILE', help='write there (default: print)')
    read.add_argument('--recogniser', choices=RECOGNISERS, default='rapidocr', help='(default rapidocr)')
    read.add_argument('--language', metavar='LANG', help='of tesseract, such as eng or deu+fra')
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command and end the process: 0; 1 after a mistake, with one line on standard error; 2 for bad flags."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.scores and not options.draw:
        parser.error('--scores are drawn: give --draw too')
    if options.command == 'read' and options.language and options.recogniser != 'tesseract':
        parser.error('--language is for --recogniser tesseract')
    logging.basicConfig(format='warning: %(message)s')
    try:
        {'detect': run_detect, 'read': run_read}[options.command](options)
    except UserError as error:
        sys.exit(f'error: {" ".join(str(error).split())}')
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f'error: {error.filename}: {error.strerror}')


def run_detect(options: argparse.Namespace) -> None:
    """`ocrdistill detect`."""
    from ocrdistill.detector import TextDetector
    from ocrdistill.reading.formats import Page, to_json

    images = Images(options.sources)
    detector = TextDetector(**detector_options(options))
    pages: list[Page] = []
    printed = options.json is not None and str(options.json) == '-'
    for name, image in images:
        words = detector(image)
        pages.append(Page(str(name), image.shape[1], image.shape[0], words))
        print(f'{name}: {counted(len(words), "word")}', file=sys.stderr if printed else sys.stdout)
        if options.draw:
            draw(image, words, options.draw / name, options.scores, images)
        if options.crops:
            for number, word in enumerate(words):
                images.save(word.crop(), options.crops / name.with_name(f'{name.name}_{number:03d}.png'))
    if options.json is not None:
        put(to_json(pages), None if printed else options.json)
    images.end()


def run_read(options: argparse.Namespace) -> None:
    """`ocrdistill read`."""
    from ocrdistill.reading.formats import FORMATS as WRITERS
    from ocrdistill.reading.formats import Page
    from ocrdistill.reading.reader import TextReader

    images = Images(options.sources)
    reader = TextReader(options.recogniser, language=options.language, **detector_options(options))
    pages: list[Page] = []
    for name, image in images:
        words = reader(image)
        pages.append(Page(str(name), image.shape[1], image.shape[0], words))
        if images.several or options.out:
            print(f'{name}: {counted(len(words), "word")}', file=sys.stderr)
        if options.draw:
            draw(image, words, options.draw / name, options.scores, images)
    put(WRITERS[options.format][1](pages), options.out)
    images.end()


class Images:
    """The images that the sources mean, one after the other; those that cannot be read are counted.

    Iterating yields name and pixels (H, W, 3).
    """

    def __init__(self, sources: list[str]):
        from ocrdistill.sources import find_images

        self.files, self.left_out = find_images(sources)
        self.real = {os.path.realpath(file) for file in self.files.values()}
        self.failed: list[str] = []
        self.count = 0

    @property
    def several(self) -> bool:
        return len(self.files) > 1

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        from ocrdistill.sources import read_pages

        if self.left_out:
            print(self.left_out, file=sys.stderr)
        for own, file in self.files.items():
            for name, _, image in read_pages(file, own, self.files):
                self.count += 1
                if isinstance(image, Unreadable):
                    self.failed.append(f'{name} ({image})')
                else:
                    yield name, image

    def save(self, image: Any, file: Path) -> None:
        """Write an image (H, W, 3), as PNG where the name's own form may lose colours. Raises UserError: it would
        overwrite a source."""
        from PIL import Image

        if file.suffix.lower() not in ('.jpg', '.jpeg', '.png', '.webp'):
            file = file.with_name(f'{file.name}.png')
        if os.path.realpath(file) in self.real:
            raise UserError(f'{file} is a source itself: choose another folder')
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file, quality=95)

    def end(self) -> None:
        """Raises UserError that names what could not be read."""
        if self.failed:
            more = f' and {len(self.failed) - 5} more' if len(self.failed) > 5 else ''
            raise UserError(f'{len(self.failed)} of {self.count} could not be read: {"; ".join(self.failed[:5])}{more}')


def detector_options(options: argparse.Namespace) -> dict[str, Any]:
    """What both commands hand to TextDetector."""
    names = ('model', 'size', 'threshold', 'slice', 'rotate', 'multiscale', 'max_words', 'threads')
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


def put(text: str, file: Path | None) -> None:
    """Write a text to a file, or print it."""
    if file is None:
        if hasattr(sys.stdout, 'reconfigure'):
            sys.stdout.reconfigure(encoding='utf-8')
        sys.stdout.write(text)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding='utf-8')


def counted(count: int, noun: str) -> str:
    return f'{count} {noun}' if count == 1 else f'{count} {noun}s'


def _size(text: str) -> str | int:
    return int(text) if text.isdecimal() else text
