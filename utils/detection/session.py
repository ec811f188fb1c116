"""A run of detect.py: a detector over all sources, image by image and frame by frame."""

import subprocess
import sys
from contextlib import closing

import numpy as np
from tqdm import tqdm

from models.errors import UserError
from ocrdistill.detector import MAX_WORDS, MAX_WORDS_SLICED, MIN_TILE
from ocrdistill.errors import Interrupted, Unreadable
from ocrdistill.rows import in_reading_order
from ocrdistill.search import Find, make_find
from ocrdistill.sources import refuse_unread
from ocrdistill.tiles import SLICE_OVERLAP
from utils.detection.detector import Detector
from utils.detection.drawing import annotate
from utils.detection.sources import Source, Video, read_in_groups
from utils.detection.writer import SourceImage, Writer
from utils.runtime.words import counted

MANY = 20  # sources; from here on a progress bar takes the place of a line an image
BATCH_SIZE = 8  # images; a network gains on CPUs and GPUs alike, and little from more


def check_sources(sources: list[Source], options) -> None:
    """Refuse options that the sources have no use for, or that this machine cannot do. Raises UserError."""
    if options.vid_stride is not None and not any(source.moves for source in sources):
        raise UserError(f'--vid-stride is for videos, and {options.source} has none')
    alone = options.slice is None and not options.rotate  # no tiles or turns, which are batches too
    if options.batch_size is not None and alone and all(source.moves for source in sources):
        raise UserError(f'--batch-size is for images, and {options.source} has none: frames go one by one')
    if options.view_img:
        check_display()


def check_display() -> None:
    """Raise UserError unless a window can be opened; tried in a process of its own, as Qt aborts where it cannot."""
    attempt = [sys.executable, '-c', 'import cv2; cv2.namedWindow("display"); cv2.waitKey(1)']
    if subprocess.run(attempt, capture_output=True, check=False).returncode:
        raise UserError('--show: no window can be opened here (no display, or an OpenCV without windows)')


def max_detections(options) -> int:
    """How many boxes of an image are kept at most: --max-det, or what fits a page, or a large photograph."""
    return options.max_det or (MAX_WORDS if options.slice is None else MAX_WORDS_SLICED)


def build_detector(options) -> Detector:
    """The detector that the options ask for. Raises UserError."""
    detector = Detector(
        options.weights,
        device=options.device,
        imgsz=options.imgsz,
        conf_thres=options.conf_thres,
        iou_thres=options.iou_thres,
        max_det=max_detections(options),
        classes=options.classes,
        amp=options.amp,
    )
    if options.slice is not None and (options.slice or detector.tile) < MIN_TILE:
        raise UserError(f'--slice {options.slice or detector.tile}: tiles of {MIN_TILE} pixels at least')
    if (options.batch_size or 1) > 1 and detector.model.input_size:
        raise UserError(f'--batch-size: {options.weights} takes one image at a time (export it with --dynamic)')
    if options.multiscale and detector.model.input_size:
        raise UserError(f'--multiscale: {options.weights} takes images of one size (export it as ONNX with --dynamic)')
    return detector


def find_with(detector: Detector, options) -> Find:
    """What finds the boxes of a list of images, as the options ask for it."""
    return make_find(
        detector,
        multiscale=options.multiscale,
        tile=None if options.slice is None else options.slice or detector.tile,
        overlap=SLICE_OVERLAP if options.slice_overlap is None else options.slice_overlap,
        rotate=options.rotate,
        batch_size=options.batch_size or BATCH_SIZE,
    )


def run(sources: list[Source], detector: Detector, writer: Writer, options) -> 'ProgressBar':
    """All sources, in order; returns what was done and what was skipped."""
    find, progress = find_with(detector, options), ProgressBar(len(sources), detector)
    size = 1 if options.slice is not None else options.batch_size or BATCH_SIZE  # one image's tiles are batches
    with closing(progress):
        for group in read_in_groups(sources, size):
            if group[0][0].moves:
                process_video(group[0][0], find, writer, progress)
            else:
                process_images(group, detector, find, writer, progress)
            if writer.stopped:
                break
    return progress


def process_images(group: list, detector: Detector, find: Find, writer: Writer, progress: 'ProgressBar') -> None:
    """Find and write the boxes of images together; `group` holds each source with its pixels or an Unreadable."""
    spent = sum(detector.seconds)
    images = [image for _, image in group if not isinstance(image, Unreadable)]
    found = iter(find(images))
    seconds = sum(detector.seconds) - spent if len(images) == 1 else None  # of several together none has its own
    for source, image in group:
        if isinstance(image, Unreadable):
            progress.skip(source, image)
            continue
        picture = SourceImage(image, str(source.name), source.name)
        progress.image_done(source, write(picture, next(found), source, writer), seconds)
        if writer.stopped:
            return


