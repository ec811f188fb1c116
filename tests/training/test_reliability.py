"""Nothing is lost: runs that are killed, interrupted or short of something end, or go on, as if nothing had been."""

import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import train
from models.errors import Interrupted, UserError
from tests.support import ROOT
from tests.world import SMALL, World, assert_same_run, call, load, place, rows_of
from utils.training import loop as trainer
from utils.training.criterion import DetectionCriterion
from utils.training.loop import Trainer
from utils.training.state import Progress

pytestmark = pytest.mark.usefixtures('one_thread')
SLOW = pytest.mark.slow
KILLS = int(os.environ.get('KILLS', '15'))  # of each kind of run, in the slow test
STEADY = ('--batch-size', 4, '--nominal-batch', 8, '--save-every', 0)  # 6 batches, 3 steps an epoch, each saved


def resume(run: Path, *flags) -> Path:
    call(train.main, 'train.py', '--resume', run / 'weights/last.pt', '--device', 'cpu', *flags)
    return run


@pytest.fixture(scope='module')
def straight(world, tmp_path_factory) -> Path:
    """Two epochs that nobody disturbed, for the runs of the same options."""
    return world.train(tmp_path_factory.mktemp('reference') / 'straight', *STEADY, '--epochs', 2)


# --- kill -9 ----------------------------------------------------------------------------------------------------------


def in_child(kind: str, arguments: list[str], log: Path) -> None:
    """A command in a process that was forked after the imports."""
    os.chdir(ROOT)
    with open(log, 'a') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    sys.argv = [f'{kind}.py', *arguments]
    __import__(kind).main()


def command_of(world: World, kind: str, run: Path) -> list[str]:
    own = ('--cfg', world.student, '--data', world.data) if kind == 'train' else world.distillation('xn_maskdiff_PFI')
    flags = (*SMALL, *STEADY, *own, *place(run), '--workers', 1, '--epochs', 3, '--exist-ok')
    return [str(flag) for flag in flags]


def reported(run: Path) -> bool:
    """Whether there is nothing left to do: the last file of a run is there."""
    return (run / 'metrics.json').is_file()


