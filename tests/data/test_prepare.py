"""The ICDAR2015 preparer, on small zips made here and on the published files where they are."""

import io
import json
import os
import stat
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import prepare_icdar2015 as preparer
from data.formats.common import BadEntry
from data.prepare_icdar2015 import parse_row, prepare
from models.errors import UserError
from tests.support import ROOT, run_here

PUBLISHED = ROOT.parent / 'shared/icdar2015'
TRAIN, TRAIN_GT = 'ch4_training_images', 'ch4_training_localization_transcription_gt'
TEST, TEST_GT = 'ch4_test_images', 'Challenge4_Test_Task1_GT'
WIDTH, HEIGHT = 80, 40
WORD = '8,4,40,4,40,20,8,20,word'
DONT_CARE = '0,0,20,0,20,10,0,10,###'


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'JPEG')
    return buffer.getvalue()


def published_files(train: int = 12, test: int = 3) -> dict[str, dict[str, bytes]]:
    """The contents of four small zips: {stem: {name: bytes}}."""
    files = {}
    for images, truth, count in ((TRAIN, TRAIN_GT, train), (TEST, TEST_GT, test)):
        files[images] = {f'img_{n}.jpg': jpeg(n) for n in range(1, count + 1)}
        files[truth] = {f'gt_img_{n}.txt': f'{WORD}\n{DONT_CARE}\n'.encode() for n in range(1, count + 1)}
    return files


