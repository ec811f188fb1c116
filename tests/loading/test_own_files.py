"""People's own files as training meets them: each kind with the right values, and counts that add up."""

import os
import re
import struct
import unicodedata
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from models.errors import UserError
from ocrdistill import files, images
from ocrdistill.errors import Unreadable
from ocrdistill.files import left_out, walk
from ocrdistill.images import pages, read_all, upright_rgb
from ocrdistill.inputs import to_image
from tests import inputs
from tests.support import run_script
from utils.loading.config import load_data_config
from utils.loading.dataset import TextDataset
from utils.loading.files import is_image, matching
from utils.loading.images import decode_with_opencv, probe_image, probe_orientation, read_image
from utils.loading.labels import find_companion, read_label_file
from utils.loading.listing import list_images
from utils.loading.polygons import polygon_areas
from utils.loading.rows import split_rows, unquoted

ROW = '0 0.5 0.5 0.2 0.1\n'


def dataset(yaml: Path, split: str = 'train') -> TextDataset:
    return TextDataset(load_data_config(yaml), split, 64)


# Files and folders


def test_walk_follows_links_and_leaves_hidden_parts_out(tmp_path):
    root, disk = tmp_path / 'images', tmp_path / 'disk2'
    for file in ('b/1.jpg', 'a.JPG', '.ipynb_checkpoints/a-checkpoint.jpg', '._a.jpg', 'b/.git/x.png', 'z.txt'):
        inputs.picture(root / 'x.png')
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes((root / 'x.png').read_bytes())
    (disk / 'deep').mkdir(parents=True)
    for name in ('m.jpg', 'deep/n.jpg'):
        (disk / name).write_bytes(b'x')
    (root / 'more').symlink_to(disk)
    (disk / 'back').symlink_to(root)  # a loop
    (root / '0').symlink_to(root / 'b')  # the same folder twice
    (root / 'nowhere.png').symlink_to(tmp_path / 'gone.png')
    (root / 'self.png').symlink_to(root / 'self.png')
    found = [file.relative_to(root).as_posix() for file in walk(root)]
    media = ['a.JPG', 'b/1.jpg', 'more/deep/n.jpg', 'more/m.jpg', 'nowhere.png', 'self.png', 'x.png']
    assert found == [*media, 'z.txt']
    assert [name for name in found if not is_image(Path(name))] == ['z.txt']


def test_what_is_left_out_is_counted_by_suffix(monkeypatch):
    monkeypatch.setattr(files, 'HAS_HEIF', False)
    assert left_out([]) == ''
    assert left_out(map(Path, ['a.pdf', 'b.PDF', 'c', 'd.svg'])) == 'left out: 2 .pdf, 1 .svg, 1 without a suffix'
    assert left_out([Path('a.HEIC')]) == 'left out: 1 .heic (to read HEIC images: pip install pillow-heif)'


def test_names_in_other_case_or_other_accents(tmp_path):
    nfd = unicodedata.normalize('NFD', 'Straße é.png')
    (tmp_path / 'Bilder').mkdir()
    (tmp_path / 'Bilder' / nfd).write_bytes(b'x')
    assert matching(tmp_path, 'bilder\\STRASSE \xe9.PNG').name == nfd
    assert matching(tmp_path, 'Bilder/none.png') is None
    (tmp_path / 'Bilder' / 'strasse \xe9.png').write_bytes(b'x')  # now two fit
    assert matching(tmp_path, 'bilder/STRASSE \xe9.PNG') is None
    assert matching(tmp_path, 'Bilder/strasse \xe9.png').name == 'strasse \xe9.png'


def test_files_of_every_suffix_are_trained_on_and_others_counted(tmp_path):
    yaml = inputs.data_set(tmp_path, {'a': ROW})
    folder = tmp_path / 'images/train'
    for suffix, form in (('jfif', 'JPEG'), ('jpe', 'JPEG'), ('avif', 'AVIF'), ('gif', 'GIF'), ('webp', 'WEBP')):
        Image.fromarray(inputs.pixels()).save(folder / f'{suffix}.{suffix}', format=form)
    for name in ('c.heic', 'd.pdf', 'e.PDF'):
        (folder / name).write_bytes(b'x')
    data = dataset(yaml)
    there = len(list(folder.iterdir()))
    assert len(data) == 6 and there == 6 + 3
    assert data.summary.splitlines()[-1].startswith('left out: 2 .pdf, 1 .heic')
    for index in range(6):
        height, width = read_image(data.files[index]).shape[:2]
        assert (width, height) == (60, 40) == tuple(data.sizes[index])


