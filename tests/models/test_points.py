"""Thresholds and word scales by image size: which is taken, and that they survive files."""

import pytest

from models.checkpoint import read_checkpoint, restore, save_checkpoint
from models.errors import UserError
from models.exported import load_detector, long_side
from models.yolo import DetectionModel
from ocrdistill.points import Point, from_plain, middle, nearest, to_plain
from tests.support import small_cfg
from utils.detection.detector import Detector

POINTS = {640: Point(0.3, (0.9, 0.7)), 1280: Point(0.4)}


@pytest.mark.parametrize('imgsz, size', [(32, 640), (640, 640), (896, 640), (928, 1280), (1280, 1280), (4096, 1280)])
def test_the_size_of_the_nearest_ratio_is_taken(imgsz: int, size: int):
    """Between 640 and 1280 the border is at their geometric mean, 905."""
    assert nearest(POINTS, imgsz, Point(0.1)) == POINTS[size]


def test_without_points_the_default_is_taken():
    assert nearest({}, 640, Point(0.1)) == Point(0.1)


def test_points_survive_a_file(tmp_path):
    assert from_plain(to_plain(POINTS)) == POINTS and from_plain(None) == {}
    model = DetectionModel(small_cfg())
    save_checkpoint(tmp_path / 'a.pt', model, model.state_dict(), conf_threshold=0.2, points=to_plain(POINTS))
    restored = restore(read_checkpoint(tmp_path / 'a.pt'))
    assert restored.points == POINTS and restored.point_at(1280) == Point(0.4)
    save_checkpoint(tmp_path / 'b.pt', model, model.state_dict(), conf_threshold=0.2)
    assert restore(read_checkpoint(tmp_path / 'b.pt')).point_at(1280) == Point(0.2)


@pytest.mark.parametrize(
    'value',
    [
        3,
        'x',
        {'a': {'conf_threshold': 0.1, 'word_scale': None}},
        {'640': {'conf_threshold': 2.0, 'word_scale': None}},
        {'640': {'conf_threshold': 0.1, 'word_scale': [9.0, 9.0]}},
        {'0': {'conf_threshold': 0.1, 'word_scale': None}},
        {'640': {}},
        {'640': 0.3},
    ],
)
def test_what_is_no_points_is_refused_in_a_line(tmp_path, value):
    model = DetectionModel(small_cfg())
    save_checkpoint(tmp_path / 'a.pt', model, model.state_dict(), points=value)
    with pytest.raises(UserError, match='a.pt cannot be used: its points are'):
        read_checkpoint(tmp_path / 'a.pt')


@pytest.mark.parametrize('sizes, size', [([], None), ([640], 640), ([1280, 640], 1280), ([1280, 640, 960], 960)])
def test_the_middle_size(sizes: list[int], size: int | None):
    assert middle(dict.fromkeys(sizes, Point(0.1))) == size


@pytest.mark.parametrize(
    'imgsz, points, usual, detected',
    [
        (96, None, 96, 96),
        (96, to_plain(POINTS), 640, 1280),  # val.py and export.py; detect.py takes the middle of its sizes
        (None, None, 640, 640),
        *((wrong, None, 640, 640) for wrong in (100, 0, -32, 1 << 20, True, '96', [96])),
    ],
)
def test_a_network_is_used_at_the_size_of_its_training(tmp_path, imgsz, points, usual, detected):
    model, file = DetectionModel(small_cfg()), tmp_path / 'a.pt'
    save_checkpoint(file, model, model.state_dict(), options={'imgsz': imgsz}, points=points)
    restored = load_detector(file)
    assert long_side(restored, None) == usual and long_side(restored, 128) == 128
    assert Detector(str(file), device='cpu').imgsz == detected
