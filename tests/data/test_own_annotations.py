"""data/convert.py over people's own files: the right values, or one clear line, and counts that add up."""

import json
import shutil
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image

from data import convert
from data.formats import FORMATS
from data.formats.common import BadEntry
from data.formats.image_files import ImageFiles, cleaned
from models.errors import UserError
from tests import inputs
from utils.evaluation.icdar import read_ground_truth
from utils.loading.config import load_data_config
from utils.loading.dataset import TextDataset
from utils.loading.polygons import polygon_areas

QUAD, LOWER = '10,4,40,4,40,20,10,20', '10,24,40,24,40,36,10,36'  # of a picture of 60x40
LABEL = [10 / 60, 0.1, 40 / 60, 0.1, 40 / 60, 0.5, 10 / 60, 0.5]
BOX = [25 / 60, 0.3, 0.5, 0.4]  # x y w h of the same


@pytest.fixture
def photos(tmp_path) -> Path:
    for name in 'abc':
        inputs.picture(tmp_path / f'photos/{name}.png')
    return tmp_path / 'photos'


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """The command in this process; returns what it printed and the UserError's text."""

    def command(form: str, annotations: Path, *flags, images: str = 'photos') -> tuple[str, str]:
        given = ['--from', form, '--annotations', annotations, '--images', tmp_path / images, '--out', tmp_path / 'out']
        shutil.rmtree(tmp_path / 'out', ignore_errors=True)
        monkeypatch.setattr(sys, 'argv', ['convert.py', *map(str, given), *map(str, flags)])
        error = ''
        try:
            convert.main()
        except UserError as refusal:
            error = str(refusal)
        return capsys.readouterr().out, error

    return command


def write(file: Path, content) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding='utf-8')
    return file


def labels_of(tmp_path: Path, name: str, kind: str = 'labels') -> list[list[float]]:
    """The rows of a written label file."""
    (file,) = (tmp_path / 'out' / kind).rglob(f'{name}.txt')
    return [list(map(float, row.split()))[1:] for row in file.read_text().splitlines()]


def labelme_shape(kind: str = 'polygon', corners=((10, 4), (40, 4), (40, 20), (10, 20))) -> dict:
    return {'label': 'text', 'shape_type': kind, 'points': list(map(list, corners))}


def square_at(x: int) -> dict:
    return labelme_shape(corners=((x, 1), (x + 8, 1), (x + 8, 9), (x, 9)))


# Rows


def test_our_own_rows_with_confidences_are_converted(run, photos, tmp_path):
    for name in 'abc':
        write(tmp_path / f'notes/{name}.txt', '0 0.5 0.5 0.2 0.1 0.87\n0 .1 .1 .2 .1 .2 .2 .1 .2 .5\n')
    write(tmp_path / 'notes/classes.txt', 'text\n')
    printed, error = run('yolo', tmp_path / 'notes')
    assert error == '' and 'train: 2 pictures, 4 words' in printed and 'skipped' not in printed
    np.testing.assert_allclose(labels_of(tmp_path, 'a')[0], [0.5, 0.5, 0.2, 0.1])


def test_yolo_files_of_which_no_row_can_be_read(run, photos, tmp_path):
    for name, text in (('a', '0,0.5,0.5,0.2,0.1\n'), ('b', '0 .5 .5 .2 .1\n'), ('c', '0 .5 .5 .2 .1\n')):
        write(tmp_path / f'notes/{name}.txt', text)
    printed, error = run('yolo', tmp_path / 'notes')
    assert error == '' and 'skipped 1 picture and 0 rows\n  a.txt: its only row cannot be used; row 1: not' in printed


@pytest.mark.parametrize('form', ['icdar2015', 'icdar2017-mlt'])
def test_quoted_words(run, photos, tmp_path, form):
    script = 'Latin,' if form == 'icdar2017-mlt' else ''
    row = '{0}.0,{1}.0,{2}.0,{1}.0,{2}.0,{3}.0,{0}.0,{3}.0,{4}{5}'
    rows = [row.format(10, 4, 40, 20, script, '"###"'), row.format(0, 0, 9, 9, script, '"a, ""b"')]
    for name in 'abc':
        write(tmp_path / f'notes/gt_{name}.txt', '\r'.join([*rows, '']).encode('utf-16'))
    printed, _ = run(form, tmp_path / 'notes')
    assert "train: 2 pictures, 2 words, 2 don't-care regions" in printed
    np.testing.assert_allclose(labels_of(tmp_path, 'a', 'ignore'), [LABEL], atol=1e-6)
    (truth,) = (tmp_path / 'out/gt').rglob('gt_a.txt')
    assert truth.read_text() == '10,4,40,4,40,20,10,20,###\n0,0,9,0,9,9,0,9,a, ""b\n'


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
def test_quotes_and_line_ends_in_hmean(tmp_path, end):
    file = write(tmp_path / 'gt_a.txt', end.join([f'{QUAD},"###"', f'{QUAD},"word"', f'{QUAD},###', '']).encode())
    quads, dont_care = read_ground_truth(file)
    assert quads.shape == (3, 4, 2) and dont_care.tolist() == [True, False, True]


@pytest.mark.parametrize('value', ['1.000437', '-0.0004', '1.04'])
def test_yolo_rows_that_leave_the_picture_a_little_are_cut(run, photos, tmp_path, value):
    for name in 'abc':
        write(tmp_path / f'notes/{name}.txt', f'0 0.5 0.5 0.2 0.2\n0 0.8 0.2 {value} 0.2 {value} 0.4 0.8 0.4\n')
    printed, error = run('yolo', tmp_path / 'notes')
    assert error == '' and 'train: 2 pictures, 4 words' in printed and 'it leaves the picture, and is cut' in printed
    cut = np.array(labels_of(tmp_path, 'a')[1]).reshape(-1, 2)
    edge = min(max(float(value), 0), 1)
    assert sorted(set(cut[:, 0])) == sorted({0.8, edge}) and sorted(set(cut[:, 1])) == [0.2, 0.4]


def test_yolo_boxes_that_reach_over_the_border_are_cut_and_told(run, photos, tmp_path):
    for name in 'abc':
        write(tmp_path / f'notes/{name}.txt', '0 0.5 0.5 0.2 0.2\n0 0.95 0.5 0.5 0.2\n0 0.1 0.1 0.2 0.2\n')
    printed, error = run('yolo', tmp_path / 'notes')
    assert error == '' and printed.count('it leaves the picture, and is cut') == 3
    assert labels_of(tmp_path, 'a')[1] == pytest.approx([0.85, 0.5, 0.3, 0.2])


def test_yolo_classes_are_labels(run, photos, tmp_path):
    for name in 'abc':
        write(tmp_path / f'notes/{name}.txt', '0 0.5 0.5 0.2 0.2\n1 0.2 0.2 0.1 0.1\n')
    assert 'train: 2 pictures, 4 words' in run('yolo', tmp_path / 'notes')[0]
    assert "2 words, 2 don't-care" in run('yolo', tmp_path / 'notes', '--ignore-label', '1')[0]
    write(tmp_path / 'notes/classes.txt', 'text\nillegible\n')
    assert "2 words, 2 don't-care" in run('yolo', tmp_path / 'notes', '--ignore-label', 'illegible')[0]
    assert 'no region is labelled' in run('yolo', tmp_path / 'notes', '--ignore-label', '1')[1]
    write(tmp_path / 'notes/classes.txt', 'text\n')  # the second has its number for a name
    assert "2 words, 2 don't-care" in run('yolo', tmp_path / 'notes', '--ignore-label', '1')[0]
    write(tmp_path / 'notes/classes.txt', 'text\n\nillegible\n')  # an empty name is one, too
    assert 'no region is labelled' in run('yolo', tmp_path / 'notes', '--ignore-label', 'illegible')[1]