@pytest.mark.skipif(files.HAS_HEIF, reason='pillow-heif is installed')
def test_a_folder_of_heic_alone_names_what_reads_it(tmp_path):
    yaml = inputs.data_set(tmp_path, {'a': ROW})
    (tmp_path / 'images/train/a.png').rename(tmp_path / 'images/train/a.HEIC')
    with pytest.raises(UserError, match='no pictures .*left out: 1 .heic .*pip install pillow-heif'):
        list_images(load_data_config(yaml), 'train')
    (tmp_path / 'a.jpg').write_bytes(b'\0\0\0\x18ftypheic' + bytes(100))  # as phones send them
    with pytest.raises(Unreadable, match='pip install pillow-heif'):
        read_image(tmp_path / 'a.jpg')


def test_hidden_folders_and_linked_folders_of_a_data_set(tmp_path):
    yaml = inputs.data_set(tmp_path / 'set', {'a': ROW})
    inputs.data_set(tmp_path / 'disk2', {'b': ROW + '0 0.2 0.2 0.1 0.1\n'})
    folder = tmp_path / 'set/images/train'
    inputs.picture(folder / '.ipynb_checkpoints/a-checkpoint.png')
    (folder / 'more').symlink_to(tmp_path / 'disk2/images/train')  # its labels lie where the link leads to
    data = dataset(yaml)
    assert [file.relative_to(folder).as_posix() for file in data.files] == ['a.png', 'more/b.png']
    assert [len(rows) for rows in data.labels] == [1, 2]


def test_a_link_of_another_name_has_the_labels_of_its_file(tmp_path):
    """Also where a picture beside the link is called as that file."""
    inputs.data_set(tmp_path / 'pool', {'000123': ROW + '0 0.2 0.2 0.1 0.1\n'})
    yaml = inputs.data_set(tmp_path / 'subset', {'000123': ROW})
    (tmp_path / 'subset/images/train/000000.png').symlink_to(tmp_path / 'pool/images/train/000123.png')
    assert [len(rows) for rows in dataset(yaml).labels] == [2, 1]


def test_images_that_share_a_label_file_are_named(tmp_path):
    yaml = inputs.data_set(tmp_path, {'a': ROW, 'b': ROW, 'c': None})
    for name in ('a.jpg', 'c.jpg'):  # c has no labels that could be another's
        inputs.picture(tmp_path / 'images/train' / name)
    line = f'2 pictures share a label file with another: {tmp_path}/images/train/a.jpg and a.png'
    assert dataset(yaml).summary.splitlines()[-1] == line


def test_a_yaml_in_utf_16(tmp_path):
    yaml = inputs.data_set(tmp_path, {'a': ROW})
    yaml.write_bytes(yaml.read_text().encode('utf-16'))
    assert len(dataset(yaml)) == 1
    with pytest.raises(UserError, match='a folder, expected a yaml file'):
        load_data_config(tmp_path)


# Yamls and lists


def test_roboflow(tmp_path):
    yaml = inputs.roboflow(tmp_path / 'set')
    for split, count in (('train', 2), ('val', 1), ('test', 1)):
        data = dataset(yaml, split)
        assert len(data) == count and [len(rows) for rows in data.labels] == [1] * count


