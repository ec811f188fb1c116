"""The runtime's letterbox, quads and NMS against OpenCV, PyTorch's versions, and values by hand."""

import tracemalloc

import cv2
import numpy as np
import pytest
import torch

from ocrdistill import nms, quads
from ocrdistill.letterbox import Letterbox, place, resize, resized_shape
from ocrdistill.rows import level_crop
from utils import boxes as torch_boxes
from utils import quads as torch_quads
from utils.loading.augment import pad_to, resize_long_side


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ('size', 'target'),
    [
        ((72, 128), (36, 64)),
        ((90, 121), (48, 64)),
        ((333, 100), (300, 90)),
        ((100, 1), (37, 1)),
        ((30, 40), (300, 400)),
        ((301, 7), (300, 7)),
        ((1300, 211), (129, 17)),
        ((400, 301), (331, 290)),
        ((5, 5), (5, 5)),
    ],
)
def test_resizing_is_opencvs(rng, size, target):
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    how = cv2.INTER_AREA if target[0] <= size[0] else cv2.INTER_LINEAR
    expected = cv2.resize(image, target[::-1], interpolation=how).reshape(*target, 3)
    found = resize(image, target[1], target[0])
    assert found.dtype == np.uint8 and found.flags['C_CONTIGUOUS']
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_area_means_by_hand():
    """Three columns become two: each is a whole one and half of the middle one."""
    image = np.repeat(np.array([[0, 90, 240]], np.uint8)[..., None], 3, 2)
    assert resize(image, 2, 1)[0, :, 0].tolist() == [30, 190]


def test_a_line_of_millions_of_pixels_takes_little_memory(rng):
    image = np.repeat(rng.integers(0, 256, (1, 1000, 1), dtype=np.uint8), 3, 2).repeat(4001, 1)  # 4,001,000 x 1
    tracemalloc.start()
    found = resize(image, 960, 1)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    expected = cv2.resize(image, (960, 1), interpolation=cv2.INTER_AREA)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_last_part_of_a_pixel_counts_as_such():
    image = np.zeros((1, 200, 3), np.uint8)
    image[:, 128:] = 200
    assert resize(image, 3, 1)[0, :, 0].tolist() == [0, 16, 200]  # 66.7 pixels each: 5.3 of the second are 200
    assert resize(image, 1, 1)[0, 0, 0] == 72


@pytest.mark.parametrize('size', [(50, 200), (300, 70), (96, 96), (1, 400), (41, 333)])
def test_placing_is_that_of_training(rng, size):
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    padded, letterbox = place(image, 96, 32)
    reduced = resize_long_side(image, 96)
    expected, left, top = pad_to(reduced, *padded.shape[:2])
    assert np.abs(padded.astype(int) - expected).max() <= 1
    assert letterbox == (reduced.shape[1] / size[1], reduced.shape[0] / size[0], left, top)


def test_letterboxes_map_back_in_both_libraries():
    letterbox = Letterbox(0.5, 0.25, 3.0, 8.0)
    points = np.array([[8.0, 13.0, 500.0, -4.0]], np.float32)  # (5, 5) and (497, -12) of the resized picture
    expected = [[10, 20, 100, 0]]
    assert letterbox.to_image(points, 200, 100).tolist() == expected
    assert letterbox.to_image(torch.from_numpy(points), 200, 100).tolist() == expected
    assert points[0, 0] == 8 and resized_shape(1000, 3, 100) == (100, 1)


def random_boxes(rng, count: int, side: float = 100) -> np.ndarray:
    corner = rng.uniform(0, side, (count, 2))
    return np.concatenate((corner, corner + rng.uniform(5, 40, (count, 2))), 1).astype(np.float32)


def test_quads_are_those_of_pytorch(rng):
    boxes, edges = random_boxes(rng, 60), rng.uniform(-0.45, 0.45, (60, 4)).astype(np.float32)
    found = quads.decode(boxes, edges)
    expected = torch_quads.decode(torch.from_numpy(boxes), torch.from_numpy(edges))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(quads.ordered(found[:, ::-1]), torch_quads.ordered(expected.flip(1)), atol=1e-4)
    np.testing.assert_allclose(quads.signed_areas(found), torch_quads.signed_areas(expected), rtol=1e-4)
    np.testing.assert_allclose(
        quads.quad_iou(found[:30], found[30:]), torch_quads.quad_iou(expected[:30], expected[30:]), atol=1e-5
    )


