"""compare.py: its statistics, what it refuses to mix, its table, and a whole small comparison."""

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

import compare
from models.checkpoint import save_checkpoint
from models.errors import UserError
from models.yolo import DetectionModel
from tests.support import ROOT, small_cfg
from utils.comparison.comparison import Comparison
from utils.comparison.options import CompareOptions, seed_list, training_flags
from utils.comparison.rows import add_rows, choose, read_choice
from utils.comparison.runner import Runner, last_error, threads_of
from utils.comparison.runs import Job, unlike
from utils.comparison.settings import RULES, fingerprint, first_difference, pictures, unlabelled_pictures
from utils.comparison.statistics import mean_sd, paired_difference
from utils.comparison.table import difference_cell, nothing_learned, summarise, table_lines
from utils.distillation.craft import MapCache
from utils.loading.config import load_data_config
from utils.loading.listing import list_images
from utils.runtime.options import parse
from utils.runtime.run_folder import sole_writer

SMALL = ('--imgsz', 64, '--epochs', 1, '--batch-size', 8, '--nominal-batch', 8, '--workers', 0)
SMALL += ('--device', 'cpu', '--noplots')


# --- statistics -------------------------------------------------------------------------------------------------------


def test_mean_and_sample_deviation():
    mean, sd = mean_sd([0.40, 0.44, 0.45])
    assert mean == pytest.approx(0.43)
    assert sd == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.02**2) / 2))  # n - 1
    assert mean_sd([0.4]) == (0.4, None)
    assert mean_sd([]) == (None, None)


def test_paired_interval_by_hand():
    ours, control = {0: 0.42, 1: 0.45, 2: 0.47, 7: 0.99}, {2: 0.44, 0: 0.41, 1: 0.43, 9: 0.0}
    found = paired_difference(ours, control)  # differences .01, .02, .03; sd .01; t(.975, 2) = 4.302653 of tables
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert found.pairs == 3 and found.mean == pytest.approx(0.02)
    assert (found.low, found.high) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-8)


def test_paired_interval_is_that_of_scipy():
    from scipy.stats import ttest_rel

    ours, control = [0.51, 0.48, 0.55, 0.50, 0.53], [0.50, 0.49, 0.50, 0.47, 0.52]
    found = paired_difference(dict(enumerate(ours)), dict(enumerate(control)))
    expected = ttest_rel(ours, control).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_too_few_pairs():
    assert paired_difference({0: 0.5}, {1: 0.4}) is None
    assert paired_difference({0: 0.5, 1: 0.6}, {1: 0.4}) == (pytest.approx(0.2), None, None, 1)


def test_a_difference_says_how_many_pairs_it_has_where_seeds_are_lacking():
    runs = {seed: {'map50': 0.5 + 0.01 * seed, 'seconds': 60} for seed in range(3)}
    row = summarise('r', 'recipe', runs, {0: {'map50': 0.4}, 1: {'map50': 0.42}})
    assert difference_cell(row, 'map50').endswith(' (2 pairs)')
    assert difference_cell(summarise('r', 'recipe', runs, runs), 'map50') == '+0.0000 [+0.0000, +0.0000]'
    assert difference_cell(summarise('r', 'recipe', runs, dict([*runs.items()][:1])), 'map50') == '+0.0000 [-] (1 pair)'


# --- options ----------------------------------------------------------------------------------------------------------


def test_seed_lists():
    assert seed_list('3') == [0, 1, 2]
    assert seed_list('0,3,5') == [0, 3, 5] and seed_list('4,') == [4]


@pytest.mark.parametrize(
    'flags, words',
    [
        (('--seeds', '0'), 'at least one seed'),
        (('--seeds', '1,1'), 'each once'),
        (('--seeds', 'two'), "'two'"),
        (('--baselines', 's,q'), 'n, s, m, l, x'),
        (('--seed', '3'), '--seeds'),
        (('--exist-ok',), '--name'),
        (('--batch-size', '-1'), 'no comparison'),
        (('--kd_decay', 'never'), "invalid choice: 'never'"),
        (('--jobs', '0'), '--jobs'),
        (('--imgsz', '100'), '--imgsz'),
    ],
)
def test_flags_that_cannot_be_meant(flags, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['compare.py', *flags])
    with pytest.raises(SystemExit) as end:
        compare.parse_options()
    assert end.value.code == 2 and words in capsys.readouterr().err.splitlines()[-1]


def test_training_flags_are_handed_on():
    given = ['--no-amp', '--epochs', '7', '--cos-lr', '--hyp', 'a.yaml', '--lr0', '0.1', '--name', 'x', '--seeds', '2']
    flags = training_flags(parse(CompareOptions, None, given))
    assert flags == ['--hyp', 'a.yaml', '--epochs', '7', '--lr0', '0.1', '--cos-lr', '--no-amp']


