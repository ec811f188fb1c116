"""Rendered text on photographs, in incidental style, with more fonts and words."""

import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image
from shapely.geometry import Polygon

from data.synthesis.fonts import find_fonts
from data.synthesis.image import render_image
from data.synthesis.legibility import hidden_fraction
from data.synthesis.photographs import check_photographs, draw_photograph, find_photographs, read_reduced
from data.synthesis.settings import Material
from data.synthesis.words import vocabulary
from models.errors import UserError
from tests.support import ROOT

SIZE = (320, 192)
BOX = (0.3, 0.4, 0.6, 0.55)  # x1, y1, x2, y2 of the photograph's own text, 0..1


@pytest.fixture
def photographs(tmp_path):
    """A folder with one grey photograph whose own text is a red area."""
    pixels = np.full((600, 900, 3), 128, np.uint8)
    x1, y1, x2, y2 = (np.array(BOX) * (900, 600, 900, 600)).astype(int)
    pixels[y1:y2, x1:x2] = (0, 0, 255)
    for tree in ('images', 'labels', 'ignore'):
        (tmp_path / 'set' / tree / 'train_icdar').mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'set/images/train_icdar/img_1.png'), pixels)
    x1, y1, x2, y2 = BOX
    row = f'0 {x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2}\n'
    (tmp_path / 'set/labels/train_icdar/img_1.txt').write_text(row)
    (tmp_path / 'set/ignore/train_icdar/img_1.txt').write_text('')
    return tmp_path / 'set/images'


def test_own_text_moves_with_the_photograph(photographs):
    """However it is cut, resized and mirrored: the returned box is where the red area is."""
    found, seen = find_photographs((str(photographs),)), 0
    for seed in range(30):
        scene, quads = draw_photograph(np.random.default_rng(seed), found, SIZE)
        assert scene.shape == (SIZE[1], SIZE[0], 3) and scene.dtype == np.float32
        red = np.argwhere(scene[..., 0] < 60)[:, ::-1]
        if not quads:
            assert len(np.unique(red[:, 0])) <= 2 or len(np.unique(red[:, 1])) <= 2
            continue
        seen += 1
        assert len(quads) == 1
        np.testing.assert_allclose(quads[0][0], red.min(0), atol=1.6)
        np.testing.assert_allclose(quads[0][2], red.max(0) + 1, atol=1.6)
    assert seen > 10


def test_new_text_stays_off_the_own_text(photographs):
    material = Material('incidental', backgrounds=(str(photographs),))
    with_own = 0
    for number in range(1, 25):
        image, words, _ = render_image(3, 'train', number, SIZE, material)
        assert image.shape == (SIZE[1], SIZE[0], 3)
        own = [word for word in words if word.text == '###']
        with_own += bool(own)
        for region in own:
            assert not region.legible
            area = Polygon(region.quad)
            others = [Polygon(word.quad) for word in words if word.legible]
            assert all(area.intersection(other).area < 0.1 * other.area for other in others)
    assert with_own > 8


def test_what_is_hidden_is_dont_care():
    quad = np.array([[10.0, 10], [50, 10], [50, 30], [10, 30]])
    hidden = np.zeros((60, 80), np.uint8)
    assert hidden_fraction(hidden, quad) == 0
    hidden[:, 30:] = 255
    assert hidden_fraction(hidden, quad) == pytest.approx(21 / 41)  # columns 30 to 50 of 10 to 50


def test_fonts_of_a_folder(tmp_path):
    (tmp_path / 'broken.ttf').write_bytes(b'no font')
    (tmp_path / 'notes.txt').write_text('no font')
    shutil.copy(find_fonts()['DejaVuSans'][0], tmp_path / 'Mine-Bold.ttf')
    families = find_fonts((str(tmp_path),))
    assert families['Mine'] == [str(tmp_path / 'Mine-Bold.ttf')]
    assert 'broken' not in families and 'notes' not in families
    with pytest.raises(UserError, match='no folder'):
        find_fonts((str(tmp_path / 'none'),))


