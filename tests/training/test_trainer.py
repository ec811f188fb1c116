"""Parts of the training loop that the commands' tests cannot reach without a GPU."""

import contextlib
import itertools

import torch

from models.yolo import DetectionModel
from tests.support import small_cfg
from utils.loading.batches import Batch
from utils.training import prefetch
from utils.training.ema import ModelEMA


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
