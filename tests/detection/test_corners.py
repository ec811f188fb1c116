"""Quads in detection: levelled crops, order along the slope, tiles and turns, and what is written of them."""

import json

import cv2
import numpy as np
import pytest
import torch

import detect
from models.checkpoint import save_checkpoint
from models.yolo import DetectionModel
from ocrdistill.reading_order import reading_order
from ocrdistill.rows import corners_of, level_crop, levelled_boxes
from ocrdistill.tiles import detect_sliced
from ocrdistill.turns import detect_turned, turned_back
from tests.support import small_cfg
from tests.world import call, place


def turned_quad(x: float, y: float, width: float, height: float, degrees: float) -> np.ndarray:
    """A word's corners, its centre at (x, y), turned clockwise on the screen."""
    angle = np.radians(degrees)
    corners = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    return corners @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + (x, y)


def row_of(quad: np.ndarray, confidence: float = 0.9) -> np.ndarray:
    return np.concatenate((quad.min(0), quad.max(0), (confidence, 0), quad.ravel()))


def test_corners_of_boxes_are_the_box():
    rows = np.array([[1.0, 2, 11, 7, 0.5, 0]])
    assert corners_of(rows).tolist() == [[[1, 2], [11, 2], [11, 7], [1, 7]]]


@pytest.mark.parametrize('degrees', [-35, 0, 20])
def test_a_crop_is_level(degrees):
    """A word of two halves, light above dark: level in the crop, whatever its slope."""
    quad = turned_quad(100, 100, 80, 20, degrees)
    fine = 8
    image = np.zeros((200 * fine, 200 * fine, 3), np.uint8)
    middle = (quad[0] + quad[3]) / 2, (quad[1] + quad[2]) / 2
    upper = np.array([quad[0], quad[1], middle[1], middle[0]])
    cv2.fillPoly(image, [np.round(quad * fine).astype(int)], (90,) * 3)
    cv2.fillPoly(image, [np.round(upper * fine).astype(int)], (220,) * 3)
    image = cv2.resize(image, (200, 200), interpolation=cv2.INTER_AREA)
    crop = level_crop(image, quad, 0.0)
    assert crop.shape == (20, 80, 3)
    assert (abs(crop[2:8, 3:-3].astype(int) - 220) < 12).all()
    assert (abs(crop[12:18, 3:-3].astype(int) - 90) < 12).all()
    assert level_crop(image, quad, 0.5).shape == (40, 100, 3)


def test_reading_order_follows_the_slope():
    """Two lines at 30 degrees: their upright boxes overlap, levelled they are two lines of three words."""
    words = [turned_quad(*(np.array([x, y]) @ turn(30)), 40, 14, 30) for y in (0, 24) for x in (0, 50, 100)]
    shuffled = [3, 0, 5, 1, 4, 2]
    quads = np.stack([words[i] for i in shuffled])
    lines = reading_order(levelled_boxes(quads))
    assert [[shuffled[word] for word in line] for line in lines] == [[0, 1, 2], [3, 4, 5]]
    assert levelled_boxes(np.zeros((0, 4, 2))).shape == (0, 4)


def test_one_long_sign_that_runs_down_turns_no_page():
    sign = [(1000, 100), (1000, 700), (940, 700), (940, 100)]
    words = [[(x, 100), (x + 100, 100), (x + 100, 130), (x, 130)] for x in (100, 220)]
    lines = reading_order(levelled_boxes(np.array([*words, sign], float)))
    assert sorted(lines) == [[0, 1], [2]]


def test_a_word_that_runs_down_has_a_margin_of_its_letters():
    quad = np.array([(100, 0), (120, 0), (120, 180), (100, 180)], float)
    assert level_crop(np.zeros((200, 200, 3), np.uint8), quad, 0.1).shape == (188, 28, 3)


def turn(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def test_upside_down_text_is_read_from_its_own_start():
    """Directions near half a turn are alike, on whichever side of it they lie; two words of other directions."""
    places = [(x, y) for y in (300, 200, 100) for x in (310, 240, 170, 100)]
    slopes = [180 + (-1) ** number for number in range(len(places))]
    quads = np.array([turned_quad(*place, 60, 20, slope) for place, slope in zip(places, slopes, strict=True)])
    odd = np.array([turned_quad(700, 150, 60, 20, 0), turned_quad(700, 250, 60, 20, 0)])
    lines = reading_order(levelled_boxes(np.concatenate((quads, odd))))
    order = [word for line in lines for word in line if word < len(places)]
    assert order == list(range(len(places)))


@pytest.mark.parametrize('turns', range(4))
def test_turned_words_come_back(turns):
    """A painted point of a turned image is found again where the rows say it is in the image itself."""
    image = np.zeros((60, 100, 3), np.uint8)
    image[10:20, 30:70] = 255
    view = np.rot90(image, turns)
    ys, xs = np.nonzero(view[..., 0])
    seen = np.array(
        [[xs.min(), ys.min()], [xs.max() + 1, ys.min()], [xs.max() + 1, ys.max() + 1], [xs.min(), ys.max() + 1]]
    )
    back = turned_back(row_of(seen.astype(float))[None], turns, 100, 60)[0]
    assert back[:4].tolist() == [30, 10, 70, 20]
    corners = back[6:].reshape(4, 2)
    assert sorted(map(tuple, corners.tolist())) == [(30, 10), (30, 20), (70, 10), (70, 20)]
    assert corners[0].tolist() == [[30, 10], [70, 10], [70, 20], [30, 20]][turns]  # where reading begins in that turn


@pytest.mark.parametrize('turns', range(4))
def test_turned_coordinates_have_two_digits(turns):
    rows = np.array([[10.1, 20.33, 30.07, 40.59, 0.5, 0, 10.1, 20.33, 30.07, 20.33, 30.07, 40.59, 10.1, 40.59]])
    for value in turned_back(rows, turns, 781, 433)[0].tolist():
        assert value == round(value, 2)


def test_of_two_turns_the_surer_stays():
    image = np.zeros((60, 100, 3), np.uint8)
    image[10:20, 30:70] = 255

    def find(views: list) -> list:
        found = []
        for number, view in enumerate(views):
            ys, xs = np.nonzero(view[..., 0])
            box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], float)
            found.append(np.array([[*box, 0.9 if number == 1 else 0.4, 0]]))
        return found

    rows = detect_turned(image, find, 0.45, 10)
    assert rows.tolist() == [[30, 10, 70, 20, 0.9, 0]]
    empty = detect_turned(image, lambda views: [np.zeros((0, 14)) for _ in views], 0.45, 10)
    assert empty.shape == (0, 14)


