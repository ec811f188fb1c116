"""What quads are compared with: a word's own corners, also where no loss knows them."""

import cv2
import numpy as np
import pytest
import torch

from utils.evaluation.evaluate import evaluate
from utils.evaluation.split import EvaluationSplit
from utils.loading.config import load_data_config
from utils.quads import encode

SIZE = (200, 100)
ON_THE_BORDER = [[154, 12], [180, 0], [196, 0], [156, 20]]  # the frame cuts it: nothing is learned of its edges
SIX = [[20, 50], [50, 40], [80, 30], [84, 42], [54, 52], [24, 62]]  # the rectangle around it is its quad
BOX = [[100, 60], [150, 60], [150, 80], [100, 80]]


class Known:
    """A network that finds given quads."""

    nc, quads = 1, True

    def __init__(self, quads: torch.Tensor):
        boxes, edges = encode(quads)
        sure = torch.ones(len(quads), 2)
        self.rows = torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2], sure, edges), 1)

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.rows[None].expand(len(images), -1, -1), None


def test_right_quads_are_right(tmp_path):
    for name in ('images', 'labels'):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / 'images/a.png'), np.zeros((*SIZE[::-1], 3), np.uint8))
    rows = ['0 ' + ' '.join(map(str, (np.array(polygon) / SIZE).ravel())) for polygon in (ON_THE_BORDER, SIX)]
    (tmp_path / 'labels/a.txt').write_text('\n'.join([*rows, '0 .625 .7 .25 .2']))
    (tmp_path / 'data.yaml').write_text(f'path: {tmp_path}\ntrain: images\nval: images\nnames: [text]\n')
    split = EvaluationSplit(load_data_config(tmp_path / 'data.yaml'), 'val', 320)
    place = next(iter(split.loader())).letterboxes[0]
    rectangle = cv2.boxPoints(cv2.minAreaRect(np.array(SIX, np.float32)))
    quads = np.array([ON_THE_BORDER, rectangle, BOX], np.float32)
    quads = quads * (place.scale_x, place.scale_y) + (place.pad_x, place.pad_y)
    found = evaluate(Known(torch.from_numpy(quads).float()), split.loader(), torch.device('cpu'))
    assert found.scores['quad_map50_95'] == pytest.approx(1, abs=0.01)
    assert len(found.images[0].label_quads) == 3
