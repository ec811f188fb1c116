"""Training in several processes (gloo, CPU): the same steps as one process, and what happens when one of them dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from models.errors import UserError
from tests.support import ROOT
from tests.world import SMALL, World, assert_equal, assert_same_run, load, metrics_of, place, rows_of
from utils.runtime import device, distributed

SLOW = pytest.mark.slow
TORCHRUN = (sys.executable, '-m', 'torch.distributed.run', '--standalone')
# 22 pictures: batches of 7, 7, 7 and 1 could not be shared; of 6, 6, 6 and 4 they can, unevenly among three.
SHARED = (*SMALL, '--batch-size', 6, '--nominal-batch', 6, '--no-amp', '--optimizer', 'SGD')


def start(*command, **more) -> subprocess.Popen:
    environment = os.environ | {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, env=environment, **pipes, **more)


def finish(process: subprocess.Popen) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out, err


def own_flags(world: World, kind: str) -> tuple:
    if kind == 'train':
        return ('--cfg', world.student, '--data', world.data)
    # Trained ones: features of random networks are tiny with statistics that never adapt, and terms run away.
    teacher = ('--cfg_teacher', 'models/yolov5s.yaml', '--teacher_weights', 'teacher/demo/yolov5s.pt')
    models = (*teacher, '--cfg_student', 'models/yolov5n.yaml', '--student_weights', 'teacher/demo/yolov5n.pt')
    if kind == 'distill':
        return ('--recipe', 'recipes/xn_maskdiff_PFI_Hint.yaml', *models, '--data', world.data)
    # gid ranks instances, where rounding can pick others; logit at its own weight pulls 40 times as hard as the
    # detection loss in these small pictures, and a training that jumps about magnifies rounding.
    methods = 'mask=auto,pfi=2,hint=auto,defeat,cwd,rank,fgd=auto,logit=0.5,score_l2'
    more = ('--unlabelled', world.unlabelled, '--lr0', 0.001)  # smaller steps, for the same reason
    return ('--methods', methods, *models, '--data', world.data, *more)


@pytest.mark.parametrize(
    ('kind', 'processes', 'accumulate'),
    [
        ('train', 2, 6),
        pytest.param('train', 3, 12, marks=SLOW),
        pytest.param('distill', 2, 6, marks=SLOW),
        pytest.param('unlabelled', 2, 6, marks=SLOW),
    ],
)
def test_the_same_steps_as_one_process(world, tmp_path, kind, processes, accumulate):
    """Normalisation frozen, float32: terms and weights agree to 1e-5 over 20 steps, figures of validation too."""
    script = 'train.py' if kind == 'train' else 'distill.py'
    epochs = 10 if accumulate == 12 else 5
    flags = (*SHARED, '--nominal-batch', accumulate, '--epochs', epochs, '--lr0', 0.005, *own_flags(world, kind))
    steps = {}
    for count in (1, processes):
        run, file = tmp_path / f'run{count}', tmp_path / f'{count}.json'
        launch = (sys.executable,) if count == 1 else (*TORCHRUN, f'--nproc_per_node={count}')
        out, _ = finish(start(*launch, 'tests/frozen_statistics.py', file, script, *flags, *place(run)))
        assert out.count('all results: ') == 1 and out.count(f'epoch {epochs}/{epochs}: ') == 1  # one process speaks
        steps[count] = json.loads(file.read_text())
    assert len(steps[1]) == len(steps[processes]) >= 20
    for one, many in zip(steps[1], steps[processes], strict=True):
        assert one.keys() == many.keys() and one['pictures'] == many['pictures']
        for name, value in one.items():
            assert many[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
    single, several = (load(tmp_path / f'run{count}/weights/last.pt') for count in (1, processes))
    for key, value in single['resume']['model'].items():
        assert torch.allclose(value.float(), several['resume']['model'][key].float(), rtol=1e-5, atol=1e-5), key
    for key, value in single['resume']['criterion'].items():
        assert torch.allclose(value.float(), several['resume']['criterion'][key].float(), rtol=1e-4, atol=1e-5), key
    for one, many in zip(rows_of(tmp_path / 'run1'), rows_of(tmp_path / f'run{processes}'), strict=True):
        assert {k: float(v) for k, v in many.items()} == pytest.approx(
            {k: float(v) for k, v in one.items()}, rel=1e-5, abs=1e-4
        )


def train_together(world: World, run: Path, *launch) -> tuple:
    shared = ('--epochs', 6, '--batch-size', 4, '--nominal-batch', 4, '--save-every', 0, '--no-amp')
    return (
        *TORCHRUN,
        *launch,
        '--nproc_per_node=2',
        'train.py',
        *own_flags(world, 'train'),
        *SMALL,
        *shared,
        *place(run),
    )


@pytest.fixture(scope='module')
def together(world, tmp_path_factory) -> Path:
    """A run of two processes that nobody disturbs, with normalisation trained."""
    run = tmp_path_factory.mktemp('together') / 'run'
    finish(start(*train_together(world, run)))
    return run


def wait_for_epoch(run: Path, process: subprocess.Popen, number: int = 1) -> None:
    deadline = time.monotonic() + 120
    while not (run / 'results.csv').is_file() or len(rows_of(run)) < number:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


def children(process: subprocess.Popen) -> list[int]:
    """The training processes of torchrun, in the order of their ranks."""
    found = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True, check=False)
    return [int(number) for number in found.stdout.split()]


@pytest.mark.slow
def test_files_are_those_of_one_run(together):
    names = {path.name for path in together.iterdir()}
    assert {'results.csv', 'metrics.json', 'opt.yaml', 'hyp.yaml', 'weights'} <= names
    assert len(rows_of(together)) == 6 and metrics_of(together)['epoch'] in range(6)
    assert len([name for name in names if name.startswith('events')]) == 1


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_a_process_that_dies_ends_all_with_a_message(world, tmp_path, together, victim):
    """... and torchrun --max-restarts goes on from last.pt, to the same end."""
    run = tmp_path / 'run'
    process = start(*train_together(world, run))
    wait_for_epoch(run, process)
    os.kill(children(process)[victim], signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert 'SIGKILL' in err  # torchrun's; what our processes say: test_a_lost_partner_is_said_in_a_line
    assert load(run / 'weights/last.pt')

    again = tmp_path / 'again'
    process = start(*train_together(world, again, '--max-restarts=2'))
    wait_for_epoch(again, process)
    os.kill(children(process)[victim], signal.SIGKILL)
    out, _ = finish(process)
    assert f'resuming {again}' in out
    assert_same_run(together, again)


@pytest.mark.slow
def test_processes_share_statistics_that_stand_still(world, tmp_path):
    """Those of the first process, which are saved: a resumed run goes on with them."""
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    finish(start(*train_together(world, whole), '--freeze-bn', 1))
    process = start(*train_together(world, cut), '--freeze-bn', 1)
    wait_for_epoch(cut, process, 2)
    process.terminate()
    process.communicate(timeout=120)
    resumed = (*TORCHRUN, '--nproc_per_node=2', 'train.py', '--resume', cut / 'weights/last.pt', '--device', 'cpu')
    finish(start(*resumed))
    assert_same_run(whole, cut)


@pytest.mark.slow
def test_sigterm_saves_the_step_of_all(world, tmp_path, together):
    run = tmp_path / 'run'
    process = start(*train_together(world, run))
    wait_for_epoch(run, process)
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0 and 'interrupted' in err
    resumed = (*TORCHRUN, '--nproc_per_node=2', 'train.py', '--resume', run / 'weights/last.pt', '--device', 'cpu')
    finish(start(*resumed))
    assert_same_run(together, run)


@pytest.mark.slow
def test_the_checkpoint_of_several_processes_is_whole(together):
    """Finite weights and statistics, and nothing left of the last epoch."""
    content = load(together / 'weights/last.pt')
    assert all(torch.isfinite(value).all() for value in content['model'].values())
    assert_equal(content['resume']['progress']['sums'], {}, 'nothing is left of the last epoch')


def test_alone_everything_is_itself(monkeypatch):
    value = torch.tensor([1.0, 2.0])
    assert distributed.total(value) is value and distributed.any_of(value) is value
    assert distributed.gather({'a': 1}) == [{'a': 1}] and distributed.from_first('x') == 'x'
    assert (distributed.rank(), distributed.world(), distributed.requested()) == (0, 1, False)
    module = torch.nn.Linear(2, 2)
    assert distributed.wrap(module) is module
    with pytest.raises(RuntimeError, match='Connection closed by peer'), distributed.clear_messages():
        raise RuntimeError('Connection closed by peer')  # nothing to do with processes of a run


@pytest.mark.parametrize('text', ['Connection closed by peer [127.0.0.1]:47', 'Broken pipe', 'NCCL error'])
def test_a_lost_partner_is_said_in_a_line(monkeypatch, text):
    monkeypatch.setattr(distributed, 'world', lambda: 2)
    lost = pytest.raises(UserError, match='process 0: another process of this run has ended')
    with lost, distributed.clear_messages():
        raise RuntimeError(text)


def test_gpus_do_not_exchange_what_lies_on_the_cpu(monkeypatch):
    """Weights that are found ("auto") stay on the CPU, of which NCCL knows nothing."""
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(2, device='meta'))
    module.register_buffer('auto_weights', torch.zeros(1))
    ignored = []

    class Parallel:
        def __init__(self, module, gradient_as_bucket_view, broadcast_buffers):
            assert gradient_as_bucket_view and not broadcast_buffers

        @staticmethod
        def _set_params_and_buffers_to_ignore_for_model(module, names):
            ignored.extend(names)

    monkeypatch.setattr(distributed, 'world', lambda: 2)
    monkeypatch.setattr(torch.nn.parallel, 'DistributedDataParallel', Parallel)
    distributed.wrap(module)
    assert ignored == ['auto_weights']


def test_gpus_of_processes(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    current = []
    monkeypatch.setattr(torch.cuda, 'set_device', current.append)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert device.select_device('') == torch.device('cuda:1')
    assert device.select_device('2,3') == torch.device('cuda:3')
    assert device.select_device('cpu') == torch.device('cpu')
    assert current == [torch.device('cuda:1'), torch.device('cuda:3')]  # the current GPU is the chosen one
    assert device.select_device('cuda:2,cuda:3') == torch.device('cuda:3')
    with pytest.raises(UserError, match='1 GPUs for 2 processes.*name as many'):
        device.select_device('0')
    with pytest.raises(UserError, match='a GPU is named twice'):
        device.select_device('3,3')
    with pytest.raises(UserError, match='GPUs here: 4; start one process for each'):
        device.select_device('3,4')
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '1')
    monkeypatch.setenv('LOCAL_RANK', '0')
    with pytest.raises(UserError, match=r'2 GPUs for 1 processes.*nproc_per_node 2'):
        device.select_device('0,1')
    assert device.select_device('') == torch.device('cuda:0')
