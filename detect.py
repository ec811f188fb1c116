"""Find text in pictures, videos and webcams: python detect.py --source photos"""

import argparse
import functools
import math
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from models.errors import UserError
from utils.detection.results import Results, SourceImage, annotate
from utils.runtime.cli import run_command

# numpy, OpenCV and torch are imported where they are used: --help and a wrong flag are answered at once, and the
# first result comes within a second of importing torch.

SHIPPED = Path(__file__).resolve().parent / 'weights/ocrdistill-n.pt'
MANY = 20  # pictures; from here on a progress bar takes the place of a line a picture
BATCH_SIZE = 8  # pictures; a network gains on CPUs and GPUs alike, and little from more
SLICE_OVERLAP, MAX_OVERLAP = 0.2, 0.9  # shares of a tile's side
SLICE_HELP = 'find small words in large pictures: look at tiles of PX x PX pixels (default: --imgsz) and at the whole'


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    which = 'checkpoint (.pt), ours or a public YOLOv5 v6/v7 one, or exported file (default: weights/ocrdistill-n.pt)'
    add('--weights', default=str(SHIPPED), help=which)
    add('--source', required=True, help="picture, video, folder (recursive), 'glob', list file (.txt), webcam ('0')")
    add(
        '--imgsz', type=_positive, help='pixels of the long side as the network sees it (640; or what an export is for)'
    )
    add('--conf-thres', type=_fraction, help="lowest confidence, 0..1 (default: the checkpoint's own, else 0.25)")
    add('--iou-thres', type=_fraction, default=0.45, help='overlap above which the worse box goes, 0..1 (default 0.45)')
    add('--max-det', type=_positive, default=300, help='boxes kept of a picture at most (default 300)')
    add('--classes', type=int, nargs='+', metavar='N', help='numbers of the classes to keep (default: all)')
    add('--slice', type=_positive, nargs='?', const=0, metavar='PX', help=SLICE_HELP)
    add('--slice-overlap', type=_fraction, metavar='SHARE', help='of a tile that its neighbours show too (default 0.2)')
    add('--batch-size', type=_positive, metavar='N', help='pictures, or tiles of one, at a time (default 8)')
    add('--device', default='', help="'cpu' or a CUDA number; default: cuda if there is one, else cpu")
    add('--no-amp', dest='amp', action='store_false', help='float32 instead of bfloat16 where the processor has that')
    add('--project', default='runs/detect', help='folder of runs (default runs/detect)')
    add('--name', default='exp', help='folder of this run (default exp; exp2 if it exists, and so on)')
    add('--exist-ok', action='store_true', help='write into the run folder even if it exists')
    add('--save-txt', action='store_true', help='write labels/*.txt: class x y w h, 0..1 of the picture')
    add('--save-conf', action='store_true', help='add the confidence to the rows of --save-txt')
    add('--save-crop', action='store_true', help='write each box as a picture: crops/<class>/*.jpg, in reading order')
    add('--crop-margin', type=_fraction, metavar='SHARE', help="around a crop, of the box's height, 0..1 (default 0.1)")
    add('--save-json', action='store_true', help='write detections.json: boxes in pixels, scores, lines, reading order')
    add('--nosave', action='store_true', help='write no annotated pictures and videos')
    shown = 'show the annotated pictures (any key: next, q: stop)'
    add('--show', '--view-img', dest='view_img', action='store_true', help=shown)
    add('--line-thickness', type=_positive, help="pixels of a box's line (default: suits the picture)")
    add('--hide-labels', action='store_true', help='draw boxes without the class name')
    add('--hide-conf', action='store_true', help='draw boxes without the confidence')
    add('--vid-stride', type=_positive, help='of a video read every N-th frame (default 1)')
    args = parser.parse_args(arguments)

    if args.save_conf and not args.save_txt:
        parser.error('--save-conf adds to the rows of --save-txt: give --save-txt too')
    if args.crop_margin is not None and not args.save_crop:
        parser.error('--crop-margin is for the pictures of --save-crop: give --save-crop too')
    if args.slice_overlap is not None and args.slice is None:
        parser.error('--slice-overlap is for the tiles of --slice: give --slice too')
    if args.slice_overlap is not None and args.slice_overlap > MAX_OVERLAP:
        parser.error(f'--slice-overlap: {MAX_OVERLAP} at most, or there is no end to the tiles')
    if args.nosave and not args.view_img:
        for flag in ('line_thickness', 'hide_labels', 'hide_conf'):
            if getattr(args, flag):
                parser.error(f'--{flag.replace("_", "-")} changes what is drawn, and --nosave draws nothing')
    return args


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is no whole number from 1')
    return int(text)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 and 1')
    return value


