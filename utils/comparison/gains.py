"""What the lines of a csv of results say: means, differences to controls of the same and of twice the length, and how
these grow with the labels and with the length."""

from dataclasses import dataclass, field
from typing import NamedTuple

from models.errors import UserError
from utils.comparison.plan import CONTROL
from utils.comparison.statistics import COMPARED, METRICS
from utils.comparison.table import difference_cell, markdown, mean_cell, summarise
from utils.runtime.words import counted
from utils.training.log import duration

AGAINST = {1: 'the same length', 2: 'twice the length'}


@dataclass(frozen=True)
class Series:
    """A row at one size on one split, of one kind of processor; runs: seed -> metrics, with seconds and threads."""

    machine: str
    comparison: str
    labelled: int
    pixels: int
    row: str
    method: str
    kind: str
    crops: int
    runs: dict[int, dict] = field(default_factory=dict)

    @property
    def group(self) -> tuple:
        """What series must have in common to be compared."""
        return self.machine, self.comparison, self.labelled, self.pixels

    @property
    def summary(self) -> dict:
        """Means; see summarise."""
        return summarise(self.row, self.kind, self.runs, {})

    def against(self, control: 'Series') -> dict:
        """Means, and the paired differences to a control."""
        return summarise(self.row, self.kind, self.runs, control.runs)


def series_of(lines: list[dict], split: str) -> list[Series]:
    """The series of a split, in the order of the csv.

    Raises:
        UserError: a row that ran with two kinds of settings, or twice with one seed, as in csv files of two plans.
    """
    keys = ('machine', 'comparison', 'labelled', 'pixels', 'row', 'method', 'kind', 'crops')
    values: dict[tuple, dict[int, dict]] = {}
    settings: dict[tuple, str] = {}
    for line in lines:
        if line['split'] != split:
            continue
        metrics = {name: line[name] for name in METRICS if line[name] is not None}
        key = tuple(line[name] for name in keys)
        runs = values.setdefault(key, {})
        if line['seed'] in runs or settings.setdefault(key, line['settings']) != line['settings']:
            what = 'twice' if line['seed'] in runs else 'with other settings than another seed'
            raise UserError(
                f'{line["row"]} of {line["comparison"]} stands there {what} (seed {line["seed"]}): rows of two plans '
                'need names of their own'
            )
        runs[line['seed']] = metrics | {'seconds': line['seconds'], 'threads': line['threads']}
    return [Series(**dict(zip(keys, key, strict=True)), runs=runs) for key, runs in values.items()]


def control_of(series: Series, every: list[Series], factor: float) -> Series | None:
    """The control of so many times its length, None where there is none. Raises UserError where there are several."""
    found = [
        other
        for other in every
        if other.group == series.group and other.method == CONTROL and other.crops == factor * series.crops
    ]
    if len(found) > 1:
        rows = ' and '.join(sorted(other.row for other in found))
        raise UserError(f'{rows} are both the control of {found[0].crops:,} crops: give one of them another comparison')
    return found[0] if found else None


def tables(every: list[Series]) -> list[str]:
    """All tables in Markdown, each with its notes."""
    lines = []
    for group in dict.fromkeys(series.group for series in every):
        machine, comparison, labelled, pixels = group
        part = [series for series in every if series.group == group]
        lines += [f'### {comparison}: {counted(labelled, "labelled picture")}, evaluated at {pixels} pixels', '']
        lines += [f'Runs of {machine}, {threads_in_words(part)}.', '', *means(part), '']
        differences, notes = differences_of(part)
        lines += [*differences, ''] if differences else []
        lines += [*(f'- {note}' for note in notes), ''] if notes else []
    return lines


def threads_in_words(part: list[Series]) -> str:
    """'1 thread a run'; of several numbers, that times cannot be compared."""
    numbers = sorted({run['threads'] for series in part for run in series.runs.values()})
    if len(numbers) == 1:
        return f'{counted(numbers[0], "thread")} a run'
    return f'{" or ".join(map(str, numbers))} threads a run, so that their times cannot be compared'


