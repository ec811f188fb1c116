"""The benchmark compares like with like: plain and ours compute the same; and its command runs as documented."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import plain
from benchmarks.arena import ratio
from benchmarks.floor import operations
from models.checkpoint import load_model, read_checkpoint, restore
from models.yamls import read_yaml
from models.yolo import DetectionModel
from tests.support import ROOT, boxes_of, run_script, small_cfg
from utils.distillation import base, distiller
from utils.distillation.base import overlapped_cells
from utils.distillation.distiller import Distiller, DistillerSettings, freeze_teacher
from utils.distillation.recipe import parse_recipe
from utils.evaluation.evaluate import evaluate, to_network
from utils.loading.batches import Batch
from utils.loading.config import load_data_config
from utils.loading.dataset import TextDataset
from utils.loading.loader import build_loader
from utils.runtime import device
from utils.runtime.hyp import DEFAULTS
from utils.training.criterion import weighted_sum
from utils.training.ema import ModelEMA
from utils.training.optimizer import MAX_GRADIENT, build_optimizer

CPU = torch.device('cpu')
SIZE, BATCH = 192, 4
RECIPE = 'recipes/xn_maskdiff_PFI.yaml'
STUDENT, TEACHER = ROOT / 'teacher/demo/yolov5n.pt', ROOT / 'teacher/demo/yolov5s.pt'
HYP = DEFAULTS | {'lr0': 0.001, 'translate': 0.2}


@pytest.fixture(scope='module')
def batches(tiny_data) -> list[Batch]:
    dataset = TextDataset(load_data_config(tiny_data), 'train', SIZE, HYP, augment=True)
    return list(build_loader(dataset, BATCH))


def models() -> tuple[DetectionModel, DetectionModel]:
    """Trained ones: with random weights, rounding grows tenfold in every step."""
    return tuple(restore(read_checkpoint(file)).float() for file in (STUDENT, TEACHER))


class Ours:
    """The product's step on one batch after the other."""

    def __init__(self, amp: bool, hyp: dict = HYP):
        self.student, teacher = models()
        self.student.to(memory_format=torch.channels_last).train()
        recipe = parse_recipe(read_yaml(ROOT / RECIPE), RECIPE)
        recipe.override('--mask_diff', 'mask', 0.04)  # more than the recipe's: its terms fall within a few steps
        recipe.override('--PFI_diff', 'pfi', 20.0)
        frozen = freeze_teacher(teacher.to(memory_format=torch.channels_last))
        self.criterion = Distiller(self.student, frozen, recipe, DistillerSettings(hyp, SIZE, amp))
        self.optimizer = build_optimizer(self.student, self.criterion, hyp, 'SGD', BATCH)
        self.ema, self.amp = ModelEMA(self.student), amp

    def step(self, batch: Batch) -> dict[str, float]:
        terms = self.criterion(self.student, to_network(batch.images, CPU, self.amp), batch)
        (weighted_sum(terms, self.criterion.weights(100.0)) * BATCH).backward()
        for module in (self.student, self.criterion):
            nn.utils.clip_grad_norm_(module.parameters(), MAX_GRADIENT)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.student)
        return {name: term.item() for name, term in terms.items()}


def plain_training(hyp: dict = HYP) -> plain.PlainTraining:
    """The plain step with the weights, adapters and terms of `Ours`."""
    twin = Ours(amp=False)
    student, teacher = models()
    adapters = {
        name: {int(layer): copy.deepcopy(conv) for layer, conv in method.adapters.items()}
        for name, method in twin.criterion.methods.items()
    }
    weights = dict(twin.criterion.kd_weights)
    return plain.PlainTraining(student, teacher, adapters, weights, hyp, SIZE, BATCH)


def test_terms_and_training_agree_with_the_plain_version(batches):
    """In float32 to rounding, over steps that change the weights."""
    theirs, ours = plain_training(), Ours(amp=False)
    for number, batch in enumerate(batches):
        expected, found = theirs.step(batch), ours.step(batch)
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-7), number
    final, before = ours.ema.model.state_dict(), models()[0].state_dict()
    keys = [key for key, value in final.items() if value.is_floating_point()]
    moved = torch.cat([(theirs.average[key] - before[key]).flatten() for key in keys]).norm()
    apart = torch.cat([(theirs.average[key] - final[key]).flatten() for key in keys]).norm()
    assert 0 < apart < 0.1 * moved


def test_the_plain_version_takes_a_step_with_scaled_losses(batches):
    """As it does on a GPU, in float16."""
    theirs = plain_training()
    theirs.scaler = torch.amp.GradScaler('cpu')
    before = [parameter.clone() for parameter in theirs.student.parameters()]
    theirs.step(batches[0])
    assert any(not one.equal(other) for one, other in zip(before, theirs.student.parameters(), strict=True))


