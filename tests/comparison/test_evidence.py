"""Results that are kept: a plan's runs, their csv, and the tables and curves that are made of it."""

import math
import re
from pathlib import Path

import pytest
import yaml

from models.errors import UserError
from models.yolo import DetectionModel
from tests.support import ROOT, run_here, small_cfg
from utils.comparison.evidence import Evidence
from utils.comparison.gains import Point, control_of, curves, series_of, tables
from utils.comparison.ledger import COLUMNS, SCORES, read_ledger, write_ledger
from utils.comparison.plan import read_plan
from utils.runtime.run_folder import write_json

# --- tables and curves of a made csv ----------------------------------------------------------------------------------


def line(row: str, seed: int, map50: float, **more) -> dict:
    """A line of a csv: by default a recipe of 1,000 crops at 640 pixels."""
    scores = dict.fromkeys(SCORES) | {'precision': 0.5, 'recall': 0.4, 'map50': map50, 'map50_95': map50 / 2}
    found = {'comparison': 'first', 'row': row, 'method': row, 'kind': 'recipe', 'seed': seed, 'crops': 1000}
    found |= {'labelled': 100, 'unlabelled': 0, 'split': 'test', 'pixels': 640, 'seconds': 200, 'threads': 2}
    return found | scores | {'settings': 'f00', 'commit': 'abc', 'machine': 'a lamp'} | more


def control(seed: int, map50: float, name: str = 'control', **more) -> dict:
    return line(name, seed, map50, **{'method': 'control', 'kind': 'control', 'seconds': 100} | more)


def three_seeds() -> list[dict]:
    lines = [control(seed, value) for seed, value in enumerate((0.41, 0.43, 0.44))]
    lines += [control(seed, value, 'control_2T', crops=2000) for seed, value in enumerate((0.45, 0.45, 0.45))]
    return lines + [line('mix', seed, value) for seed, value in enumerate((0.42, 0.45, 0.47))]


def test_differences_to_both_controls_by_hand():
    text = '\n'.join(tables(series_of(three_seeds(), 'test')))
    half = 4.302653 * 0.01 / math.sqrt(3)  # differences .01, .02, .03; t(.975, 2) = 4.302653 of tables
    assert f'| mix | control (the same length) | 3 | +0.0200 [{0.02 - half:+.4f}, {0.02 + half:+.4f}] |' in text
    # to twice the length: -.03, .00, .02: mean -.0033, sd .02517
    half = 4.302653 * 0.0251661 / math.sqrt(3)
    assert f'| mix | control_2T (twice the length) | 3 | {-0.01 / 3:+.4f} [{-0.01 / 3 - half:+.4f},' in text
    # what doubling brings the control: .04, .02, .01
    assert '| control_2T | control (half the length) | 3 | +0.0233 ' in text
    assert '| control | control | 1,000 | 0, 1, 2 | 0.4267 ± 0.0153 | 0.2133 ± 0.0076 | 100 s |' in text
    assert 'first: 100 labelled pictures, evaluated at 640 pixels' in text and '2 threads a run' in text
    assert 'no control of' not in text and 'left out' not in text


def test_a_missing_control_is_named():
    lines = [each for each in three_seeds() if each['row'] != 'control_2T']
    text = '\n'.join(tables(series_of(lines, 'test')))
    assert '- mix: no control of 2,000 crops (twice the length).' in text
    assert '| mix | control (the same length) | 3 |' in text
    lines = [each for each in lines if each['row'] != 'control']
    text = '\n'.join(tables(series_of(lines, 'test')))
    assert '- mix: no control of 1,000 crops (the same length).' in text and 'minus' not in text


def test_a_seed_without_its_pair_is_named_and_left_out():
    lines = [*three_seeds(), line('mix', 3, 0.9)]
    text = '\n'.join(tables(series_of(lines, 'test')))
    assert '- mix minus control: 1 seed without a pair left out (3).' in text
    assert '| mix | control (the same length) | 3 | ' in text and '| 0, 1, 2, 3 |' in text


