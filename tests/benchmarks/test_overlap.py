"""Tests of benchmarks/overlap.py."""

import numpy as np
import pytest

from benchmarks.overlap import OVERLAPS, keep_words
from ocrdistill.nms import QUAD_IOU, select


@pytest.mark.parametrize('overlap', OVERLAPS)
def test_words_are_those_that_a_detector_keeps_at_this_overlap(overlap):
    rng = np.random.default_rng(0)
    decoded = np.zeros((80, 10), np.float32)
    decoded[:, :4] = rng.uniform((0, 0, 8, 8), (60, 60, 40, 30), (80, 4))
    decoded[:, 4], decoded[:, 5] = rng.uniform(0.1, 1, 80), 1
    decoded[:, 6:] = rng.uniform(-0.4, 0.4, (80, 4))
    expected = select(decoded, 1, 0.1, overlap)
    np.testing.assert_array_equal(keep_words(select(decoded, 1, 0.1, 1.0), overlap), expected)
    assert 1 < len(expected) < 80


def test_the_overlap_that_is_used_is_among_those_that_are_shown():
    assert QUAD_IOU in OVERLAPS
