"""The loss, the step and the average of weights against values worked out by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from models.yolo import DetectionModel
from tests.support import boxes_of, small_cfg
from utils.loading.batches import Batch
from utils.runtime.hyp import DEFAULTS
from utils.training.ema import ModelEMA
from utils.training.loop import Trainer, fitness_of
from utils.training.loss import DetectionLoss, quad_misses, scaled_gains
from utils.training.optimizer import build_optimizer

NONE = torch.zeros(0, 6)


def maps_of(outputs):
    g = torch.Generator().manual_seed(3)
    return [torch.randn(2, 3, 64 // s, 64 // s, outputs, generator=g) for s in (8, 16, 32)]


def test_quad_misses_by_hand():
    box = torch.tensor([[0.0, 0, 40, 20]]).repeat(2, 1)
    aim = torch.tensor([[0.0, 0, 0, 0], [0.5, 0.5, 0, 0]])  # the second fills half of its box: IoU .5
    edge, quad = quad_misses(box, box, torch.zeros(2, 4), aim, torch.tensor([1.0, 0.25]))
    assert (edge.item(), quad.item()) == pytest.approx((0.25 * 0.225, 0.25 * 0.5), rel=1e-4)


def test_every_term_is_divided_by_the_counts_of_all_processes():
    torch.manual_seed(0)
    model = DetectionModel(small_cfg(nc=2), quads=True)
    targets, edges = boxes_of(np.random.default_rng(0), 6, 2), torch.rand(6, 5)
    maps, loss = maps_of(11), DetectionLoss(model, DEFAULTS)
    alone = loss(maps, targets, edges=edges)
    shared = loss(maps, targets, edges=edges, total=lambda counts: 2 * counts)
    for name, value in alone.items():
        assert shared[name].item() == pytest.approx(value.item() / 2, rel=1e-4) and value > 0, name


def test_weights_of_positives_go_to_their_own_terms():
    model = DetectionModel(small_cfg(nc=2))
    targets, maps = boxes_of(np.random.default_rng(0), 6, 2), maps_of(7)
    changes = {}, {'obj_pw': 2.0}, {'cls_pw': 2.0}
    plain, obj, cls = (DetectionLoss(model, DEFAULTS | change)(maps, targets) for change in changes)
    assert obj['obj'] > plain['obj'] and obj['cls'] == plain['cls']
    assert cls['cls'] > plain['cls'] and cls['obj'] == plain['obj']


def test_the_focal_term_of_a_positive():
    loss = DetectionLoss(DetectionModel(small_cfg()), DEFAULTS | {'fl_gamma': 2.0})
    assert loss._entropy(torch.zeros(1), torch.ones(1), 1.0).item() == pytest.approx(0.25 * 0.25 * np.log(2))


def test_classes_are_those_of_the_targets():
    model = DetectionModel(small_cfg(nc=2))
    maps = maps_of(7)
    for raw in maps:
        raw[..., 5:] = torch.tensor([-9.0, 9.0])
    targets = boxes_of(np.random.default_rng(0), 6, 2)
    targets[:, 1] = 1
    assert DetectionLoss(model, DEFAULTS)(maps, targets)['cls'] < 0.01
    targets[:, 1] = 0
    assert DetectionLoss(model, DEFAULTS)(maps, targets)['cls'] > 9


def test_gains_of_quads():
    expected = {'box': 0.05, 'obj': 1.0, 'cls': DEFAULTS['cls'] / 80}
    expected |= {name: DEFAULTS[name] for name in ('edge', 'quad')}
    assert scaled_gains(DEFAULTS, 1, 640, quads=True) == pytest.approx(expected)


def test_groups_of_the_optimizer():
    model = DetectionModel(small_cfg())
    assert build_optimizer(model, nn.Module(), DEFAULTS | {'momentum': 0.0}, 'SGD', 32)
    groups = {g['kind']: g for g in build_optimizer(model, nn.Module(), DEFAULTS, 'SGD', 32).param_groups}
    decays = {kind: g['weight_decay'] for kind, g in groups.items()}
    assert decays == pytest.approx({'weight': DEFAULTS['weight_decay'] / 2, 'norm': 0, 'bias': 0})
    assert all(p.dim() == 4 for p in groups['weight']['params']) and all(p.dim() == 1 for p in groups['norm']['params'])


def trainer_of(tmp_path, criterion):
    options = {'imgsz': 64, 'epochs': 1, 'batch_size': 16, 'nominal_batch': 64, 'cos_lr': False}
    options |= {'optimizer': 'SGD', 'skip_nonfinite': 0, 'freeze': 0, 'freeze_bn': None}
    return Trainer(DetectionModel(small_cfg()), criterion, ([0] * 3, [0]), options, DEFAULTS, tmp_path)


def test_a_step_of_the_trainer(tmp_path):
    trainer = trainer_of(tmp_path, nn.Linear(2, 2))
    assert trainer.state.optimizer.param_groups[0]['weight_decay'] == DEFAULTS['weight_decay']  # 4 batches of 16 a step
    for module in (trainer.model, trainer.criterion):
        for p in module.parameters():
            p.grad = torch.full_like(p, 100.0)
    seen: list[float] = []

    def norm(module):
        return torch.stack([p.grad.norm() for p in module.parameters()]).norm().item()

    trainer.state.optimizer.step = lambda: seen.extend([norm(trainer.model), norm(trainer.criterion)])
    trainer._optimize()
    assert seen == pytest.approx([10, 10], rel=1e-3)  # the adapters' never shrink the student's


def test_a_batch_of_the_trainer(tmp_path):
    trainer, calls = trainer_of(tmp_path, nn.Linear(2, 2)), []
    weight = nn.Parameter(torch.ones(()))
    trainer.criterion = SimpleNamespace(
        amp=False, waiting=False, prepare=lambda *a: calls.append(a[-1]), weights=lambda epoch: {'box': 1 + epoch}
    )
    trainer.forward = lambda images, batch: {'box': 3 * weight}
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    batch = Batch(images, NONE, NONE, [], [], [], [], whole=5)
    trainer._step(batch, 0, 0, False)
    assert calls == [True] and weight.grad == 15  # a sum over the pictures of the whole batch
    trainer._step(batch, 2, 1, False)
    assert len(calls) == 1 and weight.grad.item() == pytest.approx(15 + 15 * (1 + 2 + 1 / 3))


def test_fitness():
    assert fitness_of({'map50': 1.0, 'map50_95': 0.5}) == pytest.approx(0.55)


def test_second_update_of_the_average():
    model = nn.BatchNorm1d(1)
    ema = ModelEMA(model)
    with torch.no_grad():
        ema.model.weight.zero_()
        model.weight.fill_(1)
    for step in (1, 2):
        before = ema.model.weight.item()
        ema.updates = 1999 + step
        ema.update(model)
        assert ema.updates == 2000 + step
        share = 1 - 0.9999 * (1 - math.exp(-ema.updates / 2000))
        assert ema.model.weight.item() == pytest.approx(before + (1 - before) * share, rel=1e-5)
