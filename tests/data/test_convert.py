"""data/convert.py: the same two regions in every format, hand-computed; what strangers' files may hold; the docs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.io import savemat

from data import convert
from data.formats.common import BadEntry
from data.formats.image_files import ImageFiles
from models.errors import UserError
from tests.inputs import xmp
from tests.support import ROOT, run_here
from utils.evaluation.icdar import read_ground_truth
from utils.loading.config import load_data_config
from utils.loading.dataset import TextDataset

WIDTH, HEIGHT = 80, 40
# A word from (8, 4) to (40, 20), and what nobody could read from (0, 0) to (20, 10).
WORD = '0 0.100000 0.100000 0.500000 0.100000 0.500000 0.500000 0.100000 0.500000\n'
DONT_CARE = '0 0.000000 0.000000 0.250000 0.000000 0.250000 0.250000 0.000000 0.250000\n'
# The same two, where a format knows their boxes alone: no box says how its word leans.
WORD_BOX, DONT_CARE_BOX = '0 0.300000 0.300000 0.400000 0.400000\n', '0 0.125000 0.125000 0.250000 0.250000\n'
WORD_CORNERS, DONT_CARE_CORNERS = [8, 4, 40, 4, 40, 20, 8, 20], [0, 0, 20, 0, 20, 10, 0, 10]
NAMES = ('a', 'b', 'c')


def image(file: Path, size=(WIDTH, HEIGHT), **options) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(list(file.name.encode())).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, **options)
    return file


def points(corners: list[int]) -> list[list[int]]:
    return [corners[i : i + 2] for i in range(0, len(corners), 2)]


def write(file: Path, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding='utf-8')


def joined(corners: list[int]) -> str:
    return ','.join(map(str, corners))


def icdar2013(folder: Path) -> Path:
    rows = ('8 4 40 20 "a ""word"""\n0 0 20 10 "###"\n', '8, 4, 40, 20, "word"\n0, 0, 20, 10, "###"\n')
    for number, name in enumerate(NAMES):
        write(folder / f'gt_{name}.txt', rows[number % 2])
    return folder


def icdar2015(folder: Path) -> Path:
    for name in NAMES:
        write(folder / f'gt_{name}.txt', f'\ufeff{joined(WORD_CORNERS)},a, b\r\n{joined(DONT_CARE_CORNERS)},###\r\n')
    return folder


def yolo(folder: Path) -> Path:
    for name in NAMES:
        write(folder / f'{name}.txt', f'{WORD}0 0.125 0.125 0.25 0.25\n')  # a polygon row and a box row
    return folder


def icdar2017_mlt(folder: Path) -> Path:
    for name in NAMES:
        write(folder / f'gt_{name}.txt', f'{joined(WORD_CORNERS)},Latin,a,b\n{joined(DONT_CARE_CORNERS)},None,###\n')
    return folder


def total_text(folder: Path) -> Path:
    row = "x: [[{}]], y: [[{}]], ornt: [u'{}'], transcriptions: [u'{}']\n"
    for name in NAMES[:2]:
        parts = [(WORD_CORNERS, 'h', "caf\\xe9 don\\'t"), (DONT_CARE_CORNERS, '#', '###' if name == NAMES[0] else '#')]
        rows = [row.format(' '.join(map(str, c[::2])), '\n '.join(map(str, c[1::2])), o, t) for c, o, t in parts]
        write(folder / f'poly_gt_{name}.txt', ''.join(rows))
    cells = np.empty((2, 6), object)
    for number, (corners, word) in enumerate(((WORD_CORNERS, 'word'), (DONT_CARE_CORNERS, '#'))):
        cells[number] = ['x:', np.array([corners[::2]]), 'y:', np.array([corners[1::2]]), word, 'h']
    savemat(folder / f'poly_gt_{NAMES[2]}.mat', {'polygt': cells})
    return folder


