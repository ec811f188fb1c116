"""Distillation methods against hand-computed values, on non-square pictures; the Distiller's promises; recipes."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from models.errors import UserError
from models.yamls import read_yaml
from models.yolo import DetectionModel
from tests.support import ROOT, boxes_of, small_cfg
from utils.distillation import find_method
from utils.distillation.base import (
    Signals,
    SquaredDifference,
    make_convolution,
    masked_mean,
    mean_square,
    overlapped_cells,
    scores,
)
from utils.distillation.distiller import Distiller, DistillerSettings, freeze_teacher
from utils.distillation.models import load_teacher, take_own_yaml
from utils.distillation.recipe import parse_recipe
from utils.loading.batches import Batch
from utils.runtime.hyp import DEFAULTS

NONE = torch.zeros(0, 6)
SIZE = (64, 160)  # height, width of the pictures: not square, so that swapped axes show
CELLS = {4: (8, 20), 6: (4, 10), 9: (2, 5), 13: (4, 10), 17: (8, 20), 20: (4, 10), 23: (2, 5)}


@pytest.fixture(scope='module')
def pair():
    torch.manual_seed(0)
    return DetectionModel(small_cfg(0.125)), freeze_teacher(DetectionModel(small_cfg(0.25)))


def build(name, pair, layers, **kwargs):
    return find_method(name)(*pair, layers, torch.Generator().manual_seed(0), **kwargs)


def signals(pair, batch=2, targets=NONE, ignore=NONE, seed=0):
    """Random features and maps of the right shapes."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = pair

    def features(model):
        return {
            i: torch.randn(batch, model.channels[i], *cells, generator=generator, requires_grad=True)
            for i, cells in CELLS.items()
        }

    def maps():
        return [torch.randn(batch, 3, *CELLS[i], 6, generator=generator, requires_grad=True) for i in (17, 20, 23)]

    return Signals(SIZE, targets, ignore, maps(), maps(), features(student), features(teacher), student.head)


def energy(method, s, layer):
    """E by the letter: mean over c of (a(S) - T)^2 over the mean of T^2, per picture."""
    adapted = method.adapters[str(layer)](s.student_features[layer])
    teacher = s.teacher_features[layer]
    rows = []
    for a, t in zip(adapted, teacher, strict=True):
        rows.append(((a - t) ** 2).mean(0) / (t**2).mean())
    return torch.stack(rows)


def test_hint_by_the_letter(pair):
    method, s = build('hint', pair, [4, 6, 9]), signals(pair)
    expected = np.mean([energy(method, s, layer).mean().item() / 2 for layer in (4, 6, 9)])
    assert method(s)['hint'].item() == pytest.approx(expected, rel=1e-5)


def test_squared_difference_and_its_gradient():
    generator = torch.Generator().manual_seed(0)
    a, t = (torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    t[0, :, 0, 0] = a[0, :, 0, 0]  # where both agree, the gradient is 0, not 0/0
    expected = [
        [[((a[b, :, y, x] - t[b, :, y, x]) ** 2).mean().item() for x in range(4)] for y in range(3)] for b in (0, 1)
    ]
    assert torch.allclose(SquaredDifference.apply(a, t), torch.tensor(expected, dtype=torch.float64))
    a.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: SquaredDifference.apply(a, t), (a,))
    SquaredDifference.apply(a, t).sum().backward()
    assert (a.grad[0, :, 0, 0] == 0).all()


def test_squared_difference_of_bfloat16_is_summed_in_float32():
    generator = torch.Generator().manual_seed(0)
    a, t = (torch.randn(2, 320, 6, 10, generator=generator).bfloat16() for _ in range(2))
    found, exact = SquaredDifference.apply(a, t), (a.double() - t.double()).square().mean(1)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), exact, rtol=2e-3)
    assert torch.allclose(mean_square(t).double(), t.double().square().mean((1, 2, 3)), rtol=1e-5)
    a.requires_grad_()
    SquaredDifference.apply(a, t).sum().backward()
    assert a.grad.dtype == torch.bfloat16
    assert torch.allclose(a.grad.double(), 2 * (a - t).double() / 320, rtol=2e-2)