def test_one_pair_has_no_interval():
    lines = [each for each in three_seeds() if each['seed'] == 0]
    text = '\n'.join(tables(series_of(lines, 'test')))
    assert '| mix | control (the same length) | 1 | +0.0100 [-] | +0.0050 [-] |' in text
    assert '- mix minus control: one pair has no interval; nothing can be claimed.' in text


@pytest.mark.parametrize(
    'other', [{'machine': 'a stove'}, {'comparison': 'second'}, {'labelled': 300}, {'pixels': 1280}]
)
def test_only_what_may_be_compared_is(other):
    lines = [control(seed, 0.4, **other) for seed in range(3)] + [line('mix', seed, 0.5) for seed in range(3)]
    text = '\n'.join(tables(series_of(lines, 'test')))
    assert text.count('###') == 2 and '- mix: no control of 1,000 crops (the same length).' in text
    assert '| minus |' not in text


def test_controls_of_another_method_are_not_the_control():
    lines = [*three_seeds(), *(control(seed, 0.1, 'control_lr', method='control, rate .001') for seed in range(3))]
    every = series_of(lines, 'test')
    mix = next(series for series in every if series.row == 'mix')
    assert control_of(mix, every, 1).row == 'control'
    assert '| control_lr | control (the same length) | 3 | ' in '\n'.join(tables(every))


def test_two_controls_of_one_length_are_refused():
    lines = [*three_seeds(), *(control(seed, 0.1, 'control_again') for seed in range(3))]
    with pytest.raises(UserError, match='control and control_again are both the control of 1,000 crops'):
        tables(series_of(lines, 'test'))


@pytest.mark.parametrize(
    'more, words',
    [([control(0, 0.5)], 'twice'), ([control(3, 0.5, settings='e11')], 'with other settings')],
)
def test_rows_of_two_plans_are_not_mixed(more, words):
    with pytest.raises(UserError, match=f'control of first stands there {words}'):
        series_of([*three_seeds(), *more], 'test')
    assert series_of([*three_seeds(), *({**line, 'machine': 'a stove'} for line in more)], 'test')


def test_splits_are_kept_apart():
    lines = [*three_seeds(), control(0, 0.99, split='val')]
    assert '0.99' not in '\n'.join(tables(series_of(lines, 'test')))
    assert [series.row for series in series_of(lines, 'val')] == ['control']


def test_times_of_other_numbers_of_threads():
    text = '\n'.join(tables(series_of([control(0, 0.4), control(1, 0.4, threads=1)], 'test')))
    assert '1 or 2 threads a run, so that their times cannot be compared' in text


def test_curves_by_hand():
    lines = []
    for labelled, gain in ((300, 0.02), (100, 0.05)):
        lines += [control(seed, 0.4, f'c{labelled}', labelled=labelled) for seed in (0, 1)]
        values = (0.4 + gain - 0.01, 0.4 + gain + 0.01)
        lines += [
            line(f'm{labelled}', seed, value, labelled=labelled, method='mix') for seed, value in enumerate(values)
        ]
    found = curves(series_of(lines, 'test'), 'labelled', 'map50', 1)
    half = 12.7062 * math.sqrt(2) * 0.01 / math.sqrt(2)  # t(.975, 1) of tables
    assert list(found) == ['mix, first, 1,000 crops']
    few, many = found['mix, first, 1,000 crops']
    assert few == pytest.approx(Point(100, 0.05, 0.05 - half, 0.05 + half), abs=1e-5)
    assert many == pytest.approx(Point(300, 0.02, 0.02 - half, 0.02 + half), abs=1e-5)
    assert curves(series_of(lines, 'test'), 'crops', 'map50', 1) == {}
    assert curves(series_of(lines, 'test'), 'labelled', 'map50', 2) == {}


