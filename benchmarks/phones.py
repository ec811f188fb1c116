"""Exported files of one size beside each other on photographs: differences of their outputs, and of detect.py's words.

python benchmarks/phones.py best.onnx best.ncnn.param --data data/ICDAR.yaml --pictures 20

The first file is what the others are compared with. Words: those over the file's own threshold, after NMS; a word is
the same if all its corners are within half a pixel of the picture and its score within 0.001.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.runtime.cli import positive, run_command

SAME_CORNER, SAME_SCORE = 0.5, 0.001


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='+', metavar='FILE', help='exported files of one size, the reference first')
    parser.add_argument('--data', default='data/ICDAR.yaml', metavar='YAML', help='its test pictures (%(default)s)')
    parser.add_argument('--pictures', type=positive, default=20, help='how many of them (%(default)s)')
    return parser.parse_args()


def count_same(expected, given) -> int:
    """How many words (n, 6) or with quads (n, 14) have their like in the other list."""
    import numpy as np

    corners = slice(6, None) if expected.shape[1] > 6 else slice(0, 4)  # noqa: PLR2004
    return sum(
        bool(
            (
                (np.abs(given[:, corners] - row[corners]).max(1) < SAME_CORNER)
                & (np.abs(given[:, 4] - row[4]) < SAME_SCORE)
            ).any()
        )
        for row in expected
        if len(given)
    )


def main() -> None:
    options = parse_options()
    from tqdm import tqdm

    from models.errors import UserError
    from utils.detection.detector import Detector
    from utils.export.check import compare, place
    from utils.loading.config import load_data_config
    from utils.loading.images import load_image
    from utils.loading.listing import list_images

    pictures = list_images(load_data_config(options.data), 'test')[: options.pictures]
    images = [load_image(file) for file in tqdm(pictures, 'read', leave=False)]
    detectors = [Detector(file, device='cpu') for file in options.files]
    sizes = {detector.model.input_size for detector in detectors}
    if len(sizes) > 1 or None in sizes:
        raise UserError('expected exported files that are all for one and the same size')
    batches = [place(image, detectors[0].model.input_size) for image in images]
    expected = [detectors[0](image) for image in tqdm(images, options.files[0], leave=False)]
    print(f'{options.files[0]}: {sum(map(len, expected))} words in {len(images)} pictures')
    for file, detector in zip(options.files[1:], detectors[1:], strict=True):
        difference = compare(detectors[0].model, detector.model, tqdm(batches, f'{file}: output', leave=False))
        found = [detector(image) for image in tqdm(images, f'{file}: words', leave=False)]
        same = sum(count_same(*pair) for pair in zip(expected, found, strict=True))
        print(
            f'{file}: {sum(map(len, found))} words, {same} the same; largest differences over all cells: '
            f'scores {difference.scores:.1e}, boxes {difference.boxes:.1e} of their longer side'
        )


if __name__ == '__main__':
    run_command(main)