def test_overlapped_cells_by_hand():
    """A word of 33 x 17 pixels around (80, 32) in 160 x 64: x 63.5..96.5, y 23.5..40.5. At stride 32 it holds no
    cell centre of the first row, and overlaps columns 1 to 3 and rows 0 and 1; at stride 8 columns 7..12, rows 2..5."""
    word = torch.tensor([[1, 0, 80 / 160, 32 / 64, 33 / 160, 17 / 64]])
    coarse, fine = overlapped_cells(word, 2, (2, 5)), overlapped_cells(word, 2, (8, 20))
    expected = torch.zeros(2, 2, 5, dtype=torch.bool)
    expected[1, 0:2, 1:4] = True
    assert torch.equal(coarse, expected)
    expected = torch.zeros(2, 8, 20, dtype=torch.bool)
    expected[1, 2:6, 7:13] = True
    assert torch.equal(fine, expected)


def test_overlapped_cells_of_an_aligned_box_add_no_neighbours():
    """A box that ends exactly on cell borders covers those cells only, in spite of rounding."""
    box = torch.tensor([[0, 0, 0.15, 0.5, 0.1, 0.5]])  # columns 2..3 of 20, rows 2..5 of 8
    expected = torch.zeros(1, 8, 20, dtype=torch.bool)
    expected[0, 2:6, 2:4] = True
    assert torch.equal(overlapped_cells(box, 1, (8, 20)), expected)


def test_masked_mean_by_hand():
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    mask = torch.tensor([[[True, False], [False, True]], [[False, False], [False, False]]])
    assert masked_mean(values, mask).item() == (2.5 + 0) / 2


def test_mask_by_the_letter_with_dont_care(pair):
    targets = torch.tensor([[0, 0, 0.3, 0.4, 0.2, 0.3], [1, 0, 0.7, 0.6, 0.1, 0.1]])
    ignore = torch.tensor([[0, 0, 0.8, 0.7, 0.3, 0.5], [1, 0, 0.7, 0.6, 0.5, 0.5]])
    s = signals(pair, targets=targets, ignore=ignore)
    method = build('mask', pair, [17, 20, 23])
    objects, background = [], []
    for layer in (17, 20, 23):
        e = energy(method, s, layer)
        for image in range(2):
            inside = overlapped_cells(
                targets[targets[:, 0] == image] * torch.tensor([0, 1, 1, 1, 1, 1.0]), 1, e.shape[1:]
            )
            free = overlapped_cells(ignore[ignore[:, 0] == image] * torch.tensor([0, 1, 1, 1, 1, 1.0]), 1, e.shape[1:])
            outside = ~inside[0] & ~free[0]
            objects.append((e[image] * inside[0] * ~free[0]).sum() / (2 * (inside & ~free).sum().clamp(min=1)))
            background.append((e[image] * outside).sum() / (2 * outside.sum()))
    terms = method(s)
    assert terms['mask_obj'].item() == pytest.approx(torch.stack(objects).mean().item(), rel=1e-5)
    assert terms['mask_bg'].item() == pytest.approx(torch.stack(background).mean().item(), rel=1e-5)


def test_mask_uses_every_layer_and_both_sides(pair):
    """The published code lost six layers of seven and the background: each must reach the student."""
    targets = boxes_of(np.random.default_rng(0), 4, 2)
    method = build('mask', pair, [13, 17, 20, 23])
    for term in ('mask_obj', 'mask_bg'):
        s = signals(pair, targets=targets)
        method(s)[term].backward()
        assert all(s.student_features[layer].grad.abs().sum() > 0 for layer in (13, 17, 20, 23))


def test_mask_axes_are_not_swapped(pair):
    """A target in the right half must not touch the left half's features, in either axis order."""
    s = signals(pair, targets=torch.tensor([[0, 0, 0.9, 0.25, 0.1, 0.2]]))
    build('mask', pair, [17])(s)['mask_obj'].backward()
    touched = s.student_features[17].grad[0].abs().sum(0) > 0
    rows, columns = touched.nonzero(as_tuple=True)
    assert columns.min() == 17  # 0.85 * 20
    assert columns.max() == 18
    assert rows.min() == 1  # 0.15 * 8 = 1.2
    assert rows.max() == 2  # 0.35 * 8 = 2.8


