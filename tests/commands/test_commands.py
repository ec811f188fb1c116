"""The commands end to end, in small: narrow models, a rendered data set, a few epochs."""

import contextlib
import errno
import functools
import itertools
import math
import os
import re
import runpy
import select
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml

import distill
import train
import val
from models.checkpoint import load_model, save_checkpoint
from models.errors import UserError
from models.yamls import read_yaml
from models.yolo import DetectionModel
from tests.support import ROOT, run_here, run_script, small_cfg
from tests.world import (
    ICDAR,
    SCORES,
    SMALL,
    assert_equal,
    assert_same_run,
    call,
    interrupt_at,
    load,
    metrics_of,
    place,
    rows_of,
    spy_start,
)
from utils.distillation import METHODS, find_method
from utils.distillation.distiller import Distiller
from utils.distillation.methods.hint import Hint
from utils.distillation.models import refuse_frozen
from utils.distillation.recipe import parse_recipe
from utils.evaluation.evaluate import ImageResult
from utils.evaluation.icdar import ICDARMetrics, read_ground_truth
from utils.evaluation.report import OperatingPoint, Report
from utils.runtime import device
from utils.training.criterion import DetectionCriterion
from utils.training.resolve import same_device
from utils.training.run import TrainingRun

LAYERS = {  # the published combinations
    'ln_4maskdiff': {'mask': [13, 17, 20, 23]},
    'ln_4maskdiff_Hint': {'mask': [13, 17, 20, 23], 'hint': [4, 6, 9]},
    'xn_maskdiff': {'mask': [17, 20, 23]},
    'xn_maskdiff_PFI': {'mask': [17, 20, 23], 'pfi': [17, 20, 23]},
    'xn_maskdiff_PFI_Hint': {'mask': [17, 20, 23], 'pfi': [17, 20, 23], 'hint': [4, 6, 9]},
}
RECIPES = LAYERS | {
    **dict.fromkeys(('xn_logit', 'demo'), {'logit': []}),
    'xn_logit_mask': {'logit': [], 'mask': [17, 20, 23]},
    'nn_larger': {'mask': [17, 20]},
}
OF_QUADS = {  # for students whose head predicts quads
    'sn_quad': {'logit': [], 'quad': []},
    'sn_quad_mask': {'logit': [], 'quad': [], 'mask': [17, 20, 23]},
}
WITHOUT_QUADS = [name for name in METHODS if name not in ('quad', 'maps')]  # maps: distillation/test_maps.py
TERMS = {'mask': ['mask_obj', 'mask_bg'], 'pfi': ['pfi'], 'hint': ['hint'], 'logit': ['logit_box', 'logit_obj']}

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def trained(world) -> Path:
    """Two epochs of train.py with pictures, twice what most tests need."""
    options = [flag for flag in SMALL if flag != '--noplots']
    folder = world.folder / 'runs' / 'trained'
    call(train.main, 'train.py', '--cfg', world.student, '--data', world.data, *options, *place(folder), '--epochs', 2)
    return folder


@pytest.fixture(scope='module')
def fitted(world) -> Path:
    """A narrow model that has learnt six pictures by heart; its validation split are the same six."""
    still = dict.fromkeys(('mosaic', 'scale', 'translate', 'hsv_h', 'hsv_s', 'hsv_v', 'fliplr'), 0)
    hyp = world.write('still.yaml', still | {'warmup_epochs': 1, 'obj': 10, 'lrf': 0.1})
    return world.train(
        world.folder / 'runs' / 'fitted',
        *('--data', world.few, '--hyp', hyp, '--imgsz', 192, '--batch-size', 3, '--nominal-batch', 3),
        *('--epochs', 120, '--optimizer', 'AdamW', '--lr0', 0.01, '--no-amp', '--noval'),
    )


# --- train.py ---------------------------------------------------------------------------------------------------------


def test_train_writes_a_whole_run_folder(trained):
    assert len(rows_of(trained)) == 2
    columns = list(rows_of(trained)[0])
    for term in ('box', 'obj', 'cls'):
        assert {f'train/{term}', f'weighted/{term}', f'val/{term}'} <= set(columns)
    assert {f'val/{name}' for name in SCORES} <= set(columns)
    hyp = yaml.safe_load((trained / 'hyp.yaml').read_text())
    row = {key: float(value) for key, value in rows_of(trained)[1].items()}
    assert row['weighted/box'] == pytest.approx(row['train/box'] * hyp['box'])
    assert row['weighted/obj'] == pytest.approx(row['train/obj'] * hyp['obj'] * (64 / 640) ** 2)

    options = yaml.safe_load((trained / 'opt.yaml').read_text())
    assert options['epochs'] == 2 and options['imgsz'] == 64 and options['kind'] == 'train'
    metrics = metrics_of(trained)
    assert {*SCORES, *ICDAR, 'conf_threshold', 'split', 'dont_care', 'protocol'} <= metrics.keys()
    assert metrics['split'] == 'val' and metrics['pictures'] == 2

    for name in ('labels.png', 'train_batch0.jpg', 'train_batch1.jpg', 'predictions.jpg', 'results.png'):
        image = cv2.imread(str(trained / name))
        assert image is not None and image.std() > 1, name
    (events,) = trained.glob('events.out.tfevents.*')
    assert b'weighted/box' in events.read_bytes()
    assert not list(trained.rglob('.*')), 'temporary files are left'


def test_checkpoints_of_a_run(trained, world):
    best, last = load(trained / 'weights/best.pt'), load(trained / 'weights/last.pt')
    plain = DetectionModel(world.student, nc=1)
    for content in (best, last):
        assert {key: v.shape for key, v in content['model'].items()} == {
            key: v.shape for key, v in plain.state_dict().items()
        }
        assert content['yaml']['width_multiple'] == 0.125 and content['names'] == {0: 'text'}
        assert content['stride'] == [8, 16, 32] and content['options']['epochs'] == 2
        assert content['command'].startswith('python train.py --cfg') and 'torch' in content['versions']
        assert set(SCORES) <= set(content['metrics'])
    assert 'resume' not in best and 'resume' in last
    assert last['epoch'] == 1 and best['epoch'] == metrics_of(trained)['epoch']
    assert all(best[name] == metrics_of(trained)[name] for name in ('conf_threshold', 'word_scale'))
    assert best['metrics'] == {name: metrics_of(trained)[name] for name in (*SCORES, *ICDAR)}
    model = load_model(trained / 'weights/best.pt')
    assert (model.conf_threshold, list(model.word_scale)) == (best['conf_threshold'], best['word_scale'])


