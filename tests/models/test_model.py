"""The network against reference values of YOLOv5 v7, feature taps, fusing, precision."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from models.errors import UserError
from models.layers import Conv
from models.yolo import DetectionModel
from tests.support import ROOT, SHARED, small_cfg
from utils.boxes import non_max_suppression
from utils.training.loss import DetectionLoss

PARITY = SHARED / 'parity'
CASES = json.loads((PARITY / 'cases.json').read_text()) if PARITY.is_dir() else []
needs_parity = pytest.mark.skipif(not CASES, reason='the reference values (../shared/parity) are not here')
TOLERANCE = 1e-4  # relative to the largest value


def by_formula(case: dict):
    """The case's model with its weights, its pictures and its targets."""
    sys.path.insert(0, str(PARITY))
    import formula

    model = DetectionModel(ROOT / f'models/yolov5{case["model"]}.yaml', nc=case['nc'])
    state = {
        key: value if key.endswith('anchors') else torch.as_tensor(formula.weight(key, tuple(value.shape)))
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    images = torch.from_numpy(formula.image(case['name'], tuple(case['shape'])))
    targets = torch.from_numpy(formula.targets(case['name'], case['targets'], case['shape'][0], case['nc']))
    return model, images, targets


def assert_close(actual, expected):
    expected = torch.as_tensor(expected)
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp(min=1e-6)


@needs_parity
@pytest.mark.parametrize('file', sorted(PARITY.glob('state_dict_*.json')), ids=lambda file: file.stem)
def test_state_dict_keys_and_shapes(file):
    _, _, name, classes = file.stem.split('_')
    model = DetectionModel(ROOT / f'models/yolov5{name}.yaml', nc=int(classes[2:]))
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == json.loads(file.read_text())


@needs_parity
@pytest.mark.parametrize('case', CASES, ids=lambda case: case['name'])
def test_maps_decoded_boxes_and_nms(case):
    model, images, _ = by_formula(case)
    reference = np.load(PARITY / f'{case["name"]}.npz')
    with torch.no_grad():
        decoded, maps = model.eval()(images)
    for level, raw in enumerate(maps):
        assert_close(raw, reference[f'raw{level}'])
    assert_close(decoded, reference['decoded'])
    for image, boxes in enumerate(non_max_suppression(decoded, 0.25, 0.45, 300)):
        assert_close(boxes, reference[f'nms{image}'])


@needs_parity
@pytest.mark.parametrize('case', CASES, ids=lambda case: case['name'])
def test_loss_parts_and_gradients(case):
    model, images, targets = by_formula(case)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    hyp = case['hyp']
    terms = DetectionLoss(model, hyp)(model(images), targets)
    parts = [terms[name] * hyp[name] for name in ('box', 'obj', 'cls')]
    total = sum(parts) * len(images)
    total.backward()
    assert [part.item() for part in parts] == pytest.approx(case['items_box_obj_cls'], rel=TOLERANCE)
    assert total.item() == pytest.approx(case['loss_times_batch'], rel=TOLERANCE)
    gradients = {key: p.grad.norm().item() for key, p in model.named_parameters() if p.grad is not None}
    assert {key: gradients[key] for key in case['grad_norm']} == pytest.approx(case['grad_norm'], rel=TOLERANCE)
    assert np.sqrt(sum(v**2 for v in gradients.values())) == pytest.approx(case['grad_norm_total'], rel=TOLERANCE)


@pytest.mark.parametrize(
    ('name', 'millions'), [('n', 1.765), ('s', 7.022), ('m', 20.871), ('l', 46.138), ('x', 86.217)]
)
def test_parameter_counts_of_one_class(name, millions):
    """Published counts (80 classes: 1.867, 7.235, 21.172, 46.534, 86.706 M) less the head's 79 x 3 class outputs."""
    with torch.device('meta'):
        model = DetectionModel(ROOT / f'models/yolov5{name}.yaml', nc=1)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.001)


def test_pictures_of_other_channels():
    model = DetectionModel(small_cfg(), 1, 2)
    assert model.nc == 2 and [tuple(m.shape) for m in model.train()(torch.rand(1, 1, 64, 64))][2] == (1, 3, 2, 2, 7)


