"""Find text in pictures, videos and webcams: python detect.py --weights best.pt --source photos"""

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise

from models.errors import UserError
from utils.cli import run_command
from utils.results import Picture, Results, annotate

# numpy, OpenCV and torch are imported where they are used: --help and a wrong flag are answered at once, and the
# first result comes within a second of importing torch.

MANY = 20  # pictures; from here on a progress bar takes the place of a line a picture


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--weights', required=True, help='checkpoint (.pt), ours or a public YOLOv5 v6/v7 one, or exported file')
    add('--source', required=True, help="picture, video, folder (recursive), 'glob', list file (.txt), webcam ('0')")
    add('--imgsz', type=_positive, help='pixels of the long side as the network sees it (640; or what an export takes)')
    add('--conf-thres', type=_share, help="lowest confidence, 0..1 (default: the checkpoint's own, else 0.25)")
    add('--iou-thres', type=_share, default=0.45, help='overlap above which the worse box goes, 0..1 (default 0.45)')
    add('--max-det', type=_positive, default=300, help='boxes kept of a picture at most (default 300)')
    add('--classes', type=int, nargs='+', metavar='N', help='numbers of the classes to keep (default: all)')
    add('--device', default='', help="'cpu' or a CUDA number; default: cuda if there is one, else cpu")
    add('--project', default='runs/detect', help='folder of runs (default runs/detect)')
    add('--name', default='exp', help='folder of this run (default exp; exp2 if it exists, and so on)')
    add('--exist-ok', action='store_true', help='write into the run folder even if it exists')
    add('--save-txt', action='store_true', help='write labels/*.txt: class x y w h, 0..1 of the picture')
    add('--save-conf', action='store_true', help='add the confidence to the rows of --save-txt')
    add('--save-crop', action='store_true', help='write each box as a picture: crops/<class>/*.jpg')
    add('--save-json', action='store_true', help='write detections.json, boxes in pixels of the upright picture')
    add('--nosave', action='store_true', help='write no annotated pictures and videos')
    add('--view-img', action='store_true', help='show the annotated pictures (any key: next, q: stop)')
    add('--line-thickness', type=_positive, help="pixels of a box's line (default: suits the picture)")
    add('--hide-labels', action='store_true', help='draw boxes without the class name')
    add('--hide-conf', action='store_true', help='draw boxes without the confidence')
    add('--vid-stride', type=_positive, help='of a video read every N-th frame (default 1)')
    args = parser.parse_args(arguments)

    if args.save_conf and not args.save_txt:
        parser.error('--save-conf adds to the rows of --save-txt: give --save-txt too')
    if args.nosave and not args.view_img:
        for flag in ('line_thickness', 'hide_labels', 'hide_conf'):
            if getattr(args, flag):
                parser.error(f'--{flag.replace("_", "-")} changes what is drawn, and --nosave draws nothing')
    return args


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is no whole number from 1')
    return int(text)


def _share(text: str) -> float:
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

    Attributes:
        names: {class number: name}.
        seconds: spent so far in pre-processing, network and NMS.

    Raises:
        UserError: no such checkpoint, device or class.
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
    ):
        import torch

        from models.exported import default_device, is_exported, load_detector, long_side
        from utils.device import network_dtype, select_device

        self.device = select_device(device or default_device(weights))
        self.model = load_detector(weights, self.device)
        self.dtype = network_dtype(self.device, amp=not is_exported(weights))
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
        import torch

        from utils import augment, boxes  # noqa: F401  imported before the clock starts

        clock = [time.perf_counter()]
        with torch.inference_mode():
            padded, letterbox = self._place(image)
            batch = torch.from_numpy(padded)[None].to(self.device).permute(0, 3, 1, 2)  # (1, 3, h, w), channels last
            batch = batch.to(self.dtype).div_(255)
            clock.append(self._now())
            decoded, _ = self.model(batch)
            clock.append(self._now())
            found = self._select(decoded, letterbox, *image.shape[:2])
            clock.append(self._now())
        spent = [after - before for before, after in pairwise(clock)]
        self.seconds = [total + step for total, step in zip(self.seconds, spent, strict=True)]
        return found

    def _place(self, image):
        """Resize a picture's long side to imgsz and pad it with grey to multiples of the stride or an export's size."""
        from utils.augment import pad_to, resize_long_side
        from utils.boxes import Letterbox

        height, width = image.shape[:2]
        fixed, longest = self.model.input_size, max(height, width)
        side = round(min(fixed[0] / height, fixed[1] / width) * longest) if fixed else self.imgsz
        resized = resize_long_side(image, side)
        new_height, new_width = resized.shape[:2]
        whole = fixed or [math.ceil(side / self.stride) * self.stride for side in (new_height, new_width)]
        padded, left, top = pad_to(resized, *whole)
        return padded, Letterbox(new_width / width, new_height / height, float(left), float(top))

    def _select(self, decoded, letterbox, height: int, width: int):
        """NMS, then pixels of the picture, rounded to what is written everywhere; no box without area is left."""
        from utils.boxes import MAX_CANDIDATES, non_max_suppression

        # Overlaps count within a class only, so classes can be chosen after NMS; the limit comes after that.
        limit = MAX_CANDIDATES if self.classes else self.max_det
        rows = non_max_suppression(decoded, self.conf_thres, self.iou_thres, limit)[0]
        rows = rows.cpu().clone()
        rows[:, :4] = letterbox.to_picture(rows[:, :4], height, width)
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