def test_words_of_the_turn_with_fewer_count_where_they_are_wide():
    """Upright two words, a high one among them; on their side a wide and a high one."""
    upright = np.array([[0, 0, 40, 10, 0.8, 0], [60, 0, 70, 40, 0.7, 0]], float)
    on_side = np.array([[10, 20, 25, 30, 0.9, 0], [40, 70, 54, 80, 0.5, 0]], float)  # 15 and 14 by 10
    rows = detect_turned(np.zeros((60, 100, 3), np.uint8), lambda _: [upright, on_side], 0.45, 10)
    assert rows[:, 4].tolist() == [0.9, 0.8, 0.7] and rows[0, :4].tolist() == [70, 10, 80, 25]
    on_side[1, 4] = 0.7  # now its words outweigh those of the picture as it is
    rows = detect_turned(np.zeros((60, 100, 3), np.uint8), lambda _: [upright, on_side], 0.45, 10)
    assert rows[:, 4].tolist() == [0.9, 0.8, 0.7] and rows[2, :2].tolist() == [20, 40]


def test_tiles_merge_by_quads():
    """Two leaning lines side by side, each seen by two views: two words, none of them lost to the other's box."""
    words = [turned_quad(150, 140, 160, 18, 40), turned_quad(132, 161, 160, 18, 40)]
    image = np.zeros((300, 300, 3), np.uint8)

    def find(views: list) -> list:
        shifts = [(0, 0), *[(x, y) for y in (0, 50) for x in (0, 50)]]
        assert len(views) == 5
        return [np.stack([row_of(word - shift, 0.9 - 0.1 * n) for n, word in enumerate(words)]) for shift in shifts]

    rows = detect_sliced(image, find, size=250, overlap=0.2, max_det=10)
    assert len(rows) == 2
    np.testing.assert_allclose(corners_of(rows), words, atol=0.01)


def test_files_of_a_network_with_quads(tmp_path):
    torch.manual_seed(0)
    model = DetectionModel(small_cfg(), quads=True)
    for convolution in model.head.quad:
        torch.nn.init.constant_(convolution.bias, 0.2)
    save_checkpoint(tmp_path / 'q.pt', model, model.state_dict(), conf_threshold=0.0)
    image = np.random.default_rng(0).integers(0, 255, (192, 256, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'photo.png'), image)
    flags = ('--weights', tmp_path / 'q.pt', '--source', tmp_path / 'photo.png', '--imgsz', 256, '--device', 'cpu')
    call(
        detect.main,
        'detect.py',
        *flags,
        '--max-det',
        60,
        '--save-json',
        '--save-txt',
        '--save-crop',
        *place(tmp_path / 'run'),
    )
    (entry,) = json.loads((tmp_path / 'run/detections.json').read_text())
    rows = [line.split() for line in (tmp_path / 'run/labels/photo.txt').read_text().splitlines()]
    assert len(entry['detections']) == len(rows) == len(list((tmp_path / 'run/crops').rglob('*.jpg'))) == 60
    for detection, row in zip(entry['detections'], rows, strict=True):
        quad = np.array(detection['quad'])
        assert quad.shape == (4, 2)
        np.testing.assert_allclose(np.array(row[1:], float).reshape(4, 2) * (256, 192), quad, atol=0.01)
    quads, boxes = ([detection[key] for detection in entry['detections']] for key in ('quad', 'box'))
    assert not np.allclose(quads, corners_of(np.array([[*box, 0, 0] for box in boxes])))
    turned = ('--rotate', '--nosave', '--save-json', '--max-det', 60, *place(tmp_path / 'turned'))
    call(detect.main, 'detect.py', *flags, *turned)
    (turned,) = json.loads((tmp_path / 'turned/detections.json').read_text())
    assert len(turned['detections']) > 20
    assert [word['quad'] for word in turned['detections']] != quads


def test_networks_without_quads_give_the_corners_of_boxes(tmp_path):
    torch.manual_seed(0)
    model = DetectionModel(small_cfg())
    save_checkpoint(tmp_path / 'p.pt', model, model.state_dict(), conf_threshold=0.0)
    cv2.imwrite(str(tmp_path / 'photo.png'), np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8))
    flags = ('--weights', tmp_path / 'p.pt', '--source', tmp_path / 'photo.png', '--imgsz', 128, '--device', 'cpu')
    call(
        detect.main,
        'detect.py',
        *flags,
        '--max-det',
        3,
        '--nosave',
        '--save-json',
        '--save-txt',
        *place(tmp_path / 'run'),
    )
    (entry,) = json.loads((tmp_path / 'run/detections.json').read_text())
    for detection in entry['detections']:
        x1, y1, x2, y2 = detection['box']
        assert detection['quad'] == [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
    assert all(len(line.split()) == 5 for line in (tmp_path / 'run/labels/photo.txt').read_text().splitlines())
