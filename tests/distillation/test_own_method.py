"""A method of one's own: the template of docs/methods.md as it stands there, and files that are wrong."""

import ast
import re
import sys

import numpy as np
import pytest
import torch

from models.errors import UserError
from models.yolo import DetectionModel
from tests.support import ROOT, boxes_of, small_cfg
from utils.distillation import METHODS, find_method, list_methods, methods
from utils.distillation.distiller import Distiller, DistillerSettings, freeze_teacher
from utils.distillation.recipe import parse_recipe, read_shorthand
from utils.loading.batches import Batch
from utils.runtime.hyp import DEFAULTS
from utils.training.criterion import weighted_sum

NONE = torch.zeros(0, 6)
PAGE = (ROOT / 'docs/methods.md').read_text(encoding='utf-8').partition('## Write your own method')[2]
TEMPLATE, LINE = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)[:2]
FILE = re.search(r'utils/distillation/methods/(\w+)\.py', PAGE)[1]


@pytest.fixture
def add(tmp_path, monkeypatch):
    """A function that puts a file beside the methods' own and a line into their registry."""
    monkeypatch.setattr(methods, '__path__', [*methods.__path__, str(tmp_path)])
    added = []

    def add(name, wanted, text):
        (tmp_path / f'{name}.py').write_text(text, encoding='utf-8')
        monkeypatch.setitem(methods.METHODS, name, wanted)
        added.append(name)

    yield add
    for name in added:
        sys.modules.pop(f'utils.distillation.methods.{name}', None)
        vars(methods).pop(name, None)


def training_of(shorthand):
    """A small student with its criterion, and a batch."""
    torch.manual_seed(0)
    student, teacher = DetectionModel(small_cfg(0.125)), freeze_teacher(DetectionModel(small_cfg(0.25)))
    values = {'teacher': 't.yaml', 'student': 's.yaml', 'methods': read_shorthand(shorthand), 'warmup_epochs': 0}
    criterion = Distiller(student, teacher, parse_recipe(values, 'test'), DistillerSettings(DEFAULTS, 64, amp=False))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    batch = Batch(images, boxes_of(np.random.default_rng(7), 8, 2), NONE, [], [], [], [])
    return student.train(), criterion, images, batch


def test_the_pages_template_trains(add):
    ((name, wanted),) = ast.literal_eval(f'{{{LINE}}}').items()
    assert name == FILE
    assert len(TEMPLATE.splitlines()) < 30
    add(name, wanted, TEMPLATE)
    row = next(row for row in list_methods().splitlines() if row.split()[0] == name)
    assert TEMPLATE.splitlines()[0].strip('"').rstrip('.') in row

    student, criterion, images, batch = training_of(f'{name}=auto')
    criterion.prepare(student, images, batch)
    assert criterion.weights(1.0)[name] > 0
    optimizer = torch.optim.Adam([*student.parameters(), *criterion.parameters()], lr=1e-3)
    first, *_, last = [_step(student, criterion, optimizer, images, batch)[name].item() for _ in range(4)]
    assert 0 < last < first < 2


def _step(student, criterion, optimizer, images, batch):
    optimizer.zero_grad()
    terms = criterion(student, images, batch)
    weighted_sum(terms, criterion.weights(1.0)).backward()
    optimizer.step()
    return terms


def test_the_templates_option_and_its_value_for_equal_features(add):
    """Features that point the same way cost 0; opposite ones 2, less the margin."""
    add('cosine', 'Cosine', TEMPLATE)
    pair = DetectionModel(small_cfg(0.125)), DetectionModel(small_cfg(0.125))
    method = find_method('cosine')(*pair, [17], torch.Generator(), {'margin': 0.5})
    teacher = torch.randn(1, pair[1].channels[17], 2, 3)
    for sign, expected in ((1, 0.0), (-1, 1.5)):
        method.features = lambda *_, sign=sign: (sign * teacher, teacher)
        assert method(None)['cosine'].item() == pytest.approx(expected, abs=1e-6)