def test_a_curve_over_the_length():
    lines = [control(0, 0.1 * length, f'c{length}', crops=1000 * length) for length in (1, 2, 4)]
    lines += [line(f'm{length}', 0, 0.1 * length + 0.03, crops=1000 * length, method='mix') for length in (1, 2)]
    every = series_of(lines, 'test')
    (points,) = curves(every, 'crops', 'map50', 1).values()
    assert [(point.x, point.low) for point in points] == [(1000, None), (2000, None)]
    assert [point.mean for point in points] == pytest.approx([0.03, 0.03])
    (points,) = curves(every, 'crops', 'map50', 2).values()
    assert [point.mean for point in points] == pytest.approx([-0.07, -0.17])


def test_the_csv_keeps_what_it_is_given(tmp_path):
    lines = three_seeds()
    write_ledger(tmp_path / 'a.csv', lines)
    assert read_ledger(tmp_path / 'a.csv') == [{name: each[name] for name in COLUMNS} for each in lines]
    assert read_ledger(tmp_path / 'none.csv') == []


@pytest.mark.parametrize(
    'old, new, words',
    [
        ('seconds,', '', 'its columns are others than expected: seconds'),
        (',100,', ',many,', "line 2: labelled is 'many'"),
        ('0.41', 'good', "line 2: map50 is 'good'"),
        ('0.41', 'nan', "line 2: map50 is 'nan'"),
        ('control,control,control', 'control,control,control,', 'line 2: more fields than columns'),
        ('control,control,control', 'control,control,best', "kind is 'best'"),
    ],
)
def test_a_csv_that_cannot_be_read(tmp_path, old, new, words):
    write_ledger(tmp_path / 'a.csv', three_seeds())
    (tmp_path / 'a.csv').write_text((tmp_path / 'a.csv').read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(words)):
        read_ledger(tmp_path / 'a.csv')


def test_a_csv_of_bytes_is_refused(tmp_path):
    (tmp_path / 'a.csv').write_bytes(b'\xff\xfe\x00\x80')
    with pytest.raises(UserError, match='is no csv in UTF-8'):
        read_ledger(tmp_path / 'a.csv')


def test_the_script_prints_tables_and_draws_curves(tmp_path):
    lines = [each | {'icdar_hmean': each['map50'] - 0.1} for each in three_seeds()]
    lines += [each | {'labelled': 300, 'map50': each['map50'] + 0.1} for each in lines]
    write_ledger(tmp_path / 'a.csv', lines)
    result = run_here('docs/draw_evidence.py', tmp_path / 'a.csv')
    assert result.returncode == 0, result.stderr
    assert '| mix | control (the same length) | 3 |' in result.stdout
    assert f'Gains over the labelled pictures: {tmp_path}/a_labelled.png' in result.stdout
    assert 'No curve over the crops of the training: no method has gains at two' in result.stdout
    assert (tmp_path / 'a_labelled.png').stat().st_size > 5000 and not (tmp_path / 'a_length.png').exists()
    assert 'error: there is no' in run_here('docs/draw_evidence.py', tmp_path / 'b.csv').stderr
    assert 'no results on val' in run_here('docs/draw_evidence.py', tmp_path / 'a.csv', '--split', 'val').stderr


# --- plans ------------------------------------------------------------------------------------------------------------


def tiny_plan(world, folder) -> dict:
    """A teacher, a control, and recipes with all and with four labelled pictures; both networks predict quads."""
    few = world.write('take.yaml', yaml.safe_load(world.data.read_text()) | {'take': 4})
    source = yaml.safe_load(world.data.read_text())['path']
    teacher = f'runs/evidence/{folder.name}/teacher-seed0/weights/best.pt'
    student = f'--recipe recipes/sn_quad_mask.yaml --cfg_teacher {world.teacher} --cfg_student {world.student}'
    recipe = f'{student} --teacher_weights {teacher} --student_weights {world.folder / "quads.pt"}'
    start = f'--weights {world.folder / "quads.pt"}'
    shared = f'--data {world.data} --imgsz 64 --batch-size 8 --nominal-batch 8 --workers 0 --device cpu --noplots'
    unlabelled = f'--data {few} --unlabelled {source}/train.txt --epochs 1'
    return {
        'flags': {'all': f'{shared} --quads --noval', 'control': start, 'recipe': recipe},
        'ms': {'control': 100, 'recipe': 200},
        'sizes': [64, 96],
        'comparison': 'tiny',
        'rows': {
            'teacher': {'kind': 'teacher', 'flags': f'--cfg {world.teacher} --epochs 1'},
            'control': {'kind': 'control', 'flags': '--epochs 1'},
            'mix': {'kind': 'recipe', 'flags': '--epochs 1'},
            'mix_4': {'kind': 'recipe', 'method': 'mix', 'flags': unlabelled},
            'control_4': {'kind': 'control', 'flags': f'--data {few} --epochs 6'},
        },
        'steps': [
            {'question': 'A teacher?', 'rows': ['teacher'], 'seeds': [0]},
            {'question': 'Does it pay?', 'rows': ['control', 'mix'], 'seeds': [0, 1]},
            {'question': 'With few labels?', 'rows': ['control_4', 'mix_4'], 'seeds': [0]},
        ],
    }


