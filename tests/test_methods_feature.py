"""CWD, PKD, MGD and FGD against loops written by the letter, on non-square pictures; and what they promise."""

import math

import pytest
import torch
from conftest import small_cfg

from models.yolo import DetectionModel
from utils.distillation import find_method
from utils.distillation.base import Signals, overlapped_cells
from utils.distillation.distiller import freeze_teacher
from utils.distillation.fgd import scale_masks

NAMES = ('cwd', 'pkd', 'mgd', 'fgd')
NONE = torch.zeros(0, 6)
SIZE = (64, 160)
CELLS = {17: (8, 20), 20: (4, 10), 23: (2, 5)}
TARGETS = torch.tensor(
    [
        [0, 0, 0.3, 0.4, 0.2, 0.3],
        [0, 0, 0.35, 0.5, 0.5, 0.6],
        [1, 0, 0.7, 0.6, 0.1, 0.1],
        [1, 0, 0.999, 0.01, 0.001, 0.002],
    ]
)
IGNORE = torch.tensor([[0, 0, 0.9, 0.8, 0.15, 0.3], [1, 0, 0.7, 0.6, 0.05, 0.5]])


@pytest.fixture(scope='module')
def pair():
    torch.manual_seed(0)
    return DetectionModel(small_cfg(0.125)), freeze_teacher(DetectionModel(small_cfg(0.25)))


@pytest.fixture(scope='module')
def twins():
    torch.manual_seed(0)
    return DetectionModel(small_cfg(0.125)), freeze_teacher(DetectionModel(small_cfg(0.125)))


def build(name, models, layers=(17, 20, 23), **options):
    return find_method(name)(*models, layers, torch.Generator().manual_seed(0), options)


def signals(models, batch=2, targets=TARGETS, ignore=IGNORE, cells=CELLS, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        {
            i: torch.randn(batch, model.channels[i], *c, generator=generator).to(dtype).requires_grad_()
            for i, c in cells.items()
        }
        for model in models
    )
    return Signals(SIZE, targets, ignore, [], [], student, teacher)


def make_equal(method, s):
    """Identity adapters, and the student's features are the teacher's."""
    for adapter in method.adapters.values():
        with torch.no_grad():
            adapter.weight.copy_(torch.eye(len(adapter.weight))[..., None, None])
    s.student_features = {i: f.detach().clone().requires_grad_() for i, f in s.teacher_features.items()}
    return s


def adapted(method, s, layer):
    return method.adapters[str(layer)](s.student_features[layer]).detach(), s.teacher_features[layer].detach()


def test_cwd_by_the_letter(pair):
    method, s, tau = build('cwd', pair, tau=2.0), signals(pair), 2.0
    levels = []
    for layer in CELLS:
        student, teacher = adapted(method, s, layer)
        total = 0.0
        for image in range(2):
            for channel in range(teacher.shape[1]):
                a, t = student[image, channel].flatten() / tau, teacher[image, channel].flatten() / tau
                phi_a, phi_t = a.exp() / a.exp().sum(), t.exp() / t.exp().sum()
                total += tau**2 * sum(float(q * (q / p).log()) for p, q in zip(phi_a, phi_t, strict=True))
        levels.append(total / (2 * teacher.shape[1]))
    assert method(s)['cwd'].item() == pytest.approx(sum(levels) / 3, rel=1e-4)


def test_pkd_is_one_minus_pearson(pair):
    method, s = build('pkd', pair), signals(pair)
    levels = []
    for layer in CELLS:
        student, teacher = (x.transpose(0, 1).flatten(1) for x in adapted(method, s, layer))  # (C, B h w)
        r = [torch.corrcoef(torch.stack((a, t)))[0, 1].item() for a, t in zip(student, teacher, strict=True)]
        levels.append(1 - sum(r) / len(r))
    assert method(s)['pkd'].item() == pytest.approx(sum(levels) / 3, rel=1e-4)


def test_mgd_by_the_letter(pair):
    method, s = build('mgd', pair, layers=(20,), ratio=0.5).eval(), signals(pair)
    student, teacher = adapted(method, s, 20)
    random = torch.Generator().manual_seed(int(method.seed))
    kept = torch.rand(2, 1, 4, 10, generator=random) >= 0.5
    first, _, second = method.generators['20']
    hidden = torch.conv2d(student * kept, first.weight, first.bias, padding=1).clamp(min=0)
    made = torch.conv2d(hidden, second.weight, second.bias, padding=1)
    expected = [((made[i] - teacher[i]) ** 2).mean() / (teacher[i] ** 2).mean() / 2 for i in range(2)]
    assert method(s)['mgd'].item() == pytest.approx(sum(expected).item() / 2, rel=1e-5)


