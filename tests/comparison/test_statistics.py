"""hmean of counts, and its difference between two detectors with the bootstrap's interval."""

import numpy as np
import pytest

from utils.comparison.statistics import hmean, hmean_difference


def test_hmean_by_hand():
    # Precision 3/4, recall 3/6: 2 * .375 / 1.25 = .6
    assert hmean(np.array([3, 4, 6])) == pytest.approx(0.6)
    assert hmean(np.zeros((2, 3))).tolist() == [0, 0]


def test_no_difference_has_no_interval():
    counts = np.random.default_rng(0).integers(1, 9, (40, 3))
    assert hmean_difference(counts, counts)[:3] == (0, 0, 0)


def test_two_pictures_by_hand():
    """Of two pictures 1/4 of the draws are twice the first, 1/4 twice the second, 1/2 both."""
    ours, first = np.array([[2, 2, 2], [1, 2, 2]]), np.array([[2, 2, 2], [2, 2, 2]])
    found = hmean_difference(ours, first)
    assert found.mean == pytest.approx(-0.25) and found.pairs == 2
    assert (found.low, found.high) == (pytest.approx(-0.5), pytest.approx(0))


def test_the_interval_is_that_of_the_normal_approximation():
    """Many pictures with one word and one detection each: the difference is that of two means of a coin."""
    rng = np.random.default_rng(1)
    ours, first = (np.stack((rng.random(2000) < p, *np.ones((2, 2000))), 1) for p in (0.7, 0.6))
    found = hmean_difference(ours, first)
    differences = ours[:, 0] - first[:, 0]
    half = 1.96 * differences.std() / np.sqrt(2000)
    assert found.mean == pytest.approx(differences.mean())
    assert found.low == pytest.approx(found.mean - half, abs=0.002)
    assert found.high == pytest.approx(found.mean + half, abs=0.002)