def test_learning_happens(fitted):
    rows = rows_of(fitted)
    first, last = (sum(float(row[f'weighted/{term}']) for term in ('box', 'obj')) for row in (rows[0], rows[-1]))
    assert last < first / 2
    metrics = metrics_of(fitted)
    assert metrics['map50'] > 0.6 and metrics['icdar_hmean'] > 0.4
    assert 0.05 <= metrics['conf_threshold'] <= 0.95


def test_noval_validates_once(fitted):
    values = [float(row['val/map50']) for row in rows_of(fitted)]
    assert all(map(math.isnan, values[:-1])) and values[-1] > 0
    assert load(fitted / 'weights/best.pt')['epoch'] == 119


def test_early_stopping(world, tmp_path, capsys, mistake):
    run = world.train(tmp_path / 'run', '--epochs', 6, '--patience', 1, '--lr0', 0)  # nothing is learnt
    assert len(rows_of(run)) == 2
    assert 'stopped: no better result in 1 epochs' in capsys.readouterr().out
    assert (run / 'metrics.json').is_file()
    assert 'finished' in mistake(train.main, 'train.py', '--resume', run / 'weights/last.pt', '--device', 'cpu')


def test_save_period(world, tmp_path):
    run = world.train(tmp_path / 'run', '--epochs', 3, '--save-period', 2)
    assert sorted(file.name for file in (run / 'weights').iterdir()) == ['best.pt', 'epoch2.pt', 'last.pt']
    assert load(run / 'weights/epoch2.pt')['epoch'] == 1


def test_freeze_keeps_weights_and_statistics(world, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        (states, run) = (spy_start(patch), tmp_path / 'run')
        world.train(run, '--epochs', 1, '--freeze', 3)
    last = load(run / 'weights/last.pt')
    for state in (last['model'], last['resume']['model']):
        for key, value in state.items():
            if int(key.split('.')[1]) < 3:
                assert torch.equal(value, states[0][key]), key
    assert not torch.equal(last['resume']['model']['model.3.conv.weight'], states[0]['model.3.conv.weight'])
    assert not torch.equal(last['resume']['model']['model.3.bn.running_mean'], states[0]['model.3.bn.running_mean'])


def test_freeze_bn_keeps_the_statistics_from_its_epoch_on(world, tmp_path):
    begun = world.train(tmp_path / 'begun', '--epochs', 2, '--noval') / 'weights/last.pt'
    start = load(begun)['model']
    kept = [key for key in start if 'running_' in key or 'num_batches' in key]
    for after in (0, 1):
        run = world.train(tmp_path / str(after), '--weights', begun, '--epochs', 2, '--freeze-bn', after)
        resume = load(run / 'weights/last.pt')['resume']
        assert not torch.equal(resume['model']['model.3.conv.weight'], start['model.3.conv.weight'])  # the layers learn
        for key in kept:
            if key.endswith('num_batches_tracked'):  # the steps of the epochs before
                assert resume['model'][key] - start[key] == after * resume['ema_updates'] // 2
            else:
                assert torch.equal(resume['model'][key], start[key]) == (after == 0)


@pytest.mark.slow
def test_compiled_steps_learn_the_same(world, tmp_path):
    run = world.train(tmp_path / 'plain', '--epochs', 1, '--no-amp')
    translated = world.train(tmp_path / 'translated', '--epochs', 1, '--no-amp', '--compile')
    one, other = rows_of(run)[0], rows_of(translated)[0]
    for name in ('train/box', 'train/obj', 'val/box'):
        assert float(other[name]) == pytest.approx(float(one[name]), rel=1e-3)
    assert load(translated / 'weights/best.pt')['model'].keys() == load(run / 'weights/best.pt')['model'].keys()


@pytest.mark.slow
def test_compile_without_a_compiler_ends_in_a_line(world, tmp_path, monkeypatch):
    flags = ('--cfg', world.student, '--data', world.data, *SMALL, *place(tmp_path / 'run'), '--epochs', 1, '--compile')
    monkeypatch.setenv('CXX', '/nowhere/g++')
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path / 'cache'))
    result = run_script('train.py', *flags)
    assert result.returncode == 1, result.stderr
    assert result.stderr.splitlines()[-1].startswith('error: --compile: InvalidCxxCompiler')
    assert 'Traceback' not in result.stderr


def test_cache_changes_nothing(world, tmp_path):
    runs = [world.train(tmp_path / name, '--epochs', 2, *flags) for name, flags in (('a', ()), ('b', ('--no-cache',)))]
    assert_same_run(*runs)


def test_batch_size_is_found_for_pictures_of_many_shapes(world, tmp_path, capsys):
    """The validation batches are planned before the batch size is known; this data has no ICDAR ground truth."""
    source = Path(yaml.safe_load(world.data.read_text())['path'])
    for number, file in enumerate(sorted((source / 'images/train_icdar').iterdir())[:6]):
        image = cv2.resize(cv2.imread(str(file)), (320 - 40 * number, 160 + 32 * number))
        for kind in ('images', 'labels'):
            (tmp_path / kind).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / 'images' / file.name), image)
        labels = (source / 'labels/train_icdar' / file.name).with_suffix('.txt').read_text()
        (tmp_path / 'labels' / file.name).with_suffix('.txt').write_text(labels)
    data = tmp_path / 'shapes.yaml'
    data.write_text(f'path: {tmp_path}\ntrain: images\nval: images\nnames: [text]\n')
    run = world.train(tmp_path / 'run', '--data', data, '--batch-size', -1, '--epochs', 2)
    assert '--batch-size -1: 16' in capsys.readouterr().out
    options = yaml.safe_load((run / 'opt.yaml').read_text())
    assert options['batch_size'] == 16
    assert 'icdar_hmean' not in metrics_of(run) and metrics_of(run)['conf_threshold'] >= 0.05
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 1)
        world.train(tmp_path / 'half', '--data', data, '--batch-size', -1, '--epochs', 2)
    call(train.main, 'train.py', '--resume', tmp_path / 'half/weights/last.pt', '--device', 'cpu')
    assert rows_of(tmp_path / 'half') == rows_of(run)


@pytest.mark.parametrize(
    ('kept', 'processes', 'device'), [('1', 1, '1'), ('cpu', 2, 'cpu'), ('2,3', 2, '2,3'), ('2,3', 1, ''), ('0', 2, '')]
)
def test_a_resumed_run_keeps_its_device_where_it_fits(monkeypatch, kept, processes, device):
    monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
    assert same_device(kept) == device


def test_a_name_that_the_terminal_cannot_show_ends_no_run():
    code = "from utils.runtime.cli import run_command; run_command(lambda: print('picture \\u6587.jpg \\udce9'))"
    environment = os.environ | {'PYTHONIOENCODING': 'cp1252:strict'}
    ended = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, 'picture \\u6587.jpg \\udce9\n')