def coco_text(folder: Path) -> Path:
    images = {
        str(n): {'id': n, 'file_name': f'{name}.jpg', 'width': WIDTH, 'height': HEIGHT, 'set': ('train', 'val')[n == 2]}
        for n, name in enumerate(NAMES)
    }
    images['9'] = {'id': 9, 'file_name': 'not_published.jpg', 'width': 1, 'height': 1, 'set': 'test'}
    annotations = {}
    for n in range(3):
        legible = {'image_id': n, 'legibility': 'legible', 'utf8_string': 'word', 'bbox': [8, 4, 32, 16]}
        if n:
            legible['polygon' if n == 1 else 'mask'] = WORD_CORNERS
        annotations[f'{n}0'] = legible
        annotations[f'{n}1'] = {'image_id': n, 'legibility': 'illegible', 'mask': DONT_CARE_CORNERS}
    write(folder / 'cocotext.json', {'imgs': images, 'anns': annotations, 'info': {}})
    return folder / 'cocotext.json'


def labelme(folder: Path) -> Path:
    for name in NAMES:
        shapes = [
            {'label': 'word', 'points': [[40, 20], [8, 4]], 'shape_type': 'rectangle', 'description': 'hello'},
            {'label': 'blurred', 'points': points(DONT_CARE_CORNERS), 'shape_type': 'polygon'},
        ]
        if name == 'a':  # a rectangle may begin at any of its corners; this one is drawn as a polygon
            shapes[0] = {'label': 'word', 'points': points(WORD_CORNERS), 'shape_type': 'polygon'}
        write(folder / f'{name}.json', {'imagePath': f'..\\photos\\{name}.jpg', 'shapes': shapes, 'imageData': None})
    return folder


def label_studio(folder: Path) -> Path:
    tasks = []
    for name in NAMES:
        common = {'original_width': WIDTH, 'original_height': HEIGHT, 'image_rotation': 0, 'to_name': 'image'}
        box = {'x': 10, 'y': 10, 'width': 40, 'height': 40, 'rotation': 0}
        polygon = {'points': [[0, 0], [25, 0], [25, 25], [0, 25]], 'polygonlabels': ['blurred']}
        result = [
            {'id': 'w', 'type': 'rectangle', 'value': box, **common},
            {'id': 'w', 'type': 'textarea', 'value': {**box, 'text': ['hello']}, **common},
            {'id': 'x', 'type': 'polygonlabels', 'value': polygon, **common},
        ]
        data = {'image': f'/data/upload/7/0123abcd-{name}.jpg'}
        tasks.append({'data': data, 'annotations': [{'result': [], 'was_cancelled': True}, {'result': result}]})
    tasks.append({'data': {'image': 'nobody.jpg'}, 'annotations': []})
    write(folder / 'project.json', tasks)
    return folder / 'project.json'


def coco(folder: Path) -> Path:
    images, annotations = [], []
    for n, name in enumerate(NAMES):
        images.append({'id': n, 'file_name': f'{name}.jpg', 'width': WIDTH, 'height': HEIGHT})
        word = {'bbox': [8, 4, 32, 16], 'segmentation': [WORD_CORNERS] if n else [], 'attributes': {'text': 'word'}}
        blurred = {'bbox': [0, 0, 20, 10], 'segmentation': {'counts': 'abc', 'size': [HEIGHT, WIDTH]}}
        annotations += [{'id': 2 * n + c, 'image_id': n, 'category_id': c} | a for c, a in enumerate((word, blurred))]
    categories = [{'id': 0, 'name': 'word'}, {'id': 1, 'name': 'blurred'}]
    write(folder / 'instances.json', {'images': images, 'annotations': annotations, 'categories': categories})
    return folder / 'instances.json'


def voc(folder: Path) -> Path:
    item = (
        '<object><name>{}</name><difficult>0</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>'
        '<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'
    )
    for name in NAMES:
        size = f'<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>'
        items = item.format('word', 8, 4, 40, 20) + item.format('blurred', 0, 0, 20, 10)
        write(folder / f'{name}.xml', f'<annotation><filename>{name}.jpg</filename>{size}{items}</annotation>')
    return folder


