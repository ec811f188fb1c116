"""Run CRAFT, a text detector of another kind, over a split: keep its maps, and score it where there is ground truth.

    python teacher/craft.py --data data/ICDAR.yaml --task val

teacher/label.py and the distillation method `maps` use what is kept. CRAFT's weights are no part of this project;
docs/labelling.md says how to get them.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.runtime.cli import run_command
from utils.runtime.options import MAX_SIDE, Options, option, parse

SCORES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9)  # at which it is judged; they help to choose teacher/label.py --sure


@dataclass(kw_only=True)
class CraftOptions(Options):
    """What runs CRAFT."""

    weights: str = option(
        'teacher/easyocr/easyocr_en_models/models/craft_mlt_25k.pth', "CRAFT's weights ({default})", metavar='PTH'
    )
    cache: str = option('runs/craft', 'folder where its maps are kept ({default})', metavar='DIR')
    imgsz: int = option(1280, 'longer side, pixels ({default})', metavar='PX', min=64, max=MAX_SIDE, multiple=32)
    device: str = option('', "'cpu' or the number of a GPU (default: a GPU if there is one)")


@dataclass(kw_only=True)
class SplitOptions(CraftOptions):
    """Of this command."""

    data: str = option('data/ICDAR.yaml', 'data yaml ({default})', metavar='YAML')
    task: str = option('val', 'split ({default})', choices=('train', 'val', 'test'))


def main() -> None:
    options = parse(SplitOptions, __doc__)
    import numpy as np
    from tqdm import tqdm

    from ocrdistill.errors import Unreadable
    from utils.distillation.craft import WORD, CraftDetector
    from utils.evaluation.icdar import ICDARMetrics, read_ground_truth
    from utils.loading.config import load_data_config
    from utils.loading.images import probe_image
    from utils.loading.labels import companion_file
    from utils.loading.listing import list_images
    from utils.runtime.words import counted

    images = list_images(load_data_config(options.data), options.task)
    detector = CraftDetector(options.weights, options.device, options.cache, options.imgsz)
    metrics, before, judged, words, skipped = ICDARMetrics(), 0, 0, 0, []
    for image in tqdm(images, f'CRAFT on {options.task}', unit='picture', disable=None):
        try:
            probe_image(image)
            known = detector.cache.has(image)
            found = detector.words(image)
        except Unreadable as error:
            skipped.append(f'{image} ({error})')
            continue
        before += known
        words += int((found.scores >= WORD).sum())
        truth = companion_file(image, 'gt')
        if truth and truth.is_file():
            judged += 1
            metrics.update(np.rint(found.quads).astype(np.int64), found.scores, *read_ground_truth(truth))
    print(
        f'{options.task}: {counted(len(images), "picture")}, {before} had maps before; '
        f'{counted(words, "word")} of score {WORD} or more; maps in {detector.cache.folder}'
    )
    if skipped:
        print(f'skipped {counted(len(skipped), "broken or missing picture")}: {skipped[0]}')
    if judged:
        print(f'of {counted(judged, "picture")} with ground truth, {counted(metrics.words, "word")} to find:')
        print('score  precision  recall  hmean')
        for score in SCORES:
            at = metrics.at(score)
            precision, recall, hmean = (at[f'icdar_{name}'] for name in ('precision', 'recall', 'hmean'))
            print(f'{score:<7}{precision:<11.3f}{recall:<8.3f}{hmean:.3f}')


if __name__ == '__main__':
    run_command(main)
