"""A comparison as a whole: its rows, its runs, its folder."""

import math
from functools import cached_property
from pathlib import Path

from models.errors import UserError
from models.yamls import read_yaml
from utils.comparison.chart import draw_chart, draw_curves
from utils.comparison.jobs import training_job
from utils.comparison.options import CompareOptions, training_flags
from utils.comparison.runner import threads_of
from utils.comparison.runs import Entry, Job, Run, Teacher, column, read_json, read_metrics, unlike
from utils.comparison.settings import AGREED, DEVICE_TYPE, UNKNOWN, fingerprint, machine, settings_of
from utils.comparison.statistics import METRICS
from utils.comparison.table import (
    NOTHING_LEARNED,
    OTHER_PROTOCOL,
    PUBLISHED,
    nothing_learned,
    summarise,
    table_lines,
)
from utils.loading.config import DataConfig
from utils.loading.listing import selected_on_test
from utils.runtime.hyp import hyp_of
from utils.runtime.run_folder import command_line, versions, write_json, write_rows, write_text, write_yaml
from utils.runtime.words import counted

UNLABELLED = (
    ' But the recipes alone saw the unlabelled pictures, so that their epochs have more steps and another order: a '
    'part of their gain may be that of a longer training.'
)
LARGER = (
    ' Where a teacher sees larger pictures, they were augmented at its size, and then made smaller for the student.'
)