@pytest.fixture
def plan_file(world, tmp_path, monkeypatch):
    monkeypatch.setattr('utils.comparison.evidence.PROJECT', tmp_path / 'runs')
    model = DetectionModel(small_cfg(0.125), nc=1, quads=True)
    world.save('quads.pt', model)
    content = tiny_plan(world, tmp_path)
    file = tmp_path / 'tiny.yaml'
    text = yaml.safe_dump(content).replace(f'runs/evidence/{tmp_path.name}/', f'{tmp_path}/runs/tiny/')
    file.write_text(text)
    return file


def of_other_networks(content):
    """All from scratch: the control an N, the recipe's student the small one."""
    content['flags']['control'] = '--cfg models/yolov5n.yaml'
    content['flags']['recipe'] += " --student_weights ''"


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda c: c.update(steps=[]), 'steps is missing or empty'),
        (lambda c: c['steps'][0].update(rows=['none']), "step 1 names the row 'none'"),
        (lambda c: c['steps'][0].update(seeds=[]), 'step 1: rows and seeds must be lists'),
        (lambda c: c['steps'][0].update(seeds=[0, 1, 0]), 'step 1 names 0 twice'),
        (lambda c: c['steps'][0].update(rows=['control', 'control']), "step 1 names 'control' twice"),
        (lambda c: c['rows']['control'].update(kind='best'), "row control: kind is 'best'"),
        (lambda c: c['rows']['control'].update(flags='--epochs none'), 'row control: argument --epochs: invalid int'),
        (lambda c: c['rows']['control'].update(flag=1), 'flag'),
        (lambda c: c['flags'].update(recipe='--methods no'), "'no'"),
        (lambda c: c['flags'].update(best=''), 'best'),
        (lambda c: c.update(rows=['a']), "rows is \\['a'\\], expected rows"),
        (lambda c: c['steps'].append('last'), "step 4 is 'last'"),
        (lambda c: c.update(sizes=['big']), 'expected a list of pixels'),
        (lambda c: c.update(sizes=[100]), 'expected a list of pixels, multiples of 32'),
        (lambda c: c['flags'].update(all=c['flags']['all'].replace('--noval', '--patience 1')), 'could stop early'),
        (lambda c: c.pop('comparison'), 'comparison is missing or empty'),
        (lambda c: c['rows']['mix'].update(flags='--epochs 1 --imgsz 96'), 'imgsz is 64 in control and 96 in mix'),
        (lambda c: c['rows']['mix'].update(flags='--epochs 1 --lr0 .1'), 'control and mix have other hyperparameters'),
        (lambda c: c['flags'].update(control=''), "the start is '' in control and '.*quads.pt' in mix"),
        (lambda c: c['rows']['mix'].update(flags='--epochs 1 --batch-size -1'), 'row mix: --batch-size -1 goes by'),
        (lambda c: c['rows'].update({640: c['rows']['mix']}), 'row 640: its name is 640, expected text'),
        (lambda c: c['rows']['mix'].update(flags="--name it's"), 'row mix: No closing quotation in its flags'),
        (lambda c: c['ms'].update(control='100 ms'), "ms has '100 ms', expected milliseconds"),
        (lambda c: c.update(steps=5), 'steps is 5, expected a list'),
        (lambda c: c['steps'][0].update(rows=[['control']]), 'step 1: rows and seeds must be lists'),
        (lambda c: c.update(sizes=[64, 64]), 'which has one twice'),
        (of_other_networks, 'control and mix train different networks'),
    ],
)
def test_mistakes_in_a_plan(plan_file, change, words):
    content = yaml.safe_load(plan_file.read_text())
    change(content)
    plan_file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=words):
        read_plan(plan_file)