def cvat(folder: Path) -> Path:
    shapes = (
        '<polygon label="word" points="8.00,4.00;40.00,4.00;40.00,20.00;8.00,20.00"><attribute name="Text">a'
        '</attribute></polygon><box label="blurred" xtl="0" ytl="0" xbr="20" ybr="10" occluded="0"/><tag label="x"/>'
    )
    images = ''.join(
        f'<image id="{n}" name="photos/{name}.jpg" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>'
        for n, name in enumerate(NAMES)
    )
    write(folder / 'annotations.xml', f'<?xml version="1.0" encoding="utf-8"?><annotations>{images}</annotations>')
    return folder / 'annotations.xml'


def ppocrlabel(folder: Path) -> Path:
    word = {'transcription': 'word', 'points': points(WORD_CORNERS), 'difficult': False}
    unread = {'transcription': '###', 'points': points(DONT_CARE_CORNERS), 'difficult': False, 'key_cls': 'blurred'}
    write(folder / 'Label.txt', ''.join(f'photos/{name}.jpg\t{json.dumps([word, unread])}\r' for name in NAMES))
    return folder / 'Label.txt'


MAKERS = {f.__name__.replace('_', '-'): f for f in (icdar2013, icdar2015, total_text, coco_text, labelme, label_studio)}
MAKERS |= {f.__name__: f for f in (coco, voc, cvat, ppocrlabel)}
MAKERS |= {'icdar2017-mlt': icdar2017_mlt, 'yolo': yolo}
# Of which pictures the word, and the don't-care region, is a box in the samples.
BOXES = {'icdar2013': ('abc', 'abc'), 'voc': ('abc', 'abc'), 'coco': ('a', 'abc'), 'coco-text': ('a', '')}
BOXES |= {'labelme': ('bc', ''), 'label-studio': ('abc', ''), 'cvat': ('', 'abc'), 'yolo': ('', 'abc')}


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run the command in this process; returns what it printed, or the UserError's text."""

    def run(form: str, annotations: Path, *flags) -> str:
        given = [
            '--from',
            form,
            '--annotations',
            annotations,
            '--images',
            tmp_path / 'photos',
            '--out',
            tmp_path / 'out',
        ]
        monkeypatch.setattr(sys, 'argv', ['convert.py', *map(str, given), *map(str, flags)])
        try:
            convert.main()
        except UserError as error:
            return str(error)
        return capsys.readouterr().out

    return run


@pytest.fixture
def photos(tmp_path) -> Path:
    for name in NAMES:
        image(tmp_path / 'photos' / f'{name}.jpg')
    return tmp_path / 'photos'


def written(out: Path, kind: str) -> dict[str, str]:
    return {file.stem: file.read_text() for file in sorted((out / kind).rglob('*.txt'))}


def test_every_format_has_a_sample():
    assert MAKERS.keys() == convert.FORMATS.keys()


@pytest.mark.parametrize('form', MAKERS)
def test_the_same_regions_from_every_format(form, command, photos, tmp_path):
    flags = ['--ignore-label', 'blurred'] if convert.FORMATS[form].labels else []
    if form == 'yolo':  # it knows no don't-care regions; at 640 pixels the two are 128 and 80 high
        flags = ['--min-height', 100]
    printed = command(form, MAKERS[form](tmp_path / 'notes'), *flags)
    assert "train: 2 pictures, 2 words, 2 don't-care regions\nval: 1 picture, 1 word, 1 don't-care region" in printed
    assert 'skipped' not in printed
    out = tmp_path / 'out'
    words, unread = BOXES.get(form, ('', ''))
    assert written(out, 'labels') == {name: WORD_BOX if name in words else WORD for name in NAMES}
    assert written(out, 'ignore') == {name: DONT_CARE_BOX if name in unread else DONT_CARE for name in NAMES}
    for file in (out / 'gt').rglob('*.txt'):
        quads, dont_care = read_ground_truth(file)
        assert quads.min(1).tolist() == [[8, 4], [0, 0]] and quads.max(1).tolist() == [[40, 20], [20, 10]]
        assert dont_care.tolist() == [False, True]
    assert len(written(out, 'gt')) == 3
    for file in (out / 'images').rglob('*.jpg'):
        assert file.read_bytes() == (photos / file.name).read_bytes()
    assert Image.open(out / 'preview.jpg').size[0] > 640
    assert not list(tmp_path.glob('.*'))