def test_mgd_masks_change_with_the_step_and_resume(pair):
    method, s = build('mgd', pair), signals(pair)
    first, second = method(s)['mgd'].item(), method(s)['mgd'].item()
    assert first != second
    other = build('mgd', pair)
    other.load_state_dict(method.state_dict())
    assert other(s)['mgd'].item() == method(s)['mgd'].item()
    assert build('mgd', pair)(s)['mgd'].item() == first
    assert build('mgd', pair, ratio=1.0)(s)['mgd'] > 0  # nothing is left to generate from


def test_fgd_by_the_letter(pair):
    method, s, temperature = build('fgd', pair, layers=(17,)), signals(pair), 0.5
    student, teacher = adapted(method, s, 17)

    def attention(features):
        cells, channels = features.abs().mean(0) / temperature, features.abs().mean((1, 2)) / temperature
        return cells.numel() * cells.exp() / cells.exp().sum(), len(channels) * channels.exp() / channels.exp().sum()

    fg = bg = at = 0.0
    for image in range(2):
        (t_cells, t_channels), (s_cells, s_channels) = attention(teacher[image]), attention(student[image])
        gap = ((student[image] - teacher[image]) ** 2 * t_channels[:, None, None]).mean(0) * t_cells
        gap = gap / (teacher[image] ** 2).mean()
        own = TARGETS[TARGETS[:, 0] == image]
        boxes = [overlapped_cells(row[None] * torch.tensor([0, 1, 1, 1, 1, 1.0]), 1, (8, 20))[0] for row in own]
        free = overlapped_cells(IGNORE, 2, (8, 20))[image]
        away = [c for c in gap.new_ones(8, 20).nonzero().tolist() if not free[*c] and not any(b[*c] for b in boxes)]
        for y, x in gap.new_ones(8, 20).nonzero().tolist():
            over = [int(box.sum()) for box in boxes if box[y, x]]
            if over and not free[y, x]:
                fg += float(gap[y, x]) / min(over) / len(own) / 2
        bg += sum(float(gap[y, x]) for y, x in away) / len(away) / 2
        at += float((t_cells - s_cells).abs().mean() + (t_channels - s_channels).abs().mean()) / 2
    terms = method(s)
    assert terms['fgd_fg'].item() == pytest.approx(fg, rel=1e-4)
    assert terms['fgd_bg'].item() == pytest.approx(bg, rel=1e-4)
    assert terms['fgd_attention'].item() == pytest.approx(at, rel=1e-4)
    # The context blocks begin as the identity: their relation is the features' plain difference.
    plain = sum(float(((student[i] - teacher[i]) ** 2).mean() / (teacher[i] ** 2).mean()) for i in range(2)) / 2
    assert terms['fgd_global'].item() == pytest.approx(plain, rel=1e-4)


def test_fgd_context_block_by_the_letter(pair):
    block = build('fgd', pair, layers=(23,)).student_context['23']
    with torch.no_grad():
        block.transform[3].weight.normal_(generator=torch.Generator().manual_seed(1))
    features = torch.randn(2, block.key.in_channels, 2, 5, generator=torch.Generator().manual_seed(2))
    for image in range(2):
        x = features[image].flatten(1)  # (C, hw)
        attention = (block.key.weight[0, :, 0, 0] @ x + block.key.bias).softmax(0)
        h = block.transform[0].weight[:, :, 0, 0] @ (x @ attention) + block.transform[0].bias
        h = ((h - h.mean()) / (h.var(correction=0) + 1e-5).sqrt()).clamp(min=0)
        added = block.transform[3].weight[:, :, 0, 0] @ h + block.transform[3].bias
        assert torch.allclose(block(features)[image], features[image] + added[:, None, None], atol=1e-4)


def test_fgd_objects_count_alike():
    objects, background = scale_masks(TARGETS, NONE, (2, 8, 20))
    small = overlapped_cells(TARGETS[2:3] * torch.tensor([0, 1, 1, 1, 1, 1.0]), 1, (8, 20))[0]
    assert objects[1][small].sum().item() == pytest.approx(0.5)  # one of two objects
    assert background.sum((1, 2)).tolist() == pytest.approx([1, 1])
    assert ((objects > 0) & (background > 0)).sum() == 0


