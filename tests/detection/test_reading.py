"""Reading order: lines top to bottom, words left to right, columns one after the other."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdistill.reading_order import reading_order


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


def two_columns(right: float = 0, first: int = 0, pitch: float = 30) -> tuple[np.ndarray, list[list[int]]]:
    """Lines of two words in two columns: six on the left, the others `right` pixels lower, from number `first` on."""
    left = [(x, pitch * row, x + 90, pitch * row + 20) for row in range(6) for x in (0, 100)]
    other = [(x, y, x + 90, y + 20) for row in range(first, 6) for y in [pitch * row + right] for x in (290, 390)]
    boxes = np.array(left + other, float)
    return boxes, [[word, word + 1] for word in range(0, len(boxes), 2)]


@pytest.mark.parametrize('right', [0, 3, 8, 11, 15, 19, 24, 27])
@pytest.mark.parametrize('first', [0, 1, 2])
def test_columns_whose_lines_are_not_level_with_each_other(right, first):
    boxes, lines = two_columns(right, first)
    assert reading_order(boxes) == lines


@pytest.mark.parametrize('tall', [(-40, 70, -15, 170), (-40, 25, -15, 125), (490, 40, 515, 160), (0, -45, 170, -13)])
def test_a_tall_word_in_one_column_leaves_the_columns_whole(tall):
    """In the margin of either, or a heading of one of them."""
    boxes, lines = two_columns()
    found = [line for line in reading_order(np.concatenate((boxes, [tall]))) if line != [24]]
    assert found == lines


def test_a_wide_gap_in_a_single_line_is_no_gutter():
    assert reading_order(text([[0, 40, 200], [0, 40, 80, 120]])) == [[0, 1, 2], [3, 4, 5, 6]]


def test_a_large_word_beside_small_lines_is_a_line_of_its_own():
    """40 high, next to two lines of words 10 high: over three times as high, so on neither line."""
    boxes = [(0, 0, 100, 40), (110, 5, 150, 15), (110, 25, 150, 35)]
    assert reading_order(boxes) == [[0], [1], [2]]


def test_higher_words_of_a_line_do_not_break_it():
    assert reading_order([(40, 4, 80, 14), (0, 0, 30, 24)]) == [[1, 0]]


ROWS_OF_FOUR = [(c * 120, r * 38, c * 120 + 100, r * 38 + 28) for r in range(2) for c in range(4)]


@pytest.mark.parametrize('stray', [(240, 10, 340, 52), (222, 10, 236, 52), (100, 12, 130, 56), (10, 15, 470, 50)])
def test_a_box_across_two_rows_breaks_neither(stray):
    """Over words of both, in the gap between words, or as long as the rows: it stands alone, between them or not."""
    lines = reading_order([*ROWS_OF_FOUR, stray])
    assert [8] in lines
    assert [line for line in lines if line != [8]] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_box_that_is_there_twice_breaks_no_row():
    """The right half of a word, and a lower copy of another: both stay beside the words that they repeat."""
    for stray in ((290, 0, 340, 28), (245, 8, 335, 33)):
        lines = reading_order([*ROWS_OF_FOUR, stray])
        whole = [[word for word in line if word != 8] for line in lines]
        assert [line for line in whole if line] == [[0, 1, 2, 3], [4, 5, 6, 7]], stray


def test_equal_boxes_keep_their_order():
    """So that detections.json, read again, is in reading order."""
    boxes = np.array([*ROWS_OF_FOUR, *[(100, 12, 130, 56)] * 3])
    order = [word for line in reading_order(boxes) for word in line]
    assert [word for line in reading_order(boxes[order]) for word in line] == list(range(11))


def build_page(rng, degrees: float, columns: int, strays: int) -> tuple[np.ndarray, list[list[int]]]:
    """Upright boxes of a turned page of words of any length, strays across two rows last, and its lines in order."""
    spacing, rows, words, lines = rng.uniform(38, 52), rng.integers(6, 14), [], []
    for column in range(columns):
        for row in range(rows):
            x, end, line = column * 900.0, column * 900 + rng.uniform(350, 540), []
            while x < end:
                width = rng.uniform(25, 180)
                line.append(len(words))
                words.append((x, row * spacing + rng.uniform(-2, 2), width, 28 * rng.uniform(0.8, 1.1)))
                x += width + rng.uniform(7, 16)
            lines.append(line)
    for _ in range(strays):
        top = (rng.integers(0, 5) + rng.uniform(0.15, 0.3)) * spacing
        words.append((rng.uniform(0, 400), top, rng.uniform(40, 150), spacing * rng.uniform(0.9, 1.2)))
    x, y, width, height = np.array(words).T
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    centre = np.stack((x + width / 2, y + height / 2), 1) @ np.array([[cos, sin], [-sin, cos]])
    half = np.stack((width * cos + height * abs(sin), width * abs(sin) + height * cos), 1) / 2
    return np.concatenate((centre - half, centre + half), 1), lines


@pytest.mark.parametrize('degrees', [0, 3, -5, 8])
@pytest.mark.parametrize(('columns', 'strays'), [(1, 0), (1, 3), (2, 0)])
def test_pages_with_tilt_columns_and_strays(degrees, columns, strays):
    rng = np.random.default_rng(3)
    for _ in range(8):
        boxes, lines = build_page(rng, degrees, columns, strays)
        words = sum(map(len, lines))
        found = [[word for word in line if word < words] for line in reading_order(boxes)]
        assert [line for line in found if line] == lines


def test_a_few_words_of_different_tilt_are_not_levelled():
    """Two signs: one climbs, one falls. Each stays one line."""
    x = np.arange(4) * 40.0
    signs = [
        np.stack((x, top + slope * x, x + 32, top + slope * x + 12), 1) for top, slope in ((30, -0.12), (80, 0.12))
    ]
    assert reading_order(np.concatenate(signs)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_page_of_three_thousand_words_takes_seconds():
    boxes = [(60 * c, 38 * r, 60 * c + 50, 38 * r + 28) for r in range(150) for c in range(20)]
    start = time.process_time()
    assert reading_order(boxes) == [list(range(20 * r, 20 * r + 20)) for r in range(150)]
    assert time.process_time() - start < 20


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