def test_cvat_yolo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = dataset(inputs.cvat_yolo(tmp_path / 'set'))
    assert [file.name for file in data.files] == ['a.png', 'b.png'] and [len(rows) for rows in data.labels] == [1, 1]


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-16-le'])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
def test_lists_of_other_machines(tmp_path, end, encoding):
    rows = [
        'images\\train\\a.png',
        'C:\\Users\\me\\set\\images\\train\\b.png',
        '/home/me/set/images/train/C.PNG',
        'no.png',
    ]
    yaml = f'path: {tmp_path}\ntrain: list.txt\nval: images\\train\nnames: [text]\n'
    file = inputs.data_set(tmp_path, dict.fromkeys('abc', ROW), yaml)
    (tmp_path / 'list.txt').write_bytes(end.join(rows).encode(encoding))
    data = dataset(file)
    assert [path.name for path in data.files] == ['a.png', 'b.png', 'c.png']
    assert 'skipped 1 broken or missing picture' in data.summary and 'no.png: missing' in data.summary
    assert len(dataset(file, 'val')) == 3


def test_labels_beside_images_in_a_folder_of_that_name(tmp_path):
    yaml = inputs.data_set(tmp_path, {'a': None, 'b': ROW})
    (tmp_path / 'images/train/a.txt').write_text(ROW * 1)
    data = dataset(yaml)
    assert [len(rows) for rows in data.labels] == [1, 1]
    assert 'left out' not in data.summary and '0 pictures without a label file' in data.summary


def test_label_files_in_other_case(tmp_path):
    inputs.picture(tmp_path / 'images/IMG_1.png')
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'labels/img_1.TXT').write_text(ROW)
    assert find_companion(tmp_path / 'images/IMG_1.png', 'labels') == tmp_path / 'labels/img_1.TXT'
    inputs.picture(tmp_path / 'images/img_1.png')  # it is this one's
    assert find_companion(tmp_path / 'images/IMG_1.png', 'labels') is None
    assert find_companion(tmp_path / 'images/img_1.png', 'labels') == tmp_path / 'labels/img_1.TXT'


def test_edge_weights_of_places(tmp_path):
    yaml = (
        f'path: {tmp_path}\ntrain: [images/train, list.txt]\nval: images/train\nnames: [text]\n'
        'edge_weight: {list.txt: 0.25}\n'
    )
    quad = '0 .1 .1 .4 .2 .4 .3 .1 .2\n'
    file = inputs.data_set(tmp_path, {'a': quad, 'b': f'{quad}{ROW}'}, yaml)
    inputs.data_set(tmp_path / 'more', {'c': quad})
    (tmp_path / 'list.txt').write_text('more/images/train/c.png\n')
    data = dataset(file)
    assert [a.edges()[:, 4].tolist() for a in data.annotations] == [[1], [1, 0], [0.25]]  # 0 of the box row
    for wrong, reason in (
        ('{images/test: 0.5}', "names 'images/test', which no split does"),
        ('{list.txt: 1.5}', 'list.txt is 1.5, expected a number from 0 to 1'),
        ('{list.txt: yes}', 'is True, expected a number'),
        ('{list.txt: .nan}', 'is nan, expected'),
        ('0.5', 'edge_weight is 0.5, expected rows'),
    ):
        file.write_text(yaml.replace('{list.txt: 0.25}', wrong))
        with pytest.raises(UserError, match=reason):
            load_data_config(file)


# Label rows


@pytest.mark.parametrize(
    ('row', 'reason'),
    [
        ('0 0.5 0.5 0.2 0.1 0.87', '6 columns, .*column 6 looks like a confidence'),
        ('0 .1 .1 .2 .1 .2 .2 .1 .2 .87', '10 columns, .*column 10 looks like a confidence'),
        ('0,0.5,0.5,0.2,0.1', 'it has commas'),
        ('text 0.5 0.5 0.2 0.1', "the class is 'text', expected its number"),
        ('0 0.5 0.5 0.2', '4 columns'),
        ('0 0.5 0.5 0 0', 'without area'),
    ],
)
def test_a_file_without_a_readable_row_is_no_picture_without_text(tmp_path, row, reason):
    yaml = inputs.data_set(tmp_path, {'a': ROW, 'b': f'{row}\n{row}\n', 'c': ''})
    data = dataset(yaml)
    assert [file.stem for file in data.files] == ['a', 'c']  # an empty file is a picture without text
    (line,) = [line for line in data.summary.splitlines() if line.startswith('skipped 1 picture whose labels')]
    assert 'none of its 2 rows can be used' in line
    assert re.search(reason, line)
    for name in 'ac':
        (tmp_path / f'labels/train/{name}.txt').write_text(f'{row}\n')
    with pytest.raises(UserError, match=f'none of the 3 pictures .*{reason}'):
        dataset(yaml)


