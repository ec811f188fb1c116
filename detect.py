"""Find text in pictures, videos and webcams: python detect.py --source photos"""

import argparse
import math
from pathlib import Path

from utils.detection.detector import Detector  # noqa: F401  for users: `from detect import Detector`
from utils.runtime.cli import run_command

# numpy, OpenCV and torch are imported where they are used: --help and a wrong flag are answered at once, and the
# first result comes within a second of importing torch.

SHIPPED = Path(__file__).resolve().parent / 'weights/ocrdistill-n.pt'
MAX_OVERLAP = 0.9  # fraction of a tile's side
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


def main() -> None:
    options = parse_args()
    from utils.detection import session
    from utils.detection.sources import find_sources
    from utils.detection.writer import Writer

    sources = find_sources(options.source)
    session.check_sources(sources, options)
    detector = session.build_detector(options)
    with Writer(options, detector.names) as writer:
        progress = session.run(sources, detector, writer, options)
    session.report(progress, detector, writer)


if __name__ == '__main__':
    run_command(main)
