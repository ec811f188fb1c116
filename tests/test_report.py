"""Small figures around a run."""

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from utils.report import anchor_recall

LABELS = [np.array([[0, 0.5, 0.5, 0.1, 0.2], [0, 0.5, 0.5, 0.001, 0.9]], np.float32)]
SHAPES = np.array([[1280, 640]])


def test_anchor_recall_by_hand():
    """At 640 the boxes are 64 x 64 and 0.64 x 288 pixels; 20 x 30 is within a factor of 4 of the first alone."""
    anchors = torch.tensor([[[20.0, 30.0]]])
    assert anchor_recall(LABELS, SHAPES, anchors, 640, 4.0) == pytest.approx(0.5)
    assert anchor_recall([np.zeros((0, 5), np.float32)], SHAPES, anchors, 640, 4.0) == 1.0


def test_anchor_recall_takes_a_gpus_anchors():
    """On a GPU the head's anchors live there and the labels do not; a fake device shows a mix-up without a GPU."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        anchors = torch.ones(3, 3, 2, device='cuda')
        with pytest.raises(Exception, match='_local_scalar_dense') as error:  # a fake tensor has no value to read
            anchor_recall(LABELS, SHAPES, anchors, 640, 4.0)
    assert 'two devices' not in str(error.value)
