"""Dataset: labels, the data yaml, batches, and what is skipped or refused; on small pictures made here."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from models.errors import UserError
from ocrdistill import images
from tests.support import ROOT
from utils.boxes import xywh_to_xyxy
from utils.loading import cache
from utils.loading.batches import EpochBatches, collate
from utils.loading.config import load_data_config
from utils.loading.dataset import TextDataset
from utils.loading.images import load_image, probe_image
from utils.loading.labels import companion_file, read_label_file
from utils.loading.listing import list_images, shared_images
from utils.loading.loader import BatchLoader, WorkerDied, build_loader
from utils.runtime.hyp import DEFAULTS, RANGES, check_hyp, load_hyp

SIZES = [(160, 90), (90, 160), (128, 128), (200, 60), (64, 100), (150, 100), (320, 180)]
WILD = {'degrees': 20, 'perspective': 0.0005, 'shear': 5, 'mixup': 0.3, 'mosaic': 0.7, 'flipud': 0.5}


def make_data(folder, sizes=SIZES, yaml='', images='images/train'):
    """A dataset of noise pictures; each has a box row, a polygon row and a don't-care quad. Returns its config."""
    for kind in ('images', 'labels', 'ignore'):
        (folder / kind / 'train').mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(1)
    for number, (width, height) in enumerate(sizes):
        image = cv2.resize(generator.integers(0, 256, (9, 16, 3), np.uint8), (width, height))
        cv2.imwrite(str(folder / f'images/train/p{number}.jpg'), image)
        rows = '0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.4 0.1 0.4 0.3\n'
        (folder / f'labels/train/p{number}.txt').write_text(rows)
        (folder / f'ignore/train/p{number}.txt').write_text('0 0.6 0.7 0.9 0.7 0.9 0.9 0.6 0.9\n')
    text = yaml or f'path: {folder}\ntrain: {images}\nval: images/train\nnames: [text, sign]\nprepare: make data\n'
    (folder / 'data.yaml').write_text(text)
    return load_data_config(folder / 'data.yaml')


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path)


