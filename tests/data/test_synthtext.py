"""The renderer of scene text: reproducible, in ICDAR2015's layout, with quads that hold exactly the ink."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from shapely.geometry import Polygon

from data import synthtext
from data.synthesis.fonts import find_fonts, has_glyph
from data.synthesis.geometry import Camera, box_corners, plane_homography, project, quad_height, shifted, visible_quad
from data.synthesis.image import render_image
from data.synthesis.layout import Board, draw_glyphs
from data.synthesis.legibility import finished_words
from data.synthesis.placement import Placed, warp_board
from data.synthesis.words import vocabulary
from models.errors import UserError
from tests.support import ROOT

SIZE = (640, 360)
COUNTS = {'train': 22, 'test': 6}


def render(out, *options, check=True):
    """Run the command as a user does."""
    command = [sys.executable, str(ROOT / 'data' / 'synthtext.py'), '--out', str(out), '--size', '640x360']
    command += ['--train', str(COUNTS['train']), '--test', str(COUNTS['test']), *options]
    return subprocess.run(command, capture_output=True, text=True, check=check)


@pytest.fixture(scope='module')
def rendered(tmp_path_factory):
    out = tmp_path_factory.mktemp('synth') / 'data'
    done = render(out, '--workers', '2')
    return out, done.stdout


def files_of(out):
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob('*')) if file.is_file()}


def read_gt(out, split, number):
    """Rows of one gt file: [(quad (4, 2), word)]."""
    text = (out / 'gt' / f'{split}_icdar' / f'gt_img_{number}.txt').read_text(encoding='utf-8')
    rows = [line.split(',', 8) for line in text.splitlines()]
    return [(np.array(row[:8], int).reshape(4, 2), row[8]) for row in rows]


def read_rows(out, tree, split, number):
    text = (out / tree / f'{split}_icdar' / f'img_{number}.txt').read_text(encoding='utf-8')
    return np.array([line.split() for line in text.splitlines()], float).reshape(-1, 9)


def all_images():
    return [(split, number) for split, count in COUNTS.items() for number in range(1, count + 1)]


def test_layout(rendered):
    out, _ = rendered
    expected = {synthtext.MANIFEST, 'train.txt', 'val.txt'}
    for split, number in all_images():
        folder = f'{split}_icdar'
        expected |= {f'images/{folder}/img_{number}.jpg', f'gt/{folder}/gt_img_{number}.txt'}
        expected |= {f'{tree}/{folder}/img_{number}.txt' for tree in ('labels', 'ignore')}
        assert cv2.imread(str(out / 'images' / folder / f'img_{number}.jpg')).shape == (360, 640, 3)
    assert set(files_of(out)) == expected

    val = (out / 'val.txt').read_text().splitlines()
    train = (out / 'train.txt').read_text().splitlines()
    assert val == ['./images/train_icdar/img_10.jpg', './images/train_icdar/img_20.jpg']
    assert len(train) == COUNTS['train'] - 2 and not set(train) & set(val)
    assert all((out / row).is_file() for row in train + val)


def test_workers_and_order_change_nothing(rendered, tmp_path):
    out, _ = rendered
    render(tmp_path / 'alone', '--workers', '1')
    assert files_of(tmp_path / 'alone') == files_of(out)
    # One picture alone, without those before it, and another seed.
    image, words, _ = render_image(0, 'train', 7, SIZE)
    for quad, word in zip([word.quad for word in words], read_gt(out, 'train', 7), strict=True):
        np.testing.assert_array_equal(quad, word[0])
    other, _, _ = render_image(1, 'train', 7, SIZE)
    assert not np.array_equal(image, other)


def test_quads(rendered):
    """Inside the picture, clockwise from the top left, apart from one another, and of a legible size."""
    out, _ = rendered
    for split, number in all_images():
        quads = [quad for quad, _ in read_gt(out, split, number)]
        for quad, word in read_gt(out, split, number):
            assert (quad >= 0).all() and (quad < SIZE).all()
            assert cv2.contourArea(quad.astype(np.float32), oriented=True) > 0  # clockwise, as y points down
            assert quad[0, 0] < quad[1, 0] and quad[0, 1] < quad[3, 1]
            if word != '###':
                assert quad_height(quad) >= 9  # 10 before the corners were rounded
        shapes = [Polygon(quad) for quad in quads]
        for index, shape in enumerate(shapes):
            for other in shapes[:index]:
                # Rounding to whole pixels may let neighbours touch.
                assert shape.intersection(other).area <= 0.08 * min(shape.area, other.area)


def test_rows_repeat_gt(rendered):
    """Label rows are the legible words' quads, ignore rows the others', each over the picture's size."""
    out, _ = rendered
    seen = {'labels': 0, 'ignore': 0}
    for split, number in all_images():
        gt = read_gt(out, split, number)
        for tree, wanted in (('labels', False), ('ignore', True)):
            quads = [quad / SIZE for quad, word in gt if (word == '###') == wanted]
            rows = read_rows(out, tree, split, number)
            assert (rows[:, 0] == 0).all()
            np.testing.assert_allclose(rows[:, 1:], np.reshape(quads, (-1, 8)), atol=1e-6)
            seen[tree] += len(rows)
    assert seen['labels'] > 3 * sum(COUNTS.values()) and seen['ignore'] > 0