def test_mask_of_empty_and_full_pictures(pair):
    method = build('mask', pair, [17, 23])
    assert method(signals(pair))['mask_obj'] == 0
    whole = torch.tensor([[0, 0, 0.5, 0.5, 1, 1], [1, 0, 0.5, 0.5, 1, 1.0]])
    assert method(signals(pair, targets=whole))['mask_bg'] == 0
    terms = method(signals(pair, ignore=whole))
    assert terms['mask_obj'] == terms['mask_bg'] == 0


def test_pfi_by_the_letter(pair):
    method, s = build('pfi', pair, [17, 20, 23]), signals(pair)
    expected = []
    for level, layer in enumerate((17, 20, 23)):
        ps, pt = s.student_maps[level][..., 4].sigmoid(), s.teacher_maps[level][..., 4].sigmoid()
        gap = ((ps - pt) ** 2).mean(1)
        expected.append((gap * energy(method, s, layer)).mean().item())
    assert method(s)['pfi'].item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_pfi_sees_the_predictions_but_sends_no_gradient_through_them(pair):
    method, s = build('pfi', pair, [17, 20, 23]), signals(pair)
    first = method(s)['pfi']
    first.backward()
    assert all(raw.grad is None for raw in s.student_maps + s.teacher_maps)
    s.teacher_maps[0] = s.teacher_maps[0] + 3
    assert method(s)['pfi'] != first
    s.teacher_maps = [raw.detach() for raw in s.student_maps]
    assert method(s)['pfi'] == 0


def test_pfi_scores_of_one_and_of_several_classes():
    raw = torch.zeros(1, 3, 2, 2, 7)
    assert torch.equal(scores(raw), torch.full((1, 3, 2, 2, 2), 0.25))  # sigmoid(0) * sigmoid(0)
    one = torch.zeros(1, 3, 2, 2, 6)
    one[..., 5] = -9  # the class branch of one class is untrained and must not matter
    assert torch.equal(scores(one), torch.full((1, 3, 2, 2, 1), 0.5))


def test_pfi_refuses_layers_that_do_not_feed_the_head(pair):
    with pytest.raises(UserError, match=r'\[13\] do not feed the head'):
        build('pfi', pair, [13, 17])


@pytest.mark.parametrize('name', ['hint', 'mask', 'pfi'])
class TestEveryMethod:
    def make(self, name, pair, **kwargs):
        layers = list(find_method(name).LAYERS)
        targets = boxes_of(np.random.default_rng(5), 6, 2)
        return build(name, pair, layers), signals(pair, targets=targets, **kwargs)

    def test_terms_are_float32_scalars_with_the_declared_names(self, name, pair):
        method, s = self.make(name, pair)
        s.student_features = {k: v.to(torch.bfloat16) for k, v in s.student_features.items()}
        s.teacher_features = {k: v.to(torch.bfloat16) for k, v in s.teacher_features.items()}
        with torch.autocast('cpu', torch.bfloat16):
            terms = method(s)
        assert set(terms) == set(method.TERMS)
        assert all(term.dtype == torch.float32 and term.shape == () and torch.isfinite(term) for term in terms.values())

    def test_zero_when_the_adapted_student_is_the_teacher(self, name, pair):
        method, s = self.make(name, pair)
        with torch.no_grad():
            s.teacher_features = {i: method.adapters[str(i)](s.student_features[i]) for i in method.layers}
        assert all(term.item() == pytest.approx(0, abs=1e-9) for term in method(s).values())

    def test_gradient_reaches_student_and_adapters_never_the_teacher(self, name, pair):
        method, s = self.make(name, pair)
        sum(method(s).values()).backward()
        for layer in method.layers:
            assert s.student_features[layer].grad.abs().sum() > 0
            assert method.adapters[str(layer)].weight.grad.abs().sum() > 0
            assert s.teacher_features[layer].grad is None

    def test_batch_size_does_not_change_the_mean(self, name, pair):
        method, s = self.make(name, pair)
        single = []
        for image in range(2):
            rows = s.targets[s.targets[:, 0] == image].clone()
            rows[:, 0] = 0
            part = Signals(
                SIZE,
                rows,
                NONE,
                [m[image : image + 1] for m in s.student_maps],
                [m[image : image + 1] for m in s.teacher_maps],
                {k: v[image : image + 1] for k, v in s.student_features.items()},
                {k: v[image : image + 1] for k, v in s.teacher_features.items()},
                s.head,
            )
            single.append(method(part))
        for term, value in method(s).items():
            assert value.item() == pytest.approx((single[0][term] + single[1][term]).item() / 2, rel=1e-4)

    def test_scale_of_the_teacher_does_not_matter(self, name, pair):
        """The normalisation: ten times the teacher's features and ten times the adapter give the same terms."""
        method, s = self.make(name, pair)
        before = method(s)
        s.teacher_features = {k: v * 10 for k, v in s.teacher_features.items()}
        scaled = copy.deepcopy(method)
        with torch.no_grad():
            for adapter in scaled.adapters.values():
                adapter.weight.mul_(10)
                adapter.bias.mul_(10)
        for term, value in scaled(s).items():
            assert value.item() == pytest.approx(before[term].item(), rel=1e-4)

    def test_other_map_sizes_are_refused_by_layer(self, name, pair):
        method, s = self.make(name, pair)
        layer = method.layers[0]
        s.teacher_features[layer] = torch.randn(2, pair[1].channels[layer], 3, 3)
        with pytest.raises(UserError, match=f'layer {layer}'):
            method(s)