@pytest.mark.parametrize('name', ['cwd', 'pkd', 'fgd'])
def test_equal_features_cost_nothing(twins, name):
    method = build(name, twins)
    terms = method(make_equal(method, signals(twins)))
    assert all(abs(term.item()) < 1e-6 for term in terms.values()), terms


def test_cwd_ignores_shifts_and_pkd_scales_and_shifts(pair):
    generator = torch.Generator().manual_seed(3)
    for name in ('cwd', 'pkd'):
        method, s = build(name, pair), signals(pair)
        before = method(s)[name].item()
        for layer, feature in s.teacher_features.items():
            shift = torch.randn(1, feature.shape[1], 1, 1, generator=generator)
            scale = torch.rand(1, feature.shape[1], 1, 1, generator=generator) + 0.5 if name == 'pkd' else 1.0
            s.teacher_features[layer] = feature * scale + shift
        assert method(s)[name].item() == pytest.approx(before, rel=1e-4)
        s.teacher_features = {i: f.flip(3) for i, f in s.teacher_features.items()}
        assert abs(method(s)[name].item() - before) > 1e-4


@pytest.mark.parametrize('name', NAMES)
def test_gradients_reach_student_and_adapters_only(pair, name):
    method, s = build(name, pair), signals(pair)
    sum(method(s).values()).backward()
    assert all(f.grad.abs().sum() > 0 for f in s.student_features.values())
    assert all(a.weight.grad.abs().sum() > 0 for a in method.adapters.values())
    assert all(f.grad is None for f in s.teacher_features.values())


@pytest.mark.parametrize('name', NAMES)
def test_mean_over_pictures(pair, name):
    """A batch's term is the mean of its pictures' terms; PKD's is not, by its paper."""
    method, s = build(name, pair, **({'ratio': 0.0} if name == 'mgd' else {})).eval(), signals(pair)
    alone = [method(s.select(torch.tensor(which))) for which in ([True, False], [False, True])]
    for term, value in method(s).items():
        mean = (alone[0][term] + alone[1][term]).item() / 2
        if name == 'pkd':
            assert abs(value.item() - mean) > 1e-4
        else:
            assert value.item() == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision(pair, name, dtype):
    terms = build(name, pair)(signals(pair, dtype=dtype))
    assert all(term.dtype == torch.float32 and torch.isfinite(term) for term in terms.values())


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(
    ('targets', 'cells', 'value'),
    [
        (NONE, CELLS, None),  # empty pictures
        (
            torch.tensor([[0, 0, 0.0, 0.0, 1e-6, 1e-6], [1, 0, 1.0, 1.0, 0.01, 0.01]]),
            CELLS,
            None,
        ),  # tiny, at the border
        (TARGETS, dict.fromkeys(CELLS, (1, 1)), None),
        (TARGETS, CELLS, 0.0),  # features without variance
        (TARGETS, CELLS, 3.0),
        (TARGETS, CELLS, 1e4),
    ],
)
def test_degenerate_inputs(pair, name, targets, cells, value):
    method, s = build(name, pair), signals(pair, targets=targets, cells=cells)
    if value is not None:
        s.teacher_features = {i: torch.full_like(f, value) for i, f in s.teacher_features.items()}
        s.student_features = {i: torch.full_like(f, value, requires_grad=True) for i, f in s.student_features.items()}
    terms = method(s)
    assert all(torch.isfinite(term) for term in terms.values()), terms
    sum(terms.values()).backward()
    assert all(torch.isfinite(f.grad).all() for f in s.student_features.values())
    if targets is NONE and name == 'fgd':
        assert terms['fgd_fg'] == 0 < terms['fgd_bg']


@pytest.mark.parametrize('name', NAMES)
def test_random_numbers_of_the_student_are_not_touched(pair, name):
    state = torch.get_rng_state()
    method = build(name, pair)
    method(signals(pair))
    assert torch.equal(torch.get_rng_state(), state)
    assert math.isclose(build(name, pair)(signals(pair))[next(iter(method.TERMS))].item(),
                        build(name, pair)(signals(pair))[next(iter(method.TERMS))].item())  # fmt: skip
