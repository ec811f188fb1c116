"""A checkpoint made ready for others: half precision, and thresholds for the sizes that they will use."""

import json
import re

import pytest
import torch

from models.checkpoint import load_model, read_checkpoint
from ocrdistill.points import Point
from tests.support import ROOT, run_here
from utils.evaluation.report import OperatingPoint


def test_packed_weights_carry_a_threshold_for_each_size_and_val_uses_it(world, tmp_path, monkeypatch):
    target = tmp_path / 'packed.pt'
    chosen = iter([OperatingPoint(0.31, (0.9, 0.8), ''), OperatingPoint(0.42, (0.7, 0.6), '')])
    with monkeypatch.context() as patch:  # an untrained network's own points are the defaults
        patch.setattr('utils.evaluation.report.choose_point', lambda *_: next(chosen))
        printed = run_here(
            'teacher/pack.py', world.teacher_pt, target, '--sizes', 96, 64, '--data', world.data, '--device', 'cpu'
        )
    packed, source = read_checkpoint(target), read_checkpoint(world.teacher_pt)
    assert all(not value.is_floating_point() or value.dtype == torch.float16 for value in packed.state.values())
    assert 'resume' not in packed.meta and source.meta.get('conf_threshold') is None
    points = load_model(target).points
    assert points == {64: Point(0.31, (0.9, 0.8)), 96: Point(0.42, (0.7, 0.6))}
    assert packed.meta['conf_threshold'] == 0.42  # the largest size's: the source has none of its own
    for size, point in points.items():
        run = 'val.py', '--weights', target, '--data', world.data, '--imgsz', size, '--noplots', '--device', 'cpu'
        run_here(*run, '--project', tmp_path, '--name', size)
        metrics = json.loads((tmp_path / f'{size}/metrics.json').read_text(encoding='utf-8'))
        assert metrics['conf_threshold'] == point.conf_threshold
        assert metrics['conf_threshold_from'].endswith(f'chosen on val of {world.data}')
        assert metrics['word_scale'] == list(point.word_scale)
        assert re.search(rf'^{size} pixels: .*\b{metrics["map50"]:.4f}', printed.stdout, re.M)


def test_without_sizes_nothing_is_chosen(world, tmp_path):
    run_here('teacher/pack.py', world.teacher_pt, tmp_path / 'a.pt')
    assert load_model(tmp_path / 'a.pt').points == {}
    failed = run_here('teacher/pack.py', tmp_path / 'a.pt', tmp_path / 'a.pt')
    assert failed.returncode == 1 and 'a.pt is the source: name a new file' in failed.stderr
    failed = run_here('teacher/pack.py', world.teacher_pt, tmp_path / 'a.pt', '--data', world.data)
    assert failed.returncode == 2 and '--data and --device: have a use with --sizes only' in failed.stderr


@pytest.mark.parametrize('file', ['weights/ocrdistill-n.pt', 'weights/ocrdistill-s.pt', 'teacher/demo/yolov5n.pt'])
def test_shipped_files_name_no_place_of_a_machine(file):
    meta = read_checkpoint(ROOT / file).meta
    assert meta['options'] and not re.search(r'(?:^|[\s"\'=])/\w', json.dumps(meta))