def test_rows_of_a_comparison_are_evaluated_on_the_same_data(plan_file, world):
    content = yaml.safe_load(plan_file.read_text())
    other = world.write('other_val.yaml', yaml.safe_load(world.data.read_text()) | {'val': 'images/train'})
    content['rows']['mix']['flags'] = f'--epochs 1 --data {other}'
    plan_file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match='control and mix have other data in val or test'):
        read_plan(plan_file)
    content['rows']['mix']['flags'] = '--epochs 1'
    content['rows']['teacher']['flags'] += f' --data {other}'
    plan_file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match='control and teacher have other data in val or test'):
        read_plan(plan_file)


def test_hours_that_nobody_knows(plan_file):
    content = yaml.safe_load(plan_file.read_text())
    content['ms'] = {'control': 100}
    plan_file.write_text(yaml.safe_dump(content))
    assert 'without evaluations: at least ' in Evidence(read_plan(plan_file)).describe()


def test_the_list_of_a_plan_by_hand(plan_file):
    text = Evidence(read_plan(plan_file)).describe()
    crops = int(re.search(r'control: (\d+) crops', text)[1])
    assert f'mix: {crops} crops, {crops * 0.2:.0f} s a run, 2 runs left' in text  # 200 ms each
    assert f'mix_4: {crops} crops, {crops * 0.2:.0f} s a run, 1 run left' in text, (
        'four labelled, and the rest without labels'
    )
    assert (
        'control_4: 24 crops, 2 s a run' in text
        and f'teacher: {crops} crops, unknown a run' in text
        and '1. A teacher? (seeds 0; ' in text
    )


def test_a_run_goes_on_only_as_it_began(plan_file):
    evidence = Evidence(read_plan(plan_file))
    run = evidence.runs(evidence.plan.steps[1])[0]
    run.folder.mkdir(parents=True)
    record = {'processor': evidence.processor, 'threads': 64}
    write_json(run.record, record | {'processor': 'a lamp'})
    evidence._refuse_other_start(run)  # it failed before it had anything to go on with
    run.last.parent.mkdir()
    run.last.touch()
    with pytest.raises(UserError, match='began on a lamp, this is'):
        evidence._refuse_other_start(run)
    write_json(run.record, record)
    with pytest.raises(UserError, match='began with 64 threads, now it would have'):
        evidence._refuse_other_start(run)


def test_a_csv_of_another_processor_or_of_other_rows_is_refused(plan_file):
    evidence = Evidence(read_plan(plan_file))
    labelled = evidence.count_images('control')[0]
    own = {
        'comparison': 'tiny',
        'labelled': labelled,
        'crops': labelled,
        'settings': evidence.plan.rows['control'].settings,
    }
    write_ledger(evidence.file, [control(0, 0.4, **own)])
    with pytest.raises(UserError, match='tiny.csv has runs of a lamp, and this is'):
        evidence.refuse_other_processor()
    assert evidence.done() == set(), 'on this processor nothing was run'
    here = own | {'machine': evidence.processor}
    whole = [control(1, 0.4, split=split, pixels=size, **here) for split, size in evidence.evaluations()]
    write_ledger(evidence.file, [control(0, 0.4, **own), *whole, control(2, 0.4, **here)])
    evidence.refuse_other_processor()
    assert evidence.done() == {('control', 1)}, 'of seed 2 other sizes and val are lacking'
    write_ledger(evidence.file, [control(0, 0.4, machine=evidence.processor, **own | {'crops': 7})])
    with pytest.raises(UserError, match=f'control has 7 crops, and the plan says {labelled}: give the rows new names'):
        evidence.done()
    write_ledger(evidence.file, [control(0, 0.4, **here | {'method': 'none'})])
    with pytest.raises(UserError, match='control has the method none, and the plan says control: give the rows'):
        evidence.done()


