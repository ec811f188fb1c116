"""Reading order: lines top to bottom, words left to right, columns one after the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.detection.reading_order import reading_order


def text(lines: list[list[int]]) -> np.ndarray:
    """Boxes of words 10 high on lines 20 apart; each line is a list of x1, words are 30 wide."""
    return np.array([(x, 20 * row, x + 30, 20 * row + 10) for row, line in enumerate(lines) for x in line], float)


def test_nothing_and_one_word():
    assert reading_order(np.zeros((0, 4))) == []
    assert reading_order([(5, 5, 20, 10)]) == [[0]]


def test_lines_from_top_to_bottom_and_words_from_left_to_right():
    #                words 2 and 0 on the first line, 4, 3, 1 on the second
    boxes = [(50, 2, 80, 12), (90, 21, 120, 31), (10, 0, 40, 10), (50, 19, 80, 29), (10, 20, 40, 30)]
    assert reading_order(boxes) == [[2, 0], [4, 3, 1]]


@pytest.mark.parametrize('slope', [-0.12, -0.05, 0.05, 0.12])
def test_tilted_lines(slope):
    """Words 12 high; over a line of eight words (280 long) it climbs or falls by up to three times their height."""
    x = np.arange(8) * 40.0
    lines = [np.stack((x, top + slope * x, x + 32, top + slope * x + 12), 1) for top in (0, 20, 40)]
    order = np.random.default_rng(0).permutation(24)
    found = reading_order(np.concatenate(lines)[order])
    assert [order[line].tolist() for line in found] == [list(range(8 * k, 8 * k + 8)) for k in range(3)]


def test_columns_are_read_one_after_the_other():
    """Two columns with a gutter of eight line heights; the heading over both of them comes first."""
    body = text([[0, 40, 150, 190]] * 3) + (0, 40, 0, 40)
    boxes = np.concatenate(([(0, 0, 220, 20)], body))
    assert reading_order(boxes) == [[0], [1, 2], [5, 6], [9, 10], [3, 4], [7, 8], [11, 12]]


def test_a_wide_gap_in_a_single_line_is_no_gutter():
    assert reading_order(text([[0, 40, 200], [0, 40, 80, 120]])) == [[0, 1, 2], [3, 4, 5, 6]]


def test_a_large_word_beside_small_lines_is_a_line_of_its_own():
    """40 high, next to two lines of words 10 high: over three times as high, so on neither line."""
    boxes = [(0, 0, 100, 40), (110, 5, 150, 15), (110, 25, 150, 35)]
    assert reading_order(boxes) == [[0], [1], [2]]


def test_higher_words_of_a_line_do_not_break_it():
    assert reading_order([(40, 4, 80, 14), (0, 0, 30, 24)]) == [[1, 0]]


whole = st.integers(0, 60)
box = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), whole, whole, st.integers(1, 40), st.integers(1, 20))


@settings(max_examples=300, deadline=None)
@given(st.lists(box, max_size=14, unique=True), st.randoms(use_true_random=False))
def test_every_word_once_whatever_the_order_unit_and_origin(boxes, random):
    boxes = np.array(boxes, float).reshape(-1, 4)
    lines = reading_order(boxes)
    assert sorted(word for line in lines for word in line) == list(range(len(boxes)))
    centre = boxes[:, [0, 2]].mean(1)
    assert all((np.diff(centre[line]) > 0).all() for line in lines)

    shuffled = random.sample(range(len(boxes)), len(boxes))
    other = reading_order(boxes[shuffled] * 4 + (64, 32, 64, 32))  # powers of two: nothing is rounded
    assert [[shuffled[word] for word in line] for line in other] == lines
