"""What a command looks at: files, folders, globs, lists, videos and webcams. Needs no torch."""

import glob
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np

from models.errors import UserError
from ocrdistill.errors import Unreadable
from ocrdistill.files import IMAGE_SUFFIXES, absolute, left_out, walk
from ocrdistill.sources import DRAWN, natural_key, read_pages, refuse_output, without_drawn
from utils.loading.images import decode_with_opencv
from utils.loading.listing import image_of_row
from utils.loading.rows import read_list

VIDEOS = frozenset(['.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv'])
COUNTED = frozenset(['.avi', '.m4v', '.mov', '.mp4'])  # of these, whose headers tell how many frames they have
WEBCAM_DIGITS = 9  # of the number of a webcam at most; a longer one is the name of something that is missing
DEFAULT_FPS = 30.0  # of webcams and videos that do not tell
GROUP_PIXELS = 50_000_000  # a group of images that is larger takes no more: memory is finite


class Source(NamedTuple):
    """One file, one page of a file, or a webcam.

    name: its path below the folder that holds all sources of the run; unique in a run.
    page: which of the images in the file, from 0.
    """

    name: PurePosixPath
    path: Path | None = None
    webcam: int | None = None
    page: int = 0

    @property
    def moves(self) -> bool:
        """True of a video or a webcam, False of an image."""
        return self.webcam is not None or self.path.suffix.lower() in VIDEOS


def find_sources(source: str, project: str = '', draws: bool = False) -> tuple[list[Source], str]:
    """Find what a --source means: an image, video, folder (recursive), glob, list file (*.txt) or webcam number.

    Of a folder hidden parts are left out, and links are followed. A row of a list file is relative to the list file.
    Not all of its files need be there: one that is missing does not end a run.

    Args:
        source: it.
        project: folder of runs. What lies in it is left out where it lies below the folder that is the source, or
            with which a glob begins.
        draws: pictures will be written there.

    Returns:
        The sources, and a line on what lies among them and is left out, '' for nothing.

    Raises:
        UserError: there is no such source, it holds no images, or it is the folder that pictures are written to.
    """
    path = Path(source)
    if source.isdecimal() and len(source) <= WEBCAM_DIGITS and not os.path.exists(path):
        return [Source(PurePosixPath(f'webcam_{source}'), webcam=int(source))], ''
    if source and os.path.isdir(path):  # an empty text, of a shell variable that is not set, is not the current folder
        refuse_output(path, [Path(project)] if project and draws else [])
        files, rest = _choose(walk(path), path, project)
    elif os.path.isfile(path):
        files, rest = _read_list(path) if path.suffix.lower() == '.txt' else ([path], '')
    elif glob.has_magic(source):
        files, rest = _choose(_expand(source), _fixed(path), project)
    else:
        raise UserError(f'no such source: {source}')
    if not files:
        raise UserError(f'no images in {source} ({rest or "looked for " + ", ".join(sorted(IMAGE_SUFFIXES | VIDEOS))})')

    files = [absolute(file) for file in files]
    if not os.path.isfile(path):  # a list file is read in its own order
        files.sort(key=natural_key)
    there = [file for file in files if os.path.isfile(file)] or files  # a row of a list may name what is gone
    try:
        root = absolute(path) if os.path.isdir(path) else os.path.commonpath([file.parent for file in there])
    except ValueError as error:  # of two drives of Windows
        raise UserError(f'{source}: its files have no folder in common ({error})') from None
    found = [Source(_name_below(root, file), file) for file in dict.fromkeys(files)]
    if len(found) < len(files):
        rest = f'left out: {len(files) - len(found)} of {len(files)} rows, which name a file again'
    return found, rest


def _name_below(root: str, file: Path) -> PurePosixPath:
    """A file's path below the folder; of one elsewhere, which is not there, its path below the root of all."""
    return PurePosixPath(file.relative_to(root if file.is_relative_to(root) else file.anchor).as_posix())


def _choose(files: list[Path], folder: Path, project: str) -> tuple[list[Path], str]:
    """The images and videos among files below a folder, without those in the folder of runs; a line on the others."""
    files, drawn = without_drawn(files, folder, [Path(project)] if project else [])
    media = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES | VIDEOS]
    others = left_out(file for file in files if file.suffix.lower() not in IMAGE_SUFFIXES | VIDEOS)
    return media, '; '.join(filter(None, [others, DRAWN.format(drawn) if drawn else '']))