def process(source, detector: Detector, results: Results, args: argparse.Namespace) -> Iterator[int]:
    """Find and write the boxes of one source; yields the count of each picture or frame. Raises Unreadable."""
    from utils.sources import Video, read_picture

    video = Video(source, args.vid_stride or 1) if source.moves else None
    frames = _frames(source, video) if video else [Picture(read_picture(source.path), str(source.name), source.name)]
    try:
        for picture in frames:
            rows = detector(picture.image)
            results.add(picture, rows)
            if not args.nosave or args.view_img:
                annotated = annotate(picture.image, rows, detector.names, args)
            if not args.nosave and video:
                results.save_frame(annotated, source, video.fps)
            elif not args.nosave:
                results.save_picture(annotated, source)
            if args.view_img:
                results.show(annotated, str(source.name), source.moves)
            yield len(rows)
            if results.stopped:
                return
    finally:
        results.end_video()


def _frames(source, video) -> Iterator[Picture]:
    from tqdm import tqdm

    for number, image in tqdm(
        video, desc=str(source.name), total=video.count, unit='frame', file=sys.stdout, disable=None
    ):
        yield Picture(image, f'{source.name}#frame_{number}', source.name / f'frame_{number}')


def run(sources: list, detector: Detector, results: Results, args: argparse.Namespace) -> tuple[list[int], list[str]]:
    """All sources, one by one. Returns boxes of each picture, and what could not be read and why."""
    from utils.sources import Unreadable

    bar, say = nullcontext(), print
    if len(sources) >= MANY:
        from tqdm import tqdm

        bar = tqdm(total=len(sources), unit='picture', file=sys.stdout, disable=None)
        say = bar.write
    counts, failed = [], []
    with bar:
        for number, source in enumerate(sources, 1):
            spent = sum(detector.seconds)
            try:
                for count in process(source, detector, results, args):
                    counts.append(count)  # one by one: an interruption loses none
                if len(sources) < MANY and not source.moves:
                    found = f'{counts[-1]} {_noun(detector.names)}, {(sum(detector.seconds) - spent) * 1e3:.1f} ms'
                    print(f'{number}/{len(sources)} {source.name}: {found}')
            except Unreadable as error:
                failed.append(f'{source.name} ({error})')
                say(f'skipped {failed[-1]}')
            except KeyboardInterrupt:
                if source.webcam is None:
                    raise
                results.stopped = True  # the way to end a webcam
            if len(sources) >= MANY:
                bar.update()
            if results.stopped:
                break
    return counts, failed


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
        raise UserError('--view-img: no window can be opened here (no display, or an OpenCV without windows)')


def main() -> None:
    args = parse_args()
    from utils.sources import find_sources

    sources = find_sources(args.source)
    if args.vid_stride is not None and not any(source.moves for source in sources):
        raise UserError(f'--vid-stride is for videos, and {args.source} has none')
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
    )
    with Results(args, detector.names) as results:
        counts, failed = run(sources, detector, results, args)
    report(counts, detector, results)
    if failed:
        named = '; '.join(failed[:5]) + (f' and {len(failed) - 5} more' if len(failed) > 5 else '')
        raise UserError(f'{len(failed)} of {len(sources)} could not be read: {named}')


if __name__ == '__main__':
    run_command(main)
