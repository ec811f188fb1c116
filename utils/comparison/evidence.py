"""The runs of a plan and the csv that keeps their results.

Where compare.py gives all runs the same options, rows of a plan may differ in length, data and starting weights. What
may be compared with what is told by the csv (utils/comparison/gains.py).
"""

from functools import cache
from pathlib import Path

from models.errors import UserError
from utils.comparison.jobs import training_job
from utils.comparison.ledger import SCORES, read_ledger, write_ledger
from utils.comparison.plan import Plan, Row, Step
from utils.comparison.runner import Runner, threads_of
from utils.comparison.runs import Entry, Job, Run, column, read_json, unlike
from utils.comparison.settings import processor, settings_of
from utils.distillation.recipe import read_recipe
from utils.loading.config import load_data_config
from utils.loading.listing import list_images, new_images
from utils.runtime.hyp import hyp_of
from utils.runtime.words import counted
from utils.training.log import duration
from utils.training.options import DistillOptions

PROJECT = Path('runs/evidence')
SPLITS = ('val', 'test')


class Evidence:
    """The runs of a plan, in runs/evidence, and their csv, which lies beside the plan.

    Args:
        plan: the plan.
        count: runs at once.
    """

    def __init__(self, plan: Plan, count: int = 1):
        self.plan, self.count = plan, count
        self.place = PROJECT / plan.file.stem
        self.file = plan.file.with_suffix('.csv')
        self.processor = processor(next(iter(plan.rows.values())).options.device)
        self.count_images = cache(self._count_images)

    @property
    def lines(self) -> list[dict]:
        """What the csv has."""
        return read_ledger(self.file)

    def refuse_other_processor(self) -> None:
        """Raise a UserError where all that the csv has ran on another kind of processor than this one."""
        machines = sorted({line['machine'] for line in self.lines})
        if machines and self.processor not in machines:
            raise UserError(
                f'{self.file} has runs of {"; ".join(machines)}, and this is {self.processor}: rows that are compared '
                'must be of one kind of processor. --other-processor begins the plan anew on this one'
            )

    def run(self, only: int | None = None) -> list[str]:
        """Run what the csv lacks, step by step; returns the names of runs that failed.

        Args:
            only: the number of the one step to run, from 1. Raises UserError where the plan has no such step.
        """
        failed, steps = [], list(enumerate(self.plan.steps, 1))
        if only is not None and not 1 <= only <= len(steps):
            raise UserError(f'--step {only}: {self.plan.file} has steps 1 to {len(steps)}')
        self.collect()
        for number, step in steps if only is None else steps[only - 1 : only]:
            runs, done = self.runs(step), self.done()
            left = [run for run in runs if (run.entry.label, run.seed) not in done]
            before = len(runs) - len(left)
            print(f'step {number}: {step.question} {len(left)} to run, {before} done before', flush=True)
            for run in left:
                if difference := unlike(run):
                    raise UserError(f'{run.folder} was run with other settings: {difference}; give the rows new names')
                self._refuse_other_start(run)
            waiting = {run.name: name for run in left if (name := self.waits_for(run))}
            for name, other in waiting.items():
                print(f'{name} is left out: it needs the weights of {other}, which is not over')
            ready = [self.job(run) for run in left if run.name not in waiting]
            failed += [*waiting, *Runner(ready, self.count, self.collect).run()]
        return failed

    def waits_for(self, run: Run) -> str | None:
        """The name of a run of this plan that is not over, though its weights are the run's start or its teacher's."""
        recipe = run.entry.opt.get('recipe_content')
        used = [recipe['teacher_weights'], recipe['student_weights']] if recipe else [run.entry.opt['weights']]
        folders = [Path(weights).parent.parent for weights in used if weights]
        made_here = [folder for folder in folders if folder.parent == self.place]
        return next((folder.name for folder in made_here if not (folder / 'metrics.json').is_file()), None)

    def _refuse_other_start(self, run: Run) -> None:
        """Raise a UserError where a run that is not over began on another processor, or with other threads."""
        if not run.record.is_file() or not (run.trained or run.last.is_file()):
            return  # it begins anew
        record, threads = read_json(run.record), threads_of(self.count)
        if record['processor'] != self.processor:
            raise UserError(
                f'{run.folder} began on {record["processor"]}, this is {self.processor}: move it away first'
            )
        if not run.trained and record['threads'] != threads:
            count = counted(record['threads'], 'thread')
            raise UserError(f'{run.folder} began with {count}, now it would have {threads} (--jobs, OMP_NUM_THREADS)')

    def runs(self, step: Step) -> list[Run]:
        """The runs of a step, seed by seed. To be asked for when the steps before are done: they make its teachers."""
        return [self._run(self.plan.rows[label], seed) for seed in step.seeds for label in step.rows]

    def _run(self, row: Row, seed: int) -> Run:
        options, opt = row.options, row.options.as_dict() | {'seed': seed}
        if isinstance(options, DistillOptions):
            recipe = read_recipe(options.recipe, options.methods, options)
            size = options.teacher_imgsz or recipe.teacher_imgsz(options.imgsz, options.crop)
            opt |= {'recipe_content': recipe.as_dict(), 'teacher_imgsz': size}
        entry = Entry(row.label, row.kind, row.flags, opt)
        return Run(entry, seed, self.place, settings_of(opt, hyp_of(options)), SPLITS[-1])

    def job(self, run: Run) -> Job:
        """The commands that complete a run: training, a threshold for each size chosen on val, the evaluations."""
        options = self.plan.rows[run.entry.label].options
        packed, data = run.folder / 'weights' / 'packed.pt', ['--data', options.data, '--device', options.device]
        sizes = [str(size) for size in self.plan.sizes]
        steps = [['teacher/pack.py', str(run.best), str(packed), '--sizes', *sizes, *data]]
        for split, size in self.evaluations():
            where = ['--project', str(run.folder), '--name', f'{split}-{size}', '--exist-ok', '--noplots']
            more = ['--imgsz', str(size), '--workers', str(options.workers)]
            steps.append(['val.py', '--weights', str(packed), *data, '--task', split, *more, *where])
        return training_job(run, [], options, steps, self.last_evaluation(run), threads_of(self.count))

    def evaluations(self) -> list[tuple[str, int]]:
        """(split, pixels), in the order in which they are made."""
        return [(split, size) for split in SPLITS for size in self.plan.sizes]

    def last_evaluation(self, run: Run) -> Path:
        """The metrics.json that is written last."""
        return metrics_file(run, *self.evaluations()[-1])

    # The csv

    def done(self) -> set[tuple[str, int]]:
        """(row, seed) of the runs of which the csv has all sizes, on this processor. Raises UserError where a row
        changed since."""
        found: dict[tuple[str, int], set[tuple[str, int]]] = {}
        for line in self.lines:
            row = self.plan.rows.get(line['row'])
            if row is None or line['machine'] != self.processor:
                continue
            expected = dict(zip(('labelled', 'unlabelled'), self.count_images(row.label), strict=True))
            expected['crops'] = row.options.epochs * sum(expected.values())
            new_name = 'give the rows new names, and another comparison'
            for name, value in expected.items():
                if line[name] != value:
                    raise UserError(
                        f'{self.file}: {line["row"]} has {line[name]} {name}, and the plan says {value}: {new_name}'
                    )
            for name in ('comparison', 'method'):
                if line[name] != getattr(row, name):
                    raise UserError(
                        f'{self.file}: {line["row"]} has the {name} {line[name]}, and the plan says '
                        f'{getattr(row, name)}: {new_name}'
                    )
            if line['settings'] != row.settings:
                raise UserError(
                    f'{self.file}: {line["row"]} ran with other options, data, recipe or rules than now: {new_name}'
                )
            found.setdefault((line['row'], line['seed']), set()).add((line['split'], line['pixels']))
        return {run for run, evaluated in found.items() if evaluated >= set(self.evaluations())}

    def collect(self) -> None:
        """Add to the csv the runs of the plan that are evaluated and not in it."""
        lines = self.lines
        keys = ('row', 'seed', 'machine', 'split', 'pixels')
        known = {tuple(line[key] for key in keys) for line in lines}
        new = []
        for label, seed in self.planned():
            run = self._run(self.plan.rows[label], seed)
            if not (run.trained and all(metrics_file(run, *each).is_file() for each in self.evaluations())):
                continue
            if not run.record.is_file():
                print(f'{run.folder} is left out: without comparison.json nobody knows where it ran')
                continue
            if difference := unlike(run):
                print(f'{run.folder} is left out, as it was run with other settings: {difference}')
                continue
            of_run = self._lines_of(run, read_json(run.record))
            new += [line for line in of_run if tuple(line[key] for key in keys) not in known]
        if new:
            write_ledger(self.file, lines + new)

    def planned(self) -> list[tuple[str, int]]:
        """(row, seed) of all runs, each once, in the plan's order."""
        steps = self.plan.steps
        return list(dict.fromkeys((label, seed) for step in steps for seed in step.seeds for label in step.rows))

    def _lines_of(self, run: Run, record: dict) -> list[dict]:
        row, (labelled, unlabelled) = self.plan.rows[run.entry.label], self.count_images(run.entry.label)
        results = run.folder / 'results.csv'
        of_row = {'comparison': row.comparison, 'row': row.label, 'method': row.method, 'kind': row.kind}
        of_row |= {'settings': row.settings}
        counts = {'labelled': labelled, 'unlabelled': unlabelled}
        counts |= {'crops': len(column(results, 'epoch')) * (labelled + unlabelled)}
        of_run = {'seed': run.seed, 'seconds': round(sum(column(results, 'seconds')))}
        of_run |= {'machine': record['processor']} | {name: record[name] for name in ('threads', 'commit')}
        lines = []
        for split, size in self.evaluations():
            metrics = read_json(metrics_file(run, split, size))
            scores = {name: round(metrics[name], 5) for name in SCORES if name in metrics}
            lines.append(of_row | counts | of_run | scores | {'split': split, 'pixels': size})
        return lines

    def _count_images(self, label: str) -> tuple[int, int]:
        """Pictures that a row trains on: with and without labels."""
        options = self.plan.rows[label].options
        data = load_data_config(options.data)
        place = options.unlabelled if isinstance(options, DistillOptions) else None
        return len(list_images(data, 'train')), len(new_images(Path(place), data)[0]) if place else 0

    # What is to be expected

    def describe(self) -> str:
        """The plan step by step: its runs, which of them are done, and the hours that the others are expected to
        take where the plan says how long a crop takes."""
        done, lines, total, unknown = self.done(), [], 0.0, False
        for number, step in enumerate(self.plan.steps, 1):
            parts, before, here = [], total, False
            for label in step.rows:
                row, left = self.plan.rows[label], [seed for seed in step.seeds if (label, seed) not in done]
                done |= {(label, seed) for seed in left}  # a later step may name them again
                crops = row.options.epochs * sum(self.count_images(label))
                seconds = crops * row.ms / 1000
                total += seconds * len(left)
                each = duration(seconds) if row.ms else 'unknown'
                here |= bool(left) and not row.ms
                parts.append(f'   {label}: {crops:,} crops, {each} a run, {counted(len(left), "run")} left')
            unknown |= here
            hours = f'{_hours(total - before, here)} left, {_hours(total, unknown)} up to here'
            lines += [f'{number}. {step.question} (seeds {", ".join(map(str, step.seeds))}; {hours})', *parts]
        return '\n'.join([*lines, f'expected for all that is left, without evaluations: {_hours(total, unknown)}'])


def _hours(seconds: float, unknown: bool) -> str:
    """`unknown`: of some runs nobody knows how long they take."""
    return f'{"at least " * unknown}{seconds / 3600:.1f} h'


def metrics_file(run: Run, split: str, size: int) -> Path:
    """Where an evaluation of a run writes its metrics."""
    return run.folder / f'{split}-{size}' / 'metrics.json'
