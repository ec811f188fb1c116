"""A comparison's table: rows and Markdown."""

from utils.comparison.statistics import COMPARED, METRICS, Difference, mean_sd, paired_difference
from utils.runtime.words import counted
from utils.training.log import duration

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
    'Published figures are of another protocol and cannot be compared with the rows above: dont_care: text, the epoch '
    'selected on the test pictures, 640 px, 300 epochs, one run each.'
)
NOTHING_LEARNED = 'Every difference to the control is exactly 0: nothing was learned that could be compared.'


def summarise(label: str, kind: str, ours: dict[int, dict], control: dict[int, dict]) -> dict:
    """One row of the table: plain numbers, None where there is none.

    Args:
        ours: {seed: metrics}; one may be lacking.
        control: the same of the control, {} for no differences.
    """
    row = {'recipe': label, 'kind': kind, 'seeds': len(ours)}
    for name in METRICS:
        row[f'{name}_mean'], row[f'{name}_sd'] = mean_sd([run[name] for run in ours.values() if name in run])
    for name in COMPARED:
        pair = ({seed: run[name] for seed, run in runs.items() if name in run} for runs in (ours, control))
        found = paired_difference(*pair) or Difference(None, None, None, 0)
        parts = {'difference': found.mean, 'low': found.low, 'high': found.high, 'pairs': found.pairs}
        row |= {f'{name}_{part}': value for part, value in parts.items()}
    row['seconds_mean'] = mean_sd([run['seconds'] for run in ours.values() if 'seconds' in run])[0]
    return row


def nothing_learned(rows: list[dict]) -> bool:
    """Whether there are differences to the control, and all of them are exactly 0."""
    found = [row[f'{name}_difference'] for row in rows for name in COMPARED]
    found = [difference for difference in found if difference is not None]
    return bool(found) and not any(found)


def table_lines(rows: list[dict]) -> list[str]:
    """The rows in Markdown; columns that no row fills are left out."""
    metrics = [name for name in METRICS if any(row[f'{name}_mean'] is not None for row in rows)]
    alone = all(row['kind'].startswith('published') for row in rows)  # they have no control
    compared = [] if alone else [name for name in COMPARED if name in metrics]
    header = ['row', 'kind', 'seeds', *(METRICS[name] for name in metrics)]
    header += [*(f'Δ {METRICS[name]} [95 %]' for name in compared), 'training']
    lines = []
    for row in rows:
        seeds, seconds = row['seeds'], row['seconds_mean']
        cells = [row['recipe'], row['kind'], '-' if seeds is None else str(seeds)]
        cells += [mean_cell(row, name) for name in metrics] + [difference_cell(row, name) for name in compared]
        lines.append([*cells, '-' if seconds is None else duration(seconds)])
    return markdown(header, lines)


def markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    """A table's lines."""
    return [f'| {" | ".join(cells)} |' for cells in (header, ['---'] * len(header), *rows)]


def mean_cell(row: dict, name: str) -> str:
    """'0.4300 ± 0.0265', of one evaluation of a teacher '0.4300'."""
    mean, sd = row[f'{name}_mean'], row[f'{name}_sd']
    if mean is None:
        return '-'
    alone = sd is None and row['kind'].startswith(('teacher', 'published'))
    return f'{mean:.4f}' if alone else f'{mean:.4f} ± {number(sd)}'


def difference_cell(row: dict, name: str) -> str:
    """'+0.0123 [+0.0021, +0.0225]', bold where the interval excludes 0; with the pairs where seeds lack one."""
    mean, low, high = (row[f'{name}_{part}'] for part in ('difference', 'low', 'high'))
    if mean is None:
        return '-'
    text, pairs = f'{mean:+.4f} [-]', row[f'{name}_pairs']
    if low is not None:
        text = f'{mean:+.4f} [{low:+.4f}, {high:+.4f}]'
        text = f'**{text}**' if low > 0 or high < 0 else text
    return text if pairs == row['seeds'] else f'{text} ({counted(pairs, "pair")})'


def number(value: float | None) -> str:
    """Four decimals, '-' for None."""
    return '-' if value is None else f'{value:.4f}'