HEAD = '"""Twice the features."""\nimport torch\nfrom utils.distillation.base import Method\n\n'
BODY = "class Twice(Method):\n    TERMS = {'twice': 1.0}\n    LAYERS = ()\n    ADAPTS = False\n"
FORWARD = '    def forward(self, signals):\n        return signals.student_maps[0].mean() * torch.ones({shape})\n'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (HEAD, 'there is no class Twice that extends Method'),
        (HEAD + 'class Twice:\n    pass\n', 'there is no class Twice that extends Method'),
        (HEAD.partition('\n')[2] + BODY + FORWARD, 'there is no docstring'),
        (HEAD + 'class Twice(Method):\n' + FORWARD, 'Twice has no TERMS'),
        (HEAD + BODY, 'Twice has no forward'),
        (HEAD + 'class Twice(Method:\n', 'SyntaxError'),
        (HEAD + 'import nowhere_to_be_found\n', "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    ],
)
def test_a_wrong_file_is_named_in_a_line_and_the_others_are_listed(add, text, message):
    expected = list_methods().splitlines()
    add('twice', 'Twice', text)
    *others, own = list_methods().splitlines()
    assert others == expected
    assert own.split()[0] == 'twice' and 'cannot be used: utils/distillation/methods/twice.py: ' in own
    assert message in own
    with pytest.raises(UserError, match='twice.py'):
        find_method('twice')
    assert find_method('mask')


def test_a_line_without_a_file(monkeypatch):
    monkeypatch.setitem(methods.METHODS, 'nowhere', 'Nowhere')
    assert list_methods().splitlines()[-1].startswith('nowhere   cannot be used: utils/distillation/methods/nowhere.py')


@pytest.mark.parametrize(
    ('returned', 'message'),
    [
        ('raw.mean()', 'twice: forward returned Tensor, expected a dict'),
        ("{'thrice': raw.mean()}", r"twice: forward returned \['thrice'\], which TERMS does not have"),
        ("{'twice': raw}", 'twice: forward returned something else than a scalar tensor for twice'),
        ("{'twice': 1.0}", 'twice: forward returned something else than a scalar tensor for twice'),
    ],
)
def test_what_forward_must_return(add, returned, message):
    add('twice', 'Twice', f'{HEAD}{BODY}    def forward(self, signals):\n'
        f'        raw = signals.student_maps[0]\n        return {returned}\n')  # fmt: skip
    student, criterion, images, batch = training_of('twice')
    with pytest.raises(UserError, match=message):
        criterion.prepare(student, images, batch, first=True)


@pytest.mark.parametrize(('term', 'owner'), [('box', 'the detection loss'), ('hint', 'hint')])
def test_a_term_of_anothers_name(add, term, owner):
    add('twice', 'Twice', HEAD + BODY.replace("'twice'", f"'{term}'") + FORWARD.format(shape='()'))
    with pytest.raises(UserError, match=f'twice: its term {term} is named as one of {owner}'):
        training_of('hint,twice')


def test_unadapted_features(add):
    """The student's own channels, the teacher's without gradient; both float32."""
    add('cosine', 'Cosine', TEMPLATE)
    student, criterion, images, batch = training_of('cosine')
    method, signals = criterion.methods['cosine'], criterion._signals(student, images, batch)
    for layer in method.layers:
        own, theirs = method.unadapted_features(signals, layer)
        assert torch.equal(own, signals.student_features[layer]) and own.requires_grad
        assert torch.equal(theirs, signals.teacher_features[layer]) and not theirs.requires_grad
        assert own.shape[1] == student.channels[layer] < theirs.shape[1]
        adapted, teacher = method.features(signals, layer)
        assert torch.equal(adapted, method.adapters[str(layer)](own)) and torch.equal(teacher, theirs)


def test_every_file_beside_the_registry_is_in_it():
    files = {file.stem for file in (ROOT / 'utils/distillation/methods').glob('*.py')} - {'__init__'}
    assert files == set(METHODS)
    assert all(issubclass(find_method(name), torch.nn.Module) for name in files)
    assert 'cannot be used' not in list_methods()