# --- fabricated comparisons -------------------------------------------------------------------------------------------


def planned(flags: list[str]) -> Comparison:
    options = parse(CompareOptions, None, flags)
    comparison = Comparison(options, load_data_config(options.data))
    add_rows(comparison)
    return comparison


class Made:
    """A comparison of fabricated models in a folder of its own."""

    def __init__(self, folder: Path, data: Path):
        self.folder = folder
        self.student = self.write('small.yaml', small_cfg(0.125))
        self.teacher = self.write('large.yaml', small_cfg(0.25))
        self.weights = self.save_teacher('teacher.pt')
        self.data = data

    def write(self, name: str, content: dict) -> Path:
        (self.folder / name).write_text(yaml.safe_dump(content))
        return self.folder / name

    def save_teacher(self, name: str, anchors=None) -> Path:
        torch.manual_seed(1)
        model = DetectionModel(self.teacher, nc=1, anchors=anchors)
        save_checkpoint(self.folder / name, model, model.state_dict())
        return self.folder / name

    def flags(self, *more) -> list[str]:
        models = ('--cfg_teacher', self.teacher, '--teacher_weights', self.weights, '--cfg_student', self.student)
        shared = ('--data', self.data, '--project', self.folder, '--name', 'first', '--recipes', 'xn_maskdiff')
        return [str(flag) for flag in (*shared, *models, '--seeds', 2, *SMALL, *more)]

    def plan(self, *more) -> Comparison:
        return planned(self.flags(*more))


def fabricate(run, map50: float, hmean: float, by_hand: bool = False) -> None:
    """A finished run's folder as train.py or distill.py and val.py leave it."""
    options = vars(CompareOptions())
    metrics = {'precision': 0.6, 'recall': 0.5, 'map50': map50, 'map50_95': map50 / 2, 'icdar_hmean': hmean}
    metrics |= {'conf_threshold': 0.3, 'pictures': 6, 'protocol': 'of a test'}
    run.evaluation.parent.mkdir(parents=True)
    (run.folder / 'metrics.json').write_text(json.dumps(metrics | {'map50': 0.99}))  # val's, which no table shows
    evaluated = metrics | {'conf_threshold_from': 'the checkpoint, chosen on val'}
    run.evaluation.write_text(json.dumps(evaluated))
    (run.folder / 'results.csv').write_text('epoch,val/map50,seconds\n0,0.1,30.5\n1,0.2,40.5\n')
    if by_hand:
        keep = {key: value for key, value in options.items() if key in run.settings} | {'device': 'cpu'}
        keep |= {key: run.settings[key] for key in keep if key != 'device'} | run.entry.opt
        hyp = {key[4:]: value for key, value in run.settings.items() if key.startswith('hyp.')}
        (run.folder / 'opt.yaml').write_text(yaml.safe_dump(keep))
        (run.folder / 'hyp.yaml').write_text(yaml.safe_dump(hyp))
    else:
        run.record.write_text(json.dumps({'settings': run.settings, 'versions': {'python': '3'}, 'machine': 'a lamp'}))


@pytest.fixture(scope='module')
def made(tmp_path_factory, tiny_data) -> Made:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield Made(tmp_path_factory.mktemp('made'), tiny_data)


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Made:
    """The same, with an empty folder for the comparison."""
    monkeypatch.chdir(ROOT)
    place = object.__new__(Made)
    place.__dict__ = made.__dict__ | {'folder': tmp_path}
    return place


def call(*flags) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['compare.py', *map(str, flags)])
        compare.main()


def test_the_control_is_added_and_paired(place, capsys):
    comparison = place.plan()
    assert 'the control is added' in capsys.readouterr().out
    control, recipe = comparison.entries
    assert (control.label, control.flags) == ('control', ['--cfg', str(place.student)])
    assert recipe.flags[:2] == ['--recipe', 'recipes/xn_maskdiff.yaml']
    names = ['control-seed0', 'xn_maskdiff-seed0', 'control-seed1', 'xn_maskdiff-seed1']
    assert [run.name for run in comparison.runs] == names
    jobs = comparison.jobs()
    assert [job.name.split('-')[0] for job in jobs] == ['teacher', 'control', 'xn_maskdiff', 'control', 'xn_maskdiff']
    train, evaluate = jobs[3].steps
    assert train[0] == 'train.py' and train[train.index('--seed') + 1] == '1' and '--exist-ok' in train
    assert evaluate[0] == 'val.py' and evaluate[evaluate.index('--task') + 1] == 'test'
    assert jobs[2].steps[0][0] == 'distill.py'
    shared = [step[step.index('--data') : step.index('--name')] for step in (jobs[1].steps[0], jobs[2].steps[0])]
    assert shared[0] == shared[1] and {'--imgsz', '--nominal-batch', '--seed', '--project'} <= set(shared[0])


