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


def split_of(folder, pictures: int = 1) -> EvaluationSplit:
    """Pictures of the three words, two in a batch."""
    for name in ('images', 'labels'):
        (folder / name).mkdir()
    rows = ['0 ' + ' '.join(map(str, (np.array(polygon) / SIZE).ravel())) for polygon in (ON_THE_BORDER, SIX)]
    for number in range(pictures):
        cv2.imwrite(str(folder / f'images/{number}.png'), np.zeros((*SIZE[::-1], 3), np.uint8))
        (folder / f'labels/{number}.txt').write_text('\n'.join([*rows, '0 .625 .7 .25 .2']))
    (folder / 'data.yaml').write_text(f'path: {folder}\ntrain: images\nval: images\nnames: [text]\n')
    return EvaluationSplit(load_data_config(folder / 'data.yaml'), 'val', 320, batch_size=2)


def known(split: EvaluationSplit, quads: list) -> Known:
    """The network that finds quads (n, 4, 2) of the pictures."""
    place = next(iter(split.loader())).letterboxes[0]
    placed = np.array(quads, np.float32) * (place.scale_x, place.scale_y) + (place.pad_x, place.pad_y)
    return Known(torch.from_numpy(placed).float())


def test_right_quads_are_right(tmp_path):
    split = split_of(tmp_path)
    rectangle = cv2.boxPoints(cv2.minAreaRect(np.array(SIX, np.float32)))
    model = known(split, [ON_THE_BORDER, rectangle, BOX])
    found = evaluate(model, split.loader(), torch.device('cpu'))
    assert found.scores['quad_map50_95'] == pytest.approx(1, abs=0.01)
    assert len(found.images[0].label_quads) == 3


def test_leaning_neighbours_are_two_words(tmp_path):
    """Their boxes overlap by an IoU over .5, they do not."""
    split = split_of(tmp_path)
    upper = np.array([[20, 60], [100, 20], [102, 26], [22, 66]])
    found = evaluate(known(split, [upper, upper + (4, 12)]), split.loader(), torch.device('cpu'))
    assert len(found.images[0].words) == 2
    assert len(evaluate(known(split, [upper, upper + 1]), split.loader(), torch.device('cpu')).images[0].words) == 1


def test_losses_are_means_over_pictures(tmp_path):
    split, values = split_of(tmp_path, 3), iter((1.0, 4.0))  # of the batch of two, and of the one that is left

    def loss(*_, **__) -> dict[str, torch.Tensor]:
        return {'box': torch.tensor(next(values))}

    assert evaluate(known(split, [BOX]), split.loader(), torch.device('cpu'), loss=loss).losses == {'box': 2.0}