def test_a_full_disk_is_one_line(mistake):
    def write():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as of a file's write, which names no file

    assert mistake(write, 'command.py') == 'error: No space left on device'


# --- resume -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('kind', 'workers', 'more'),
    [*itertools.product(('train', 'distill'), (0, 1), ({},)), ('distill', 0, {'recipe': 'nn_larger'})],
)
def test_resumed_is_uninterrupted(world, tmp_path, kind, workers, more):
    start = functools.partial(getattr(world, kind), **more)
    flags = ('--epochs', 4, '--workers', workers)
    straight = start(tmp_path / 'straight', *flags)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 2)
        start(tmp_path / 'resumed', *flags)
    resumed = tmp_path / 'resumed'
    assert len(rows_of(resumed)) == 2 and not (resumed / 'metrics.json').exists()
    torch.manual_seed(99)  # what a new process draws must not matter
    last = () if workers else (resumed / 'weights/last.pt',)
    # Without a path: the latest run of the project.
    command = {'train': train, 'distill': distill}[kind]
    where = () if last else ('--project', tmp_path)
    call(command.main, f'{kind}.py', '--device', 'cpu', *where, '--resume', *last)
    assert_same_run(straight, resumed)
    told = {load(resumed / 'weights' / name)['command'] for name in ('best.pt', 'last.pt')}
    assert told == {yaml.safe_load((resumed / 'opt.yaml').read_text())['command']}
    assert '--epochs 4' in told.pop()


@pytest.mark.parametrize('kind', ['train', 'distill'])
def test_resumed_is_uninterrupted_from_weights_too(world, tmp_path, kind):
    """What the starting weights know, the moments of AdamW, and weights of terms that the first batch chose."""
    torch.manual_seed(5)
    model, file = DetectionModel(world.student, nc=1), tmp_path / 'start.pt'
    point = {'conf_threshold': 0.31, 'word_scale': [0.9, 0.8]}
    save_checkpoint(file, model, model.state_dict(), **point)
    flags = ('--epochs', 3, '--optimizer', 'AdamW', '--lr0', 0.001)
    of_student = ('--cfg_student', world.student, '--student_weights', file, '--methods', 'mask=auto,logit=auto')
    start = {
        'train': lambda folder: world.train(folder, '--weights', file, *flags),
        'distill': lambda folder: call(
            *(distill.main, 'distill.py', *SMALL, *of_student, '--data', world.data, *place(folder), *flags),
            *('--cfg_teacher', world.teacher, '--teacher_weights', world.teacher_pt),
        ),
    }[kind]
    start(tmp_path / 'straight')
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 1)
        start(tmp_path / 'resumed')
    command = {'train': train, 'distill': distill}[kind]
    call(command.main, f'{kind}.py', '--device', 'cpu', '--resume', tmp_path / 'resumed/weights/last.pt')
    assert_same_run(tmp_path / 'straight', tmp_path / 'resumed')
    best = load(tmp_path / 'resumed/weights/best.pt')  # val has too few pictures to choose another
    assert (best['conf_threshold'], best['word_scale']) == (0.31, [0.9, 0.8])


def test_sigterm_then_resume(world, tmp_path):
    """A real process: SIGTERM anywhere in an epoch, status 143, one line, and the run can be continued."""
    shared = ('--cfg', world.student, '--data', world.data, *SMALL, '--workers', 1, '--imgsz', 128, '--epochs', 20)
    run = tmp_path / 'resumed'
    process = subprocess.Popen(
        [sys.executable, ROOT / 'train.py', *map(str, (*shared, *place(run)))],
        cwd=ROOT,
        env=os.environ | {'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (run / 'results.csv').is_file() and len(rows_of(run)) >= 2:
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.01)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert err.split('\n')[-2] == 'interrupted' and 'stopping after this step' in err
    assert f'--resume {run / "weights/last.pt"}' in out
    assert 2 <= len(rows_of(run)) < 20
    call(train.main, 'train.py', '--resume', run / 'weights/last.pt', '--device', 'cpu')
    call(train.main, 'train.py', *shared, *place(tmp_path / 'straight'))
    assert_same_run(tmp_path / 'straight', run)


IN_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup pytest hands on that it is ignored
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_a_closed_terminal_loses_nothing(world, tmp_path):
    """A real process in a terminal that is closed: it saves the step under way, and ends with status 129."""
    run = tmp_path / 'run'
    shared = ('--cfg', world.student, '--data', world.data, *SMALL, '--imgsz', 128, '--epochs', 20, *place(run))
    screen, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, '-c', IN_TERMINAL, ROOT / 'train.py', *map(str, shared)],
        cwd=ROOT,
        env=os.environ | {'OMP_NUM_THREADS': '1'},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not ((run / 'results.csv').is_file() and len(rows_of(run)) >= 2):
        if select.select([screen], [], [], 0.05)[0]:
            os.read(screen, 1000)
    os.close(screen)
    assert process.wait(60) == 128 + signal.SIGHUP
    done = len(rows_of(run))
    assert 2 <= done < 20
    call(train.main, 'train.py', '--resume', run / 'weights/last.pt', '--device', 'cpu')
    assert len(rows_of(run)) == 20


def test_interrupted_while_reporting(world, tmp_path, mistake):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainingRun, '_report', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        world.train(tmp_path / 'run', '--epochs', 1)
    again = ('--resume', tmp_path / 'run/weights/last.pt', '--device', 'cpu')
    call(train.main, 'train.py', *again)
    assert metrics_of(tmp_path / 'run')['epoch'] == 0
    assert 'nothing to resume' in mistake(train.main, 'train.py', *again)


# --- distill.py -------------------------------------------------------------------------------------------------------


def test_all_recipes_are_tested():
    assert RECIPES.keys() | OF_QUADS.keys() == {file.stem for file in (ROOT / 'recipes').iterdir()}


