"""Options that are declared once: parser, checks, what runs keep of them, and what a resumed run takes."""

import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from models.checkpoint import save_checkpoint
from models.errors import UserError
from models.yolo import DetectionModel
from tests.support import small_cfg
from utils.comparison.options import OWN, CompareOptions, method_flags, training_flags
from utils.comparison.settings import AGREED, first_difference
from utils.evaluation.options import ValOptions
from utils.export.options import ExportOptions
from utils.runtime.options import Options, build_parser, option, options_of, parse, parse_given
from utils.runtime.run_folder import write_rows
from utils.training.options import DistillOptions, TrainingOptions, TrainOptions
from utils.training.resolve import find_resumable, resolve


@dataclass(kw_only=True)
class Bakery(Options):
    """One option of every form."""

    oven: str = option(help='which')
    loaves: int = option(12, '({default}, 100% fresh)', '--loaves', '-n', metavar='N', min=1, also=(-1,))
    tray: int | None = option(None, 'side', metavar='CM', min=64, multiple=32)
    heat: float = option(0.5, 'of the oven', min=0.05, max=1)
    salt: float | None = option(None, 'grams', above=0, max=2)
    crust: str = option('thin', 'kind', choices=('thin', 'thick'))
    steam: bool = option(False, 'more of it')
    fan: bool = option(True, 'turn it off', '--no-fan')
    lamp: bool = option(True, 'light', negatable=True)
    sizes: list[int] = option([1, 2], 'of the loaves', nargs='+', min=1)
    out: Path | None = option(None, 'file')
    again: str | None = option(None, 'go on', bare='', kept=False)
    secret: int = option(0)
    weighed: dict | None = None  # no flag

    def contradictions(self, given):
        if self.steam and 'heat' in given and self.heat < 0.1:
            yield '--steam: not below a tenth of the heat'


def bake(*flags) -> Bakery:
    return parse(Bakery, 'Bakes.', ['--oven', 'big', *map(str, flags)])


def test_defaults_are_those_of_the_fields():
    assert bake() == Bakery(oven='big')
    assert (bake().loaves, bake().sizes, bake().weighed) == (12, [1, 2], None)
    first, second = Bakery(oven='a'), Bakery(oven='b')
    first.sizes.append(3)
    assert second.sizes == [1, 2]


def test_values_of_every_form():
    given = '-n -1 --tray 96 --heat .25 --salt 2 --crust thick --steam --no-fan --no-lamp'
    found = bake(*given.split())
    assert (found.loaves, found.tray, found.heat, found.salt, found.crust) == (-1, 96, 0.25, 2.0, 'thick')
    assert (found.steam, found.fan, found.lamp) == (True, False, False)
    found = bake('--sizes', 3, 4, '--out', 'a/b', '--again', '--secret', 7, '--lamp')
    assert (found.sizes, found.out, found.again, found.secret, found.lamp) == ([3, 4], Path('a/b'), '', 7, True)
    assert bake('--again', 'x').again == 'x'


def test_what_is_given_is_told_at_its_default_too():
    options, given = parse_given(Bakery, None, ['--oven', 'big', '--loaves', '12', '--no-fan'])
    assert given == {'oven', 'loaves', 'fan'} and options.loaves == 12


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (('-n', 0), '--loaves: at least 1, or -1'),
        (('--tray', 100), '--tray: a multiple of 32, at least 64'),
        (('--tray', 32), '--tray: a multiple of 32, at least 64'),
        (('--heat', 0.01), '--heat: 0.05 to 1'),
        (('--heat', 'nan'), '--heat: 0.05 to 1'),
        (('--salt', 0), '--salt: over 0, at most 2'),
        (('--sizes', 1, 0), '--sizes: at least 1'),
        (('--crust', 'none'), "invalid choice: 'none'"),
        (('--loaves', 'many'), 'invalid int value'),
        (('--steam', '--heat', 0.06), '--steam: not below a tenth'),
        (('--unknown',), 'unrecognized arguments'),
    ],
)
def test_values_that_cannot_be_meant_end_with_2(flags, words, capsys):
    with pytest.raises(SystemExit) as end:
        bake(*flags)
    assert end.value.code == 2 and words in capsys.readouterr().err.splitlines()[-1]


def test_a_required_option_is_asked_for(capsys):
    with pytest.raises(SystemExit) as end:
        parse(Bakery, None, [])
    assert end.value.code == 2 and 'required: --oven' in capsys.readouterr().err


def test_help_tells_defaults_and_hides_what_has_none():
    text = build_parser(Bakery, 'Bakes.').format_help()
    assert '(12, 100% fresh)' in text and '--loaves N, -n N' in text and '--no-lamp' in text
    assert '--secret' not in text and '{default}' not in text and 'SUPPRESS' not in text
    assert '--tray' not in build_parser(Bakery, None, without=('tray',)).format_help()


