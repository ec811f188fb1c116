"""What detect.py writes of a run: annotated pictures and videos, label files, crops, detections.json."""

import contextlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np

from models.errors import UserError
from ocrdistill.detector import CROP_MARGIN
from ocrdistill.files import MAX_SIDES, UNLIMITED, numbered
from ocrdistill.rows import as_detection, corners_of, has_quads, level_crop, upright_crop
from ocrdistill.whole_files import replacing
from utils.loading.labels import label_row
from utils.runtime.run_folder import make_folder, make_run_folder, write_bytes, write_yaml

QUALITY = 95  # of JPEG and WebP files, 0..100
MOST_TICKS = 65_535  # that a second of MPEG-4 may have: the frame rate, in thousandths where that fits
COLOURED = frozenset(['.bmp', '.dib', '.jfif', '.jpe', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp'])


class SourceImage(NamedTuple):
    """An image or a frame of a video.

    image: (H, W, 3) uint8 RGB.
    name: as in detections.json.
    file: path below the run folder's labels/ and crops/<class>/ folders.
    """

    image: np.ndarray
    name: str
    file: PurePosixPath


class Writer:
    """Files of a run. As a context manager it leaves complete files behind, also after Ctrl-C.

    Args:
        options: the command's options.
        names: {class number: name}.
        sources: files that must not be replaced.

    Attributes:
        folder: the run folder; None when nothing is to be written.
    """

    def __init__(self, options, names: dict[int, str], sources: Iterable[Path] = ()):
        self.options, self.names = options, names
        self.sources = {os.path.realpath(source) for source in sources}
        self.entries = 0  # written to detections.json
        self.written: set[Path] = set()
        self.video: cv2.VideoWriter | None = None  # the open one
        self.video_file, self.frames = Path(), 0  # its file, and how many frames it was given
        self.stopped = False
        wanted = not options.nosave or options.save_txt or options.save_crop or options.save_json
        self.folder = make_run_folder(options.project, options.name, options.exist_ok) if wanted else None
        if self.folder:
            write_yaml(self.folder / 'opt.yaml', vars(options))

    def __enter__(self) -> 'Writer':
        if self.options.save_json:  # image by image: a video may have more words than memory holds
            self.files = contextlib.ExitStack()
            temporary = self.files.enter_context(replacing(self.folder / 'detections.json'))
            self.json = self.files.enter_context(temporary.open('w', encoding='utf-8'))
        return self

    def __exit__(self, *_error) -> None:
        try:
            self.end_video()
        finally:
            if self.options.save_json:
                with self.files:  # whatever ended the run, what was found is kept
                    self.json.write(']\n' if self.entries else '[]\n')

    def add(self, image: SourceImage, rows, lines) -> None:
        """Write all that is asked for of one image, except the annotated copy.

        Args:
            image: it.
            rows: (n, 6) its boxes, or (n, 14) with corners, in reading order.
            lines: (n,) the number of the line of text that each is on.
        """
        height, width = image.image.shape[:2]
        if self.options.save_json:
            found = [
                as_detection(row[:4], quad, row[4], row[5], self.names[int(row[5])], line)
                for row, quad, line in zip(rows, corners_of(rows), lines, strict=True)
            ]
            entry = {'image': image.name, 'width': width, 'height': height, 'detections': found}
            self.json.write((',\n' if self.entries else '[') + json.dumps(entry))
            self.entries += 1
        if self.options.save_txt:
            lines = (_label_row(row, width, height, self.options.save_conf) for row in rows.tolist())
            plain, full = image.file.with_suffix('.txt'), image.file.with_name(image.file.name + '.txt')
            file = self._claim(self.folder / 'labels' / plain, self.folder / 'labels' / full)
            write_bytes(file, ''.join(lines).encode())
        if self.options.save_crop:
            self._write_crops(image, rows)

    def save_image(self, annotated, source) -> None:
        """Write the annotated copy of an image under its own name; as PNG where that form may lose the colours, or
        holds no image of that size."""
        name = source.name
        fits = max(annotated.shape[:2]) <= MAX_SIDES.get(name.suffix.lower(), UNLIMITED)
        if name.suffix.lower() not in COLOURED or not fits or not cv2.haveImageWriter(f'image{name.suffix}'):
            name = name.with_name(name.name + '.png')
        write_bytes(self._annotated_file(name), _encode(annotated, name.suffix))

    def save_frame(self, annotated, source, fps: float) -> None:
        """Add an annotated frame to the source's video."""
        height, width = annotated.shape[:2]
        if self.video is None:
            name = source.name
            if name.suffix.lower() != '.mp4':
                name = name.with_name(name.name + '.mp4')
            file = self._annotated_file(name)
            make_folder(file.parent)
            digits = next((digits for digits in (3, 2, 1) if fps * 10**digits <= MOST_TICKS), 0)
            rate = max(round(fps, digits), 0.001)
            self.video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*'mp4v'), rate, (width, height))
            self.video_file, self.frames = file, 0
            if not self.video.isOpened():
                raise UserError(f'cannot write the video {file}')
        self.video.write(cv2.cvtColor(annotated, cv2.COLOR_RGB2BGR))
        self.frames += 1

    def _annotated_file(self, name: PurePosixPath) -> Path:
        """Where the annotated copy of a source of that name goes."""
        return self._claim(self.folder / name, self.folder / name.with_name('annotated_' + name.name))

    def end_video(self) -> None:
        """Complete the file of the annotated video, if one is open. Raises UserError: it does not hold all frames, of
        which OpenCV says nothing (the disk is full, for one)."""
        if self.video is None:
            return
        self.video.release()
        self.video = None
        if not self.frames:  # interrupted before the first one
            return
        written = cv2.VideoCapture(str(self.video_file))
        count = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.grab() else 0
        written.release()
        if count < self.frames:
            why = f'of {self.frames} frames it holds {count} (is the disk full?)'
            raise UserError(f'cannot write the video {self.video_file}: {why}')

    def show(self, annotated, title: str, moves: bool) -> None:
        """Show a picture until a key, or a frame for a moment; q sets `stopped`."""
        cv2.imshow(title, cv2.cvtColor(annotated, cv2.COLOR_RGB2BGR))
        self.stopped = cv2.waitKey(1 if moves else 0) & 0xFF == ord('q')
        if not moves:
            cv2.destroyWindow(title)

    def _write_crops(self, image: SourceImage, rows) -> None:
        fraction = CROP_MARGIN if self.options.crop_margin is None else self.options.crop_margin
        crops = self.folder / 'crops'
        # One beginning for all crops of a picture, also where another picture has its stem.
        begin = self._claim(crops / image.file.with_name(image.file.stem), crops / image.file).relative_to(crops)
        numbers = numbered(len(rows))
        for number, row, quad in zip(numbers, rows.tolist(), corners_of(rows), strict=True):
            category = row[5]
            if has_quads(rows):
                pixels = level_crop(image.image, quad, fraction)
            else:
                pixels = upright_crop(image.image, row[:4], fraction)
            name = re.sub(r'[/\\\x00-\x1f]', '_', self.names[int(category)])[:100].strip('. ') or f'class{category:.0f}'
            crop = self._claim((crops / name / begin).with_name(f'{begin.name}_{number}.jpg'))
            write_bytes(crop, _encode(pixels, '.jpg'))

    def _claim(self, file: Path, otherwise: Path | None = None) -> Path:
        """A file that this run has not written: two sources that differ in their suffix alone share a stem. Raises
        UserError: it is a source."""
        chosen = otherwise if otherwise and file in self.written else file
        while chosen in self.written:
            chosen = chosen.with_name('_' + chosen.name)
        if os.path.realpath(chosen) in self.sources:
            raise UserError(f'{chosen} would be overwritten, and is a source: choose another --project or --name')
        self.written.add(chosen)
        return chosen


def _label_row(row: list[float], width: int, height: int, with_confidence: bool) -> str:
    """A row of YOLO's: class x y w h, or with quads class x1 y1 ... x4 y4, 0..1."""
    x1, y1, x2, y2, confidence, category, *corners = row
    if corners:
        values = [value / side for value, side in zip(corners, (width, height) * 4, strict=True)]
    else:
        values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    text = label_row(int(category), values)
    return f'{text.rstrip()} {confidence:.5f}\n' if with_confidence else text


def _encode(image, suffix: str) -> bytes:
    """A picture (H, W, 3) RGB as the content of a file of that type."""
    setting = {'.webp': cv2.IMWRITE_WEBP_QUALITY}
    setting.update(dict.fromkeys(('.jpg', '.jpeg', '.jpe', '.jfif'), cv2.IMWRITE_JPEG_QUALITY))
    options = [setting[suffix.lower()], QUALITY] if suffix.lower() in setting else []
    return cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()
