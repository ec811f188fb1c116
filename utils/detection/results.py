"""What detect.py writes of a run: annotated pictures and videos, label files, crops, detections.json."""

import argparse
import json
import math
import re
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from models.errors import UserError
from utils.runtime.run_folder import make_folder, make_run_folder, write_bytes, write_yaml

# numpy and OpenCV are imported where they are used: detect.py answers --help at once.

QUALITY = 95  # of JPEG and WebP files, 0..100
CROP_MARGIN = 0.1  # share of a word's height


class SourceImage(NamedTuple):
    """A picture or a frame of a video.

    image: (H, W, 3) uint8 RGB.
    name: as in detections.json.
    file: path below the run folder's labels/ and crops/<class>/ folders.
    """

    image: Any
    name: str
    file: PurePosixPath


class Results:
    """Files of a run. As a context manager it leaves complete files behind, also after Ctrl-C.

    Args:
        args: the command's options.
        names: {class number: name}.

    Attributes:
        folder: the run folder; None when nothing is to be written.
    """

    def __init__(self, args: argparse.Namespace, names: dict[int, str]):
        self.args, self.names = args, names
        self.entries: list[dict] = []  # of detections.json
        self.written: set[Path] = set()
        self.video = None  # the open cv2.VideoWriter
        self.stopped = False
        wanted = not args.nosave or args.save_txt or args.save_crop or args.save_json
        self.folder = make_run_folder(args.project, args.name, args.exist_ok) if wanted else None
        if self.folder:
            write_yaml(self.folder / 'opt.yaml', vars(args))

    def __enter__(self) -> 'Results':
        return self

    def __exit__(self, *_error) -> None:
        self.end_video()
        if self.args.save_json:
            text = '[' + ',\n'.join(json.dumps(entry) for entry in self.entries) + ']\n'
            write_bytes(self.folder / 'detections.json', text.encode())

    def add(self, picture: SourceImage, rows, lines) -> None:
        """Write all that is asked for of one picture, except the annotated copy.

        Args:
            picture: it.
            rows: (n, 6) its boxes in reading order.
            lines: (n,) the number of the line of text that each is on.
        """
        height, width = picture.image.shape[:2]
        if self.args.save_json:
            found = [
                {'box': row[:4], 'score': row[4], 'class': int(row[5]), 'name': self.names[int(row[5])], 'line': line}
                for row, line in zip(rows.tolist(), lines.tolist(), strict=True)
            ]
            self.entries.append({'image': picture.name, 'width': width, 'height': height, 'detections': found})
        if self.args.save_txt:
            lines = (_label_row(row, width, height, self.args.save_conf) for row in rows.tolist())
            plain, full = picture.file.with_suffix('.txt'), picture.file.with_name(picture.file.name + '.txt')
            file = self._claim(self.folder / 'labels' / plain, self.folder / 'labels' / full)
            write_bytes(file, ''.join(lines).encode())
        if self.args.save_crop:
            self._write_crops(picture, rows)

    def save_image(self, annotated, source) -> None:
        """Write the annotated copy of a picture, under its own name."""
        import cv2

        name = source.name
        if not cv2.haveImageWriter(f'picture{name.suffix}'):
            name = name.with_name(name.name + '.png')
        file = self._claim(self.folder / name, self.folder / name.with_name('annotated_' + name.name))
        if file.exists() and file.samefile(source.path):
            raise UserError(f'the annotated copy would overwrite {source.path}: choose another --project or --name')
        write_bytes(file, _encode(annotated, name.suffix))

    def save_frame(self, annotated, source, fps: float) -> None:
        """Add an annotated frame to the source's video."""
        import cv2

        height, width = annotated.shape[:2]
        if self.video is None:
            name = source.name if source.name.suffix.lower() == '.mp4' else source.name.with_name(f'{source.name}.mp4')
            file = self._claim(self.folder / name, self.folder / name.with_name('annotated_' + name.name))
            if source.path is not None and file.exists() and file.samefile(source.path):
                raise UserError(f'the annotated copy would overwrite {source.path}: choose another --project or --name')
            make_folder(file.parent)
            self.video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*'mp4v'), fps, (width, height))
            if not self.video.isOpened():
                raise UserError(f'cannot write the video {file}')
        self.video.write(cv2.cvtColor(annotated, cv2.COLOR_RGB2BGR))

    def end_video(self) -> None:
        """Complete the file of the annotated video, if one is open."""
        if self.video is not None:
            self.video.release()
            self.video = None

    def show(self, annotated, title: str, moves: bool) -> None:
        """Show a picture until a key, or a frame for a moment; q sets `stopped`."""
        import cv2

        cv2.imshow(title, cv2.cvtColor(annotated, cv2.COLOR_RGB2BGR))
        self.stopped = cv2.waitKey(1 if moves else 0) & 0xFF == ord('q')
        if not moves:
            cv2.destroyWindow(title)

    def _write_crops(self, picture: SourceImage, rows) -> None:
        height, width = picture.image.shape[:2]
        fraction = CROP_MARGIN if self.args.crop_margin is None else self.args.crop_margin
        for number, (x1, y1, x2, y2, _, category) in enumerate(rows.tolist()):
            margin = fraction * (y2 - y1)
            left, top = max(math.floor(x1 - margin), 0), max(math.floor(y1 - margin), 0)
            right, bottom = min(math.ceil(x2 + margin), width), min(math.ceil(y2 + margin), height)
            name = re.sub(r'[/\\\x00-\x1f]', '_', self.names[int(category)])[:100].strip('. ') or f'class{category:.0f}'
            folder = (self.folder / 'crops' / name / picture.file).parent
            # Three digits, so that files sorted by name are in reading order.
            crop = folder / f'{picture.file.stem}_{number:03d}.jpg'
            crop = self._claim(crop, folder / f'{picture.file.name}_{number:03d}.jpg')
            write_bytes(crop, _encode(picture.image[top:bottom, left:right], '.jpg'))

    def _claim(self, file: Path, otherwise: Path) -> Path:
        """A file that this run has not written: two sources that differ in their suffix alone share a stem."""
        chosen = otherwise if file in self.written else file
        self.written.add(chosen)
        return chosen