def test_fitted_adapters_find_a_linear_teacher(pair):
    """A teacher that is a linear map of the student, of another size in each picture: the adapter is that map."""
    method, s = build('mask', pair, [17]), signals(pair)
    generator = torch.Generator().manual_seed(9)
    size = torch.tensor([1.0, 50.0])[:, None, None, None]
    truth = make_convolution(pair[0].channels[17], pair[1].channels[17], generator)
    with torch.no_grad():
        truth.bias.normal_(generator=generator)
        s.student_features[17] = torch.randn(2, pair[0].channels[17], 80, 200, generator=generator) * size
        s.teacher_features[17] = truth(s.student_features[17])
    assert method.difference(s, 17).mean() > 1
    method.fit_adapters(s)
    assert method.difference(s, 17).mean() < 1e-4
    torch.testing.assert_close(method.adapters['17'].weight, truth.weight, atol=0.01, rtol=0.01)


def test_fitted_adapters_by_another_solver(pair):
    """Least squares over rows weighted by the pictures' units, and as many rows again that ask for zeros as there are
    coefficients; nothing beside the solution is better."""
    method, s = build('mask', pair, [20]), signals(pair, batch=3)
    student, teacher = s.student_features[20].detach(), s.teacher_features[20].detach()
    teacher[1] *= 7
    unit = teacher.square().mean((1, 2, 3), keepdim=True).sqrt()
    x = torch.cat((student, torch.ones(3, 1, *student.shape[2:])), 1) / unit
    rows, wanted = (f.permute(0, 2, 3, 1).flatten(0, 2).double() for f in (x, teacher / unit))
    count = rows.shape[1]
    prior = rows.square().sum(0).mean().sqrt() * (count / len(rows)) ** 0.5 * torch.eye(count).double()
    rows, wanted = torch.cat((rows, prior)), torch.cat((wanted, torch.zeros(count, wanted.shape[1])))
    method.fit_adapters(s)
    adapter = method.adapters['20']
    found = torch.cat((adapter.weight[:, :, 0, 0].T, adapter.bias[None])).detach().double()
    torch.testing.assert_close(found, torch.linalg.lstsq(rows, wanted).solution, atol=1e-4, rtol=1e-3)
    least = (rows @ found - wanted).square().sum()
    for step in (-0.01, 0.01):
        assert all((rows @ (found + step * one) - wanted).square().sum() > least for one in torch.eye(count)[..., None])


def test_fit_of_dead_channels_and_of_a_larger_teacher(pair):
    method, s = build('hint', pair, [6]), signals(pair)
    s.student_features[6] = s.student_features[6].detach()
    s.student_features[6][:, :2] = 0
    large = torch.randn(2, pair[1].channels[6], 8, 20, generator=torch.Generator().manual_seed(4))
    s.teacher_features[6], s.teacher_size = large, (2 * SIZE[0], 2 * SIZE[1])
    method.fit_adapters(s)
    found = method.adapters['6'].weight.clone()
    assert torch.isfinite(found).all() and not found[:, :2].any()
    s.teacher_features[6] = torch.nn.functional.avg_pool2d(large, 2)
    s.teacher_size = None
    method.fit_adapters(s)
    torch.testing.assert_close(method.adapters['6'].weight.data, found)