def test_training_on_nothing_is_refused(tmp_path, capsys):
    yaml = inputs.data_set(tmp_path, {'a': '', 'b': '\n', 'c': '0 0.5 0.5 0.2 0.1 0.9\n'})
    with pytest.raises(UserError, match="nothing to train on, 'train' has 0 targets"):
        dataset(yaml)
    assert 'skipped 1 picture whose labels cannot be read' in capsys.readouterr().out
    assert len(dataset(yaml, 'val')) == 2


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32'])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
def test_any_line_end_and_encoding(tmp_path, end, encoding):
    rows = ['0 0.2 0.2 0.1 0.1', '0 0.5 0.5 0.1 0.1', '0 0.8 0.8 0.1 0.1']
    (tmp_path / 'a.txt').write_bytes(end.join([*rows, '']).encode(encoding))
    annotations, _, skipped, *_ = read_label_file(tmp_path / 'a.txt', 1)
    assert skipped == []
    expected = [(c - 0.05, c - 0.05, c + 0.05, c + 0.05) for c in (0.2, 0.5, 0.8)]
    np.testing.assert_allclose(annotations.boxes(), expected)


def test_rows_are_not_split_inside_words():
    assert split_rows('a\x0bb\x85c\u2028d\r\n\re\n') == ['a\x0bb\x85c\u2028d', '', 'e', '']


def test_one_pair_of_quotes_is_not_part_of_a_word():
    words = ('"###"', ' "a"b" ', '"', '""', 'a"b', '""x""')
    assert list(map(unquoted, words)) == ['###', 'a"b', '"', '', 'a"b', '"x"']


def test_a_box_and_its_corners_in_one_row(tmp_path):
    (tmp_path / 'a.txt').write_text('0 .5 .5 .4 .2  .3 .42 .68 .4 .7 .58 .32 .6\n')
    labels = read_label_file(tmp_path / 'a.txt', 1)
    np.testing.assert_allclose(labels.annotations.polygons, [[(0.3, 0.42), (0.68, 0.4), (0.7, 0.58), (0.32, 0.6)]])
    assert labels.skipped == [] and len(labels.notes) == 1 and 'two forms in one row' in labels.notes[0]
    six = '0 .1 .6 .3 .55 .5 .6 .5 .8 .3 .85 .1 .8\n'  # six corners indeed: a box of them would lie outside
    (tmp_path / 'a.txt').write_text(six)
    labels = read_label_file(tmp_path / 'a.txt', 1)
    assert labels.annotations.polygons.shape == (1, 6, 2) and labels.notes == labels.skipped == []
    # An arch, from the middle of its inner side: the first corner is among the last four, and no box fits the picture.
    (tmp_path / 'a.txt').write_text('0 .5 .4 .2 .9 .1 .9 .5 .1 .9 .9 .8 .9\n')
    labels = read_label_file(tmp_path / 'a.txt', 1)
    assert labels.annotations.polygons.shape == (1, 6, 2) and '13 columns are taken as six corners' in labels.notes[0]
    yaml = inputs.data_set(tmp_path / 'set', {'a': '0 .5 .5 .4 .2  .3 .4 .7 .4 .7 .6 .3 .6\n'})
    assert '1 remark: ' in dataset(yaml).summary


