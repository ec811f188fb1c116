"""What Windows does otherwise, made so here."""

import ctypes
import errno
import ntpath
import os
from types import SimpleNamespace

import pytest

from models.errors import UserError
from ocrdistill import command, files, sources, whole_files
from utils.runtime import device


def test_a_library_without_a_name(monkeypatch):
    def refuse(name):
        raise TypeError("argument of type 'NoneType' is not iterable")

    monkeypatch.setattr(ctypes, 'CDLL', refuse)
    device.keep_freed_memory()


def test_files_that_another_program_reads_are_tried_again(monkeypatch, tmp_path):
    replace, failures = os.replace, [None] * 2

    def held(*places):
        if failures:
            failures.pop()
            raise PermissionError(errno.EACCES, 'held')
        replace(*places)

    monkeypatch.setattr(whole_files, 'os', SimpleNamespace(**vars(os) | {'replace': held, 'name': 'nt'}))
    monkeypatch.setattr(whole_files, 'time', SimpleNamespace(sleep=lambda _: None))
    with whole_files.replacing(tmp_path / 'a.txt') as temporary:
        temporary.write_text('new')
    failures.extend([None] * 9)
    with pytest.raises(UserError, match='held'), whole_files.replacing(tmp_path / 'a.txt') as temporary:
        temporary.write_text('newer')
    assert (tmp_path / 'a.txt').read_text() == 'new' and len(list(tmp_path.iterdir())) == 1


def test_sources_of_two_drives(monkeypatch, tmp_path):
    for name in 'ab':
        (tmp_path / f'{name}.jpg').touch()
    drives = SimpleNamespace(**vars(os.path) | {'commonpath': lambda _: ntpath.commonpath(['C:\\a', 'D:\\b'])})
    monkeypatch.setattr(sources, 'os', SimpleNamespace(**vars(os) | {'path': drives}))
    with pytest.raises(UserError, match='no folder in common'):
        sources.find_images([str(tmp_path / f'{name}.jpg') for name in 'ab'], [])


def test_drives_that_number_nothing(monkeypatch, tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        (tmp_path / name / 'x.jpg').touch()
    numberless = SimpleNamespace(st_dev=0, st_ino=0)
    monkeypatch.setattr(files, 'os', SimpleNamespace(**vars(os) | {'stat': lambda _: numberless}))
    assert len(files.walk(tmp_path)) == 2


def test_readers_that_go_away(monkeypatch):
    gone = OSError(errno.EINVAL, 'Invalid argument')
    assert command.is_broken_pipe(BrokenPipeError()) and not command.is_broken_pipe(gone)
    monkeypatch.setattr(command, 'os', SimpleNamespace(name='nt'))
    assert command.is_broken_pipe(gone) and not command.is_broken_pipe(OSError(errno.EINVAL, 'x', 'file'))
