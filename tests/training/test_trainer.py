"""Parts of the training loop, by hand, and what the commands' tests cannot reach without a GPU."""

import contextlib
import itertools

import pytest
import torch

import train
from models.checkpoint import load_model, read_checkpoint, save_checkpoint
from models.errors import UserError
from models.yolo import DetectionModel
from tests.support import ROOT, small_cfg
from tests.world import SMALL, call
from utils.loading.batches import Batch
from utils.training import prefetch
from utils.training.ema import ModelEMA
from utils.training.log import epoch_line
from utils.training.loop import ModelAndCriterion
from utils.training.nonfinite import GRADIENT, BatchResult, StepGuard
from utils.training.schedule import Schedule
from utils.training.state import Progress


def test_batches_arrive_whole_and_in_order_on_a_gpu(monkeypatch):
    """The copying ahead, with the CPU in the GPU's place: what is asked of the streams, and when."""
    log = []

    class Stream:
        copies = itertools.count(1)

        def record_event(self):
            return next(self.copies)

        def wait_event(self, event):
            log.append(f'wait {event}')

    prefetch.side_stream.cache_clear()
    monkeypatch.setattr(torch.cuda, 'Stream', lambda device: Stream())
    monkeypatch.setattr(torch.cuda, 'stream', lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: Stream())
    monkeypatch.setattr(torch.Tensor, 'record_stream', lambda self, stream: log.append(self.shape[0]))
    monkeypatch.setattr(prefetch, 'to_device', lambda batch, device: log.append(f'copy {batch.paths}') or batch)
    batches = [Batch(torch.zeros(2, 3, 4, 4), torch.zeros(5, 6), torch.zeros(1, 6), [], n, [], []) for n in (1, 2, 3)]
    found = []
    for batch in prefetch.ahead(iter(batches), torch.device('cuda')):
        log.append(f'use {batch.paths}')
        found.append(batch)
    assert found == batches
    one, two, three = ([f'wait {event}', 2, 5, 1] for event in (1, 2, 3))
    assert log == ['copy 1', 'copy 2', *one, 'use 1', 'copy 3', *two, 'use 2', *three, 'use 3']
    assert list(prefetch.ahead(iter([]), torch.device('cuda'))) == []
    prefetch.side_stream.cache_clear()  # of the one that is none


def test_ema_by_hand():
    """One update moves every float by 1 - .9999 (1 - exp(-1 / 2000)) of the way, and takes counters as they are."""
    torch.manual_seed(0)
    model = DetectionModel(small_cfg())
    ema = ModelEMA(model)
    before = {key: value.clone() for key, value in ema.model.state_dict().items()}
    model.train()(torch.rand(2, 3, 64, 64))  # statistics and counters move
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    ema.update(model)
    fraction = 1 - 0.9999 * (1 - torch.tensor(-1 / 2000, dtype=torch.float64).exp().item())
    for key, value in model.state_dict().items():
        found = ema.model.state_dict()[key]
        if value.is_floating_point():
            assert torch.allclose(found, before[key] + fraction * (value - before[key]), atol=1e-6), key
        else:
            assert found == value == 1


HYP = {'lrf': 0.1, 'warmup_epochs': 1, 'warmup_momentum': 0.8, 'momentum': 0.9, 'warmup_bias_lr': 0.1}


def optimizer_of(kind) -> torch.optim.Optimizer:
    groups = [
        {'params': [torch.nn.Parameter(torch.zeros(1))], 'kind': k, 'initial_lr': 0.01} for k in ('weight', 'bias')
    ]
    return kind(groups, lr=0.01)