@pytest.mark.parametrize('place', ['train/labels', 'train', '.'])
@pytest.mark.parametrize('names', ['[text, illegible]', '{0: text, 1: illegible}'])
def test_names_of_yolo_classes_in_a_data_yaml(run, photos, tmp_path, place, names):
    for name in 'abc':
        write(tmp_path / f'set/train/labels/{name}.txt', '0 0.5 0.5 0.2 0.2\n1 0.2 0.2 0.1 0.1\n')
    flags = tmp_path / 'set' / place, '--ignore-label', 'illegible'
    for other in ('', 'names: 3', '['):
        write(tmp_path / 'set/data.yaml', other)
        assert run('yolo', *flags)[1] == '--ignore-label: no region is labelled illegible (there are: 0, 1)'
    write(tmp_path / 'set/data.yaml', f'train: ../train/images\nnames: {names}\n')
    assert "2 words, 2 don't-care" in run('yolo', *flags)[0]


CURVED = '10,4,20,2,30,4,30,20,20,18,10,20,####CAFE'


def test_rows_of_more_corners_are_refused_as_icdar2015(run, photos, tmp_path):
    for name in 'ab':
        write(tmp_path / f'notes/gt_{name}.txt', f'{QUAD},word\n{LOWER},1,000,000\n')
    write(tmp_path / 'notes/gt_c.txt', f'{CURVED}\n{CURVED}\n')
    printed, _ = run('icdar2015', tmp_path / 'notes')
    assert 'gt_c.txt: more than four corners in every row' in printed and 'skipped 1 picture and 0 rows' in printed
    write(tmp_path / 'notes/gt_c.txt', f'{QUAD},1,234,567\n')
    printed, _ = run('icdar2015', tmp_path / 'notes')
    assert 'skipped' not in printed and ',1,234,567\n' in next((tmp_path / 'out/gt').rglob('gt_c.txt')).read_text()


def test_rows_with_a_flag_are_refused_as_icdar2015(run, photos, tmp_path):
    """RCTW-17's: its don't-care words would count as words. A word may begin so, where the others do not."""
    for name in 'ab':
        write(tmp_path / f'notes/gt_{name}.txt', f'{QUAD},word\n{LOWER},1,"quoted"\n')
    for content in (f'{QUAD},0,"word"\n{QUAD},1,"###"\n', f'{QUAD},1,"###"\n'):
        write(tmp_path / 'notes/gt_c.txt', content)
        printed, _ = run('icdar2015', tmp_path / 'notes')
        assert 'gt_c.txt: a flag, 0 or 1, before the word in every row' in printed
        assert 'skipped 1 picture and 0 rows' in printed


@pytest.mark.parametrize('first', range(6))
def test_six_corners_are_read_back(run, photos, tmp_path, first):
    """A row of 13 numbers could be a box and its four corners; a curved word stays one, whatever its first corner."""
    arch = np.roll([(10, 30), (10, 20), (30, 4), (50, 20), (50, 30), (30, 14)], first, 0).tolist()
    for name in 'abc':
        write(tmp_path / f'notes/{name}.json', {'imagePath': f'{name}.png', 'shapes': [labelme_shape(corners=arch)]})
    assert run('labelme', tmp_path / 'notes')[1] == ''
    found = TextDataset(load_data_config(tmp_path / 'out/data.yaml'), 'train', 64)
    assert [len(annotations) for annotations in found.annotations] == [1, 1]
    for annotations in found.annotations:
        np.testing.assert_allclose(annotations.boxes()[0] * (60, 40, 60, 40), (10, 4, 50, 30), atol=1e-3)
        areas = polygon_areas(annotations.polygons * (60, 40)), polygon_areas(np.array([arch]))
        np.testing.assert_allclose(*areas, rtol=1e-3)


# Sets


def test_copies_of_test_pictures_leave_training(run, photos, tmp_path):
    for name in 'abc':
        write(tmp_path / f'notes/gt_{name}.txt', f'{QUAD},word\n')
    (tmp_path / 'others').mkdir()
    for name, source in (('a', 'a'), ('renamed', 'b'), ('new', None)):
        file = tmp_path / f'others/{name}.png'
        file.write_bytes((photos / f'{source}.png').read_bytes()) if source else inputs.picture(file)
        write(tmp_path / f'others/gt_{name}.txt', f'{QUAD},word\n')
    for name in 'de':
        inputs.picture(photos / f'{name}.png')
        write(tmp_path / f'notes/gt_{name}.txt', f'{QUAD},word\n')
    printed, error = run('icdar2015', tmp_path / 'notes', '--test-annotations', tmp_path / 'others')
    assert (
        error == '' and 'train: 2 pictures' in printed and 'val: 1 picture' in printed and 'test: 3 pictures' in printed
    )
    assert 'not for training: 2 pictures of the test set' in printed


def test_copies_of_pictures_that_annotations_name_for_test_leave_training(run, photos, tmp_path):
    shutil.copyfile(photos / 'b.png', photos / 'copy.png')
    notes = cvat('a.png', 'b.png', 'c.png', 'copy.png', subsets=('Train', 'Test', 'Validation', 'Train'))
    printed, error = run('cvat', write(tmp_path / 'all.xml', notes))
    assert error == '' and 'train: 1 picture,' in printed and 'test: 1 picture,' in printed
    assert 'not for training: 1 picture of the test set' in printed


def test_copies_get_one_split(run, photos, tmp_path):
    """Twenty pictures and a copy of each: every copy lies beside its picture; without copies nothing changes."""
    names = [f'p{number}' for number in range(20)]
    for name in names:
        inputs.picture(photos / f'{name}.png')
        write(tmp_path / f'notes/gt_{name}.txt', f'{QUAD},word\n')

    def splits() -> dict[str, str]:
        return {file.stem: file.parent.name for file in (tmp_path / 'out/images').rglob('*.png')}

    printed, _ = run('icdar2015', tmp_path / 'notes', '--val', 0.2, '--test', 0.2)
    assert 'are copies' not in printed and 'val: 4 pictures' in printed and 'test: 4 pictures' in printed
    assert {name for name, split in splits().items() if split == 'val'} == {'p6', 'p7', 'p8', 'p17'}  # by their names
    for name in names:
        shutil.copyfile(photos / f'{name}.png', photos / f'copy_of_{name}.png')
        write(tmp_path / f'notes/gt_copy_of_{name}.txt', f'{QUAD},word\n')
    printed, _ = run('icdar2015', tmp_path / 'notes', '--val', 0.2, '--test', 0.2)
    found = splits()
    assert len(found) == 40 and all(found[name] == found[f'copy_of_{name}'] for name in names)
    assert 'in one split with what they are copies of: 20 pictures are copies' in printed
    assert 'val: 8 pictures' in printed and 'test: 8 pictures' in printed


def test_a_copy_of_a_picture_with_a_split_of_its_own(run, photos, tmp_path):
    """It goes there, whatever its name."""
    for number in range(5):
        shutil.copyfile(photos / 'c.png', photos / f'{number}.png')
    names = ('a.png', 'b.png', 'c.png', *(f'{number}.png' for number in range(5)))
    content = cvat(*names, subsets=('Train', 'Train', 'Validation', *['mine'] * 5))
    printed, _ = run('cvat', write(tmp_path / 'a.xml', content))
    assert 'train: 2 pictures' in printed and 'val: 6 pictures' in printed and '5 pictures are copies' in printed


def cvat(*names: str, subsets=('',) * 9, box: str = 'rotation="0"') -> str:
    shape = f'<box label="text" xtl="20" ytl="15" xbr="40" ybr="25" {box}><attribute name="text">w</attribute></box>'
    images = [
        f'<image id="{i}" name="{name}" width="60" height="40" subset="{subsets[i]}">{shape}</image>'
        for i, name in enumerate(names)
    ]
    return f'<annotations>{"".join(images)}</annotations>'


