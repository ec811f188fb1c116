"""A comparison in pictures: paired differences to the control with their intervals, the means that they come from, and
the curves of all runs."""

import io
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING

from utils.comparison.statistics import METRICS
from utils.runtime.run_folder import write_bytes
from utils.runtime.words import counted

if TYPE_CHECKING:  # matplotlib is imported when a chart is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

DRAWN = ('map50', 'quad_map50', 'icdar_hmean')
LINES = ('#1f6fb4', '#e07b00', '#0a9a74', '#c03a7a', '#56b4e9', '#a0522d')  # of rows beside the control
COLORS = {'control': '#666666', 'recipe': '#1f6fb4', 'baseline': '#0a9a74', 'teacher': '#e07b00'}
ROW, MARGIN = 0.34, 1.25  # inches of a row, and of titles, axes and legend


def draw_chart(rows: list[dict], file: Path, task: str) -> None:
    """Write the chart of a comparison's rows (see summarise) on a split.

    A panel of differences stands above one of means for each metric that there is.
    """
    from matplotlib.figure import Figure

    rows = [row for row in rows if row['kind'] in COLORS and row['map50_mean'] is not None]
    names = [name for name in DRAWN if any(row[f'{name}_mean'] is not None for row in rows)]
    compared = [row for row in rows if any(row[f'{name}_difference'] is not None for name in names)]
    parts = [part for part in (compared, rows) if part]
    heights = [MARGIN + ROW * len(part) for part in parts] or [MARGIN]
    figure = Figure(figsize=(2.2 + 4.3 * max(len(names), 1), sum(heights)), layout='constrained')
    grid = figure.subplots(
        max(len(parts), 1), max(len(names), 1), squeeze=False, sharey='row', height_ratios=heights, sharex=False
    )
    for panels, part, draw in zip(grid, parts, (_differences, _means)[-len(parts) :], strict=False):
        for panel, name in zip(panels, names, strict=True):
            draw(panel, part, name, task)
            _rows_as_ticks(panel, part)
    if names:
        figure.legend(handles=_legend(rows, compared), loc='outside lower center', ncols=4, fontsize=8, frameon=False)
    else:
        grid[0, 0].text(0.5, 0.5, 'no results yet', ha='center', va='center')
        grid[0, 0].set_axis_off()
    _save(figure, file)


def draw_curves(curves: dict[str, list[list[float]]], file: Path, ylabel: str) -> None:
    """Write a line for each run, in the colour of its row: how its score grew, epoch by epoch.

    Args:
        curves: by row, a list of values for each seed, NaN where an epoch was not validated.
        file: where to.
        ylabel: which score it is.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout='constrained')
    axis = figure.subplots()
    lines = itertools.cycle(LINES)
    for row, runs in curves.items():
        color = COLORS['control'] if row == 'control' else next(lines)
        for number, values in enumerate(runs):
            known = [(epoch, value) for epoch, value in enumerate(values, 1) if math.isfinite(value)]
            label = f'{row} ({counted(len(runs), "seed")})' if not number else None
            axis.plot(*zip(*known, strict=True), color=color, marker='.', linewidth=1.4, label=label)
    axis.set(xlabel='epoch', ylabel=ylabel)
    axis.locator_params(axis='x', integer=True)
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.spines[['top', 'right']].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    _save(figure, file)


def draw_gains(panels: dict[str, dict[str, dict[str, list]]], file: Path, xlabel: str) -> None:
    """Write curves of gains with their 95 % intervals.

    Args:
        panels: title -> control -> label of a curve -> its points (see gains.Point); a colour for each label, a style
            for each control.
        file: where to.
        xlabel: what the gains grow over.
    """
    from matplotlib.figure import Figure

    columns = min(len(panels), 2)
    figure = Figure(figsize=(5.2 * columns, 3.6 * -(-len(panels) // columns) + 0.6), layout='constrained')
    grid = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).ravel()
    all_lines = [
        (control, label) for controls in panels.values() for control in controls for label in controls[control]
    ]
    styles = dict(zip(dict.fromkeys(control for control, _ in all_lines), ('-', '--'), strict=False))
    colors = dict(zip(dict.fromkeys(label for _, label in all_lines), itertools.cycle(LINES), strict=False))
    known: dict[str, Line2D] = {}
    for panel, (title, controls) in zip(grid, panels.items(), strict=False):
        panel.axhline(0, color=COLORS['control'], linewidth=1)
        for number, (control, label) in enumerate(dict.fromkeys(all_lines)):
            if points := controls.get(control, {}).get(label):
                name = f'{label}; control of {control}'
                known[name] = _curve(panel, points, colors[label], styles[control], 1.03**number)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel(xlabel, fontsize=8)
        _gain_axis(panel, sorted({p.x for lines in controls.values() for points in lines.values() for p in points}))
    for panel in grid[len(panels) :]:
        panel.set_axis_off()
    figure.legend(known.values(), known.keys(), loc='outside lower center', fontsize=7, frameon=False)
    _save(figure, file)


def _gain_axis(panel: 'Axes', ticks: list[int]) -> None:
    """A logarithmic axis of counts, with the counts that there are."""
    panel.set_xscale('log')
    panel.set_xticks(ticks, [f'{tick:,}' for tick in ticks], fontsize=7)
    panel.minorticks_off()
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.spines[['top', 'right']].set_visible(False)


def _curve(panel: 'Axes', points: list, color: str, style: str, beside: float) -> 'Line2D':
    """A line through means; an interval at each point that has one, and a filled point where it excludes 0.

    Args:
        beside: factor of x, so that intervals of several curves do not cover one another.
    """
    (line,) = panel.plot([p.x * beside for p in points], [p.mean for p in points], style, color=color, linewidth=1.4)
    for point in points:
        sure, x = point.low is not None and (point.low > 0 or point.high < 0), point.x * beside
        if point.low is not None:
            panel.plot([x, x], [point.low, point.high], style, color=color, linewidth=1.2)
        panel.plot(x, point.mean, 'o', color=color, markerfacecolor=color if sure else 'white', markersize=6)
    return line


def _save(figure: 'Figure', file: Path) -> None:
    image = io.BytesIO()
    figure.savefig(image, format='png', dpi=150)
    write_bytes(file, image.getvalue())


def _differences(panel: 'Axes', rows: list[dict], name: str, task: str) -> None:
    """Each recipe's mean difference to the control of its seed, with its interval, and both in figures."""
    panel.axvline(0, color=COLORS['control'], linewidth=1.2, linestyle='--')
    for position, row in enumerate(rows):
        mean, low, high = (row[f'{name}_{part}'] for part in ('difference', 'low', 'high'))
        if mean is None:
            continue
        color, sure = COLORS[row['kind']], low is not None and (low > 0 or high < 0)
        if low is not None:
            panel.plot([low, high], [position, position], color=color, linewidth=2, solid_capstyle='butt')
        panel.plot(mean, position, 'o', color=color, markerfacecolor=color if sure else 'white', markersize=7)
        interval = f' [{low:+.3f}, {high:+.3f}]' if low is not None else ' (one pair)'
        _beside(panel, position, f'{mean:+.3f}{interval}', bold=sure)
    panel.set_title(f'{METRICS[name]}, {task}: difference to the control', fontsize=9)
    panel.set_xlabel('paired by seed, with the 95 % interval of the mean', fontsize=8)
    panel.margins(x=0.08)