def test_schedule_by_hand():
    """Half way through the warm-up, after it, and along a cosine; only SGD's biases begin above the others."""
    optimizer, schedule = optimizer_of(torch.optim.SGD), Schedule(HYP, 30, 200, 4, cosine=False)
    assert schedule.set(optimizer, 0, 0) == 1
    assert [group['lr'] for group in optimizer.param_groups] == [0, 0.1]
    assert schedule.set(optimizer, 0, 120) == 3  # 1 + 3 * .6 = 2.8
    weight, bias = optimizer.param_groups
    full = 0.01 * (1 - 0.9 * 0.02)  # .6 of 30 epochs have passed
    assert (weight['lr'], bias['lr']) == pytest.approx((full * 0.6, 0.1 + (full - 0.1) * 0.6))
    assert weight['momentum'] == pytest.approx(0.86)
    assert schedule.set(optimizer, 15, 0) == 4
    assert (weight['lr'], bias['lr'], weight['momentum']) == pytest.approx((0.0055, 0.0055, 0.9))
    schedule.set(optimizer, 15, 100)
    assert weight['lr'] == pytest.approx(0.01 * (1 - 0.9 * 15.5 / 30))
    Schedule(HYP, 30, 200, 4, cosine=True).set(optimizer, 10, 0)
    assert weight['lr'] == pytest.approx(0.01 * (1 - 0.9 * 0.25))  # (1 - cos 60 degrees) / 2
    optimizer = optimizer_of(torch.optim.AdamW)
    schedule.set(optimizer, 0, 100)
    assert [group['lr'] for group in optimizer.param_groups] == pytest.approx([0.005 * (1 - 0.9 / 60)] * 2)


@pytest.mark.parametrize(('epochs', 'batches', 'warmup'), [(30, 200, 1), (30, 20, 5), (6, 20, 2)])
def test_warm_up_lasts_a_hundred_batches_at_least_and_a_third_of_the_training_at_most(epochs, batches, warmup):
    assert Schedule(HYP, epochs, batches, 1, cosine=False).warmup == warmup


def test_progress_by_hand():
    """Means are over images: batches of four and of two, with terms of 2 and 5."""
    progress = Progress(0)
    progress.add({'box': torch.tensor(2.0)}, {'box': 0.5}, 4, 4)
    progress.add({'box': torch.tensor(5.0)}, {'box': 0.5}, 2, 2)
    progress.sum_up()
    assert progress.means() == {'train/box': 3, 'weighted/box': 1.5}


def test_only_whole_batches_run_translated(monkeypatch):
    """torch.compile would translate an epoch's last, smaller batch for longer than an epoch may take."""
    monkeypatch.setattr(torch, 'compile', lambda model: f'{model}, translated')
    both = ModelAndCriterion('network', lambda network, images, batch: network, translate=4)
    epoch = [both(torch.zeros(size, 3, 8, 8), None) for size in (2, 4, 4, 2)]  # resumed before the smaller one
    assert epoch == ['network', 'network, translated', 'network, translated', 'network']
    plain = ModelAndCriterion('network', lambda network, images, batch: network, translate=0)
    assert plain(torch.zeros(4, 3, 8, 8), None) == 'network'


def test_a_step_that_is_not_finite_leaves_nothing_behind(tmp_path):
    model = torch.nn.BatchNorm2d(3)
    batch = Batch(torch.ones(2, 3, 4, 4), torch.zeros(0, 6), torch.zeros(0, 6), [], ['a/x.jpg', 'b/y.jpg'], [], [])
    result = BatchResult({'obj': torch.tensor(float('nan'))}, 'obj')
    guard = StepGuard(model, tmp_path, 1)
    guard.begin()
    model(torch.rand(2, 3, 4, 4))
    assert model.num_batches_tracked == 1 and model.running_mean.any()
    guard.add(batch, result)
    assert guard.leave_out((0, 2), 0) == 1
    assert model.num_batches_tracked == 0 and not model.running_mean.any()
    (kept,) = torch.load(tmp_path / 'nonfinite_epoch1_batch3.pt', weights_only=True)['batches']
    assert torch.equal(kept['images'], batch.images) and kept['terms']['obj'].isnan()
    with pytest.raises(UserError, match=r'epoch 1, batch 4: obj; pictures: x\.jpg, y\.jpg'):
        guard.leave_out((0, 3), 1)