@pytest.mark.parametrize('train', [True, False])
def test_taps_are_the_layers_own_outputs(train):
    model = DetectionModel(small_cfg()).train(train)
    images = torch.rand(2, 3, 64, 96)
    seen = {}
    for layer in (4, 9, 17, 23):
        model.model[layer].register_forward_hook(lambda _m, _i, out, layer=layer: seen.update({layer: out}))
    output, features = model(images, taps=(23, 4, 9, 17))
    assert set(features) == {4, 9, 17, 23}
    assert all(features[layer] is seen[layer] for layer in features)
    assert features[17].shape[2:] == (8, 12)
    maps = output if train else output[1]
    assert [tuple(m.shape) for m in maps] == [(2, 3, 8, 12, 6), (2, 3, 4, 6, 6), (2, 3, 2, 3, 6)]


@pytest.mark.parametrize('taps', [(24,), (-1,), (3, 40)])
def test_impossible_taps_are_refused(taps):
    with pytest.raises(ValueError, match='taps'):
        DetectionModel(small_cfg())(torch.rand(1, 3, 64, 64), taps=taps)


def test_taps_carry_gradients_of_both_ways():
    model = DetectionModel(small_cfg())
    _, features = model(torch.rand(1, 3, 64, 64), taps=(4, 17))
    (features[4].square().mean() + features[17].square().mean()).backward()
    assert model.model[0].conv.weight.grad.abs().sum() > 0


def randomise_statistics(model):
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)


def test_fusing_changes_nothing(nano):
    randomise_statistics(nano)
    images = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        before, _ = nano.eval()(images)
        after, _ = nano.fuse()(images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in nano.modules())
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


def test_channels_last_changes_nothing(nano):
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        before, _ = nano.eval()(images)
        after, _ = nano.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_is_near_and_decodes_in_float32(nano, dtype):
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        exact, _ = nano.eval()(images)
        with torch.autocast('cpu', dtype):
            near, maps = nano(images)
    assert near.dtype == torch.float32
    assert maps[0].dtype == dtype
    assert (near - exact).abs().max() < 0.05 * exact.abs().max()


def test_fresh_head_expects_few_objects(nano):
    """Eight objects a 640-pixel picture: the mean objectness of stride 8 starts near 8 / 80^2."""
    with torch.no_grad():
        maps = nano.train()(torch.rand(1, 3, 64, 64))
    assert maps[0][..., 4].sigmoid().mean().item() == pytest.approx(8 / 80**2, rel=0.8)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'backbone': None}, 'cannot be built'),
        ({'anchors': [[1, 2]]}, 'cannot be built'),
        ({'backbone': [[-1, 1, 'Focus', [64, 3]]]}, 'before v6.0'),
        ({'backbone': [[-1, 1, 'os.system', ['true']]]}, 'unknown layer'),
        ({'nc': 0}, 'nc is 0'),
        ({'nc': True}, 'nc is True'),
        ({'width_multiple': float('inf')}, 'width_multiple is inf'),
        ({'activation': 'nn.ReLU()'}, 'unknown keys: activation'),
    ],
)
def test_bad_model_yaml(change, message):
    with pytest.raises(UserError, match=message):
        DetectionModel(small_cfg() | change)


def test_missing_and_broken_model_yaml(tmp_path):
    with pytest.raises(UserError, match='no such file'):
        DetectionModel(tmp_path / 'none.yaml')
    (tmp_path / 'bad.yaml').write_text('a: [')
    with pytest.raises(UserError, match='not valid yaml'):
        DetectionModel(tmp_path / 'bad.yaml')
    (tmp_path / 'other.yaml').write_text('nc: 3')
    with pytest.raises(UserError, match='lacks anchors'):
        DetectionModel(tmp_path / 'other.yaml')


def test_a_layer_whose_statistics_stand_still_trains_as_it_infers():
    layer, images = Conv(3, 8, 3, 2), torch.randn(2, 3, 9, 7, requires_grad=True)
    for _ in range(3):
        layer(2 * torch.randn(4, 3, 9, 7) + 1)  # statistics that are not 0 and 1
    found = []
    for frozen in (False, True):
        layer.train(frozen)
        layer.bn.eval()
        out = layer(images)
        found.append([out, *torch.autograd.grad(out.square().sum(), [images, *layer.parameters()])])
    assert layer.training and not layer.bn.training
    for inferred, trained in zip(*found, strict=True):
        assert torch.allclose(inferred, trained, rtol=1e-4, atol=1e-5)
