"""Fixtures that several tests share."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from models.yolo import DetectionModel
from ocrdistill.signals import STOPPING
from tests.support import ROOT, run_here
from tests.world import World, call
from utils.runtime.cli import run_command

settings.register_profile('same every time', derandomize=True)
settings.load_profile('same every time')
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')  # as ocrdistill.network does; tests import onnxruntime themselves
torch.set_num_threads(2)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of `make test &`; the tests' commands would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory) -> Path:
    """A rendered data set of 30 small pictures; returns its yaml."""
    folder = tmp_path_factory.mktemp('tiny')
    result = run_here('data/synthtext.py', '--out', folder / 'set', '--train', 24, '--test', 6, '--size', '320x192')
    assert result.returncode == 0, result.stderr
    yaml = folder / 'tiny.yaml'
    yaml.write_text(f'path: {folder / "set"}\ntrain: train.txt\nval: val.txt\ntest: images/test_icdar\nnames: [text]\n')
    return yaml


@pytest.fixture(scope='session')
def world(tmp_path_factory, tiny_data) -> World:
    return World(tmp_path_factory.mktemp('world'), tiny_data)


@pytest.fixture(scope='module')
def one_thread():
    """Small networks gain nothing from more, and bits depend on the number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def nano() -> DetectionModel:
    """YOLOv5-N for one class, the same random weights every time."""
    torch.manual_seed(0)
    return DetectionModel(ROOT / 'models/yolov5n.yaml', nc=1)


@pytest.fixture
def mistake(capsys):
    """mistake(main, name, *flags): the one line on standard error that a command ends with, at status 1."""

    def run(main, name: str, *flags) -> str:
        handlers = {number: signal.getsignal(number) for number in STOPPING}
        try:
            with pytest.raises(SystemExit) as end:
                call(lambda: run_command(main), name, *flags)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        lines = capsys.readouterr().err.splitlines()
        assert end.value.code == 1, lines
        assert len(lines) == 1 and lines[0].startswith('error: '), lines
        return lines[0]

    return run
