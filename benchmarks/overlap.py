"""At which overlap two quads are one word: hmean for several, each at its best threshold.

    python benchmarks/overlap.py --weights weights/ocrdistill-n.pt --imgsz 1280

NMS drops the worse of two quads above the overlap. The training splits choose it (ocrdistill.nms.QUAD_IOU), never test.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.errors import UserError
from utils.runtime.cli import positive, run_command

OVERLAPS = (0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.55)


def keep_words(rows, overlap: float):
    """Rows (n, 14) of `ocrdistill.nms.select`, best first, without NMS: those that NMS at this overlap keeps."""
    from ocrdistill.nms import UPRIGHT_IOU, class_nms, quad_nms

    rows = rows[class_nms(rows[:, :4], rows[:, 5], UPRIGHT_IOU)]
    return rows[quad_nms(rows[:, 6:].reshape(-1, 4, 2), rows[:, 5], overlap)]


def measure(weights: str, data: str, task: str, imgsz: int):
    """(overlap, threshold, hmean) of each of OVERLAPS."""
    from tqdm import tqdm

    from models.exported import is_exported
    from utils.detection.detector import Detector
    from utils.evaluation.evaluate import read_truths
    from utils.evaluation.icdar import LOWEST_THRESHOLD, ICDARMetrics
    from utils.evaluation.split import EvaluationSplit
    from utils.loading.config import load_data_config

    if is_exported(weights):
        raise UserError(f'{weights} is an exported file: this measures checkpoints')
    detector = Detector(weights, imgsz=imgsz, conf_thres=LOWEST_THRESHOLD, iou_thres=1.0, max_det=10_000, amp=False)
    if not detector.model.quads:
        raise UserError(f'{weights} predicts no quads')
    files = EvaluationSplit(load_data_config(data), task, imgsz).files
    truths = read_truths(files)
    if truths is None:
        raise UserError(f'{data}: pictures of {task} have no ICDAR ground truth (gt/)')
    metrics = {overlap: ICDARMetrics() for overlap in OVERLAPS}
    for file, truth in zip(tqdm(files, unit='picture', disable=None), truths, strict=True):
        rows = detector(str(file))
        for overlap, of_all in metrics.items():
            words = keep_words(rows, overlap)
            of_all.update(words[:, 6:].reshape(-1, 4, 2).round().astype(int), words[:, 4], *truth)
    for overlap, of_all in metrics.items():
        threshold, curve = of_all.sweep()
        yield overlap, threshold, curve['hmean'].max()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', default='weights/ocrdistill-n.pt', help='with quads (default %(default)s)')
    parser.add_argument('--data', default='data/ICDAR.yaml', help='data yaml (default %(default)s)')
    parser.add_argument('--task', default='val', choices=('train', 'val'), help='split (default %(default)s)')
    parser.add_argument('--imgsz', type=positive, default=1280, help='pixels of the longer side (default %(default)s)')
    options = parser.parse_args()
    rows = list(measure(options.weights, options.data, options.task, options.imgsz))
    print('| overlap | threshold | hmean |\n|---|---|---|')
    for overlap, threshold, hmean in rows:
        print(f'| {overlap:.2f} | {threshold:.2f} | {hmean:.4f} |')


if __name__ == '__main__':
    run_command(main)
