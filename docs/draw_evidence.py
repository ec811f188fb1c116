"""Print the tables of results that are kept, and draw how a gain grows: docs/evidence/*_labelled.png, *_length.png.

    python docs/draw_evidence.py docs/evidence/icdar2015.csv

Reads nothing but the csv files; benchmarks/evidence.py makes them.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.errors import UserError
from utils.runtime.cli import run_command
from utils.runtime.options import Options, option, parse

# Of a curve: what it is over, in words, and the end of its file's name
CURVES = {'labelled': ('labelled pictures', 'labelled'), 'crops': ('crops of the training', 'length')}
DRAWN = ('map50', 'icdar_hmean')


@dataclass(kw_only=True)
class EvidenceTables(Options):
    """Of this command."""

    files: list[Path] = option(help='results', flags=('files',), metavar='CSV', nargs='+')
    split: str = option('test', 'whose figures ({default})', choices=('val', 'test'))
    out: Path | None = option(None, 'folder of the curves (default: that of the first csv)', metavar='DIR')


def draw(every: list, over: str, file: Path, split: str) -> str:
    """Draw the gains over one quantity; returns a line on what was drawn or why nothing was."""
    from utils.comparison.chart import draw_gains
    from utils.comparison.gains import AGAINST, curves
    from utils.comparison.statistics import METRICS

    panels, words = {}, CURVES[over][0]
    for metric in DRAWN:
        for size in sorted({series.pixels for series in every}):
            part = [series for series in every if series.pixels == size]
            found = {name: curves(part, over, metric, factor) for factor, name in AGAINST.items()}
            if any(found.values()):
                panels[f'{METRICS[metric]}, {split}, {size} pixels: gain of the teacher'] = found
    if not panels:
        return f'No curve over the {words}: no method has gains at two of their numbers.'
    draw_gains(panels, file, f'{words} (95 % intervals; filled points exclude 0)')
    return f'Gains over the {words}: {file}'


def main() -> None:
    options = parse(EvidenceTables, __doc__)
    from utils.comparison.gains import series_of, tables
    from utils.comparison.ledger import read_ledger
    from utils.runtime.run_folder import make_folder

    if missing := [file for file in options.files if not file.is_file()]:
        raise UserError(f'there is no {missing[0]}: benchmarks/evidence.py writes it')
    every = series_of([line for file in options.files for line in read_ledger(file)], options.split)
    if not every:
        raise UserError(f'{options.files[0]} has no results on {options.split}')
    print('\n'.join(tables(every)))
    folder = make_folder(options.out or options.files[0].parent)
    name = options.files[0].stem + ('' if options.split == 'test' else f'_{options.split}')
    for over, (_, end) in CURVES.items():
        print(draw(every, over, folder / f'{name}_{end}.png', options.split))


if __name__ == '__main__':
    run_command(main)
