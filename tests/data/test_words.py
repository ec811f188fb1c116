"""benchmarks/words.py: hand-computed measures, groups, and the command on rendered pictures."""

import sys

import numpy as np
import pytest

from benchmarks import words
from tests.support import ROOT
from utils.evaluation.icdar import match_words


def test_measures_by_hand():
    """A word of 40x20 pixels in a picture of 1280x720, level; then one that rises by 45 degrees."""
    grey = np.full((720, 1280), 200, np.uint8)
    grey[100:121, 100:121] = 50  # the left half of the word's 41 columns is dark
    level = np.array([[100, 100], [140, 100], [140, 120], [100, 120]])
    assert words.measure_word(level, grey) == {'height': 10.0, 'shape': 2.0, 'angle': 0.0, 'contrast': 150.0}
    steep = np.array([[200, 300], [300, 200], [310, 210], [210, 310]])
    found = words.measure_word(steep, grey)
    assert found['shape'] == pytest.approx(10) and found['angle'] == pytest.approx(45) and found['contrast'] == 0
    upside_down = words.measure_word(level[[2, 3, 0, 1]], grey)
    assert upside_down['angle'] == pytest.approx(0)


def test_every_word_is_in_one_group():
    values = np.array([0, 7.9, 8, 10, 11, 15.9, 16, 24, 300])
    groups = words.groups_of('height', values)
    assert [label for label, _ in groups] == ['under 8', '8 to 11', '11 to 16', '16 to 24', '24 and more']
    assert [int(mask.sum()) for _, mask in groups] == [2, 2, 2, 1, 2]


def test_table():
    measures = {
        'height': np.array([5.0, 30]),
        'shape': np.array([0.5, 4]),
        'angle': np.array([0.0, 20]),
        'contrast': np.array([10.0, 200]),
    }
    found = {'a': np.array([False, True]), 'b': np.array([True, True])}
    counts = {'a': np.array([[1, 4, 2]]), 'b': np.array([[2, 2, 2]])}  # of one picture
    rows = words.table(words.Words(measures, found, counts, {})).splitlines()
    assert rows[2] == '| all | 2 | 0.500 | 1.000 |'
    assert rows[3] == '| height under 8 (pixels at 640) | 1 | 0.000 | 1.000 |'
    assert rows[4] == '| height 8 to 11 (pixels at 640) | 0 | - | - |'
    assert rows[-3:] == [
        '| false alarms | | 3 | 0 |',
        '| hmean | | 0.3333 | 1.0000 |',
        '| hmean more than the first | | | +0.6667 [+0.6667, +0.6667] |',
    ]


def test_the_best_detection_finds_a_word_alone():
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10]])
    detections = np.stack((square + (1, 0), square, square + 100))  # the first has the highest score
    answers, counts = match_words(detections, np.stack((square, square + 50)), np.array([False, False]))
    assert answers.tolist() == [0, -1] and counts.all()
    answers, counts = match_words(detections, square[None], np.array([True]))
    assert answers.tolist() == [-1] and counts.tolist() == [False, False, True]


def test_command(tiny_data, tmp_path, monkeypatch, capsys):
    demo = ROOT / 'teacher/demo'
    weights = [str(demo / 'yolov5s.pt'), str(demo / 'yolov5n.pt')]
    command = ['words.py', '--weights', *weights, '--names', 'S', 'N', '--data', str(tiny_data), '--task', 'test']
    monkeypatch.setattr(sys, 'argv', [*command, '--imgsz', '320', '--device', 'cpu', '--out', str(tmp_path)])
    words.main()
    rows = (tmp_path / 'words_test_320.md').read_text().splitlines()
    assert (tmp_path / 'words_test_320.png').stat().st_size > 5000
    all_words = [cell.strip() for cell in rows[2].split('|')[1:-1]]
    assert all_words[0] == 'all' and int(all_words[1]) > 5
    assert float(all_words[2]) > 0.3, capsys.readouterr().out