def test_subsets_of_cvat_are_splits(run, photos, tmp_path):
    subsets = ('Train', 'Test', 'Validation')
    printed, error = run('cvat', write(tmp_path / 'all.xml', cvat('a.png', 'b.png', 'c.png', subsets=subsets)))
    assert error == '' and all(
        (tmp_path / 'out/images' / file).is_file() for file in ('train/a.png', 'test/b.png', 'val/c.png')
    )
    assert run('cvat', tmp_path / 'all.xml', '--val', 0.5)[0].count('--val has no effect') == 1
    subsets = ('Test',) * 3
    printed, error = run('cvat', write(tmp_path / 'all.xml', cvat('a.png', 'b.png', 'c.png', subsets=subsets)))
    assert error == '' and 'train: 2 pictures' in printed and 'val: 1 picture' in printed
    for subsets, folder in ((('Test', '', ''), 'test'), (('Validation', 'default', 'default'), 'val')):
        printed, error = run('cvat', write(tmp_path / 'all.xml', cvat('a.png', 'b.png', 'c.png', subsets=subsets)))
        assert error == '' and (tmp_path / f'out/images/{folder}/a.png').is_file(), subsets
    subsets = ('Train', 'Test', 'Train')
    printed, error = run('cvat', write(tmp_path / 'all.xml', cvat('a.png', 'b.png', 'c.png', subsets=subsets)))
    assert error == '' and 'val: 1 picture' in printed and (tmp_path / 'out/images/test/b.png').is_file()


def test_a_picture_of_no_subset_is_for_training(run, photos, tmp_path):
    subsets = ('Train', 'Validation', '')
    printed, error = run('cvat', write(tmp_path / 'all.xml', cvat('a.png', 'b.png', 'c.png', subsets=subsets)))
    assert error == '' and 'train: 2 pictures' in printed and 'val: 1 picture' in printed


def test_pictures_of_one_name_lie_in_folders_of_their_subsets(run, tmp_path):
    for subset in ('Train', 'Validation'):
        inputs.picture(tmp_path / f'photos/images/{subset}/frame.png')
    notes = write(tmp_path / 'all.xml', cvat('frame.png', 'frame.png', subsets=('Train', 'Validation')))
    printed, error = run('cvat', notes)
    assert error == '' and 'train: 1 picture' in printed and 'val: 1 picture' in printed


def test_two_test_sets_are_refused(run, photos, tmp_path):
    notes = write(tmp_path / 'all.xml', cvat('a.png', 'b.png', 'c.png', subsets=('Train', 'Test', 'Validation')))
    assert 'name pictures for test themselves' in run('cvat', notes, '--test-annotations', notes)[1]


def test_folders_that_look_like_splits_are_told(run, tmp_path):
    for split, name in (('train', 'a'), ('train', 'b'), ('valid', 'c')):
        inputs.picture(tmp_path / f'photos/{split}/{name}.png')
        write(tmp_path / f'photos/{split}/gt_{name}.txt', f'{QUAD},word\n')
    printed, _ = run('icdar2015', tmp_path / 'photos')
    assert 'folders called train, valid: their pictures are divided anew' in printed


TURNED = [[35, 10], [35, 30], [25, 30], [25, 10]]  # 20x10 about (30, 20), by 90 degrees clockwise


@pytest.mark.parametrize('form', ['cvat', 'coco', 'voc'])
def test_boxes_that_cvat_has_turned(run, photos, tmp_path, form):
    if form == 'cvat':
        notes = write(tmp_path / 'all.xml', cvat('a.png', 'b.png', 'c.png', box='rotation="90.0"'))
    elif form == 'coco':
        shape = {'bbox': [20, 15, 20, 10], 'segmentation': [], 'attributes': {'occluded': False, 'rotation': 90.0}}
        images = [{'id': i, 'file_name': f'{name}.png'} for i, name in enumerate('abc')]
        annotations = [{'image_id': i, **shape} for i in range(3)]
        notes = write(tmp_path / 'all.json', {'images': images, 'annotations': annotations})
    else:
        notes = tmp_path / 'notes'
        corners = '<bndbox><xmin>20</xmin><ymin>15</ymin><xmax>40</xmax><ymax>25</ymax></bndbox>'
        rotation = '<attributes><attribute><name>rotation</name><value>90.0</value></attribute></attributes>'
        for name in 'abc':
            item = f'<object><name>text</name>{corners}{rotation}</object>'
            write(notes / f'{name}.xml', f'<annotation><filename>{name}.png</filename>{item}</annotation>')
    assert run(form, notes)[1] == ''
    (row,) = labels_of(tmp_path, 'a')
    np.testing.assert_allclose(np.array(row).reshape(-1, 2) * (60, 40), TURNED, atol=1e-3)


def test_what_others_write_for_unreadable_text(run, photos, tmp_path):
    region = {'transcription': 'word', 'points': [[10, 4], [40, 4], [40, 20], [10, 20]]}
    unread = {'transcription': '*', 'points': [[10, 24], [40, 24], [40, 36], [10, 36]]}
    rows = [f'{name}.png\t{json.dumps([region, unread])}' for name in 'abc']
    printed, _ = run('ppocrlabel', write(tmp_path / 'Label.txt', '\n'.join(rows)))
    assert "train: 2 pictures, 2 words, 2 don't-care" in printed
    corners = '<bndbox><xmin>10</xmin><ymin>{}</ymin><xmax>40</xmax><ymax>20</ymax></bndbox>'
    word = '<attributes><attribute><name>text</name><value>{}</value></attribute></attributes>'
    for name in 'abc':
        regions = ((6, '###'), (4, 'Caf'))
        items = ''.join(f'<object><name>text</name>{corners.format(y)}{word.format(w)}</object>' for y, w in regions)
        write(tmp_path / f'voc/{name}.xml', f'<annotation><filename>{name}.png</filename>{items}</annotation>')
    printed, _ = run('voc', tmp_path / 'voc')
    assert "train: 2 pictures, 2 words, 2 don't-care" in printed
    assert next((tmp_path / 'out/gt').rglob('gt_a.txt')).read_text().endswith(',Caf\n')
    image = {'width': 60, 'height': 40}
    images = {'1': image | {'set': 'train', 'file_name': 'a.png'}, '2': image | {'set': 'val', 'file_name': 'b.png'}}
    word = {'points': [10, 4, 40, 6, 40, 20, 10, 18], 'bbox': [10, 4, 30, 16]}  # of TextOCR
    unread = {'points': [10, 24, 40, 26, 40, 40, 10, 38], 'bbox': [10, 24, 30, 16], 'utf8_string': '.'}
    words = [each | {'image_id': key} for key in images for each in (unread, word | {'utf8_string': 'word'})]
    content = {'imgs': images, 'anns': dict(enumerate(words))}
    printed, error = run('coco-text', write(tmp_path / 'textocr.json', content))
    assert error == '' and "train: 1 picture, 1 word, 1 don't-care" in printed
    (row,) = labels_of(tmp_path, 'a')
    np.testing.assert_allclose(np.array(row) * ([60, 40] * 4), word['points'], atol=1e-3)
    assert '--val has no effect' in run('coco-text', tmp_path / 'textocr.json', '--val', 0.5)[0]
    for image in images.values():  # TextOCR has a file for each set
        image['set'] = 'train'
    printed, error = run('coco-text', write(tmp_path / 'train.json', content))
    assert error == '' and "val: 1 picture, 1 word, 1 don't-care" in printed
    printed, error = run('coco-text', tmp_path / 'train.json', '--val', 0, '--test', 0.5)
    assert 'val' in error and 'no effect' not in printed
    for each in words:  # of COCO-Text a full stop is a word
        each['mask'] = each.pop('points')
    assert 'train: 1 picture, 2 words' in run('coco-text', write(tmp_path / 'train.json', content))[0]


# Names


@pytest.mark.parametrize('form', ['cvat', 'icdar2015', 'labelme'])
def test_an_annotation_keeps_to_its_own_folder(run, tmp_path, form):
    """Cameras give one name in every folder; the pictures of day1 were not copied."""
    names = [f'{day}/IMG_{number}' for day in ('day1', 'day2') for number in (1, 2, 3)]
    for name in names[3:]:
        inputs.picture(tmp_path / f'photos/{name}.png')
    inputs.picture(tmp_path / 'photos/day1/IMG_9.png')
    first = [[1, 1], [9, 1], [9, 9], [1, 9]]
    if form == 'cvat':
        text = cvat(*(f'{name}.png' for name in names)).replace('xtl="20"', 'xtl="1"', 3)
        notes = write(tmp_path / 'all.xml', text)
    for name in names if form != 'cvat' else ():
        corners = first if 'day1' in name else TURNED
        if form == 'labelme':
            content = {'imagePath': f'{name[5:]}.png', 'shapes': [labelme_shape(corners=corners)]}
            notes = write(tmp_path / f'notes/{name}.json', content).parent.parent
        else:
            row = ','.join(str(value) for corner in corners for value in corner)
            folder, stem = name.split('/')
            notes = write(tmp_path / f'notes/{folder}/gt_{stem}.txt', f'{row},word\n').parent.parent
    printed, error = run(form, notes)
    assert error == '' and 'train: 2 pictures, 2 words' in printed and 'val: 1 picture, 1 word' in printed
    assert 'skipped 3 annotations without a picture of their own' in printed and 'day1/IMG_1' in printed
    for number in (1, 2, 3):
        (row,) = labels_of(tmp_path, f'IMG_{number}')
        assert (row[0] * 60 if form != 'cvat' else (row[0] - row[2] / 2) * 60) > 15, 'that of day2'