def test_adapters_do_not_shift_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = make_convolution(4, 8, torch.Generator().manual_seed(1))
    assert torch.equal(torch.rand(3), expected)
    second = make_convolution(4, 8, torch.Generator().manual_seed(1))
    assert torch.equal(first.weight, second.weight)
    assert first.weight.shape == (8, 4, 1, 1)


def recipe_of(**methods):
    values = {'teacher': 't.yaml', 'student': 's.yaml', 'methods': methods or {'mask': {}, 'pfi': {}, 'hint': {}}}
    return parse_recipe(values, 'test')


@pytest.fixture
def distiller():
    torch.manual_seed(0)
    student, teacher = DetectionModel(small_cfg(0.125)), freeze_teacher(DetectionModel(small_cfg(0.25)))
    settings = DistillerSettings(DEFAULTS, 64, amp=False, epochs=10)
    return Distiller(student, teacher, recipe_of(), settings), student, teacher


def batch_of(n=2):
    images = torch.rand(n, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    return images, Batch(images, boxes_of(np.random.default_rng(7), 8, n), NONE, [], [], [], [])


def test_teacher_stays_frozen_whatever_happens(distiller):
    criterion, student, teacher = distiller
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    optimizer = torch.optim.SGD([*student.parameters(), *criterion.parameters()], lr=0.1)
    images, batch = batch_of()
    for _ in range(3):
        criterion.train()
        teacher.train()
        student.train()
        sum(criterion(student, images, batch).values()).backward()
        optimizer.step()
    assert not teacher.training
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(teacher.state_dict()[key], value) for key, value in before.items())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in teacher.modules())  # fused


def test_the_criterion_owns_adapters_and_not_the_teacher(distiller):
    criterion, student, teacher = distiller
    keys = set(criterion.state_dict())
    assert keys
    assert all(key.startswith('methods.') and '.adapters.' in key for key in keys)
    assert not {id(p) for p in criterion.parameters()} & {id(p) for p in (*teacher.parameters(), *student.parameters())}


def test_detection_terms_are_those_of_plain_training(distiller):
    from utils.training.criterion import DetectionCriterion

    criterion, student, _ = distiller
    images, batch = batch_of()
    student.eval().train = lambda mode=True: student  # the same running statistics for both passes
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    student.training = True
    distilled = criterion(student, images, batch)
    plain = DetectionCriterion(student, DEFAULTS, 64, amp=False)(student, images, batch)
    assert {name: distilled[name].item() for name in plain} == pytest.approx(
        {name: term.item() for name, term in plain.items()}, rel=1e-6
    )


def test_the_first_batch_fits_the_adapters_and_leaves_the_student(distiller):
    criterion, student, _ = distiller
    images, batch = batch_of()
    student.train()
    state = {key: value.clone() for key, value in student.state_dict().items()}
    before = criterion(student, images, batch)
    student.load_state_dict(state)
    start = {key: value.clone() for key, value in criterion.state_dict().items()}
    criterion.prepare(student, images, batch, first=False)
    assert all(torch.equal(start[key], value) for key, value in criterion.state_dict().items())
    criterion.prepare(student, images, batch, first=True)
    assert not any(torch.equal(start[key], value) for key, value in criterion.state_dict().items())
    assert all(torch.equal(state[key], value) for key, value in student.state_dict().items())
    after = criterion(student, images, batch)
    assert all(after[term] < 0.5 * before[term] for term in ('mask_obj', 'mask_bg', 'hint'))
    assert after['box'] == before['box']


def test_weights_warm_up(distiller):
    criterion, _, _ = distiller
    start, middle, end = criterion.weights(0.0), criterion.weights(1.5), criterion.weights(7.0)
    assert start['mask_obj'] == start['pfi'] == start['hint'] == 0
    assert middle['mask_obj'] == pytest.approx(0.02)
    assert (end['mask_obj'], end['mask_bg'], end['pfi'], end['hint']) == (0.04, 0.02, 6, 0.2)
    assert start['box'] == end['box']


