"""A checkpoint made ready for others: half precision, and thresholds for the sizes that they will use."""

import json
import re
import shutil

import pytest
import torch
import yaml

from models.checkpoint import load_model, read_checkpoint, restore, save_checkpoint
from ocrdistill.points import Point, to_plain
from tests.support import ROOT, run_here
from utils.evaluation.report import CHOSEN, OperatingPoint


def test_packed_weights_carry_a_threshold_for_each_size_and_val_uses_it(world, tmp_path, monkeypatch):
    target = tmp_path / 'packed.pt'
    chosen = iter([OperatingPoint(0.31, (0.9, 0.8), CHOSEN), OperatingPoint(0.42, (0.7, 0.6), CHOSEN)])
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


def test_a_size_at_which_nothing_is_found_is_refused(world, tmp_path):
    """No threshold can be chosen for it; an average takes the default, and says so."""
    untrained, target = tmp_path / 'untrained.pt', tmp_path / 'packed.pt'
    model = restore(read_checkpoint(world.teacher_pt))
    for conv in model.head.m:
        torch.nn.init.constant_(conv.bias, -20.0)
    save_checkpoint(untrained, model, model.state_dict(), options={'data': 'a.yaml', 'imgsz': 64})
    failed = run_here('teacher/pack.py', untrained, target, '--sizes', 64, '--data', world.data, '--device', 'cpu')
    assert failed.returncode == 1 and '64 pixels: nothing was found on val' in failed.stderr and not target.exists()
    out = tmp_path / 'average.pt'
    average = ('teacher/average.py', untrained, untrained, '--imgsz', 64, '--data', world.data, '--out', out)
    assert run_here(*average).returncode == 0
    assert 'nothing was found on val' in read_checkpoint(out).meta['conf_threshold_from']


def test_every_size_that_has_a_threshold_gets_a_new_one(world, tmp_path, monkeypatch):
    """So that one val has chosen all of them: the size that is asked for, that of the training, those of the source."""
    source, target = tmp_path / 'source.pt', tmp_path / 'packed.pt'
    model = restore(read_checkpoint(world.teacher_pt))
    old = {'conf_threshold': 0.3, 'word_scale': [1.0, 1.0], 'conf_threshold_from': 'those of the starting weights'}
    points = to_plain({128: Point(0.2)})
    save_checkpoint(source, model, model.state_dict(), **old, points=points, options={'data': 'a.yaml', 'imgsz': 96})
    chosen = iter([OperatingPoint(0.31 + 0.1 * n, (0.9, 0.8), CHOSEN) for n in range(3)])
    monkeypatch.setattr('utils.evaluation.report.choose_point', lambda *_: next(chosen))
    pack = ('teacher/pack.py', source, target, '--sizes', 64, '--data', world.data, '--device', 'cpu')
    assert run_here(*pack).returncode == 0
    packed, meta = load_model(target), read_checkpoint(target).meta
    assert {size: point.conf_threshold for size, point in packed.points.items()} == pytest.approx(
        {64: 0.31, 96: 0.41, 128: 0.51}
    )
    assert (meta['conf_threshold'], meta['conf_threshold_from']) == (pytest.approx(0.41), None)
    assert packed.trained_on == str(world.data)


def test_a_small_val_chooses_no_threshold(world, tmp_path):
    """Those of the source stay, of an average those of its first part."""
    source = tmp_path / 'source.pt'
    model = restore(read_checkpoint(world.teacher_pt))
    old = {'conf_threshold': 0.3, 'word_scale': [1.0, 1.0], 'options': {'data': 'a.yaml', 'imgsz': 96}}
    save_checkpoint(source, model, model.state_dict(), **old)
    flags = ('--data', world.few, '--device', 'cpu')
    printed = run_here('teacher/pack.py', source, tmp_path / 'packed.pt', '--sizes', 64, *flags).stdout
    assert printed.count('0.30 (those of the starting weights, as val has 6 pictures, 20 are needed to choose)') == 2
    packed = load_model(tmp_path / 'packed.pt')
    assert {point.conf_threshold for point in packed.points.values()} == {0.3} and packed.trained_on is None
    average = ('teacher/average.py', source, world.teacher_pt, '--imgsz', 64, '--out', tmp_path / 'average.pt')
    assert '0.30 (those of the starting weights, as val has 6 pictures' in run_here(*average, *flags).stdout


def test_a_choice_without_all_ground_truth_is_told(world, tmp_path):
    content = yaml.safe_load(world.few.read_text())
    shutil.copytree(content['path'], tmp_path / 'some')
    data = world.write('lacking.yaml', content | {'path': str(tmp_path / 'some'), 'val': content['test']})
    next((tmp_path / 'some/gt/test_icdar').iterdir()).unlink()
    flags = ('--data', data, '--device', 'cpu')
    printed = run_here('teacher/pack.py', world.teacher_pt, tmp_path / 'a.pt', '--sizes', 64, 96, *flags).stdout
    assert printed.count('no ICDAR metrics: 1 picture has no ground truth') == 1
    average = ('teacher/average.py', world.teacher_pt, world.teacher_pt, '--imgsz', 64, '--out', tmp_path / 'b.pt')
    assert 'no ICDAR metrics: 1 picture has no ground truth' in run_here(*average, *flags).stdout


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