def test_a_turned_rectangle_of_label_studio(command, photos, tmp_path):
    """8 x 20 pixels at (40, 10), a quarter turn clockwise around that corner: x 20 to 40, y 10 to 18."""
    file = label_studio(tmp_path / 'notes')
    tasks = json.loads(file.read_text())
    value = {'x': 50, 'y': 25, 'width': 10, 'height': 50, 'rotation': 90}
    tasks[0]['annotations'][1]['result'][:2] = [dict(tasks[0]['annotations'][1]['result'][0], value=value)]
    write(file, tasks)
    command('label-studio', file)
    row = next((tmp_path / 'out' / 'labels').rglob('a.txt')).read_text().splitlines()[0]
    corners = np.array(row.split()[1:], float).reshape(4, 2) * (WIDTH, HEIGHT)
    np.testing.assert_allclose(corners, [(40, 10), (40, 18), (20, 18), (20, 10)], atol=1e-4)


def test_polygons_are_cut_at_the_border_and_no_gt_is_written(command, photos, tmp_path):
    """A pentagon, so that its split has no ground truth in ICDAR's form; a square half outside is cut in half."""
    labelme(tmp_path / 'notes')
    shapes = [
        {'label': 'x', 'points': [[10, 10], [20, 10], [25, 15], [20, 20], [10, 20]], 'shape_type': 'polygon'},
        {'label': 'x', 'points': [[70, 10], [90, 10], [90, 30], [70, 30]], 'shape_type': 'polygon'},
        {'label': 'x', 'points': [[90, 10], [99, 10], [99, 30], [90, 30]], 'shape_type': 'polygon'},
        {'label': 'x', 'points': [[1, 1], [5, 5]], 'shape_type': 'polygon'},
    ]
    for name in NAMES:
        write(tmp_path / 'notes' / f'{name}.json', {'imagePath': f'{name}.jpg', 'shapes': shapes})
    printed = command('labelme', tmp_path / 'notes')
    assert 'skipped 0 pictures and 6 rows' in printed
    assert 'no area inside the picture' in printed and '4 coordinates, expected' in printed
    first, second = written(tmp_path / 'out', 'labels')['a'].splitlines()
    assert len(first.split()) == 11
    corners = np.array(second.split()[1:], float).reshape(-1, 2) * (WIDTH, HEIGHT)
    assert (corners.min(0).tolist(), corners.max(0).tolist()) == ([70, 10], [80, 30])
    assert not (tmp_path / 'out' / 'gt').exists()


def test_a_repeated_region_counts_once(command, photos, tmp_path):
    word, other = points(WORD_CORNERS), points(DONT_CARE_CORNERS)
    shapes = [{'label': 'x', 'points': corners, 'shape_type': 'polygon'} for corners in (word, word, other)]
    for name in NAMES:
        write(tmp_path / 'notes' / f'{name}.json', {'imagePath': f'{name}.jpg', 'shapes': shapes})
    printed = command('labelme', tmp_path / 'notes')
    assert 'skipped 0 pictures and 3 rows' in printed and 'repeats an earlier region' in printed
    assert all(len(text.splitlines()) == 2 for text in written(tmp_path / 'out', 'labels').values())
    assert 'skipped' not in TextDataset(load_data_config(tmp_path / 'out/data.yaml'), 'train', 64).summary


