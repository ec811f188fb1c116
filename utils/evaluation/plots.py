"""Curves and charts with matplotlib (Agg, no global state). All are written whole or not at all, and all take empty
inputs."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from ocrdistill.drawing import PALETTE
from utils.evaluation.grids import Names, class_name, save_image

LINE_COLORS = ('#1f6fb4', '#e07b00', '#0a9a74', '#c03a7a', '#555555', '#56b4e9', '#a0522d')


def _name(names: Names, category: int) -> str:
    """A class's name, in which matplotlib is not to look for formulas."""
    return class_name(names, category).replace('$', r'\$')


def _save_figure(figure: Figure, file: Path, dpi: int = 150) -> None:
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(dpi)
    canvas.draw()
    save_image(np.asarray(canvas.buffer_rgba())[..., :3], file)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """A figure of width x height inches and its axes (rows, columns)."""
    figure = Figure(figsize=(width, height), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[['top', 'right']].set_visible(False)
    return figure, axes


def columns_of(rows: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The columns of a run's rows by name; what a row lacks is NaN, all-NaN columns are left out."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: np.array([row.get(name, math.nan) for row in rows], float) for name in names}
    return {name: values for name, values in columns.items() if np.isfinite(values).any()}


@dataclass
class Panel:
    """Lines that share axes.

    Attributes:
        title: what they are.
        lines: values by name.
        log: whether the values' axis is logarithmic.
    """

    title: str
    lines: dict[str, np.ndarray] = field(default_factory=dict)
    log: bool = False


def results_panels(columns: dict[str, np.ndarray]) -> tuple[list[Panel], list[str]]:
    """The panels of a results.csv: scores first, then each term of the detection loss with its value on val, then what
    the terms add to the loss, and a teacher's terms.

    Args:
        columns: by name, without the epochs.

    Returns:
        Panels, and the names of the columns that say nothing, as they never change.
    """
    known = {name: values[np.isfinite(values)] for name, values in columns.items()}
    constant = [name for name, values in known.items() if len(values) > 1 and np.ptp(values) == 0]
    left = {name: values for name, values in columns.items() if name not in constant}

    def take(title: str, names: Iterable[str], log: bool = False) -> Panel:
        lines = {name: left.pop(name) for name in list(names) if name in left}
        return Panel(title, {name.partition('/')[2] or name: values for name, values in lines.items()}, log)

    def of(group: str) -> list[str]:
        return [name for name in left if name.startswith(f'{group}/')]

    panels = [
        take('mAP on val', [name for name in of('val') if 'map50' in name]),
        take('precision and recall on val', ['val/precision', 'val/recall']),
    ]
    for name in [name.partition('/')[2] for name in of('train')]:
        if f'val/{name}' in left:
            pair = {group: left.pop(f'{group}/{name}') for group in ('train', 'val') if f'{group}/{name}' in left}
            panels.append(Panel(f'{name} loss', pair))
    panels.append(take('weight x term: parts of the loss', of('weighted'), log=True))
    terms = take("teacher's terms, first epoch = 1", of('train'))
    panels.append(Panel(terms.title, {name: _relative(values) for name, values in terms.lines.items()}))
    panels += [take('learning rate', ['lr']), take('seconds an epoch', ['seconds'])]
    panels += [take(name, [name]) for name in list(left)]
    return [panel for panel in panels if panel.lines], constant


def _relative(values: np.ndarray) -> np.ndarray:
    """The values as multiples of the first one that is neither missing nor 0."""
    known = values[np.isfinite(values) & (values != 0)]
    return values / known[0] if len(known) else values


def plot_results(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """A run's rows, one per epoch, over their `epoch`."""
    columns = columns_of(rows)
    count = max((len(values) for values in columns.values()), default=0)
    epochs = columns.pop('epoch', np.arange(count))
    panels, constant = results_panels(columns)
    across = min(max(math.ceil(math.sqrt(1.4 * len(panels))), 1), 5)
    down = max(math.ceil(len(panels) / across), 1)
    figure, axes = _figure(3.6 * across, 2.6 * down, down, across)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes.flat, panels, strict=False):
        _plot_panel(axis, panel, epochs)
    if not panels:
        axes[0, 0].text(0.5, 0.5, 'no results yet', ha='center', va='center')
    if constant:
        values = [f'{name} {columns[name][np.isfinite(columns[name])][0]:g}' for name in constant]
        figure.supxlabel(f'the same in all epochs, and not drawn: {", ".join(values)}', fontsize=8)
    _save_figure(figure, file, 120)


def _plot_panel(axis: Axes, panel: Panel, epochs: np.ndarray) -> None:
    marker = '.' if len(epochs) <= 60 else None
    for (name, values), color in zip(panel.lines.items(), itertools.cycle(LINE_COLORS), strict=False):
        known = np.isfinite(values)  # a line goes on over epochs that were not validated
        axis.plot(epochs[known], values[known], color=color, marker=marker, markersize=4, linewidth=1.4, label=name)
    axis.set_title(panel.title, fontsize=9)
    axis.set_xlabel('epoch', fontsize=8)
    axis.tick_params(labelsize=7)
    axis.locator_params(axis='x', integer=True)
    if panel.title == 'seconds an epoch':
        axis.set_ylim(bottom=0)
    if panel.log and all((values[np.isfinite(values)] > 0).all() for values in panel.lines.values()):
        axis.set_yscale('log')
    if len(panel.lines) > 1:
        axis.legend(fontsize=7, frameon=False, ncols=2 if len(panel.lines) > 3 else 1)


def _unit_axes(xlabel: str, ylabel: str, title: str = '') -> tuple[Figure, Axes]:
    figure, axes = _figure(6.4, 4.6)
    axis = axes[0, 0]
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=xlabel, ylabel=ylabel)
    axis.set_title(title, fontsize=11)
    return figure, axis


def _plot_class_curves(x: np.ndarray, rows: np.ndarray, labels: list[str], mean_label: str, axis: Axes) -> None:
    """A thin line per class (named up to ten of them), and their mean."""
    for row, (values, label) in enumerate(zip(rows, labels, strict=True)):
        color = np.array(PALETTE[row % len(PALETTE)]) / 255
        if len(rows) > 1:
            axis.plot(x, values, color=color, linewidth=1, label=label if len(rows) <= 10 else None)
    if len(rows):
        axis.plot(x, np.mean(rows, 0), color='#1f4e9c', linewidth=2.2, label=mean_label)
        axis.legend(fontsize=8, frameon=False, loc='lower center')
    else:
        axis.text(0.5, 0.5, 'no labels', ha='center', va='center')


def plot_pr_curve(curves: dict[str, Any], file: Path, names: Names = None, subject: str = '') -> None:
    """Precision over recall at IoU .5.

    Args:
        curves: what DetectionMetrics.compute() gives under that name.
        file: to write.
        names: of the classes.
        subject: which pictures it is for.
    """
    figure, axis = _unit_axes('recall', 'precision', f'Precision over recall, IoU 0.5\n{subject}')
    ap50 = curves['ap50']
    labels = [f'{_name(names, c)}: AP {ap:.3f}' for c, ap in zip(curves['classes'], ap50, strict=True)]
    mean = f'{labels[0]}' if len(labels) == 1 else f'all classes: mAP {np.mean(ap50) if len(ap50) else 0:.3f}'
    _plot_class_curves(curves['axis_recall'], curves['pr'], labels, mean, axis)
    _save_figure(figure, file)


def plot_f1_curve(curves: dict[str, Any], file: Path, names: Names = None, subject: str = '') -> None:
    """F1, and the mean precision and recall, over the confidence threshold, at IoU .5; arguments of plot_pr_curve."""
    figure, axis = _unit_axes('confidence threshold', 'score', f'F1, precision and recall, IoU 0.5\n{subject}')
    x, f1 = curves['confidence'], curves['f1']
    if len(f1):
        best = int(np.searchsorted(x, curves['best_f1_conf']))
        axis.plot(x, curves['precision'].mean(0), color='#888888', linewidth=1.2, linestyle='--', label='precision')
        axis.plot(x, curves['recall'].mean(0), color='#888888', linewidth=1.2, linestyle=':', label='recall')
        axis.plot(x[best], f1.mean(0)[best], 'o', color='#1f4e9c', markersize=5)
    mean = f'F1: {f1.mean(0)[best]:.3f} at {x[best]:.3f}' if len(f1) else ''
    _plot_class_curves(x, f1, [_name(names, c) for c in curves['classes']], mean, axis)
    _save_figure(figure, file)


def plot_icdar_curve(
    curve: dict[str, np.ndarray], file: Path, threshold: float, hmean: float, subject: str = ''
) -> None:
    """ICDAR precision, recall and hmean over the confidence threshold.

    Marked is the threshold in use, not the curve's highest point, which on a test split would be chosen on test.

    Args:
        curve: of ICDARMetrics.sweep().
        file: to write.
        threshold: the confidence in use, and
        hmean: at it.
        subject: which pictures it is for.
    """
    figure, axis = _unit_axes('confidence threshold', 'score', f'ICDAR2015 task 4.1, IoU over 0.5\n{subject}')
    x = curve['threshold']
    axis.plot(x, curve['precision'], color='#e07b00', linewidth=1.2, label='precision')
    axis.plot(x, curve['recall'], color='#0a9a74', linewidth=1.2, label='recall')
    axis.plot(x, curve['hmean'], color='#1f4e9c', linewidth=2.2, label=f'hmean: {hmean:.3f} at {threshold:.2f}')
    axis.plot(threshold, hmean, 'o', color='#1f4e9c', markersize=5)
    axis.legend(fontsize=8, frameon=False, loc='lower center')
    _save_figure(figure, file)


def plot_confusion(matrix: np.ndarray, names: Names, file: Path) -> None:
    """A confusion matrix (nc + 1, nc + 1), rows predicted, columns actual, last the background.

    Colours are shares of a class's labels; the cells hold counts and these shares.
    """
    matrix = np.asarray(matrix)
    count = len(matrix)
    ticks = [_name(names, c) for c in range(count - 1)] + ['background']
    share = matrix / np.maximum(matrix.sum(0, keepdims=True), 1)
    share[:, -1] = 0  # how much background there is nobody can count
    side = 2.6 + 0.75 * min(max(count, 2), 14)
    figure, axes = _figure(side + 0.7, side)
    axis = axes[0, 0]
    axis.grid(False)
    image = axis.imshow(share, cmap='Blues', vmin=0, vmax=1)
    figure.colorbar(image, ax=axis, fraction=0.046, label="share of the class's labels")
    axis.set_xticks(range(count), ticks, rotation=0 if count <= 3 else 60, fontsize=8)
    axis.set_yticks(range(count), ticks, fontsize=8)
    axis.set(xlabel='actual', ylabel='predicted')
    for row in range(count if count <= 15 else 0):
        for column in range(count):
            if (row, column) == (count - 1, count - 1):
                continue  # background taken for background: not countable
            text = f'{matrix[row, column]}' + (f'\n{share[row, column]:.1%}' if column < count - 1 else '')
            color = 'white' if share[row, column] > 0.55 else 'black'
            axis.text(column, row, text, ha='center', va='center', fontsize=8, color=color)
    _save_figure(figure, file)


def plot_labels(labels: np.ndarray, file: Path, names: Names = None) -> None:
    """What the boxes of a data set are like: how many, where, and how large.

    Args:
        labels: (n, 5) class, x, y, w, h, as shares of the picture.
        file: where to.
        names: class names.
    """
    labels = np.asarray(labels, float).reshape(-1, 5)
    figure, ((counts, places), (sizes, fractions)) = _figure(9, 8, 2, 2)
    classes, number = np.unique(labels[:, 0].astype(int), return_counts=True)
    counts.bar(
        range(len(classes)), number, width=0.6, color=[np.array(PALETTE[c % len(PALETTE)]) / 255 for c in classes]
    )
    counts.set_xticks(range(len(classes)), [_name(names, c) for c in classes], rotation=0 if len(classes) < 6 else 60)
    counts.set_xlim(-0.8, max(len(classes) - 0.2, 0.8))
    counts.set_title(f'{len(labels)} boxes', fontsize=10)
    largest = np.clip(np.quantile(labels[:, 3:], 0.995, axis=0) * 1.1, 0.02, 1) if len(labels) else np.ones(2)
    _heat_map(places, labels[:, 1:3], (1.0, 1.0), ('x', 'y'))
    _heat_map(sizes, labels[:, 3:], largest.tolist(), ('width', 'height'))
    places.invert_yaxis()
    places.set_title('centres', fontsize=10)
    sizes.set_title('sizes', fontsize=10)
    for column, name, color in ((3, 'width', '#1f6fb4'), (4, 'height', '#e07b00')):
        fractions.hist(
            np.clip(labels[:, column], 1e-3, 1), np.geomspace(1e-3, 1, 60), alpha=0.65, color=color, label=name
        )
    fractions.set_xscale('log')
    fractions.set(xlabel='share of the picture', ylabel='boxes')
    fractions.legend(fontsize=8, frameon=False)
    fractions.set_title('widths and heights', fontsize=10)
    _save_figure(figure, file, 110)


def _heat_map(axis: Axes, points: np.ndarray, limits: Sequence[float], quantities: tuple[str, str]) -> None:
    """How many of the points (n, 2) fall where between 0 and the limits, on a logarithmic colour scale."""
    heat = np.histogram2d(points[:, 0], points[:, 1], bins=50, range=[(0, limit) for limit in limits])[0].T
    axis.grid(False)
    axis.imshow(
        np.ma.masked_equal(heat, 0),
        origin='lower',
        extent=(0, limits[0], 0, limits[1]),
        norm=LogNorm(1, max(heat.max(), 2)),
        aspect='auto',
    )
    xlabel, ylabel = (f'{quantity} (share of the picture)' for quantity in quantities)
    axis.set(xlabel=xlabel, ylabel=ylabel)
