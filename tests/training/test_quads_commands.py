"""Quads through the commands: train, resume, evaluate, distil, export; and what is refused."""

import json
import zipfile

import numpy as np
import pytest
import torch

import distill
import train
import val
from models.checkpoint import load_model, read_checkpoint, save_checkpoint
from models.yolo import DetectionModel
from tests import inputs
from tests.support import small_cfg
from tests.world import SMALL, World, assert_same_run, call, interrupt_at, load, place
from utils.detection.detector import Detector
from utils.training.run import TrainingRun


@pytest.fixture(scope='module')
def quads_run(world: World, tmp_path_factory):
    return world.train(tmp_path_factory.mktemp('quads') / 'q', '--quads', '--epochs', 2)


def test_training_writes_terms_and_scores_of_quads(quads_run):
    header = (quads_run / 'results.csv').read_text().splitlines()[0].split(',')
    for name in ('train/edge', 'train/quad', 'weighted/edge', 'val/edge', 'val/quad_map50', 'val/quad_map50_95'):
        assert name in header
    metrics = json.loads((quads_run / 'metrics.json').read_text())
    assert {'map50', 'quad_map50', 'quad_map50_95', 'icdar_hmean'} <= metrics.keys()
    assert metrics['word_scale'] == [1.0, 1.0]
    assert load_model(quads_run / 'weights/best.pt').quads
    assert read_checkpoint(quads_run / 'weights/best.pt').yaml['quads'] is True


def test_edges_learn(quads_run):
    state = load(quads_run / 'weights/best.pt')['model']
    assert any(state[f'model.24.quad.{level}.bias'].abs().sum() > 0 for level in range(3))


def test_labels_without_corners_are_told(world, tmp_path, capsys):
    data = inputs.data_set(tmp_path, {'a': '0 0.5 0.5 0.2 0.1\n', 'b': '0 0.5 0.5 0.2 0.1\n'})
    run = world.train(tmp_path / 'q', '--quads', '--epochs', 1, '--data', data)
    assert 'no label of train gives them' in capsys.readouterr().out
    state = load(run / 'weights/best.pt')['model']
    assert not any(state[f'model.24.quad.{level}.bias'].any() for level in range(3))
    world.train(tmp_path / 'kept', '--weights', run / 'weights/last.pt', '--epochs', 1, '--data', data)
    assert 'no label of train gives them' in capsys.readouterr().out  # without --quads, too


def test_val_gives_a_submission_of_quads(world, tmp_path):
    torch.manual_seed(0)
    model = DetectionModel(small_cfg(0.125), nc=1, quads=True)
    for boxes, edges in zip(model.head.m, model.head.quad, strict=True):
        boxes.bias.data.view(3, -1)[:, 4:] = 3  # sure of every cell,
        torch.nn.init.constant_(edges.bias, 0.2)  # and every word leans
    flags = ('--weights', world.save('leaning.pt', model), '--data', world.data, '--imgsz', 64, '--device', 'cpu')
    call(val.main, 'val.py', *flags, '--noplots', '--save-icdar', '--icdar-conf', 0.05, *place(tmp_path / 'v'))
    assert 'quad_map50' in json.loads((tmp_path / 'v/metrics.json').read_text())
    with zipfile.ZipFile(tmp_path / 'v/submit.zip') as archive:
        rows = [row for name in archive.namelist() for row in archive.read(name).decode().split()]
    corners = np.array([row.split(',') for row in rows], int).reshape(-1, 4, 2)
    assert len(corners) and (corners[:, 0, 1] != corners[:, 1, 1]).any()  # boxes have level upper sides


def test_word_scale_is_refused_where_it_would_change_nothing(quads_run, world, mistake):
    flags = ('--weights', quads_run / 'weights/best.pt', '--data', world.data, '--imgsz', 64, '--device', 'cpu')
    assert '--word-scale is for boxes' in mistake(val.main, 'val.py', *flags, '--word-scale', 0.9, 0.8)