def write_zips(folder: Path, files: dict[str, dict[str, bytes]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, entries in files.items():
        with zipfile.ZipFile(folder / f'{stem}.zip', 'w') as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(preparer, 'EXPECTED', {'train_icdar': 12, 'test_icdar': 3})


def test_layout(tmp_path):
    files = published_files()
    out = tmp_path / 'out'
    summary = prepare(write_zips(tmp_path / 'zips', files), out)
    assert "train_icdar: 12 pictures, 24 boxes: 12 words, 12 don't-care; skipped 0 pictures and 0 rows" in summary
    assert "test_icdar: 3 pictures, 6 boxes: 3 words, 3 don't-care; skipped 0 pictures and 0 rows" in summary
    found = tree(out)
    assert len(found) == 15 * 4 + 3
    assert found['images/train_icdar/img_7.jpg'] == files[TRAIN]['img_7.jpg']
    assert found['gt/test_icdar/gt_img_2.txt'] == files[TEST_GT]['gt_img_2.txt']
    quad = b'0 0.100000 0.100000 0.500000 0.100000 0.500000 0.500000 0.100000 0.500000\n'
    assert found['labels/train_icdar/img_7.txt'] == quad
    quad = b'0 0.000000 0.000000 0.250000 0.000000 0.250000 0.250000 0.000000 0.250000\n'
    assert found['ignore/test_icdar/img_3.txt'] == quad
    train = [f'./images/train_icdar/img_{n}.jpg' for n in (*range(1, 10), 11, 12)]
    assert found['train.txt'].decode().splitlines() == train
    assert found['val.txt'] == b'./images/train_icdar/img_10.jpg\n'


def test_unpacked_folders_give_the_same(tmp_path):
    files = published_files()
    prepare(write_zips(tmp_path / 'zips', files), tmp_path / 'a')
    for stem, entries in files.items():
        folder = tmp_path / 'folders' / stem
        folder.mkdir(parents=True)
        for name, content in entries.items():
            (folder / name).write_bytes(content)
    prepare(tmp_path / 'folders', tmp_path / 'b')
    first, second = tree(tmp_path / 'a'), tree(tmp_path / 'b')
    del first['prepared.json'], second['prepared.json']  # names the source
    assert first == second


def test_truth_rows(tmp_path):
    files = published_files()
    rows = [
        '8,4,40,4,40,20,8,20,one, two, three',
        '8,4,40,4,40,20,8,20,###',
        '',
        '8,4,40,4,40,20,8,x,word',
        '8,4,40,4,40,20,8',
        '90,4,99,4,99,20,90,20,outside',
        '-8,-4,88,4,88,44,-8,20,"quoted"',
        '8,4,40,4,40,20,8,nan,word',
        '8,4,40,4,40,20,8,20,a\u2028b',
    ]
    files[TRAIN_GT]['gt_img_1.txt'] = b'\xef\xbb\xbf' + '\r\n'.join(rows).encode()
    summary = prepare(write_zips(tmp_path / 'zips', files), tmp_path / 'out')
    found = tree(tmp_path / 'out')
    labels = [[float(v) for v in row.split()] for row in found['labels/train_icdar/img_1.txt'].decode().splitlines()]
    assert labels == [
        [0, 0.1, 0.1, 0.5, 0.1, 0.5, 0.5, 0.1, 0.5],
        [0, 0, 0, 1, 0.1, 1, 1, 0, 0.5],
        [0, 0.1, 0.1, 0.5, 0.1, 0.5, 0.5, 0.1, 0.5],
    ]
    assert found['ignore/train_icdar/img_1.txt'].count(b'\n') == 1
    assert found['gt/train_icdar/gt_img_1.txt'] == files[TRAIN_GT]['gt_img_1.txt']
    assert 'skipped 0 pictures and 4 rows' in summary
    for reason in (
        'row 4 ',
        'no number',
        'row 5 ',
        '7 of 9 fields',
        'row 6 ',
        'no area inside',
        'row 8 ',
        'not finite',
    ):
        assert reason in summary


def test_size_comes_from_the_picture():
    quad, word = parse_row('10,10,20,10,20,30,10,30,a,b,', 100, 50)
    assert quad == [0.1, 0.2, 0.2, 0.2, 0.2, 0.6, 0.1, 0.6]
    assert word == 'a,b,'
    with pytest.raises(BadEntry, match='no area'):
        parse_row('10,10,10,10,10,30,10,30,flat', 100, 50)


def test_second_run_touches_nothing(tmp_path, monkeypatch):
    source, out = write_zips(tmp_path / 'zips', published_files()), tmp_path / 'out'
    prepare(source, out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    monkeypatch.setattr(preparer, 'prepare_split', lambda *_: pytest.fail('worked again'))
    summary = prepare(source, out)
    assert 'complete already' in summary
    assert '12 words' in summary
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob('*')}


@pytest.mark.parametrize('damage', ['label lost', 'picture cut', 'no marker', 'bad marker'])
def test_partial_run_is_completed(tmp_path, damage):
    source, out = write_zips(tmp_path / 'zips', published_files()), tmp_path / 'out'
    prepare(source, out)
    whole = tree(out)
    if damage == 'label lost':
        (out / 'labels/train_icdar/img_3.txt').unlink()
    elif damage == 'picture cut':
        (out / 'images/test_icdar/img_3.jpg').write_bytes(b'\xff\xd8')
    elif damage == 'no marker':
        (out / 'prepared.json').unlink()
        (out / 'images/train_icdar/img_12.jpg').unlink()
    else:
        (out / 'prepared.json').write_text('[1, 2]')
    assert 'complete already' not in prepare(source, out)
    assert tree(out) == whole


def test_interrupted_write_leaves_no_half_file(tmp_path, monkeypatch):
    source, out = write_zips(tmp_path / 'zips', published_files()), tmp_path / 'out'
    replace, calls = os.replace, []

    def interrupted(temporary, path):
        calls.append(path)
        if len(calls) == 18:
            raise KeyboardInterrupt
        replace(temporary, path)

    monkeypatch.setattr(os, 'replace', interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, out)
    names = tree(out)
    assert 'prepared.json' not in names
    assert len(names) == 17
    assert not [name for name in names if name.endswith('.tmp')]
    monkeypatch.setattr(os, 'replace', replace)
    prepare(source, out)
    assert len(tree(out)) == 15 * 4 + 3


def test_changed_source_is_prepared_anew(tmp_path):
    files, out = published_files(), tmp_path / 'out'
    prepare(write_zips(tmp_path / 'zips', files), out)
    files[TRAIN_GT]['gt_img_1.txt'] = f'{WORD}\n{DONT_CARE}\n'.replace('40,20', '40,30').encode()  # of the same size
    files[TEST]['img_2.jpg'] = b'\xff\xd8 no picture any more'
    summary = prepare(write_zips(tmp_path / 'zips', files), out)
    assert '0.750000' in (out / 'labels/train_icdar/img_1.txt').read_text()
    assert 'img_2.jpg of ch4_test_images.zip: broken JPEG' in summary
    assert not (out / 'images/test_icdar/img_2.jpg').exists()
    assert not (out / 'labels/test_icdar/img_2.txt').exists()


def test_limit(tmp_path):
    source, out = write_zips(tmp_path / 'zips', published_files()), tmp_path / 'out'
    prepare(source, out, limit=2)
    assert len(tree(out)) == 4 * 4 + 3
    assert (out / 'train.txt').read_text().count('\n') == 2
    assert (out / 'val.txt').read_text() == ''
    prepare(source, out, limit=10)
    assert (out / 'val.txt').read_text() == './images/train_icdar/img_10.jpg\n'
    assert len(list((out / 'images/test_icdar').iterdir())) == 3
    prepare(source, out)
    before = tree(out)
    with pytest.raises(UserError, match='another --out'):
        prepare(source, out, limit=2)
    assert tree(out) == before


@pytest.mark.parametrize('place', ['images/train/a.jpg', 'synthtext.json', 'data.yaml'])
def test_another_data_set_is_not_overwritten(tmp_path, place):
    file = tmp_path / 'out' / place
    file.parent.mkdir(parents=True)
    file.write_text('{}')
    with pytest.raises(UserError, match='holds another data set'):
        prepare(write_zips(tmp_path / 'zips', published_files()), tmp_path / 'out')
    assert list(tree(tmp_path / 'out')) == [place]


def test_broken_picture_is_skipped_and_named(tmp_path):
    files = published_files()
    files[TRAIN]['img_10.jpg'] = files[TRAIN]['img_10.jpg'][:400]
    files[TRAIN]['img_2.jpg'] = b'<html>log in</html>'
    files[TEST_GT]['gt_img_1.txt'] = b' ' * (preparer.MAX_BYTES['.txt'] + 1)
    summary = prepare(write_zips(tmp_path / 'zips', files), tmp_path / 'out')
    assert 'train_icdar: 10 pictures' in summary
    assert 'img_10.jpg of ch4_training_images.zip: broken JPEG' in summary
    assert 'img_2.jpg of ch4_training_images.zip: broken JPEG' in summary
    assert 'gt_img_1.txt of Challenge4_Test_Task1_GT.zip: larger than 1 MiB' in summary
    train = [Path(row).stem for row in (tmp_path / 'out/train.txt').read_text().split()]
    assert train == [f'img_{n}' for n in (1, *range(3, 10), 11, 12)]
    assert not (tmp_path / 'out/images/train_icdar/img_10.jpg').exists()


def test_damaged_entry_is_skipped(tmp_path):
    files = published_files()
    path = write_zips(tmp_path / 'zips', files) / f'{TRAIN}.zip'
    raw = path.read_bytes()
    at = raw.index(files[TRAIN]['img_5.jpg']) + 300
    path.write_bytes(raw[:at] + bytes([raw[at] ^ 255]) + raw[at + 1 :])
    summary = prepare(tmp_path / 'zips', tmp_path / 'out')
    assert 'img_5.jpg of ch4_training_images.zip: cannot be read (Bad CRC-32' in summary
    assert 'train_icdar: 11 pictures' in summary


def test_hostile_names_are_never_taken(tmp_path):
    files = published_files()
    evil = ('../img_1.jpg', '/tmp/img_2.jpg', 'a/../img_3.jpg', '..\\img_4.jpg', 'img_5.jpg/../../x.jpg', 'img_06.jpg')
    files[TRAIN] |= dict.fromkeys(evil, b'evil')
    files[TRAIN] |= {'run.sh': b'evil', '__MACOSX/._img_1.jpg': b'evil'}
    source = write_zips(tmp_path / 'deep/zips', files)
    prepare(source, tmp_path / 'deep/out')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['deep']
    assert sorted(p.name for p in (tmp_path / 'deep').iterdir()) == ['out', 'zips']
    assert b'evil' not in tree(tmp_path / 'deep/out').values()
    assert len(tree(tmp_path / 'deep/out')) == 15 * 4 + 3


def test_links_are_not_followed(tmp_path):
    files = published_files()
    secret = tmp_path / 'secret.txt'
    secret.write_text(WORD)
    del files[TRAIN_GT]['gt_img_4.txt']
    source = write_zips(tmp_path / 'zips', files)
    link = zipfile.ZipInfo('gt_img_4.txt')
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(source / f'{TRAIN_GT}.zip', 'a') as archive:
        archive.writestr(link, str(secret))
    with pytest.raises(UserError, match=r'11 of 12 files; missing gt_img_4\.txt'):
        prepare(source, tmp_path / 'out')
    with zipfile.ZipFile(source / f'{TRAIN_GT}.zip') as archive:
        regular = [info for info in archive.infolist() if info.filename != link.filename]
        archive.extractall(source / TRAIN_GT, regular)
    (source / f'{TRAIN_GT}.zip').unlink()
    (source / TRAIN_GT / 'gt_img_4.txt').symlink_to(secret)
    with pytest.raises(UserError, match=r'11 of 12 files; missing gt_img_4\.txt'):
        prepare(source, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_zip_bombs(tmp_path, monkeypatch):
    files = published_files()
    source = write_zips(tmp_path / 'zips', files)
    del files[TRAIN]['img_3.jpg']
    with zipfile.ZipFile(source / f'{TRAIN}.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('img_3.jpg', b'\0' * (preparer.MAX_BYTES['.jpg'] + 1))
        for name, content in files[TRAIN].items():
            archive.writestr(name, content)
    assert 'img_3.jpg of ch4_training_images.zip: larger than 8 MiB' in prepare(source, tmp_path / 'out')
    monkeypatch.setattr(preparer, 'MAX_TOTAL_BYTES', 8 << 20)
    with pytest.raises(UserError, match='not the published file'):
        prepare(source, tmp_path / 'other')
    monkeypatch.undo()
    monkeypatch.setattr(preparer, 'MAX_PIXELS', WIDTH * HEIGHT - 1)
    with pytest.raises(BadEntry, match='80x40 pixels are too many'):
        preparer.image_size(jpeg(1))


def test_wrong_counts_name_the_files(tmp_path):
    files = published_files()
    del files[TEST]['img_2.jpg']
    with pytest.raises(UserError, match=r'ch4_test_images\.zip: 2 of 3 files; missing img_2\.jpg .*rrc\.cvc\.uab\.es'):
        prepare(write_zips(tmp_path / 'a', files), tmp_path / 'out')
    files = published_files(train=13)
    with pytest.raises(UserError, match=r'13 of 12 files; unknown img_13\.jpg'):
        prepare(write_zips(tmp_path / 'b', files), tmp_path / 'out')
    files = published_files()
    with zipfile.ZipFile(write_zips(tmp_path / 'c', files) / f'{TEST}.zip', 'a') as archive:
        archive.writestr(f'{TEST}/img_1.jpg', jpeg(5))
    with pytest.raises(UserError, match=r'img_1\.jpg twice'):
        prepare(tmp_path / 'c', tmp_path / 'out')


@pytest.mark.parametrize('change', [(6, 95), (9, 8)])  # the version that reads it; a name said to be UTF-8
def test_a_damaged_zip_is_told_in_a_line(tmp_path, change):
    folder = write_zips(tmp_path / 'a', published_files())
    content = bytearray((folder / f'{TRAIN}.zip').read_bytes())
    place, value = change
    entry = content.rindex(b'PK\x01\x02')
    content[entry + place], content[entry + 46] = value, 0xFF
    (folder / f'{TRAIN}.zip').write_bytes(content)
    with pytest.raises(UserError, match='is no zip'):
        prepare(folder, tmp_path / 'out')


def test_missing_files_are_named_with_their_site(tmp_path):
    files = published_files()
    del files[TEST_GT], files[TRAIN]
    with pytest.raises(UserError) as caught:
        prepare(write_zips(tmp_path / 'zips', files), tmp_path / 'out')
    message = str(caught.value)
    assert 'ch4_training_images.zip, Challenge4_Test_Task1_GT.zip' in message
    assert 'https://rrc.cvc.uab.es/?ch=4' in message
    assert 'ch4_test_images.zip' not in message
    with pytest.raises(UserError, match='no folder'):
        prepare(tmp_path / 'nowhere', tmp_path / 'out')
    (tmp_path / 'zips' / f'{TEST_GT}.zip').write_text('<html>log in</html>')
    (tmp_path / 'zips' / TRAIN).mkdir()
    with pytest.raises(UserError, match='is no zip'):
        files = {TRAIN: published_files()[TRAIN]}
        prepare(write_zips(tmp_path / 'zips', files), tmp_path / 'out')


def test_unwritable_out(tmp_path):
    source = write_zips(tmp_path / 'zips', published_files())
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(UserError, match='cannot write'):
        prepare(source, tmp_path / 'file')


def prepare_here(*args) -> subprocess.CompletedProcess:
    return run_here('data/prepare_icdar2015.py', *args)


def test_command_line(tmp_path):
    assert prepare_here().returncode == 2
    assert prepare_here('--source', tmp_path, '--limit', 0).returncode == 2
    result = prepare_here('--source', tmp_path / 'none', '--out', tmp_path / 'out')
    assert result.returncode == 1
    assert result.stderr.startswith('error: no folder')
    assert result.stderr.count('\n') == 1


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason='the published ICDAR2015 files are not here')
def test_published_files(tmp_path):
    result = prepare_here('--source', PUBLISHED, '--out', tmp_path / 'out', '--limit', 20)
    assert result.returncode == 0, result.stderr
    out = tmp_path / 'out'
    assert json.loads((out / 'prepared.json').read_text())['pictures']['test_icdar'] == list(range(1, 21))
    assert (out / 'val.txt').read_text().split() == [f'./images/train_icdar/img_{n}.jpg' for n in (10, 20)]
    for split, truth in (('train_icdar', TRAIN_GT), ('test_icdar', TEST_GT)):
        with zipfile.ZipFile(PUBLISHED / f'{truth}.zip') as archive:
            for number in range(1, 21):
                official = archive.read(f'gt_img_{number}.txt')
                assert (out / 'gt' / split / f'gt_img_{number}.txt').read_bytes() == official
                rows = [row for row in official.decode('utf-8-sig').split('\n') if row.strip()]
                dont_care = sum(row.strip().endswith(',###') for row in rows)
                found = {
                    k: (out / k / split / f'img_{number}.txt').read_text().count('\n') for k in ('labels', 'ignore')
                }
                assert found == {'labels': len(rows) - dont_care, 'ignore': dont_care}
    labels = (out / 'labels/train_icdar/img_1.txt').read_text().split()
    assert np.allclose(
        np.array(labels[1:9], float) * ([1280, 720] * 4), [377, 117, 463, 117, 465, 130, 378, 130], atol=0.01
    )