def same(first, second):
    """Whether two batches or samples hold the same values."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


# Label files


def write_rows(folder, text, encoding='utf-8'):
    file = folder / 'rows.txt'
    file.write_text(text, encoding)
    return file


def test_both_label_forms(tmp_path):
    file = write_rows(tmp_path, '0 0.5 0.4 0.2 0.4\n\n1 .1 .1 .3 .2 .2 .4\n2.0 0 0 1 0 1 1 0 1\n', 'utf-8-sig')
    annotations, _, skipped, *_ = read_label_file(file, 3)
    assert skipped == []
    assert annotations.classes.tolist() == [0, 1, 2]
    np.testing.assert_allclose(annotations.boxes(), [(0.4, 0.2, 0.6, 0.6), (0.1, 0.1, 0.3, 0.4), (0, 0, 1, 1)])
    np.testing.assert_allclose(annotations.rows(1, 1)[1], (1, 0.2, 0.25, 0.2, 0.3), rtol=1e-6)
    assert [len(polygon) for polygon in annotations.polygon_list(1, 1)] == [4, 3, 4]


@pytest.mark.parametrize(
    ('row', 'reason'),
    [
        ('0 a 0.5 0.1 0.1', 'not a row of numbers'),
        ('0 nan 0.5 0.1 0.1', 'not finite'),
        ('0 inf 0.5 0.1 0.1', 'not finite'),
        ('0 0.5 0.5 0.1', '4 columns'),
        ('0 0.5 0.5 0.1 0.1 0.9', '6 columns'),
        ('0 .1 .1 .3 .1 .3 .3 .2', '8 columns'),
        ('0.5 0.5 0.5 0.1 0.1', 'not a whole number'),
        ('0 0.5 0.5 0 0.1', 'without area'),
        ('0 .1 .1 .2 .2 .3 .3', 'without area'),
        ('0 0.2 0.2 0.1 0.1', 'repeats'),
        ('\ufffd\ufffd', 'not a row of numbers'),
    ],
)
def test_malformed_rows_are_skipped_and_named(tmp_path, row, reason):
    annotations, _, skipped, *_ = read_label_file(
        write_rows(tmp_path, f'0 0.2 0.2 0.1 0.1\n{row}\n0 0.8 0.8 0.1 0.1\n'), 1
    )
    assert len(annotations) == 2
    assert len(skipped) == 1 and 'rows.txt:2' in skipped[0] and reason in skipped[0]


@pytest.mark.parametrize(
    ('row', 'reason'),
    [
        ('0 320 200 50 20', 'outside 0..1'),
        ('0 -0.06 0.5 0.1 0.1', 'outside 0..1'),
        ('0 .5 .5 -.02 .1', 'outside 0..1'),
        ('0 .1 .1 1.06 .1 .3 .3', '1.06 is outside 0..1'),
        ('2 0.5 0.5 0.1 0.1', 'class 2'),
        ('-1 0.5 0.5 0.1 0.1', 'class -1'),
    ],
)
def test_rows_of_other_units_or_classes_are_refused(tmp_path, row, reason):
    with pytest.raises(UserError, match=reason) as error:
        read_label_file(write_rows(tmp_path, f'0 0.2 0.2 0.1 0.1\n{row}\n'), 2)
    assert 'rows.txt:2' in str(error.value) and '\n' not in str(error.value)


def test_rounding_is_clamped_and_boxes_are_cut_at_the_border(tmp_path):
    file = write_rows(tmp_path, '0 -0.00005 .1 .3 1.00005 .2 .4\n0 0.95 0.5 0.2 0.2\n')
    annotations, _, skipped, *_ = read_label_file(file, 1)
    assert skipped == []
    assert annotations.polygons.min() == 0 and annotations.polygons.max() == 1
    np.testing.assert_allclose(annotations.boxes()[1], (0.85, 0.4, 1, 0.6))


def test_companion_files():
    image = Path('/images/set/images/train/img_1.jpg')
    assert companion_file(image, 'labels') == Path('/images/set/labels/train/img_1.txt')
    assert companion_file(image, 'ignore') == Path('/images/set/ignore/train/img_1.txt')
    assert companion_file(image, 'gt') == Path('/images/set/gt/train/gt_img_1.txt')
    assert companion_file(Path('a/b.png'), 'labels') == Path('a/b.txt')
    assert companion_file(Path('a/images'), 'labels') == Path('a/images.txt')
    assert companion_file(Path('a/b.png'), 'ignore') is None


# The data yaml


@pytest.mark.parametrize('name', ['ICDAR', 'ICDAR_100', 'ICDAR_300', 'ICDAR_published', 'demo', 'demo_small'])
def test_shipped_data_yamls(name):
    data = load_data_config(ROOT / f'data/{name}.yaml')
    assert data.names == {0: 'text'} and data.nc == 1
    assert data.dont_care == ('text' if name == 'ICDAR_published' else 'ignore')
    assert set(data.splits) == {'train', 'val', 'test'} and data.prepare.startswith('python data/')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('path: a\ntrain: [b\nval: c\n', 'line 3'),
        ('- a\n- b\n', 'name: value'),
        ('path: .\ntrain: a\nval: a\nname: [text]\n', "unknown key 'name', did you mean 'names'"),
        ('path: .\ntrain: a\nnames: [text]\n', "'val' is missing"),
        ('path: .\ntrain: a\nval: 3\nnames: [text]\n', 'val is 3'),
        ('path: .\ntrain: a\nval: a\nnames: [text]\nnc: 2\n', 'nc is 2, but names has 1'),
        ('path: .\ntrain: a\nval: a\nnames: {1: text}\n', 'expected 0 to 0'),
        ('path: .\ntrain: a\nval: a\nnames: text\n', 'expected a list'),
        ('path: .\ntrain: a\nval: a\nnames: [text]\ndont_care: skip\n', "dont_care is 'skip'"),
        ("path: .\ntrain: ['']\nval: a\nnames: [text]\n", "train is [''], expected a folder"),
        ('path: .\ntrain: a\nval: a\nnames: [text]\ntake: 0\n', 'take is 0, expected how many'),
        ('path: .\ntrain: a\nval: a\nnames: [text]\ntake: few\n', "take is 'few'"),
    ],
)
def test_bad_data_yamls(tmp_path, text, message):
    (tmp_path / 'bad.yaml').write_text(text)
    with pytest.raises(UserError, match='bad.yaml') as error:
        load_data_config(tmp_path / 'bad.yaml')
    assert message in str(error.value)


@pytest.mark.parametrize('test', ['[]', "''", ''])
def test_an_empty_split_is_none(tmp_path, test):
    (tmp_path / 'd.yaml').write_text(f'path: .\ntrain: a\nval: a\ntest: {test}\nnames: [text]\n')
    assert 'test' not in load_data_config(tmp_path / 'd.yaml').splits


def test_missing_data_yaml(tmp_path):
    with pytest.raises(UserError, match='none.yaml: no such file'):
        load_data_config(tmp_path / 'none.yaml')


def test_relative_data_path_prefers_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / 'd.yaml').write_text('path: here\ntrain: a\nval: a\nnames: [text]\n')
    monkeypatch.chdir(tmp_path)
    assert load_data_config('d.yaml').path == ROOT / 'here'
    (tmp_path / 'here').mkdir()
    assert load_data_config('d.yaml').path.resolve() == tmp_path / 'here'


def test_a_dot_is_the_folder_that_has_the_data(tmp_path, monkeypatch):
    """'path: .' is the current directory if a split lies there, else the program's folder if one lies there."""
    (tmp_path / 'd.yaml').write_text('path: .\ntrain: [a, data]\nval: b\nnames: [text]\n')
    monkeypatch.chdir(tmp_path)
    assert load_data_config('d.yaml').path == ROOT  # which has a folder data
    (tmp_path / 'b').mkdir()
    assert load_data_config('d.yaml').path.resolve() == tmp_path
    (tmp_path / 'd.yaml').write_text('path: .\ntrain: nowhere\nval: nowhere\nnames: [text]\n')
    assert load_data_config('d.yaml').path.resolve() == tmp_path