class Comparison:
    """The rows and runs of a comparison, its folder and its table.

    Args:
        options: of compare.py.
        data: the data yaml of the options.
    """

    def __init__(self, options: CompareOptions, data: DataConfig):
        self.options, self.data = options, data
        self.flags = training_flags(options)
        self.folder = Path(options.project) / options.name
        self.place = self.folder / 'runs'
        self.hyp = hyp_of(options)
        self.entries: list[Entry] = []
        self.teachers: list[Teacher] = []
        self.command = command_line()

    def add(self, label: str, kind: str, flags: list[str], **opt) -> None:
        """Add a row; `opt` are the entries of opt.yaml that are its own."""
        self.entries.append(Entry(label, kind, flags, opt))

    def add_teacher(self, cfg: str, weights: str, imgsz: int | None) -> None:
        """Add a teacher to evaluate, at the size in pixels that it sees (None: the students')."""
        label = f'teacher {Path(cfg).stem}' + (f', {imgsz} pixels' if imgsz else '')
        size = imgsz or self.options.imgsz
        content = fingerprint(weights)
        if content == UNKNOWN:
            content = self.saved.get('teachers', {}).get(weights, UNKNOWN)
        teacher = Teacher(label, cfg, weights, content, self.options.data, size, self.place, self.options.task)
        if teacher.name not in [known.name for known in self.teachers]:
            self.teachers.append(teacher)

    @property
    def saved(self) -> dict:
        """comparison.yaml as it lies on disk, {} before it is written."""
        file = self.folder / 'comparison.yaml'
        return read_yaml(file) if file.is_file() else {}

    @cached_property
    def runs(self) -> list[Run]:
        """All runs, seed by seed, so that an early table has every row; asked for once all rows are added."""
        return [self.run(entry, seed) for seed in self.options.seeds for entry in self.entries]

    def run(self, entry: Entry, seed: int) -> Run:
        settings = settings_of(self.options.as_dict() | {'seed': seed} | entry.opt, self.hyp)
        if self.options.table:  # of runs of any machine
            settings[DEVICE_TYPE] = UNKNOWN
        return Run(entry, seed, self.place, settings, self.options.task)

    def refuse_other_settings(self) -> None:
        """Raise a UserError where what is on disk was run with other settings, or a table would have no rows."""
        for run in self.runs:
            if difference := unlike(run):
                raise UserError(f'{run.folder} was run with other settings: {difference}; choose another --name')
        if self.options.table and not any(run.trained for run in self.runs):
            raise UserError(f'--table: there are no finished runs in {self.place}')

    def save(self) -> None:
        """Write comparison.yaml, and the settings of runs that were made by hand, as of now."""
        content = {
            'command': self.command,
            'versions': versions(),
            'machine': machine(self.options.device),
            'options': self.options.as_dict(),
            'rows': {entry.label: {'kind': entry.kind, 'flags': entry.flags} for entry in self.entries},
            'teachers': {teacher.weights: teacher.content for teacher in self.teachers},
            'teacher_yamls': {teacher.weights: teacher.cfg for teacher in self.teachers},
        }
        write_yaml(self.folder / 'comparison.yaml', content)
        for run in self.runs:
            found = run.read_settings()
            if found is not None and not run.record.is_file():
                write_json(run.record, {'settings': found})

    def jobs(self) -> list[Job]:
        """What is left to do, the teachers first."""
        jobs = [
            Job(teacher.name, [self.evaluate(teacher)], self.place / f'{teacher.name}.log', teacher.evaluation)
            for teacher in self.teachers
            if not teacher.evaluation.is_file()
        ]
        return jobs + [self.job(run) for run in self.runs if not run.evaluated]

    @property
    def size(self) -> int:
        return len(self.teachers) + len(self.runs)

    def job(self, run: Run) -> Job:
        """The commands that complete a run."""
        threads = threads_of(self.options.jobs)
        return training_job(run, self.flags, self.options, [self.evaluate(run)], run.evaluation, threads)

    def evaluate(self, of: Run | Teacher) -> list[str]:
        """val.py's command for a run's best.pt or a teacher."""
        options = self.options
        weights, size = (of.weights, of.imgsz) if isinstance(of, Teacher) else (str(of.best), options.imgsz)
        command = ['val.py', '--weights', weights, '--data', options.data, '--task', options.task]
        command += ['--imgsz', str(size), '--workers', str(options.workers), '--device', options.device]
        command += ['--noplots'] * options.noplots
        return [*command, '--project', str(self.place / of.name), '--name', options.task, '--exist-ok']

    # The table

    def rows(self) -> list[dict]:
        """The table, a dict a row; None where there is no metric."""
        found = {entry.label: self._found(entry) for entry in self.entries}
        control = found[next(entry.label for entry in self.entries if entry.kind == 'control')]
        rows = [
            summarise(entry.label, entry.kind, found[entry.label], control if entry.kind == 'recipe' else {})
            for entry in self.entries
        ]
        for teacher in self.teachers:
            metrics = {0: read_metrics(teacher.evaluation)} if teacher.evaluation.is_file() else {}
            rows.append(summarise(teacher.label, 'teacher', metrics, {}) | {'seeds': None})
        if self.data.path.name == 'ICDAR2015' and self.options.task == 'test':
            for label, (map50, map50_95) in PUBLISHED.items():
                metrics = {0: {'map50': map50, 'map50_95': map50_95}}
                rows.append(summarise(f'published: {label}', 'published, other protocol', metrics, {}))
        return rows

    def _found(self, entry: Entry) -> dict[int, dict[str, float]]:
        """{seed: metrics} of the runs that are evaluated."""
        found = {run.seed: run.metrics() for run in self.runs if run.entry is entry}
        return {seed: metrics for seed, metrics in found.items() if metrics}

    def write_table(self) -> None:
        """Write table.md, table.csv, table.png, curves.png and runs.csv of what is there."""
        write_text(self.folder / 'table.md', self.markdown())
        rows = self.rows()
        write_rows(self.folder / 'table.csv', rows)
        write_rows(self.folder / 'runs.csv', self.run_rows())
        draw_chart(rows, self.folder / 'table.png', self.options.task)
        if curves := self.curves():
            draw_curves(curves, self.folder / 'curves.png', 'mAP50 on val')

    def curves(self) -> dict[str, list[list[float]]]:
        """mAP50 on val after each epoch, of the trained runs of each row; without runs that were validated only once,
        as --noval leaves them."""
        found: dict[str, list[list[float]]] = {}
        for run in self.runs:
            values = column(run.folder / 'results.csv', 'val/map50') if run.trained else []
            if sum(map(math.isfinite, values)) > 1:
                found.setdefault(run.entry.label, []).append(values)
        return found

    def run_rows(self) -> list[dict]:
        """A row per run; metrics are None where it is missing."""
        rows = []
        for run in self.runs:
            metrics = run.metrics() or {}
            names = (*METRICS, 'conf_threshold', 'seconds')
            row = {'recipe': run.entry.label, 'kind': run.entry.kind, 'seed': run.seed, 'folder': str(run.folder)}
            rows.append(row | {name: metrics.get(name) for name in names})
        return rows

    def markdown(self) -> str:
        """The table with all that a reader needs to weigh it."""
        rows = self.rows()
        published = [row for row in rows if row['kind'].startswith('published')]
        own = [row for row in rows if row not in published]
        missing = [run.name for run in self.runs if not run.evaluated]
        missing += [teacher.label for teacher in self.teachers if not teacher.evaluation.is_file()]
        lines = [f'# Comparison {self.options.name}', '', *self.head(), '', *table_lines(own), '', *self.notes()]
        if nothing_learned(own):
            lines += ['', f'**{NOTHING_LEARNED}**']
        if len(processors := distinct(record.get('processor') for record in self._records())) > 1:
            kinds = '; '.join(processors)
            lines += [
                '',
                f'**Runs of several processors stand side by side ({kinds}): one seed differs between them.**',
            ]
        if others := self.others():
            lines += ['', f'**Not in this table**, but finished in {self.place}: {", ".join(others)}.']
        if missing:
            lines += ['', f'**Missing** (not finished, or failed): {", ".join(missing)}.']
        if published:
            lines += ['', OTHER_PROTOCOL, '', *table_lines(published)]
        return '\n'.join(lines) + '\n'

    def others(self) -> list[str]:
        """Finished runs of the folder that this table leaves out: those of other rows or seeds."""
        own = {run.name for run in self.runs}
        return sorted(file.parent.name for file in self.place.glob('*/metrics.json') if file.parent.name not in own)

    def _records(self) -> list[dict]:
        """What is known of where the evaluated runs were made."""
        return [read_json(run.record) for run in self.runs if run.evaluated and run.record.is_file()]

    def head(self) -> list[str]:
        """One line each for data, split, protocol, settings, versions, command, machine."""
        records = self._records()
        evaluated = [read_json(run.evaluation) for run in self.runs if run.evaluated]
        images = evaluated[0].get('pictures') if evaluated else None
        images = '- pictures' if images is None else counted(images, 'picture')
        of_machine = distinct(record.get('machine') for record in records) or [machine(self.options.device)]
        of_versions = distinct(record.get('versions') for record in records) or [versions()]
        threshold = distinct(content.get('conf_threshold_from') for content in evaluated) or ['-']
        protocols = distinct(content.get('protocol') for content in evaluated)
        best = 'best.pt is of the last epoch' if self.options.noval else 'the epoch of best.pt is chosen on val'
        warning = (
            '; val here is the test split: what is chosen on val is selected on test'
            if selected_on_test(self.data)
            else ''
        )
        return [
            f'- data: {self.options.data} ({self.data.path})',
            f'- split: {self.options.task}, {images}',
            f'- protocol: dont_care: {self.data.dont_care}; {best}; threshold of hmean: '
            f'{"; ".join(threshold)}{warning}. {"; or ".join(protocols)}'.rstrip(),
            f'- settings: {self.describe_settings()}',
            f'- versions: {"; ".join(named(content) for content in of_versions)}',
            f'- command: `{self.saved.get("command", self.command)}`',
            f'- machine: {"; ".join(of_machine)} ({self.options.jobs} at a time)',
        ]

    def describe_settings(self) -> str:
        """The options and models, in one line."""
        options = self.options.as_dict()
        shared = {name: options[name] for name in options if name in AGREED.keys() - {'data', 'seed'}}
        own = {name: options.get(name) for name in ('kd_warmup', 'kd_decay', 'teacher_imgsz', 'unlabelled')}
        start = self.entries[0].opt
        shared |= {'lr0': self.hyp['lr0'], 'label_smoothing': self.hyp['label_smoothing'], 'hyp': options['hyp']}
        shared |= {'student': start['weights'] or start['cfg']}
        shared |= {f'{name} (recipes only)': value for name, value in own.items() if value is not None}
        teachers = [f'{teacher.weights} ({teacher.content})' for teacher in self.teachers]
        return named(shared | ({'teacher': ', '.join(teachers)} if teachers else {}))

    def notes(self) -> list[str]:
        """How to read the table."""
        seeds = ', '.join(map(str, self.options.seeds))
        return [
            f'{counted(len(self.options.seeds), "seed")} ({seeds}). mean ± sample standard deviation over seeds. Δ: '
            'mean difference to the control of the same seed, with its 95 % confidence interval (Student t). A recipe '
            'may be called better than the control only where the interval excludes 0 (bold); where nothing differs, '
            'one interval of twenty still does. With one seed there is no interval, and nothing can be claimed.',
            '',
            'The control is the same student without a teacher: it got the same options, seeds, initial weights and '
            'pictures in the same order.'
            + (UNLABELLED if self.options.unlabelled else '')
            + (LARGER if any(teacher.imgsz > self.options.imgsz for teacher in self.teachers) else '')
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
    """'batch-size 8, epochs 1' of names and values."""
    return ', '.join(f'{key.replace("_", "-")} {value}' for key, value in content.items())
