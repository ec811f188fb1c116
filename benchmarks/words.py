"""Which words detectors find: recall by size, shape, angle and contrast of ICDAR2015's words, beside one another.

    python benchmarks/words.py --weights control.pt student.pt --names control student --task test

A word is found as ICDAR2015's task 4.1 has it, at each checkpoint's own threshold and word scale (chosen on val).
The last row has the difference of hmean to the first detector, with the 95 % interval of the paired bootstrap over
pictures. Writes words_TASK_PIXELS.md and .png into --out, with the curves of precision over recall that mAP50 is the
area of.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.errors import UserError
from utils.runtime.cli import positive, run_command
from utils.runtime.run_folder import make_folder

# Name, unit, and the borders between the groups of words.
GROUPS = {
    'height': ('pixels at 640', (8, 11, 16, 24)),
    'shape': ('width over height', (0.7, 1.2, 2, 3)),
    'angle': ('degrees from level', (3, 8, 15)),
    'contrast': ('levels of 255', (40, 80, 120)),
}
LONG_SIDE = 640
COLUMNS = 3  # of panels


@dataclass
class Words:
    """The legible words of a split: an array of GROUPS' measures each, and which of them each detector found.

    counts: (n, 3) of each detector and picture: words found, detections that count, words that count.
    curves: (recall, precision) of each detector at IoU .5 (YOLOv5's protocol), arrays of the same length.
    """

    measures: dict[str, np.ndarray]
    found: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    curves: dict[str, tuple[np.ndarray, np.ndarray]]


def measure_word(quad: np.ndarray, grey: np.ndarray) -> dict[str, float]:
    """The measures of a word.

    Args:
        quad: (4, 2) pixels of the picture, clockwise from its top left.
        grey: (H, W) uint8, the picture.

    Returns:
        height: mean of the left and right side, in pixels where the picture's longer side has 640;
        shape: mean of the upper and lower side, over that of the left and right one; under 1: text runs up or down;
        angle: of the upper side, 0 to 90 degrees; contrast: between the darkest and the brightest tenth of its box.
    """
    height = np.linalg.norm(quad[[3, 2]] - quad[[0, 1]], axis=1).mean()
    width = np.linalg.norm(quad[[1, 2]] - quad[[0, 3]], axis=1).mean()
    across = quad[1] - quad[0]
    angle = abs(np.degrees(np.arctan2(across[1], across[0])))
    (x1, y1), (x2, y2) = quad.min(0).clip(0), quad.max(0) + 1
    crop = grey[y1:y2, x1:x2]
    low, high = np.percentile(crop, (10, 90)) if crop.size else (0, 0)
    return {
        'height': float(height * LONG_SIDE / max(grey.shape)),
        'shape': float(width / max(height, 1e-12)),
        'angle': float(min(angle, 180 - angle)),
        'contrast': float(high - low),
    }


def groups_of(name: str, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(label, mask) of each group of words by one measure."""
    borders = GROUPS[name][1]
    number = np.searchsorted(borders, values, side='right')
    labels = [f'under {borders[0]}', *(f'{a} to {b}' for a, b in zip(borders, borders[1:], strict=False))]
    return [(label, number == index) for index, label in enumerate([*labels, f'{borders[-1]} and more'])]


def look(options: argparse.Namespace, names: list[str]) -> Words:
    """Run the detectors over the split."""
    import cv2

    from utils.evaluation.icdar import match_words
    from utils.loading.images import load_image

    measures, found, curves = [], {name: [] for name in names}, {}
    counted: dict[str, list] = {name: [] for name in names}
    for number, (name, weights) in enumerate(zip(names, options.weights, strict=True)):
        report = detect(weights, options)
        evaluation, point = report.evaluation, report.point
        drawn = evaluation.details['curves']
        curves[name] = drawn['axis_recall'], drawn['pr'][0]
        for image, (words, dont_care) in zip(evaluation.images, evaluation.truths, strict=True):
            if number == 0:
                grey = cv2.cvtColor(load_image(image.path), cv2.COLOR_RGB2GRAY)
                measures += [measure_word(quad, grey) for quad in words[~dont_care]]
            scores = image.words[:, 4].numpy()
            order = np.argsort(-scores, kind='stable')
            quads = image.icdar_quads(point.scale)[order[scores[order] >= point.threshold]]
            answers, counts = match_words(quads, words, dont_care)
            found[name].append(answers[~dont_care] >= 0)
            counted[name].append(((answers >= 0).sum(), counts.sum(), (~dont_care).sum()))
    return Words(
        {key: np.array([word[key] for word in measures]) for key in GROUPS},
        {name: np.concatenate(flags) for name, flags in found.items()},
        {name: np.array(of_pictures) for name, of_pictures in counted.items()},
        curves,
    )


def detect(weights: str, options: argparse.Namespace):
    """The Report, at the checkpoint's threshold and word scale. Raises UserError where it has none."""
    from models.checkpoint import load_model
    from utils.evaluation.report import evaluate_split
    from utils.evaluation.split import EvaluationSplit
    from utils.loading.config import load_data_config
    from utils.runtime.device import select_device

    device = select_device(options.device)
    model = load_model(weights, device)
    if model.point_at(options.imgsz).conf_threshold is None:
        raise UserError(f'{weights} carries no threshold: only the best.pt of a run does')
    split = EvaluationSplit(load_data_config(options.data), options.task, options.imgsz)
    report = evaluate_split(model, split, device, title=weights)
    if report.evaluation.truths is None:
        raise UserError(f'{options.data}: pictures of {options.task} have no ICDAR ground truth (gt/)')
    return report


def table(words: Words) -> str:
    """Markdown: a row a group, recall of each detector; the last rows have all words."""
    from utils.comparison.statistics import hmean, hmean_difference

    names = list(words.found)
    lines = [f'| words | number | {" | ".join(names)} |', '|---|---|' + '---|' * len(names)]
    rows = [('all', np.ones(len(next(iter(words.found.values()))), bool))]
    for measure, (unit, _) in GROUPS.items():
        rows += [(f'{measure} {label} ({unit})', mask) for label, mask in groups_of(measure, words.measures[measure])]
    for label, mask in rows:
        recalls = [f'{flags[mask].mean():.3f}' if mask.any() else '-' for flags in words.found.values()]
        lines.append(f'| {label} | {mask.sum()} | {" | ".join(recalls)} |')
    totals = {name: counts.sum(0) for name, counts in words.counts.items()}
    lines.append(f'| false alarms | | {" | ".join(str(total[1] - total[0]) for total in totals.values())} |')
    lines.append(f'| hmean | | {" | ".join(f"{hmean(total):.4f}" for total in totals.values())} |')
    if len(names) > 1:
        first, *others = words.counts.values()
        found = [hmean_difference(counts, first) for counts in others]
        intervals = [f'{part.mean:+.4f} [{part.low:+.4f}, {part.high:+.4f}]' for part in found]
        lines.append(f'| hmean more than the first | | | {" | ".join(intervals)} |')
    return '\n'.join(lines)


def draw(words: Words, file: Path) -> None:
    """Precision over recall, and recall in each group as bars, a panel a measure."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    rows = -(-(1 + len(GROUPS)) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(12, 3.6 * rows), layout='constrained')
    (curves, *panels), rest = axes.flat[: 1 + len(GROUPS)], axes.flat[1 + len(GROUPS) :]
    for axis in rest:
        axis.set_axis_off()
    for name, (recall, precision) in words.curves.items():
        curves.plot(recall, precision, label=f'{name}: {np.trapezoid(precision, recall):.3f}')
    curves.set(xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1))
    curves.legend(fontsize=8, title='area', title_fontsize=8)
    curves.grid(alpha=0.3)
    width, middle = 0.8 / len(words.found), (len(words.found) - 1) / 2
    for panel, (measure, (unit, _)) in zip(panels, GROUPS.items(), strict=True):
        groups = groups_of(measure, words.measures[measure])
        for number, (name, flags) in enumerate(words.found.items()):
            recalls = [flags[mask].mean() if mask.any() else 0 for _, mask in groups]
            panel.bar(np.arange(len(groups)) + (number - middle) * width, recalls, width, label=name)
        panel.set_xticks(range(len(groups)), [f'{label}\n({mask.sum()})' for label, mask in groups], fontsize=8)
        panel.set_xlabel(f'{measure}, {unit}')
        panel.set(ylabel='recall', ylim=(0, 1))
        panel.grid(axis='y', alpha=0.3)
    panels[0].legend(fontsize=8)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', nargs='+', required=True, metavar='PT', help='checkpoints')
    parser.add_argument('--names', nargs='+', metavar='NAME', help='of them in the table (their paths)')
    parser.add_argument('--data', default='data/ICDAR.yaml', metavar='YAML', help='(%(default)s)')
    parser.add_argument('--task', choices=('train', 'val', 'test'), default='test', help='split (%(default)s)')
    parser.add_argument('--imgsz', type=positive, default=640, metavar='PX', help='longer side, pixels (%(default)s)')
    parser.add_argument('--device', default='', help="'cpu' or the number of a GPU")
    parser.add_argument('--out', type=Path, default=Path('runs/words'), metavar='DIR', help='(%(default)s)')
    options = parser.parse_args()
    names = options.names or options.weights
    if len(names) != len(options.weights) or len(set(names)) < len(names):
        parser.error('--names: a different one for each of --weights')
    file = make_folder(options.out) / f'words_{options.task}_{options.imgsz}.md'
    words = look(options, names)
    text = table(words)
    file.write_text(text + '\n', encoding='utf-8')
    draw(words, file.with_suffix('.png'))
    print(f'{text}\nwritten: {file}, {file.with_suffix(".png")}')


if __name__ == '__main__':
    run_command(main)