@pytest.mark.parametrize('recipe', RECIPES)
def test_every_recipe_trains(world, tmp_path, recipe):
    distillers, states = [], []
    with pytest.MonkeyPatch.context() as patch:
        create = Distiller.__init__

        def spied(self, *arguments, **named):
            create(self, *arguments, **named)
            distillers.append((self, {key: value.clone() for key, value in self.teacher.state_dict().items()}))

        patch.setattr(Distiller, '__init__', spied)
        states = spy_start(patch)
        run = world.distill(tmp_path / 'run', '--epochs', 1, recipe=recipe)
    ((distiller, before),) = distillers
    assert_equal(before, dict(distiller.teacher.state_dict()))
    assert not distiller.teacher.training and not any(m.training for m in distiller.teacher.modules())
    assert not any(parameter.requires_grad for parameter in distiller.teacher.parameters())

    (row,) = rows_of(run)
    wanted = {term for method in RECIPES[recipe] for term in TERMS[method]} | {'box', 'obj', 'cls'}
    assert {key.removeprefix('train/') for key in row if key.startswith('train/')} == wanted
    assert {key.removeprefix('weighted/') for key in row if key.startswith('weighted/')} == wanted
    for term in wanted - {'cls'}:
        assert 0 < float(row[f'weighted/{term}']) < math.inf and 0 < float(row[f'train/{term}']) < math.inf, term

    plain = DetectionModel(world.student, nc=1).state_dict()
    for name in ('best.pt', 'last.pt'):
        content = load(run / 'weights' / name)
        assert content['model'].keys() == plain.keys()
        assert content['yaml']['width_multiple'] == 0.125
        assert set(content['options']['teacher_scores']) == set(SCORES)
        assert content['options']['teacher_imgsz'] == (128 if recipe == 'nn_larger' else None)
        used = content['options']['recipe_content']['methods']
        assert used.keys() == RECIPES[recipe].keys()
        assert used.get('mask', {}).get('teacher_layers') == ([20, 23] if recipe == 'nn_larger' else None)
    assert 'resume' not in load(run / 'weights/best.pt')
    trained = load(run / 'weights/last.pt')['resume']['criterion']
    adapters = {f'methods.{method}.adapters.{i}.weight' for method, layers in RECIPES[recipe].items() for i in layers}
    assert adapters <= trained.keys()

    # Its control is train.py with the same seed: the same student at the start.
    with pytest.MonkeyPatch.context() as patch:
        control = spy_start(patch)
        interrupt_at(patch, 0)
        with pytest.raises(KeyboardInterrupt):
            world.train(tmp_path / 'control', '--epochs', 1)
    assert_equal(states[0], control[0])


def test_weights_0_are_the_control(world, tmp_path):
    """With no weight on its terms, distillation is plain training, bit for bit."""
    zero = {name: {'weights': dict.fromkeys(find_method(name).TERMS, 0)} for name in WITHOUT_QUADS}
    recipe = {'teacher': 'models/yolov5x.yaml', 'student': str(world.student), 'methods': zero}
    flags = ('--recipe', world.write('zero.yaml', recipe), '--epochs', 2, '--no-amp')
    run = world.distill(tmp_path / 'run', *flags)
    control = world.train(tmp_path / 'control', '--epochs', 2, '--no-amp')
    assert_equal(load(run / 'weights/last.pt')['model'], load(control / 'weights/last.pt')['model'])


def test_weight_flags(world, tmp_path):
    flags = ('--mask_diff', 0.08, '--PFI_diff', 5, '--feature_diff', 0)
    run = world.distill(tmp_path / 'run', '--epochs', 1, *flags)
    methods = yaml.safe_load((run / 'opt.yaml').read_text())['recipe_content']['methods']
    assert methods['mask']['weights'] == {'mask_obj': 0.08, 'mask_bg': 0.04}
    assert methods['pfi']['weights'] == {'pfi': 5.0} and methods['hint']['weights'] == {'hint': 0.0}
    row = {key: float(value) for key, value in rows_of(run)[0].items()}
    assert row['weighted/hint'] == 0 < row['train/hint']


def test_val_pictures_that_are_trained_on_are_named(world, tmp_path, capsys):
    world.train(tmp_path / 'run', '--data', world.few, '--epochs', 1)
    assert 'warning: 6 pictures of val are trained on' in capsys.readouterr().out
    world.train(tmp_path / 'other', '--epochs', 1)
    assert 'are trained on' not in capsys.readouterr().out


def test_sync_bn_is_for_several_processes(world, tmp_path):
    with pytest.raises(UserError, match='there is one'):
        world.train(tmp_path / 'run', '--epochs', 1, '--sync-bn')


def test_student_weights(world, tmp_path, trained):
    with pytest.MonkeyPatch.context() as patch:
        states = spy_start(patch)
        world.distill(tmp_path / 'run', '--epochs', 1, '--student_weights', trained / 'weights/best.pt')
    assert_equal(load(trained / 'weights/best.pt')['model'], states[0])


def test_unlabelled_pictures_that_teach_nothing(world, mistake):
    flags = (*SMALL, *world.distillation('xn_maskdiff'), '--unlabelled', world.unlabelled)
    assert 'teach nothing by mask' in mistake(distill.main, 'distill.py', *flags)


def test_shorthand_prints_the_recipe_and_takes_unlabelled_pictures(world, tmp_path, capsys):
    models = ('--cfg_teacher', world.teacher, '--teacher_weights', world.teacher_pt, '--cfg_student', world.student)
    flags = (*SMALL, *models, '--data', world.data, *place(tmp_path / 'run'), '--epochs', 2)
    more = ('--kd_decay', 'linear', '--kd_warmup', 0.5, '--unlabelled', world.unlabelled)
    call(distill.main, 'distill.py', '--methods', 'hint=0.1,mask=auto', *flags, *more)
    printed = capsys.readouterr().out
    assert 'mask_obj: auto' in printed and 'hint: 0.1' in printed
    assert 'unlabelled: 6 pictures' in printed and 'gradient / detection' in printed
    content = yaml.safe_load((tmp_path / 'run/opt.yaml').read_text())['recipe_content']
    assert (content['decay'], content['warmup_epochs']) == ('linear', 0.5)
    first, second = ({key: float(value) for key, value in row.items()} for row in rows_of(tmp_path / 'run'))
    weights = [row['weighted/mask_obj'] / row['train/mask_obj'] for row in (first, second)]
    assert weights[0] > weights[1] > 0
    auto = load(tmp_path / 'run/weights/last.pt')['resume']['criterion']['auto_weights']
    assert len(auto) == 2 and (auto > 0).all()


@pytest.mark.parametrize('method', sorted({*WITHOUT_QUADS} - {'mask', 'pfi', 'hint'}))
def test_every_method_trains(world, tmp_path, method):
    models = ('--cfg_teacher', world.teacher, '--teacher_weights', world.teacher_pt, '--cfg_student', world.student)
    flags = (*SMALL, *models, '--data', world.data, *place(tmp_path / 'run'), '--epochs', 1)
    call(distill.main, 'distill.py', '--methods', method, *flags)
    (row,) = rows_of(tmp_path / 'run')
    for term in set(find_method(method).TERMS) - {'logit_cls'}:
        assert 0 <= float(row[f'train/{term}']) < math.inf