def test_damaged_pixels_are_named(command, photos, tmp_path):
    """A PNG whose first and last bytes are as they should be."""
    labelme(tmp_path / 'notes')
    for name in NAMES:
        content = bytearray(image(tmp_path / 'photos' / f'{name}.png').read_bytes())
        (photos / f'{name}.jpg').unlink()
        if name == 'a':
            content[len(content) // 2 : len(content) // 2 + 100] = bytes(100)
        (photos / f'{name}.png').write_bytes(content)
        notes = json.loads((tmp_path / 'notes' / f'{name}.json').read_text())
        write(tmp_path / 'notes' / f'{name}.json', notes | {'imagePath': f'{name}.png'})
    printed = command('labelme', tmp_path / 'notes', '--ignore-label', 'blurred')
    assert 'skipped 1 picture' in printed and 'a.png is broken (' in printed
    assert (tmp_path / 'out/preview.jpg').is_file()


def test_splits_are_stable_and_as_large_as_asked_for(command, tmp_path):
    names = [f'p{number}' for number in range(20)]
    for name in names:
        image(tmp_path / 'photos' / 'sub' / f'{name}.png')
        write(tmp_path / 'notes' / 'sub' / f'gt_{name}.txt', f'{joined(WORD_CORNERS)},word\n')
    printed = command('icdar2015', tmp_path / 'notes', '--val', 0.2, '--test', 0.1, '--link')
    assert [int(n) for n in re.findall(r': (\d+) pictures?,', printed)] == [14, 4, 2]
    found = {split: {f.stem for f in (tmp_path / 'out/images' / split / 'sub').iterdir()} for split in convert.SPLITS}
    assert set.union(*found.values()) == set(names)
    link = next((tmp_path / 'out/images/val/sub').iterdir())
    assert link.is_symlink() and link.resolve().parent == tmp_path / 'photos' / 'sub'
    data = yaml.safe_load((tmp_path / 'out' / 'data.yaml').read_text())
    assert data['test'] == 'images/test' and 'path' not in data
    os.rename(tmp_path / 'out', tmp_path / 'first')  # as it may be moved
    assert len(TextDataset(load_data_config(tmp_path / 'first/data.yaml'), 'train', 64)) == 14
    command('icdar2015', tmp_path / 'notes', '--val', 0.2, '--test', 0.1)
    assert {f.stem for f in (tmp_path / 'out/images/val/sub').iterdir()} == found['val']


def test_a_test_set_of_its_own(command, photos, tmp_path):
    for name in ('d', 'e'):
        image(tmp_path / 'others' / f'{name}.jpg')
        write(tmp_path / 'others' / f'gt_{name}.txt', f'{joined(WORD_CORNERS)},word\n')
    printed = command('icdar2015', icdar2015(tmp_path / 'notes'), '--test-annotations', tmp_path / 'others')
    assert [int(n) for n in re.findall(r': (\d+) pictures?,', printed)] == [2, 1, 2]
    assert {f.stem for f in (tmp_path / 'out/images/test').iterdir()} == {'d', 'e'}


def test_exif_orientation(command, photos, tmp_path):
    """Annotated upright, 40 x 80, it fits; annotated as stored, it is refused with both sizes."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image(photos / 'a.jpg', exif=exif)
    labelme(tmp_path / 'notes')
    for name in ('a', 'b'):
        content = json.loads((tmp_path / 'notes' / f'{name}.json').read_text())
        write(tmp_path / 'notes' / f'{name}.json', {**content, 'imageWidth': HEIGHT, 'imageHeight': WIDTH})
    printed = command('labelme', tmp_path / 'notes', '--ignore-label', 'blurred')
    assert 'b.json: annotated at 40x80 pixels, but b.jpg has 80x40' in printed and 'skipped 1 picture' in printed
    assert 'raw-pixels' not in printed  # a.json tells, and b.jpg is not turned
    row = np.array(written(tmp_path / 'out', 'labels')['a'].split()[1:], float).reshape(4, 2)
    np.testing.assert_allclose(row * (HEIGHT, WIDTH), points(WORD_CORNERS), atol=1e-4)


@pytest.mark.parametrize('form', ['icdar2015', 'yolo', 'labelme', 'voc'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_annotations_in_the_pixels_as_stored(form, orientation, command, photos, tmp_path):
    """A word and its picture are stored turned, in each way that there is: its label is that of the upright picture."""
    from ocrdistill.images import UPRIGHT
    from utils.loading.images import read_image

    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in NAMES:
        exif[0x010E] = name  # so that none is a copy
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        pixels[4:20, 8:40] = 255  # the word
        Image.fromarray(pixels).save(photos / f'{name}.png', exif=exif)
        (photos / f'{name}.jpg').unlink()
    notes, flags = MAKERS[form](tmp_path / 'notes'), ['--raw-pixels']
    if form == 'labelme':
        for file in notes.iterdir():
            write(file, json.loads(file.read_text()) | {'imageWidth': WIDTH, 'imageHeight': HEIGHT})
    printed = command(form, notes, *flags)
    tells = form in ('labelme', 'voc') and orientation >= 5
    line = '3 pictures are turned by EXIF data: annotations are taken as of the pixels as stored'
    assert (line in printed) == (orientation > 1 and not tells) and 'skipped' not in printed
    files = list((tmp_path / 'out/labels').rglob('*.txt'))
    assert len(files) == len(NAMES)
    for file in files:
        shown = read_image(photos / f'{file.stem}.png')
        assert shown.shape == UPRIGHT.get(orientation, np.asarray)(pixels).shape
        values = np.array(file.read_text().splitlines()[0].split()[1:], float)
        centre, half = values[:2], values[2:] / 2
        corners = values.reshape(-1, 2) if len(values) == 8 else np.array([centre - half, centre + half])
        corners = (corners * shown.shape[1::-1]).round().astype(int)
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        assert shown[top:bottom, left:right].all() and not shown.sum() - shown[top:bottom, left:right].sum()
    if tells:
        shutil.rmtree(tmp_path / 'out')
        assert '.png has 40x80; it fits with --raw-pixels' in command(form, notes)


def test_turned_pictures_are_counted(command, photos, tmp_path):
    """EXIF, and XMP as viewers read it; --raw-pixels is offered where nothing tells."""
    exif = Image.Exif()
    exif[0x0112] = 3
    image(photos / 'a.jpg', exif=exif)
    image(photos / 'b.jpg', xmp=xmp(8, 'element'))
    printed = command('icdar2015', icdar2015(tmp_path / 'notes'))
    assert '2 pictures are turned by EXIF data: annotations are taken as of the upright picture' in printed
    assert '--raw-pixels if they are not' in printed


def test_other_formats_of_pictures_stay_as_they_are(command, photos, tmp_path):
    image(photos / 'a.gif')
    (photos / 'a.jpg').unlink()
    command('icdar2015', icdar2015(tmp_path / 'notes'))
    (file,) = (tmp_path / 'out' / 'images').rglob('a.*')
    assert file.suffix == '.gif' and file.read_bytes() == (photos / 'a.gif').read_bytes()


def test_what_cannot_be_used_is_named(command, photos, tmp_path):
    for name in ('d', 'e', 'f'):
        image(photos / f'{name}.jpg')
    notes = icdar2015(tmp_path / 'notes')
    (photos / 'a.jpg').write_bytes((photos / 'a.jpg').read_bytes()[:200])
    write(notes / 'gt_d.txt', f'{joined(WORD_CORNERS)},Latin,word\n')
    write(notes / 'gt_e.txt', f'1,2,3\nnan,4,40,4,40,20,8,20,x\n{joined(WORD_CORNERS)},word\n')
    write(notes / 'gt_nowhere.txt', f'{joined(WORD_CORNERS)},word\n')
    (notes / 'gt_f.txt').write_bytes(b'0' * (2 << 20))
    printed = command('icdar2015', notes)
    assert 'skipped 3 pictures and 2 rows' in printed and 'skipped 1 annotation without a picture' in printed
    for reason in ('gt_a.txt: a.jpg is broken', '--from icdar2017-mlt', "no picture 'nowhere'", 'larger than 1024 KiB'):
        assert reason in printed
    assert "row 1 '1,2,3': 3 of 9 fields" in printed and "'nan' is no coordinate" in printed


def test_nothing_outside_the_folder_of_pictures(photos, tmp_path):
    image(tmp_path / 'secret.jpg')
    found = ImageFiles(photos)
    for path in ('../secret.jpg', str(tmp_path / 'secret.jpg'), '..\\secret.jpg', '/', '', '..'):
        with pytest.raises(BadEntry):
            found.find(path)
    assert found.find('../anything/else/a.jpg') == photos / 'a.jpg'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda notes: notes / 'missing', 'is no folder'),
        (lambda notes: [f.unlink() for f in notes.iterdir()] and notes, 'no picture can be used'),
        (lambda notes: [f.write_text('x') for f in notes.iterdir()] and notes, 'no row can be read'),
        (lambda notes: [f.unlink() for f in list(notes.iterdir())[1:]] and notes, 'too few'),
    ],
)
def test_user_errors(change, message, command, photos, tmp_path):
    assert message in command('icdar2015', change(icdar2015(tmp_path / 'notes')))
    assert not (tmp_path / 'out').exists() and not list(tmp_path.glob('.*'))


def test_an_empty_folder_is_filled_where_it_is(command, photos, tmp_path):
    """It may be a mount or a link, which cannot be replaced."""
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'out').symlink_to(tmp_path / 'disk')
    (tmp_path / 'disk/.partial').mkdir()  # of a run that was killed
    command('icdar2015', icdar2015(tmp_path / 'notes'))
    assert (tmp_path / 'out').is_symlink()
    names = {file.name for file in (tmp_path / 'disk').iterdir()}
    assert names >= {'data.yaml', 'images', 'labels'} and '.partial' not in names


def test_json_that_is_something_else(command, photos, tmp_path):
    for form in ('coco-text', 'label-studio'):
        for content in ('[]', '{}', '[1]', 'x', '[' * 100_000, '{"imgs": {"1": 3}, "anns": {"1": []}}'):
            write(tmp_path / 'x.json', content)
            message = command(form, tmp_path / 'x.json')
            assert '\n' not in message and 'x.json' in message


def test_out_must_be_new_and_flags_must_fit(command, photos, tmp_path, capsys, monkeypatch):
    notes = icdar2015(tmp_path / 'notes')
    write(tmp_path / 'out' / 'mine.txt', 'x')
    assert 'exists already' in command('icdar2015', notes)
    assert [f.name for f in (tmp_path / 'out').iterdir()] == ['mine.txt']
    monkeypatch.chdir(tmp_path / 'notes')
    assert 'is the current folder' in command('icdar2015', notes, '--out', '.')
    assert 'no region is labelled blur' in command(
        'labelme', labelme(tmp_path / 'm'), '--ignore-label', 'blur', '--out', 'y'
    )
    for form, *flags in (
        ('icdar2015', '--ignore-label', 'x'),
        ('icdar2015', '--val', '1'),
        ('icdar2015', '--test', 'nan'),
        ('icdar2015', '--min-height', '-5'),
        ('icdar2015', '--min-height', 'nan'),
        ('icdar2015', '--test', '0.1', '--test-annotations', 'x'),
        ('icdar2015', '--test-images', 'x'),
        ('nothing',),
    ):
        with pytest.raises(SystemExit) as end:
            convert.parse_options(['--from', form, '--annotations', 'x', '--out', 'y', *flags])
        assert end.value.code == 2 and 'unrecognized' not in capsys.readouterr().err.splitlines()[-1]


def test_help_needs_no_torch():
    code = "import sys; sys.argv = ['x', '--help']\nimport data.convert as c\ntry: c.main()\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, check=False).returncode == 0


def doc_commands() -> list[list[str]]:
    """The commands of docs/own-data.md, in their order."""
    lines = (ROOT / 'docs' / 'own-data.md').read_text().splitlines()
    return [shlex.split(line) for line in lines if line.startswith('    python ')]


SHORT = ['--epochs', '1', '--imgsz', '96', '--workers', '0', '--device', 'cpu']  # the same commands, on a tiny set


SCRIPTS = {'data/convert.py', 'train.py', 'distill.py', 'val.py', 'teacher/pack.py', 'detect.py', 'export.py'}


@pytest.mark.parametrize('scripts', [{'data/convert.py'}, pytest.param(SCRIPTS, marks=pytest.mark.slow)])
def test_the_page_as_written(scripts, tmp_path):
    """Every command of docs/own-data.md, on rendered pictures with LabelMe files, in a folder of its own."""
    for entry in ROOT.iterdir():
        if entry.suffix == '.py' or entry.name in ('data', 'models', 'utils', 'recipes', 'weights'):
            (tmp_path / entry.name).symlink_to(entry)
    rendered = tmp_path / 'rendered'
    run_here('data/synthtext.py', '--out', rendered, '--train', 12, '--test', 1, '--size', '320x192')
    for file in (rendered / 'images' / 'train_icdar').iterdir():
        shapes = []
        for row in (rendered / 'gt' / 'train_icdar' / f'gt_{file.stem}.txt').read_text('utf-8-sig').splitlines():
            *corners, word = row.split(',', 8)
            label = 'unreadable' if word == '###' else 'word'
            shapes.append({'label': label, 'points': points([float(c) for c in corners]), 'shape_type': 'polygon'})
        (tmp_path / 'mypictures').mkdir(exist_ok=True)
        (tmp_path / 'mypictures' / file.name).write_bytes(file.read_bytes())
        content = {'imagePath': file.name, 'imageWidth': 320, 'imageHeight': 192, 'shapes': shapes}
        write(tmp_path / 'mypictures' / f'{file.stem}.json', content)

    seen = set()
    for _, script, *flags in doc_commands():
        seen.add(script)
        if script == 'export.py' or script not in scripts:
            continue  # tests/export/test_export.py
        short = {'train.py': SHORT, 'distill.py': SHORT, 'val.py': ['--imgsz', '96', '--workers', '0']}.get(script, [])
        short = [] if '--help' in flags else short
        result = run_here(script, *flags, *short, cwd=tmp_path)
        assert result.returncode == 0, (script, flags, result.stderr, result.stdout[-2000:])
    assert seen == SCRIPTS
    assert (tmp_path / 'runs/distill/my_student/weights/best.pt').is_file() == ('distill.py' in scripts)


@pytest.mark.parametrize(('turn', 'least', 'unread'), [(0, 63, False), (0, 65, True), (30, 63, False), (30, 65, True)])
def test_min_height_is_across_the_word(turn, least, unread):
    """A word of 20x8 pixels in a picture of 80x40 is 64 high at 640, however it is turned."""
    angle = np.radians(turn)
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    polygon = np.array([[0.0, 0], [20, 0], [20, 8], [0, 8]]) @ turned + 30
    region = convert.Region(polygon)
    assert convert.Unread(set(), least)(region, (80, 40)) == unread
    narrow = np.array([[30.0, 10], [34, 10], [34, 18], [30, 18]])  # a letter; without its side we know nothing else
    assert convert.Unread(set(), least)(convert.Region(narrow, is_box=True), (80, 40)) == (least > 64)
    assert convert.Unread(set(), least)(convert.Region(narrow), (80, 40))
    assert not convert.Unread(set())(region, (80, 40))


@pytest.mark.parametrize(('row', 'words'), [('0 1.6 .5 .1 .1', 'outside 0..1'), ('-3 .5 .5 .1 .1', 'class -3')])
def test_yolo_rows_of_another_kind(row, words, command, photos, tmp_path):
    notes = yolo(tmp_path / 'notes')
    write(notes / 'a.txt', f'{row}\n')
    printed = command('yolo', notes)
    assert 'skipped 1 picture' in printed and words in printed