def test_a_step_in_bfloat16_differs_by_rounding_alone(batches, monkeypatch):
    for module in (device, distiller, base):  # also on processors that emulate it, which takes four times as long
        monkeypatch.setattr(module, 'has_bfloat16', lambda _: True)
    expected, found = plain_training().step(batches[0]), Ours(amp=True).step(batches[0])
    assert found == pytest.approx(expected, rel=0.03) and found != pytest.approx(expected, rel=1e-5)


@pytest.mark.skipif(not device.has_bfloat16(CPU), reason='this processor has no bfloat16; emulated it takes minutes')
def test_training_in_bfloat16_learns_what_the_plain_version_learns(batches):
    faster = HYP | {'lr0': 0.003}
    theirs, ours = plain_training(faster), Ours(True, faster)
    rows = [(theirs.step(batch), ours.step(batch)) for batch in batches * 4]
    weights = ours.criterion.weights(100.0)
    totals = [[sum(weights[name] * terms[name] for name in terms) for terms in row] for row in rows]
    epochs = np.array(totals).reshape(4, -1, 2).mean(1)
    assert epochs[:, 1] == pytest.approx(epochs[:, 0], rel=0.1)
    assert (epochs[-1] < 0.9 * epochs[0]).all()  # and something was learnt


def test_looped_mask_is_the_product_s():
    boxes = boxes_of(np.random.default_rng(3), 9, 2)
    assert torch.equal(plain.looped_mask(boxes, (2, 7, 11)).bool(), overlapped_cells(boxes, 2, (7, 11)))


def test_plain_validation_agrees(tiny_data):
    """The same squares and thresholds: only the resizing of pictures differs a little."""
    data = load_data_config(tiny_data)
    dataset = TextDataset(data, 'test', 320)
    map50, hmean = plain.plain_validate(plain.plain_model(STUDENT, CPU), dataset, 320, 4, 0)
    found = evaluate(load_model(STUDENT), build_loader(dataset, 4), CPU)
    assert map50 == pytest.approx(found.scores['map50'], abs=0.01) and map50 > 0.5
    assert hmean == pytest.approx(found.icdar().at(0.25)['icdar_hmean'], abs=0.02) and hmean > 0.3


def test_ratio_is_round_by_round():
    assert ratio([4, 9, 4], [2, 3, 4]) == {'median': 2, 'least': 1, 'greatest': 3}


def test_operations_by_hand():
    """A backward pass costs about twice the forward one: gradients of weights and of inputs, the first layer's not."""
    model = DetectionModel(small_cfg(0.125))
    forward, both = (operations(model, 64, backward) for backward in (False, True))
    first = model.model[0].conv.weight
    expected = 3 * forward - 2 * first.numel() * 32 * 32  # no gradient of the pictures
    assert both == pytest.approx(expected)


@pytest.mark.parametrize(
    'stages',
    [
        ['loading mosaics'],
        pytest.param(['training step', 'loading mosaics', 'detection'], marks=pytest.mark.slow),
    ],
    ids=['one stage', 'every kind'],
)
def test_command(tiny_data, tmp_path, stages, monkeypatch):
    """Every kind of stage but the large teachers, small; in float32, so that ours and plain compute alike."""
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', 'AVX2')  # no bfloat16 then
    flags = ('--imgsz', 64, '--batch-size', 2, '--rounds', 1, '--workers', 1, '--device', 'cpu')
    only = 'step, N|one process|detection' if len(stages) > 1 else 'one process'
    result = run_script('benchmarks/run.py', '--data', tiny_data, '--only', only, *flags, '--out', tmp_path / 'out')
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / 'out/bench.json').read_text())
    assert [stage['title'].split(',')[0] for stage in report['stages']] == stages
    for stage in report['stages']:
        assert all(entry['ms'] > 0 and entry['peak'] >= entry['loaded'] > 0 for entry in stage['contestants'].values())
        assert f'| {stage["title"]} | ours |' in result.stdout
    for step in (stage for stage in report['stages'] if stage['title'].startswith('training step')):
        losses = [step['contestants'][name]['found']['obj'] for name in ('ours', 'plain')]
        assert losses[0] == pytest.approx(losses[1], rel=0.1)
        assert 0 < step['floor']['reached'] < 1.5
    assert (tmp_path / 'out/bench.md').read_text() in result.stdout


def test_command_reports_mistakes(tmp_path):
    result = run_script('benchmarks/run.py', '--data', 'none.yaml', '--out', tmp_path)
    assert result.returncode == 1 and result.stderr == 'error: none.yaml: no such file\n'
    assert run_script('benchmarks/run.py', '--imgsz', 100).returncode == 2
    result = run_script('benchmarks/run.py', '--weights', 'weights/ocrdistill-n.pt', '--out', tmp_path)
    assert result.returncode == 1 and 'the plain versions' in result.stderr
