"""CWD, PKD, MGD and FGD against loops written by the letter, on non-square pictures; and what they promise."""

import math
import statistics

import pytest
import torch

from models.yolo import DetectionModel
from tests.support import small_cfg
from utils.distillation import find_method
from utils.distillation.base import Signals
from utils.distillation.distiller import freeze_teacher
from utils.distillation.methods.fgd import scale_masks

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


pytestmark = pytest.mark.usefixtures('one_thread')


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
    return Signals(SIZE, targets, ignore, [], [], student, teacher, models[0].head)


def make_equal(method, s):
    """Identity adapters, and the student's features are the teacher's."""
    for adapter in method.adapters.values():
        with torch.no_grad():
            adapter.weight.copy_(torch.eye(len(adapter.weight))[..., None, None])
    s.student_features = {i: f.detach().clone().requires_grad_() for i, f in s.teacher_features.items()}
    return s


def adapted(method, s, layer):
    return method.adapters[str(layer)](s.student_features[layer]).detach(), s.teacher_features[layer].detach()


def channels_of(features):
    """(B, C, h, w) -> per picture and channel, a list of the cells' values."""
    return [[channel.flatten().tolist() for channel in image] for image in features]


def box_cells(row, h, w):
    """The cells (y, x) that a target overlaps: floor of the start, ceil of the end."""
    _, _, x, y, bw, bh = row
    x1, x2, y1, y2 = (x - bw / 2) * w, (x + bw / 2) * w, (y - bh / 2) * h, (y + bh / 2) * h
    columns = range(max(math.floor(x1 + 1e-4), 0), min(math.ceil(x2 - 1e-4), w))
    rows = range(max(math.floor(y1 + 1e-4), 0), min(math.ceil(y2 - 1e-4), h))
    return {(i, j) for i in rows for j in columns}


def test_cwd_by_the_letter(pair):
    method, s, tau = build('cwd', pair, tau=2.0), signals(pair), 2.0
    levels = []
    for layer in CELLS:
        student, teacher = (channels_of(x) for x in adapted(method, s, layer))
        costs = []
        for a_image, t_image in zip(student, teacher, strict=True):
            for a, t in zip(a_image, t_image, strict=True):
                a_sum, t_sum = sum(math.exp(v / tau) for v in a), sum(math.exp(v / tau) for v in t)
                phi = [(math.exp(u / tau) / a_sum, math.exp(v / tau) / t_sum) for u, v in zip(a, t, strict=True)]
                costs.append(tau**2 * sum(q * math.log(q / p) for p, q in phi))
        levels.append(sum(costs) / len(costs))
    assert method(s)['cwd'].item() == pytest.approx(sum(levels) / 3, rel=1e-4)


def test_pkd_is_one_minus_pearson(pair):
    method, s = build('pkd', pair), signals(pair)
    levels = []
    for layer in CELLS:
        student, teacher = (x.transpose(0, 1).flatten(1).tolist() for x in adapted(method, s, layer))  # (C, B h w)
        r = [statistics.correlation(a, t) for a, t in zip(student, teacher, strict=True)]
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


def masks_of(method, s):
    """What of the adapted student the generators see: {layer: (B, C, h, w) bool}."""
    seen = {}
    for layer, generator in method.generators.items():
        with torch.no_grad():
            method.adapters[layer].bias.fill_(100)  # no cell is 0 by itself
        generator.register_forward_pre_hook(lambda _, x, layer=layer: seen.update({int(layer): x[0] != 0}))
    method(s)
    return seen


def test_mgd_drops_cells_of_all_channels_otherwise_in_each_picture_and_level(pair):
    same = {13: (16, 40), 20: (16, 40)}
    seen = masks_of(build('mgd', pair, layers=(13, 20)), signals(pair, cells=same))
    for kept in seen.values():
        assert torch.equal(kept.all(1), kept.any(1))
        assert kept[:, 0].float().mean((1, 2)).tolist() == pytest.approx([0.35, 0.35], abs=0.06)
        assert not torch.equal(kept[0, 0], kept[1, 0])
    assert not torch.equal(seen[13][:, 0], seen[20][:, 0])
    assert masks_of(build('mgd', pair, layers=(20,), ratio=0.0), signals(pair))[20].all()
    assert not masks_of(build('mgd', pair, layers=(20,), ratio=1.0), signals(pair))[20].any()