def test_shorthand_baselines_and_weights(place):
    student = DetectionModel(place.student, nc=1)
    save_checkpoint(place.folder / 'start.pt', student, student.state_dict())
    more = ('--recipes', 'control,mask+pfi=7', '--baselines', 'n', '--student_weights', place.folder / 'start.pt')
    control, baseline, recipe = place.plan(*more).entries
    assert control.flags == ['--weights', str(place.folder / 'start.pt')]
    assert baseline.label == 'yolov5n' and baseline.flags == ['--cfg', 'models/yolov5n.yaml']
    assert recipe.label == 'mask+pfi=7' and recipe.flags[:2] == ['--methods', 'mask,pfi=7']
    assert recipe.opt['recipe_content']['methods']['pfi']['weights'] == {'pfi': 7}


def test_control_takes_the_teachers_anchors(place):
    anchors = [[5, 6, 7, 8, 9, 10], [20, 10, 30, 15, 40, 20], [80, 40, 100, 50, 200, 60]]
    weights = place.folder / place.save_teacher('odd.pt', anchors).name
    control = place.plan('--teacher_weights', weights).entries[0]
    written = yaml.safe_load(Path(control.flags[1]).read_text())
    assert Path(control.flags[1]).parent == place.folder / 'first'
    assert [pytest.approx(level) for level in anchors] == written['anchors']
    assert written['width_multiple'] == 0.125
    # Another command of the same --name leaves alone what runs that wait will read.
    wider = place.write('wider.yaml', small_cfg(0.25))
    other = place.plan('--teacher_weights', weights, '--cfg_student', wider).entries[0]
    assert other.flags[1] != control.flags[1] and yaml.safe_load(Path(control.flags[1]).read_text()) == written


@pytest.mark.parametrize(
    'more, words',
    [
        (('--recipes', 'cwd,cwd'), 'cwd stands there twice'),
        (('--recipes', 'control,cwd,control'), 'control stands there twice'),
        (('--recipes', 'xn_maskdif'), "'xn_maskdif'"),
        (('--recipes', 'none.yaml'), 'no such file'),
        (('--teacher_weights', 'none.pt'), 'no teacher weights at none.pt'),
    ],
)
def test_mistakes(place, more, words):
    with pytest.raises(UserError, match=words):
        place.plan(*more)


def test_every_recipe_has_its_teachers_size(place):
    comparison = place.plan('--recipes', 'xn_maskdiff,nn_larger')
    assert [entry.opt.get('teacher_imgsz') for entry in comparison.entries] == [None, None, 128]
    assert [run.settings.get('teacher_imgsz') for run in comparison.runs[:3]] == [None, None, 128]
    assert [(teacher.label, teacher.imgsz) for teacher in comparison.teachers] == [
        ('teacher large', 64),
        ('teacher large, 128 pixels', 128),
    ]
    assert 'Where a teacher sees larger pictures' in comparison.markdown()
    given = place.plan('--recipes', 'nn_larger', '--teacher_imgsz', 192)
    assert given.entries[1].opt['teacher_imgsz'] == given.teachers[0].imgsz == 192


@pytest.mark.parametrize(
    'more, words',
    [
        (('--recipes', 'xn_maskdiff,nn_larger', '--teacher_imgsz', 64), '^nn_larger: mask: layer 17 has cells of 8'),
        (('--recipes', 'xn_maskdiff_PFI', '--teacher_imgsz', 128), '^xn_maskdiff_PFI: the teacher sees 128 pixels'),
        (('--cfg_teacher', 'models/yolov5s.yaml'), '^xn_maskdiff: the teacher .* does not fit models/yolov5s.yaml'),
        (
            ('--recipes', 'maps+logit', '--maps', 'nowhere'),
            '^maps.logit: .* training pictures have no maps of CRAFT in',
        ),
        (('--recipes', 'xn_maskdiff', '--maps', 'elsewhere'), '^--maps elsewhere has no use'),
        (('--recipes', 'hint', '--freeze', 10), '^hint: --freeze 10: hint teaches layers 4, 6, 9'),
    ],
)
def test_what_a_recipe_would_refuse_is_refused_before_the_control(place, more, words):
    with pytest.raises(UserError, match=words):
        place.plan(*more)


