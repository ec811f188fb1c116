"""The options of detect.py. Imports nothing heavy."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.runtime.options import MAX_SIDE, Options, option

SHIPPED = Path(__file__).resolve().parents[2] / 'weights/ocrdistill-n.pt'


def tile_side(text: str) -> int:
    """The value of --slice: '320' -> 320; 0 stands for a --slice without one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is no whole number from 1')
    return int(text)


@dataclass(kw_only=True)
class DetectOptions(Options):
    """Of detect.py."""

    weights: str = option(
        str(SHIPPED),
        'checkpoint (.pt), ours or a public YOLOv5 v6/v7 one, or exported file (default: weights/ocrdistill-n.pt)',
        metavar='FILE',
    )
    source: str = option(help="image, video, folder (recursive), 'glob', list file (.txt), webcam ('0')")
    imgsz: int | None = option(
        None,
        'pixels of the long side as the network sees it (that of the training; 960 for the shipped weights; or what '
        'an export is for)',
        metavar='PX',
        min=1,
        max=MAX_SIDE,
    )
    conf_thres: float | None = option(
        None, "lowest confidence, 0..1 (default: the checkpoint's own, else 0.25)", metavar='CONF', min=0, max=1
    )
    iou_thres: float | None = option(
        None, 'overlap above which the worse box goes, 0..1 (default 0.45; of quads 0.3)', metavar='IOU', min=0, max=1
    )
    max_det: int | None = option(
        None, 'boxes kept of an image at most (default 1000; 3000 with --slice)', metavar='N', min=1
    )
    classes: list[int] | None = option(None, 'numbers of the classes to keep (default: all)', metavar='N', nargs='+')
    slice: int | None = option(
        None,
        'find small words in large images: look at tiles of PX x PX pixels (default: --imgsz) and at the whole',
        metavar='PX',
        bare=0,
        parse=tile_side,
    )
    slice_overlap: float | None = option(
        None,
        'share of a tile that the next one shows too, 0..0.9 (default 0.2)',
        metavar='FRACTION',
        min=0,
        max=0.9,
    )
    rotate: bool = option(
        False, 'find text that is turned by 90, 180 or 270 degrees too: look at each image on its side as well'
    )
    multiscale: bool = option(
        False,
        'look at 3/4 and 1/2 of --imgsz too, and score each word by all three: surer with --imgsz 1280, in about '
        'twice the time; scores under .1 are not looked at',
    )
    batch_size: int | None = option(None, 'images, or tiles or turns of one, at a time (default 8)', metavar='N', min=1)
    device: str = option('', "'cpu' or a CUDA number; default: cuda if there is one, else cpu")
    amp: bool = option(True, 'float32 instead of bfloat16 where the processor has that', '--no-amp')
    project: str = option('runs/detect', 'folder of runs (default {default})', metavar='DIR')
    name: str = option('exp', 'folder of this run (default {default}; exp2 if it exists, and so on)')
    exist_ok: bool = option(False, 'write into the run folder even if it exists')
    save_txt: bool = option(
        False, 'write labels/*.txt: class x1 y1 ... x4 y4, 0..1 of the image (class x y w h without quads)'
    )
    save_conf: bool = option(False, 'add the confidence to the rows of --save-txt')
    save_crop: bool = option(False, 'write each box as an image: crops/<class>/*.jpg, in reading order')
    crop_margin: float | None = option(
        None,
        "around a crop, of the box's height, 0..1 (default 0.1)",
        metavar='FRACTION',
        min=0,
        max=1,
    )
    save_json: bool = option(False, 'write detections.json: boxes in pixels, scores, lines, reading order')
    nosave: bool = option(False, 'write no annotated images and videos')
    view_img: bool = option(False, 'show the annotated images (any key: next, q: stop)', *('--show', '--view-img'))
    line_thickness: int | None = option(None, 'pixels of an outline (default: suits the image)', metavar='PX', min=1)
    hide_labels: bool = option(False, 'draw boxes without the class name, which is drawn where there are several')
    show_conf: bool = option(False, 'draw the confidence beside each box')
    hide_conf: bool = option(False, 'no effect: confidences are not drawn anyway; taken because YOLOv5 has the flag')
    vid_stride: int | None = option(None, 'of a video read every N-th frame (default 1)', metavar='N', min=1)

    def contradictions(self, given: set[str]) -> Iterator[str]:
        if self.save_conf and not self.save_txt:
            yield '--save-conf adds to the rows of --save-txt: give --save-txt too'
        if self.crop_margin is not None and not self.save_crop:
            yield '--crop-margin is for the images of --save-crop: give --save-crop too'
        if self.slice_overlap is not None and self.slice is None:
            yield '--slice-overlap is for the tiles of --slice: give --slice too'
        if self.show_conf and self.hide_conf:
            yield '--show-conf and --hide-conf contradict each other'
        for name in ('line_thickness', 'hide_labels', 'show_conf'):
            if self.nosave and not self.view_img and getattr(self, name):
                yield f'--{name.replace("_", "-")} changes what is drawn, and --nosave draws nothing'