@pytest.mark.parametrize('form', ['cvat', 'yolo'])
def test_folders_of_kinds_lie_between(run, tmp_path, form):
    """dayN/images beside dayN/labels: the day decides, and there is nothing to tell."""
    for day in (2, 3):
        for number in (1, 2):
            inputs.picture(tmp_path / f'photos/day{day}/images/I{number}.png')
    if form == 'cvat':
        names = [f'day{day}/images/I{number}.png' for day in (1, 2, 3) for number in (1, 2)]
        notes = write(tmp_path / 'all.xml', cvat(*names).replace('xtl="20"', 'xtl="1"', 2))
    for day in (1, 2, 3) if form == 'yolo' else ():
        for number in (1, 2):
            notes = write(tmp_path / f'photos/day{day}/labels/I{number}.txt', f'0 0.{day} 0.5 0.1 0.1\n').parents[2]
    printed, error = run(form, notes)
    assert error == '' and 'train: 3 pictures, 3 words' in printed and 'worth a look' not in printed
    assert 'skipped 2 annotations without a picture of their own' in printed
    starts = [float(file.read_text().split()[1]) for file in (tmp_path / 'out/labels').rglob('*.txt')]
    assert len(starts) == 4 and min(starts) > 0.15, 'none is that of day1'


def test_the_picture_at_the_top_is_meant_where_no_folder_fits(run, photos, tmp_path):
    inputs.picture(photos / 'old/a.png')
    printed, error = run('cvat', write(tmp_path / 'all.xml', cvat('x/a.png', 'x/b.png', 'x/c.png')))
    assert error == '' and 'train: 2 pictures' in printed and not list((tmp_path / 'out').rglob('old'))


def test_a_name_of_escapes_takes_no_time(photos):
    files = ImageFiles(photos)
    for name in ('deadbeef-' * 40 + '%' + '25' * 40 + '.jpg', '%' + '25' * 5000 + '.jpg'):
        with pytest.raises(BadEntry, match='no picture'):
            files.find(name)


def test_a_picture_found_in_another_folder_is_told(run, tmp_path):
    for name in 'abc':
        inputs.picture(tmp_path / f'photos/day2/{name}.png')
    printed, error = run('cvat', write(tmp_path / 'all.xml', cvat('day1/a.png', 'day1/b.png', 'day2/c.png')))
    told = (
        "2 pictures were found by name alone, in another folder than annotated, the first: 'day1/a.png' as day2/a.png"
    )
    assert error == '' and told in printed


@pytest.mark.parametrize(
    ('name', 'written'), [('Capture_décran.png', 'Capture_d%C3%A9cran'), ('my photo.png', 'my%20photo')]
)
def test_escaped_names_are_found(run, photos, tmp_path, name, written):
    inputs.picture(photos / name)
    for stem in ('a', 'b', written):
        write(tmp_path / f'notes/{stem}.txt', '0 0.5 0.5 0.2 0.2\n')
    assert 'train: 2 pictures' in run('yolo', tmp_path / 'notes')[0]
    files = ['a.png', 'b.png', f'sub/{written}.png']
    content = {
        'images': [{'id': i, 'file_name': file} for i, file in enumerate(files)],
        'annotations': [{'image_id': i, 'bbox': [10, 4, 30, 16]} for i in range(3)],
    }
    printed, error = run('coco', write(tmp_path / 'all.json', content))
    assert error == '' and 'train: 2 pictures, 2 words' in printed


def test_what_was_skipped_is_said_before_a_refusal(run, photos, tmp_path):
    write(tmp_path / 'notes/gt_a.txt', f'{QUAD},word\n')
    write(tmp_path / 'notes/gt_gone.txt', f'{QUAD},word\n')
    write(tmp_path / 'notes/gt_b.txt', '1,2,3\n')
    printed, error = run('icdar2015', tmp_path / 'notes')
    assert error == '1 usable picture is too few for 1 in val and the rest in train'
    assert 'skipped 1 picture and 0 rows' in printed and 'skipped 1 annotation without a picture' in printed
    assert "no picture 'gone'" in printed and '3 of 9 fields' in printed
    assert 'left out: 2 pictures without an annotation' not in printed  # b has one
    assert 'left out: 1 picture without an annotation' in printed


def test_read_and_left_out_are_all_that_is_there(run, photos, tmp_path):
    for name in ('d', 'e', 'f'):
        inputs.picture(photos / f'{name}.png')
    inputs.picture(photos / '.cache/g.png')
    write(photos / 'e.png', b'broken')
    write(photos / 'film.mp4', b'x')
    for name in ('a', 'b', 'c', 'e'):
        write(tmp_path / f'notes/gt_{name}.txt', f'{QUAD},word\n')
    write(tmp_path / 'notes/readme.pdf', b'x')
    printed, error = run('icdar2015', tmp_path / 'notes')
    assert error == '' and 'train: 2 pictures, 2 words' in printed and 'val: 1 picture, 1 word' in printed
    assert 'skipped 1 picture and 0 rows\n  gt_e.txt: e.png is broken' in printed
    assert 'left out: 2 pictures without an annotation' in printed  # d and f; 3 read + 1 skipped + 2 = 6
    assert 'left out: 1 .mp4, 1 .pdf' in printed


def test_a_copied_labelme_file_belongs_to_the_picture_of_its_name(run, photos, tmp_path):
    for name, named in (('a', 'a.png'), ('b', 'a.png'), ('c', 'gone.png')):
        x = 10 + ord(name) - ord('a')
        shape = labelme_shape(corners=((x, 4), (40, 4), (40, 20), (x, 20)))
        write(tmp_path / f'notes/{name}.json', {'imagePath': named, 'shapes': [shape]})
    printed, _ = run('labelme', tmp_path / 'notes')
    assert [round(labels_of(tmp_path, name)[0][0] * 60) for name in 'abc'] == [10, 11, 12]
    assert 'worth a look: 1\n  b.json: it names a.png, b.png is taken' in printed and 'skipped' not in printed


def test_a_copy_of_an_annotation_does_not_take_its_place(run, photos, tmp_path):
    for name in 'abc':
        write(tmp_path / f'notes/{name}.json', {'imagePath': f'{name}.png', 'shapes': [labelme_shape()]})
    write(tmp_path / 'notes/a copy.json', {'imagePath': 'a.png', 'shapes': []})  # is read before a.json
    printed, _ = run('labelme', tmp_path / 'notes')
    np.testing.assert_allclose(labels_of(tmp_path, 'a'), [LABEL], atol=1e-6)
    assert 'a copy.json: a.png was annotated already, as a.json' in printed


def test_a_copy_does_not_take_its_place_where_folders_differ_either(run, tmp_path):
    for name in 'abc':
        inputs.picture(tmp_path / f'photos/cam/{name}.png')
        content = {'imagePath': rf'C:\shots\cam\{name}.png', 'shapes': [labelme_shape()]}
        write(tmp_path / f'notes/{name}.json', content)
    write(tmp_path / 'notes/a copy.json', {'imagePath': r'C:\shots\cam\a.png', 'shapes': []})
    printed, _ = run('labelme', tmp_path / 'notes')
    np.testing.assert_allclose(labels_of(tmp_path, 'a'), [LABEL], atol=1e-6)
    assert 'a copy.json: cam/a.png was annotated already, as a.json' in printed


