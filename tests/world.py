"""The small world that commands are run in by tests: models, data, options that cost little; and what a run left."""

import csv
import json
import math
import sys
from pathlib import Path

import cv2
import pytest
import torch
import yaml

import distill
import train
from models.checkpoint import save_checkpoint
from models.yolo import DetectionModel
from tests.support import ROOT, small_cfg
from utils.training.loop import Trainer

SCORES = ('precision', 'recall', 'map50', 'map50_95')
ICDAR = ('icdar_precision', 'icdar_recall', 'icdar_hmean')
SMALL = ('--imgsz', 64, '--batch-size', 8, '--nominal-batch', 8, '--workers', 0, '--device', 'cpu', '--noplots')


def call(main, name: str, *flags) -> None:
    """Run a command's main in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [name, *map(str, flags)])
        patch.chdir(ROOT)
        main()


class World:
    """Everything that the commands of these tests read."""

    def __init__(self, folder: Path, data: Path):
        self.folder, self.data = folder, data
        self.student = self.write('student.yaml', small_cfg(0.125))
        self.teacher = self.write('teacher.yaml', small_cfg(0.25))
        torch.manual_seed(1)
        self.teacher_pt = self.save('teacher.pt', DetectionModel(self.teacher, nc=1))
        self.few = self.write('few.yaml', yaml.safe_load(data.read_text()) | {'train': 'few.txt', 'val': 'few.txt'})
        source = Path(yaml.safe_load(data.read_text())['path'])
        rows = (source / 'train.txt').read_text().split()[:6]
        (source / 'few.txt').write_text('\n'.join(rows) + '\n')
        self.unlabelled = folder / 'unlabelled'
        self.unlabelled.mkdir()
        for file in (source / 'images/test_icdar').iterdir():  # mirrored: copies of a split's pictures are left out
            cv2.imwrite(str(self.unlabelled / file.name), cv2.flip(cv2.imread(str(file)), 1))

    def write(self, name: str, content: dict) -> Path:
        (self.folder / name).write_text(yaml.safe_dump(content))
        return self.folder / name

    def save(self, name: str, model: DetectionModel) -> Path:
        save_checkpoint(self.folder / name, model, model.state_dict())
        return self.folder / name

    def train(self, folder: Path, *flags) -> Path:
        """train.py with small options; later flags win. Returns the run's folder."""
        shared = ('--cfg', self.student, '--data', self.data, '--project', folder.parent, '--name', folder.name)
        call(train.main, 'train.py', *SMALL, *shared, *flags)
        return folder

    def distill(self, folder: Path, *flags, recipe: str = 'xn_maskdiff_PFI_Hint') -> Path:
        """distill.py with small models in the recipe."""
        call(distill.main, 'distill.py', *SMALL, *self.distillation(recipe), *place(folder), *flags)
        return folder

    def distillation(self, recipe: str) -> tuple:
        models = ('--cfg_teacher', self.teacher, '--teacher_weights', self.teacher_pt, '--cfg_student', self.student)
        return ('--recipe', f'recipes/{recipe}.yaml', *models, '--student_weights', '', '--data', self.data)


def place(folder: Path) -> tuple:
    """Flags that make a command write to this folder."""
    return ('--project', folder.parent, '--name', folder.name)


def load(path: Path) -> dict:
    """A checkpoint's content."""
    return torch.load(path, weights_only=True)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """results.csv, without the column that a clock writes."""
    with open(folder / 'results.csv', newline='') as file:
        return [{key: value for key, value in row.items() if key != 'seconds'} for row in csv.DictReader(file)]


def metrics_of(folder: Path) -> dict:
    """metrics.json of a run."""
    return json.loads((folder / 'metrics.json').read_text())


def assert_equal(first, second, where: str = '') -> None:
    """Nested plain data and tensors, bit for bit."""
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key, value in first.items():
            assert_equal(value, second[key], f'{where}/{key}')
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_equal(one, other, f'{where}/{number}')
    else:
        same = first == second or (isinstance(first, float) and math.isnan(first) and math.isnan(second))
        assert same, f'{where}: {first} {second}'


POINT = ('conf_threshold', 'conf_threshold_from', 'word_scale', 'starting_point')


def assert_same_run(first: Path, second: Path) -> None:
    """Two runs agree in every number but those of a clock."""
    assert rows_of(first) == rows_of(second)
    for name in ('best.pt', 'last.pt'):
        one, other = load(first / 'weights' / name), load(second / 'weights' / name)
        for content in (one, other):
            for row in content.get('resume', {}).get('rows', []):
                row['seconds'] = 0
        for key in ('model', 'resume', 'epoch', 'metrics', 'hyp', *POINT):
            assert (key in one) == (key in other)
            assert_equal(one.get(key), other.get(key), f'{name} {key}')
    one, other = metrics_of(first), metrics_of(second)
    assert {key: one[key] for key in (*SCORES, *ICDAR, 'epoch')} == {
        key: other[key] for key in (*SCORES, *ICDAR, 'epoch')
    }


def interrupt_at(patch: pytest.MonkeyPatch, stop: int) -> None:
    """Ctrl-C at the start of an epoch."""
    train_epoch = Trainer._train_epoch

    def interrupted(self, epoch):
        if epoch == stop:
            raise KeyboardInterrupt
        return train_epoch(self, epoch)

    patch.setattr(Trainer, '_train_epoch', interrupted)


def spy_start(patch: pytest.MonkeyPatch) -> list[dict]:
    """The state dict of every model that a Trainer is given, as it was then."""
    states, start = [], Trainer.__init__

    def spied(self, model, *rest, **named):
        states.append({key: value.clone() for key, value in model.state_dict().items()})
        start(self, model, *rest, **named)

    patch.setattr(Trainer, '__init__', spied)
    return states