def test_runs_wait_for_their_teacher(plan_file, monkeypatch, capsys):
    """A run that was cut leaves a best.pt; nobody learns from it before the run is over."""
    evidence = Evidence(read_plan(plan_file))
    teacher = evidence.place / 'teacher-seed0'
    best = teacher / 'weights/best.pt'
    best.parent.mkdir(parents=True)
    best.write_bytes(b'half trained')
    asked = []

    class Failing:
        def __init__(self, jobs, *_):
            self.names = [job.name for job in jobs]

        def run(self) -> list[str]:
            asked.append(self.names)
            return [name for name in self.names if name == teacher.name]

    monkeypatch.setattr('utils.comparison.evidence.Runner', Failing)
    taught = ['mix-seed0', 'mix-seed1', 'mix_4-seed0']
    assert evidence.run() == [teacher.name, *taught]
    assert asked == [[teacher.name], ['control-seed0', 'control-seed1'], ['control_4-seed0']]
    assert capsys.readouterr().out.count('the weights of teacher-seed0, which is not over') == 3
    assert evidence.run(1) == [teacher.name] and asked[3:] == [[teacher.name]]
    with pytest.raises(UserError, match=r'--step 4: .* has steps 1 to 3'):
        evidence.run(4)

    (run,) = evidence.runs(evidence.plan.steps[1])[1:2]
    before = run.settings['teacher_weights']
    best.write_bytes(b'trained to its end')  # in the same process
    (teacher / 'metrics.json').write_text('{}')
    (run,) = evidence.runs(evidence.plan.steps[1])[1:2]
    assert evidence.waits_for(run) is None and run.settings['teacher_weights'] != before


def test_a_row_whose_flags_changed_is_not_taken_for_done(plan_file):
    evidence = Evidence(read_plan(plan_file))
    labelled = evidence.count_images('control')[0]
    more = {'comparison': 'tiny', 'labelled': labelled, 'crops': labelled, 'machine': evidence.processor}
    before = {name: row.settings for name, row in evidence.plan.rows.items()}
    content = yaml.safe_load(plan_file.read_text())
    plan_file.write_text('# a remark\n' + yaml.safe_dump(content))
    assert {name: row.settings for name, row in read_plan(plan_file).rows.items()} == before
    assert len(set(before.values())) == len(before)
    content['flags']['all'] += ' --lr0 0.01 --workers 2'  # the default, and what changes no figure
    plan_file.write_text(yaml.safe_dump(content))
    assert {name: row.settings for name, row in read_plan(plan_file).rows.items()} == before
    found = set(before.values())
    maps = content['flags']['recipe'].replace('--recipe recipes/sn_quad_mask.yaml', '--methods maps')
    for part, flags in (
        ('teacher', f'{content["flags"]["all"]} --cfg models/yolov5n.yaml'),
        ('recipe', f'{content["flags"]["recipe"]} --teacher_imgsz 128'),
        ('recipe', maps),
        ('recipe', f'{maps} --maps elsewhere'),
    ):
        rows = content['rows'] | {'teacher': {'kind': 'teacher', 'flags': '--epochs 1'}}
        changed = content | {'flags': content['flags'] | {part: flags}, 'rows': rows}
        plan_file.write_text(yaml.safe_dump(changed))
        settings = read_plan(plan_file).rows['mix' if part == 'recipe' else part].settings
        assert settings not in found, flags
        found.add(settings)
    content['flags']['all'] += ' --lr0 0.003'
    plan_file.write_text(yaml.safe_dump(content))
    write_ledger(evidence.file, [control(0, 0.4, settings=before['control'], **more)])
    assert evidence.done() == set()
    with pytest.raises(UserError, match='control ran with other options, data, recipe or rules than now'):
        Evidence(read_plan(plan_file)).done()


