"""Augmentations have the strengths that the hyperparameters name, and go by their own names."""

import math

import cv2
import numpy as np
import torch

from tests.loading.test_dataset import make_data
from utils.loading import augment
from utils.loading.dataset import TextDataset
from utils.loading.labels import Annotations
from utils.runtime.hyp import DEFAULTS

MOVES = (
    'degrees',
    'translate',
    'scale',
    'zoom',
    'aspect',
    'shear',
    'perspective',
    'mosaic',
    'mixup',
    'fliplr',
    'flipud',
    'turn',
)
STILL = DEFAULTS | dict.fromkeys((*MOVES, 'hsv_h', 'hsv_s', 'hsv_v'), 0.0)


def drawn(**hyp):
    return [
        augment.random_projection(np.random.default_rng(s), STILL | hyp, (200, 100), (160, 120)) for s in range(300)
    ]


def test_what_is_drawn_has_the_strength_that_the_hyp_says():
    angles = [math.degrees(math.atan2(m[1, 0], m[0, 0])) for m in drawn(degrees=10.0)]
    assert -10 <= min(angles) < -9 and 9 < max(angles) <= 10
    shifts = np.array([(m @ (100, 50, 1))[:2] / (160, 120) - 0.5 for m in drawn(translate=0.2)])
    assert (abs(shifts) <= 0.2).all() and (shifts.min(0) < -0.18).all() and (shifts.max(0) > 0.18).all()
    gains = [math.sqrt(np.linalg.det(m[:2, :2])) for m in drawn(scale=0.4)]
    assert 0.6 <= min(gains) < 0.62 and 1.38 < max(gains) <= 1.4


def test_words_of_a_crop_have_the_strength_that_the_hyp_says():
    word = np.array([(180, 140), (220, 140), (220, 160), (180, 160)], float)
    image, annotations = np.zeros((300, 400, 3), np.uint8), Annotations.build([0], [word])
    hyp = STILL | {'scale': 0.5, 'zoom': 2.0, 'degrees': 10.0}
    found = [augment.random_crop(np.random.default_rng(s), hyp, (image, annotations), 128)[1] for s in range(300)]
    sides = np.array([f.polygons[0, 1] - f.polygons[0, 0] for f in found if f.visible[0] > 0.999])
    lengths, angles = np.hypot(*sides.T) / 40, np.degrees(np.arctan2(*sides.T[::-1]))
    assert 0.5 <= lengths.min() < 0.55 and 1.8 < lengths.max() <= 2 + 1e-6
    assert abs(angles).max() <= 10 + 1e-6 and angles.max() > 8 and angles.min() < -8


def test_saturation():
    pale = np.full((2, 3, 3), (200, 150, 150), np.uint8)
    values = np.array([augment.jitter_hsv(np.random.default_rng(s), pale, 0, 0.8, 0)[0, 0] for s in range(40)])
    assert (values[:, 0] == 200).all() and np.ptp(values[:, 1]) > 50


def test_flips_and_colours_go_by_their_own_names(tmp_path):
    data = make_data(tmp_path, [(128, 128)] * 2)
    cv2.imwrite(str(tmp_path / 'images/train/p1.jpg'), np.full((128, 128, 3), 90, np.uint8))
    plain = TextDataset(data, 'train', 128)
    down = TextDataset(data, 'train', 128, STILL | {'flipud': 1.0}, augment=True)
    assert torch.equal(down[0, 0].image, plain[0, 0].image.flip(1))
    turned = TextDataset(data, 'train', 128, STILL | {'turn': 1.0}, augment=True)
    quarters = [torch.rot90(plain[0, 0].image, side, (1, 2)) for side in (1, -1)]
    assert any(torch.equal(turned[0, 0].image, each) for each in quarters)
    rect = TextDataset(data, 'train', 128, STILL | {'turn': 1.0}, augment=True, rect=True)
    assert torch.equal(rect[0, 0].image, TextDataset(data, 'train', 128, STILL, augment=True, rect=True)[0, 0].image)
    bright = TextDataset(data, 'train', 128, STILL | {'hsv_v': 0.9}, augment=True)
    assert abs(int(bright[0, 1].image[0, 5, 5]) - 90) > 3


def test_words_that_a_mosaic_of_crops_cuts_are_dont_care(tmp_path):
    hyp = STILL | {'mosaic': 1.0, 'zoom': 1.0}
    dataset = TextDataset(make_data(tmp_path), 'train', 320, hyp, augment=True, crop=128)
    found = [dataset[epoch, index].annotations for epoch in range(6) for index in range(7)]
    cut = np.concatenate([a.dont_care[a.visible < augment.WHOLE] for a in found])
    assert len(cut) > 10 and cut.all()