def test_teacher_of_another_size(world, tmp_path, capsys, mistake):
    run = world.distill(tmp_path / 'run', '--epochs', 1, '--teacher_imgsz', 128, recipe='xn_maskdiff')
    assert yaml.safe_load((run / 'opt.yaml').read_text())['teacher_imgsz'] == 128
    assert float(rows_of(run)[0]['train/mask_obj']) > 0
    flags = (*SMALL, *world.distillation('xn_maskdiff_PFI'), *place(tmp_path / 'other'), '--teacher_imgsz', 128)
    assert 'pfi compares predictions cell by cell' in mistake(distill.main, 'distill.py', *flags)


def test_contradictions(world, mistake):
    models = ('--cfg_teacher', world.teacher, '--teacher_weights', world.teacher_pt, '--cfg_student', world.student)
    for methods in ('mask=2', 'pfi, mask = 2'):
        flags = ('--methods', methods, '--mask_diff', 1, *SMALL, *models, '--data', world.data)
        assert f'--mask_diff contradicts --methods {methods}:' in mistake(distill.main, 'distill.py', *flags)


def test_list_of_methods():
    result = run_script('distill.py', '--list-methods')
    assert result.returncode == 0, result.stderr
    assert [row.split()[0] for row in result.stdout.splitlines()] == list(METHODS)


# --- the published scripts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize('recipe', LAYERS)
def test_published_script(recipe, tmp_path, mistake):
    script = ROOT / f'distill_{recipe}.py'
    text = script.read_text()
    assert len(text.splitlines()) < 40 and f"main('recipes/{recipe}.yaml')" in text
    content = parse_recipe(read_yaml(ROOT / f'recipes/{recipe}.yaml'), recipe)
    assert {name: use.layers for name, use in content.methods.items()} == LAYERS[recipe]
    size = recipe[0]
    assert content.teacher == f'models/yolov5{size}.yaml' and content.student == 'models/yolov5n.yaml'
    assert content.teacher_weights == f'teacher/{size}/weights/best.pt' and content.warmup_epochs == 3

    data = tmp_path / 'absent.yaml'
    data.write_text('path: nowhere\ntrain: train.txt\nval: val.txt\nnames: [text]\nprepare: python data/make.py\n')
    weight = ('--mask_diff', 0.001, *(('--PFI_diff', 1) if 'PFI' in recipe else ()))
    flags = (
        *('--cfg_teacher', f'models/yolov5{size}.yaml', '--cfg_student', 'models/yolov5n.yaml'),
        *('--teacher_weights', tmp_path / 'absent.pt', '--student_weights', '', '--data', data, '--epochs', 300),
        *('--batch-size', 8, '--imgsz', 640, '--hyp', 'data/hyps/scratch-low.yaml', '--device', 'cpu', *weight),
    )
    line = mistake(lambda: runpy.run_path(str(script), run_name='__main__'), script.name, *flags)
    for command in (
        'python data/make.py',
        f'python teacher/download.py icdar-{size}',
        f'python train.py --cfg models/yolov5{size}.yaml',
    ):
        assert command in line


@pytest.mark.parametrize(
    'script', ['train.py', 'distill.py', 'val.py', 'detect.py', *(f'distill_{r}.py' for r in LAYERS)]
)
def test_help_needs_no_torch(script):
    code = (
        'import runpy, sys\n'
        f'sys.argv = [{script!r}, "--help"]\n'
        'try:\n'
        f'    runpy.run_path({script!r}, run_name="__main__")\n'
        'except SystemExit as end:\n'
        '    status = end.code\n'
        'assert status in (0, None) and not {"torch", "cv2", "numpy", "matplotlib"} & sys.modules.keys()\n'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert result.returncode == 0, result.stderr
    assert '--device' in result.stdout
    assert result.stderr == ''


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_no_gpu_is_one_line(tmp_path):
    result = run_script('distill_xn_maskdiff.py', '--device', '0', '--project', tmp_path)
    assert result.returncode == 1 and result.stdout == ''
    assert len(result.stderr.splitlines()) == 1 and '--device cpu' in result.stderr


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (('--data', 'data/absent.yaml'), ['data/absent.yaml']),
        (('--weights', 'absent.pt'), ['no such checkpoint', 'absent.pt']),
        (('--weights', 'README.md'), ['README.md']),
        (('--cfg', 'models/absent.yaml'), ['models/absent.yaml']),
        (('--hyp', 'absent.yaml'), ['absent.yaml']),
        (('--freeze', '25'), ['--freeze 25', '25 layers']),
        (('--freeze-bn', '0'), ['--freeze-bn 0', 'no statistics yet']),
        (('--device', 'gpu'), ['--device gpu']),
        (('--lr0', '5'), ['lr0']),
        (('--label-smoothing', '0.9'), ['label_smoothing']),
        (('--label-smoothing', '0.1'), ['--label-smoothing', 'has one']),
        (('--project', '/dev/null/runs'), ['/dev/null/runs']),
    ],
)
def test_mistakes_with_train(world, tmp_path, mistake, flags, words):
    shared = ('--cfg', world.student, '--data', world.data, *SMALL, *place(tmp_path / 'run'))
    line = mistake(train.main, 'train.py', *shared, '--epochs', 1, *flags)
    assert all(word in line for word in words), line
    assert not (tmp_path / 'run/results.csv').exists()


def test_unknown_hyperparameter(world, tmp_path, mistake):
    hyp = world.write('typo.yaml', {'lr_0': 0.1})
    line = mistake(train.main, 'train.py', '--data', world.data, *SMALL, '--hyp', hyp)
    assert "'lr_0'" in line and "'lr0'" in line


@pytest.mark.parametrize(
    ('recipe', 'words'),
    [
        ({'methods': {'masks': {}}}, ["'masks'", "'mask'"]),
        ({'methods': {'mask': {'weights': {'mask_objects': 1}}}}, ["'mask_objects'", "'mask_obj'"]),
        ({'methods': {'mask': {'layer': [17]}}}, ["'layer'", "'layers'"]),
        ({'methods': {'mask': {'layers': [24]}}}, ['24', '0 to 23']),
        ({'methods': {'pfi': {'layers': [13]}}}, ['13', 'do not feed the head']),
        ({'methods': {'mask': {}}, 'teacher_weight': 'x.pt'}, ["'teacher_weight'", "'teacher_weights'"]),
        ({'methods': {}}, ['methods']),
        ({'methods': {'mask': {}}, 'teacher_scale': 0}, ['teacher_scale is 0']),
        ({'methods': {'mask': {}}, 'teacher_scale': 1.2}, ['76.8 pixels', "the student's 64"]),
        ({'methods': {'maps': {}}, 'teacher_scale': 2}, ['teacher_scale has no use']),
        ({'methods': {'mask': {}}, 'warmup_epochs': True}, ['warmup_epochs is True']),
    ],
)
def test_mistakes_in_a_recipe(world, mistake, recipe, words):
    file = world.write('bad.yaml', {'teacher': str(world.teacher), 'student': str(world.student)} | recipe)
    line = mistake(distill.main, 'distill.py', *SMALL, *world.distillation('xn_maskdiff'), '--recipe', file)
    assert all(word in line for word in words), line