def test_all_batches_of_a_step_may_have_spoilt_its_gradient(tmp_path, capsys):
    def batch(name: str) -> Batch:
        return Batch(torch.ones(1, 3, 4, 4), torch.zeros(0, 6), torch.zeros(0, 6), [], [name], [], [])

    guard, fine = StepGuard(torch.nn.BatchNorm2d(3), tmp_path, 2), {'obj': torch.tensor(1.0)}
    for problem, told in (
        (GRADIENT, 'batches 3 to 4: gradient; pictures: a.jpg, b.jpg; kept in {}; left out (1 of 2)'),
        ('obj', 'batch 4: obj; pictures: b.jpg; kept in {}; left out with batch 3 of the same step (2 of 2)'),
    ):
        guard.begin()
        guard.add(batch('a.jpg'), BatchResult(fine))
        guard.add(batch('b.jpg'), BatchResult(fine, problem))
        guard.leave_out((0, 3), int(problem == 'obj'))
        file = tmp_path / 'nonfinite_epoch1_batch4.pt'
        assert told.format(file) in capsys.readouterr().out
        paths = [kept['paths'] for kept in torch.load(file, weights_only=True)['batches']]
        assert paths == ([['a.jpg'], ['b.jpg']] if problem == GRADIENT else [['b.jpg']])


def test_a_line_says_how_an_epoch_went():
    row = {'weighted/box': 0.5, 'weighted/obj': 0.25, 'val/map50': 0.5, 'val/map50_95': 0.25, 'seconds': 60}
    rows = [row | {'epoch': 0, 'seconds': 3600}, row | {'epoch': 1}, row | {'epoch': 2}]
    line = epoch_line(rows, 10)  # seven epochs of the median's 60 seconds are left
    assert line == 'epoch 3/10: box 0.5000 obj 0.2500 | mAP50 0.5000 mAP50-95 0.2500 | 60 s an epoch, 7 min left'
    rows[-1]['val/map50'] = float('nan')
    assert ' | not validated | ' in epoch_line(rows, 10)


def test_starting_weights_are_judged_and_keep_their_point(tiny_data, tmp_path, capsys):
    """Fine-tuning at a rate that ruins the weights leaves them as best.pt, with their threshold and word scale."""
    start = load_model(ROOT / 'teacher/demo/yolov5n.pt', fuse=False)
    points = {'320': {'conf_threshold': 0.33, 'word_scale': [0.9, 0.8]}}  # a threshold for a size, as pack.py gives
    save_checkpoint(tmp_path / 'start.pt', start, start.state_dict(), points=points)
    flags = ('--weights', tmp_path / 'start.pt', '--data', tiny_data, '--imgsz', 320, '--lr0', 1)
    flags += ('--epochs', 9, '--patience', 1, '--project', tmp_path, '--name', 'run')
    call(train.main, 'train.py', *SMALL, *flags)
    said = capsys.readouterr().out
    assert 'starting weights: mAP50 0.' in said and 'no epoch was better than the starting weights:' in said
    assert 'stopped: no better result in 1 epochs (--patience); the learning rate was still warming up' in said
    best = read_checkpoint(tmp_path / 'run/weights/best.pt')
    assert all(torch.equal(best.state[key], value) for key, value in start.state_dict().items())
    assert best.meta['epoch'] == -1 and best.meta['metrics']['map50'] > 0.2
    assert (best.meta['conf_threshold'], tuple(best.meta['word_scale'])) == (0.33, (0.9, 0.8))
    assert 'the starting weights, as val has 2 pictures, 20 are needed' in best.meta['conf_threshold_from']
    last = read_checkpoint(tmp_path / 'run/weights/last.pt')
    assert last.meta['starting_point']['conf_threshold'] == 0.33
    assert len(last.meta['resume']['rows']) == 1