@pytest.mark.parametrize(
    ('kind', 'kills'), [('distill', 1), *(pytest.param(kind, KILLS, marks=SLOW) for kind in ('train', 'distill'))]
)
def test_killed_at_random_moments(world, tmp_path, kind, kills, record_property):
    """kill -9, resume, kill -9 ...: in the end every number is that of the run that nobody disturbed.

    KILL_SEED=N repeats the moments of a failure, which prints its seed.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['train', 'distill', 'utils.training.run', 'utils.distillation.distiller'])
    seed = int(os.environ.get('KILL_SEED') or random.SystemRandom().randrange(2**32))
    record_property('seed', seed)
    print('seed', seed)
    chance, log = random.Random(seed), tmp_path / 'log'

    def start(run: Path):
        last = run / 'weights/last.pt'
        flags = ['--resume', str(last), '--device', 'cpu'] if last.is_file() else command_of(world, kind, run)
        process = context.Process(target=in_child, args=(kind, flags, log))
        process.start()
        return process

    preloading = context.Process(target=os.getpid)
    preloading.start()
    preloading.join()
    straight = tmp_path / 'straight'
    begin = time.monotonic()
    whole = start(straight)
    whole.join()
    seconds = time.monotonic() - begin
    assert whole.exitcode == 0, log.read_text()
    killed, runs = 0, [tmp_path / 'run1']
    while killed < kills or not reported(runs[-1]):
        if reported(runs[-1]):  # also if it was killed after that, on its way out: the next kills are for another run
            runs.append(tmp_path / f'run{len(runs) + 1}')
        process = start(runs[-1])
        process.join(chance.uniform(0, seconds) if killed < kills else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            killed += 1
        else:
            assert process.exitcode == 0, f'seed {seed}: {log.read_text()}'
    for run in runs:
        assert_same_run(straight, run)
        assert [row['epoch'] for row in rows_of(run)] == ['0', '1', '2'], f'seed {seed}'
        assert not list((run / 'weights').glob('.*.tmp')) or run is not runs[-1]


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('at', 'end_at'), [(1, 1), (3, 4), (10, 10)])
def test_a_signal_ends_a_run_after_its_step(world, straight, tmp_path, monkeypatch, capsys, at, end_at):
    """Ctrl-C in a batch that is a step alone (warm-up), in the first and in the second of two: the step is saved."""
    forward, calls = DetectionCriterion.forward, []

    def signalled(self, *arguments):
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Interrupted) as end:
        patch.setattr(DetectionCriterion, 'forward', signalled)
        world.train(tmp_path / 'run', *STEADY, '--epochs', 2, '--save-every', 60)
    assert end.value.signal == signal.SIGINT and len(calls) == end_at
    assert f'--resume {tmp_path / "run/weights/last.pt"}' in capsys.readouterr().out
    progress = load(tmp_path / 'run/weights/last.pt')['resume']['progress']
    assert progress['epoch'] * 6 + progress['batches'] == len(calls)
    assert_same_run(straight, resume(tmp_path / 'run'))


def test_a_second_signal_ends_it_at_once(world, tmp_path, monkeypatch):
    forward = DetectionCriterion.forward

    def signalled(self, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        return forward(self, *arguments)

    monkeypatch.setattr(DetectionCriterion, 'forward', signalled)
    with pytest.raises(Interrupted):
        world.train(tmp_path / 'run', '--epochs', 1)
    assert load(tmp_path / 'run/weights/last.pt')['resume']['progress']['batches'] == 0  # what the run began with


@pytest.mark.parametrize('failure', [Interrupted(signal.SIGTERM), UserError('img_7.jpg: the picture cannot be read')])
def test_interrupted_or_failed_while_validating(world, straight, tmp_path, monkeypatch, failure):

    def fails(*_, **__):
        raise failure

    with monkeypatch.context() as patch, pytest.raises(type(failure)):
        patch.setattr(trainer, 'evaluate', fails)
        world.train(tmp_path / 'run', *STEADY, '--epochs', 2)
    progress = load(tmp_path / 'run/weights/last.pt')['resume']['progress']
    assert (progress['epoch'], progress['batches']) == (0, 6)  # trained on all of them, not judged
    assert_same_run(straight, resume(tmp_path / 'run'))


def test_a_ignored_signal_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with trainer.StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.number == 0
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.number == signal.SIGTERM
            with pytest.raises(Interrupted), stop.at_once():
                pytest.fail('what was asked for before is heeded first')
    finally:
        signal.signal(signal.SIGINT, before)


# --- what is not finite -----------------------------------------------------------------------------------------------


def spoil(patch, *numbers: int) -> None:
    """NaN in the pictures of some batches, counted from 1: losses and statistics of normalisation become NaN."""
    to_network, calls = trainer.to_network, []

    def spoilt(images, device, amp=False):
        calls.append(1)
        return to_network(images, device, amp) * (math.nan if len(calls) in numbers else 1)

    patch.setattr(trainer, 'to_network', spoilt)


def test_steps_that_are_not_finite_can_be_left_out(world, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        spoil(patch, 2, 5)
        run = world.train(tmp_path / 'run', *STEADY, '--epochs', 2, '--skip-nonfinite', 2)
    out = capsys.readouterr().out
    assert 'batch 2: ' in out and 'left out (1 of 2)' in out and 'left out (2 of 2)' in out
    # 24 pictures: batch 1 shares its step with batch 2; batch 5 begins one.
    states = [load(run / 'weights' / name)['model'] for name in ('last.pt', 'best.pt')]
    assert all(torch.isfinite(value).all() for state in states for value in state.values())
    assert load(run / 'weights/last.pt')['resume']['progress']['skipped'] == 2
    assert len(list(run.glob('nonfinite_epoch1_batch*.pt'))) == 2
    with monkeypatch.context() as patch, pytest.raises(UserError, match='not finite in epoch 1, batch 5'):
        spoil(patch, 2, 5)
        world.train(tmp_path / 'stopped', *STEADY, '--epochs', 2, '--skip-nonfinite', 1)
    resume(tmp_path / 'stopped')  # the fault is gone
    assert len(rows_of(tmp_path / 'stopped')) == 2


def test_a_step_that_is_left_out_changes_nothing(world, tmp_path, monkeypatch):
    """With every step left out, the weights and statistics are those of the beginning."""
    spoil(monkeypatch, *range(1, 7))
    run = world.train(tmp_path / 'run', '--batch-size', 4, '--nominal-batch', 4, '--epochs', 1, '--skip-nonfinite', 6)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, '_train_epoch', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        world.train(tmp_path / 'start', '--epochs', 1)
    first, last = (load(tmp_path / name / 'weights/last.pt')['resume']['model'] for name in ('start', 'run'))
    assert all(torch.equal(first[key], last[key]) for key in first)
    assert len(rows_of(run)) == 1


def test_what_a_step_that_is_left_out_had_counts_in_no_mean(world, tmp_path, monkeypatch, capsys):
    """Batch 3 is fine and shares its step with batch 4: the epoch's terms are those of the other four."""
    added, add = [], Progress.add

    def adding(self, terms, weights, whole, images):
        add(self, terms, weights, whole, images)
        added.append((float(terms['obj'].detach()), images))

    monkeypatch.setattr(Progress, 'add', adding)
    spoil(monkeypatch, 4)
    hyp = yaml.safe_load((ROOT / 'data/hyps/scratch-low.yaml').read_text()) | {'warmup_epochs': 0}
    flags = ('--epochs', 1, '--skip-nonfinite', 1, '--hyp', world.write('cold.yaml', hyp))
    run = world.train(tmp_path / 'run', *STEADY, *flags)
    assert 'left out with batch 3 of the same step (1 of 1)' in capsys.readouterr().out
    spoilt, counted = added[2], [*added[:2], *added[3:]]
    mean = sum(term * count for term, count in counted) / sum(count for _, count in counted)
    assert len(counted) == 4 and spoilt[0] != pytest.approx(mean, rel=1e-3)
    assert float(rows_of(run)[0]['train/obj']) == pytest.approx(mean, rel=1e-5)