def test_summary_counts_words(rendered):
    out, printed = rendered
    words = [word for split, number in all_images() for _, word in read_gt(out, split, number)]
    hidden = words.count('###')
    assert f"{sum(COUNTS.values())} pictures, {len(words) - hidden} words, {hidden} don't-care regions" in printed


@pytest.mark.parametrize('outline', [0, 2])
@pytest.mark.parametrize('turn', [(0, 0, 0), (35, 10, -12), (-40, -15, 20)])
def test_ink_fills_its_quad(turn, outline):
    """A black word on white, turned in space: no ink outside its quad, and ink at all four of its sides."""
    path = find_fonts()['DejaVuSans'][0]
    glyphs = draw_glyphs('Hedge', path, 60, outline)
    glyphs.x, glyphs.y = 20, 15
    board = Board(glyphs.box[2] + 20, glyphs.box[3] + 15, [glyphs])
    board.paint(glyphs.ink, np.zeros(3, np.float32), glyphs.x, glyphs.y)
    flat = plane_homography(Camera(*turn), board.width, board.height, 800)
    homography = shifted(flat, 320.3, 180.6)
    area, colour, opacity, _ = warp_board(board, homography, SIZE)
    image = np.full((360, 640, 3), 255, np.float32)
    image[area] = image[area] * (1 - opacity[..., None]) + colour

    quad = project(homography, box_corners(*glyphs.box))
    y, x = np.nonzero(image.min(2) < 150)
    pixels = np.c_[x, y] + 0.5  # centres
    assert len(pixels) > 500
    for corner, following in zip(quad, np.roll(quad, -1, 0), strict=True):
        along = (following - corner) / np.linalg.norm(following - corner)
        inward = (pixels - corner) @ np.array([-along[1], along[0]])  # distance from the side, inside positive
        assert -0.5 <= inward.min() <= 1.3


def test_small_faint_and_blurred_words_are_dont_care():
    path = find_fonts()['DejaVuSans'][0]

    def legible(size, ground, colour, blur=0.0, x=100.0):
        glyphs = draw_glyphs('Exit', path, size)
        glyphs.x = glyphs.y = 5
        board = Board(glyphs.box[2] + 5, glyphs.box[3] + 5, [glyphs])
        board.paint(glyphs.ink, np.full(3, colour, np.float32), 5, 5)
        homography = shifted(np.eye(3), x, 100)
        image = np.full((360, 640, 3), ground, np.float32)
        ink = np.zeros((360, 640), np.float32)
        warped = warp_board(board, homography, SIZE)
        if warped is not None:
            area, painted, opacity, letters = warped
            image[area] = image[area] * (1 - opacity[..., None]) + painted
            ink[area] = letters
        words = finished_words(Placed(board, homography, 0.0), image, ink, blur)
        return [word.legible for word in words]

    assert legible(30, 240, 20) == [True]
    assert legible(9, 240, 20) == [False]
    assert legible(30, 120, 135) == [False]
    assert legible(30, 240, 20, blur=6) == [False]
    assert legible(30, 240, 20, x=-30.0) == [False]  # cut by the border
    assert legible(30, 240, 20, x=-200.0) == []  # not in the picture