def test_missing_data_names_the_command_that_makes_it(tmp_path):
    text = 'path: {}\ntrain: {}\nval: a\nnames: [text]\nprepare: python make.py --out x\n'
    (tmp_path / 'empty').mkdir()
    for path, train, message in (
        (tmp_path / 'none', 'a', 'does not exist'),
        (tmp_path, 'none', 'neither'),
        (tmp_path, 'empty', 'no pictures'),
    ):
        (tmp_path / 'd.yaml').write_text(text.format(path, train))
        with pytest.raises(UserError, match=message) as error:
            TextDataset(load_data_config(tmp_path / 'd.yaml'), 'train', 64)
        assert 'python make.py --out x' in str(error.value)
    with pytest.raises(UserError, match="no split 'test'"):
        TextDataset(load_data_config(tmp_path / 'd.yaml'), 'test', 64)


def test_lists_folders_and_repeats(tmp_path):
    make_data(tmp_path)
    (tmp_path / 'list.txt').write_text('./images/train/p3.jpg\n\nimages/train/p1.jpg\nimages/train/p3.jpg\n')
    text = f'path: {tmp_path}\ntrain: [list.txt, images]\nval: list.txt\nnames: [text, sign]\n'
    data = make_data(tmp_path, yaml=text)
    assert [file.name for file in TextDataset(data, 'val', 64).files] == ['p3.jpg', 'p1.jpg']
    names = [file.stem for file in TextDataset(data, 'train', 64).files]
    assert names == ['p3', 'p1', 'p0', 'p2', 'p4', 'p5', 'p6']


def test_a_part_of_train_spread_evenly(tmp_path):
    (tmp_path / 'val.txt').write_text('images/train/p6.jpg\n')
    text = f'path: {tmp_path}\ntrain: images\nval: val.txt\nnames: [text, sign]\ntake: '
    data = make_data(tmp_path, yaml=text + '3')
    dataset = TextDataset(data, 'train', 64, unlabelled=tmp_path / 'images')
    assert [file.stem for file in dataset.files[: dataset.labelled]] == ['p0', 'p2', 'p4']  # 0, 7 / 3, 14 / 3
    assert [file.stem for file in dataset.files[dataset.labelled :]] == ['p1', 'p3', 'p5'], 'without those of val'
    assert 'takes 3 of 7 pictures' in dataset.summary and 'left out' in dataset.summary
    assert len(TextDataset(data, 'val', 64).files) == 1
    assert len(list_images(make_data(tmp_path, yaml=text + '7'), 'train')) == 7
    with pytest.raises(UserError, match='take is 8, and train has 7 pictures'):
        list_images(make_data(tmp_path, yaml=text + '8'), 'train')


# What is skipped, and what is refused