class Detector:
    """A checkpoint's network with all that turns a picture into boxes.

    Args:
        weights: checkpoint or exported file.
        device: '', 'cpu' or the number of a CUDA device.
        imgsz: pixels of the long side as the network sees it; None takes 640, or what an exported file is for.
        conf_thres: lowest confidence; None takes the checkpoint's, else 0.25.
        iou_thres: overlap above which the worse of two boxes of a class goes.
        max_det: boxes kept of a picture at most.
        classes: numbers of the classes to keep, None all.
        amp: run a checkpoint in bfloat16 where the device has it; exported files compute as they were exported.

    Attributes:
        names: {class number: name}.
        seconds: spent so far in pre-processing, network and NMS.

    Raises:
        UserError: no such checkpoint, device or class; `amp` switched off for an exported file.
    """

    def __init__(
        self,
        weights: str,
        *,
        device: str = '',
        imgsz: int | None = None,
        conf_thres: float | None = None,
        iou_thres: float = 0.45,
        max_det: int = 300,
        classes: list[int] | None = None,
        amp: bool = True,
    ):
        import torch

        from models.exported import default_device, is_exported, load_detector, long_side
        from utils.runtime.device import network_dtype, select_device

        if not amp and is_exported(weights):
            raise UserError(f'--no-amp is for checkpoints: {weights} computes as it was exported')
        self.device = select_device(device or default_device(weights))
        self.model = load_detector(weights, self.device)
        self.dtype = network_dtype(self.device, amp=amp and not is_exported(weights))
        if self.dtype == torch.bfloat16:
            self.model.to_bfloat16()  # cast once, not for every picture
        self.names = self.model.names
        self.imgsz = long_side(self.model, imgsz)
        self.stride = int(self.model.stride.max())
        chosen = self.model.conf_threshold if conf_thres is None else conf_thres
        self.conf_thres = 0.25 if chosen is None else chosen
        self.iou_thres, self.max_det, self.classes = iou_thres, max_det, classes
        self.seconds = [0.0, 0.0, 0.0]
        unknown = sorted(set(classes or ()) - self.names.keys())
        if unknown:
            raise UserError(f'--classes {unknown[0]}: {weights} has the classes 0 to {max(self.names)} only')

    def __call__(self, image):
        """Boxes of one picture, best first.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (n, 6) float64 array: x1, y1, x2, y2 in the picture's pixels, confidence, class.
        """
        return self.find([image])[0]

    def find(self, images: list, batch_size: int = 1) -> list:
        """Boxes of several pictures of any sizes; those of one network shape go through the network together.

        Args:
            images: of each (H, W, 3) uint8 RGB.
            batch_size: pictures in the network at a time at most.

        Returns:
            What a call returns, of each picture.
        """
        from utils import boxes  # noqa: F401
        from utils.loading import augment  # noqa: F401  imported before the clock starts

        if self.model.input_size:
            batch_size = 1  # an export of one size takes one picture
        start = time.perf_counter()
        placed = [self._place(image) for image in images]
        self.seconds[0] += time.perf_counter() - start
        alike = {}  # numbers of the pictures of each network shape
        for number, (padded, _) in enumerate(placed):
            alike.setdefault(padded.shape, []).append(number)
        result = [None] * len(images)
        for numbers in alike.values():
            for first in range(0, len(numbers), batch_size):
                chosen = numbers[first : first + batch_size]
                found = self._find_alike([placed[number] for number in chosen], [images[number] for number in chosen])
                for number, rows in zip(chosen, found, strict=True):
                    result[number] = rows
        return result

    def _find_alike(self, placed: list, images: list) -> list:
        """Boxes of pictures that are (h, w, 3) and a Letterbox each in `placed`, h and w the same in all."""
        import torch

        from utils.boxes import MAX_CANDIDATES, non_max_suppression

        clock = [time.perf_counter()]
        with torch.inference_mode():
            batch = torch.stack([torch.from_numpy(padded) for padded, _ in placed]).to(self.device)  # (B, h, w, 3)
            batch = batch.permute(0, 3, 1, 2).to(self.dtype).div_(255)  # (B, 3, h, w), channels last
            clock.append(self._now())
            decoded, _ = self.model(batch)
            clock.append(self._now())
            # Overlaps count within a class only, so classes can be chosen after NMS; the limit comes after that.
            limit = MAX_CANDIDATES if self.classes else self.max_det
            found = non_max_suppression(decoded, self.conf_thres, self.iou_thres, limit)
            parts = zip(found, placed, images, strict=True)
            found = [self._select(rows, letterbox, *image.shape[:2]) for rows, (_, letterbox), image in parts]
            clock.append(self._now())
        spent = [after - before for before, after in pairwise(clock)]
        self.seconds = [total + step for total, step in zip(self.seconds, spent, strict=True)]
        return found

    def _place(self, image):
        """Resize a picture's long side to imgsz and pad it with grey to multiples of the stride or an export's size."""
        from utils.boxes import Letterbox
        from utils.loading.augment import pad_to, resize_long_side

        height, width = image.shape[:2]
        fixed, longest = self.model.input_size, max(height, width)
        side = round(min(fixed[0] / height, fixed[1] / width) * longest) if fixed else self.imgsz
        resized = resize_long_side(image, side)
        new_height, new_width = resized.shape[:2]
        whole = fixed or [math.ceil(side / self.stride) * self.stride for side in (new_height, new_width)]
        padded, left, top = pad_to(resized, *whole)
        return padded, Letterbox(new_width / width, new_height / height, float(left), float(top))

    def _select(self, rows, letterbox, height: int, width: int):
        """Boxes (n, 6) after NMS in pixels of the picture, rounded to what is written everywhere, none without area."""
        rows = rows.cpu().clone()
        rows[:, :4] = letterbox.to_image(rows[:, :4], height, width)
        rows = rows.double().numpy()
        if self.classes:
            rows = rows[[int(category) in self.classes for category in rows[:, 5]]][: self.max_det]
        rows[:, :4] = rows[:, :4].round(2)
        rows[:, 4] = rows[:, 4].round(5)
        return rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]

    def _now(self) -> float:
        if self.device.type == 'cuda':
            import torch

            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def make_finder(detector: Detector, args: argparse.Namespace) -> Callable[[list], list]:
    """What finds the boxes of a list of pictures, each (n, 6): the detector, in batches, or on tiles with --slice."""
    find = functools.partial(detector.find, batch_size=args.batch_size or BATCH_SIZE)
    if args.slice is None:
        return find
    from utils.detection.tiles import detect_sliced

    overlap = SLICE_OVERLAP if args.slice_overlap is None else args.slice_overlap
    size = args.slice or detector.imgsz
    return lambda images: [detect_sliced(image, find, size, overlap, args.max_det) for image in images]