# --- machines ---------------------------------------------------------------------------------------------------------


def test_a_loading_process_that_is_killed_is_replaced(world, straight, tmp_path, monkeypatch, capsys):
    pause, calls = Trainer._pause, []

    def killing(self):
        pause(self)
        calls.append(1)
        if len(calls) == 2:
            for child in multiprocessing.active_children():
                child.kill()

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, '_pause', killing)
        run = world.train(tmp_path / 'run', *STEADY, '--epochs', 2, '--workers', 2)
    assert 'a process that loads pictures was killed' in capsys.readouterr().out
    assert_same_run(straight, run)


def test_validation_survives_a_loading_process(world, straight, tmp_path, monkeypatch, capsys):
    evaluate, calls = trainer.evaluate, []

    def dying(*arguments, **options):
        calls.append(1)
        if len(calls) in (1, 3, 4):
            raise trainer.WorkerDied('a process that loads pictures was killed')
        return evaluate(*arguments, **options)

    monkeypatch.setattr(trainer, 'evaluate', dying)
    run = world.train(tmp_path / 'run', *STEADY, '--epochs', 2)
    assert capsys.readouterr().out.count('Going on with new ones') == 3
    assert_same_run(straight, run)


def test_loading_processes_that_keep_dying_end_the_run(world, straight, tmp_path, monkeypatch):
    read = trainer.BatchLoader.__iter__

    def dying(self):
        for number, batch in enumerate(read(self)):
            if number == 1:
                raise trainer.WorkerDied('a process that loads pictures was killed')
            yield batch

    with monkeypatch.context() as patch, pytest.raises(UserError, match='was killed'):
        patch.setattr(trainer.BatchLoader, '__iter__', dying)
        world.train(tmp_path / 'run', *STEADY, '--epochs', 2)
    assert_same_run(straight, resume(tmp_path / 'run'))