def means(part: list[Series]) -> list[str]:
    """The table of means over the seeds, shorter trainings first."""
    names = _shown(part)
    header = ['row', 'method', 'crops', 'seeds', *(METRICS[name] for name in names), 'training']
    cells = []
    for series in sorted(part, key=lambda series: series.crops):
        row, seeds = series.summary, ', '.join(map(str, sorted(series.runs)))
        scores = [mean_cell(row, name) for name in names]
        cells.append([series.row, series.method, f'{series.crops:,}', seeds, *scores, duration(row['seconds_mean'])])
    return markdown(header, cells)


def differences_of(part: list[Series]) -> tuple[list[str], list[str]]:
    """The table of paired differences, of recipes to both controls and of controls to one of half the length, and
    lines on what is missing for more."""
    names = _shown(part)
    header = ['row', 'minus', 'pairs', *(f'Δ {METRICS[name]} [95 %]' for name in names)]
    rows, notes = [], []
    for series in sorted(part, key=lambda series: series.crops):
        for factor in _factors(series):
            control = control_of(series, part, factor)
            if control is None:
                if factor in AGAINST:
                    notes.append(f'{series.row}: no control of {factor * series.crops:,} crops ({AGAINST[factor]}).')
                continue
            summary = series.against(control)
            pairs = len(series.runs.keys() & control.runs.keys())
            notes += _unpaired(series, control)
            if pairs:
                cells = [difference_cell(summary, name) for name in names]
                rows.append([series.row, f'{control.row} ({_length(factor)})', str(pairs), *cells])
            if pairs == 1:
                notes.append(f'{series.row} minus {control.row}: one pair has no interval; nothing can be claimed.')
    return (markdown(header, rows) if rows else []), notes


def _shown(part: list[Series]) -> list[str]:
    return [name for name in COMPARED if any(name in run for series in part for run in series.runs.values())]


def _factors(series: Series) -> tuple[float, ...]:
    """Lengths of the controls that a series is compared with, as multiples of its own."""
    if series.kind == 'recipe':
        return tuple(AGAINST)
    if series.kind == 'control':
        return (0.5,) if series.method == CONTROL else (1,)
    return ()


def _length(factor: float) -> str:
    return AGAINST.get(factor, 'half the length')


def _unpaired(series: Series, control: Series) -> list[str]:
    """A line for seeds that only the first has: they are left out of the difference."""
    alone = sorted(series.runs.keys() - control.runs.keys())
    if not alone:
        return []
    without = f'{counted(len(alone), "seed")} without a pair left out ({", ".join(map(str, alone))})'
    return [f'{series.row} minus {control.row}: {without}.']


class Point(NamedTuple):
    """A gain in a curve: x, and the mean difference with its interval (None for one pair)."""

    x: int
    mean: float
    low: float | None
    high: float | None


def curves(every: list[Series], over: str, metric: str, factor: int) -> dict[str, list[Point]]:
    """Gains over the labelled pictures or over the crops, a curve for each recipe that has two points at least.

    Args:
        every: series of one size.
        over: 'labelled' or 'crops'.
        metric: of METRICS.
        factor: length of the control in lengths of the recipe.

    Returns:
        By a label that tells all that a curve keeps fixed; points by x.
    """
    found: dict[str, list[Point]] = {}
    machines = {series.machine for series in every}
    for series in every:
        # With fewer labels the control is one with fewer labels, too
        control = control_of(series, every, factor) if series.kind == 'recipe' else None
        summary = series.against(control) if control else {}
        if summary.get(f'{metric}_difference') is None:
            continue
        fixed = f'{series.crops:,} crops' if over == 'labelled' else f'{series.labelled} labelled'
        label = f'{series.method}, {series.comparison}, {fixed}' + (f', {series.machine}' * (len(machines) > 1))
        values = (summary[f'{metric}_{part}'] for part in ('difference', 'low', 'high'))
        found.setdefault(label, []).append(Point(getattr(series, over), *values))
    return {label: sorted(points) for label, points in found.items() if len({point.x for point in points}) > 1}