@pytest.mark.parametrize('cls', [TrainOptions, DistillOptions, CompareOptions, ValOptions, ExportOptions])
def test_defaults_pass_their_own_checks_and_help_is_whole(cls):
    known = options_of(cls)
    for name, each in known.items():
        if hasattr(cls, name):
            assert each.problem(each.default) is None, name
    text = build_parser(cls, None).format_help()
    assert '{default}' not in text and '==SUPPRESS==' not in text


# --- what a run keeps -------------------------------------------------------------------------------------------------


def test_a_dict_and_back():
    options = bake('--tray', 96, '--again', 'x')
    options.weighed = {'grams': 3}
    kept = options.as_dict()
    assert 'again' not in kept and kept['weighed'] == {'grams': 3} and kept['tray'] == 96
    assert Bakery.from_dict(kept, 'a file', again='x') == options


def test_a_dict_of_another_version():
    found = Bakery.from_dict({'oven': 'old', 'gas': True, 'loaves': None, 'tray': None}, 'a file')
    assert found == Bakery(oven='old')


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ({'loaves': 'many'}, "a file: its options have loaves 'many', expected at least 1, or -1"),
        ({'loaves': True}, 'loaves True'),
        ({'tray': 33}, 'tray 33, expected a multiple of 32, at least 64'),
        ({'crust': 'none'}, 'expected one of thin, thick'),
        ({'steam': 'no'}, "steam 'no', expected yes or no"),
        ({'sizes': ['x']}, 'sizes'),
        ({'heat': float('nan')}, 'heat nan'),
    ],
)
def test_a_dict_that_is_wrong_is_refused_in_a_line(content, words):
    with pytest.raises(UserError) as error:
        Bakery.from_dict({'oven': 'old'} | content, 'a file')
    assert words in str(error.value) and '\n' not in str(error.value)


VALUES = {  # of options that take any text
    'data': ['a.yaml', 'b c.yaml'],
    'hyp': ['h.yaml'],
    'device': ['cpu', '0,1'],
    'lr0': [0.5],
    'label_smoothing': [0.1],
}


def random_options(rng: random.Random) -> CompareOptions:
    """Options of which each that the runs get is at its default or at another allowed value."""
    options = CompareOptions()
    for name, each in options_of(TrainingOptions).items():
        if name in OWN or rng.random() < 0.5:
            continue
        if each.type is bool:
            value = not each.default
        elif name in VALUES or each.choices:
            value = rng.choice(VALUES.get(name) or each.choices)
        else:
            value = each.type(64 + each.multiple * rng.randrange(9))
        setattr(options, name, value)
    options.crop = options.crop and min(options.crop, options.imgsz)
    options.freeze_bn = options.freeze_bn and min(options.freeze_bn, options.epochs - 1)
    return options


@pytest.mark.parametrize('seed', range(20))
def test_the_flags_of_options_make_the_same_options(seed):
    options = random_options(random.Random(seed))
    if options.noval:  # --patience is useless beside it
        options.patience = 100
    found = parse(TrainOptions, None, training_flags(options))
    names = options_of(TrainingOptions).keys() - set(OWN)
    assert {name: getattr(found, name) for name in names} == {name: getattr(options, name) for name in names}


def test_maps_are_for_recipes_that_take_them():
    options = parse(CompareOptions, None, ['--maps', 'runs/craft'])
    assert method_flags(options) == ['--maps', 'runs/craft'] and not method_flags(options, maps=False)


def test_flags_of_a_recipes_options():
    given = ['--cfg-teacher', 't.yaml', '--student_weights', '', '--kd_warmup', '0', '--epochs', '3']
    flags = method_flags(parse(CompareOptions, None, given))
    assert flags == ['--cfg_teacher', 't.yaml', '--student_weights', '', '--kd_warmup', '0.0']
    assert parse(DistillOptions, None, flags).kd_warmup == 0


# --- what is made of the training options -----------------------------------------------------------------------------


def test_settings_that_runs_of_a_comparison_must_share():
    assert AGREED.keys() == {
        *('data', 'imgsz', 'crop', 'quads', 'epochs', 'batch_size', 'nominal_batch', 'optimizer', 'cos_lr', 'patience'),
        *('freeze', 'freeze_bn', 'seed', 'sync_bn', 'amp', 'noval'),
    }
    assert first_difference({'imgsz': 64}, {'imgsz': 64, 'quads': False}) is None  # a version that had no --quads
    assert first_difference({'imgsz': 64}, {'imgsz': 64, 'quads': True}) == 'quads was False, now it is True'
    assert first_difference({'imgsz': 64}, {'imgsz': 64, 'hyp.turn': 0.0}) is None
    assert first_difference({'imgsz': 64}, {'imgsz': 64, 'hyp.turn': 0.1}) == 'hyp.turn was 0.0, now it is 0.1'