def test_a_task_that_nobody_annotated_does_not_keep_its_picture(run, photos, tmp_path):
    shape = '<polygon label="text" points="10,4;40,4;40,20;10,20"/>'
    broken = '<polygon label="text" points="10"/>'
    names = [('a.png', broken), ('0a1b2c3d-a.png', shape), ('b.png', shape), ('c.png', shape)]
    images = [f'<image id="{n}" name="{name}" width="60" height="40">{s}</image>' for n, (name, s) in enumerate(names)]
    printed, error = run('cvat', write(tmp_path / 'all.xml', f'<annotations>{"".join(images)}</annotations>'))
    assert error == '' and 'train: 2 pictures' in printed and len(labels_of(tmp_path, 'a')) == 1


def first_x(tmp_path, name: str) -> int:
    """x of the first corner, in pixels."""
    return round(labels_of(tmp_path, name)[0][0] * 60)


@pytest.mark.parametrize('below', ['', '/images'])
@pytest.mark.parametrize('form', ['coco', 'icdar2015'])
def test_the_folder_of_the_pictures_says_whose_they_are(run, tmp_path, form, below):
    """The annotations are of two folders of equal names, and the pictures of one are given."""
    for number in (1, 2):
        inputs.picture(tmp_path / f'photos/day2{below}/I{number}.png')
    paths = [f'day{day}{below}/I{number}' for day in (1, 2) for number in (1, 2)]
    corners = {path: [x, 4, 40, 4, 40, 20, x, 20] for path, x in zip(paths, (5, 5, 10, 10), strict=True)}
    if form == 'coco':
        images = [{'id': n, 'file_name': f'{path}.png', 'width': 60, 'height': 40} for n, path in enumerate(paths)]
        regions = [{'image_id': n, 'category_id': 1, 'segmentation': [corners[p]]} for n, p in enumerate(paths)]
        content = {'images': images, 'annotations': regions, 'categories': [{'id': 1, 'name': 'text'}]}
        notes = write(tmp_path / 'all.json', content)
    for path in paths if form == 'icdar2015' else ():
        row = ','.join(map(str, corners[path])) + ',word\n'
        write(tmp_path / f'notes/{path.replace("I", "gt_I")}.txt', row)
        notes = tmp_path / 'notes'
    printed, error = run(form, notes, images=f'photos/day2{below}')
    assert error == '' and 'skipped 2 annotations without a picture of their own' in printed
    assert first_x(tmp_path, 'I1') == first_x(tmp_path, 'I2') == 10


def test_an_exact_name_comes_before_a_similar_one(run, photos, tmp_path):
    for name, x in (('a', 10), ('b', 10), ('20230401-a', 5), ('C', 10)):
        write(tmp_path / f'notes/gt_{name}.txt', f'{x},4,40,4,40,20,{x},20,word\n')
    printed, error = run('icdar2015', tmp_path / 'notes')
    assert error == '' and "20230401-a.txt: no picture '20230401-a'" in printed
    assert 'C.txt' not in printed and first_x(tmp_path, 'a') == first_x(tmp_path, 'c') == 10


def test_a_doubt_stays_with_its_own_annotation(run, tmp_path):
    for name in ('001', '002'):
        inputs.picture(tmp_path / f'photos/cam2/{name}.png')
    for name, named, x in (('000', 'cam1/001.png', 5), ('001', '001.png', 10), ('002', '002.png', 10)):
        shape = labelme_shape(corners=((x, 4), (40, 4), (40, 20), (x, 20)))
        write(tmp_path / f'notes/{name}.json', {'imagePath': named, 'shapes': [shape]})
    printed, error = run('labelme', tmp_path / 'notes')
    assert error == '' and first_x(tmp_path, '001') == 10 and "000.json: no picture 'cam1/001.png'" in printed


def test_pictures_that_differ_in_their_suffix_alone(run, photos, tmp_path):
    inputs.picture(photos / 'a.jpg')
    printed, error = run('cvat', write(tmp_path / 'all.xml', cvat('a.png', 'a.jpg', 'b.png', 'c.png')))
    assert error == '' and 'a.jpg would share its label file with a.png: rename one of them' in printed


def test_a_label_file_beside_ground_truth_costs_nothing(run, photos, tmp_path):
    for name in 'ABC':
        inputs.picture(tmp_path / f'upper/{name}.png')
        write(tmp_path / f'notes/{name}.txt', '0 0.5 0.5 0.2 0.1\n')  # of YOLO; read before gt_
        write(tmp_path / f'notes/gt_{name}.txt', f'{QUAD},word\n')
    printed, error = run('icdar2015', tmp_path / 'notes', images='upper')
    assert error == '' and 'train: 2 pictures' in printed and 'skipped 1 picture' not in printed


def test_corners_at_one_point_are_told(run, photos, tmp_path):
    for name in 'abc':
        write(tmp_path / f'notes/gt_{name}.txt', '10,4,40,4,40,20,40,20,word\n')
    assert 'four corners with two at one point' in run('icdar2015', tmp_path / 'notes')[0]


def test_a_circle_costs_its_shape_alone(run, photos, tmp_path):
    circle = labelme_shape('circle', ((5, 5), (9, 9)))
    for name in 'abc':
        shapes = [labelme_shape(), circle] if name == 'a' else [labelme_shape()]
        write(tmp_path / f'notes/{name}.json', {'imagePath': f'{name}.png', 'shapes': shapes})
    printed, _ = run('labelme', tmp_path / 'notes')
    assert 'skipped 0 pictures and 1 row' in printed and "the shape 'circle' is not supported" in printed
    np.testing.assert_allclose(labels_of(tmp_path, 'a'), [LABEL], atol=1e-6)


def test_cleaned_names_of_label_studio(run, tmp_path):
    names = ['photo 1 (1).png', 'Gr\xfc\xdfe & mehr.png', 'b.png']
    assert list(map(cleaned, names)) == ['photo_1_1.png', 'Gr\xfc\xdfe__mehr.png', 'b.png']
    for name in names:
        inputs.picture(tmp_path / 'photos' / unicodedata.normalize('NFD', name))
    common = {'original_width': 60, 'original_height': 40, 'type': 'rectanglelabels', 'to_name': 'image'}
    value = {'x': 50, 'y': 25, 'width': 25, 'height': 50, 'rotation': 0, 'rectanglelabels': ['text']}
    oval = {'x': 50, 'y': 25, 'radiusX': 2, 'radiusY': 2}
    results = [{'id': 'r', 'value': value, **common}, {'id': 'o', 'value': oval, **common, 'type': 'ellipselabels'}]
    tasks = [
        {'data': {'image': f'/data/upload/3/a1b2c3d{n}-{cleaned(name)}'}, 'annotations': [{'result': results}]}
        for n, name in enumerate(names)
    ]
    tasks.append({'data': {'image': '/data/upload/3/a1b2c3d9-none.png'}, 'annotations': []})
    printed, error = run('label-studio', write(tmp_path / 'export.json', tasks))
    assert error == '' and 'skipped 0 pictures and 3 rows' in printed and "'ellipselabels' is not supported" in printed
    assert 'left out: 1 task that nobody has annotated' in printed
    assert len(list((tmp_path / 'out/images').rglob('*.png'))) == 3
    np.testing.assert_allclose(labels_of(tmp_path, 'b'), [[0.625, 0.5, 0.25, 0.5]])


def test_names_match_where_exactly_one_file_fits(tmp_path):
    for name in ('IMG_1.JPG', 'x/img 2.png', 'y/img_2.png', unicodedata.normalize('NFD', '\xe9t\xe9.png')):
        inputs.picture(tmp_path / name)
    files = ImageFiles(tmp_path)
    assert files.find('C:\\photos\\img_1.jpg').name == 'IMG_1.JPG'
    assert files.find('\xe9t\xe9.png') == files.find('\xc9T\xc9.PNG')
    assert files.find_stem(Path('gt_img_1.txt')).name == 'IMG_1.JPG'
    assert files.find('img_2.png') == tmp_path / 'y/img_2.png'  # the exact name counts first
    inputs.picture(tmp_path / 'img_1.jpeg')
    inputs.picture(tmp_path / 'Img_1.JPG')
    with pytest.raises(ValueError, match="2 pictures are called 'img_1.jpg'"):
        files = ImageFiles(tmp_path)
        files.find('img_1.jpg')
    assert files.find('IMG_1.JPG').name == 'IMG_1.JPG'


