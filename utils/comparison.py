"""The parts of compare.py: statistics, what a run's settings are, the runs and their processes, the table."""

import argparse
import contextlib
import csv
import io
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from utils.dataset import DataConfig, load_data_config
from utils.device import describe, select_device
from utils.distillation.recipe import parse_recipe
from utils.hyp import check_hyp, load_hyp, read_yaml
from utils.options import add_training_options
from utils.run import command_line, versions, write_bytes, write_json, write_rows, write_text, write_yaml
from utils.trainer import duration

ROOT = Path(__file__).resolve().parents[1]
FIGURES = {
    'precision': 'precision',
    'recall': 'recall',
    'map50': 'mAP50',
    'map50_95': 'mAP50-95',
    'icdar_hmean': 'ICDAR hmean',
}
COMPARED = ('map50', 'map50_95', 'icdar_hmean')
# Change no figure, or are compared by content (hyp, lr0 and label_smoothing as hyp.*; device as its type).
UNTOLD = {'name', 'project', 'exist_ok', 'resume', 'workers', 'cache', 'save_period', 'noplots', 'device'} | {
    'hyp',
    'lr0',
    'label_smoothing',
}
UNKNOWN = 'unknown'  # content of a file that is not there any more
# mAP50, mAP50-95 on ICDAR2015's test pictures, published with these recipes and teachers.
PUBLISHED = {
    'YOLOv5-X': (0.5646, 0.2759),
    'YOLOv5-L': (0.5466, 0.2672),
    'YOLOv5-N': (0.4673, 0.2016),
    'xn_maskdiff_PFI_Hint': (0.4740, 0.2025),
    'xn_maskdiff_PFI': (0.4716, 0.2082),
    'xn_maskdiff': (0.4594, 0.1993),
    'ln_maskdiff': (0.4657, 0.2019),
    'ln_maskdiff_Hint': (0.4704, 0.2051),
}
OTHER_PROTOCOL = (
    'Published figures are of another protocol and cannot be compared with the other rows: dont_care: text, the epoch '
    'selected on the test pictures, 640 px, 300 epochs, one run each.'
)
POLL, GRACE = 0.2, 60  # seconds between looks at the processes; that they get to end


# Statistics -----------------------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """A mean of paired differences and its 95 % confidence interval; None where one pair has none."""

    mean: float
    low: float | None
    high: float | None
    pairs: int


