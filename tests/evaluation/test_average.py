"""The mean of checkpoints: by hand, on rendered pictures, and what it refuses."""

import re

import pytest
import torch

from models.checkpoint import read_checkpoint, restore, save_checkpoint
from models.errors import UserError
from models.yolo import DetectionModel
from teacher.average import average
from tests.support import ROOT, run_here, small_cfg


def checkpoint(path, seed: int = 0, cfg: dict | None = None, **entries):
    """A small network of random weights on disk."""
    torch.manual_seed(seed)
    model = DetectionModel(cfg or small_cfg())
    model.names = {0: 'text'}
    for name, buffer in model.named_buffers():
        if 'running' in name:
            buffer.uniform_(0.5, 2)
        elif name.endswith('tracked'):
            buffer.fill_(seed)
    save_checkpoint(path, model, model.half().state_dict(), **entries)
    return path


def test_average_by_hand(tmp_path):
    """One part of the first and three of the second; counters and anchors are the first's."""
    files = [checkpoint(tmp_path / f'{seed}.pt', seed) for seed in (1, 2)]
    first, second = (read_checkpoint(file).state for file in files)
    state = average([read_checkpoint(file) for file in files], [0.5, 1.5]).state_dict()
    assert not torch.equal(first['model.0.bn.running_var'], second['model.0.bn.running_var'])
    for key, value in state.items():
        if key.endswith(('anchors', 'tracked')):
            expected = first[key].to(value.dtype)
        else:
            expected = 0.25 * first[key].float() + 0.75 * second[key].float()
        torch.testing.assert_close(value, expected)


def test_average_of_equals_is_the_same(tmp_path):
    same = [read_checkpoint(checkpoint(tmp_path / 'a.pt', 5))] * 3
    for key, value in average(same, [1, 1, 1]).state_dict().items():
        torch.testing.assert_close(value.float(), same[0].state[key].float())


@pytest.mark.parametrize('change', ['width', 'names', 'anchors'])
def test_another_network_is_refused(tmp_path, change):
    first = read_checkpoint(checkpoint(tmp_path / 'a.pt'))
    other = read_checkpoint(checkpoint(tmp_path / 'b.pt', 1, small_cfg(0.25) if change == 'width' else None))
    if change == 'names':
        other.names = {0: 'word'}
    if change == 'anchors':
        key = next(k for k in other.state if k.endswith('.anchors'))
        other.state[key] = other.state[key] * 2
    with pytest.raises(UserError, match=r'b\.pt .*(another network|other anchors) than .*a\.pt'):
        average([first, other], [1, 1])


def test_files_without_anchors_are_refused(tmp_path):
    parts = [read_checkpoint(checkpoint(tmp_path / f'{seed}.pt', seed)) for seed in (1, 2)]
    for part in parts:
        del part.state[next(key for key in part.state if key.endswith('.anchors'))]
    with pytest.raises(UserError, match='anchors'):
        average(parts, [1, 1])


def test_command(tmp_path, tiny_data):
    """What it writes holds what val chose, and val.py prints the same figures."""
    demo = read_checkpoint(ROOT / 'teacher/demo/yolov5n.pt')
    model, files = restore(demo), [demo.path, tmp_path / 'other.pt']
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.02)
    save_checkpoint(files[1], model, model.state_dict(), epoch=demo.meta['epoch'] + 7)
    out = tmp_path / 'new/soup.pt'
    result = run_here('teacher/average.py', *files, '--out', out, '--data', tiny_data, '--imgsz', 320)
    assert result.returncode == 0, result.stderr
    meta = read_checkpoint(out).meta
    assert meta['options']['averaged'] == [str(file) for file in files]
    assert meta['options']['shares'] == [1.0, 1.0]
    assert 0 <= meta['conf_threshold'] <= 1
    assert meta['epoch'] == demo.meta['epoch'] + 7
    again = run_here(
        'val.py', '--weights', out, '--data', tiny_data, '--imgsz', 320, '--project', tmp_path / 'val', '--noplots'
    )
    scores = [re.search(r'mAP50 ([\d.]+), mAP50-95 ([\d.]+)', text).groups() for text in (result.stdout, again.stdout)]
    assert scores[0] == scores[1]
    assert float(scores[0][0]) > 0.2


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['a.pt'], 'two checkpoints at least'),
        (['a.pt', 'b.pt', '--shares', '1'], '--shares: 2 of them'),
        (['a.pt', 'b.pt', '--shares', '1', '-1'], '--shares: 0 or more'),
        (['a.pt', 'b.pt', '--shares', '1', 'nan'], '--shares: 0 or more'),
        (['a.pt', 'b.pt', '--shares', '1e308', '1e308'], '--shares: 0 or more'),
        (['a.pt', 'b.pt', '--out', '.'], '--out: . is a folder'),
        (['a.pt', 'b.pt', '--out', 'b.pt'], '--out: b.pt is one of the parts'),
        (['a.pt', 'b.pt', '--imgsz', '100'], '--imgsz: a multiple of 32'),
        (['nowhere.pt', 'b.pt'], 'no such checkpoint: nowhere.pt'),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path, tiny_data, arguments, says):
    result = run_here('teacher/average.py', '--out', tmp_path / 'out.pt', '--data', tiny_data, *arguments)
    assert result.returncode != 0
    assert says in result.stderr
    assert 'Traceback' not in result.stderr