def test_linked_and_hidden_folders(run, photos, tmp_path):
    inputs.picture(tmp_path / 'disk2/d.png')
    inputs.picture(photos / '.ipynb_checkpoints/a-checkpoint.png')
    (photos / 'more').symlink_to(tmp_path / 'disk2')
    for name in 'abcd':
        write(tmp_path / f'notes/gt_{name}.txt', f'{QUAD},word\n')
    (tmp_path / 'disk3').mkdir()
    (tmp_path / 'notes/gt_d.txt').rename(tmp_path / 'disk3/gt_d.txt')
    (tmp_path / 'notes/more').symlink_to(tmp_path / 'disk3')
    printed, error = run('icdar2015', tmp_path / 'notes')
    assert error == '' and 'left out' not in printed and 'skipped' not in printed
    assert len(list((tmp_path / 'out/images').rglob('*.png'))) == 4


# Formats


def test_images_of_every_suffix_and_pages(run, tmp_path):
    (tmp_path / 'photos').mkdir()
    for suffix, form in (('avif', 'AVIF'), ('gif', 'GIF'), ('jfif', 'JPEG'), ('tif', 'TIFF')):
        Image.fromarray(inputs.pixels()).save(tmp_path / f'photos/{suffix}.{suffix}', format=form)
        write(tmp_path / f'notes/gt_{suffix}.txt', f'{QUAD},word\n')
    frames = [Image.fromarray(inputs.pixels())] * 2
    frames[0].save(tmp_path / 'photos/tif.tif', save_all=True, append_images=frames[1:])
    printed, error = run('icdar2015', tmp_path / 'notes')
    assert error == '' and 'tif.tif: the first of its 2 pages is used' in printed
    for file in (tmp_path / 'out/images').rglob('*.*'):
        assert file.read_bytes() == (tmp_path / 'photos' / file.name).read_bytes()


def test_orientation_in_xmp(run, photos, tmp_path):
    for name in 'abc':
        (photos / f'{name}.png').unlink()
        inputs.picture(photos / f'{name}.jpg', xmp=inputs.xmp(6, 'element'))
        write(tmp_path / f'notes/gt_{name}.txt', '4,10,20,10,20,40,4,40,word\n')  # of 40x60, as viewers show it
    printed, error = run('icdar2015', tmp_path / 'notes')
    assert error == '' and 'train: 2 pictures, 2 words' in printed
    np.testing.assert_allclose(labels_of(tmp_path, 'a')[0][:4], [0.1, 10 / 60, 0.5, 10 / 60], atol=1e-6)


def test_polygons_keep_all_their_corners(run, photos, tmp_path):
    corners = [(10, 4), (20, 2), (30, 2), (40, 4), (40, 20), (30, 22), (20, 22), (10, 20)]
    for name in 'abc':
        shape = labelme_shape(corners=corners)
        write(tmp_path / f'notes/{name}.json', {'imagePath': f'{name}.png', 'shapes': [shape]})
    run('labelme', tmp_path / 'notes')
    expected = (np.array(corners) / (60, 40)).ravel()
    np.testing.assert_allclose(labels_of(tmp_path, 'a'), [expected], atol=1e-6)


def test_nothing_to_train_on(run, photos, tmp_path):
    for name in 'abc':
        write(tmp_path / f'notes/gt_{name}.txt', f'{QUAD},###\n')
    assert 'nothing to train on' in run('icdar2015', tmp_path / 'notes')[1]


def test_names_of_uploads_in_exports_of_other_forms(run, tmp_path):
    """Label Studio's export as YOLO and as COCO, used with the pictures as they were before the upload."""
    names = ('photo 1 (1)', 'b', 'c')
    for name in names:
        inputs.picture(tmp_path / f'photos/{name}.png')
    images, annotations = [], []
    for n, name in enumerate(names):
        upload = f'a1b2c3d{n}-{cleaned(name)}'
        write(tmp_path / f'notes/{upload}.txt', '0 0.5 0.5 0.2 0.1\n')
        images.append({'id': n, 'file_name': f'images\\{upload}.png', 'width': 60, 'height': 40})
        annotations.append({'image_id': n, 'category_id': 0, 'bbox': [24, 18, 12, 4]})
    coco = write(tmp_path / 'result.json', {'images': images, 'annotations': annotations, 'categories': []})
    for form, place in (('yolo', tmp_path / 'notes'), ('coco', coco)):
        printed, error = run(form, place)
        assert error == '' and 'skipped' not in printed
        np.testing.assert_allclose(labels_of(tmp_path, 'photo 1 (1)'), [[0.5, 0.5, 0.2, 0.1]])


def test_prefixes_in_capitals(run, photos, tmp_path):
    for name in 'abc':
        write(tmp_path / f'notes/GT_{name}.txt', f'{QUAD},word\n')
    assert 'train: 2 pictures, 2 words' in run('icdar2015', tmp_path / 'notes')[0]


def test_archives_and_elements_in_messages(run, photos, tmp_path):
    archive = write(tmp_path / 'annotations.zip', b'PK\3\4' + bytes(40))
    assert run('cvat', archive)[1].endswith('annotations.zip is no file of CVAT: a zip archive: unpack it first')
    images = ''.join(f'<image name="{name}.png" width="60" height="40"><mask/></image>' for name in 'abc')
    printed, _ = run('cvat', write(tmp_path / 'notes.xml', f'<annotations>{images}</annotations>'))
    assert "row 1 '<mask />': the shape 'mask' is not supported" in printed


def test_corners_row_by_row(run, photos, tmp_path):
    for name in 'abc':
        write(tmp_path / f'notes/gt_{name}.txt', '10,4,40,4,10,20,40,20,word\n')
    printed, _ = run('icdar2015', tmp_path / 'notes')
    assert 'worth a look: 3' in printed and 'four corners whose edges cross' in printed
    np.testing.assert_allclose(labels_of(tmp_path, 'a'), [LABEL], atol=1e-6)


def test_turned_boxes_of_cvat(run, photos, tmp_path):
    """24 x 8 about (30, 20), a quarter turn: x 26 to 34, y 8 to 32."""
    box = '<box label="text" xtl="18" ytl="16" xbr="42" ybr="24" rotation="90"/>'
    bad = '<polyline label="text" points="1,1;2,2"/><polygon label="text" points="1,1;2"/>'
    images = ''.join(f'<image name="{name}.png" width="60" height="40">{box}{bad}</image>' for name in 'abc')
    printed, _ = run('cvat', write(tmp_path / 'notes.xml', f'<annotations>{images}</annotations>'))
    assert 'skipped 0 pictures and 6 rows' in printed and "the shape 'polyline' is not supported" in printed
    expected = np.array([34, 8, 34, 32, 26, 32, 26, 8]) / np.tile((60, 40), 4)
    np.testing.assert_allclose(labels_of(tmp_path, 'a'), [expected], atol=1e-6)
    tracks = write(tmp_path / 'tracks.xml', '<annotations><track id="0"/></annotations>')
    assert "tracks of a video; export as 'CVAT for images'" in run('cvat', tracks)[1]


def test_voc_polygons_difficult_words_and_copied_files(run, photos, tmp_path):
    numbers = zip(('x1', 'y1', 'x2', 'y2', 'x3', 'y3', 'x4', 'y4'), QUAD.split(','), strict=True)
    polygon = ''.join(f'<{tag}>{value}</{tag}>' for tag, value in sorted(numbers))  # Roboflow: x1 x2 ... is possible
    box = '<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>'
    items = f'<object><name>t</name><polygon>{polygon}</polygon>{box}</object>'
    items += f'<object><name>t</name><difficult>1</difficult>{box}</object><object><name>t</name></object>'
    for name in 'abc':
        text = f'<annotation><filename>b.png</filename><size><width>0</width><height>0</height></size>{items}'
        write(tmp_path / f'notes/{name}.xml', f'{text}</annotation>')
    printed, error = run('voc', tmp_path / 'notes')
    assert error == '' and 'skipped 0 pictures and 3 rows' in printed and 'worth a look: 2' in printed
    np.testing.assert_allclose(labels_of(tmp_path, 'a'), [LABEL], atol=1e-6)
    np.testing.assert_allclose(labels_of(tmp_path, 'c', 'ignore'), [[5 / 60, 5 / 40, 8 / 60, 6 / 40]], atol=1e-6)