def process_video(source: Source, find: Find, writer: Writer, progress: 'ProgressBar') -> None:
    """Find and write the boxes of a video or a webcam, frame by frame."""
    try:
        video = Video(source, writer.options.vid_stride or 1)
        with tqdm(video, str(source.name), video.count, unit='frame', file=sys.stdout, disable=None) as frames:
            for number, image in frames:
                picture = SourceImage(image, f'{source.name}#frame_{number}', source.name / f'frame_{number}')
                progress.count(picture.name, write(picture, find([image])[0], source, writer, video.fps))
                if writer.stopped:
                    return
    except Unreadable as error:
        progress.skip(source, error)
    except KeyboardInterrupt as error:
        if source.webcam is None or isinstance(error, Interrupted):
            raise
        writer.stopped = True  # Ctrl-C is the way to end a webcam
    else:
        if source.webcam is not None:
            progress.warn(f'{source.name} gave no more frames after {video.passed}')
        elif video.passed < video.expected:
            progress.warn(f'{source.name}: {video.passed} frames could be read, its header names {video.expected}')
        progress.source_done()
    finally:
        writer.end_video()


def write(image: SourceImage, rows: np.ndarray, source: Source, writer: Writer, fps: float | None = None) -> int:
    """Write and show what is asked for of an image, or of a frame if `fps` is given; returns the count of boxes."""
    options = writer.options
    rows, lines = in_reading_order(rows)
    writer.add(image, rows, lines)
    if not options.nosave or options.view_img:
        annotated = annotate(image.image, rows, writer.names, options)
    if not options.nosave and fps:
        writer.save_frame(annotated, source, fps)
    elif not options.nosave:
        writer.save_image(annotated, source)
    if options.view_img:
        writer.show(annotated, str(source.name), source.moves)
    return len(rows)


class ProgressBar:
    """What a run has done so far, told as it happens: a line an image or, from MANY sources on, a progress bar.

    Args:
        total: count of the sources; each page of a file after the first is one more.
        detector: which looks for things.

    Attributes:
        counts: boxes of each image or frame.
        failed: what could not be read, and why.
        limited: images of which no more boxes were kept.
    """

    def __init__(self, total: int, detector: Detector):
        self.total, self.max_det = total, detector.max_det
        self.noun = 'word' if list(detector.names.values()) == ['text'] else 'object'
        self.counts: list[int] = []
        self.failed: list[str] = []
        self.limited: list[str] = []
        self.done = 0
        self.bar = tqdm(total=total, unit='image', file=sys.stdout, disable=None) if total >= MANY else None

    def count(self, name: str, boxes: int) -> None:
        self.counts.append(boxes)
        if boxes >= self.max_det:
            self.limited.append(name)

    def image_done(self, source: Source, boxes: int, seconds: float | None) -> None:
        self.count(str(source.name), boxes)
        self.source_done(source.page)
        if not self.bar:
            time = '' if seconds is None else f', {milliseconds(seconds)} ms'
            print(f'{self.done}/{self.total} {source.name}: {counted(boxes, self.noun)}{time}')

    def source_done(self, page: int = 0) -> None:
        self.done += 1
        self.total += page > 0
        if self.bar:
            self.bar.total = self.total
            self.bar.update()

    def skip(self, source: Source, error: Unreadable) -> None:
        self.failed.append(f'{source.name} ({error})')
        tqdm.write(f'skipped {self.failed[-1]}')
        self.source_done(source.page)

    def warn(self, message: str) -> None:
        tqdm.write(f'warning: {message}', file=sys.stderr)

    def close(self) -> None:
        if self.bar:
            self.bar.close()


def milliseconds(seconds: float) -> str:
    """As many digits as a repetition would give again."""
    return f'{seconds * 1e3:.0f}' if seconds >= 0.01 else f'{seconds * 1e3:.1f}'


def report(progress: ProgressBar, detector: Detector, writer: Writer) -> None:
    """Print what was found, the time it took, and where it is. Raises UserError that names what could not be read."""
    counts, failed, limited = progress.counts, progress.failed, progress.limited
    found = f'{counted(len(counts), "image")}, {counted(sum(counts), progress.noun)}'
    print(f'{found} (confidence {detector.conf_thres:g} or more)')
    if limited:
        more = f' and {len(limited) - 1} more' if len(limited) > 1 else ''
        progress.warn(f'{limited[0]}{more}: as many boxes as --max-det {detector.max_det} allows; there may be others')
    if counts:
        steps = [milliseconds(second / len(counts)) for second in detector.seconds]
        print('ms per image: pre-process {}, network {}, NMS {}'.format(*steps))
    if writer.folder is not None:
        print(f'results in {writer.folder}')
    refuse_unread(failed, progress.total)