@pytest.mark.parametrize(
    'row',
    [
        '0 .5 .5 .1 .05  .3 .42 .68 .4 .7 .58 .32 .6',  # the box is too small: its centre lies in the quad
        '0 .7 .5 .4 .2  .1 .1 .2 .1 .2 .2 .1 .2',  # it lies elsewhere: edges of the six corners would cross
    ],
)
def test_a_box_and_corners_that_do_not_fit_it_are_no_six_corners(tmp_path, row):
    (tmp_path / 'a.txt').write_text(f'{ROW}{row}\n')
    labels = read_label_file(tmp_path / 'a.txt', 1)
    assert len(labels.annotations) == 1 and labels.skipped == [
        f'{tmp_path / "a.txt"}:2: two forms in one row, a box and four corners that do not fit it'
    ]
    # These could be both: beside a row that is a box and its corners they are no polygon, alone a line says it.
    both, fits = '0 .1 .1 .2 .1 .3 .1 .3 .2 .2 .2 .1 .2', '0 .5 .5 .4 .2  .3 .42 .68 .4 .7 .58 .32 .6'
    (tmp_path / 'a.txt').write_text(both)
    assert '13 columns are taken as six corners' in read_label_file(tmp_path / 'a.txt', 1).notes[0]
    (tmp_path / 'a.txt').write_text(f'{both}\n{fits}\n')
    labels = read_label_file(tmp_path / 'a.txt', 1)
    assert labels.annotations.polygons.shape == (1, 4, 2) and ':1: two forms in one row' in labels.skipped[0]


def test_corners_row_by_row_are_put_in_order(tmp_path):
    around = [(0.1, 0.1), (0.5, 0.2), (0.5, 0.4), (0.1, 0.3)]
    for order in ((0, 1, 3, 2), (0, 2, 1, 3)):
        (tmp_path / 'a.txt').write_text('0 ' + ' '.join(f'{v}' for i in order for v in around[i]) + '\n')
        labels = read_label_file(tmp_path / 'a.txt', 1)
        assert 'edges cross' in labels.notes[0]
        assert polygon_areas(labels.annotations.polygons)[0] == pytest.approx(0.4 * 0.2)  # a parallelogram's
    (tmp_path / 'a.txt').write_text('0 ' + ' '.join(f'{v}' for corner in around for v in corner) + '\n')
    assert read_label_file(tmp_path / 'a.txt', 1).notes == []


@pytest.mark.parametrize(
    'row', ['.1 .1 .5 .1 .5 .3 .5 .3', '.5 .3 .1 .1 .5 .1 .5 .3', '.1 .1 .1 .1 .5 .1 .5 .3', '.1 .1 .5 .1 .5 .3']
)
def test_four_corners_of_which_two_are_one_are_three(tmp_path, row):
    (tmp_path / 'a.txt').write_text(f'0 {row}\n')
    found = read_label_file(tmp_path / 'a.txt', 1)
    corners = found.annotations.polygon_list(1, 1)
    assert sorted(corners[0].flatten().tolist()) == pytest.approx([0.1, 0.1, 0.1, 0.3, 0.5, 0.5])
    assert len(found.notes) == (row.count(' ') == 7) and all('two at one point' in note for note in found.notes)


def test_confidences_are_left_out_where_asked_for(tmp_path):
    (tmp_path / 'a.txt').write_text('0 0.5 0.5 0.2 0.1 0.87\n0 .1 .1 .2 .1 .2 .2 .1 .2 .5\n0 .5 .5 .2 .1 7\n')
    labels = read_label_file(tmp_path / 'a.txt', 1, confidences=True)
    np.testing.assert_allclose(labels.annotations.boxes(), [(0.4, 0.45, 0.6, 0.55), (0.1, 0.1, 0.2, 0.2)])
    assert len(labels.skipped) == 1 and ':3: 6 columns' in labels.skipped[0]


# Images


PLACES = {1: 'top left', 3: 'bottom right', 6: 'top right', 8: 'bottom left'}


@pytest.mark.parametrize('form', ['attribute', 'quoted', 'element'])
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif', 'avif'])
@pytest.mark.parametrize('orientation', [3, 6])
def test_orientation_in_xmp_alone(tmp_path, suffix, orientation, form):
    packet = inputs.xmp(orientation, form)
    options = {'xmp': packet}
    if suffix == 'png':
        from PIL.PngImagePlugin import PngInfo

        options = {'pnginfo': PngInfo()}
        options['pnginfo'].add_itxt('XML:com.adobe.xmp', packet.decode())
    if suffix == 'tif':
        options = {'tiffinfo': {700: packet}}
    file = inputs.picture(tmp_path / f'a.{suffix}', **options)
    image = read_image(file)
    assert inputs.red_quarter(image) == PLACES[orientation]
    assert image.shape[1::-1] == probe_image(file) == ((40, 60) if orientation == 6 else (60, 40))
    assert probe_orientation(file) == orientation