@pytest.mark.parametrize(('drawn', 'weight'), [('box', 0), ('polygon', 1)])
def test_a_box_teaches_no_corners(run, photos, tmp_path, drawn, weight):
    shapes = {
        'box': '<box label="text" xtl="10" ytl="4" xbr="40" ybr="20"/>',
        'polygon': '<polygon label="text" points="10,4;40,4;40,20;10,20"/>',
    }
    images = ''.join(f'<image name="{name}.png" width="60" height="40">{shapes[drawn]}</image>' for name in 'abc')
    run('cvat', write(tmp_path / 'notes.xml', f'<annotations>{images}</annotations>'))
    data = TextDataset(load_data_config(tmp_path / 'out/data.yaml'), 'train', 64)
    assert [annotations.edges()[0, 4] for annotations in data.annotations] == [weight, weight]
    np.testing.assert_allclose(data.labels[0], [[0, *BOX]], atol=1e-6)


def test_a_word_that_the_border_cuts_teaches_no_corners(run, photos, tmp_path):
    """Of a leaning quad the border leaves five corners; their smallest rectangle is not the word's."""
    shapes = [
        f'<polygon label="text" points="{corners}"/>' for corners in ('50,10;70,20;66,28;46,18', '1,1;9,1;9,9;1,9')
    ]
    images = ''.join(f'<image name="{name}.png" width="60" height="40">{"".join(shapes)}</image>' for name in 'abc')
    run('cvat', write(tmp_path / 'notes.xml', f'<annotations>{images}</annotations>'))
    data = TextDataset(load_data_config(tmp_path / 'out/data.yaml'), 'train', 64)
    assert [annotations.edges()[:, 4].tolist() for annotations in data.annotations] == [[0, 1], [0, 1]]
    np.testing.assert_allclose(data.labels[0][0], [0, 53 / 60, 17.5 / 40, 14 / 60, 15 / 40], atol=1e-6)


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', 'defines a document type'),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'.encode('utf-16'), 'defines a document type'),
        (b'<annotation>', 'no XML'),
        (b'\0\xff\0', 'no XML'),
        (b'<?xml version="1.0" encoding="nonsense"?><annotation/>', 'no XML'),
        (b'<html/>', 'expected <annotation>'),
        (b'<annotation><filename>../../etc/passwd</filename></annotation>', ''),
    ],
)
def test_xml_that_is_something_else(photos, tmp_path, content, reason):
    write(tmp_path / 'notes/a.xml', content)
    (page,) = FORMATS['voc'].read(tmp_path / 'notes', ImageFiles(photos))
    assert reason in page.problem and (page.image is None or page.image == photos / 'a.png')


def test_coco_with_strays_crowds_and_images_without_text(run, photos, tmp_path):
    images = [{'id': n, 'file_name': f'sub/{name}.png', 'width': 60, 'height': 40} for n, name in enumerate('abc')]
    two = [[1, 1, 9, 1, 9, 9], [11, 1, 19, 1, 19, 9]]
    annotations = [
        {'image_id': 0, 'category_id': 1, 'bbox': [10, 4, 30, 16], 'segmentation': two},
        {'image_id': 0, 'category_id': 1, 'bbox': [0, 0, 9, 9], 'iscrowd': 1},
        {'image_id': 0, 'category_id': 1, 'bbox': [0, 9, 9, 9], 'ignore': 1},
        {'image_id': 0, 'category_id': 1, 'bbox': [0, 0, 9]},
        {'image_id': 0, 'category_id': 1, 'bbox': [40, 4, -30, 16]},
        {'image_id': 1, 'category_id': 7, 'bbox': [10, 4, 30, 16], 'caption': '###'},
        {'image_id': 9, 'category_id': 1, 'bbox': [10, 4, 30, 16]},
    ]
    content = {'images': images, 'annotations': annotations, 'categories': [{'id': 1, 'name': 'word'}]}
    printed, error = run('coco', write(tmp_path / 'a.json', content), '--val', 0.4)
    assert (
        error == ''
        and 'skipped 0 pictures and 2 rows' in printed
        and 'skipped 1 annotation without a picture' in printed
        and '1 annotation, but the file lists no such image' in printed
    )
    np.testing.assert_allclose(labels_of(tmp_path, 'a'), [BOX], atol=1e-6)
    assert len(labels_of(tmp_path, 'a', 'ignore')) == 2 and len(labels_of(tmp_path, 'b', 'ignore')) == 1
    assert labels_of(tmp_path, 'c') == []
    for wrong in ([], {'images': []}, {'imgs': {}, 'anns': {}}):
        assert 'no COCO file of objects' in run('coco', write(tmp_path / 'b.json', wrong))[1]


def test_ppocrlabel_rows(run, photos, tmp_path):
    region = {'transcription': 'word', 'points': [[10, 4], [40, 4], [40, 20], [10, 20]], 'difficult': False}
    hard = region | {'difficult': True, 'points': [[0, 0], [9, 0], [9, 9], [0, 9]]}
    rows = [f'photos/{name}.png\t{json.dumps([region, hard])}' for name in 'abc']
    rows += ['photos/a.png\t[]', 'photos/none.png\t[]', 'photos/a.png\t[', 'no tab']
    (tmp_path / 'Cache.cach').write_bytes(b'x')
    printed, _ = run('ppocrlabel', write(tmp_path / 'Label.txt', '\r\n'.join(rows).encode('utf-16')))
    assert "train: 2 pictures, 2 words, 2 don't-care regions" in printed and 'skipped 4 annotations' in printed
    np.testing.assert_allclose(labels_of(tmp_path, 'a'), [LABEL], atol=1e-6)
    assert 'no Label.txt' in run('ppocrlabel', write(tmp_path / 'Label.txt', 'a,b\n'))[1]


def test_closed_rings_keep_four_corners(run, photos, tmp_path):
    ring = [10, 4, 40, 4, 40, 20, 10, 20, 10, 4]
    content = {
        'images': [{'id': i, 'file_name': f'{name}.png'} for i, name in enumerate('abc')],
        'annotations': [{'image_id': i, 'segmentation': [ring]} for i in range(3)],
    }
    printed, error = run('coco', write(tmp_path / 'all.json', content))
    assert error == '' and 'no gt/' not in printed
    np.testing.assert_allclose(labels_of(tmp_path, 'a'), [LABEL], atol=1e-6)
    assert len(list((tmp_path / 'out/gt').rglob('*.txt'))) == 3
    # A triangle is what ICDAR's form cannot hold: its split has no gt, and a line says so.
    content['annotations'] += [{'image_id': i, 'segmentation': [ring[:6]]} for i in range(3)]
    printed, _ = run('coco', write(tmp_path / 'all.json', content))
    assert 'train: no gt/, so no hmean: 2 regions have not four corners' in printed
    assert 'val: no gt/, so no hmean: 1 region has not four corners' in printed
    assert not (tmp_path / 'out/gt').exists()


def test_yolo_polygons_at_the_border_stay_polygons(run, photos, tmp_path):
    for name in 'abc':
        write(
            tmp_path / f'notes/{name}.txt', '0 0 .3 .4 .1 .45 .3 .05 .5\n0 .5 .5 .2 .1\n0 .9 .5 1.00005 .5 1 .6 .9 .6\n'
        )
    run('yolo', tmp_path / 'notes')
    found = labels_of(tmp_path, 'a')
    np.testing.assert_allclose(found[0], [0, 0.3, 0.4, 0.1, 0.45, 0.3, 0.05, 0.5])
    np.testing.assert_allclose(found[1], [0.5, 0.5, 0.2, 0.1])
    np.testing.assert_allclose(found[2], [0.9, 0.5, 1, 0.5, 1, 0.6, 0.9, 0.6])  # clamped, not cut: four corners