def test_overlaps_by_hand():
    """A square of 10 and the one turned by 45 degrees about its centre, of the same area: they share an octagon."""
    square = np.array([[(-5, -5), (5, -5), (5, 5), (-5, 5)]], float)
    half = 5 * np.sqrt(2)
    turned = np.array([[(0, -half), (half, 0), (0, half), (-half, 0)]])
    shared = 200 * (np.sqrt(2) - 1)
    assert quads.quad_iou(square, turned)[0] == pytest.approx(shared / (200 - shared))
    assert quads.quad_iou(square, square + 20)[0] == 0
    assert quads.quad_iou(square, np.zeros((1, 4, 2)))[0] == 0


@pytest.mark.parametrize('with_quads', [False, True])
@pytest.mark.parametrize(('conf_thres', 'iou_thres'), [(0.25, 0.45), (0.0, 0.1), (0.6, 0.9)])
def test_selection_is_that_of_pytorch(rng, with_quads, conf_thres, iou_thres):
    cells = [rng.uniform(0, 100, (120, 2)), rng.uniform(5, 40, (120, 2)), rng.uniform(0, 1, (120, 3))]
    if with_quads:
        cells.append(rng.uniform(-0.4, 0.4, (120, 4)))
    decoded = np.concatenate(cells, 1).astype(np.float32)
    (expected,) = torch_boxes.non_max_suppression(
        torch.from_numpy(decoded)[None], conf_thres, iou_thres, 1000, nc=2, by_quads=True
    )
    if with_quads:
        corners = torch_quads.decode(expected[:, :4], expected[:, 6:]).flatten(1)
        expected = torch.cat((expected[:, :6], corners), 1)
    found = nms.select(decoded, 2, conf_thres, iou_thres)
    assert len(found) > 10
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_selection_of_nothing():
    assert nms.select(np.zeros((5, 6), np.float32), 1, 0.25, 0.45).shape == (0, 6)
    assert nms.select(np.zeros((0, 10), np.float32), 1, 0.25, 0.45).shape == (0, 14)


def test_crops_are_level():
    """A chessboard's field that was turned by 30 degrees comes back with its four quarters where they were."""
    angle = np.deg2rad(30)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    ys, xs = np.mgrid[:200, :200] + 0.5
    across, down = turn @ np.stack((xs.ravel() - 100, ys.ravel() - 100))
    quarters = np.where(across < 0, np.where(down < 0, 40, 160), np.where(down < 0, 220, 90)).reshape(200, 200)
    image = np.repeat(quarters[..., None], 3, 2).astype(np.uint8)
    quad = np.array([(-60, -20), (60, -20), (60, 20), (-60, 20)]) @ turn + 100
    crop = level_crop(image, quad, 0)
    assert crop.shape == (40, 120, 3)
    expected = np.array([[40] * 60 + [220] * 60] * 20 + [[160] * 60 + [90] * 60] * 20)
    inner = np.ones((40, 120), bool)
    inner[18:22], inner[:, 58:62] = False, False
    assert np.abs(crop[..., 0].astype(int) - expected)[inner].max() <= 1


def test_large_crops_are_made_in_parts(monkeypatch):
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    quad = np.array([(10, 5), (100, 12), (95, 70), (8, 60)], float)
    whole = level_crop(image, quad, 0.1)
    monkeypatch.setattr('ocrdistill.rows.CROPPED_AT_ONCE', 7 * whole.shape[1] + 3)
    assert (level_crop(image, quad, 0.1) == whole).all()


def test_crops_repeat_the_border_and_bear_any_quad():
    image = np.full((20, 30, 3), 7, np.uint8)
    beyond = level_crop(image, np.array([(-50, -50), (80, -50), (80, 60), (-50, 60)], float), 0.1)
    assert beyond.shape == (132, 152, 3) and (beyond == 7).all()
    for quad in (np.zeros((4, 2)), np.full((4, 2), 500.0), np.array([(0, 0), (9, 0), (9, 0), (0, 0)], float)):
        assert level_crop(image, quad, 0).size > 0
