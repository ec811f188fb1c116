"""The ICDAR2015 protocol rule by rule, and against a slow literal version of the official loop."""

import time
import zipfile

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models.errors import UserError
from tests.support import SHARED
from utils.evaluation.icdar import ICDARMetrics, boxes_to_quads, evaluate_image, read_ground_truth, write_submission

shapely = pytest.importorskip('shapely')
GROUND_TRUTH = SHARED / 'icdar2015' / 'Challenge4_Test_Task1_GT.zip'


def quads(*boxes) -> np.ndarray:
    return boxes_to_quads(np.array(boxes, float).reshape(-1, 4))


def match(detections, words, dont_care=None):
    """evaluate_image with plain lists as answers."""
    matched, counts, count = evaluate_image(
        detections, words, np.zeros(len(words), bool) if dont_care is None else dont_care
    )
    return matched.tolist(), counts.tolist(), count


# Files ----------------------------------------------------------------------------------------------------------------


def test_ground_truth_with_bom_crlf_commas_and_dont_care(tmp_path):
    file = tmp_path / 'gt_img_1.txt'
    file.write_bytes(
        '\ufeff377,117,463,117,465,130,378,130,Genaxis, the "Theatre",\u2028x\r\n'
        '493,115,519,115,519,131,493,131,###\r\n\r\n-1,0,5,0,5,5,-1,5,####\r\n1,1,2,1,2,2,1,2,\r\n'.encode()
    )
    words, dont_care = read_ground_truth(file)
    assert words.shape == (4, 4, 2)
    assert words[0].tolist() == [[377, 117], [463, 117], [465, 130], [378, 130]]
    assert words[2, 0].tolist() == [-1, 0]
    assert dont_care.tolist() == [False, True, False, False]


def test_empty_ground_truth(tmp_path):
    file = tmp_path / 'gt_img_1.txt'
    file.write_bytes(b'\xef\xbb\xbf\r\n')
    words, dont_care = read_ground_truth(file)
    assert (words.shape, dont_care.shape, dont_care.dtype) == ((0, 4, 2), (0,), bool)


@pytest.mark.parametrize('row', [b'1,2,3,4,word', b'1,2,3,4,5,6,7,x,word', b'1,2,3,4,5,6,7,8', b'\xff\xfe1'])
def test_broken_ground_truth_names_its_place(tmp_path, row):
    file = tmp_path / 'gt_img_1.txt'
    file.write_bytes(b'1,1,2,1,2,2,1,2,fine\n' + row)
    with pytest.raises(UserError, match=r'gt_img_1\.txt'):
        read_ground_truth(file)
    with pytest.raises(UserError, match='missing'):
        read_ground_truth(tmp_path / 'missing.txt')


def test_boxes_become_rounded_clockwise_quads():
    expected = [[[10, 20], [31, 20], [31, 41], [10, 41]]]
    assert boxes_to_quads(np.array([[10.4, 19.6, 30.6, 41.2]], np.float32)).tolist() == expected
    assert boxes_to_quads(np.zeros((0, 4))).shape == (0, 4, 2)
    assert np.issubdtype(boxes_to_quads(np.ones((1, 4))).dtype, np.integer)


def test_words_are_scaled_about_their_centres():
    box = np.array([[10, 20, 50, 40]])  # centre (30, 30), 40 x 20
    assert boxes_to_quads(box, (0.5, 0.8)).tolist() == [[[20, 22], [40, 22], [40, 38], [20, 38]]]
    assert (boxes_to_quads(box) == boxes_to_quads(box, (1.0, 1.0))).all()


def test_a_leaning_word_is_found_by_a_lower_box():
    """60 x 16 pixels at 20 degrees: the tight box has IoU .43 with the word, .8 of its height .51."""
    turn = np.deg2rad(20)
    turn = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    word = np.rint(np.array([[-30, -8], [30, -8], [30, 8], [-30, 8]]) @ turn + 100)[None]
    tight = np.concatenate((word.min(1), word.max(1)), 1)
    for scale, iou in (((1.0, 1.0), 0.433), ((1.0, 0.8), 0.514)):
        quad = boxes_to_quads(tight, scale)
        box, quadrangle = shapely.polygons(quad[0]), shapely.polygons(word[0])
        assert box.intersection(quadrangle).area / box.union(quadrangle).area == pytest.approx(iou, abs=1e-3)
        assert match(quad, word) == ([iou > 0.5], [True], 1)


def test_submission(tmp_path):
    file = tmp_path / 'submit.zip'
    write_submission(file, {'img_1.jpg': quads([1, 2, 3, 4], [5, 6, 7, 8]), 'img_2': quads()})
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ['res_img_1.txt', 'res_img_2.txt']
        assert archive.read('res_img_1.txt') == b'1,2,3,2,3,4,1,4\n5,6,7,6,7,8,5,8\n'
        assert archive.read('res_img_2.txt') == b''
    first = file.read_bytes()
    write_submission(file, {'img_1.jpg': quads([1, 2, 3, 4], [5, 6, 7, 8]), 'img_2': quads()})
    assert file.read_bytes() == first
    with pytest.raises(ValueError, match='reshape'):
        write_submission(file, {'img_1': np.zeros(7)})
    assert file.read_bytes() == first  # a failure leaves the old file, and nothing beside it
    assert [path.name for path in tmp_path.iterdir()] == ['submit.zip']