def _means(panel: 'Axes', rows: list[dict], name: str, task: str) -> None:
    """Each row's mean and standard deviation over the seeds, and the mean in figures."""
    for position, row in enumerate(rows):
        mean, sd = row[f'{name}_mean'], row[f'{name}_sd']
        if mean is None:
            continue
        color = COLORS[row['kind']]
        panel.errorbar(mean, position, xerr=sd, fmt='s', color=color, capsize=3, markersize=5)
        _beside(panel, position, f'{mean:.3f}' + (f' ± {sd:.3f}' if sd is not None else ''))
        if row['kind'] == 'control':
            panel.axvline(mean, color=color, linewidth=1, linestyle='--')
    numbers = sorted({row['seeds'] for row in rows if row['seeds']}) or [0]
    seeds = counted(numbers[-1], 'seed') if len(numbers) == 1 else f'{numbers[0]} to {numbers[-1]} seeds'
    panel.set_title(f'{METRICS[name]}, {task}: mean and standard deviation', fontsize=9)
    panel.set_xlabel(f'over {seeds}', fontsize=8)
    panel.margins(x=0.08)


def _beside(panel: 'Axes', position: int, text: str, bold: bool = False) -> None:
    """Figures at the right of a panel, on a row's height."""
    weight = 'bold' if bold else 'normal'
    panel.text(1.01, position, text, transform=panel.get_yaxis_transform(), va='center', fontsize=7.5, weight=weight)


def _rows_as_ticks(panel: 'Axes', rows: list[dict]) -> None:
    panel.set_yticks(range(len(rows)), [row['recipe'] for row in rows], fontsize=8)
    panel.set_ylim(len(rows) - 0.4, -0.6)  # the first row on top
    panel.tick_params(axis='x', labelsize=7)
    panel.locator_params(axis='x', nbins=6)
    panel.grid(alpha=0.25, linewidth=0.6, axis='x')
    panel.set_axisbelow(True)
    panel.spines[['top', 'right']].set_visible(False)


def _legend(rows: list[dict], compared: list[dict]) -> list['Line2D']:
    from matplotlib.lines import Line2D

    kinds = list(dict.fromkeys(row['kind'] for row in rows))
    handles = [Line2D([], [], color=COLORS[kind], marker='s', linestyle='', label=kind) for kind in kinds]
    lows = [row[f'{name}_low'] for row in compared for name in DRAWN if row[f'{name}_difference'] is not None]
    if any(low is not None for low in lows):
        handles += [_point('the interval excludes 0', filled=True), _point('it does not', filled=False)]
    elif lows:
        handles += [_point('one pair, no interval: nothing can be claimed', filled=False)]
    return handles


def _point(label: str, filled: bool) -> 'Line2D':
    from matplotlib.lines import Line2D

    return Line2D([], [], color=COLORS['recipe'], marker='o', markerfacecolor=None if filled else 'white', label=label)