@pytest.mark.parametrize('cls', [TrainOptions, DistillOptions])
def test_what_resume_takes(cls, capsys):
    assert {name for name, each in options_of(cls).items() if each.resume} == {'resume', 'device', 'skip_nonfinite'}
    parse(cls, None, ['--resume', 'last.pt', '--device', 'cpu', '--skip-nonfinite', '2'])
    parse(cls, None, ['--resume', '--project', 'runs'])
    with pytest.raises(SystemExit):
        parse(cls, None, ['--resume', '--name', 'x', '--crop', '64'])
    assert 'leave out --crop, --name' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (('--crop', '100'), '--crop: a multiple of 32, 64 to 32768'),
        (('--crop', '672'), '--crop: a multiple of 32, from 64 to --imgsz'),
        (('--imgsz', '640', '--crop', '64', '--teacher_imgsz', '960'), None),
        (('--imgsz', '640', '--crop', '96', '--teacher_imgsz', '960'), '--teacher_imgsz: its fraction of --imgsz'),
        (('--recipe', 'a.yaml', '--methods', 'cwd'), 'not allowed with argument'),
    ],
)
def test_options_that_belong_together(flags, words, capsys):
    if words is None:
        parse(DistillOptions, None, list(flags))
        return
    with pytest.raises(SystemExit):
        parse(DistillOptions, None, list(flags))
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(('cls', 'flag'), [(ValOptions, '--bfloat16'), (ExportOptions, '--float16')])
def test_half_has_a_name_of_its_own_and_an_alias(cls, flag):
    found = [parse(cls, None, ['--weights', 'x.pt', given]) for given in (flag, '--half')]
    assert found[0] == found[1] != cls(weights='x.pt')


# --- resuming ---------------------------------------------------------------------------------------------------------


def last_pt(folder: Path, options: dict, **more) -> Path:
    """A last.pt of a run of these options."""
    (folder / 'weights').mkdir(parents=True)
    model = DetectionModel(small_cfg())
    save_checkpoint(folder / 'weights/last.pt', model, model.state_dict(), options=options, resume={}, **more)
    return folder / 'weights/last.pt'


OLD = {'command': 'python train.py --old', 'kind': 'train', 'imgsz': 96, 'device': 'cpu', 'project': None, 'epochs': 7}


def test_a_run_of_an_earlier_version_is_resumed(tmp_path):
    path = last_pt(tmp_path / 'run', OLD | {'gone_since': 3, 'amp': False})
    start = resolve(parse(TrainOptions, None, ['--resume', str(path), '--skip-nonfinite', '4']))
    assert (start.options.imgsz, start.options.epochs, start.options.amp) == (96, 7, False)
    assert (start.options.crop, start.options.quads, start.options.skip_nonfinite) == (None, False, 4)
    path = last_pt(tmp_path / 'allowed', OLD | {'skip_nonfinite': 5})
    for flags, allowed in (([], 5), (['--skip-nonfinite', '0'], 0)):
        given = ['--resume', str(path), *flags]
        assert resolve(parse(TrainOptions, None, given)).options.skip_nonfinite == allowed
    assert start.options.command == 'python train.py --old' and not hasattr(start.options, 'gone_since')
    assert start.device == torch.device('cpu') and start.folder == (tmp_path / 'run').resolve()


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (OLD | {'imgsz': 'large'}, "last.pt cannot be resumed: its options have imgsz 'large', expected a multiple"),
        (OLD | {'optimizer': 'Lion'}, "optimizer 'Lion', expected one of SGD, AdamW"),
        (OLD | {'kind': 'distill'}, 'belongs to a run of distill.py'),
    ],
)
def test_a_run_that_cannot_be_resumed_is_refused_in_a_line(tmp_path, options, words):
    path = last_pt(tmp_path / 'run', options)
    with pytest.raises(UserError) as error:
        resolve(parse(TrainOptions, None, ['--resume', str(path)]))
    assert words in str(error.value) and '\n' not in str(error.value)


def test_a_new_run_has_no_checkpoint_and_its_own_command():
    start = resolve(parse(TrainOptions, None, ['--device', 'cpu']))
    assert start.checkpoint is None and start.folder is None and start.options.command.startswith('python ')


def test_the_latest_run_is_found_below_folders_too(tmp_path):
    last = tmp_path / 'runs/icdar/n/weights/last.pt'
    last.parent.mkdir(parents=True)
    last.touch()
    assert find_resumable('', str(tmp_path / 'runs')) == last
    os.utime(last, (1, 1))
    (tmp_path / 'elsewhere/weights').mkdir(parents=True)
    (tmp_path / 'elsewhere/weights/last.pt').touch()
    (tmp_path / 'runs/linked').symlink_to(tmp_path / 'elsewhere')
    assert find_resumable('', str(tmp_path / 'runs')) == tmp_path / 'runs/linked/weights/last.pt'


def test_processes_of_torchrun_resume_a_run_that_is_named(monkeypatch):
    monkeypatch.setattr('utils.runtime.distributed.requested', lambda: True)
    with pytest.raises(UserError, match='--resume: name the last.pt'):
        resolve(TrainOptions(resume=''))


def test_rows_of_a_csv_may_have_columns_of_their_own(tmp_path):
    write_rows(tmp_path / 'a.csv', [{'epoch': 0}, {'epoch': 1, 'train/x': 0.5}])
    assert (tmp_path / 'a.csv').read_text() == 'epoch,train/x\n0,\n1,0.5\n'
