"""Runs of a comparison as they lie on disk, and what is left to do for each."""

import contextlib
import csv
import json
from dataclasses import dataclass
from pathlib import Path

from models.yamls import read_yaml
from ocrdistill.points import UNSCALED
from utils.comparison.settings import fingerprint, first_difference, settings_of
from utils.comparison.statistics import METRICS


@dataclass(frozen=True)
class Entry:
    """A row of models: its kind ('teacher', 'control', 'baseline' or 'recipe'), its flags, its own part of opt.yaml."""

    label: str
    kind: str
    flags: list[str]
    opt: dict

    @property
    def script(self) -> str:
        return 'distill.py' if self.kind == 'recipe' else 'train.py'


@dataclass(frozen=True)
class Run:
    """One training of an entry, and the evaluation of its best.pt.

    Attributes:
        place: the folder of the comparison's runs.
        settings: that it must have; see settings_of.
        task: the split that it is evaluated on.
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
    def evaluation(self) -> Path:
        return self.folder / self.task / 'metrics.json'

    @property
    def trained(self) -> bool:
        return (self.folder / 'metrics.json').is_file()

    @property
    def evaluated(self) -> bool:
        """Whether this best.pt is evaluated: at its threshold and word scale, and not one before it."""
        if not (self.trained and self.evaluation.is_file()):
            return False
        files = (self.folder / 'metrics.json', self.evaluation)
        first, second = (read_json(file) for file in files)  # earlier runs have no word scale: boxes as they are
        return all(
            first.get(name, default) == second.get(name, default)
            for name, default in (('conf_threshold', None), ('word_scale', list(UNSCALED)))
        )

    def read_settings(self) -> dict | None:
        """The settings it was run with, None if there is nothing to keep; those of a run by hand as of now."""
        if not (self.trained or self.last.is_file()):
            return None
        if self.record.is_file():
            return read_json(self.record)['settings']
        return settings_of(read_yaml(self.folder / 'opt.yaml'), read_yaml(self.folder / 'hyp.yaml'))

    def metrics(self) -> dict[str, float] | None:
        """The metrics of its row in runs.csv, with the training's seconds; None before it is evaluated."""
        if not self.evaluated:
            return None
        return read_metrics(self.evaluation) | {'seconds': sum(column(self.folder / 'results.csv', 'seconds'))}


def unlike(run: Run) -> str | None:
    """How the settings of what is on disk differ from those that the run should have; None if they do not."""
    found = run.read_settings()
    return None if found is None else first_difference(found, run.settings)


def read_json(file: Path) -> dict:
    """The content of a file that a run or this comparison wrote."""
    return json.loads(file.read_text(encoding='utf-8'))


def read_metrics(file: Path) -> dict[str, float]:
    """The table's metrics of a metrics.json, and the threshold."""
    content = read_json(file)
    return {key: content[key] for key in (*METRICS, 'conf_threshold') if key in content}


def column(file: Path, name: str) -> list[float]:
    """A column of a csv; empty if there is no such file."""
    with contextlib.suppress(FileNotFoundError), open(file, newline='', encoding='utf-8') as stream:
        return [float(row[name]) for row in csv.DictReader(stream)]
    return []


@dataclass(frozen=True)
class Teacher:
    """A teacher to evaluate. The folder's name tells its content and the data's: another one is evaluated anew.

    content: fingerprint of the weights, also where they are not there any more.
    """

    label: str
    cfg: str
    weights: str
    content: str
    data: str
    imgsz: int
    place: Path
    task: str

    @property
    def name(self) -> str:
        of = '-'.join(digest[7:15] for digest in (self.content, fingerprint(self.data)))
        return f'teacher-{Path(self.cfg).stem}-{self.imgsz}-{of}'

    @property
    def evaluation(self) -> Path:
        return self.place / self.name / self.task / 'metrics.json'


@dataclass
class Job:
    """Commands that follow one another, and how far they are.

    Attributes:
        steps: arguments of python, in order.
        results: the results.csv that grows an epoch a row, None where nothing is trained.
        epochs: that are left to train.
        record: (file, content) to write before a new training.
        evaluation: the metrics.json that the last step writes.
    """

    name: str
    steps: list[list[str]]
    log: Path
    evaluation: Path
    results: Path | None = None
    epochs: int = 0
    record: tuple[Path, dict] | None = None
    began: float = 0.0

    def __post_init__(self):
        resumed = self.results and not self.record
        self.before = len(column(self.results, 'epoch')) if resumed else 0

    @property
    def work(self) -> int:
        """Epochs, and one more for the evaluation."""
        return self.epochs + 1

    def done(self) -> int:
        rows = len(column(self.results, 'epoch')) if self.results else 0
        return min(max(rows - self.before, 0), self.epochs)