def test_maps_that_lack_for_a_part_of_the_pictures_are_missed_before_the_control(place):
    """Those of the training pictures are there; of the others one has none, and one is broken and needs none."""
    cache, more = MapCache(place.folder / 'craft'), place.folder / 'others'
    files = list_images(load_data_config(place.data), 'train')
    more.mkdir()
    cv2.imwrite(str(more / 'a.jpg'), cv2.flip(cv2.imread(str(files[0])), 1))
    (more / 'b.jpg').write_bytes(b'broken')
    for file in files:
        cache.write(file, np.zeros((2, 8, 8), np.uint8))
    flags = ('--recipes', 'maps', '--maps', cache.folder, '--unlabelled', more)
    with pytest.raises(UserError, match=r'^maps: 1 of \d+ training pictures have no maps of CRAFT .*a\.jpg'):
        place.plan(*flags)
    cache.write(more / 'a.jpg', np.zeros((2, 8, 8), np.uint8))
    assert len(place.plan(*flags).entries) == 2


def test_a_student_of_another_network_than_its_weights(place):
    with pytest.raises(UserError, match='another network'):
        place.plan('--student_weights', place.weights)


def test_different_students_are_refused(place):
    recipe = yaml.safe_load((ROOT / 'recipes/xn_maskdiff.yaml').read_text())
    recipe |= {'student': 'models/yolov5s.yaml', 'teacher_weights': str(place.weights)}
    file = place.write('other.yaml', recipe)
    flags = place.flags('--recipes', f'xn_maskdiff,{file}')
    at = flags.index('--cfg_student')
    with pytest.raises(UserError, match="'models/yolov5n.yaml' and 'models/yolov5s.yaml': choose with --cfg_student"):
        planned(flags[:at] + flags[at + 2 :])


# --- skipping, resuming, refusing -------------------------------------------------------------------------------------


def test_finished_runs_are_skipped_and_unfinished_ones_resumed(place):
    comparison = place.plan()
    finished, interrupted, unevaluated, fresh = comparison.runs
    fabricate(finished, 0.4, 0.3)
    fabricate(unevaluated, 0.4, 0.3)
    unevaluated.evaluation.unlink()
    interrupted.last.parent.mkdir(parents=True)
    interrupted.last.write_bytes(b'')
    interrupted.record.write_text(json.dumps({'settings': interrupted.settings}))
    jobs = {job.name: [step[0] for step in job.steps] for job in comparison.jobs()}
    assert finished.name not in jobs
    assert jobs[interrupted.name] == ['distill.py', 'val.py']
    assert jobs[unevaluated.name] == ['val.py']
    assert jobs[fresh.name] == ['distill.py', 'val.py']
    step = comparison.job(interrupted).steps[0]
    assert step == ['distill.py', '--resume', str(interrupted.last), '--device', 'cpu']
    assert '--resume' not in comparison.job(fresh).steps[0]


def test_an_evaluation_of_another_checkpoint_does_not_count(place):
    run = place.plan().runs[0]
    fabricate(run, 0.4, 0.3)
    assert run.evaluated
    run.evaluation.write_text(run.evaluation.read_text().replace('"conf_threshold": 0.3', '"conf_threshold": 0.31'))
    assert not run.evaluated and run.metrics() is None


def test_an_evaluation_at_another_word_scale_does_not_count(place):
    run = place.plan().runs[0]
    fabricate(run, 0.4, 0.3)

    def scale(file: Path, value: list) -> None:
        file.write_text(json.dumps(json.loads(file.read_text()) | {'word_scale': value}))

    scale(run.evaluation, [1.0, 1.0])
    assert run.evaluated, 'a run without a word scale is one of boxes as they are'
    scale(run.evaluation, [1.0, 0.8])
    assert not run.evaluated
    scale(run.folder / 'metrics.json', [1.0, 0.8])
    assert run.evaluated


@pytest.mark.parametrize(
    'more, words',
    [
        (('--epochs', 6), 'epochs was 1, now it is 6'),
        (('--imgsz', 96), 'imgsz was 64, now it is 96'),
        (('--lr0', 0.002), 'hyp.lr0 was 0.01, now it is 0.002'),
        (('--no-amp',), 'amp was True, now it is False'),
        (('--kd_warmup', 9), 'recipe.warmup_epochs was 3, now it is 9'),
        (('--teacher_weights', 'other'), 'teacher_weights was .sha256'),
        (('--cfg_student', 'models/yolov5n.yaml'), 'cfg was .sha256'),
    ],
)
def test_other_settings_are_refused_by_name(place, more, words):
    for run in place.plan().runs:
        fabricate(run, 0.4, 0.3)
    if 'other' in more:
        other = DetectionModel(place.teacher, nc=1)
        save_checkpoint(place.folder / 'other.pt', other, other.state_dict())
        more = ('--teacher_weights', place.folder / 'other.pt')
    with pytest.raises(UserError, match=words):
        call(*place.flags(*more))


