"""The pictures of a comparison, and the columns of networks with quads in its table."""

import math
import random

import cv2
import numpy as np
import pytest

from utils.comparison.chart import COLORS, LINES, draw_chart, draw_curves
from utils.comparison.table import summarise, table_lines


def runs(score: float, seeds: int = 4, quads: bool = False) -> dict[int, dict[str, float]]:
    """Metrics of runs around a score; those of one seed belong together."""
    found = {}
    for seed in range(seeds):
        value = score + random.Random(seed).gauss(0, 0.02) + random.Random(score).gauss(0, 0.001) * seed
        found[seed] = {'map50': value, 'map50_95': value / 2, 'icdar_hmean': value - 0.1, 'seconds': 60.0}
        found[seed] |= {'quad_map50': value - 0.05, 'quad_map50_95': value / 3} if quads else {}
    return found


def rows_of(seeds: int = 4, quads: bool = False) -> list[dict]:
    control = runs(0.5, seeds, quads)
    rows = [summarise('control', 'control', control, {})]
    rows += [summarise(f'recipe {score}', 'recipe', runs(score, seeds, quads), control) for score in (0.6, 0.5004)]
    return [*rows, summarise('teacher', 'teacher', runs(0.7, 1, quads), {}) | {'seeds': None}]


def ink(file, color: str) -> int:
    """How many pixels of a colour a picture has."""
    image = cv2.imread(str(file))[..., ::-1].astype(int)
    wanted = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)])
    return int((np.abs(image - wanted) <= 12).all(-1).sum())


@pytest.mark.parametrize('seeds', [4, 1])
@pytest.mark.parametrize('quads', [False, True])
def test_chart(tmp_path, seeds, quads):
    draw_chart(rows_of(seeds, quads), tmp_path / 'table.png', 'test')
    width = cv2.imread(str(tmp_path / 'table.png')).shape[1]
    assert width == pytest.approx((2.2 + 4.3 * (3 if quads else 2)) * 150, abs=2)  # a panel for each metric
    assert all(ink(tmp_path / 'table.png', COLORS[kind]) > 60 for kind in ('control', 'recipe', 'teacher'))
    assert not ink(tmp_path / 'table.png', COLORS['baseline'])  # the legend names what is there


def test_chart_without_differences_or_results(tmp_path):
    draw_chart(rows_of()[:1], tmp_path / 'control.png', 'val')
    draw_chart([], tmp_path / 'none.png', 'val')
    assert ink(tmp_path / 'control.png', COLORS['control']) > 60
    assert cv2.imread(str(tmp_path / 'none.png')) is not None


def test_curves(tmp_path):
    curves = {'control': [[0.1, 0.2, 0.3], [0.1, math.nan, 0.2]], 'mask': [[0.2, 0.4, 0.5]]}
    draw_curves(curves, tmp_path / 'curves.png', 'mAP50 on val')
    assert ink(tmp_path / 'curves.png', COLORS['control']) > 200 and ink(tmp_path / 'curves.png', LINES[0]) > 200


def test_columns_of_quads_only_where_there_are_any():
    header = table_lines(rows_of())[0]
    assert 'quad' not in header
    with_quads = table_lines(rows_of(quads=True))
    assert '| quad mAP50 | quad mAP50-95 |' in with_quads[0] and 'Δ quad mAP50 [95 %]' in with_quads[0]
    assert with_quads[0].count('|') == with_quads[3].count('|')