def mean_sd(values: list[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1); None where there are too few values."""
    return (
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )


def paired_difference(ours: dict[int, float], control: dict[int, float]) -> Difference | None:
    """Ours minus control over the seeds that both have, with Student's t interval; None without a common seed.

    Args:
        ours, control: seed -> figure.
    """
    from scipy.stats import t

    differences = [ours[seed] - control[seed] for seed in sorted(ours.keys() & control.keys())]
    if not differences:
        return None
    mean, sd = mean_sd(differences)
    if sd is None:
        return Difference(mean, None, None, 1)
    half = float(t.ppf(0.975, len(differences) - 1)) * sd / math.sqrt(len(differences))
    return Difference(mean, mean - half, mean + half, len(differences))


# Settings -------------------------------------------------------------------------------------------------------------


@cache
def fingerprint(file: str) -> str:
    """What a file holds, in short: '' for no file, UNKNOWN for a missing one; a yaml's comments do not count."""
    if not file:
        return ''
    if not Path(file).is_file():
        return UNKNOWN
    yaml = file.endswith(('.yaml', '.yml'))
    content = json.dumps(read_yaml(file), sort_keys=True).encode() if yaml else Path(file).read_bytes()
    return f'sha256 {sha256(content).hexdigest()[:16]}'


def flatten(content: dict, prefix: str) -> Iterator[tuple[str, object]]:
    """('prefix.key.key', value) of nested dicts."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from flatten(value, f'{prefix}.{key}')
        else:
            yield f'{prefix}.{key}', value


@cache
def shared_options() -> frozenset[str]:
    """Names of the training options that must be the same in every run."""
    parser = argparse.ArgumentParser()
    add_training_options(parser)
    return frozenset(vars(parser.parse_args([]))) - UNTOLD


def settings_of(opt: dict, hyp: dict) -> dict[str, object]:
    """All that a run's figures depend on, by name; files by their content.

    Args:
        opt: a run's opt.yaml, or what it would be.
        hyp: all hyperparameters.
    """
    found = {key: opt.get(key) for key in sorted(shared_options())}
    found |= {'data': os.path.normpath(opt['data']), 'device type': device_type(opt['device'])}
    found |= {**dict(flatten(hyp, 'hyp')), **dict(flatten(read_yaml(opt['data']), 'data'))}
    if 'recipe_content' not in opt:
        cfg = opt['cfg'] or ('' if opt['weights'] else 'models/yolov5n.yaml')
        return found | {'cfg': fingerprint(cfg), 'weights': fingerprint(opt['weights'])}
    recipe = parse_recipe(opt['recipe_content'], 'opt.yaml').as_dict()
    for key in ('teacher', 'teacher_weights', 'student', 'student_weights'):
        found[key] = fingerprint(recipe.pop(key))
    more = {key: opt.get(key) for key in ('teacher_imgsz', 'unlabelled')}
    return found | more | dict(flatten(recipe, 'recipe'))


def device_type(spec: str) -> str:
    """'cpu' or 'cuda' of a --device option."""
    if spec == 'cpu' or (not spec and not torch.cuda.is_available()):
        return 'cpu'
    return 'cuda'


def first_difference(then: dict, now: dict) -> str | None:
    """The first setting that differs, with both values; None if none does."""
    for key in dict.fromkeys((*now, *then)):
        values = then.get(key), now.get(key)
        if values[0] != values[1] and UNKNOWN not in values:
            return f'{key} was {values[0]!r}, now it is {values[1]!r}'
    return None


def machine(device: str) -> str:
    """The processor, and the GPU where the runs use one."""
    names = []
    with contextlib.suppress(OSError):
        rows = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        names = [row.partition(':')[2].strip() for row in rows if row.startswith('model name')]
    text = f'{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores'
    chosen = select_device(device)
    return f'{text}; {describe(chosen)}' if chosen.type == 'cuda' else f'{text}; no GPU used'


# Runs -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A row of trained models: its kind ('control', 'baseline' or 'recipe'), its flags, its own part of opt.yaml."""

    label: str
    kind: str
    flags: list[str]
    opt: dict

    @property
    def script(self) -> str:
        return 'distill.py' if self.kind == 'recipe' else 'train.py'


@dataclass(frozen=True)
class Run:
    """One training of an entry, and the judging of its best.pt.

    Attributes:
        place: the folder of the comparison's runs.
        settings: that it must have; see settings_of.
        task: the split that it is judged on.
    """

    entry: Entry
    seed: int
    place: Path
    settings: dict
    task: str

    @property
    def name(self) -> str:
        return f'{self.entry.label}-seed{self.seed}'.replace(':', '-')  # of auto:0.2; some file systems refuse it

    @property
    def folder(self) -> Path:
        return self.place / self.name

    @property
    def best(self) -> Path:
        return self.folder / 'weights' / 'best.pt'

    @property
    def last(self) -> Path:
        return self.folder / 'weights' / 'last.pt'

    @property
    def record(self) -> Path:
        return self.folder / 'comparison.json'

    @property
    def judgement(self) -> Path:
        return self.folder / self.task / 'metrics.json'

    @property
    def trained(self) -> bool:
        return (self.folder / 'metrics.json').is_file()

    @property
    def judged(self) -> bool:
        """Whether there is a judgement of this best.pt: at its threshold, not of one before it."""
        if not (self.trained and self.judgement.is_file()):
            return False
        files = (self.folder / 'metrics.json', self.judgement)
        return len({read_json(file)['conf_threshold'] for file in files}) == 1

    def read_settings(self) -> dict | None:
        """The settings it was run with, None if there is nothing to keep; those of a run by hand as of now."""
        if not (self.trained or self.last.is_file()):
            return None
        if self.record.is_file():
            return read_json(self.record)['settings']
        return settings_of(read_yaml(self.folder / 'opt.yaml'), read_yaml(self.folder / 'hyp.yaml'))

    def figures(self) -> dict[str, float] | None:
        """The figures of its row in runs.csv, with the training's seconds; None before it is judged."""
        if not self.judged:
            return None
        return read_figures(self.judgement) | {'seconds': sum(column(self.folder / 'results.csv', 'seconds'))}


def unlike(run: Run) -> str | None:
    """How the settings of what is on disk differ from those that the run should have; None if they do not."""
    found = run.read_settings()
    return None if found is None else first_difference(found, run.settings)


def read_json(file: Path) -> dict:
    return json.loads(file.read_text(encoding='utf-8'))


def read_figures(metrics: Path) -> dict[str, float]:
    """The table's figures of a metrics.json, and the threshold."""
    content = read_json(metrics)
    return {key: content[key] for key in (*FIGURES, 'conf_threshold') if key in content}


def column(file: Path, name: str) -> list[float]:
    """A column of a csv; empty if there is no such file."""
    with contextlib.suppress(FileNotFoundError), open(file, newline='', encoding='utf-8') as stream:
        return [float(row[name]) for row in csv.DictReader(stream)]
    return []


@dataclass(frozen=True)
class Teacher:
    """A teacher to judge. The folder's name tells its content, so that another one is judged anew."""

    cfg: str
    weights: str
    imgsz: int
    place: Path
    task: str

    @property
    def label(self) -> str:
        return f'teacher {Path(self.cfg).stem}'

    @property
    def name(self) -> str:
        return f'teacher-{Path(self.cfg).stem}-{self.imgsz}-{fingerprint(self.weights)[7:15]}'

    @property
    def judgement(self) -> Path:
        return self.place / self.name / self.task / 'metrics.json'


@dataclass
class Job:
    """Commands that follow one another, and how far they are.

    Attributes:
        steps: arguments of python, in order.
        results: the results.csv that grows an epoch a row, None where nothing is trained.
        epochs: that are left to train.
        record: (file, content) to write before a new training.
        judgement: the metrics.json that the last step writes.
    """

    name: str
    steps: list[list[str]]
    log: Path
    judgement: Path
    results: Path | None = None
    epochs: int = 0
    record: tuple[Path, dict] | None = None
    began: float = 0.0

    def __post_init__(self):
        resumed = self.results and not self.record
        self.before = len(column(self.results, 'epoch')) if resumed else 0

    @property
    def work(self) -> int:
        """Epochs, and one more for the judging."""
        return self.epochs + 1

    def done(self) -> int:
        rows = len(column(self.results, 'epoch')) if self.results else 0
        return min(max(rows - self.before, 0), self.epochs)


class Comparison:
    """The rows and runs of a comparison, its folder and its table.

    Args:
        options: of compare.py.
        flags: the training options, as train.py and distill.py take them.
    """

    def __init__(self, options: argparse.Namespace, flags: list[str]):
        self.options, self.flags = options, flags
        self.folder = Path(options.project) / options.name
        self.place = self.folder / 'runs'
        self.data: DataConfig = load_data_config(options.data)
        given = {'lr0': options.lr0, 'label_smoothing': options.label_smoothing}
        self.hyp = check_hyp(load_hyp(options.hyp) | {key: v for key, v in given.items() if v is not None}, 'options')
        self.entries: list[Entry] = []
        self.teachers: list[Teacher] = []
        self.command = command_line()

    def add(self, label: str, kind: str, flags: list[str], **opt) -> None:
        """Add a row; `opt` are the entries of opt.yaml that are its own."""
        self.entries.append(Entry(label, kind, flags, opt))

    def add_teacher(self, cfg: str, weights: str) -> None:
        size = self.options.teacher_imgsz or self.options.imgsz
        teacher = Teacher(cfg, weights, size, self.place, self.options.task)
        if teacher.name not in [known.name for known in self.teachers]:
            self.teachers.append(teacher)

    @property
    def runs(self) -> list[Run]:
        """All runs, seed by seed, so that an early table has every row."""
        return [self.run(entry, seed) for seed in self.options.seeds for entry in self.entries]

    def run(self, entry: Entry, seed: int) -> Run:
        settings = settings_of(vars(self.options) | {'seed': seed} | entry.opt, self.hyp)
        return Run(entry, seed, self.place, settings, self.options.task)

    def save(self) -> None:
        """Write comparison.yaml, and the settings of runs that were made by hand, as of now."""
        content = {
            'command': self.command,
            'versions': versions(),
            'machine': machine(self.options.device),
            'options': {key: value for key, value in vars(self.options).items() if key != 'table'},
            'rows': {entry.label: {'kind': entry.kind, 'flags': entry.flags} for entry in self.entries},
            'teachers': {teacher.weights: fingerprint(teacher.weights) for teacher in self.teachers},
        }
        write_yaml(self.folder / 'comparison.yaml', content)
        for run in self.runs:
            found = run.read_settings()
            if found is not None and not run.record.is_file():
                write_json(run.record, {'settings': found})

    def jobs(self) -> list[Job]:
        """What is left to do, the teachers first."""
        jobs = [
            Job(teacher.name, [self.judge(teacher)], self.place / f'{teacher.name}.log', teacher.judgement)
            for teacher in self.teachers
            if not teacher.judgement.is_file()
        ]
        return jobs + [self.job(run) for run in self.runs if not run.judged]

    @property
    def size(self) -> int:
        return len(self.teachers) + len(self.runs)

    def job(self, run: Run) -> Job:
        """The commands that complete a run."""
        job = Job(run.name, [], run.place / f'{run.name}.log', run.judgement)
        if not run.trained:
            resumed = run.last.is_file()
            results = run.folder / 'results.csv'
            if resumed:
                device = ['--device', self.options.device] if self.options.device else []
                step = [run.entry.script, '--resume', str(run.last), *device]
            else:
                where = ['--seed', str(run.seed), '--project', str(run.place), '--name', run.name, '--exist-ok']
                step = [run.entry.script, *run.entry.flags, *self.flags, *where]
            epochs = self.options.epochs - (len(column(results, 'epoch')) if resumed else 0)
            content = {'command': shlex.join(['python', *step]), 'settings': run.settings, 'versions': versions()}
            content['machine'] = machine(self.options.device)
            record = None if resumed else (run.record, content)
            job = Job(run.name, [step], job.log, run.judgement, results, epochs, record)
        job.steps.append(self.judge(run))
        return job

    def judge(self, of: Run | Teacher) -> list[str]:
        """val.py's command for a run's best.pt or a teacher."""
        options = self.options
        weights, size = (of.weights, of.imgsz) if isinstance(of, Teacher) else (str(of.best), options.imgsz)
        command = ['val.py', '--weights', weights, '--data', options.data, '--task', options.task]
        command += ['--imgsz', str(size), '--workers', str(options.workers), '--device', options.device]
        command += ['--noplots'] * options.noplots
        return [*command, '--project', str(self.place / of.name), '--name', options.task, '--exist-ok']

    # The table

    def rows(self) -> list[dict]:
        """The table, a dict a row; None where there is no figure."""
        found = {entry.label: self._found(entry) for entry in self.entries}
        control = found[next(entry.label for entry in self.entries if entry.kind == 'control')]
        rows = [
            summarise(entry.label, entry.kind, found[entry.label], control if entry.kind == 'recipe' else {})
            for entry in self.entries
        ]
        for teacher in self.teachers:
            figures = {0: read_figures(teacher.judgement)} if teacher.judgement.is_file() else {}
            rows.append(summarise(teacher.label, 'teacher', figures, {}) | {'seeds': None})
        if self.data.path.name == 'ICDAR2015' and self.options.task == 'test':
            for label, (map50, map50_95) in PUBLISHED.items():
                figures = {0: {'map50': map50, 'map50_95': map50_95}}
                rows.append(summarise(f'published: {label}', 'published, other protocol', figures, {}))
        return rows

    def _found(self, entry: Entry) -> dict[int, dict[str, float]]:
        """{seed: figures} of the runs that are judged."""
        found = {seed: self.run(entry, seed).figures() for seed in self.options.seeds}
        return {seed: figures for seed, figures in found.items() if figures}

    def write_table(self) -> None:
        """Write table.md, table.csv, table.png and runs.csv of what is there."""
        write_text(self.folder / 'table.md', self.markdown())
        rows = self.rows()
        write_rows(self.folder / 'table.csv', rows)
        write_rows(self.folder / 'runs.csv', self.run_rows())
        draw_table(rows, self.folder / 'table.png', self.options.task)

    def run_rows(self) -> list[dict]:
        """A row per run; figures are None where it is missing."""
        rows = []
        for run in self.runs:
            figures = run.figures() or {}
            names = (*FIGURES, 'conf_threshold', 'seconds')
            row = {'recipe': run.entry.label, 'kind': run.entry.kind, 'seed': run.seed, 'folder': str(run.folder)}
            rows.append(row | {name: figures.get(name) for name in names})
        return rows

    def markdown(self) -> str:
        """The table with all that a reader needs to judge it."""
        rows = self.rows()
        missing = [run.name for run in self.runs if not run.judged]
        missing += [teacher.label for teacher in self.teachers if not teacher.judgement.is_file()]
        lines = [f'# Comparison {self.options.name}', '', *self.head(), '', *table_lines(rows), '', *self.notes()]
        if missing:
            lines += ['', f'**Missing** (not finished, or failed): {", ".join(missing)}.']
        if any(row['kind'].startswith('published') for row in rows):
            lines += ['', OTHER_PROTOCOL]
        return '\n'.join(lines) + '\n'

    def head(self) -> list[str]:
        """One line each for data, split, protocol, settings, versions, command, machine."""
        records = [read_json(run.record) for run in self.runs if run.judged and run.record.is_file()]
        file = self.folder / 'comparison.yaml'
        saved = read_yaml(file) if file.is_file() else {}
        judged = [read_json(run.judgement) for run in self.runs if run.judged]
        first = judged[0] if judged else {}
        of_machine = distinct(record.get('machine') for record in records) or [machine(self.options.device)]
        of_versions = distinct(record.get('versions') for record in records) or [versions()]
        threshold = distinct(content.get('conf_threshold_from') for content in judged) or ['-']
        on_test = self.data.splits['val'] == self.data.splits.get('test')
        best = 'best.pt is of the last epoch' if self.options.noval else 'the epoch of best.pt is chosen on val'
        warning = '; val here is the test split: what is chosen on val is selected on test' if on_test else ''
        return [
            f'- data: {self.options.data} ({self.data.path})',
            f'- split: {self.options.task}, {first.get("pictures", "-")} pictures',
            f'- protocol: dont_care: {self.data.dont_care}; {best}; threshold of hmean: '
            f'{"; ".join(threshold)}{warning}. {first.get("protocol", "")}'.rstrip(),
            f'- settings: {self.describe_settings()}',
            f'- versions: {"; ".join(named(content) for content in of_versions)}',
            f'- command: `{saved.get("command", self.command)}`',
            f'- machine: {"; ".join(of_machine)} ({self.options.jobs} at a time)',
        ]

    def describe_settings(self) -> str:
        """The options and models, in one line."""
        options = vars(self.options)
        shared = {name: options[name] for name in options if name in shared_options() - {'data', 'seed'}}
        own = {name: options.get(name) for name in ('kd_warmup', 'kd_decay', 'teacher_imgsz', 'unlabelled')}
        start = self.entries[0].opt
        shared |= {'lr0': self.hyp['lr0'], 'label_smoothing': self.hyp['label_smoothing'], 'hyp': options['hyp']}
        shared |= {'student': start['weights'] or start['cfg']}
        shared |= {f'{name} (recipes only)': value for name, value in own.items() if value is not None}
        teachers = [f'{teacher.weights} ({fingerprint(teacher.weights)})' for teacher in self.teachers]
        return named(shared | ({'teacher': ', '.join(teachers)} if teachers else {}))

    def notes(self) -> list[str]:
        """How to read the table."""
        seeds = ', '.join(map(str, self.options.seeds))
        number = len(self.options.seeds)
        return [
            f'{number} {"seed" if number == 1 else "seeds"} ({seeds}). mean ± sample standard deviation over seeds. Δ: '
            'mean difference to the control of the same seed, with its 95 % confidence interval (Student t). A recipe '
            'may be called better than the control only where the interval excludes 0 (bold); where nothing differs, '
            'one interval of twenty still does. With one seed there is no interval, and nothing can be claimed.',
            '',
            'The control is the same student without a teacher: it got the same options, seeds, initial weights and '
            'pictures in the same order.'
            + (' The recipes alone saw the unlabelled pictures.' if self.options.unlabelled else '')
            + (' Baselines are trained from scratch.' if self.options.baselines else ''),
        ]


def distinct(values) -> list:
    """The values that are not None, each once."""
    found = []
    for value in values:
        if value is not None and value not in found:
            found.append(value)
    return found


def named(content: dict) -> str:
    return ', '.join(f'{key.replace("_", "-")} {value}' for key, value in content.items())


# Processes ------------------------------------------------------------------------------------------------------------


class Runner:
    """Runs jobs as child processes, several at once, and shows how far they are.

    Args:
        jobs: to run.
        count: at once.
        report: called after every job that ends well.
    """

    def __init__(self, jobs: list[Job], count: int, report: Callable[[], None]):
        self.waiting, self.number, self.count, self.report = deque(jobs), len(jobs), count, report
        self.active: list[tuple[Job, subprocess.Popen]] = []
        self.failed: list[str] = []
        self.total, self.ended, self.start = sum(job.work for job in jobs), 0, time.monotonic()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
        self.environment = {'OMP_NUM_THREADS': str(max(cores // count, 1))} | os.environ
        self.bar = None

    def run(self) -> list[str]:
        """Run all; returns the names of those that failed.

        Raises:
            KeyboardInterrupt: after the children have ended; what is on disk stays.
        """
        form = '{desc}: {percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left'
        try:
            with tqdm(total=self.total, desc='all runs', bar_format=form, disable=None) as self.bar:
                while self.waiting or self.active:
                    self._fill()
                    time.sleep(POLL)
                    for job, child in [pair for pair in self.active if pair[1].poll() is not None]:
                        self.active.remove((job, child))
                        self._follow(job, child.returncode)
                    self.bar.n = self._progress()
                    self.bar.refresh()
        except KeyboardInterrupt:
            print('\nstopping; all that is done is kept: call the same command again to go on', file=sys.stderr)
            raise
        finally:
            self._stop()
        return self.failed

    def _say(self, text: str) -> None:
        self.bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def _fill(self) -> None:
        """Start what there is room for."""
        while self.waiting and len(self.active) < self.count:
            job = self.waiting.popleft()
            job.began = time.monotonic()
            if job.record:
                for file in (job.results, job.judgement):  # of an earlier start
                    file.unlink(missing_ok=True)
                write_json(*job.record)
            job.log.parent.mkdir(parents=True, exist_ok=True)
            how = 'goes on' if '--resume' in job.steps[0] else 'starts' if job.epochs else 'is judged'
            self._say(f'{job.name} {how} ({job.log})')
            self._step(job)

    def _step(self, job: Job) -> None:
        """Start the job's next command; its output is added to the log."""
        script, *arguments = job.steps.pop(0)
        with open(job.log, 'a', encoding='utf-8') as log:
            log.write(f'$ python {shlex.join([script, *arguments])}\n')
            log.flush()
            command = [sys.executable, str(ROOT / script), *arguments]
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self.environment
            )
        self.active.append((job, child))

    def _follow(self, job: Job, status: int) -> None:
        """A command has ended: start the job's next one, or report."""
        if status == 0 and job.steps:
            self._step(job)
            return
        self.ended += job.work
        share = self._progress() / self.total
        passed = time.monotonic() - self.start
        left = f'{len(self.waiting) + len(self.active)} of {self.number} left'
        left += (
            f', about {duration(passed / share - passed)}' if share < 1 and job.epochs else ''
        )  # a judging alone tells nothing
        if status:
            self.failed.append(job.name)
            self._say(f'{job.name} FAILED with status {status}: {last_error(job.log)} ({left})')
            return
        figures = read_figures(job.judgement)
        scores = ', '.join(f'{FIGURES[key]} {figures[key]:.4f}' for key in COMPARED if key in figures)
        self._say(f'{job.name} done in {duration(time.monotonic() - job.began)}: {scores} ({left})')
        self.report()

    def _progress(self) -> int:
        return self.ended + sum(job.done() for job, _ in self.active)

    def _stop(self) -> None:
        """End the children: they keep what is on disk. Those that do not end in time are killed."""
        children = [child for _, child in self.active]
        try:
            for child in children:
                child.terminate()
            for child in children:
                child.wait(GRACE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            for child in children:
                child.kill()


def last_error(log: Path) -> str:
    """The last line of a log, or its last 'error: ...' of the last command."""
    lines = [line.strip() for line in log.read_text(encoding='utf-8', errors='replace').splitlines() if line.strip()]
    start = max(number for number, line in enumerate(lines) if line.startswith('$ python '))
    errors = [line for line in lines[start:] if line.startswith('error: ')]
    return errors[-1] if errors else lines[-1]


# The table ------------------------------------------------------------------------------------------------------------


def summarise(label: str, kind: str, ours: dict[int, dict], control: dict[int, dict]) -> dict:
    """One row of the table: plain numbers, None where there is none.

    Args:
        ours: {seed: figures}; a figure may be lacking.
        control: the same of the control, {} for no differences.
    """
    row = {'recipe': label, 'kind': kind, 'seeds': len(ours)}
    for name in FIGURES:
        row[f'{name}_mean'], row[f'{name}_sd'] = mean_sd([run[name] for run in ours.values() if name in run])
    for name in COMPARED:
        pair = ({seed: run[name] for seed, run in runs.items() if name in run} for runs in (ours, control))
        found = paired_difference(*pair) or Difference(None, None, None, 0)
        parts = {'difference': found.mean, 'low': found.low, 'high': found.high, 'pairs': found.pairs}
        row |= {f'{name}_{part}': value for part, value in parts.items()}
    row['seconds_mean'] = mean_sd([run['seconds'] for run in ours.values() if 'seconds' in run])[0]
    return row


def table_lines(rows: list[dict]) -> list[str]:
    """The rows in Markdown; columns that no row fills are left out."""
    figures = [name for name in FIGURES if any(row[f'{name}_mean'] is not None for row in rows)]
    compared = [name for name in COMPARED if name in figures]
    header = ['row', 'kind', 'seeds', *(FIGURES[name] for name in figures)]
    header += [*(f'Δ {FIGURES[name]} [95 %]' for name in compared), 'training']
    lines = [header, ['---'] * len(header)]
    for row in rows:
        seeds, seconds = row['seeds'], row['seconds_mean']
        cells = [row['recipe'], row['kind'], '-' if seeds is None else str(seeds)]
        cells += [mean_cell(row, name) for name in figures] + [difference_cell(row, name) for name in compared]
        lines.append([*cells, '-' if seconds is None else duration(seconds)])
    return [f'| {" | ".join(cells)} |' for cells in lines]


def mean_cell(row: dict, name: str) -> str:
    mean, sd = row[f'{name}_mean'], row[f'{name}_sd']
    if mean is None:
        return '-'
    return f'{mean:.4f}' if row['kind'].startswith(('teacher', 'published')) else f'{mean:.4f} ± {number(sd)}'


def difference_cell(row: dict, name: str) -> str:
    """'+0.0123 [+0.0021, +0.0225]', bold where the interval excludes 0."""
    mean, low, high = (row[f'{name}_{part}'] for part in ('difference', 'low', 'high'))
    if mean is None:
        return '-'
    if low is None:
        return f'{mean:+.4f} [-]'
    text = f'{mean:+.4f} [{low:+.4f}, {high:+.4f}]'
    return f'**{text}**' if low > 0 or high < 0 else text


def number(value: float | None) -> str:
    return '-' if value is None else f'{value:.4f}'


def draw_table(rows: list[dict], file: Path, task: str) -> None:
    """A bar and its standard deviation for each row, mAP50 and hmean, the control's mean drawn across."""
    from matplotlib.figure import Figure

    colors = {'control': '#888888', 'recipe': '#1f6fb4', 'baseline': '#0a9a74', 'teacher': '#e07b00'}
    rows = [row for row in rows if row['kind'] in colors and row['map50_mean'] is not None][::-1]
    names = [name for name in ('map50', 'icdar_hmean') if any(row[f'{name}_mean'] is not None for row in rows)]
    figure = Figure(figsize=(2.4 + 4 * max(len(names), 1), 1.4 + 0.42 * max(len(rows), 1)), layout='constrained')
    panels = figure.subplots(1, max(len(names), 1), squeeze=False, sharey=True)[0]
    for panel, name in zip(panels, names, strict=False):
        values = [row[f'{name}_mean'] or 0 for row in rows]
        errors = [math.nan if row[f'{name}_sd'] is None else row[f'{name}_sd'] for row in rows]  # NaN: no mark
        labels = [row['recipe'] for row in rows]
        positions = range(len(rows))
        panel.barh(positions, values, xerr=errors, capsize=3, color=[colors[row['kind']] for row in rows])
        panel.set_yticks(positions, labels, fontsize=8)
        panel.set_title(f'{FIGURES[name]}, {task}: mean and standard deviation over seeds', fontsize=9)
        for row in rows:
            if row['kind'] == 'control' and row[f'{name}_mean'] is not None:
                panel.axvline(row[f'{name}_mean'], color='#444444', linewidth=1, linestyle='--')
        panel.grid(alpha=0.25, linewidth=0.6, axis='x')
        panel.set_axisbelow(True)
        panel.spines[['top', 'right']].set_visible(False)
    if not names:
        panels[0].text(0.5, 0.5, 'no results yet', ha='center', va='center')
    picture = io.BytesIO()
    figure.savefig(picture, format='png', dpi=150)
    write_bytes(file, picture.getvalue())
