"""The options of export.py. Imports nothing heavy."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.runtime.options import MAX_SIDE, Options, option

SUFFIXES = {
    'onnx': '.onnx',
    'openvino': '.xml',
    'torchscript': '.torchscript',
    'ncnn': '.ncnn.param',
    'tflite': '.tflite',
}


@dataclass(kw_only=True)
class ExportOptions(Options):
    """Of export.py."""

    weights: str = option(help='checkpoint, ours or a public YOLOv5 .pt', metavar='PT')
    format: str = option('onnx', '({default})', choices=tuple(SUFFIXES))
    imgsz: tuple[int, ...] = option(
        (),
        'side, or height and width, pixels (that of the training; 640 for the shipped weights)',
        metavar='PX',
        nargs='+',
        min=32,
        max=MAX_SIDE,
        multiple=32,
    )
    dynamic: bool = option(False, 'take any number of images of any size that is a multiple of 32')
    float16: bool = option(
        False,
        'float16 weights, half the bytes; what runs them may compute in float32',
        *('--float16', '--half'),
        exclusive='precision',
    )
    small: bool = option(
        False,
        'onnx: float16 weights that are computed in float32: half the bytes, the time of float32',
        '--float16-weights',
        exclusive='precision',
    )
    int8: bool = option(False, 'openvino: 8-bit convolutions, calibrated on --data', exclusive='precision')
    data: str | None = option(
        None, 'of --int8: its train calibrates, its val evaluates (data/ICDAR.yaml)', metavar='YAML'
    )
    calibration: int | None = option(None, 'of --int8: training images for it (300)', metavar='N', min=1)
    nms: bool = option(False, 'onnx: end with NMS: boxes, scores and classes come out, for other programs')
    conf_thres: float | None = option(
        None,
        "of --nms: confidence, 0..1 (default: the checkpoint's own, else 0.25)",
        metavar='CONF',
        min=0,
        max=1,
    )
    iou_thres: float | None = option(None, 'of --nms: overlap, 0..1 (default 0.45)', metavar='IOU', min=0, max=1)
    max_det: int | None = option(None, 'of --nms: boxes of a class in an image (default 300)', metavar='N', min=1)
    license: str | None = option(
        None, 'of the weights, for metadata and card (default: what is known of them)', metavar='TEXT'
    )
    out: Path | None = option(None, '(default: beside the checkpoint, named after it and the options)', metavar='FILE')

    def contradictions(self, given: set[str]) -> Iterator[str]:
        if len(self.imgsz) > 2:
            yield '--imgsz: one or two multiples of 32'
        oblong = len(set(self.imgsz)) > 1
        if oblong and self.dynamic:
            yield '--dynamic: one --imgsz, the longer side of any image'
        if oblong and self.int8:
            yield '--int8: a square --imgsz, as the validation split is evaluated at it'
        if self.dynamic and self.format in ('ncnn', 'tflite'):
            yield '--dynamic: not for ncnn and tflite, whose files are for one size'
        if self.float16 and self.format in ('torchscript', 'tflite'):
            yield '--float16: for onnx, openvino and ncnn'
        if self.int8 and self.format != 'openvino':
            yield '--int8: for openvino'
        if self.small and self.format != 'onnx':
            yield '--float16-weights: for onnx'
        if self.nms and self.format != 'onnx':
            yield '--nms: for onnx'
        owners = {'--int8': (self.int8, ('data', 'calibration'))}
        owners['--nms'] = self.nms, ('conf_thres', 'iou_thres', 'max_det')
        for owner, (used, names) in owners.items():
            for name in sorted(given.intersection(names) if not used else ()):
                yield f'--{name.replace("_", "-")} belongs to {owner}'
        suffix = SUFFIXES[self.format]
        if self.out is not None and (not self.out.name.endswith(suffix) or self.out.name == suffix):
            yield f'--out: a name that ends in {suffix}'
