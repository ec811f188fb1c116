"""NMS and scores against values worked out by hand."""

import pytest
import torch

from ocrdistill.rows import corners_of
from utils.boxes import non_max_suppression
from utils.evaluation.evaluate import ImageResult, _judged
from utils.evaluation.metrics import DetectionMetrics


def test_the_most_confident_candidates_enter_nms(monkeypatch):
    monkeypatch.setattr('utils.boxes.MAX_CANDIDATES', 2)
    decoded = torch.tensor([[[10.0, 10, 4, 4, 0.9, 1], [50, 50, 4, 4, 0.5, 1], [90, 90, 4, 4, 0.7, 1]]])
    assert non_max_suppression(decoded)[0][:, 4].tolist() == pytest.approx([0.9, 0.7])


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
