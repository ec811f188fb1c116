"""What a command reads pictures from: files, folders, globs, lists, videos and webcams. Needs no torch."""

import glob
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np

from models.errors import UserError
from utils.loading.files import IMAGE_SUFFIXES
from utils.loading.images import Unreadable, read_image

VIDEOS = frozenset(['.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv'])
DEFAULT_FPS = 30.0  # of webcams and videos that do not tell
GROUP_PIXELS = 50_000_000  # a group of pictures that is larger takes no more: memory is finite


class Source(NamedTuple):
    """One file, or a webcam.

    name: its path below the folder that holds all sources of the run; unique in a run.
    """

    name: PurePosixPath
    path: Path | None = None
    webcam: int | None = None

    @property
    def moves(self) -> bool:
        """True of a video or a webcam, False of a picture."""
        return self.webcam is not None or self.path.suffix.lower() in VIDEOS


def find_sources(source: str) -> list[Source]:
    """Find what a --source means: a picture, video, folder (recursive), glob, list file (*.txt) or webcam number.

    Hidden files and folders are left out. A relative row of a list file is relative to the list file; its files are
    not looked for here, so that one that is missing does not end a run.

    Raises:
        UserError: there is no such source, or it holds no pictures.
    """
    path = Path(source)
    if source.isdecimal() and not path.exists():
        return [Source(PurePosixPath(f'webcam_{source}'), webcam=int(source))]
    if source and path.is_dir():  # an empty text, of a shell variable that is not set, is not the current folder
        files = [file for file in path.rglob('*') if _is_media(file) and not _is_hidden(file.relative_to(path))]
    elif path.is_file():
        files = _read_list(path) if path.suffix.lower() == '.txt' else [path]
    elif glob.has_magic(source):
        files = [file for file in map(Path, glob.glob(source, recursive=True)) if _is_media(file)]
    else:
        raise UserError(f'no such source: {source}')
    if not files:
        raise UserError(f'no pictures in {source} (looked for {", ".join(sorted(IMAGE_SUFFIXES | VIDEOS))})')

    files = [Path(os.path.abspath(file)) for file in files]
    if not path.is_file():  # a list file is read in its own order
        files.sort(key=_natural)
    root = os.path.abspath(path) if path.is_dir() else os.path.commonpath([file.parent for file in files])
    return [Source(PurePosixPath(file.relative_to(root).as_posix()), file) for file in dict.fromkeys(files)]


def _is_media(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES | VIDEOS and file.is_file()


def _is_hidden(file: Path) -> bool:
    return any(part.startswith('.') for part in file.parts)


def _natural(file: Path) -> list:
    """A key that sorts img_2 before img_10."""
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in re.split(r'(\d+)', str(file))]


def _read_list(file: Path) -> list[Path]:
    try:
        rows = file.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{file} cannot be read as a list of pictures: {error}') from None
    return [file.parent / row.strip() for row in rows if row.strip()]


def read_in_groups(sources: list[Source], size: int) -> Iterator[list[tuple[Source, np.ndarray | Unreadable | None]]]:
    """Read pictures, the next group in a thread while the caller works on one.

    Yields:
        Up to `size` neighbouring pictures, fewer if they are large, each with its pixels (H, W, 3) or why there are
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
    for source in sources:
        if group and (source.moves or len(group) == size or pixels > GROUP_PIXELS):
            yield group
            group, pixels = [], 0
        if source.moves:
            yield [(source, None)]
            continue
        try:
            image = read_image(source.path)
            pixels += image.shape[0] * image.shape[1]
        except Unreadable as error:
            image = error
        group.append((source, image))
    if group:
        yield group


class Video:
    """Frames of a video file or a webcam.

    Args:
        source: where they come from.
        stride: every stride-th frame is read, the first one first.

    Attributes:
        fps: of the frames that are read.
        count: how many there will be, None when unknown.

    Raises:
        Unreadable: it cannot be opened.
    """

    def __init__(self, source: Source, stride: int = 1):
        if source.path is not None and not source.path.is_file():
            raise Unreadable('No such file or directory')
        self.stride = stride
        self.capture = cv2.VideoCapture(source.webcam if source.path is None else str(source.path))
        if not self.capture.isOpened():
            raise Unreadable('the webcam cannot be opened' if source.path is None else 'no video, or a broken one')
        fps = self.capture.get(cv2.CAP_PROP_FPS)
        self.fps = (fps if 0 < fps < 1000 else DEFAULT_FPS) / stride
        frames = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = -(-frames // stride) if source.path is not None and frames > 0 else None

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number of the frame in the video, from 0; (H, W, 3) uint8 RGB). Raises Unreadable if there is none."""
        number = 0
        with closing(self):
            while self.capture.grab():
                if number % self.stride == 0:
                    success, image = self.capture.retrieve()
                    if not success:
                        break
                    yield number, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                number += 1
        if number == 0:
            raise Unreadable('not one frame of it can be decoded')

    def close(self) -> None:
        self.capture.release()