def write(picture: SourceImage, rows, source, results: Results, fps: float | None = None) -> int:
    """Write and show what is asked for of a picture, or of a frame if `fps` is given; returns the count of boxes."""
    import numpy as np

    from utils.detection.reading_order import reading_order

    args, lines = results.args, reading_order(rows[:, :4])
    rows = rows[[word for line in lines for word in line]]
    results.add(picture, rows, np.repeat(range(len(lines)), [len(line) for line in lines]))
    if not args.nosave or args.view_img:
        annotated = annotate(picture.image, rows, results.names, args)
    if not args.nosave and fps:
        results.save_frame(annotated, source, fps)
    elif not args.nosave:
        results.save_image(annotated, source)
    if args.view_img:
        results.show(annotated, str(source.name), source.moves)
    return len(rows)


class ProgressBar:
    """What a run has done so far, told as it happens: a line a picture or, from MANY sources on, a progress bar.

    Args:
        total: count of the sources.
        noun: of what is found.

    Attributes:
        counts: boxes of each picture or frame.
        failed: what could not be read, and why.
    """

    def __init__(self, total: int, noun: str):
        self.total, self.noun = total, noun
        self.counts: list[int] = []
        self.failed: list[str] = []
        self.done = 0
        self.bar = None
        if total >= MANY:
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit='picture', file=sys.stdout, disable=None)

    def image_done(self, source, count: int, milliseconds: float) -> None:
        self.counts.append(count)
        self.source_done()
        if not self.bar:
            print(f'{self.done}/{self.total} {source.name}: {count} {self.noun}, {milliseconds:.1f} ms')

    def source_done(self) -> None:
        self.done += 1
        if self.bar:
            self.bar.update()

    def skip(self, source, error) -> None:
        self.failed.append(f'{source.name} ({error})')
        (self.bar.write if self.bar else print)(f'skipped {self.failed[-1]}')
        self.source_done()

    def close(self) -> None:
        if self.bar:
            self.bar.close()


