"""Recipes: shorthand, options, automatic weights, schedules; the first batch's report; pictures without labels."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from models.errors import UserError
from models.yamls import read_yaml
from models.yolo import DetectionModel
from tests.support import boxes_of, small_cfg
from utils.distillation import METHODS, find_method, list_methods
from utils.distillation.balance import automatic_weight, buffers_kept, gradient_norms
from utils.distillation.distiller import Distiller, DistillerSettings, freeze_teacher, shrink
from utils.distillation.recipe import auto_ratios, parse_recipe, read_shorthand
from utils.loading.batches import Batch
from utils.runtime.hyp import DEFAULTS

NONE = torch.zeros(0, 6)
MODELS = {'teacher': 't.yaml', 'student': 's.yaml'}


def recipe_of(methods, **more):
    return parse_recipe(MODELS | {'methods': methods} | more, 'test')


def distiller_of(methods, width=0.125, imgsz=64, epochs=10, teacher_imgsz=None, nc=1, labelled=1.0, **more):
    torch.manual_seed(0)
    student = DetectionModel(small_cfg(width, nc))
    teacher = freeze_teacher(DetectionModel(small_cfg(0.25, nc)))
    recipe = recipe_of(methods, **more)
    settings = DistillerSettings(DEFAULTS, imgsz, False, 0, epochs, teacher_imgsz, labelled)
    return Distiller(student, teacher, recipe, settings), student


def batch_of(n=2, size=(64, 64), labelled=None):
    images = torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(1))
    targets = boxes_of(np.random.default_rng(7), 8, n)
    if labelled is not None:
        targets = targets[labelled[targets[:, 0].long()]]
    return images, Batch(images, targets, NONE, [], [], [], [], labelled)


# --- the shorthand ----------------------------------------------------------------------------------------------------


def test_shorthand_is_the_same_structure_as_a_yaml():
    short = recipe_of(read_shorthand('mask=0.08, pfi=5,hint'))
    long = recipe_of(
        {'mask': {'weights': {'mask_obj': 0.08, 'mask_bg': 0.04}}, 'pfi': {'weights': {'pfi': 5}}, 'hint': {}}
    )
    assert short == long
    assert parse_recipe(short.as_dict(), 'copy') == short


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('mask,pfi=20,mask=2', 'mask stands there twice'),
        ('maks', "did you mean 'mask'"),
        ('mask=much', 'expected a number, or auto'),
        ('mask=-1', '0 or more'),
        ('mask=auto:-1', "expected a number, 0 or more, or 'auto'"),
        ('', 'unknown distillation method'),
    ],
)
def test_mistakes_in_the_shorthand(text, message):
    with pytest.raises(UserError, match=message):
        recipe_of(read_shorthand(text))


def test_a_key_that_stands_twice_in_a_yaml_is_an_error(tmp_path):
    file = tmp_path / 'twice.yaml'
    file.write_text('methods:\n  pfi:\n    weights: {pfi: 20}\n  mask: {}\n  pfi:\n    weights: {pfi: 2}\n')
    with pytest.raises(UserError, match=r"line 5, .*'pfi' stands there twice"):
        read_yaml(file)
    file.write_text('a: &x {b: 1}\nc:\n  <<: *x\n  b: 2\n')  # a merge is no duplicate
    assert read_yaml(file)['c'] == {'b': 2}


@pytest.mark.parametrize(
    ('use', 'message'),
    [
        ({'cwd': {'options': {'taus': 1}}}, "unknown key 'taus', did you mean 'tau'"),
        ({'cwd': {'options': {'tau': 0}}}, 'tau of cwd is 0, expected a number from 0.01'),
        ({'cwd': {'options': {'tau': 'hot'}}}, "tau of cwd is 'hot', expected a number"),
        ({'cwd': {'options': [1]}}, 'options of cwd must be rows'),
        ({'mask': {'options': {'region': 'here'}}}, "region of mask is 'here', expected one of ground-truth"),
        ({'gid': {'options': {'instances': 2.5}}}, 'instances of gid is 2.5, expected a whole number'),
        ({'logit': {'layers': [17]}}, "logit looks at the heads' maps"),
        ({'logit': {'teacher_layers': [17]}}, "logit looks at the heads' maps"),
        (
            {'mask': {'layers': [17, 20], 'teacher_layers': [20]}},
            r'of mask must be a list of numbers, one .* \[17, 20\]',
        ),
        ({'mask': {'layers': [17], 'teacher_layers': 20}}, 'teacher_layers of mask must be a list'),
        ({'mask': {'layers': [17], 'teacher_layers': ['17']}}, 'teacher_layers of mask must be a list'),
        ({'mask': {'layers': ['17 20 23']}}, r"layers of mask is \['17 20 23'\], expected a list of layer numbers"),
    ],
)
def test_mistakes_in_options(use, message):
    with pytest.raises(UserError, match=message):
        recipe_of(use)


def test_unknown_decay():
    with pytest.raises(UserError, match='decay is .*, expected one of constant, linear, cosine'):
        recipe_of({'mask': {}}, decay='slow')


def test_every_method_has_a_line():
    rows = list_methods().splitlines()
    assert [row.split()[0] for row in rows] == list(METHODS)
    assert all('Weights: ' in row for row in rows)


# --- weights over time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('decay', 'expected'),
    [
        ('constant', {0: 0, 1: 0.5, 2: 1, 6: 1, 10: 1}),
        ('linear', {0: 0, 1: 0.5, 2: 1, 6: 0.5, 8: 0.25, 10: 0}),
        ('cosine', {0: 0, 1: 0.5, 2: 1, 6: 0.5, 4: 0.5 + np.cos(np.pi / 4) / 2, 10: 0}),
    ],
)
def test_schedules_by_hand(decay, expected):
    criterion, _ = distiller_of({'hint': {}}, warmup_epochs=2, decay=decay)
    assert criterion.settings.epochs == 10
    for epoch, fraction in expected.items():
        assert criterion.schedule(epoch) == pytest.approx(fraction, abs=1e-9)
        assert criterion.weights(epoch)['hint'] == pytest.approx(0.2 * fraction, abs=1e-9)
    assert criterion.weights(0)['box'] == criterion.weights(10)['box'] > 0


def test_a_warm_up_is_at_most_a_third_of_the_training():
    criterion, _ = distiller_of({'hint': {}}, warmup_epochs=30, decay='linear')
    assert criterion.schedule(10 / 3) == pytest.approx(1) and criterion.schedule(10) == pytest.approx(0, abs=1e-9)


# --- balance ----------------------------------------------------------------------------------------------------------


def test_gradient_norms_by_hand():
    model = nn.Module()
    model.model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1))
    model.head = model.model[1]
    weight = model.model[0].weight
    part = (weight * torch.tensor([[3.0, 4.0]])).sum()
    norms = gradient_norms(
        model, {'a': part, 'none': torch.tensor(1.0), 'head': model.model[1].bias.sum(), 'b': 2 * part}
    )
    assert norms == {'a': 5.0, 'none': 0.0, 'head': 0.0, 'b': 10.0}
    assert automatic_weight(0.3, 10.0, 5.0) == pytest.approx(0.6)
    model.model[0].requires_grad_(False)  # then the head counts
    assert gradient_norms(model, {'head': model.model[1].bias.sum(), 'none': torch.tensor(1.0)}) == {
        'head': 1,
        'none': 0,
    }


@pytest.mark.parametrize('norms', [(10.0, 0.0), (0.0, 5.0), (math.nan, 5.0), (10.0, math.inf)])
def test_no_automatic_weight_without_a_gradient(norms):
    assert math.isnan(automatic_weight(0.3, *norms))


def test_buffers_are_kept():
    norm = nn.BatchNorm2d(3)
    with buffers_kept(norm):
        norm(torch.rand(4, 3, 2, 2))
        assert norm.num_batches_tracked == 1
    assert norm.num_batches_tracked == 0
    assert torch.equal(norm.running_mean, torch.zeros(3))


def test_first_batch_reports_sets_automatic_weights_and_changes_nothing(capsys):
    methods = {'hint': {'weights': {'hint': 'auto'}}, 'mask': {'weights': {'mask_obj': 'auto:0.2', 'mask_bg': 0}}}
    criterion, student = distiller_of(methods, warmup_epochs=0)
    images, batch = batch_of()
    student.train()
    assert criterion.weights(5)['hint'] == 0  # not known yet
    before = copy.deepcopy(student.state_dict())
    criterion.prepare(student, images, batch)
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())
    assert all(parameter.grad is None for parameter in (*student.parameters(), *criterion.parameters()))
    assert 'gradient / detection' in capsys.readouterr().out

    weights = criterion.weights(5)
    terms = criterion(student, images, batch)
    parts = {name: weights[name] * terms[name] for name in ('hint', 'mask_obj')}
    parts['detection'] = sum(weights[name] * terms[name] for name in ('box', 'obj', 'cls'))
    norms = gradient_norms(student, parts)
    assert norms['hint'] / norms['detection'] == pytest.approx(0.3, rel=1e-3)
    assert norms['mask_obj'] / norms['detection'] == pytest.approx(0.2, rel=1e-3)

    other, _ = distiller_of(methods)  # a resumed run takes the weights that were found
    other.load_state_dict(criterion.state_dict())
    assert other.kd_weights == criterion.kd_weights
    assert set(Distiller.state_dict(distiller_of({'hint': {}})[0])) == {
        f'methods.hint.adapters.{layer}.{part}' for layer in (4, 6, 9) for part in ('weight', 'bias')
    }


def test_automatic_weights_share_one_total():
    recipe = recipe_of(read_shorthand('mask=auto,pfi=auto:0.5,hint=auto,rank=2'))
    weights = {term: weight for use in recipe.methods.values() for term, weight in use.weights.items()}
    assert auto_ratios(weights) == pytest.approx({'mask_obj': 0.1, 'mask_bg': 0.1, 'pfi': 0.5, 'hint': 0.1})
    with pytest.raises(UserError, match='no ratio can be kept'):
        recipe.override('--mask_diff', 'mask', 1.0)
    recipe.override('--PFI_diff', 'pfi', 7.0)
    assert recipe.methods['pfi'].weights == {'pfi': 7.0}


def test_automatic_weights_wait_for_a_batch_that_tells(capsys):
    """A first batch without labels tells nothing; then one of two counts as the usual share of labels would."""
    images, batch = batch_of(4, labelled=torch.tensor([False] * 4))
    few = batch_of(4, labelled=torch.tensor([True, False, False, False]))[1]
    criterion, student = distiller_of(read_shorthand('hint=auto,defeat=auto'), labelled=0.5)
    criterion.prepare(student, images, batch)
    assert criterion.waiting and set(criterion.kd_weights.values()) == {0.0} and capsys.readouterr().out == ''
    criterion.prepare(student, images, few)
    assert 'gradient / detection' in capsys.readouterr().out
    assert not criterion.waiting
    found = criterion.kd_weights
    assert min(found.values()) > 0

    criterion.prepare(student, *batch_of(4))
    assert criterion.kd_weights == found  # once found, it stays

    # The whole batch pulls through hint, a quarter through the labels, where half would be usual.
    alone, student = distiller_of(read_shorthand('hint=auto,defeat=auto'), labelled=0.25)
    alone.prepare(student, images, few)
    assert alone.kd_weights['hint'] == pytest.approx(found['hint'] / 2, rel=1e-4)
    assert alone.kd_weights['defeat_pos'] == pytest.approx(found['defeat_pos'], rel=1e-4)


def test_given_weights_are_compared_with_the_first_labelled_batch(capsys):
    images, batch = batch_of(4, labelled=torch.tensor([False] * 4))
    criterion, student = distiller_of(read_shorthand('hint'))
    assert not criterion.waiting  # a run that is resumed has told it
    criterion.prepare(student, images, batch, first=True)
    assert criterion.waiting and capsys.readouterr().out.startswith('first batch: no labelled picture; ')
    criterion.prepare(student, *batch_of(4))
    assert 'gradient / detection' in capsys.readouterr().out and not criterion.waiting


def test_learning_from_the_teacher_alone(capsys):
    """Gains of 0: there is nothing to compare the terms with, and no ratio to choose weights by."""
    nothing = DEFAULTS | dict.fromkeys(('box', 'obj', 'cls'), 0.0)
    student, teacher = DetectionModel(small_cfg(0.125)), freeze_teacher(DetectionModel(small_cfg(0.25)))
    settings = DistillerSettings(nothing, 64, False, 0, 10)
    criterion = Distiller(student, teacher, recipe_of(read_shorthand('hint')), settings)
    criterion.prepare(student, *batch_of(), first=True)
    assert 'gradient / detection' in capsys.readouterr().out and not criterion.waiting
    with pytest.raises(UserError, match='gains are all 0'):
        Distiller(student, teacher, recipe_of(read_shorthand('hint=auto')), settings)


def test_one_class_shares_among_the_terms_that_it_has():
    images, batch = batch_of()
    criterion, student = distiller_of(read_shorthand('logit=auto'))
    criterion.prepare(student, images, batch)
    weights = criterion.kd_weights
    assert weights['logit_cls'] == 0 and not criterion.waiting
    terms = criterion(student, images, batch)
    detection = sum(criterion.weights(5)[name] * terms[name] for name in ('box', 'obj', 'cls'))
    norms = gradient_norms(student, {name: terms[name] for name in ('logit_box', 'logit_obj')} | {'all': detection})
    assert weights['logit_box'] * norms['logit_box'] / norms['all'] == pytest.approx(0.15, rel=1e-3)


# --- pictures without labels ------------------------------------------------------------------------------------------


def test_unlabelled_pictures_give_their_share(monkeypatch):
    """Detection and mask are those of the labelled pictures times their share; hint is of all pictures."""
    criterion, student = distiller_of({'mask': {}, 'hint': {}, 'rank': {}})
    student.eval().train = lambda mode=True: student
    student.training = True  # raw maps, but every picture for itself
    labelled = torch.tensor([True, False, True, False])
    images, batch = batch_of(4, labelled=labelled)
    terms = criterion(student, images, batch)

    rows = batch.targets.clone()
    rows[:, 0] = torch.where(rows[:, 0] == 2, 1.0, 0.0)
    alone = criterion(student, images[labelled], Batch(images[labelled], rows, NONE, [], [], [], []))
    everything = criterion(student, images, batch._replace(labelled=None))
    for name in ('box', 'obj', 'mask_obj', 'mask_bg', 'rank'):
        assert terms[name].item() == pytest.approx(alone[name].item() / 2, rel=1e-5), name
        assert alone[name] > 0
    assert terms['hint'].item() == pytest.approx(everything['hint'].item(), rel=1e-6)


def test_a_batch_without_any_labels_still_teaches():
    criterion, student = distiller_of({'mask': {}, 'hint': {}, 'rank': {}, 'pfi': {}})
    images, batch = batch_of(2, labelled=torch.tensor([False, False]))
    terms = criterion(student.train(), images, batch)
    assert {name for name, term in terms.items() if term == 0} == {
        'box', 'obj', 'cls', 'mask_obj', 'mask_bg', 'rank'
    }  # fmt: skip
    assert set(terms) == set(criterion.weights(0))
    terms['hint'].backward()
    assert student.model[0].conv.weight.grad.abs().sum() > 0


def test_teachers_layers_go_with_a_run():
    recipe = recipe_of({'mask': {'layers': [17, 20], 'teacher_layers': [20, 23]}})
    assert recipe.as_dict()['methods']['mask']['teacher_layers'] == [20, 23]
    assert parse_recipe(recipe.as_dict(), 'copy') == recipe


def test_teachers_size_by_hand():
    assert recipe_of({'mask': {}}).teacher_imgsz(640) is None
    assert recipe_of({'mask': {}}, teacher_scale=2).teacher_imgsz(640) == 1280
    assert recipe_of({'mask': {}}, teacher_scale=0.5).teacher_imgsz(320) == 160
    for scale, imgsz in ((1.5, 224), (0.25, 128)):
        with pytest.raises(UserError, match=f'teacher_scale {scale} makes {imgsz * scale:g} pixels'):
            recipe_of({'mask': {}}, teacher_scale=scale).teacher_imgsz(imgsz)
    assert recipe_of({'mask': {}}, teacher_scale=1.5).teacher_imgsz(640, crop=64) == 960
    assert recipe_of({'mask': {}}, teacher_scale=2.2).teacher_imgsz(800, crop=800) == 1760  # 800 * 2.2 is a bit more
    with pytest.raises(UserError, match=r'teacher_scale 1\.5 makes 144 pixels of --crop 96'):
        recipe_of({'mask': {}}, teacher_scale=1.5).teacher_imgsz(640, crop=96)


def test_teacher_boxes_work_without_labels():
    criterion, _ = distiller_of({'mask': {'options': {'region': 'teacher'}}})
    assert not criterion.methods['mask'].needs_labels


# --- a teacher of another size ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('sizes', [(64, 128), (128, 64)])
def test_teacher_of_another_size(sizes):
    own, teachers = sizes
    criterion, student = distiller_of({'mask': {}, 'hint': {}}, imgsz=own, teacher_imgsz=teachers)
    images, batch = batch_of(size=(128, 128))
    terms = criterion(student.train(), images, batch)
    assert all(torch.isfinite(term) for term in terms.values())
    signals = criterion._signals(student, images, batch)
    assert signals.student_features[17].shape[2:] == (own // 8, own // 8)
    assert signals.teacher_features[17].shape[2:] == (teachers // 8, teachers // 8)
    terms['hint'].backward()


FOUND = {name: find_method(name) for name in METHODS}
ANY_SIZE = [name for name, m in FOUND.items() if m.LAYERS and not m.SAME_SIZE and not m.NEEDS_MAPS]


@pytest.mark.parametrize('name', ANY_SIZE)
def test_teacher_of_twice_the_size_a_level_higher(name):
    use = {'layers': [17, 20], 'teacher_layers': [20, 23]}
    if name == 'cwd':
        use['options'] = {'tau': 0.01}  # untrained maps are so flat that their divergence is rounded to 0
    criterion, student = distiller_of({name: use}, teacher_imgsz=128)
    images, batch = batch_of(size=(128, 128))
    criterion.prepare(student.train(), images, batch, first=True)
    method, signals = criterion.methods[name], criterion._signals(student, images, batch)
    for layer, theirs in zip(use['layers'], use['teacher_layers'], strict=True):
        own, its = method.features(signals, layer)
        assert own.shape == its.shape
        assert torch.equal(its, signals.teacher_features[theirs].float())  # the cells fit: nothing is averaged
    assert 17 not in signals.teacher_features
    term = sum(criterion(student, images, batch)[term] for term in method.TERMS)
    assert term > 0
    term.backward()
    assert student.model[0].conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ('name', 'own', 'its', 'end'),
    [
        ('mask', 17, 20, r"cells of 8 pixels, the teacher's layer 20 of 16; they fit where .* \(--teacher_imgsz\)$"),
        ('mask', 20, 17, r"cells of 16 pixels, the teacher's layer 17 of 8$"),
        ('pfi', 17, 20, r"cells of 8 pixels, the teacher's layer 20 of 16$"),
    ],
)
def test_cells_that_do_not_fit(name, own, its, end):
    with pytest.raises(UserError, match=f'^{name}: layer {own} has {end}'):
        distiller_of({name: {'layers': [own], 'teacher_layers': [its]}})


def test_layers_of_other_numbers_with_the_same_cells():
    criterion, student = distiller_of({'mask': {'layers': [17], 'teacher_layers': [4]}})
    assert criterion(student, *batch_of())['mask_obj'] > 0


def test_methods_that_compare_cells_refuse_another_size():
    with pytest.raises(UserError, match='128 pixels, the student 64: pfi compares predictions cell by cell'):
        distiller_of({'mask': {}, 'pfi': {}}, teacher_imgsz=128)


def test_shrink_takes_means():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(shrink(image, 0.5)[0, 0], torch.tensor([[2.5, 4.5], [10.5, 12.5]]))
    assert shrink(image, 1) is image


# --- every method with every pair -------------------------------------------------------------------------------------


@pytest.mark.parametrize('pair', ['ns', 'nl', 'nx', 'sx'])
def test_every_pair_steps_with_every_method(pair):
    from tests.support import ROOT

    student = DetectionModel(ROOT / f'models/yolov5{pair[0]}.yaml', nc=1, quads=True)
    teacher = freeze_teacher(DetectionModel(ROOT / f'models/yolov5{pair[1]}.yaml', nc=1, quads=True))
    criterion = Distiller(student, teacher, recipe_of(dict.fromkeys(METHODS)), DistillerSettings(DEFAULTS, 64))
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    images, batch = batch_of(2)
    batch = batch._replace(maps=(images * 255).byte())
    terms = criterion(student.train(), images, batch)
    weights = criterion.weights(5.0)
    assert set(weights) - set(terms) == {'logit_cls'}  # of one class
    assert all(torch.isfinite(term) and term.dtype == torch.float32 for term in terms.values())
    sum(weights[name] * term for name, term in terms.items()).backward()
    parameters = [*student.parameters(), *criterion.parameters()]
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in parameters)
    torch.optim.SGD(parameters, lr=0.01).step()
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