def test_names_that_are_no_utf8(run, photos, tmp_path):
    name = b'caf\xe9'.decode('utf-8', 'surrogateescape')
    try:
        inputs.picture(photos / f'{name}.png')
    except OSError:
        pytest.skip('this file system takes UTF-8 names alone')
    for stem in ('a', 'b', name):
        write(tmp_path / f'notes/{stem}.txt', '0 0.5 0.5 0.2 0.1\n')
    printed, error = run('yolo', tmp_path / 'notes')
    assert error == '' and 'left out: 1 picture without an annotation' in printed
    data = TextDataset(load_data_config(tmp_path / 'out/data.yaml'), 'train', 64)
    assert data.fingerprint()


def test_a_picture_whose_regions_lie_outside_is_no_picture_without_text(run, photos, tmp_path):
    for name, row in (('a', QUAD), ('b', '100,50,140,50,140,60,100,60'), ('c', QUAD)):
        write(tmp_path / f'notes/gt_{name}.txt', f'{row},word\n')
    printed, _ = run('icdar2015', tmp_path / 'notes')
    assert 'skipped 1 picture and 0 rows\n  gt_b.txt: no region has an area inside the picture' in printed
    assert 'without text' not in printed


def test_a_cut_tiff_costs_its_picture_alone(run, photos, tmp_path):
    pages = [Image.new('RGB', (60, 40), colour) for colour in ('white', 'red', 'blue')]
    pages[0].save(tmp_path / 'whole.tif', save_all=True, append_images=pages[1:])
    content = (tmp_path / 'whole.tif').read_bytes()
    write(photos / 'd.tif', content[: len(content) * 6 // 10])
    for name in 'abcd':
        write(tmp_path / f'notes/gt_{name}.txt', f'{QUAD},word\n')
    printed, error = run('icdar2015', tmp_path / 'notes')
    assert error == '' and 'd.tif: the first of its 3 pages is used' in printed and 'skipped' not in printed
    write(photos / 'd.tif', content[: len(content) // 10])
    printed, error = run('icdar2015', tmp_path / 'notes')
    assert error == '' and 'skipped 1 picture and 0 rows\n  gt_d.txt: d.tif is broken' in printed


def test_folders_named_images(run, tmp_path):
    for place in ('train/images/a', 'train/images/b', 'valid/Images/a'):
        inputs.picture(tmp_path / f'photos/{place}.png')
        write(tmp_path / f'photos/{place}.txt', '0 0.5 0.5 0.2 0.1\n')
    _, error = run('yolo', tmp_path / 'photos')
    written = {
        file.relative_to(tmp_path / 'out/labels').as_posix() for file in (tmp_path / 'out/labels').rglob('*.txt')
    }
    assert error == '' and {name.partition('/')[2] for name in written} == {'train/a.txt', 'train/b.txt', 'valid/a.txt'}
    assert (
        sum(len(TextDataset(load_data_config(tmp_path / 'out/data.yaml'), split, 64)) for split in ('train', 'val'))
        == 3
    )


def test_counts_of_one_folder_for_two_sets(run, photos, tmp_path):
    for name in 'de':
        inputs.picture(photos / f'{name}.png')

    def coco(names: str) -> dict:
        shape = {'bbox': [10, 4, 30, 16]}
        return {
            'images': [{'id': name, 'file_name': f'{name}.png'} for name in names],
            'annotations': [{'image_id': name, **shape} for name in names],
        }

    train, test = write(photos / 'train.json', coco('abcd')), write(photos / 'test.json', coco('de'))
    printed, error = run('coco', train, '--test-annotations', test, '--test-images', photos)
    assert error == '' and 'test: 2 pictures' in printed and 'train: 2 pictures' in printed
    assert 'not for training: 1 picture of the test set' in printed  # d
    assert 'without an annotation' not in printed and '.json' not in printed


def test_a_label_that_the_test_set_alone_has_can_be_ignored(run, photos, tmp_path):
    for folder, label in (('notes', 'text'), ('others', 'blurred')):
        for name in 'ab' if folder == 'notes' else 'c':
            content = {'imagePath': f'{name}.png', 'shapes': [labelme_shape() | {'label': label}]}
            write(tmp_path / f'{folder}/{name}.json', content)
    flags = '--test-annotations', tmp_path / 'others', '--test-images', photos
    printed, error = run('labelme', tmp_path / 'notes', *flags, '--ignore-label', 'blurred')
    assert error == '' and "test: 1 picture, 0 words, 1 don't-care region" in printed
    assert 'no region is labelled' in run('labelme', tmp_path / 'notes', *flags, '--ignore-label', 'torn')[1]


def test_a_broken_annotation_is_counted_once(run, photos, tmp_path):
    for name in 'bc':
        write(tmp_path / f'notes/{name}.json', {'imagePath': f'{name}.png', 'shapes': [labelme_shape()]})
    write(tmp_path / 'notes/a.json', '{')
    printed, _ = run('labelme', tmp_path / 'notes')
    assert 'skipped 1 picture and 0 rows\n  a.json' in printed and 'without an annotation' not in printed


def test_a_picture_whose_test_annotation_is_good_is_not_skipped(run, photos, tmp_path):
    for folder, names in (('notes', 'abc'), ('others', 'a')):
        for name in names:
            size = {'imageWidth': 300, 'imageHeight': 40} if folder == 'notes' and name == 'a' else {}
            write(tmp_path / f'{folder}/{name}.json', {'imagePath': f'{name}.png', 'shapes': [labelme_shape()], **size})
    printed, _ = run('labelme', tmp_path / 'notes', '--test-annotations', tmp_path / 'others', '--test-images', photos)
    assert 'test: 1 picture,' in printed and 'skipped 1 annotation without a picture of their own' in printed
    assert 'skipped 1 picture' not in printed


@pytest.mark.parametrize('first', ['text', 'bad'])
def test_the_order_of_two_regions_at_one_place_decides_nothing(run, photos, tmp_path, first):
    labels = sorted(['text', 'bad'], key=first.__eq__, reverse=True)
    for name in 'abc':
        shapes = [labelme_shape() | {'label': label} for label in labels]
        write(tmp_path / f'notes/{name}.json', {'imagePath': f'{name}.png', 'shapes': shapes})
    printed, error = run('labelme', tmp_path / 'notes', '--ignore-label', 'bad')
    assert error == '' and "train: 2 pictures, 2 words, 0 don't-care regions" in printed
    assert 'skipped 0 pictures and 3 rows' in printed and 'repeats an earlier region' in printed
    assert 'no region is labelled torn (there are: bad, text)' in run(
        'labelme', tmp_path / 'notes', '--ignore-label', 'torn'
    )[1].replace("'", '')


@pytest.mark.parametrize(
    'corners', [((-26, 10), (24, 10), (24, 30), (-26, 30)), ((30, 20), (80, 10), (83, 22), (33, 32))]
)
def test_gt_has_what_is_inside(run, photos, tmp_path, corners):
    """What is found ends with the picture: it could not match a word of which more than half lies outside."""
    for name in 'abc':
        shapes = [labelme_shape(corners=corners), labelme_shape()]
        write(tmp_path / f'notes/{name}.json', {'imagePath': f'{name}.png', 'shapes': shapes})
    run('labelme', tmp_path / 'notes')
    cut, whole = (
        shapely.Polygon(np.array(row.split(',')[:8], float).reshape(4, 2))
        for row in (tmp_path / 'out/gt/train/gt_a.txt').read_text().splitlines()
    )
    seen = shapely.Polygon(corners) & shapely.box(0, 0, 60, 40)
    assert (cut & seen).area / (cut | seen).area > 0.8 and whole.equals(shapely.box(10, 4, 40, 20))


def test_what_is_difficult_in_labelme(run, photos, tmp_path):
    """X-AnyLabeling's key of the shape, LabelMe's flag; flags may be anything."""
    for name in 'abc':
        flags = (None, ['difficult'], {'difficult': False})
        others = [square_at(20 * n) | {'flags': each} for n, each in enumerate(flags)]
        hard = [square_at(10) | {'difficult': True}, square_at(30) | {'flags': {'difficult': True}}]
        write(tmp_path / f'notes/{name}.json', {'imagePath': f'{name}.png', 'shapes': others + hard})
    printed, _ = run('labelme', tmp_path / 'notes')
    assert "train: 2 pictures, 6 words, 4 don't-care regions" in printed
