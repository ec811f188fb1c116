"""The options of val.py. Imports nothing heavy."""

from dataclasses import dataclass

from utils.runtime.options import MAX_SIDE, Options, option


@dataclass(kw_only=True)
class ValOptions(Options):
    """Of val.py."""

    weights: str = option(help='checkpoint (.pt) or exported file', metavar='FILE')
    data: str = option('data/ICDAR.yaml', 'data yaml ({default})', metavar='YAML')
    task: str = option('val', 'the split ({default})', choices=('train', 'val', 'test'))
    imgsz: int | None = option(
        None,
        'longer side, pixels (that of the training; 640 for the shipped weights; or what an export is for)',
        *('--imgsz', '--img', '--img-size'),
        metavar='PX',
        min=32,
        max=MAX_SIDE,
        multiple=32,
    )
    batch_size: int = option(32, 'images at a time ({default})', metavar='N', min=1)
    workers: int = option(2, 'loading processes ({default})', metavar='N', min=0)
    device: str = option('', "'cpu' or the number of a GPU (default: a GPU if there is one)")
    bfloat16: bool = option(
        False, 'bfloat16 where the processor has it; published metrics are float32', *('--bfloat16', '--half')
    )
    conf_thres: float = option(
        0.001,
        'of mAP: confidence that a box must exceed, 0..1 ({default}); for hmean see --icdar-conf',
        metavar='CONF',
        min=0,
        max=1,
    )
    iou_thres: float = option(
        0.6,
        "of mAP: overlap at which NMS drops the weaker box, 0..1 ({default}); hmean has detect.py's",
        metavar='IOU',
        min=0,
        max=1,
    )
    max_det: int = option(300, 'boxes an image at most ({default}); of hmean 1000 at least', metavar='N', min=1)
    icdar_conf: float | None = option(
        None,
        "threshold of the ICDAR metrics, 0.05..1 (default: the checkpoint's, chosen on val)",
        metavar='CONF',
        min=0.05,
        max=1,
    )
    word_scale: list[float] | None = option(
        None,
        "factors of the boxes' width and height about their centres in the ICDAR metrics and --save-icdar; quads take "
        "none (default: the checkpoint's, chosen on val; where it has none: chosen here with --task val, else 1 1, "
        'which is boxes as they are)',
        metavar=('W', 'H'),
        nargs=2,
        above=0,
        max=2,
    )
    save_icdar: bool = option(False, 'write submit.zip for the Robust Reading site')
    project: str = option('runs/val', 'folder of the runs ({default})', metavar='DIR')
    name: str = option('exp', 'folder of this run in it, numbered if it exists ({default})')
    exist_ok: bool = option(False, 'write into an existing folder')
    noplots: bool = option(False, 'draw no images')