def test_checkpoint_of_another_architecture(world, mistake):
    start = ('--data', world.data, *SMALL)
    line = mistake(train.main, 'train.py', *start, '--cfg', world.student, '--weights', world.teacher_pt)
    assert 'another architecture' in line
    flags = (*SMALL, *world.distillation('xn_maskdiff'))
    line = mistake(distill.main, 'distill.py', *flags, '--cfg_teacher', world.student)
    assert 'does not fit' in line and str(world.student) in line
    line = mistake(distill.main, 'distill.py', *flags, '--student_weights', world.teacher_pt)
    assert 'another architecture' in line


def test_teacher_of_other_classes(world, mistake):
    teacher = world.save('classes.pt', DetectionModel(world.teacher, nc=3))
    line = mistake(distill.main, 'distill.py', *SMALL, *world.distillation('xn_maskdiff'), '--teacher_weights', teacher)
    assert 'does not fit' in line and 'model.24.m.0' in line


def test_student_of_other_anchors(world, mistake):
    cfg = small_cfg(0.125)
    cfg['anchors'] = [[side * 2 for side in level] for level in cfg['anchors']]
    student = world.save('anchors.pt', DetectionModel(cfg, nc=1))
    line = mistake(distill.main, 'distill.py', *SMALL, *world.distillation('xn_maskdiff'), '--student_weights', student)
    assert 'other anchors' in line


@pytest.mark.parametrize(('flag', 'method'), [('--PFI_diff', 'pfi'), ('--feature_diff', 'hint')])
def test_useless_weight_flag(world, mistake, flag, method):
    line = mistake(distill.main, 'distill.py', *SMALL, *world.distillation('xn_maskdiff'), flag, 1)
    assert f'{flag} has no effect' in line and method in line


def test_methods_on_frozen_layers_teach_nothing(world, mistake):
    flags = (*SMALL, *world.distillation('xn_maskdiff_PFI_Hint'), '--freeze', 10)
    assert '--freeze 10: hint teaches layers 4, 6, 9' in mistake(distill.main, 'distill.py', *flags)
    for name, taught in (('defeat', True), ('mask', False)):  # DeFeat teaches the head's predictions, too
        recipe = parse_recipe({'teacher': 't', 'student': 's', 'methods': {name: {}}}, 'test')
        with contextlib.nullcontext() if taught else pytest.raises(UserError, match='none of them would train'):
            refuse_frozen(recipe, 24)


def test_val_without_words_is_refused_before_training(world, tmp_path, mistake):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'labels').mkdir()
    shutil.copy(next(world.unlabelled.iterdir()), tmp_path / 'images/empty.jpg')
    (tmp_path / 'labels/empty.txt').touch()
    data = world.write('no_words.yaml', yaml.safe_load(world.data.read_text()) | {'val': str(tmp_path / 'images')})
    assert 'val has no target' in mistake(train.main, 'train.py', '--cfg', world.student, '--data', data, *SMALL)


def test_mistakes_with_resume(world, tmp_path, trained, mistake):
    device = ('--device', 'cpu')
    assert 'only the last.pt' in mistake(train.main, 'train.py', '--resume', trained / 'weights/best.pt', *device)
    assert 'run of train.py' in mistake(distill.main, 'distill.py', '--resume', trained / 'weights/last.pt', *device)
    assert 'no such checkpoint' in mistake(train.main, 'train.py', '--resume', tmp_path / 'absent.pt', *device)
    assert 'has a last.pt' in mistake(train.main, 'train.py', '--project', tmp_path, '--resume', *device)
    alone = tmp_path / 'alone' / 'last.pt'
    alone.parent.mkdir()
    shutil.copy(trained / 'weights/last.pt', alone)
    assert 'does not lie in its run' in mistake(train.main, 'train.py', '--resume', alone, *device)
    assert list(tmp_path.rglob('*')) == [alone.parent, alone]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 1)
        teacher = shutil.copy(world.teacher_pt, tmp_path / 'teacher.pt')
        world.distill(tmp_path / 'run', '--epochs', 2, '--teacher_weights', teacher)
    again = ('--resume', tmp_path / 'run/weights/last.pt', *device)
    line = mistake(lambda: distill.main('recipes/xn_maskdiff.yaml'), 'x.py', *again)
    assert 'recipes/xn_maskdiff.yaml' in line and 'recipes/xn_maskdiff_PFI_Hint.yaml' in line
    model = load_model(teacher, fuse=False)
    model.state_dict()['model.0.conv.weight'][0, 0, 0, 0] += 1e-3  # its scores stay as they were
    save_checkpoint(teacher, model, model.state_dict())
    assert 'not the teacher that the run began with' in mistake(distill.main, 'distill.py', *again)


@pytest.mark.parametrize(('kind', 'term'), [('train', 'obj'), ('distill', 'hint')])
def test_loss_that_is_not_finite_names_its_term(world, tmp_path, monkeypatch, mistake, kind, term):
    source = {'train': DetectionCriterion, 'distill': Hint}[kind]
    forward, calls = source.forward, []
    fifth = {'train': 5, 'distill': 6}[kind]  # distillation looks at the first batch once before

    def broken(self, *arguments):
        calls.append(1)
        terms = forward(self, *arguments)
        return terms | {term: terms[term] * (math.nan if len(calls) == fifth else 1)}

    monkeypatch.setattr(source, 'forward', broken)
    run = tmp_path / 'run'
    start = {'train': world.train, 'distill': world.distill}[kind]
    line = mistake(lambda: start(run, '--epochs', 2), f'{kind}.py')
    assert re.search(rf'not finite in epoch 2, batch 2: {term};', line)
    assert load(run / 'weights/last.pt')['epoch'] == 0
    (kept,) = load(run / 'nonfinite_epoch2_batch2.pt')['batches']
    assert math.isnan(kept['terms'][term]) and len(kept['paths']) == len(kept['images']) > 0
    assert all(Path(path).name in line for path in kept['paths'])