# Rules ----------------------------------------------------------------------------------------------------------------


def test_iou_must_exceed_one_half():
    word = quads([0, 0, 10, 10])
    assert match(quads([0, 0, 10, 5]), word) == ([False], [True], 1)  # 50 / 100
    assert match(quads([0, 0, 10, 6]), word) == ([True], [True], 1)
    # Of polygons, not of their bounding boxes: this rhombus fills half of its own.
    rhombus = np.array([[[5, 0], [10, 5], [5, 10], [0, 5]]])
    assert match(word, rhombus) == ([False], [True], 1)
    assert match(rhombus, rhombus[:, ::-1]) == ([True], [True], 1)  # either way round


def test_one_to_one_by_score_and_file_order():
    word = quads([0, 0, 10, 10])
    assert match(quads([0, 0, 10, 8], [0, 0, 10, 10]), word)[0] == [True, False]  # the first, not the best overlap
    # The first word takes the first detection, though the second word fits it exactly; that one gets the second.
    words = quads([0, 0, 10, 10], [0, 0, 10, 8])
    assert match(quads([0, 0, 10, 8], [0, 0, 10, 9]), words)[0] == [True, True]
    # Two words, one detection: one match.
    assert match(quads([0, 0, 10, 9]), words)[0] == [True]


def test_detections_on_dont_care_words_do_not_count():
    words, dont_care = quads([0, 0, 10, 10], [100, 0, 110, 10]), np.array([False, True])
    # 60 % inside; exactly half inside; a tenth of a large box covers the region entirely, but not the box.
    detections = quads([104, 0, 114, 10], [105, 0, 115, 10], [60, 0, 160, 10])
    assert match(detections, words, dont_care) == ([False] * 3, [False, True, True], 1)
    # Detections inside a region do not count even where they would match a word.
    assert match(quads([0, 0, 10, 10]), quads([0, 0, 10, 10], [0, 0, 10, 9]), dont_care) == ([False], [False], 1)
    # Two regions with 40 % each do not add up.
    assert match(quads([0, 0, 10, 10]), quads([0, 0, 4, 10], [6, 0, 10, 10]), [True, True]) == ([False], [True], 0)


def test_micro_average_and_threshold():
    metrics = ICDARMetrics()
    # A picture with one word found (.9) and a false alarm (.4); one with three words, one found (.5), one region hit.
    metrics.update(quads([50, 50, 60, 60], [0, 0, 10, 10]), [0.4, 0.9], quads([0, 0, 10, 10]), [False])
    words = quads([0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10])
    metrics.update(quads([0, 0, 10, 10], [60, 0, 70, 10]), [0.5, 0.8], words, [False, False, False, True])
    names = ('icdar_precision', 'icdar_recall', 'icdar_hmean')
    for threshold, expected in {
        0.4: (2 / 3, 2 / 4, 4 / 7),
        0.41: (2 / 2, 2 / 4, 2 / 3),
        0.5: (2 / 2, 2 / 4, 2 / 3),
        0.6: (1 / 1, 1 / 4, 2 / 5),
        0.95: (0, 0, 0),
    }.items():
        assert tuple(metrics.at(threshold)[name] for name in names) == pytest.approx(expected), threshold
    best, curve = metrics.sweep()
    assert best == 0.41  # the lowest of .41 .. .50
    assert curve['threshold'] == pytest.approx(np.linspace(0.05, 0.95, 91))
    for number, threshold in enumerate(curve['threshold']):
        assert metrics.at(threshold) == {
            f'icdar_{name}': curve[name][number] for name in ('precision', 'recall', 'hmean')
        }
    with pytest.raises(UserError, match=r'0\.05'):
        metrics.at(0.01)


def test_low_scores_are_dropped_and_empty_cases_are_zero():
    metrics = ICDARMetrics()
    zero = {'icdar_precision': 0, 'icdar_recall': 0, 'icdar_hmean': 0}
    assert metrics.at(0.5) == zero
    metrics.update(quads(), [], quads(), [])
    metrics.update(quads([0, 0, 10, 10]), [0.04], quads([0, 0, 10, 10]), [False])
    metrics.update(quads([0, 0, 10, 10]), [0.9], quads(), [])
    metrics.update(quads([5, 5, 5, 5]), [0.9], quads([5, 5, 5, 5]), [True])  # without area
    assert metrics.at(0.05) == zero
    assert (metrics.words, sum(map(len, metrics.scores))) == (1, 2)


# The official loop, literally -----------------------------------------------------------------------------------------