def test_words_of_a_dictionary(tmp_path):
    file = tmp_path / 'words'
    file.write_text(
        '\n'.join(["o'clock", 'x1', 'naïve', *(f'zz{chr(97 + i)}{chr(97 + j)}' for i in range(26) for j in range(26))])
    )
    words = vocabulary((str(file),))
    assert 'zzaa' in words and "o'clock" not in words and 'naïve' not in words
    assert set(vocabulary()) < set(words)
    with pytest.raises(UserError, match='cannot be read'):
        vocabulary((str(tmp_path / 'none'),))
    other = tmp_path / 'other'
    other.write_text('мир a x1', encoding='utf-8')
    with pytest.raises(UserError, match='no word of 2 to 14 letters'):
        vocabulary((str(other),))


@pytest.mark.parametrize(('content', 'message'), [(None, 'no photographs'), (b'\xff\xd8broken', 'cannot be read')])
def test_bad_photographs(tmp_path, content, message):
    (tmp_path / 'photos').mkdir()
    if content:
        (tmp_path / 'photos/a.jpg').write_bytes(content)
    with pytest.raises(UserError, match=message):
        draw_photograph(np.random.default_rng(0), find_photographs((str(tmp_path / 'photos'),)), SIZE)


@pytest.mark.parametrize('name', [b'caf\xe9.jpg', b'a.mpo.jpg', b'a.png'])
def test_photographs_are_read_reduced_whatever_their_name(tmp_path, name):
    file = tmp_path / os.fsdecode(name)
    red, blue = (Image.new('RGB', (640, 384), colour) for colour in ('red', 'blue'))
    try:
        if 'mpo' in file.name:
            red.save(file, format='MPO', save_all=True, append_images=[blue])
        else:
            red.save(file)
    except OSError:
        pytest.skip('this file system takes UTF-8 names alone')
    photo = read_reduced(file, (320, 192))
    assert photo.shape == ((384, 640, 3) if file.suffix == '.png' else (192, 320, 3))
    assert np.abs(photo[100, 100].astype(int) - (0, 0, 255)).max() < 3  # BGR


def test_command(photographs, tmp_path):
    """Photographs by a list file, both distributions side by side, the same pictures again with --force."""
    listed = tmp_path / 'list.txt'
    listed.write_text('set/images/train_icdar/img_1.png\n')
    command = [sys.executable, ROOT / 'data/synthtext.py', '--style', 'incidental', '--backgrounds', listed]
    command += ['--compare', tmp_path / 'set', '--size', '320x180', '--train', '6', '--test', '1', '--workers', '1']
    outputs = []
    for out in ('a', 'b'):
        done = subprocess.run([*command, '--out', tmp_path / out], capture_output=True, text=True, check=True)
        assert '7 pictures' in done.stdout and f'{tmp_path / "set"}: 1 picture, 1 word' in done.stdout
        assert done.stdout.count('height (pixels)') == 2
        outputs.append([file.read_bytes() for file in sorted((tmp_path / out / 'images').rglob('*.jpg'))])
    assert outputs[0] == outputs[1] and len(outputs[0]) == 7
    done = subprocess.run([*command, '--out', tmp_path / 'a'], capture_output=True, text=True, check=True)
    assert 'nothing to do' in done.stdout and done.stdout.count('height (pixels)') == 2, 'the comparison all the same'
    (tmp_path / 'a/images/train_icdar/img_3.jpg').unlink()
    done = subprocess.run([*command, '--out', tmp_path / 'a'], capture_output=True, text=True, check=True)
    assert 'nothing to do' not in done.stdout
    assert outputs[0] == [file.read_bytes() for file in sorted((tmp_path / 'a/images').rglob('*.jpg'))]
    listed.write_text('set/images/train_icdar/../train_icdar/img_1.png\n')  # as many photographs, but not the same
    done = subprocess.run([*command, '--out', tmp_path / 'a'], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and '--force' in done.stderr
    other = [*command, '--out', tmp_path / 'a', '--style', 'signs']
    done = subprocess.run(other, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and '--force' in done.stderr


def test_labels_of_which_nothing_can_be_used(photographs):
    labels = photographs.parent / 'labels/train_icdar/img_1.txt'
    labels.write_text('0,0.5,0.5,0.1,0.1\n')
    with pytest.raises(UserError, match='1 of .* cannot be used, such as .*its only row cannot be used'):
        check_photographs(find_photographs((str(photographs),)), SIZE)