@pytest.mark.parametrize(
    ('main', 'flags', 'words'),
    [
        (train.main, ('--imgsz', 100), '--imgsz: a multiple of 32'),
        (train.main, ('--batch-size', 0), '--batch-size: at least 1'),
        (train.main, ('--epochs', 0), '--epochs: at least 1'),
        (train.main, ('--workers', -1), '--workers'),
        (train.main, ('--optimizer', 'Adam'), 'invalid choice'),
        (train.main, ('--unknown',), 'unrecognized arguments'),
        (train.main, ('--resume', 'last.pt', '--epochs', 20, '--no-amp'), 'leave out --epochs, --no-amp'),
        (train.main, ('--resume', 'last.pt', '--epochs', 300), 'leave out --epochs'),  # the default, but given
        (train.main, ('--resume', 'last.pt', '--project', 'runs'), 'leave out --project'),
        (train.main, ('--noval', '--patience', 100), '--patience'),
        (train.main, ('--epochs', 5, '--freeze-bn', 5), '--freeze-bn: the training ends before'),
        (train.main, ('--sync-bn', '--freeze-bn', 0), '--sync-bn: with --freeze-bn 0'),
        (train.main, ('--seed', 2**63), '--seed'),
        (distill.main, ('--kd_warmup', -1), '--kd_warmup'),
        (distill.main, ('--kd_warmup', 'nan'), '--kd_warmup'),
        (distill.main, ('--resume', '--mask_diff', 1), 'leave out --mask_diff'),
        (distill.main, ('--methods', ''), '--methods: empty'),
        (distill.main, ('--sync-bn', '--unlabelled', 'more'), '--sync-bn: not with --unlabelled'),
        (train.main, ('--save-every', 'nan'), '--save-every'),
        (val.main, (), 'required: --weights'),
        (val.main, ('--weights', 'x.pt', '--task', 'all'), 'invalid choice'),
        (val.main, ('--weights', 'x.pt', '--icdar-conf', 0.01), '--icdar-conf: 0.05 to 1'),
    ],
)
def test_bad_flags_end_with_2(capsys, main, flags, words):
    with pytest.raises(SystemExit) as end:
        call(main, 'command.py', *flags)
    assert end.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]  # before it the usage, which names all flags


# --- val.py -----------------------------------------------------------------------------------------------------------


def validate(run: Path, folder: Path, data: Path, *flags) -> dict:
    weights = run / 'weights/best.pt'
    shared = ('--weights', weights, '--data', data, '--imgsz', 192, '--workers', 0, '--device', 'cpu', '--noplots')
    call(val.main, 'val.py', *shared, *place(folder), *flags)
    return metrics_of(folder)


def test_val_agrees_with_the_run(fitted, world, tmp_path, capsys):
    metrics, wanted = validate(fitted, tmp_path / 'run', world.few), metrics_of(fitted)
    for key in (*SCORES, *ICDAR, 'conf_threshold', 'pictures', 'protocol'):
        assert (
            metrics[key] == pytest.approx(wanted[key], abs=1e-6) if key != 'protocol' else metrics[key] == wanted[key]
        )
    assert metrics['conf_threshold_from'] == f'the checkpoint, chosen on val of {world.few}'
    assert f'mAP50 {wanted["map50"]:.4f}' in capsys.readouterr().out


def test_val_makes_its_folder_before_the_work(fitted, world, tmp_path, mistake, monkeypatch):
    shared = ('--weights', fitted / 'weights/best.pt', '--data', world.few, '--imgsz', 64, '--device', 'cpu')
    (tmp_path / 'file').touch()
    asked = []
    monkeypatch.setattr('utils.evaluation.report.evaluate_split', lambda *_, **__: asked.append(1))
    assert 'file' in mistake(val.main, 'val.py', *shared, '--project', tmp_path / 'file')
    assert not asked

    def stopped(*_, **__):
        raise UserError('stopped')

    monkeypatch.setattr('utils.evaluation.report.evaluate_split', stopped)
    assert mistake(val.main, 'val.py', *shared, *place(tmp_path / 'run')) == 'error: stopped'
    assert not (tmp_path / 'run').exists()


def test_nothing_of_an_earlier_evaluation_stays(fitted, world, tmp_path):
    old = tmp_path / 'run/icdar_curve.png'
    first = validate(fitted, tmp_path / 'run', world.few, '--save-icdar', '--icdar-conf', 0.05)
    old.touch()
    second = validate(fitted, tmp_path / 'run', world.few, '--exist-ok', '--icdar-conf', 0.9)
    assert (first['conf_threshold'], second['conf_threshold']) == (0.05, 0.9)
    assert sorted(file.name for file in old.parent.iterdir()) == ['metrics.json', 'opt.yaml']


def test_val_in_half_precision(fitted, world, tmp_path, monkeypatch):
    asked, real = [], device.autocast
    monkeypatch.setattr('utils.evaluation.evaluate.autocast', lambda where, amp: asked.append(amp) or real(where, amp))
    metrics = validate(fitted, tmp_path / 'run', world.few, '--bfloat16')
    assert asked and all(asked)
    assert metrics['map50'] == pytest.approx(metrics_of(fitted)['map50'], abs=0.1)
    assert metrics['precision_of'].startswith('bfloat16')


def test_val_of_another_split(fitted, world, tmp_path):
    metrics = validate(fitted, tmp_path / 'run', world.few, '--task', 'test', '--icdar-conf', 0.3)
    assert metrics['split'] == 'test' and metrics['pictures'] == 6
    assert metrics['conf_threshold'] == 0.3 and metrics['conf_threshold_from'] == '--icdar-conf'
    assert metrics['map50'] < metrics_of(fitted)['map50']


def test_a_val_that_is_the_test_split_is_told(fitted, world, tmp_path, capsys):
    said = 'selected on test'
    assert not metrics_of(fitted)['selected_on_test']
    validate(fitted, tmp_path / 'own', world.few)
    assert said not in capsys.readouterr().out
    data = world.write('same.yaml', yaml.safe_load(world.few.read_text()) | {'test': ['./few.txt']})
    assert validate(fitted, tmp_path / 'same', data)['selected_on_test']
    assert said in capsys.readouterr().out


def test_names_with_dots_in_a_submission(tmp_path):
    none = torch.zeros(0, 6)
    images = [ImageResult(f'shop.{number}.jpg', (9, 9), none, none, none[:, :5], none[:, :4]) for number in (1, 2)]
    report = Report(SimpleNamespace(images=images), None, OperatingPoint(0.5, (1, 1), ''))
    report.write_submission(tmp_path / 'submit.zip')
    with zipfile.ZipFile(tmp_path / 'submit.zip') as archive:
        assert archive.namelist() == ['res_shop.1.txt', 'res_shop.2.txt']


def test_a_name_that_no_file_can_have(mistake):
    assert 'File name too long' in mistake(val.main, 'val.py', '--weights', 'x' * 300 + '.pt')


