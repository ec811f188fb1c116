"""What detect.py --slice finds in a large picture, put together from rendered ones: python benchmarks/slices.py"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.runtime.cli import run_command

ROWS = COLUMNS = 6
SIZE = (640, 384)  # pixels of a rendered picture
SEED = 5
MAX_DET = 1000
IOU = 0.5


def build_image():
    """The large picture (H, W, 3) uint8 RGB and the boxes (n, 4) of its legible words."""
    import numpy as np

    from data.synthesis.image import render_image

    width, height = SIZE
    image, boxes = np.zeros((ROWS * height, COLUMNS * width, 3), np.uint8), []
    for number in range(ROWS * COLUMNS):
        x, y = number % COLUMNS * width, number // COLUMNS * height
        rendered, words, _ = render_image(SEED, 'test', number, SIZE)
        image[y : y + height, x : x + width] = rendered[..., ::-1]  # it is BGR
        quads = (word.quad + (x, y) for word in words if word.legible)
        boxes += [(*quad.min(0), *quad.max(0)) for quad in quads]
    return image, np.array(boxes)


def recall_and_precision(found, truth) -> tuple[float, float]:
    """Recall and precision of boxes (n, 6) against the truth (m, 4)."""
    import torch
    from torchvision.ops import box_iou

    same = box_iou(torch.from_numpy(truth).double(), torch.from_numpy(found[:, :4])) > IOU
    return same.any(1).double().mean().item(), same.any(0).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--weights', default='teacher/demo/yolov5n.pt', help='checkpoint (default: %(default)s)')
    args = parser.parse_args()
    from ocrdistill.search import make_find
    from utils.detection.detector import Detector
    from utils.detection.session import BATCH_SIZE

    image, truth = build_image()
    height, width = image.shape[:2]
    print(f'{width} x {height} pixels, {len(truth)} legible words, IoU {IOU:g}\n')
    print('| --imgsz | --slice | recall | precision | ms |\n|---|---|---|---|---|')
    for imgsz, tile in ((640, None), (1280, None), (1280, 1280), (640, 640)):
        detector = Detector(args.weights, imgsz=imgsz, max_det=MAX_DET)
        find = make_find(detector, tile=tile, batch_size=BATCH_SIZE)
        find([image])  # the first call prepares kernels
        start = time.perf_counter()
        (found,) = find([image])
        milliseconds = (time.perf_counter() - start) * 1e3
        recall, precision = recall_and_precision(found, truth)
        print(f'| {imgsz} | {tile or "no"} | {recall:.3f} | {precision:.3f} | {milliseconds:.0f} |')


if __name__ == '__main__':
    run_command(main)