def _label_row(row: list[float], width: int, height: int, with_confidence: bool) -> str:
    x1, y1, x2, y2, confidence, category = row
    values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    text = ' '.join(f'{value:.6f}' for value in values)
    return f'{category:.0f} {text} {confidence:.5f}\n' if with_confidence else f'{category:.0f} {text}\n'


def _encode(image, suffix: str) -> bytes:
    """A picture (H, W, 3) RGB as the content of a file of that type."""
    import cv2

    setting = {'.webp': cv2.IMWRITE_WEBP_QUALITY}
    setting.update(dict.fromkeys(('.jpg', '.jpeg', '.jpe', '.jfif'), cv2.IMWRITE_JPEG_QUALITY))
    options = [setting[suffix.lower()], QUALITY] if suffix.lower() in setting else []
    return cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def annotate(image, rows, names: dict[int, str], args: argparse.Namespace):
    """A copy of a picture (H, W, 3) RGB with its boxes (n, 6), a colour a class."""
    from utils.detection.drawing import PALETTE, draw_boxes

    for category in sorted({int(category) for category in rows[:, 5]}):
        chosen = rows[rows[:, 5] == category]
        texts = []
        for confidence in chosen[:, 4]:
            parts = [] if args.hide_labels else [names[category]]
            texts.append(' '.join(parts if args.hide_conf else [*parts, f'{confidence:.2f}']))
        image = draw_boxes(image, chosen[:, :4], texts, PALETTE[category % len(PALETTE)], args.line_thickness)
    return image