def test_broken_and_missing_pictures_are_skipped_counted_and_named(tmp_path):
    make_data(tmp_path)
    folder = tmp_path / 'images/train'
    whole = (folder / 'p0.jpg').read_bytes()
    (folder / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
    (folder / 'empty.jpg').write_bytes(b'')
    (folder / 'words.png').write_text('this is no picture')
    (folder / 'trailer.jpg').write_bytes(whole + b'camera makers append data')  # whole all the same
    Image.open(folder / 'p0.jpg').save(folder / 'background.png')
    (tmp_path / 'labels/train/p2.txt').write_text('0 0.5 0.5 0.25 0.5\n0 0.5 0.5\n')
    rows = [*sorted(f'images/train/{file.name}' for file in folder.iterdir()), 'images/train/gone.jpg']
    (tmp_path / 'list.txt').write_text('\n'.join(rows))
    text = f'path: {tmp_path}\ntrain: list.txt\nval: list.txt\nnames: [text, sign]\n'
    dataset = TextDataset(make_data_config(tmp_path, text), 'train', 64)
    assert len(dataset) == len(SIZES) + 2
    first, broken, rows = dataset.summary.splitlines()
    assert first == (
        "train: 9 pictures, 13 targets, 7 don't-care regions, 2 pictures without a label file (background)"
    )
    assert broken.startswith('skipped 4 broken or missing pictures: ') and 'gone.jpg: missing' in broken
    assert all(f'{name}: broken' in broken for name in ('cut.jpg', 'empty.jpg', 'words.png'))
    assert rows.startswith('skipped 1 bad label row: ') and 'p2.txt:2: 3 columns' in rows
    background = dataset[0, [file.name for file in dataset.files].index('background.png')]
    assert len(background.annotations) == 0


def make_data_config(folder, text):
    (folder / 'data.yaml').write_text(text)
    return load_data_config(folder / 'data.yaml')


def test_datasets_without_usable_pictures_or_labels_are_refused(tmp_path, data):
    (tmp_path / 'labels').rename(tmp_path / 'elsewhere')
    with pytest.raises(UserError, match='has a label file') as error:
        TextDataset(data, 'train', 64)
    assert str(Path('labels/train/p0.txt')) in str(error.value)
    for file in (tmp_path / 'images/train').iterdir():
        file.write_bytes(b'')
    with pytest.raises(UserError, match='none of the 7 pictures'):
        TextDataset(data, 'train', 64)


def test_bad_arguments(data):
    for options, message in (
        ({'imgsz': 100}, 'multiple of 32'),
        ({'imgsz': 64, 'seed': -1}, 'seed is -1'),
        ({'imgsz': 64, 'hyp': {'degres': 3}}, "did you mean 'degrees'"),
    ):
        with pytest.raises(UserError, match=message):
            TextDataset(data, 'train', **options)


@pytest.mark.parametrize('workers', [0, 1])
def test_a_picture_that_vanishes_is_named_in_one_line(tmp_path, data, workers):
    dataset = TextDataset(data, 'train', 64)
    (tmp_path / 'images/train/p3.jpg').unlink()
    with pytest.raises(UserError, match=r'^/\S+p3\.jpg: the picture cannot be read') as error:
        list(build_loader(dataset, 2, workers))
    assert '\n' not in str(error.value) and 'Traceback' not in str(error.value)
    del error  # it holds this frame, which holds it: such a cycle makes the workers' end slow


def test_systems_without_sigchld_load_in_processes(data, monkeypatch):
    there = {name: value for name, value in vars(signal).items() if name != 'SIGCHLD'}
    monkeypatch.setattr('utils.loading.loader.signal', types.SimpleNamespace(**there))
    dataset = TextDataset(data, 'train', 64)
    assert same(list(build_loader(dataset, 2)), list(build_loader(dataset, 2, workers=1)))


def test_a_temporary_folder_with_a_long_name_is_refused(data, monkeypatch):
    dataset = TextDataset(data, 'train', 64)
    monkeypatch.setattr('tempfile.tempdir', '/tmp/' + 'x' * 80)
    build_loader(dataset, 2)
    with pytest.raises(UserError, match='too long a name: set TMPDIR'):
        build_loader(dataset, 2, workers=1)


def test_a_batch_whose_worker_dies_before_it_is_fetched(data, monkeypatch):
    loader = build_loader(TextDataset(data, 'train', 64), 2, workers=1)
    batches = iter(loader)
    next(batches)
    inner = loader._iterator
    deadline = time.monotonic() + 120
    while inner._worker_result_queue.empty() and time.monotonic() < deadline:
        time.sleep(0.01)
    (worker,) = inner._workers
    worker.kill()
    worker.join()
    # The connection ends a moment before the process counts as dead: torch still finds it alive.
    monkeypatch.setattr(worker, 'is_alive', lambda: True)
    monkeypatch.setattr(worker, 'terminate', lambda: None)
    with pytest.raises(WorkerDied, match='was killed'):
        next(batches)
    assert len(list(loader)) == 4


def test_a_pinning_thread_that_ends_is_a_dead_worker(data, monkeypatch):
    def pinning(_):
        yield 'a batch'
        raise RuntimeError('Pin memory thread exited unexpectedly')

    monkeypatch.setattr(BatchLoader, '_from_workers', pinning)
    batches = iter(build_loader(TextDataset(data, 'train', 64), 2, workers=1))
    assert next(batches) == 'a batch'
    with pytest.raises(WorkerDied):
        next(batches)


def test_a_picture_that_changes_is_refused(tmp_path, data):
    dataset = TextDataset(data, 'train', 64)
    cv2.imwrite(str(tmp_path / 'images/train/p0.jpg'), np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(UserError, match='has changed'):
        dataset[0, 0]


# Samples and batches


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif'])
@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_exif_orientation(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new('RGB', (60, 40)).save(tmp_path / f'a.{suffix}', exif=exif)
    image = load_image(tmp_path / f'a.{suffix}')
    assert probe_image(tmp_path / f'a.{suffix}') == (image.shape[1], image.shape[0])
    if suffix == 'jpg':
        assert image.shape[:2] == ((60, 40) if orientation > 4 else (40, 60))


@pytest.mark.parametrize('mode', ['L', 'P', 'CMYK', 'RGB'])
@pytest.mark.parametrize('orientation', [5, 6, 8])
def test_uncompressed_tiffs_that_lie_on_their_side(tmp_path, mode, orientation):
    """Pillow alone maps the grey ones into memory with the sides exchanged: rows would be cut at the wrong place."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, len(Image.new(mode, (1, 1)).getbands())), np.uint8)
    stored = Image.frombytes(mode, (60, 40), pixels.tobytes())
    stored.save(tmp_path / 'a.tif', tiffinfo={0x0112: orientation})
    expected = images.UPRIGHT[orientation](np.asarray(stored.convert('RGB')))
    np.testing.assert_array_equal(load_image(tmp_path / 'a.tif'), expected)
    assert probe_image(tmp_path / 'a.tif') == (40, 60)


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', 'I;16'])
def test_other_pixel_formats_become_rgb(tmp_path, mode):
    Image.new(mode, (20, 10)).save(tmp_path / 'a.png')
    assert load_image(tmp_path / 'a.png').shape == (10, 20, 3)
    assert probe_image(tmp_path / 'a.png') == (20, 10)


@pytest.mark.parametrize('mode', ['F', 'I'])
def test_tiffs_of_any_depth(tmp_path, mode):
    values = np.linspace(0, 5, 200).reshape(10, 20)
    Image.fromarray(values.astype(np.float32 if mode == 'F' else np.int32)).save(tmp_path / 'a.tif')
    assert probe_image(tmp_path / 'a.tif') == (20, 10)
    image = load_image(tmp_path / 'a.tif')
    assert image[0, 0].tolist() == [0, 0, 0] and image[-1, -1].tolist() == [255, 255, 255]


def test_what_is_transparent_is_white(tmp_path):
    pixels = np.full((10, 20, 4), 90, np.uint8)
    pixels[:5, :, 3], pixels[5:, :, 3] = 0, 255
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    image = load_image(tmp_path / 'a.png')
    assert (image[:5] == 255).all() and (image[5:] == 90).all()


def test_channels_are_red_green_blue(tmp_path):
    make_data(tmp_path)
    Image.new('RGB', (64, 64), (250, 120, 10)).save(tmp_path / 'images/train/p0.png')
    (tmp_path / 'images/train/p0.jpg').unlink()
    sample = TextDataset(load_data_config(tmp_path / 'data.yaml'), 'train', 64)[0, 0]
    assert sample.path.endswith('p0.png') and sample.image[:, 30, 30].tolist() == [250, 120, 10]


def test_square_letterbox_by_hand(data):
    dataset = TextDataset(data, 'train', 320)
    batch = collate([dataset[0, 0], dataset[0, 1]])  # 160x90 and 90x160 -> 320x180 and 180x320
    assert batch.images.shape == (2, 3, 320, 320) and batch.images.dtype == torch.uint8
    assert batch.shapes == [(90, 160), (160, 90)]
    assert batch.letterboxes[0] == (2, 2, 0, 70) and batch.letterboxes[1] == (2, 2, 70, 0)
    # The box 0.5 0.5 0.25 0.5 is 80 x 90 pixels of 320 x 180; the triangle 0.1..0.4 x 0.1..0.3 is 96 x 36 at 32, 18.
    expected = [(0, 0, 0.5, 0.5, 0.25, 90 / 320), (0, 1, 80 / 320, (70 + 36) / 320, 96 / 320, 36 / 320)]
    np.testing.assert_allclose(batch.targets[:2], expected, rtol=1e-6)
    np.testing.assert_allclose(batch.ignore[0], (0, 0, 240 / 320, (70 + 144) / 320, 96 / 320, 36 / 320), rtol=1e-6)
    assert batch.targets.shape == (4, 6) and batch.ignore.shape == (2, 6) and len(batch.polygons) == 4
    assert batch.targets.dtype == batch.ignore.dtype == torch.float32
    np.testing.assert_allclose(batch.polygons[1] * 320, [(32, 88), (128, 88), (128, 124)], rtol=1e-5)
    assert (batch.images[0, :, :70] == 114).all() and (batch.images[0, :, 250:] == 114).all()


@pytest.mark.parametrize('rect', [False, True])
def test_letterboxes_map_back_to_the_picture(tmp_path, rect):
    data = make_data(tmp_path, [(317, 211), (211, 317), (333, 97), (1000, 3)])
    dataset = TextDataset(data, 'train', 160, rect=rect, batch_size=2, pad=0.5)
    for batch in build_loader(dataset, 2):
        size = torch.tensor(batch.images.shape[:1:-1]).repeat(2)  # W, H, W, H
        for number, (letterbox, (height, width)) in enumerate(zip(batch.letterboxes, batch.shapes, strict=True)):
            targets = batch.targets[batch.targets[:, 0] == number]
            boxes = letterbox.to_image(xywh_to_xyxy(targets[:, 2:]) * size, height, width)
            fractions = boxes / torch.tensor([width, height, width, height])
            expected = torch.tensor([(0.375, 0.25, 0.625, 0.75), (0.1, 0.1, 0.4, 0.3)])
            torch.testing.assert_close(fractions, expected, atol=1e-4, rtol=0)


def test_rect_batches(data):
    dataset = TextDataset(data, 'train', 320, rect=True, batch_size=3, pad=0.5)
    ratios = dataset.sizes[:, 1] / dataset.sizes[:, 0]
    assert (np.diff(ratios) >= 0).all() and [file.stem for file in dataset.files][0] == 'p3'
    batches = list(build_loader(dataset, 3))
    # 200x60 -> 320x96, 160x90 and 320x180 -> 320x180; 180 / 32 + .5 -> 7, 320 / 32 + .5 -> 11.
    # 150x100 -> 320x213, 128x128 -> 320x320, 64x100 -> 205x320; then 90x160 -> 180x320.
    assert [tuple(batch.images.shape) for batch in batches] == [(3, 3, 224, 352), (3, 3, 352, 352), (1, 3, 352, 224)]
    assert len(TextDataset(data, 'train', 320, rect=True, batch_size=1, augment=True)[0, 0].image.shape) == 3
    with pytest.raises(ValueError, match='shuffle'):
        build_loader(dataset, 3, shuffle=True)


def test_dont_care_as_text_and_as_ignore(data):
    ignored = TextDataset(data, 'train', 64)
    text = TextDataset(replace(data, dont_care='text'), 'train', 64)
    assert [len(rows) for rows in ignored.labels] == [2] * 7 and [len(rows) for rows in text.labels] == [3] * 7
    np.testing.assert_allclose(text.labels[0][2], (0, 0.75, 0.8, 0.3, 0.2), rtol=1e-6)
    batch = collate([text[0, 0]])
    assert len(batch.ignore) == 0 and batch.ignore.shape == (0, 6) and len(batch.targets) == 3


def test_augmented_targets_lie_inside_and_match_their_polygons(data):
    dataset = TextDataset(data, 'train', 128, WILD, augment=True)
    batches = [collate([dataset[epoch, i] for i in range(7)]) for epoch in range(5)]
    assert sum(len(batch.targets) for batch in batches) > 100 and sum(len(batch.ignore) for batch in batches) > 50
    for batch in batches:
        assert batch.images.shape == (7, 3, 128, 128)
        boxes = torch.cat((batch.targets, batch.ignore))[:, 2:]
        assert xywh_to_xyxy(boxes).min() >= -1e-6 and xywh_to_xyxy(boxes).max() <= 1 + 1e-6
        assert batch.targets[:, 4:].min() * 128 >= 2 - 1e-4
        for row, polygon in zip(batch.targets, batch.polygons, strict=True):
            assert len(polygon) >= 3
            tight = (*polygon.min(0), *polygon.max(0))
            np.testing.assert_allclose(xywh_to_xyxy(row[2:]), tight, atol=1e-5)


def test_samples_are_a_function_of_seed_epoch_and_index(data):
    first, second = (TextDataset(data, 'train', 128, WILD, augment=True, seed=5) for _ in range(2))
    forward = [collate([first[2, i]]) for i in range(7)]
    backward = [collate([second[2, i]]) for i in reversed(range(7))][::-1]
    assert all(map(same, forward, backward))
    other_seed = TextDataset(data, 'train', 128, WILD, augment=True, seed=6)
    assert not same(collate([other_seed[2, 0]]), forward[0])
    assert not same(collate([first[3, 0]]), forward[0])


def test_workers_change_nothing_and_draw_nothing_from_torch(data):
    dataset = TextDataset(data, 'train', 128, WILD, augment=True, seed=3)
    runs = []
    for workers in (0, 2):
        loader = build_loader(dataset, 3, workers, shuffle=True, seed=3)
        state = torch.get_rng_state()
        epochs = []
        for epoch in (0, 1):
            loader.batch_sampler.epoch = epoch
            epochs.append(list(loader))
        assert torch.equal(state, torch.get_rng_state())
        runs.append(epochs)
    assert [len(batch.paths) for batch in runs[0][0]] == [3, 3, 1]
    assert same(runs[0], runs[1])
    assert not same(runs[0][0], runs[0][1])


def test_epoch_batches():
    batches = EpochBatches(20, 8, seed=4)
    first = list(batches)
    assert first == list(batches) and sorted(i for batch in first for _, i in batch) == list(range(20))
    assert list(map(len, first)) == [8, 8, 4] == [batches.size(i) for i in range(3)] and len(batches) == 3
    batches.start = 1
    assert list(batches) == first[1:]
    batches.epoch, batches.start = 1, 0
    second = list(batches)
    assert {epoch for batch in second for epoch, _ in batch} == {1}
    assert [i for batch in first for _, i in batch] != [i for batch in second for _, i in batch]
    assert list(EpochBatches(3, 2, shuffle=False)) == [[(0, 0), (0, 1)], [(0, 2)]]


@pytest.mark.parametrize('start', [0, 2])
def test_epoch_batches_of_several_processes(start):
    """Shuffled batches are cut, others dealt out; together they are what one process has."""
    whole = EpochBatches(23, 6, seed=1)
    parts = [EpochBatches(23, 6, seed=1, part=(rank, 3)) for rank in range(3)]
    for batches in (whole, *parts):
        batches.epoch, batches.start = 5, start
    assert [sum(fractions, []) for fractions in zip(*parts, strict=True)] == list(whole)
    assert [[part.share(number) for part in parts] for number in (0, 3)] == [[2, 2, 2], [2, 2, 1]]
    assert max(len(fraction) for fraction in parts[0]) == 2 and {len(part) for part in parts} == {4}
    fixed = [list(EpochBatches(23, 6, shuffle=False, part=(rank, 3))) for rank in range(3)]
    assert (
        list(map(len, fixed)) == [2, 1, 1] == [len(EpochBatches(23, 6, shuffle=False, part=(r, 3))) for r in range(3)]
    )
    assert [fixed[0][0], fixed[1][0], fixed[2][0], fixed[0][1]] == list(EpochBatches(23, 6, shuffle=False))


def test_a_last_batch_too_small_for_the_processes(data):
    dataset = TextDataset(data, 'train', 64)  # 7 pictures
    with pytest.raises(UserError, match='the last batch has 1 for 2 processes'):
        build_loader(dataset, 3, shuffle=True, part=(0, 2))
    build_loader(dataset, 5, shuffle=True, part=(0, 2))


@pytest.mark.parametrize('workers', [0, 1])
def test_cache_changes_nothing(data, workers, capsys):
    plain = TextDataset(data, 'train', 96, WILD, augment=True)
    cached = TextDataset(data, 'train', 96, WILD, augment=True, cache=True)
    assert 'cache of train' in capsys.readouterr().out
    assert cached._cache.buffer.is_shared() and cached._cache.buffer.numel() == sum(
        plain.example(i)[0].size for i in range(len(plain))
    )
    assert same(list(build_loader(plain, 4)), list(build_loader(cached, 4, workers)))


def test_cache_is_refused_when_memory_is_short(data, monkeypatch, capsys):
    monkeypatch.setattr(cache, 'free_memory', lambda: 1000)
    dataset = TextDataset(data, 'train', 96, cache=True)
    assert 'too little is free' in capsys.readouterr().out
    assert dataset._cache is None and dataset[0, 0].image.shape == (3, 96, 96)


def test_free_memory_is_plausible():
    assert 0 < cache.free_memory() < os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


# Hyperparameters


@pytest.mark.parametrize('name', ['scratch-low', 'scratch-high', 'text'])
def test_shipped_hyps_are_complete(name):
    file = ROOT / f'data/hyps/{name}.yaml'
    hyp = load_hyp(file)
    assert list(hyp) == list(DEFAULTS) and all(type(value) is float for value in hyp.values())
    written = [line.split(':')[0] for line in file.read_text().splitlines() if line and line[0] != '#']
    assert written == list(DEFAULTS)


def test_what_the_hyps_differ_in():
    low, high, text = (load_hyp(ROOT / f'data/hyps/{name}.yaml') for name in ('scratch-low', 'scratch-high', 'text'))
    assert low == DEFAULTS
    changed = {'lrf': 0.1, 'cls': 0.3, 'obj': 0.7, 'scale': 0.9, 'mixup': 0.1}
    assert high == low | changed
    assert text == low | {'degrees': 5.0, 'perspective': 0.0002, 'fliplr': 0.0}


def test_defaults_lie_in_their_ranges():
    assert check_hyp({}) == {name: default for name, (default, _, _) in RANGES.items()}
    assert check_hyp(DEFAULTS) == DEFAULTS


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('lr: 0.1', "unknown key 'lr', did you mean 'lr"),
        ('mosiac: 1', "did you mean 'mosaic'"),
        ('zzzzz: 1', 'known: lr0'),
        ('lr0: fast', "lr0 is 'fast', expected a number"),
        ('lr0: true', 'lr0 is True, expected a number'),
        ('lr0: .nan', 'expected a number'),
        ('lr0: [1]', 'expected a number'),
        ('fliplr: 1.5', 'fliplr is 1.5, expected 0 to 1'),
        ('momentum: -0.1', 'expected 0 to 0.9999'),
        ('lr0: [1', 'line 1'),
        ('', 'name: value'),
    ],
)
def test_bad_hyps(tmp_path, text, message):
    (tmp_path / 'hyp.yaml').write_text(text)
    with pytest.raises(UserError, match='hyp.yaml') as error:
        load_hyp(tmp_path / 'hyp.yaml')
    assert message in str(error.value)


def test_hyp_numbers_that_yaml_reads_as_text(tmp_path):
    (tmp_path / 'hyp.yaml').write_text('lr0: 1e-3\nwarmup_epochs: 2\n')
    hyp = load_hyp(tmp_path / 'hyp.yaml')
    assert hyp['lr0'] == 0.001 and hyp['warmup_epochs'] == 2 and hyp['box'] == 0.05


def test_missing_hyp_file(tmp_path):
    with pytest.raises(UserError, match='no such file'):
        load_hyp(tmp_path / 'hyp.yaml')


def test_samples_do_not_depend_on_the_process(data):
    code = (
        'import json, sys; from utils.loading.config import *; from utils.loading.dataset import *; '
        'd = TextDataset(load_data_config(sys.argv[1]), "train", 96, json.loads(sys.argv[2]), augment=True, seed=9); '
        'print(int(d[4, 3].image.long().sum()), d[4, 3].annotations.polygons.sum().item())'
    )
    command = [sys.executable, '-c', code, str(data.file), json.dumps(WILD)]
    there = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    sample = TextDataset(data, 'train', 96, WILD, augment=True, seed=9)[4, 3]
    assert int(there[0]) == int(sample.image.long().sum())
    assert float(there[1]) == sample.annotations.polygons.sum().item()


# --- pictures without labels ------------------------------------------------------------------------------------------


@pytest.fixture
def two_kinds(tmp_path):
    """Three labelled grey pictures (value 50), and four of unknown content (200), one of them broken."""
    for split, count, value in (('train', 3, 50), ('more', 3, 200)):
        folder = tmp_path / 'images' / split
        folder.mkdir(parents=True)
        for number in range(count):
            image = np.full((64, 96, 3), value, np.uint8)
            image[0, 0] = number
            cv2.imwrite(str(folder / f'{number}.png'), image)
    (tmp_path / 'images/more/broken.png').write_bytes(b'nothing')
    for split in ('train', 'more'):  # labels of the unlabelled must not be read
        (tmp_path / 'labels' / split).mkdir(parents=True)
        for number in range(3):
            (tmp_path / f'labels/{split}/{number}.txt').write_text('0 0.5 0.5 0.6 0.6\n')
    (tmp_path / 'data.yaml').write_text(f'path: {tmp_path}\ntrain: images/train\nval: images/train\nnames: [text]\n')
    return tmp_path


def test_unlabelled_pictures_are_kept_apart(two_kinds):
    data, more = load_data_config(two_kinds / 'data.yaml'), two_kinds / 'images/more'
    hyp = {'mosaic': 1.0, 'mixup': 1.0, 'hsv_v': 0.0, 'hsv_s': 0.0, 'hsv_h': 0.0, 'scale': 0.0, 'translate': 0.0}
    dataset = TextDataset(data, 'train', 64, hyp, augment=True, unlabelled=more)
    assert (len(dataset), dataset.labelled) == (6, 3)
    assert 'unlabelled: 3 pictures' in dataset.summary
    assert 'skipped 1 broken or missing picture' in dataset.summary and 'broken.png' in dataset.summary
    for index in range(6):
        sample = dataset[0, index]
        values = np.unique(sample.image.numpy())
        assert sample.labelled == (index < 3)
        assert (50 if index < 3 else 200) in values and (200 if index < 3 else 50) not in values
        assert index < 3 or len(sample.annotations.rows(64, 64)) == 0
    batch = collate([dataset[0, index] for index in (0, 4, 1)])
    assert batch.labelled.tolist() == [True, False, True]
    assert collate([dataset[0, 0]]).labelled is None

    alone = TextDataset(data, 'train', 64, hyp, augment=True)  # others change nothing for the labelled
    assert all(torch.equal(alone[2, i].image, dataset[2, i].image) for i in range(3))


def test_pictures_of_a_split_are_not_unlabelled(two_kinds):
    data = load_data_config(two_kinds / 'data.yaml')
    dataset = TextDataset(data, 'train', 64, unlabelled=two_kinds / 'images')
    assert 'unlabelled: 3 pictures; 3 more are left out' in dataset.summary
    assert [file.parent.name for file in dataset.files[3:]] == ['more'] * 3
    (two_kinds / 'again').symlink_to(two_kinds / 'images/train')
    with pytest.raises(UserError, match='all 3 of .* are in a split'):
        TextDataset(data, 'train', 64, unlabelled=two_kinds / 'again')
    shutil.copyfile(two_kinds / 'images/train/1.png', two_kinds / 'images/more/copy.png')
    dataset = TextDataset(data, 'train', 64, unlabelled=two_kinds / 'images/more')
    assert 'unlabelled: 3 pictures; 1 more are left out' in dataset.summary
    copied = dataclasses.replace(data, splits={'train': 'images/train', 'test': 'images/more'})
    assert shared_images(copied, list_images(copied, 'train')) == {'test': 1}
    assert shared_images(data, list_images(data, 'train')) == {'val': 3}
    assert shared_images(data, list_images(data, 'train')[1:]) == {'val': 2}  # one that is broken is not trained on


def test_a_list_that_names_a_picture_twice_shows_it_once(two_kinds):
    (two_kinds / 'more.txt').write_text('images/more/0.png\nimages/more/0.png\nimages/more/1.png\n')
    data = load_data_config(two_kinds / 'data.yaml')
    assert len(TextDataset(data, 'train', 64, unlabelled=two_kinds / 'more.txt')) == 3 + 2


def test_evaluation_takes_no_unlabelled_pictures(two_kinds):
    data = load_data_config(two_kinds / 'data.yaml')
    with pytest.raises(UserError, match='pictures without labels are for training'):
        TextDataset(data, 'train', 64, rect=True, unlabelled=two_kinds / 'images/more')


def test_another_picture_of_the_same_size_is_another_set(two_kinds):
    data = load_data_config(two_kinds / 'data.yaml')
    before = TextDataset(data, 'train', 64).fingerprint()
    assert TextDataset(data, 'train', 64).fingerprint() == before
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    cv2.imwrite(str(two_kinds / 'images/train/1.png'), noise)
    assert TextDataset(data, 'train', 64).fingerprint() != before


def test_the_cache_leaves_room_for_runs_beside_it(data, monkeypatch, capsys):
    monkeypatch.setattr(cache, 'free_memory', lambda: 400_000)
    assert TextDataset(data, 'train', 64, cache=True)._cache is not None
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    monkeypatch.setenv('OCRDISTILL_RUNS_AT_ONCE', '4')
    assert TextDataset(data, 'train', 64, cache=True)._cache is None
    assert 'too little is free' in capsys.readouterr().out


def test_unlabelled_place_without_pictures(two_kinds):
    data = load_data_config(two_kinds / 'data.yaml')
    with pytest.raises(UserError, match='no folder or list file'):
        TextDataset(data, 'train', 64, unlabelled=two_kinds / 'nowhere')
    with pytest.raises(UserError, match='no folder or list file of pictures'):
        TextDataset(data, 'train', 64, unlabelled=two_kinds / 'labels')
