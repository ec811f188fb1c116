"""The commands with --device 0: on a pretended GPU (pretend_gpu.py: no tensor is left behind), and on a real one."""

import pytest
import torch

import distill
import val
from tests.support import run_script
from tests.world import call, metrics_of
from utils.distillation import METHODS

SMALL = ('--imgsz', 64, '--batch-size', 8, '--epochs', 1, '--workers', 0, '--noplots')
PAIR = ('--cfg_teacher', 'models/yolov5s.yaml', '--teacher_weights', 'weights/ocrdistill-s.pt')
PAIR += ('--student_weights', 'weights/ocrdistill-n.pt')


def run(*command) -> str:
    """What a command prints on the pretended GPU."""
    result = run_script('tests/pretend_gpu.py', *command, '--device', 0)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    'flags',
    [
        ('--methods', ','.join(sorted({*METHODS} - {'quad', 'maps'})), '--optimizer', 'AdamW'),
        pytest.param(('--methods', 'hint,mask=auto', '--teacher_imgsz', 128), marks=pytest.mark.slow),
        pytest.param(('--methods', 'logit,pkd', '--no-amp', '--optimizer', 'SGD'), marks=pytest.mark.slow),
    ],
    ids=['all methods', 'larger pictures for the teacher', 'float32'],
)
def test_distillation(tiny_data, tmp_path, flags):
    printed = run('distill.py', *PAIR, *flags, '--data', tiny_data, *SMALL, '--project', tmp_path, '--name', 'run')
    assert 'device: pretended GPU' in printed
    assert torch.load(tmp_path / 'run/weights/last.pt')['epoch'] == 0


@pytest.mark.slow
def test_training_and_judgement(tiny_data, tmp_path):
    place = ('--project', tmp_path, '--name', 'run')
    printed = run('train.py', '--weights', 'weights/ocrdistill-n.pt', '--data', tiny_data, *SMALL, *place)
    assert 'device: pretended GPU' in printed
    best = tmp_path / 'run/weights/best.pt'
    flags = ('--imgsz', 64, '--workers', 0, '--project', tmp_path, '--name', 'val')
    assert '(pretended GPU' in run('val.py', '--weights', best, '--data', tiny_data, *flags)


@pytest.mark.slow
def test_detection(tiny_data, tmp_path):
    images = tiny_data.parent / 'set/images/test_icdar'
    assert '6 images' in run('detect.py', '--source', images, '--slice', '--project', tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')
def test_a_real_gpu(tiny_data, tmp_path):
    shared = ('--data', tiny_data, '--project', tmp_path)
    flags = ('--methods', 'hint,mask=auto,logit', *SMALL, *shared, '--device', 0, '--name', 'run')
    call(distill.main, 'distill.py', *PAIR, *flags)
    found = []
    for device in (0, 'cpu'):
        flags = ('--weights', 'weights/ocrdistill-n.pt', '--imgsz', 320, '--workers', 0, '--noplots')
        call(val.main, 'val.py', *flags, *shared, '--device', device, '--name', f'val{device}')
        found.append(metrics_of(tmp_path / f'val{device}')['map50'])
    assert found[0] == pytest.approx(found[1], abs=0.01) and found[1] > 0.2


MISTAKES = (
    'gpu + cpu',
    'torch.stack([gpu.sum(), cpu.sum()])',
    'cpu[gpu.long()]',
    'gpu.numpy()',
    'torch.nn.Linear(2, 2).to(gpu.device)(cpu)',
    'torch.where(gpu > 0, gpu, cpu)',
    'torchvision.ops.nms(torch.zeros(1, 4).to(gpu.device), torch.zeros(1), 0.5)',
    'gpu.new_ones(2).clone().detach().to(torch.float64) * cpu',
)


def test_mistakes_are_seen(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        'import torch, torchvision\n'
        "gpu, cpu = torch.zeros(2, device='cuda'), torch.ones(2)\n"
        'gpu[0] = cpu.sum() * gpu.cpu().sum() + (gpu * 2).sum().item()\n'
        f'for mistake in {MISTAKES!r}:\n'
        '    try:\n'
        '        eval(mistake)\n'
        '    except RuntimeError as error:\n'
        '        print(type(error).__name__, mistake)\n'
    )
    result = run_script('tests/pretend_gpu.py', script)
    assert result.stdout.splitlines() == [f'Refused {mistake}' for mistake in MISTAKES], result.stderr
