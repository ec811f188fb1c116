"""Several sizes: scores by hand, and the same words from TextDetector and detect.py."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdistill import TextDetector, UserError
from ocrdistill.detector import network_file
from ocrdistill.multiscale import OF_LARGE, OF_SMALL, rescored
from tests.support import ROOT, run_script

pytest.importorskip('onnx', reason='onnx is missing: pip install -r requirements-export.txt')
pytest.importorskip('onnxruntime', reason='onnxruntime is missing')
from tests.ocrdistill_runtime.networks import write_network  # noqa: E402

WEIGHTS = list(zip(OF_SMALL, OF_LARGE, strict=True))


def word(x, score, height=20, category=0):
    """A row of a level word, 60 pixels wide."""
    corners = [x, 0, x + 60, 0, x + 60, height, x, height]
    return [x, 0, x + 60, height, score, category, *corners]


def rows(*words):
    return np.array(words, float).reshape(-1, 14)


def test_scores_are_weighted_means():
    looks = rows(word(0, 0.5), word(100, 0.8)), rows(word(100, 0.6), word(1, 0.4)), rows(word(0, 0.3))
    found = rescored(looks, 1.0)
    small = [0.5, 0.4, 0.3] @ OF_SMALL, [0.8, 0.6, 0] @ OF_SMALL
    assert found[:, 4].tolist() == pytest.approx(small, abs=1e-5)
    keep = [0, 1, 2, 3, *range(5, 14)]
    assert (found[:, keep] == looks[0][:, keep]).all() and looks[0][0, 4] == 0.5  # in place of nothing


@pytest.mark.parametrize('height, share', [(10, 0), (24, 0), (64, 1), (200, 1), ((24 * 64) ** 0.5, 0.5)])
def test_weights_go_by_the_height_at_full_size(height, share):
    look = rows(word(0, 0.5, height / 2))
    weights = (1 - share) * OF_SMALL + share * OF_LARGE
    (score,) = rescored((look, rows(), look), 2.0)[:, 4]
    assert score == pytest.approx(0.5 * (weights[0] + weights[2]), abs=1e-5)


def test_only_the_same_word_of_the_same_class_counts():
    first = rows(word(0, 0.5), word(200, 0.5), word(400, 0.5))
    others = rows(word(0, 0.9, category=1), word(221, 0.9), word(419, 0.9))  # IoU of the last two: .481 and .519
    scores = rescored((first, others, rows()), 1.0)[:, 4]
    alone, both = 0.5 * OF_SMALL[0], 0.5 * OF_SMALL[0] + 0.9 * OF_SMALL[1]
    assert scores.tolist() == pytest.approx([alone, alone, both], abs=1e-5)


scored = st.lists(st.tuples(st.integers(0, 9), st.floats(0.1, 1), st.floats(4, 100)), max_size=6)


@settings(deadline=None)
@given(st.tuples(scored, scored, scored), st.floats(0.1, 4))
def test_scores_stay_scores_and_no_word_comes_or_goes(words, scale):
    looks = [rows(*[word(80 * place, score, height) for place, score, height in look]) for look in words]
    found = rescored(looks, scale)
    assert found.shape == looks[0].shape
    assert ((found[:, 4] > 0) & (found[:, 4] <= 1)).all()
    best = sum(max((row[4] for row in look), default=0) * max(pair) for look, pair in zip(looks, WEIGHTS, strict=True))
    assert (found[:, 4] <= best + 1e-5).all()


def test_a_word_seen_at_one_size_only_goes(tmp_path):
    """The network finds a word at one place of its input, whatever the size: at three places of the image."""
    network = write_network(tmp_path / 'one.onnx', [[116, 60, 40, 20, 0.6, 1, 0, 0, 0, 0]])
    white = np.full((360, 640, 3), 255, np.uint8)
    one = TextDetector(network, size=640, threshold=0.3)(white)
    assert [w.score for w in one] == pytest.approx([0.6])
    (found,) = TextDetector(network, size=640, threshold=0.3, multiscale=True)(white)
    assert found.score == pytest.approx(0.6 * OF_SMALL[0], abs=1e-4)
    assert (found.quad == one[0].quad).all()
    assert not TextDetector(network, size=640, threshold=0.4, multiscale=True)(white)


def test_words_are_counted_by_their_final_scores(tmp_path):
    """The surest word at the full size is seen there only: the other one stays."""
    network = write_network(tmp_path / 'one.onnx', [[116, 60, 40, 20, 0.6, 1, 0, 0, 0, 0]])
    detector = TextDetector(network, size=640, threshold=0.3, multiscale=True, max_words=1)
    both, one = rows(word(200, 0.6), word(0, 0.5)), rows(word(0, 0.5))
    for look, words in zip(detector._find.func.__self__.looks, (both, one, one), strict=True):
        assert look.max_det > 1
        look.find = lambda images, batch_size=1, words=words: [words]
    (found,) = detector(np.full((360, 640, 3), 255, np.uint8))
    assert found.score == pytest.approx(0.5 * OF_SMALL.sum(), abs=1e-4)


@pytest.mark.parametrize('threshold', [0.01, 0.2])
def test_the_threshold_changes_no_score(tmp_path, threshold):
    network = write_network(tmp_path / 'one.onnx', [[116, 60, 40, 20, 0.6, 1, 0, 0, 0, 0]])
    detector = TextDetector(network, size=640, threshold=threshold, multiscale=True)
    (found,) = detector(np.full((360, 640, 3), 255, np.uint8))
    assert found.score == pytest.approx(0.6 * OF_SMALL[0], abs=1e-4)


def test_a_network_for_one_size_is_refused(tmp_path):
    network = write_network(tmp_path / 'one.onnx', [[116, 60, 40, 20, 0.6, 1, 0, 0, 0, 0]], dynamic=False)
    with pytest.raises(UserError, match='--dynamic'):
        TextDetector(network, multiscale=True)


def test_sliced_and_turned_too(tmp_path):
    network = write_network(tmp_path / 'one.onnx', [[116, 60, 40, 20, 0.9, 1, 0, 0, 0, 0]])
    white = np.full((360, 640, 3), 255, np.uint8)
    found = TextDetector(network, size=640, threshold=0.3, multiscale=True, rotate=True, slice=320)(white)
    assert len(found) > len(TextDetector(network, size=640, threshold=0.3, multiscale=True)(white)) > 0


def test_detect_finds_the_same(tmp_path):
    source = ROOT / 'examples/web/example.jpg'
    network = network_file('n')
    flags = ('--weights', network, '--source', source, '--imgsz', 640, '--multiscale', '--save-json', '--nosave')
    run_script('detect.py', *flags, '--project', tmp_path)
    found = json.loads((tmp_path / 'exp/detections.json').read_text())[0]['detections']
    words = TextDetector(network, size=640, multiscale=True)(source)
    assert np.allclose([word['score'] for word in found], [word.score for word in words], atol=1e-4) and words
    assert np.allclose([word['quad'] for word in found], [word.quad for word in words], atol=0.02)