def test_what_changes_no_figure_is_not_refused(place):
    for run in place.plan().runs:
        fabricate(run, 0.4, 0.3)
    again = place.plan('--workers', 3, '--cache', '--save-period', 1, '--save-every', 3, '--jobs', 2)
    assert [unlike(run) for run in again.runs] == [None] * 4


def test_flags_that_the_runs_get():
    options = parse(CompareOptions, None, ['--no-cache', '--noval', '--epochs', '3', '--seeds', '2'])
    assert training_flags(options) == ['--no-cache', '--epochs', '3', '--noval']
    assert training_flags(parse(CompareOptions, None, ['--cache'])) == []


def test_runs_by_hand_are_taken_and_held_to_their_settings(place):
    comparison = place.plan()
    for run in comparison.runs:
        fabricate(run, 0.4, 0.3, by_hand=True)
        assert unlike(run) is None
    comparison.save()
    assert all(run.record.is_file() for run in comparison.runs)
    assert 'epochs was 1' in unlike(place.plan('--epochs', 2).runs[0])


def test_data_and_files_are_compared_by_content(place):
    data = place.folder / 'data.yaml'
    data.write_text(place.data.read_text())
    for run in place.plan('--data', data).runs:
        fabricate(run, 0.4, 0.3)
    data.write_text(place.data.read_text() + 'dont_care: text\n')
    assert "data.dont_care was None, now it is 'text'" in unlike(place.plan('--data', data).runs[0])

    plain, commented = place.write('a.yaml', {'x': 1}), place.folder / 'b.yaml'
    commented.write_text('# a comment\nx: 1\n')
    assert fingerprint(str(plain)) == fingerprint(str(commented)) != fingerprint(str(place.student))
    assert first_difference({'weights': 'unknown'}, {'weights': 'sha256 1'}) is None  # the file is gone
    assert first_difference({'skip_nonfinite': 0}, {}) is None  # an earlier version told it
    told = first_difference({}, RULES)  # an earlier version's fell from epoch to epoch
    assert told == "fall of learning rates was None, now it is 'from batch to batch'"


@pytest.mark.parametrize('kind', ['images', 'labels'])
def test_pictures_and_labels_are_compared_by_content(place, kind):
    source = Path(yaml.safe_load(place.data.read_text())['path'])
    copied = place.folder / 'data'
    shutil.copytree(source, copied)
    data = place.write('copied.yaml', yaml.safe_load(place.data.read_text()) | {'path': str(copied)})
    for run in place.plan('--data', data).runs:
        fabricate(run, 0.4, 0.3)
    assert unlike(place.plan('--data', data).runs[0]) is None
    pictures.cache_clear()
    changed = next(file for file in sorted((copied / kind).rglob('*.*')))
    changed.write_bytes(changed.read_bytes() + b'\n')
    assert re.match('pictures of (train|val|test) was .*, now it is ', unlike(place.plan('--data', data).runs[0]))
    pictures.cache_clear()
    record = place.plan('--data', data).runs[0].record
    content = json.loads(record.read_text())
    content['settings'] = {key: value for key, value in content['settings'].items() if not key.startswith('pictures')}
    record.write_text(json.dumps(content))
    assert unlike(place.plan('--data', data).runs[0]) is None, 'an earlier version did not tell them'


def test_pictures_without_labels_are_compared_by_content(place):
    source = Path(yaml.safe_load(place.data.read_text())['path'])
    more = place.folder / 'more'
    more.mkdir()
    for number, file in enumerate(sorted((source / 'images').rglob('*.jpg'))[:3]):
        cv2.imwrite(str(more / f'{number}.jpg'), cv2.flip(cv2.imread(str(file)), 1))
    (last := more / '2.jpg').rename(place.folder / '2.jpg')
    flags = ('--recipes', 'control,cwd', '--unlabelled', more)
    for run in place.plan(*flags).runs:
        fabricate(run, 0.4, 0.3)
    (place.folder / '2.jpg').rename(last)
    unlabelled_pictures.cache_clear()
    assert "pictures without labels was '2, sha256 " in unlike(place.plan(*flags).runs[1])


def test_a_table_of_runs_of_another_kind_of_device(place):
    for run in place.plan().runs:
        fabricate(run, 0.4, 0.3)
        content = json.loads(run.record.read_text())
        content['settings']['device type'] = 'cuda'
        run.record.write_text(json.dumps(content))
    assert "device type was 'cuda', now it is 'cpu'" in unlike(place.plan().runs[0])
    assert [unlike(run) for run in place.plan('--table').runs] == [None] * 4