def literal(detections, words, dont_care) -> tuple[int, int, int]:
    """Matches, detections that count, words that count: pair by pair, as the published script goes about it."""
    found, actual = [shapely.Polygon(q) for q in detections], [shapely.Polygon(q) for q in words]
    skipped = {
        d
        for d, detection in enumerate(found)
        for w, word in enumerate(actual)
        if dont_care[w] and detection.area > 0 and detection.intersection(word).area / detection.area > 0.5
    }
    taken, matches = set(), 0
    for w, word in enumerate(actual):
        if dont_care[w]:
            continue
        for d, detection in enumerate(found):
            union = detection.union(word).area
            if d not in taken | skipped and union > 0 and detection.intersection(word).area / union > 0.5:
                taken.add(d)
                matches += 1
                break
    return matches, len(found) - len(skipped), len(actual) - int(np.sum(dont_care))


def random_quads(rng, count: int) -> np.ndarray:
    """Convex quads around few places, so that they overlap in all ways."""
    centres = rng.integers(0, 3, (count, 1, 2)) * 12
    corners = np.array([[0, 0], [20, 0], [20, 10], [0, 10]])
    return centres + corners + rng.integers(-4, 5, (count, 4, 2))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_agrees_with_the_literal_loop_at_every_threshold(seed):
    rng = np.random.default_rng(seed)
    metrics, images = ICDARMetrics(), []
    for _ in range(3):
        detections, words = random_quads(rng, rng.integers(0, 9)), random_quads(rng, rng.integers(0, 7))
        for group in (detections, words):
            assume(not len(group) or shapely.is_valid(shapely.polygons(group.astype(float))).all())
        scores, dont_care = rng.integers(1, 20, len(detections)) / 20, rng.random(len(words)) < 0.3
        metrics.update(detections, scores, words, dont_care)
        images.append((detections, scores, words, dont_care))
    for threshold in (0.05, 0.25, 0.5, 0.75):
        matches, claimed, wanted = 0, 0, 0
        for detections, scores, words, dont_care in images:
            order = np.argsort(-scores, kind='stable')
            kept = detections[order[scores[order] >= threshold]]
            matches, claimed, wanted = np.add((matches, claimed, wanted), literal(kept, words, dont_care))
        figures = metrics.at(threshold)
        assert figures['icdar_precision'] == pytest.approx(matches / max(claimed, 1))
        assert figures['icdar_recall'] == pytest.approx(matches / max(wanted, 1))


# The test set ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def truths(tmp_path_factory) -> list[tuple[np.ndarray, np.ndarray]]:
    if not GROUND_TRUTH.is_file():
        pytest.skip(f'{GROUND_TRUTH.name} is not at hand')
    folder = tmp_path_factory.mktemp('gt')
    with zipfile.ZipFile(GROUND_TRUTH) as archive:
        archive.extractall(folder)
    return [read_ground_truth(file) for file in sorted(folder.glob('gt_img_*.txt'))]


def upright(words: np.ndarray) -> np.ndarray:
    """The tight boxes (n, 4) around quads."""
    return np.concatenate((words.min(1), words.max(1)), 1)


def test_what_upright_boxes_can_reach_on_the_test_set(truths):
    """The ceiling of a detector of upright boxes: 1912 of 2077 words, recall .9206.

    14 more words fill exactly half of their boxes (with them it would be .9273); IoU must exceed 0.5 here.
    """
    assert (len(truths), sum(len(words) for words, _ in truths)) == (500, 5230)
    perfect, boxes, half = ICDARMetrics(), ICDARMetrics(), 0
    for words, dont_care in truths:
        legible = words[~dont_care]
        perfect.update(legible, np.full(len(legible), 0.9), words, dont_care)
        boxes.update(boxes_to_quads(upright(legible)), np.full(len(legible), 0.9), words, dont_care)
        polygons = shapely.polygons(legible.astype(float))
        half += int((2 * shapely.area(polygons) == shapely.area(shapely.envelope(polygons))).sum())
    assert boxes.words == 2077
    assert half == 14
    assert boxes.at(0.5)['icdar_recall'] == pytest.approx(1912 / 2077)
    assert perfect.at(0.5)['icdar_recall'] > 0.99  # but for words that lie on don't-care regions


def test_the_test_set_is_judged_in_seconds(truths):
    rng = np.random.default_rng(0)
    images = []
    for words, dont_care in truths:
        near = upright(words)[rng.integers(0, len(words), 60)] + rng.normal(0, 5, (60, 4))
        corners = rng.uniform(0, 1000, (40, 2))
        found = boxes_to_quads(np.concatenate((near, np.concatenate((corners, corners + 50), 1))))
        images.append((found, rng.uniform(0.05, 1, 100), words, dont_care))
    start = time.process_time()
    metrics = ICDARMetrics()
    for image in images:
        metrics.update(*image)
    metrics.sweep()
    assert time.process_time() - start < 8  # under a second on two idle cores