def test_mgd_counts_steps_of_training_only(pair):
    method, s = build('mgd', pair, layers=(23,)), signals(pair)
    method.eval()
    assert method(s)['mgd'] == method(s)['mgd']
    assert {'seed', 'step'} <= method.state_dict().keys()
    assert method.step == 0
    method.train()(s)
    assert method.step == 1
    other = find_method('mgd')(*pair, (23,), torch.Generator().manual_seed(1))
    assert other.seed != method.seed


@pytest.mark.parametrize('layer', CELLS)
def test_fgd_by_the_letter(pair, layer):
    method, s, temperature = build('fgd', pair, layers=(layer,)), signals(pair), 0.5
    student, teacher = adapted(method, s, layer)
    h, w = CELLS[layer]

    def attention(features):
        cells, channels = features.abs().mean(0) / temperature, features.abs().mean((1, 2)) / temperature
        return cells.numel() * cells.exp() / cells.exp().sum(), len(channels) * channels.exp() / channels.exp().sum()

    fg = bg = at = plain = 0.0
    for image in range(2):
        (t_cells, t_channels), (s_cells, s_channels) = attention(teacher[image]), attention(student[image])
        gap = ((student[image] - teacher[image]) ** 2 * t_channels[:, None, None]).mean(0) * t_cells
        gap = (gap / (teacher[image] ** 2).mean()).tolist()
        boxes = [box_cells(row, h, w) for row in TARGETS.tolist() if row[0] == image]
        free = set().union(*(box_cells(row, h, w) for row in IGNORE.tolist() if row[0] == image))
        every = {(y, x) for y in range(h) for x in range(w)}
        for y, x in set().union(*boxes) - free:
            fg += gap[y][x] / min(len(box) for box in boxes if (y, x) in box) / len(boxes) / 2
        away = every - set().union(*boxes) - free
        bg += sum(gap[y][x] for y, x in away) / len(away) / 2
        at += float((t_cells - s_cells).abs().mean() + (t_channels - s_channels).abs().mean()) / 2
        plain += float(((student[image] - teacher[image]) ** 2).mean() / (teacher[image] ** 2).mean()) / 2
    terms = method(s)
    assert terms['fgd_fg'].item() == pytest.approx(fg, rel=1e-4)
    assert terms['fgd_bg'].item() == pytest.approx(bg, rel=1e-4)
    assert terms['fgd_attention'].item() == pytest.approx(at, rel=1e-4)
    # The context blocks begin as the identity: their relation is the features' plain difference.
    assert terms['fgd_global'].item() == pytest.approx(plain, rel=1e-4)


def test_fgd_global_compares_the_contexts_of_both_blocks(pair):
    method, s = build('fgd', pair, layers=(23,)), signals(pair)
    student, teacher = adapted(method, s, 23)
    generator = torch.Generator().manual_seed(1)
    blocks = method.student_context['23'], method.teacher_context['23']
    for block in blocks:
        with torch.no_grad():
            block.transform[3].weight.normal_(generator=generator)
    gap = ((blocks[0](student) - blocks[1](teacher)) ** 2).mean((1, 2, 3)) / (teacher**2).mean((1, 2, 3))
    term = method(s)['fgd_global']
    assert term.item() == pytest.approx(gap.mean().item(), rel=1e-4)
    term.backward()
    assert all(p.grad is not None for block in blocks for p in block.transform.parameters())
    assert s.teacher_features[23].grad is None


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
    for row in TARGETS[2:].tolist():  # each is one of two objects, whatever its size
        assert sum(objects[1, y, x].item() for y, x in box_cells(row, 8, 20)) == pytest.approx(0.5)
    assert background.sum((1, 2)).tolist() == pytest.approx([1, 1])
    assert ((objects > 0) & (background > 0)).sum() == 0


@pytest.mark.parametrize('name', ['cwd', 'pkd', 'fgd'])
def test_equal_features_cost_nothing(twins, name):
    method = build(name, twins)
    terms = method(make_equal(method, signals(twins)))
    assert all(abs(term.item()) < 1e-6 for term in terms.values()), terms


def test_cwd_ignores_shifts_of_the_teacher_and_pkd_scales_too(pair):
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