def test_cut_words_keep_their_visible_part():
    quad = np.array([[-20.0, 10], [30, 12], [30, 40], [-20, 38]])
    cut = visible_quad(quad, SIZE)
    assert cut[:, 0].min() == 0 and cut[:, 0].max() == 30
    assert visible_quad(quad - (100, 0), SIZE) is None


def test_second_run_renders_nothing(rendered):
    out, _ = rendered
    before = {file: file.stat().st_mtime_ns for file in out.rglob('*')}
    done = render(out)
    assert 'complete' in done.stdout
    assert {file: file.stat().st_mtime_ns for file in out.rglob('*')} == before
    other = render(out, '--seed', '5', check=False)
    assert other.returncode == 1 and '--force' in other.stderr and len(other.stderr.splitlines()) == 1


def test_force_and_interrupted_runs_render_anew(tmp_path, monkeypatch):
    out = tmp_path / 'data'

    def run(*options):
        command = ['synthtext.py', '--out', str(out), '--size', '320x180', '--train', '2', '--test', '0', *options]
        monkeypatch.setattr(sys, 'argv', [*command, '--workers', '1'])
        synthtext.main()

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(synthtext, 'render_all', stop)
        with pytest.raises(KeyboardInterrupt):
            run()
    run()
    first = files_of(out)
    assert 'images/train_icdar/img_2.jpg' in first
    (out / 'labels' / 'train_icdar' / 'img_9.txt').write_text('stale')
    run('--force')
    assert files_of(out) == first


def test_a_broken_background_is_told_before_anything_is_drawn(tmp_path):
    (tmp_path / 'photos').mkdir()
    Image.new('RGB', (400, 300)).save(tmp_path / 'photos/good.png')
    (tmp_path / 'photos/broken.png').write_bytes((tmp_path / 'photos/good.png').read_bytes()[:60])
    done = render(tmp_path / 'out', '--style', 'incidental', '--backgrounds', str(tmp_path / 'photos'), check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert '1 of 2 cannot be used, such as' in done.stderr and 'broken.png' in done.stderr
    assert not (tmp_path / 'out').exists()
    photographs, labels = (tmp_path / name for name in ('images', 'labels'))
    labels.mkdir()
    (tmp_path / 'photos').rename(photographs)
    (photographs / 'broken.png').unlink()
    (labels / 'good.txt').write_text('1 0.5 0.5 0.2 0.2\n')  # of another class than text
    done = render(tmp_path / 'out', '--style', 'incidental', '--backgrounds', str(photographs), check=False)
    assert done.returncode == 1 and 'good.txt' in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / 'out').exists()
    done = render(photographs / 'out', '--backgrounds', str(photographs), check=False)
    assert done.returncode == 1 and 'choose another folder' in done.stderr
    (tmp_path / 'fonts').mkdir()
    done = render(tmp_path / 'out', '--fonts', str(tmp_path / 'fonts'), check=False)
    assert done.returncode == 1 and '--fonts: no font for Latin text in' in done.stderr


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / 'thesis.txt').write_text('mine')
    done = render(tmp_path, '--force', check=False)
    assert done.returncode == 1 and 'not made by this script' in done.stderr
    assert files_of(tmp_path) == {'thesis.txt': b'mine'}
    with pytest.raises(UserError, match='is a file'):
        synthtext.read_manifest(tmp_path / 'thesis.txt')


def test_wrong_size_is_a_usage_error(tmp_path):
    assert render(tmp_path / 'x', '--size', 'large', check=False).returncode == 2
    assert not (tmp_path / 'x').exists()


def test_fonts_can_write_all_words():
    families = find_fonts()
    assert len(families) >= 4
    symbols = ''.join(vocabulary())
    for paths in families.values():
        assert all(has_glyph(path, character) for path in paths for character in set(symbols))


def test_demo_yaml_names_what_is_rendered(rendered):
    out, _ = rendered
    demo = yaml.safe_load((ROOT / 'data' / 'demo.yaml').read_text(encoding='utf-8'))
    assert all((out / demo[split]).exists() for split in ('train', 'val', 'test'))
    assert demo['names'] == {0: 'text'} and demo['prepare'].endswith(f'--out {demo["path"]}')