def test_finished_runs_that_a_table_leaves_out_are_named(place):
    for run in place.plan('--seeds', 2).runs:
        fabricate(run, 0.4, 0.3)
    assert 'Not in this table' not in place.plan('--seeds', 2).markdown()
    assert '**Not in this table**, but finished in' in (text := place.plan('--seeds', '1,').markdown())
    assert 'control-seed0, xn_maskdiff-seed0.' in text


# --- the table --------------------------------------------------------------------------------------------------------


def test_a_table_looks_for_the_teacher_that_was_trained_with(monkeypatch):
    """Without --cfg_teacher a teacher of another size is taken by its own yaml, for the runs and for their table."""
    monkeypatch.chdir(ROOT)
    options = CompareOptions(teacher_weights='weights/ocrdistill-s.pt')
    trained = read_choice(choose('xn_maskdiff'), options)
    options.table = True
    assert read_choice(choose('xn_maskdiff'), options) == trained and trained.teacher == 'models/yolov5s.yaml'


def test_runs_of_several_processors_are_pointed_out(place):
    comparison = place.plan('--seeds', 1)
    for run, kind in zip(comparison.runs, ('a lamp', 'a stove'), strict=True):
        fabricate(run, 0.4, 0.3)
        run.record.write_text(json.dumps(json.loads(run.record.read_text()) | {'processor': kind}))
    warning = '**Runs of several processors stand side by side (a lamp; a stove): one seed differs between them.**'
    assert warning in comparison.markdown()
    run.record.write_text(json.dumps(json.loads(run.record.read_text()) | {'processor': 'a lamp'}))
    assert 'several processors' not in comparison.markdown()


def test_table_of_fabricated_runs(place, capsys):
    values = {'control': [(0.40, 0.30), (0.44, 0.32), (0.45, 0.34)], 'xn_maskdiff': [(0.42, 0.30), (0.47, 0.31)]}
    values['xn_maskdiff'].append(None)
    comparison = place.plan('--seeds', 3)
    for run in comparison.runs:
        figures = values[run.entry.label][run.seed]
        if figures:
            fabricate(run, *figures)
    call(*place.flags('--seeds', 3, '--table'))
    folder = place.folder / 'first'
    text = (folder / 'table.md').read_text()
    assert text in capsys.readouterr().out
    rows = {line.split(' | ')[0].strip('| '): line.split(' | ') for line in text.splitlines() if line.startswith('|')}
    header = rows['row']
    control, recipe = (dict(zip(header, rows[name], strict=True)) for name in ('control', 'xn_maskdiff'))
    assert control['mAP50'] == '0.4300 ± 0.0265' and control['seeds'] == '3' and recipe['seeds'] == '2'
    # Differences .02 and .03: sd .0070711, t(.975, 1) = 12.7062; half an interval is .0635
    assert recipe['Δ mAP50 [95 %]'] == '+0.0250 [-0.0385, +0.0885]'
    assert control['Δ mAP50 [95 %]'] == '-' and recipe['training |'] == '71 s |'
    assert '**Missing** (not finished, or failed): xn_maskdiff-seed2, teacher large.' in text
    for words in ('- data: ', 'test, 6 pictures', 'dont_care: ignore', 'chosen on val', 'epochs 1', 'python 3\n'):
        assert words in text
    assert '- machine: a lamp' in text and 'excludes 0' in text and 'same options' in text and '3 seeds' in text
    assert 'published: ' not in text  # the data are others

    with open(folder / 'table.csv', newline='') as file:
        table = {row['recipe']: row for row in csv.DictReader(file)}
    assert float(table['xn_maskdiff']['map50_difference']) == pytest.approx(0.025)
    assert float(table['xn_maskdiff']['icdar_hmean_low']) == pytest.approx(-0.005 - 12.7062 * 0.005, abs=1e-6)
    assert table['control']['map50_difference'] == '' and float(table['control']['seconds_mean']) == 71
    with open(folder / 'runs.csv', newline='') as file:
        runs = list(csv.DictReader(file))
    assert [row['map50'] for row in runs] == ['0.4', '0.42', '0.44', '0.47', '0.45', '']
    image = cv2.imread(str(folder / 'table.png'))
    assert image is not None and image.std() > 5


