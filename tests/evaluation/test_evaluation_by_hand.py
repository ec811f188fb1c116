"""NMS and scores against values worked out by hand."""

import numpy as np
import pytest
import torch

from ocrdistill.nms import select
from ocrdistill.rows import corners_of
from utils.boxes import non_max_suppression
from utils.evaluation.evaluate import ImageResult, _judged
from utils.evaluation.metrics import DetectionMetrics


def test_the_most_confident_candidates_enter_nms(monkeypatch):
    monkeypatch.setattr('utils.boxes.MAX_CANDIDATES', 2)
    decoded = torch.tensor([[[10.0, 10, 4, 4, 0.9, 1], [50, 50, 4, 4, 0.5, 1], [90, 90, 4, 4, 0.7, 1]]])
    assert non_max_suppression(decoded)[0][:, 4].tolist() == pytest.approx([0.9, 0.7])


def test_the_best_boxes_are_kept():
    decoded = torch.tensor([[[10.0, 10, 4, 4, 0.7, 1], [50, 50, 4, 4, 0.9, 1], [90, 90, 4, 4, 0.8, 1]]])
    assert non_max_suppression(decoded, max_det=2)[0][:, 4].tolist() == pytest.approx([0.9, 0.8])


def test_one_box_is_one_word_however_its_quads_lie():
    """Two words of one box that lean in opposite ways share little more than its middle."""
    leaning = [[50.0, 50, 60, 40, 0.9, 1, 0.9, 0.9, -0.1, -0.1], [50, 50, 60, 40, 0.8, 1, -0.9, -0.9, 0.1, 0.1]]
    apart = [[50.0, 50, 60, 40, 0.9, 1, 0.9, 0.9, -0.1, -0.1], [66, 50, 60, 40, 0.8, 1, -0.9, -0.9, 0.1, 0.1]]
    for rows, count in ((leaning, 1), (apart, 2)):
        decoded = np.array(rows, np.float32)
        assert len(select(decoded, 1, 0.25, 0.3)) == count
        found = non_max_suppression(torch.from_numpy(decoded)[None], 0.25, 0.3, nc=1, by_quads=True)
        assert len(found[0]) == count


def test_every_class_over_the_threshold_gives_a_box():
    decoded = torch.tensor([[[10.0, 10, 4, 4, 0.5, 0.8, 0.6]]])
    assert non_max_suppression(decoded, 0.25, multi_label=True)[0][:, 4:].tolist() == [
        pytest.approx([0.4, 0]),
        pytest.approx([0.3, 1]),
    ]


def test_dont_care_counts_neither_way_for_boxes_and_quads():
    found = torch.tensor([[100.0, 100, 110, 110, 0.9, 0], [0, 0, 10, 10, 0.8, 0]])
    labels, ignore = torch.tensor([[0, 0, 0, 10, 10.0]]), torch.tensor([[99.0, 99, 111, 111]])
    quads = torch.from_numpy(corners_of(found.numpy()[:, :6]))
    image = ImageResult('a.jpg', (200, 200), found, found, labels, ignore, quads, quads, quads[1:])
    scores = _judged([image], 1)[0]
    assert scores['map50'] == pytest.approx(0.995) and scores['quad_map50'] == pytest.approx(0.995)


def test_the_best_f1_is_that_of_the_smoothed_curve():
    metrics = DetectionMetrics(1)
    found = torch.tensor([[0.0, 0, 9, 9, 0.6, 0], [50, 50, 59, 59, 0.599, 0]])
    metrics.update(found, torch.tensor([[0, 0, 0, 9, 9.0]]))
    assert metrics.compute()['best_f1_conf'] < 0.56  # a peak that is narrower than the window does not count