def test_pictures_without_icdar_ground_truth(fitted, world, tmp_path, capsys, mistake):
    content = yaml.safe_load(world.few.read_text())
    shutil.copytree(content['path'], tmp_path / 'some')
    data = world.write('some.yaml', content | {'path': str(tmp_path / 'some')})
    truths = sorted((tmp_path / 'some/gt/test_icdar').iterdir())
    truths[0].unlink()
    metrics = validate(fitted, tmp_path / 'run', data, '--task', 'test', '--icdar-conf', 0.3, '--save-icdar')
    assert 'icdar_hmean' not in metrics and (tmp_path / 'run/submit.zip').is_file()
    assert metrics['word_scale'] == metrics_of(fitted)['word_scale']  # of the submission
    assert 'no ICDAR metrics: 1 picture has no ground truth' in capsys.readouterr().out
    shared = ('--weights', fitted / 'weights/best.pt', '--data', data, '--imgsz', 192, '--task', 'test')
    shared = (*shared, '--workers', 0, '--device', 'cpu', *place(tmp_path / 'run'))
    for flags in (('--icdar-conf', 0.3), ('--word-scale', 1, 1)):
        assert f'{flags[0]}: there is no ICDAR ground truth' in mistake(val.main, 'val.py', *shared, *flags)
    images = tmp_path / 'some/images/test_icdar'
    (images / 'more').mkdir()
    image = next(images.glob('*.jpg'))
    shutil.copy(image, images / 'more' / image.name)
    assert f'pictures are called {image.stem}' in mistake(val.main, 'val.py', *shared, '--save-icdar')


@pytest.mark.parametrize('main', [train.main, val.main])
def test_bad_icdar_ground_truth_is_told_at_once(world, trained, tmp_path, mistake, capsys, main):
    content = yaml.safe_load(world.few.read_text())
    shutil.copytree(content['path'], tmp_path / 'some')
    data = world.write('bad_truth.yaml', content | {'path': str(tmp_path / 'some')})
    truth = sorted((tmp_path / 'some/gt/train_icdar').iterdir())[0]
    truth.write_text('1,1,9,1,9,9,1,9\n')  # no word
    shared = (
        '--weights',
        trained / 'weights/best.pt',
        '--data',
        data,
        '--imgsz',
        64,
        '--device',
        'cpu',
        '--workers',
        0,
    )
    line = mistake(main, 'command.py', *shared, *place(tmp_path / 'run'))
    assert f'{truth}, line 1' in line and not (tmp_path / 'run').exists()


def test_submission_holds_the_boxes_that_hmean_is_for(fitted, world, tmp_path):
    metrics = validate(fitted, tmp_path / 'run', world.few, '--save-icdar', '--word-scale', 0.9, 0.8)
    assert metrics['word_scale'] == [0.9, 0.8]
    source = Path(yaml.safe_load(world.few.read_text())['path'])
    images = [Path(row).stem for row in (source / 'few.txt').read_text().split()]
    judge = ICDARMetrics()
    with zipfile.ZipFile(tmp_path / 'run/submit.zip') as archive:
        assert sorted(archive.namelist()) == sorted(f'res_{stem}.txt' for stem in images)
        for stem in images:
            rows = archive.read(f'res_{stem}.txt').decode().split()
            quads = np.array([row.split(',') for row in rows], int).reshape(-1, 4, 2)
            truth = read_ground_truth(source / f'gt/train_icdar/gt_{stem}.txt')
            judge.update(quads, np.full(len(quads), 0.9), *truth)
    assert judge.at(0.5) == pytest.approx({key: metrics[key] for key in ICDAR})
    assert metrics['icdar_hmean'] > 0.4


def test_word_scale(fitted, world, tmp_path):
    """The boxes as they are differ from the scaled ones in the ICDAR figures alone."""
    plain = validate(fitted, tmp_path / 'plain', world.few, '--word-scale', 1, 1)
    half = validate(fitted, tmp_path / 'half', world.few, '--word-scale', 0.5, 0.5)
    assert plain['word_scale'] == [1, 1] and half['word_scale'] == [0.5, 0.5]
    assert plain['map50'] == half['map50'] and half['icdar_hmean'] < plain['icdar_hmean']
    assert metrics_of(fitted)['icdar_hmean'] >= plain['icdar_hmean'] - 1e-9


def test_mistakes_with_val(world, trained, tmp_path, mistake, capsys):
    shared = ('--data', world.data, '--imgsz', 64, '--device', 'cpu', '--workers', 0, *place(tmp_path / 'run'))
    assert 'no such checkpoint' in mistake(val.main, 'val.py', *shared, '--weights', 'absent.pt')
    weights = ('--weights', trained / 'weights/best.pt')
    classes = world.write('classes.yaml', yaml.safe_load(world.data.read_text()) | {'names': ['text', 'logo']})
    line = mistake(val.main, 'val.py', *shared, *weights, '--data', classes)
    assert 'knows 1 class, ' in line and line.endswith('classes.yaml names 2')
    two = DetectionModel(small_cfg(0.125, 2))
    two.names = {0: 'logo', 1: 'text'}
    line = mistake(val.main, 'val.py', *shared, '--weights', world.save('two.pt', two), '--data', classes)
    assert "has the classes {0: 'logo', 1: 'text'}" in line
    run = world.train(
        tmp_path / 'swapped', '--cfg', '', '--weights', world.folder / 'two.pt', '--data', classes, '--epochs', 1
    )
    assert "the data {0: 'text', 1: 'logo'}: they are learned anew" in capsys.readouterr().out
    assert (run / 'weights/best.pt').is_file()
    no_test = yaml.safe_load(world.data.read_text())
    del no_test['test']
    line = mistake(val.main, 'val.py', *shared, *weights, '--data', world.write('two.yaml', no_test), '--task', 'test')
    assert 'test' in line


def test_train_without_arguments_asks_for_data():
    done = run_here('train.py')
    assert done.returncode == 1 and '--data' in done.stderr and len(done.stderr.splitlines()) == 1


def test_files_of_the_program_are_found_from_elsewhere(tmp_path, monkeypatch):
    """Default hyperparameters, recipes and models; a file of the user's own of that name comes first."""
    done = run_here('distill_xn_maskdiff.py', '--teacher_weights', 'none.pt', '--data', 'data/ICDAR.yaml', cwd=tmp_path)
    assert done.returncode == 1 and 'no teacher weights at none.pt' in done.stderr
    (tmp_path / 'models').mkdir()
    (tmp_path / 'models/yolov5n.yaml').write_text('mine: 1')
    monkeypatch.chdir(tmp_path)
    assert read_yaml('models/yolov5n.yaml') == {'mine': 1} and 'nc' in read_yaml('models/yolov5s.yaml')
    assert load_model('weights/ocrdistill-n.pt', torch.device('cpu')).quads
