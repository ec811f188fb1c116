"""benchmarks/reading.py: the protocol of reading words end to end, by values that were computed by hand."""

import numpy as np
import pytest

from benchmarks.reading import Counts, Reading, count, says_the_same, split_by_spaces


def box(x1: int, y1: int, x2: int, y2: int) -> list[tuple[int, int]]:
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


@pytest.mark.parametrize(
    ('truth', 'read', 'same'),
    [
        ('Exit', 'EXIT', True),
        ('Exit', 'Exlt', False),
        ('"Exit"', 'exit', True),
        ('"Exit"', '"exit', True),
        ('Exit', 'exit!', False),  # a sign that was read and is not there
        ("don't", 'dont', False),  # inside a word signs count
        ('(2)', '2', True),
        ('((2)', '2', False),  # one at each end
        ('!', '', True),
        ('', '', True),
    ],
)
def test_what_says_the_same(truth, read, same):
    assert says_the_same(truth, read) is same


def test_a_picture_by_hand():
    """Four words, one of them '###'. Read: one right, one with another text, one on the don't-care word, one nowhere,
    and one that overlaps its word with IoU 0.4."""
    quads = np.array([box(0, 0, 100, 20), box(0, 50, 100, 70), box(0, 100, 100, 120), box(0, 150, 100, 170)])
    words = ['Hello', 'World', '###', 'Third']
    found = [
        box(0, 0, 100, 20),
        box(0, 50, 100, 70),
        box(0, 100, 60, 120),
        box(300, 300, 400, 320),
        box(0, 150, 40, 170),
    ]
    reading = Reading(np.array(found, float), ['hello', 'word', 'x', 'y', 'third'], np.array([0.9, 0.8, 0.7, 0.6, 0.5]))
    assert count(reading, quads, words) == Counts(correct=1, read=4, words=3)
    scores = Counts(1, 4, 3).scores()
    assert scores == pytest.approx({'precision': 1 / 4, 'recall': 1 / 3, 'hmean': 2 / 7})


def test_a_word_is_the_surest_readings():
    """Two readings of one word: the surer one takes it, whatever it says."""
    quads, words = np.array([box(0, 0, 100, 20)]), ['Hello']
    reading = Reading(np.array([box(0, 0, 100, 20)] * 2, float), ['hello', 'yellow'], np.array([0.5, 0.9]))
    assert count(reading, quads, words) == Counts(correct=0, read=2, words=1)


def test_nothing_read_and_nothing_there():
    nothing = Reading(np.zeros((0, 4, 2)), [], np.zeros(0))
    assert count(nothing, np.zeros((0, 4, 2), int), []) == Counts(0, 0, 0)
    assert Counts(0, 0, 0).scores() == {'precision': 0.0, 'recall': 0.0, 'hmean': 0.0}
    assert Counts(1, 2, 3) + Counts(4, 5, 6) == Counts(5, 7, 9)


def test_lines_are_cut_at_spaces():
    """'AB CDE': six letters, the words take 2/6 and 3/6 of the line, from 0 and from 3/6."""
    cut = split_by_spaces(Reading(np.array([box(0, 0, 60, 10)], float), ['AB CDE'], np.array([0.7])))
    assert cut.texts == ['AB', 'CDE'] and cut.scores.tolist() == [0.7, 0.7]
    np.testing.assert_allclose(cut.quads, [box(0, 0, 20, 10), box(30, 0, 60, 10)])
    empty = split_by_spaces(Reading(np.zeros((0, 4, 2)), [], np.zeros(0)))
    assert empty.texts == [] and empty.quads.shape == (0, 4, 2)