def test_exif_comes_before_xmp_and_a_block_without_one_does_not_count(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = 'a description'
    file = inputs.picture(tmp_path / 'a.jpg', exif=exif, xmp=inputs.xmp(6, 'attribute'))
    assert inputs.red_quarter(read_image(file)) == 'top right' and probe_image(file) == (40, 60)
    exif[0x0112] = 3
    file = inputs.picture(tmp_path / 'b.jpg', exif=exif, xmp=inputs.xmp(6, 'attribute'))
    assert inputs.red_quarter(read_image(file)) == 'bottom right' and probe_image(file) == (60, 40)


def test_a_tiff_is_turned_once(tmp_path):
    """Pillow turns it as its tag says and leaves forms of XMP that it does not know."""
    file = inputs.picture(tmp_path / 'a.tif', tiffinfo={274: 6, 700: inputs.xmp(6, 'quoted')})
    assert inputs.red_quarter(read_image(file)) == 'top right' and probe_image(file) == (40, 60)
    with Image.open(file) as image:
        assert inputs.red_quarter(upright_rgb(image)) == 'top right'


@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_grey_tiff_that_lies_on_its_side_is_not_mapped_into_memory(tmp_path, orientation):
    """Pillow does so with an uncompressed one whose name it knows, and scrambles its rows."""
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    Image.fromarray(grey).save(tmp_path / 'a.tif', tiffinfo={274: orientation})
    with Image.open(tmp_path / 'a.tif') as image:
        found = upright_rgb(image)
        assert image.filename == str(tmp_path / 'a.tif')
    assert np.array_equal(found, read_image(tmp_path / 'a.tif'))
    assert sorted(found[..., 0].ravel()) == sorted(grey.ravel())


def test_a_name_of_bytes_is_a_name(tmp_path):
    with Image.open(os.fsencode(inputs.picture(tmp_path / 'a.png'))) as image:
        assert upright_rgb(image).shape == (40, 60, 3)


def test_a_png_with_broken_pixels_is_refused_in_every_form(tmp_path):
    file = inputs.picture(tmp_path / 'a.png', (600, 400))
    content = bytearray(file.read_bytes())
    at = content.index(b'IDAT') + 60
    content[at : at + 400] = b'\xff' * 400
    file.write_bytes(content)
    for image in (file, bytes(content), Image.open(file)):
        with pytest.raises(UserError):
            to_image(image)
    with pytest.raises(Unreadable):
        read_image(file)


def test_xmp_behind_the_pixels_of_a_png(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = 'a description'
    file = inputs.picture(tmp_path / 'a.png', exif=exif)
    text = b'XML:com.adobe.xmp\0\0\0\0\0' + inputs.xmp(6, 'attribute')
    chunk = struct.pack('>I', len(text)) + b'iTXt' + text + struct.pack('>I', zlib.crc32(b'iTXt' + text))
    content = file.read_bytes()
    file.write_bytes(content.replace(content[-12:], chunk + content[-12:]))
    assert inputs.red_quarter(read_image(file)) == inputs.red_quarter(to_image(file.read_bytes())) == 'top right'


@pytest.mark.parametrize('tags', [{274: 6}, {700: inputs.xmp(6, 'attribute')}, {274: 6, 700: inputs.xmp(6, 'quoted')}])
def test_a_tiff_of_16_bit_colours_is_turned_once(tmp_path, tags):
    file = tmp_path / 'a.tif'
    cv2.imwrite(str(file), inputs.pixels()[..., ::-1].astype(np.uint16) * 257)
    file.write_bytes(with_tags(file.read_bytes(), tags))
    assert inputs.red_quarter(read_image(file)) == 'top right' and probe_image(file) == (40, 60)


def with_tags(tiff: bytes, tags: dict[int, int | bytes]) -> bytes:
    """A TIFF of one page (little-endian) with more tags: a new directory at its end."""
    (start,) = struct.unpack('<I', tiff[4:8])
    (count,) = struct.unpack('<H', tiff[start : start + 2])
    entries = [tiff[start + 2 + 12 * number :][:12] for number in range(count)]
    for tag, value in tags.items():
        if isinstance(value, bytes):
            entries.append(struct.pack('<HHII', tag, 1, len(value), len(tiff)))
            tiff += value
        else:
            entries.append(struct.pack('<HHII', tag, 3, 1, value))
    entries.sort(key=lambda entry: struct.unpack('<H', entry[:2]))
    directory = struct.pack('<H', len(entries)) + b''.join(entries) + bytes(4)
    return tiff[:4] + struct.pack('<I', len(tiff)) + tiff[8:] + directory


@pytest.mark.parametrize(('kind', 'right'), [(0, 200), (2, 255)])  # anything; alpha
def test_a_fourth_channel_of_16_bits_counts_where_it_is_alpha(tmp_path, kind, right):
    values = np.full((4, 6, 4), 200 * 257, np.uint16)
    values[:, 3:, 3], values[:, :3, 3] = 0, 65535
    cv2.imwrite(str(tmp_path / 'a.tif'), values)
    content = with_tags((tmp_path / 'a.tif').read_bytes(), {338: kind})
    (tmp_path / 'a.tif').write_bytes(content)
    for image in (read_image(tmp_path / 'a.tif'), to_image(tmp_path / 'a.tif'), to_image(content)):
        assert image[0, :, 1].tolist() == [200] * 3 + [right] * 3


@pytest.mark.parametrize('big', [False, True])
def test_16_bit_grey_with_alpha_in_a_tiff_is_refused(tmp_path, big):
    """Of which OpenCV reads the grey alone; made from one of 8 bits and twice the width."""
    file, form = tmp_path / 'a.tif', '<HHQ' if big else '<HHI'
    Image.new('LA', (12, 4)).save(file, big_tiff=big)
    content = file.read_bytes()
    for tag, kind, before, after in ((256, 4, (12,), (6,)), (258, 3, (8, 8), (16, 16))):
        head, rest = struct.pack(form, tag, kind, len(before)), '<' + 'HL'[kind == 4] * len(before)
        assert head + struct.pack(rest, *before) in content
        content = content.replace(head + struct.pack(rest, *before), head + struct.pack(rest, *after))
    file.write_bytes(content)
    assert cv2.imread(str(file), cv2.IMREAD_UNCHANGED).shape == (4, 6)
    for read in (read_image, probe_image, images.read_image):
        with pytest.raises(Unreadable, match='no image, or of an unknown format'):
            read(file)


def test_training_sees_what_the_reader_sees(tmp_path):
    yaml = inputs.data_set(tmp_path, {'a': ROW})
    (tmp_path / 'images/train/a.png').unlink()
    inputs.picture(tmp_path / 'images/train/a.jpg', xmp=inputs.xmp(6, 'attribute'))
    data = dataset(yaml)
    assert tuple(data.sizes[0]) == (40, 60)
    assert inputs.red_quarter(data.example(0)[0]) == 'top right'


@pytest.mark.parametrize('suffix', ['png', 'tif'])
@pytest.mark.parametrize('colour', [False, True])
@pytest.mark.parametrize(('top', 'white'), [(4095, 255), (1023, 255), (65535, 255), (40000, 156), (255, 255)])
def test_values_of_few_bits_are_stretched(tmp_path, capsys, suffix, colour, top, white):
    images._said.clear()
    file = inputs.few_bits(tmp_path / f'a.{suffix}', top, colour)
    image = read_image(file)
    expected = np.linspace(0, white, 64)
    assert image.shape == (32, 64, 3) and probe_image(file) == (64, 32)
    assert abs(image[0, :, 0] - expected).max() <= 1 and (image == image[..., :1]).all()
    read_image(file)
    assert capsys.readouterr().err.count('a.') == (top < 2**14)  # said once


def test_pages(tmp_path):
    frames = [Image.new('RGB', (20, 10), colour) for colour in ('red', 'lime', 'blue')]
    for suffix in ('tif', 'gif', 'webp', 'png'):
        file = tmp_path / f'a.{suffix}'
        frames[0].save(
            file, save_all=True, append_images=frames[1:], **({'lossless': True} if suffix == 'webp' else {})
        )
        assert pages(file) == [0, 1, 2]
        assert [read_image(file, page)[5, 10].argmax() for page in pages(file)] == [0, 1, 2]
        for number, image in read_all(file, decode_with_opencv):  # opened once
            assert (image == read_image(file, number)).all()
    assert pages(inputs.picture(tmp_path / 'one.jpg')) == [0]
    yaml = inputs.data_set(tmp_path / 'set', {'a': ROW})
    (tmp_path / 'set/images/train/a.png').unlink()
    (tmp_path / 'a.tif').rename(tmp_path / 'set/images/train/a.tif')
    assert 'a.tif: the first of its 3 pages is used' in dataset(yaml).summary


def test_the_command_says_it_too(tmp_path):
    yaml = inputs.data_set(tmp_path, dict.fromkeys('abc', '0 0.5 0.5 0.2 0.1 0.87\n'))
    done = run_script('train.py', '--data', yaml, '--epochs', 1, '--project', tmp_path / 'runs')
    assert done.returncode == 1 and 'column 6 looks like a confidence' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not list(tmp_path.rglob('*.pt'))


def test_a_folder_that_cannot_be_listed(tmp_path):
    with pytest.raises(UserError, match='cannot be listed'):
        walk(tmp_path / 'none')
    if os.geteuid():  # root may list everything
        (tmp_path / 'shut').mkdir(mode=0)
        with pytest.raises(UserError, match='Permission denied'):
            walk(tmp_path)


@pytest.mark.parametrize('labels', ['Labels', 'labels', 'LABELS'])
def test_folders_in_another_case(tmp_path, labels):
    """Images and Labels, as Windows and label tools write them, beside a yaml that says images."""
    yaml = inputs.data_set(tmp_path, {'a': '0 0.5 0.5 0.2 0.1\n', 'b': '0 0.5 0.5 0.2 0.1\n'})
    (tmp_path / 'images').rename(tmp_path / 'Images')
    (tmp_path / 'labels').rename(tmp_path / labels)
    assert dataset(yaml).summary.startswith("train: 2 pictures, 2 targets, 0 don't-care regions, 0 pictures without")


def test_tiffs_with_a_thumbnail_first_or_with_white_as_zero(tmp_path):
    file = inputs.with_thumbnail(tmp_path / 'scan.tif', Image.new('L', (60, 40), 100))
    assert pages(file) == [1] and probe_image(file) == (60, 40)
    assert read_image(file).shape == (40, 60, 3) and to_image(str(file)).shape == (40, 60, 3)
    assert to_image(file.read_bytes()).shape == (40, 60, 3)

    values = np.array([[0, 30_000, 65_535]], np.uint16)
    Image.fromarray(values).save(tmp_path / 'grey.tif', tiffinfo={262: 0})
    assert read_image(tmp_path / 'grey.tif')[0, :, 0].tolist() == [255, 138, 0]


def test_a_broken_exif_spoils_no_picture(tmp_path):
    for suffix in ('png', 'jpg', 'webp'):
        Image.new('RGB', (6, 4), 'red').save(tmp_path / f'a.{suffix}', exif=b'Exif\0\0nonsense of no TIFF')
        assert read_image(tmp_path / f'a.{suffix}').shape == (4, 6, 3)
        assert probe_image(tmp_path / f'a.{suffix}') == (6, 4)


def test_a_small_polygon_of_six_corners_is_no_box_with_corners(tmp_path):
    small = '0 .008 .010 .018 .010 .026 .010 .026 .018 .017 .018 .008 .018'
    (tmp_path / 'a.txt').write_text(f'{small}\n0 .1 .1 .2 .1 .3 .1 .3 .2 .2 .2 .1 .2\n')
    labels = read_label_file(tmp_path / 'a.txt', 1)
    assert labels.annotations.polygons.shape == (2, 6, 2) and not labels.skipped


def test_four_corners_at_one_point_have_no_area(tmp_path):
    (tmp_path / 'a.txt').write_text(f'{ROW}0 .5 .5 .5 .5 .5 .5 .5 .5\n')
    assert read_label_file(tmp_path / 'a.txt', 1).skipped == [f'{tmp_path / "a.txt"}:2: a region without area']
