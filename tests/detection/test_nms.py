"""Non-maximum suppression within classes, by hand."""

import torch

from utils.boxes import class_nms


def test_suppression_stays_within_a_class():
    """Two boxes with an overlap of .8 and one apart, then the same of another class: the weaker of each pair goes."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60]]).repeat(2, 1)
    confidence, category = torch.tensor([0.5, 0.9, 0.3, 0.8, 0.7, 0.2]), torch.tensor([0, 0, 0, 1, 1, 1])
    assert class_nms(boxes, confidence, category, 0.5).tolist() == [1, 3, 2, 5]
    assert class_nms(boxes[:0], confidence[:0], category[:0], 0.5).tolist() == []