def test_a_full_disk_ends_the_run_in_a_line(world, tmp_path):
    """No file may grow over 100 kB: last.pt cannot be written, and nothing half is left behind."""
    flags = (*command_of(world, 'train', tmp_path / 'run'), '--no-cache', '--workers', '0')
    ended = subprocess.run(
        [sys.executable, ROOT / 'train.py', *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith('error: cannot write') and 'last.pt' in ended.stderr

    assert list((tmp_path / 'run/weights').iterdir()) == []


def test_the_last_good_checkpoint_survives_a_full_disk(world, straight, tmp_path, monkeypatch):
    save, calls = torch.save, []

    def full(content, file):
        calls.append(1)
        if len(calls) == 8:
            Path(file).write_bytes(b'half a file')
            raise RuntimeError('PytorchStreamWriter failed writing file data/1')
        save(content, file)

    with monkeypatch.context() as patch, pytest.raises(UserError, match='failed writing'):
        patch.setattr(torch, 'save', full)
        world.train(tmp_path / 'run', *STEADY, '--epochs', 2)
    assert sorted(file.name for file in (tmp_path / 'run/weights').iterdir()) == ['best.pt', 'last.pt']
    assert_same_run(straight, resume(tmp_path / 'run'))


def test_a_folder_that_vanishes_is_made_anew(world, tmp_path, monkeypatch):
    pause, calls = Trainer._pause, []

    def vanishing(self):
        calls.append(1)
        if len(calls) == 4:
            shutil.rmtree(tmp_path / 'run')
        pause(self)

    monkeypatch.setattr(Trainer, '_pause', vanishing)
    run = world.train(tmp_path / 'run', *STEADY, '--epochs', 3)
    assert len(rows_of(run)) == 3 and load(run / 'weights/best.pt')


HOLDER = """
import os, signal, sys
from pathlib import Path
from utils.runtime.run_folder import sole_writer
with sole_writer(Path(sys.argv[1])):
    reader = os.fork()
    if reader:
        print(reader, flush=True)
    signal.pause()
"""


def test_one_process_at_a_time_writes_to_a_folder(world, straight, tmp_path):
    run = tmp_path / 'run'
    flags = (*STEADY, '--epochs', 2, '--exist-ok')
    run.mkdir()
    holder = subprocess.Popen([sys.executable, '-c', HOLDER, run], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    reader = int(holder.stdout.readline())
    try:
        with pytest.raises(UserError, match='run: another process is writing to it'):
            world.train(run, *flags)
        assert list(run.iterdir()) == []
        holder.kill()
        holder.wait()
        os.kill(reader, 0)  # a process that it forked lives on, and keeps nobody out
        world.train(run, *flags)
    finally:
        holder.kill()
        os.kill(reader, signal.SIGKILL)
    assert_same_run(straight, run)


def test_a_new_run_in_an_old_folder_cannot_be_taken_for_the_old_one(world, tmp_path, monkeypatch, capsys):
    run = world.train(tmp_path / 'run', '--epochs', 1, '--save-period', 1, *STEADY)
    weights = run / 'weights/best.pt'
    assert (run / 'results.csv').is_file() and (run / 'weights/epoch1.pt').is_file()
    strays = [run / name for name in ('labels.png', 'train_batch0.jpg', 'nonfinite_epoch1_batch1.pt')]
    for stray in strays:
        stray.touch()
    capsys.readouterr()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, '_judge_start', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        world.train(run, '--cfg', '', '--weights', weights, '--epochs', 2, '--exist-ok', *STEADY)
    assert weights.is_file() and not (run / 'weights/last.pt').exists() and (run / 'weights/last.old.pt').is_file()
    assert not (run / 'results.csv').exists() and len(list(run.glob('events.out.tfevents.*'))) == 1
    assert 'continue with' not in capsys.readouterr().out
    assert not (run / 'weights/epoch1.pt').exists() and (run / 'weights/epoch1.old.pt').is_file()
    assert not any(stray.exists() for stray in strays)


def test_statistics_that_stand_still_from_the_first_epoch_on_are_resumed(world, tmp_path, monkeypatch):
    start = world.train(tmp_path / 'start', '--epochs', 1, '--noval') / 'weights/last.pt'
    content = load(start)  # files whose counters were never moved have statistics all the same
    content['model'] |= {key: value * 0 for key, value in content['model'].items() if 'num_batches' in key}
    torch.save(content, start)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, '_finish_epoch', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        world.train(tmp_path / 'run', '--cfg', '', '--weights', start, '--freeze-bn', 0, '--epochs', 1, *STEADY)
    last = load(resume(tmp_path / 'run') / 'weights/last.pt')['model']
    kept = [key for key in last if 'running_' in key]
    assert kept and all(torch.equal(last[key], load(start)['model'][key]) for key in kept)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_resuming_with_other_data_is_said(world, tmp_path, monkeypatch, capsys, split):
    data, few = tmp_path / 'data.yaml', yaml.safe_load(world.few.read_text())
    whole = yaml.safe_load(world.data.read_text())
    data.write_text(yaml.safe_dump(whole))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, '_finish_epoch', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        world.train(tmp_path / 'run', '--data', data, '--epochs', 2, *STEADY)
    data.write_text(yaml.safe_dump(whole | {split: few['train']}))
    resume(tmp_path / 'run')
    assert capsys.readouterr().out.count(f'of {split} have changed since') == 1


def test_a_damaged_checkpoint_cannot_be_resumed(world, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, '_train_epoch', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        world.train(tmp_path / 'run', '--epochs', 1)
    last = tmp_path / 'run/weights/last.pt'
    for part in ('optimizer', 'progress', 'rows', 'model', 'rng'):
        content = load(last)
        content['resume'][part] = {'nothing': 1}
        torch.save(content, tmp_path / 'run/weights/damaged.pt')
        with pytest.raises(UserError, match='cannot be resumed'):
            call(train.main, 'train.py', '--resume', tmp_path / 'run/weights/damaged.pt', '--device', 'cpu')


def test_a_run_that_lacks_memory_says_how_to_go_on(world, tmp_path, monkeypatch, capsys):
    kept = []

    def scarce(self, *arguments):
        if self.last.is_file():
            kept.append(self.last)
            raise torch.OutOfMemoryError('CUDA out of memory')
        return real(self, *arguments)

    real = Trainer._train_epoch
    monkeypatch.setattr(Trainer, '_train_epoch', scarce)
    flags = ('--cfg', world.student, '--data', world.data, *SMALL, *STEADY, *place(tmp_path / 'run'), '--epochs', 2)
    with pytest.raises(torch.OutOfMemoryError):
        call(train.main, 'train.py', *flags)
    assert kept and f'continue with: --resume {kept[0]}' in capsys.readouterr().out
