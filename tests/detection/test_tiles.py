"""Tiles of large pictures, and one list of boxes from what several views found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.slices import build_image, recall_and_precision
from ocrdistill.tiles import View, detect_sliced, make_views, merge_views
from tests.support import ROOT
from utils.detection.detector import Detector

WHOLE = View(0, 0, 1000, 500)
LEFT, RIGHT = View(0, 0, 600, 500), View(400, 0, 1000, 500)


def rows(*boxes) -> np.ndarray:
    return np.array(boxes, float).reshape(-1, 6)


def test_a_small_picture_is_one_view():
    assert make_views(640, 480, 640, 0.2) == [View(0, 0, 640, 480)]


def test_views_of_a_large_picture():
    """1000 x 500 in tiles of 600: the first ends at 600, the last begins at 400; no taller than the picture."""
    assert make_views(1000, 500, 600, 0.2) == [WHOLE, LEFT, RIGHT]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 3000), st.integers(64, 1500), st.sampled_from([0, 0.1, 0.2, 0.5, 0.9]))
def test_tiles_cover_the_picture_and_overlap(width, height, size, overlap):
    whole, *tiles = make_views(width, height, size, overlap)
    assert whole == (0, 0, width, height)
    assert bool(tiles) == (max(width, height) > size)
    for low, high, length in ((0, 2, width), (1, 3, height)):
        spans = sorted({(tile[low], tile[high]) for tile in tiles})
        if not spans:
            continue
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert {end - start for start, end in spans} == {min(size, length)}
        for (_, end), (start, _) in zip(spans, spans[1:], strict=False):
            assert end - start >= overlap * size - 1


def test_one_word_in_all_views_is_one_box():
    """The best score stays, with its own box."""
    found = [rows((450, 10, 550, 40, 0.5, 0)), rows((451, 11, 551, 41, 0.9, 0)), rows((449, 10, 549, 39, 0.7, 0))]
    np.testing.assert_array_equal(merge_views(found, [WHOLE, LEFT, RIGHT]), rows((451, 11, 551, 41, 0.9, 0)))


def test_a_whole_word_replaces_its_cut_part_whatever_the_scores():
    """The left tile ends at 600, the right one has the word whole."""
    found = [rows(), rows((560, 10, 599, 40, 0.95, 0)), rows((560, 10, 700, 40, 0.4, 0))]
    np.testing.assert_array_equal(merge_views(found, [WHOLE, LEFT, RIGHT]), rows((560, 10, 700, 40, 0.4, 0)))


def test_parts_of_a_word_longer_than_a_tile_are_joined():
    found = [rows(), rows((100, 10, 600, 60, 0.6, 0)), rows((400, 12, 900, 62, 0.8, 0))]
    np.testing.assert_array_equal(merge_views(found, [WHOLE, LEFT, RIGHT]), rows((100, 10, 900, 62, 0.8, 0)))


def test_neighbours_classes_and_overlaps_of_one_view_stay():
    """Two words side by side; two classes at one place; and NMS has judged what one view found."""
    left = rows((410, 10, 450, 40, 0.9, 0), (455, 10, 500, 40, 0.8, 0), (410, 100, 450, 140, 0.7, 0))
    right = rows((411, 100, 451, 140, 0.6, 1), (410, 200, 500, 240, 0.5, 0), (415, 205, 480, 235, 0.4, 0))
    merged = merge_views([rows(), left, right], [WHOLE, LEFT, RIGHT])
    np.testing.assert_array_equal(merged, np.concatenate((left, right)))


@pytest.mark.parametrize('max_det', [1, 2, 300])
def test_boxes_come_back_in_the_picture_and_max_det_holds(max_det):
    """A stand-in detector finds each view's top left corner."""
    image = np.zeros((500, 1000, 3), np.uint8)
    calls = []

    def find(images):
        calls.append([view.shape for view in images])
        return [rows((5, 5, 25, 15, 0.9 - 0.1 * number, 0)) for number in range(len(images))]

    found = detect_sliced(image, find, 600, 0.2, max_det)
    assert calls == [[(500, 1000, 3), (500, 600, 3), (500, 600, 3)]]
    np.testing.assert_allclose(found, rows((5, 5, 25, 15, 0.9, 0), (405, 5, 425, 15, 0.7, 0))[:max_det])


def test_small_words_of_a_large_picture_are_found():
    image, truth = build_image()
    assert image.shape == (6 * 384, 6 * 640, 3) and len(truth) > 100
    detector = Detector(str(ROOT / 'teacher/demo/yolov5n.pt'), device='cpu')
    recall, _ = recall_and_precision(detector(image), truth)
    sliced_recall, sliced_precision = recall_and_precision(detect_sliced(image, detector.find, 640, 0.2, 1000), truth)
    assert sliced_recall > recall + 0.5
    assert sliced_precision > 0.5


def test_views_go_through_the_network_a_few_at_a_time(monkeypatch):
    image = np.arange(200 * 300 * 3, dtype=np.uint32).astype(np.uint8).reshape(200, 300, 3)
    seen = []

    def find(tiles):
        seen.append(len(tiles))
        return [np.array([[1, 1, 20, 9, tile[0, 0, 0] / 256, 0.0]]) for tile in tiles]

    whole = detect_sliced(image, find, 64, 0.2, 100)
    (views,) = seen
    monkeypatch.setattr('ocrdistill.tiles.AT_ONCE', 7)
    assert np.array_equal(detect_sliced(image, find, 64, 0.2, 100), whole)
    assert sum(seen[1:]) == views and max(seen[1:]) == 7


@pytest.mark.parametrize('columns', [6, 14])
def test_tiles_without_a_word(columns):
    """Neither rows of boxes nor rows of quads need be there."""
    image = np.zeros((90, 200, 3), np.uint8)
    found = detect_sliced(image, lambda tiles: [np.zeros((0, columns)) for _ in tiles], 64, 0.2, 10)
    assert len(found) == 0


def test_quads_of_parts_are_joined():
    def row(x1: int, x2: int, score: float) -> list[float]:
        return [x1, 10, x2, 60, score, 0, x1, 10, x2, 10, x2, 60, x1, 60]

    found = [np.zeros((0, 14)), np.array([row(100, 600, 0.6)]), np.array([row(400, 900, 0.8)])]
    np.testing.assert_allclose(merge_views(found, [WHOLE, LEFT, RIGHT]), [row(100, 900, 0.8)], atol=1e-6)


def test_quads_of_leaning_parts_stay_in_the_picture():
    whole, left, right = View(0, 0, 1100, 400), View(0, 0, 600, 400), View(500, 0, 1100, 400)
    quads = [[0, 300, 600, 360, 600, 400, 0, 340], [500, 350, 1100, 400, 1100, 400, 500, 390]]
    boxes = [[0, 300, 600, 400, 0.6, 0], [500, 350, 1100, 400, 0.8, 0]]
    parts = [np.array([box + quad], float) for box, quad in zip(boxes, quads, strict=True)]
    (merged,) = merge_views([np.zeros((0, 14)), *parts], [whole, left, right])
    corners = merged[6:].reshape(4, 2)
    assert (corners >= 0).all() and (corners <= (1100, 400)).all() and np.ptp(corners[:, 0]) > 1000
    np.testing.assert_array_equal(merged[:4], (*corners.min(0), *corners.max(0)))
    np.testing.assert_array_equal(merged, merged.round(2))
