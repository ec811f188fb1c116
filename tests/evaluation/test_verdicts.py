"""Verdicts: which words are right, wrong, missed or count neither way; by hand, and as hmean counts them."""

import numpy as np
import torch

from ocrdistill.rows import corners_of
from utils.evaluation.evaluate import ImageResult
from utils.evaluation.icdar import evaluate_image
from utils.evaluation.verdicts import DONT_CARE, MISSED, RIGHT, WRONG, judge_image

LABELS = torch.tensor([[0, 10, 10, 60, 30], [0, 100, 10, 150, 30], [1, 10, 100, 60, 120.0]])
IGNORE = torch.tensor([[200, 10, 260, 40.0]])
WORDS = torch.tensor(
    [
        [11, 10, 60, 31, 0.9, 0],  # the first word
        [10, 10, 60, 30, 0.8, 0],  # the first word again
        [201, 11, 255, 38, 0.7, 0],  # don't-care
        [10, 100, 60, 120, 0.6, 0],  # a word of another class
        [100, 10, 150, 30, 0.2, 0],  # the second word, but not confident
    ]
)


def image(**more) -> ImageResult:
    return ImageResult('img_1.jpg', (200, 300), WORDS, WORDS, LABELS, IGNORE, **more)


def of_kind(verdict, kind: str) -> list[list[float]]:
    """The first corners of the quads of a kind."""
    return [quad[0].tolist() for name, quads, _ in verdict.marks if name == kind for quad in quads]


def test_by_hand():
    verdict = judge_image(image(), 0.5)
    assert of_kind(verdict, RIGHT) == [[11, 10]]
    assert of_kind(verdict, WRONG) == [[10, 10], [10, 100]]  # a word is found once, and by its class
    assert of_kind(verdict, MISSED) == [[100, 10], [10, 100]]
    assert of_kind(verdict, DONT_CARE) == [[201, 11]]
    assert verdict.counts() == {RIGHT: 1, WRONG: 2, MISSED: 2, DONT_CARE: 1}
    assert {category for kind, quads, category in verdict.marks if kind == MISSED and len(quads)} == {0, 1}
    assert judge_image(image(), 0.2).counts()[RIGHT] == 2  # the threshold itself counts


def test_official_words_decide_where_there_are_any():
    truth = corners_of(np.array([[10, 10, 60, 30], [100, 10, 150, 30], [200, 10, 260, 40]])).astype(int)
    dont_care = np.array([False, False, True])
    verdict = judge_image(image(), 0.5, (0.9, 0.8), (truth, dont_care))
    over = image().icdar_quads((0.9, 0.8))[:4]
    matched, counts, words = evaluate_image(over, truth, dont_care)
    counted = {RIGHT: matched.sum(), WRONG: (counts & ~matched).sum(), MISSED: words - matched.sum(), DONT_CARE: 1}
    assert verdict.counts() == counted == {RIGHT: 1, WRONG: 2, MISSED: 1, DONT_CARE: 1}


def test_quads_are_compared_with_quads_and_boxes_with_boxes():
    """A word along the diagonal of its box: the box fits its box, and hardly the word."""
    leaning = torch.tensor([[[10.0, 10], [15, 8], [60, 28], [55, 30]]])
    labels, word = torch.tensor([[0, 10, 8, 60, 30.0]]), torch.tensor([[10, 8, 60, 30, 0.9, 0]])
    boxes = ImageResult('a.jpg', (99, 99), word, word, labels, torch.zeros(0, 4), label_quads=leaning)
    assert judge_image(boxes, 0.5).counts()[RIGHT] == 1
    upright = torch.from_numpy(corners_of(word[:, :4].numpy()))
    for quads, right in ((upright, 0), (leaning, 1)):
        of_quads = ImageResult('a.jpg', (99, 99), word, word, labels, torch.zeros(0, 4), quads, quads, leaning)
        assert judge_image(of_quads, 0.5).counts()[RIGHT] == right


def test_nothing():
    empty = ImageResult('a.jpg', (9, 9), WORDS[:0], WORDS[:0], LABELS[:0], IGNORE[:0])
    assert judge_image(empty, 0.5).counts() == {RIGHT: 0, WRONG: 0, MISSED: 0, DONT_CARE: 0}