@pytest.mark.parametrize('name', ['cwd', 'pkd'])
def test_shifts_of_the_adapted_student_change_nothing(pair, name):
    method, s = build(name, pair), signals(pair)
    before = method(s)[name].item()
    with torch.no_grad():
        for adapter in method.adapters.values():
            adapter.bias.normal_(generator=torch.Generator().manual_seed(4))
    assert method(s)[name].item() == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize(('name', 'term'), [(name, term) for name in NAMES for term in find_method(name).TERMS])
def test_gradients_of_every_term_reach_student_and_adapters_only(pair, name, term):
    method, s = build(name, pair), signals(pair)
    method(s)[term].backward()
    assert all(f.grad.abs().sum() > 0 for f in s.student_features.values())
    assert all(a.weight.grad.abs().sum() > 0 for a in method.adapters.values())
    assert all(f.grad is None for f in s.teacher_features.values())


@pytest.mark.parametrize('name', NAMES)
def test_a_teacher_of_twice_the_size_is_averaged(pair, name):
    method, s = build(name, pair).eval(), signals(pair)
    large = signals(pair, cells={layer: (2 * h, 2 * w) for layer, (h, w) in CELLS.items()}).teacher_features
    s.teacher_features = {i: f.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)) for i, f in large.items()}
    expected = method(s)
    s.teacher_features, s.teacher_size = large, (2 * SIZE[0], 2 * SIZE[1])
    for term, value in method(s).items():
        assert value.item() == pytest.approx(expected[term].item(), rel=1e-4)


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
    method, s = build(name, pair).eval(), signals(pair, dtype=dtype)
    terms = method(s)
    assert all(term.dtype == torch.float32 for term in terms.values())
    for term, value in method(signals(pair)).items():
        assert terms[term].item() == pytest.approx(value.item(), rel=0.02)
    sum(terms.values()).backward()
    assert all(torch.isfinite(f.grad).all() for f in s.student_features.values())


TINY = torch.tensor([[0, 0, 0.0, 0.0, 1e-6, 1e-6], [1, 0, 1.0, 1.0, 0.01, 0.01]])  # at the border
WHOLE = torch.tensor([[0, 0, 0.5, 0.5, 1, 1], [1, 0, 0.5, 0.5, 1, 1.0]])


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(
    'case',
    [
        {'targets': NONE, 'ignore': NONE},
        {'targets': TINY},
        {'targets': WHOLE},
        {'ignore': WHOLE},
        {'cells': dict.fromkeys(CELLS, (1, 1))},
        {'cells': dict.fromkeys(CELLS, (1, 1)), 'batch': 1, 'targets': TARGETS[:2], 'ignore': NONE},
    ],
)
def test_degenerate_pictures(pair, name, case):
    check_finite(build(name, pair), signals(pair, **case))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('values', [(0.0, 0.0), (3.0, 3.0), (1e4, 1e4), (0.0, None), (None, 0.0), (3.0, None)])
def test_features_without_variance(pair, name, values):
    """Constant features of the student, the teacher or both; None leaves them random."""
    s = signals(pair)
    for features, value in zip((s.student_features, s.teacher_features), values, strict=True):
        if value is not None:
            features |= {i: torch.full_like(f, value, requires_grad=True) for i, f in features.items()}
    check_finite(build(name, pair), s)


def check_finite(method, s):
    terms = method(s)
    assert all(torch.isfinite(term) for term in terms.values()), terms
    sum(terms.values()).backward()
    assert all(torch.isfinite(f.grad).all() for f in s.student_features.values())
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_fgd_of_a_side_without_cells_is_zero(pair):
    method = build('fgd', pair)
    empty, full, free = (
        method(signals(pair, **case)) for case in ({'targets': NONE}, {'targets': WHOLE}, {'ignore': WHOLE})
    )
    assert empty['fgd_fg'] == 0 < empty['fgd_bg']
    assert full['fgd_bg'] == 0 < full['fgd_fg']
    assert free['fgd_fg'] == free['fgd_bg'] == 0


@pytest.mark.parametrize('name', NAMES)
def test_random_numbers_of_the_student_are_not_touched(pair, name):
    state = torch.get_rng_state()
    method, again = build(name, pair), build(name, pair)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(method.parameters(), again.parameters(), strict=True))
    s = signals(pair)
    before, after = method(s), again(s)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[term], after[term]) for term in method.TERMS)
