"""Results that are kept: a csv with a line for each run, split and size of pictures. docs/evidence/README.md explains
its columns."""

import csv
import math
from pathlib import Path

from models.errors import UserError
from utils.comparison.statistics import METRICS
from utils.runtime.run_folder import write_rows

WORDS = ('machine', 'comparison', 'row', 'method', 'kind', 'split', 'settings', 'commit')
COUNTS = ('seed', 'crops', 'labelled', 'unlabelled', 'pixels', 'seconds', 'threads')
SCORES = (*METRICS, 'icdar_precision', 'icdar_recall', 'conf_threshold')  # None where a network has none
COLUMNS = (
    *('comparison', 'row', 'method', 'kind', 'seed', 'crops', 'labelled', 'unlabelled', 'split', 'pixels'),
    *SCORES,
    *('seconds', 'threads', 'settings', 'commit', 'machine'),
)
KINDS = ('control', 'recipe', 'teacher')


def read_ledger(file: Path) -> list[dict]:
    """The lines of a csv, with numbers as numbers; none where there is no such file.

    Raises:
        UserError: the file is no csv in UTF-8, a column is missing or unknown, or a value is none of its column; with
            its line.
    """
    if not file.is_file():
        return []
    try:
        with open(file, newline='', encoding='utf-8') as stream:
            reader = csv.DictReader(stream)
            if wrong := set(COLUMNS) ^ set(reader.fieldnames or ()):
                raise UserError(f'{file}: its columns are others than expected: {", ".join(sorted(wrong))}')
            return [_read_line(line, f'{file}, line {reader.line_num}') for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'{file} is no csv in UTF-8 ({error})') from None


def _read_line(line: dict, place: str) -> dict:
    if None in line:  # where csv puts what is beyond the columns
        raise UserError(f'{place}: more fields than columns')
    found: dict = {name: line[name] for name in WORDS}
    for names, read in ((COUNTS, int), (SCORES, float)):
        for name in names:
            try:
                found[name] = None if line[name] == '' and names is SCORES else read(line[name])
                if found[name] is not None and not math.isfinite(found[name]):
                    raise ValueError
            except (TypeError, ValueError):
                raise UserError(f'{place}: {name} is {line[name]!r}, expected a number') from None
    if found['kind'] not in KINDS:
        raise UserError(f'{place}: kind is {found["kind"]!r}, expected one of {", ".join(KINDS)}')
    return {name: found[name] for name in COLUMNS}


def write_ledger(file: Path, lines: list[dict]) -> None:
    """Write the csv anew, whole or not at all."""
    write_rows(file, [{name: line.get(name) for name in COLUMNS} for line in lines])