def process_images(group: list, detector: Detector, find: Callable, results: Results, progress: ProgressBar) -> None:
    """Find and write the boxes of pictures together; `group` holds each source with its pixels or an Unreadable."""
    from utils.detection.sources import Unreadable

    spent = sum(detector.seconds)
    images = [image for _, image in group if not isinstance(image, Unreadable)]
    found = iter(find(images))
    milliseconds = (sum(detector.seconds) - spent) * 1e3 / max(len(images), 1)
    for source, image in group:
        if isinstance(image, Unreadable):
            progress.skip(source, image)
            continue
        picture = SourceImage(image, str(source.name), source.name)
        progress.image_done(source, write(picture, next(found), source, results), milliseconds)
        if results.stopped:
            return


def process_video(source, find: Callable, results: Results, progress: ProgressBar) -> None:
    """Find and write the boxes of a video or a webcam, frame by frame."""
    from tqdm import tqdm

    from utils.detection.sources import Unreadable, Video

    try:
        video = Video(source, results.args.vid_stride or 1)
        frames = tqdm(video, str(source.name), video.count, unit='frame', file=sys.stdout, disable=None)
        for number, image in frames:
            picture = SourceImage(image, f'{source.name}#frame_{number}', source.name / f'frame_{number}')
            progress.counts.append(write(picture, find([image])[0], source, results, video.fps))
            if results.stopped:
                return
    except Unreadable as error:
        progress.skip(source, error)
    except KeyboardInterrupt:
        if source.webcam is None:
            raise
        results.stopped = True  # the way to end a webcam
    else:
        progress.source_done()
    finally:
        results.end_video()


def run(sources: list, detector: Detector, results: Results, args: argparse.Namespace) -> ProgressBar:
    """All sources, in order."""
    from utils.detection.sources import read_in_groups

    find, progress = make_finder(detector, args), ProgressBar(len(sources), _noun(detector.names))
    size = 1 if args.slice is not None else args.batch_size or BATCH_SIZE  # the tiles of one picture are batches
    with closing(progress):
        for group in read_in_groups(sources, size):
            if group[0][0].moves:
                process_video(group[0][0], find, results, progress)
            else:
                process_images(group, detector, find, results, progress)
            if results.stopped:
                break
    return progress


def _noun(names: dict[int, str]) -> str:
    return 'words' if list(names.values()) == ['text'] else 'objects'


def report(counts: list[int], detector: Detector, results: Results) -> None:
    """Print what was found, the time it took, and where it is."""
    print(f'{len(counts)} pictures, {sum(counts)} {_noun(detector.names)} (confidence {detector.conf_thres:g} or more)')
    if counts:
        steps = [second / len(counts) * 1e3 for second in detector.seconds]
        print('ms per picture: pre-process {:.1f}, network {:.1f}, NMS {:.1f}'.format(*steps))
    if results.folder is not None:
        print(f'results in {results.folder}')


def check_display() -> None:
    """Raise UserError unless a window can be opened; tried in a process of its own, as Qt aborts where it cannot."""
    attempt = [sys.executable, '-c', 'import cv2; cv2.namedWindow("display"); cv2.waitKey(1)']
    if subprocess.run(attempt, capture_output=True, check=False).returncode:
        raise UserError('--show: no window can be opened here (no display, or an OpenCV without windows)')


def main() -> None:
    args = parse_args()
    from utils.detection.sources import find_sources

    sources = find_sources(args.source)
    if args.vid_stride is not None and not any(source.moves for source in sources):
        raise UserError(f'--vid-stride is for videos, and {args.source} has none')
    if args.batch_size is not None and args.slice is None and all(source.moves for source in sources):
        raise UserError(f'--batch-size is for pictures, and {args.source} has none: frames go one by one')
    if args.view_img:
        check_display()
    detector = Detector(
        args.weights,
        device=args.device,
        imgsz=args.imgsz,
        conf_thres=args.conf_thres,
        iou_thres=args.iou_thres,
        max_det=args.max_det,
        classes=args.classes,
        amp=args.amp,
    )
    if (args.batch_size or 1) > 1 and detector.model.input_size:
        raise UserError(f'--batch-size: {args.weights} takes one picture at a time (export it with --dynamic)')
    with Results(args, detector.names) as results:
        progress = run(sources, detector, results, args)
    report(progress.counts, detector, results)
    failed = progress.failed
    if failed:
        named = '; '.join(failed[:5]) + (f' and {len(failed) - 5} more' if len(failed) > 5 else '')
        raise UserError(f'{len(failed)} of {len(sources)} could not be read: {named}')


if __name__ == '__main__':
    run_command(main)