def test_weights_with_quads_keep_them_and_weights_without_get_them(quads_run, world, tmp_path, capsys):
    best = quads_run / 'weights/best.pt'
    kept = world.train(tmp_path / 'kept', '--weights', best, '--epochs', 1)
    assert load_model(kept / 'weights/best.pt').quads and 'predict no corners yet' not in capsys.readouterr().out
    plain = world.save('plain.pt', DetectionModel(world.student, nc=1))
    given = world.train(tmp_path / 'given', '--weights', plain, '--quads', '--epochs', 1)
    assert load_model(given / 'weights/best.pt').quads and 'predict no corners yet' in capsys.readouterr().out


def quads_teacher(world: World):
    torch.manual_seed(2)
    return world.save('teacher_quads.pt', DetectionModel(small_cfg(0.25), nc=1, quads=True))


def test_distilling_with_quads(world, tmp_path):
    flags = ('--teacher_weights', quads_teacher(world), '--quads', '--epochs', 1)
    run = world.distill(tmp_path / 'sn', *flags, recipe='sn_quad')
    header = (run / 'results.csv').read_text().splitlines()[0].split(',')
    assert {'train/quad_edges', 'weighted/quad_edges', 'train/edge', 'train/logit_box'} <= set(header)
    state = load(run / 'weights/best.pt')['model']
    assert not [key for key in state if 'adapter' in key or 'teacher' in key]
    assert load_model(run / 'weights/best.pt').quads


@pytest.mark.parametrize('student_quads', [True, False])
@pytest.mark.parametrize('teacher_quads', [True, False])
def test_other_methods_take_models_with_and_without_quads(world, tmp_path, student_quads, teacher_quads):
    flags = ['--quads'] if student_quads else []
    if teacher_quads:
        flags += ['--teacher_weights', quads_teacher(world)]
    run = world.distill(tmp_path / 'run', *flags, '--epochs', 1, recipe='xn_logit_mask')
    assert load_model(run / 'weights/best.pt').quads is student_quads


def test_quad_refuses_models_without_quads(world, mistake, tmp_path):
    flags = (*SMALL, *world.distillation('sn_quad'), *place(tmp_path / 'no'), '--epochs', 1)
    assert '--quads' in mistake(distill.main, 'distill.py', *flags)
    line = mistake(distill.main, 'distill.py', *flags, '--quads')
    assert 'the teacher predicts no quads' in line


def test_resuming_a_run_with_quads_is_exact(world, tmp_path):
    flags = ('--quads', '--epochs', 2, '--crop', 64, '--imgsz', 128)
    whole = world.train(tmp_path / 'whole', *flags)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 1)
        world.train(tmp_path / 'half', *flags)
    call(train.main, 'train.py', '--resume', tmp_path / 'half/weights/last.pt', '--device', 'cpu')
    assert_same_run(whole, tmp_path / 'half')


def test_detector_of_a_network_with_quads(quads_run):
    detector = Detector(str(quads_run / 'weights/best.pt'), device='cpu', imgsz=64, conf_thres=0.0)
    rows = detector(torch.randint(0, 255, (60, 90, 3), dtype=torch.uint8).numpy())
    assert rows.shape[1] == 14


def test_a_yaml_may_ask_for_quads(world, tmp_path):
    cfg = world.write('quads.yaml', small_cfg(0.125) | {'quads': True})
    assert DetectionModel(cfg, nc=1).quads
    wrong = world.write('wrong.yaml', small_cfg(0.125) | {'quads': 'yes'})
    with pytest.raises(Exception, match='quads is'):
        DetectionModel(wrong, nc=1)
    model = DetectionModel(cfg, nc=1)
    save_checkpoint(tmp_path / 'q.pt', model, model.state_dict())
    assert load_model(tmp_path / 'q.pt').quads


def test_polygons_are_taught_as_quads_to_networks_with_quads(world, tmp_path, monkeypatch):
    hexagon = '0 .2 .3 .3 .25 .6 .25 .7 .3 .6 .35 .3 .35\n'
    data = inputs.data_set(tmp_path, {'a': hexagon, 'b': hexagon})
    corners = []
    monkeypatch.setattr(
        TrainingRun, '_run', lambda run, *_: corners.append(run.train_set.annotations[0].polygon_list(1, 1))
    )
    for flags in ((), ('--quads',)):
        world.train(tmp_path / 'run', *flags, '--exist-ok', '--epochs', 1, '--data', data)
    assert [len(polygon) for polygons in corners for polygon in polygons] == [6, 4]