# The published combinations: which methods, on which layers.
NECK, ALL = [17, 20, 23], [13, 17, 20, 23]
RECIPES = {
    'ln_4maskdiff': ('l', {'mask': ALL}),
    'ln_4maskdiff_Hint': ('l', {'mask': ALL, 'hint': [4, 6, 9]}),
    'xn_maskdiff': ('x', {'mask': NECK}),
    'xn_maskdiff_PFI': ('x', {'mask': NECK, 'pfi': NECK}),
    'xn_maskdiff_PFI_Hint': ('x', {'mask': NECK, 'pfi': NECK, 'hint': [4, 6, 9]}),
}


@pytest.mark.parametrize('name', RECIPES)
def test_published_recipes(name):
    teacher, methods = RECIPES[name]
    recipe = parse_recipe(read_yaml(ROOT / f'recipes/{name}.yaml'), name)
    assert recipe.teacher == f'models/yolov5{teacher}.yaml'
    assert recipe.teacher_weights == f'teacher/{teacher}/weights/best.pt'
    assert recipe.student == 'models/yolov5n.yaml'
    assert recipe.student_weights == ''
    assert {method: use.layers for method, use in recipe.methods.items()} == methods
    assert parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.as_dict())), 'copy') == recipe


def test_an_unknown_method():
    with pytest.raises(UserError, match="unknown distillation method 'maks', did you mean 'mask'"):
        find_method('maks')


def test_flags_override_weights_and_keep_their_ratio():
    recipe = recipe_of(mask={'layers': [17]})
    recipe.override('--mask_diff', 'mask', 0.08)
    assert recipe.methods['mask'].weights == {'mask_obj': 0.08, 'mask_bg': 0.04}
    with pytest.raises(UserError, match='--PFI_diff has no effect'):
        recipe.override('--PFI_diff', 'pfi', 1.0)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'methods': {'mask': {'layer': [17]}}}, "unknown key 'layer', did you mean 'layers'"),
        ({'methods': {'mask': {'weights': {'mask_object': 1}}}}, "unknown key 'mask_object', did you mean 'mask_obj'"),
        ({'methods': {'mask': {'weights': {'mask_obj': -1}}}}, 'expected a number, 0 or more'),
        ({'methods': {}}, 'methods missing or empty'),
        ({'teachers': 'x'}, "unknown key 'teachers', did you mean 'teacher'"),
        ({'warmup_epochs': -1}, 'warmup_epochs'),
    ],
)
def test_bad_recipes(change, message):
    with pytest.raises(UserError, match=message):
        parse_recipe({'teacher': 't', 'student': 's', 'methods': {'mask': {}}} | change, 'bad.yaml')


@pytest.mark.parametrize('layers', [[24], [-1], [17, 17], [], ['x'], [True]])
def test_bad_layers(pair, layers):
    with pytest.raises(UserError, match='^layers'):
        build('mask', pair, layers)
    with pytest.raises(UserError, match='^teacher_layers'):
        build('mask', pair, [17], teacher_layers=layers)


def test_a_teacher_of_another_size_than_its_recipe(monkeypatch, capsys):
    """Its own yaml is used and named; with --cfg_teacher the refusal says which one it is of."""
    monkeypatch.chdir(ROOT)
    recipe = parse_recipe(read_yaml('recipes/xn_maskdiff.yaml'), 'xn_maskdiff')
    recipe.teacher_weights = 'weights/ocrdistill-s.pt'
    take_own_yaml(recipe, SimpleNamespace(cfg_teacher='models/yolov5x.yaml'))
    assert recipe.teacher == 'models/yolov5x.yaml' and capsys.readouterr().out == ''
    take_own_yaml(recipe, SimpleNamespace(cfg_teacher=None))
    assert recipe.teacher == 'models/yolov5s.yaml' and 'models/yolov5s.yaml' in capsys.readouterr().out
    assert load_teacher(recipe, {0: 'text'}).yaml['width_multiple'] == 0.5
    recipe.teacher = 'models/yolov5n.yaml'
    with pytest.raises(UserError, match='does not fit models/yolov5n.yaml .*; it is of models/yolov5s.yaml$'):
        load_teacher(recipe, {0: 'text'})