def test_a_table_after_the_teacher_and_the_students_weights_are_gone(place, capsys):
    """The teacher has another size than the recipe's, and comparison.yaml remembers what it was."""
    weights = [shutil.copy(ROOT / f'weights/ocrdistill-{size}.pt', place.folder / f'{size}.pt') for size in 'sn']
    flags = ['--data', place.data, '--project', place.folder, '--name', 'first', '--recipes', 'xn_maskdiff', '--seeds']
    flags += [1, *SMALL, '--teacher_weights', weights[0], '--student_weights', weights[1]]
    comparison = planned(list(map(str, flags)))
    for run in comparison.runs:
        fabricate(run, 0.4, 0.3)
    (teacher,) = comparison.teachers
    teacher.evaluation.parent.mkdir(parents=True)
    teacher.evaluation.write_text(json.dumps({'map50': 0.6, 'map50_95': 0.4}))
    comparison.save()
    comparison.write_table()
    text = (place.folder / 'first/table.md').read_text()
    assert '| teacher yolov5s | teacher |' in text and 'Missing' not in text
    for file in weights:
        file.unlink()
    call('--table', '--project', place.folder, '--name', 'first')
    assert (place.folder / 'first/table.md').read_text() == text
    (place.folder / 'first/comparison.yaml').write_text('other: 3\n')
    with pytest.raises(UserError, match='comparison.yaml has no options'):
        call('--table', '--project', place.folder, '--name', 'first')


def test_bold_only_where_the_interval_excludes_zero():
    control = {seed: {'map50': 0.4 + 0.01 * seed, 'seconds': 1.0} for seed in range(3)}
    better = {seed: {'map50': run['map50'] + 0.02 + 0.001 * seed, 'seconds': 1.0} for seed, run in control.items()}
    wild = {seed: {'map50': run['map50'] + 0.02 * seed, 'seconds': 1.0} for seed, run in control.items()}
    worse = {seed: {'map50': run['map50'] - 0.02 - 0.001 * seed, 'seconds': 1.0} for seed, run in control.items()}
    rows = [summarise('better', 'recipe', better, control), summarise('wild', 'recipe', wild, control)]
    rows += [summarise('single', 'recipe', {1: better[1]}, control), summarise('worse', 'recipe', worse, control)]
    better, wild, single, worse = table_lines(rows)[2:]
    assert '**-0.0210 [-0.0235, -0.0185]**' in worse
    assert '**+0.0210 [+0.0185, +0.0235]**' in better
    assert '+0.0200 [-0.0297, +0.0697]' in wild and '**' not in wild
    assert '| 0.4310 ± - | +0.0210 [-] |' in single
    (one, many) = table_lines([summarise('t', 'teacher', runs, {}) for runs in ({0: control[0]}, control)])[2:]
    assert '| 0.4000 |' in one and '| 0.4100 ± 0.0100 |' in many


def test_a_comparison_that_learned_nothing_says_so(place):
    comparison = place.plan('--seeds', 1)
    for run in comparison.runs:
        fabricate(run, 0.0, 0.0)
    assert 'difference to the control is exactly 0' in comparison.markdown()
    rows = comparison.rows()
    rows[1]['map50_difference'] = 0.001
    assert not nothing_learned(rows)


def test_published_rows_for_icdar2015_alone(place):
    (place.folder / 'ICDAR2015').mkdir()
    data = yaml.safe_load(place.data.read_text()) | {'path': str(place.folder / 'ICDAR2015')}
    file = place.write('icdar.yaml', data)
    text = place.plan('--data', file).markdown()
    assert '| published: YOLOv5-N | published, other protocol | 1 | 0.4673 | 0.2016 | - |' in text
    assert '| published: xn_maskdiff_PFI | published, other protocol | 1 | 0.4716 | 0.2082 |' in text
    assert 'dont_care: text, the epoch selected on the test pictures, 640 px, 300 epochs, one run' in text
    assert 'published: ' not in place.plan('--data', file, '--task', 'val').markdown()


# --- what a run records -----------------------------------------------------------------------------------------------


def test_a_training_records_where_it_ran(place):
    record, content = place.plan().jobs()[1].record
    assert record.name == 'comparison.json' and content['processor'] in content['machine']
    assert content['threads'] == threads_of(1) and re.fullmatch(r'[0-9a-f]{10}[+]?|unknown', content['commit'])


def test_threads_of_runs_at_once(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    assert threads_of(2) == 3
    monkeypatch.setenv('OMP_NUM_THREADS', '')
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: range(5), raising=False)
    assert [threads_of(count) for count in (1, 2, 8)] == [5, 2, 1]


# --- processes --------------------------------------------------------------------------------------------------------