def test_a_plan_of_the_program_is_found_from_elsewhere_with_its_csv(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Evidence(read_plan(Path('docs/evidence/start.yaml'))).lines


@pytest.mark.parametrize('file', sorted((ROOT / 'docs/evidence').glob('*.yaml')), ids=lambda file: file.stem)
def test_plans_that_are_shipped(file):
    plan = read_plan(file)
    used = {label for step in plan.steps for label in step.rows}
    assert used == set(plan.rows), 'every row is run'
    for line in read_ledger(file.with_suffix('.csv')):
        row = plan.rows[line['row']]
        assert (line['kind'], line['method'], line['comparison']) == (row.kind, row.method, row.comparison)
        # all.csv is of runs with another fall of the learning rate
        assert (line['settings'] == row.settings) == (file.stem != 'all'), line['row']


def test_the_largest_plan():
    plan = read_plan(ROOT / 'docs/evidence/icdar2015.yaml')
    assert {row.kind for row in plan.rows.values()} == {'control', 'recipe', 'teacher'}
    for row in plan.rows.values():
        assert row.ms and row.options.noval and row.options.quads and row.options.crop == 640, row.label


class RunnerHere:
    """Runner's work in this process, one command after the other; the processes are tested in test_compare.py."""

    def __init__(self, jobs, _, report):
        self.jobs, self.report = jobs, report

    def run(self) -> list[str]:
        for job in self.jobs:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            if job.record:
                write_json(*job.record)
            for script, *arguments in job.steps:
                result = run_here(script, *arguments)
                assert result.returncode == 0, (job.name, script, result.stderr)
            self.report()
        return []


@pytest.mark.slow
def test_from_a_plan_to_tables_and_curves(plan_file, monkeypatch, capsys, one_thread):
    monkeypatch.setattr('utils.comparison.evidence.Runner', RunnerHere)
    monkeypatch.setattr('utils.comparison.evidence.threads_of', lambda count: 3)
    evidence = Evidence(read_plan(plan_file))
    assert evidence.run() == []
    assert 'step 2: Does it pay? 4 to run, 0 done before' in capsys.readouterr().out
    lines = evidence.lines
    assert len(lines) == 7 * 4
    assert {(each['split'], each['pixels']) for each in lines} == {
        (split, size) for split in ('val', 'test') for size in (64, 96)
    }
    few = next(each for each in lines if each['row'] == 'mix_4')
    assert few['labelled'] == 4 and few['labelled'] + few['unlabelled'] == few['crops']
    assert all(each['threads'] == 3 and each['machine'] == evidence.processor for each in lines)
    assert all(each['quad_map50'] is not None for each in lines)

    rows = evidence.file.read_text().splitlines()
    monkeypatch.setattr(RunnerHere, 'run', lambda self: [job.name for job in self.jobs])  # once more: nothing is run
    assert Evidence(read_plan(plan_file)).run() == []
    assert evidence.file.read_text().splitlines() == rows
    evidence.file.write_text('\n'.join(rows[:5]) + '\n')  # the teacher alone: the others come from their folders
    assert Evidence(read_plan(plan_file)).run() == []
    assert sorted(evidence.file.read_text().splitlines()) == sorted(rows)

    result = run_here('docs/draw_evidence.py', evidence.file)
    assert result.returncode == 0, result.stderr
    assert '| mix | control (the same length) | 2 |' in result.stdout
    assert 'mix_4: no control of' in result.stdout and result.stdout.count('###') == 4


def test_the_command_lists_and_refuses(plan_file):
    result = run_here('benchmarks/evidence.py', plan_file, '--list')
    assert result.returncode == 0, result.stderr
    assert '1. A teacher? (seeds 0; ' in result.stdout and 'without evaluations: ' in result.stdout
    write_ledger(plan_file.with_suffix('.csv'), three_seeds())
    result = run_here('benchmarks/evidence.py', plan_file)
    assert result.returncode == 1 and '--other-processor begins the plan anew' in result.stderr