def _fixed(pattern: Path) -> Path:
    """The folder with which a glob begins: what stands before its first part with a sign such as *."""
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))


def _expand(pattern: str) -> list[Path]:
    """The files that a glob means, each once: `**` goes round and round where a link leads back to a folder above."""
    found = sorted(
        filter(os.path.isfile, map(Path, glob.glob(pattern, recursive=True))), key=lambda file: len(file.parts)
    )
    once = {}
    for file in found:
        once.setdefault((os.path.realpath(file.parent), file.name), file)
    return list(once.values())


def _read_list(file: Path) -> tuple[list[Path], str]:
    rows = read_list(file)
    if not rows:
        raise UserError(f'{file} is an empty list')
    files = [image_of_row(row, [file.parent]) for row in rows]
    if not any(map(os.path.isfile, files)):
        none = f'none of its {len(rows)} rows names a file' if len(rows) > 1 else 'its only row names no file'
        raise UserError(f'{file} is no list of images: {none} ({rows[0][:80]!r})')
    return files, ''


def read_in_groups(sources: list[Source], size: int) -> Iterator[list[tuple[Source, np.ndarray | Unreadable | None]]]:
    """Read images, the next group in a thread while the caller works on one.

    Each page of a file is a source of its own, whose name ends with _page2, _page3 and so on.

    Yields:
        Up to `size` neighbouring images, fewer if they are large, each with its pixels (H, W, 3) or why there are
        none; or one video or webcam with None.
    """
    groups = _read_groups(sources, size)
    with ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(next, groups, None)
        while (group := ahead.result()) is not None:
            ahead = thread.submit(next, groups, None)
            yield group


def _read_groups(sources: list[Source], size: int) -> Iterator[list]:
    group, pixels = [], 0
    for source, image in _read_one_by_one(sources):
        if group and (image is None or len(group) == size or pixels > GROUP_PIXELS):
            yield group
            group, pixels = [], 0
        if image is None:
            yield [(source, None)]
            continue
        if not isinstance(image, Unreadable):
            pixels += image.shape[0] * image.shape[1]
        group.append((source, image))
    if group:
        yield group


def _read_one_by_one(sources: list[Source]) -> Iterator[tuple[Source, np.ndarray | Unreadable | None]]:
    names = {source.name for source in sources}
    for source in sources:
        if source.moves:
            yield source, None
            continue
        pages = read_pages(source.path, source.name, names, decode_with_opencv)
        for page, (name, image) in enumerate(pages):
            yield source._replace(name=name, page=page), image


class Video:
    """Frames of a video file or a webcam.

    Args:
        source: where they come from.
        stride: every stride-th frame is read, the first one first.

    Attributes:
        fps: of the frames that are read.
        expected: how many frames the file's header names, 0 when it names none.
        count: how many will be read of them, None when unknown.
        passed: how many there were so far, read or passed over.

    Raises:
        Unreadable: it cannot be opened.
    """

    def __init__(self, source: Source, stride: int = 1):
        if source.path is not None and not os.path.isfile(source.path):
            raise Unreadable('No such file or directory')
        try:
            str(source.path).encode()
        except UnicodeEncodeError:  # of surrogates: OpenCV takes UTF-8 alone, and may crash
            raise Unreadable('the name of a video must be UTF-8: rename it') from None
        self.stride = stride
        self.capture = cv2.VideoCapture(source.webcam if source.path is None else str(source.path))
        if not self.capture.isOpened():
            raise Unreadable('the webcam cannot be opened' if source.path is None else 'no video, or a broken one')
        fps = self.capture.get(cv2.CAP_PROP_FPS)
        self.fps = (fps if 0 < fps < 1000 else DEFAULT_FPS) / stride
        frames = 0 if source.path is None else max(int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        # Of other kinds OpenCV makes up a count from the duration, which may be that of the sound.
        self.expected = frames if source.path is not None and source.path.suffix.lower() in COUNTED else 0
        self.count = -(-frames // stride) or None
        self.passed = 0

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number of the frame in the video, from 0; (H, W, 3) uint8 RGB). Raises Unreadable if there is none."""
        with closing(self):
            while self.capture.grab():
                if self.passed % self.stride == 0:
                    success, image = self.capture.retrieve()
                    if not success:
                        break
                    yield self.passed, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                self.passed += 1
        if self.passed == 0:
            raise Unreadable('not one frame of it can be decoded')

    def close(self) -> None:
        self.capture.release()