def test_a_failing_job_does_not_stop_the_others(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('utils.comparison.runner.ROOT', tmp_path)
    (tmp_path / 'bad.py').write_text("print('error: the first reason\\nmore'); raise SystemExit(1)")
    good = "import json, sys; json.dump({'map50': .5, 'map50_95': .2}, open(sys.argv[1], 'w'))"
    (tmp_path / 'good.py').write_text(good)
    jobs = [
        Job(name, [[f'{name}.py', str(tmp_path / name)]], tmp_path / f'{name}.log', tmp_path / name)
        for name in ('bad', 'good')
    ]
    reports = []
    assert Runner(jobs, 1, lambda: reports.append(1)).run() == ['bad']
    out = capsys.readouterr().out
    assert 'bad FAILED with status 1: error: the first reason' in out and 'mAP50 0.5000' in out and reports == [1]


def test_last_error_of_the_last_command(tmp_path):
    log = tmp_path / 'log'
    log.write_text('$ python a.py\nerror: old\n$ python b.py\nstarting\n  Killed\n\n')
    assert last_error(log) == 'Killed'


def test_an_interruption_ends_the_children(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('utils.comparison.runner.ROOT', tmp_path)
    (tmp_path / 'slow.py').write_text("import time; print('begun', flush=True); time.sleep(60)")
    jobs = [Job(name, [['slow.py']], tmp_path / f'{name}.log', tmp_path / name) for name in 'abc']
    runner = Runner(jobs, 2, lambda: None)

    def interrupt():
        if all('begun' in (tmp_path / f'{name}.log').read_text() for name in 'ab'):
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(runner, '_progress', interrupt)
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    assert [child.returncode for _, child in runner.active] == [-signal.SIGTERM] * 2
    assert not (tmp_path / 'c.log').exists()
    assert 'call the same command again' in capsys.readouterr().err


CHILD = """
import signal, time
numbers = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: numbers.append(signal.Signals(number).name))
print('begun', flush=True)
while not numbers:
    time.sleep(0.01)
time.sleep(1)
print(numbers)
"""
PARENT = """
import signal, sys
from pathlib import Path
from utils.runtime.cli import run_command
from utils.comparison import runner
from utils.comparison.runs import Job
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup pytest hands on that it is ignored
runner.ROOT = place = Path(sys.argv[1])
jobs = [Job(name, [['child.py']], place / f'{name}.log', place / name) for name in 'ab']
run_command(lambda: runner.Runner(jobs, 2, lambda: None).run())
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGHUP])
def test_a_signal_of_the_terminal_reaches_each_child_once(tmp_path, number):
    """The terminal sends it to all processes in it; a second one would end a training with its step lost."""
    (tmp_path / 'child.py').write_text(CHILD)
    command = [sys.executable, '-c', PARENT, str(tmp_path)]
    parent = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    logs = [tmp_path / f'{name}.log' for name in 'ab']
    deadline = time.monotonic() + 60
    while not all(log.is_file() and 'begun' in log.read_text() for log in logs) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(parent.pid, number)
    parent.communicate(timeout=60)
    assert parent.returncode == 128 + number
    assert [log.read_text().splitlines()[-1] for log in logs] == ["['SIGTERM']"] * 2


@pytest.mark.slow
def test_a_whole_comparison(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    flags = [*made.flags('--jobs', 2), '--project', tmp_path]
    call(*flags)
    out = capsys.readouterr().out
    assert '5 to run, 0 done before' in out and 'control-seed1 done in' in out
    folder = tmp_path / 'first'
    text = (folder / 'table.md').read_text()
    assert '| control | control | 2 |' in text and '| xn_maskdiff | recipe | 2 |' in text and 'Missing' not in text
    assert '| teacher large | teacher | - |' in text and '95 %' in text
    saved = yaml.safe_load((folder / 'comparison.yaml').read_text())
    assert saved['options']['epochs'] == 1 and saved['teachers'][str(made.weights)].startswith('sha256')
    runs = {file.parent.name: yaml.safe_load(file.read_text()) for file in folder.glob('runs/*-seed?/opt.yaml')}
    assert {name: opt['seed'] for name, opt in runs.items()} == {
        'control-seed0': 0,
        'control-seed1': 1,
        'xn_maskdiff-seed0': 0,
        'xn_maskdiff-seed1': 1,
    }
    times = {file: file.stat().st_mtime_ns for file in folder.glob('runs/*/weights/*.pt')}

    monkeypatch.setattr(subprocess, 'Popen', None)  # once more: nothing is run, and other settings are refused
    call(*flags)
    assert '0 to run, 5 done before' in capsys.readouterr().out
    assert len(times) == 8
    assert times == {file: file.stat().st_mtime_ns for file in folder.glob('runs/*/weights/*.pt')}
    with pytest.raises(UserError, match='epochs was 1, now it is 2'):
        call(*flags, '--epochs', 2)
    with sole_writer(folder), pytest.raises(UserError, match='first: another process is writing to it'):
        call(*flags)
    (folder / 'table.md').unlink()
    call('--table', '--project', tmp_path, '--name', 'first')
    assert (folder / 'table.md').read_text() == text
