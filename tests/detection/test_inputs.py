"""detect.py and Detector on what people have in hand: counts add up, and what is refused is refused in one line."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from models.errors import UserError
from ocrdistill.files import HAS_HEIF, IMAGE_SUFFIXES
from tests.detection.test_detect import noise, read_json, run, save, weights  # noqa: F401  fixtures
from tests.inputs import detect_inputs
from tests.support import ROOT, run_here
from utils.detection.detector import Detector
from utils.loading.images import read_image

heic_is_unknown = pytest.mark.skipif(HAS_HEIF, reason='pillow-heif is installed')


@heic_is_unknown
def test_read_and_left_out_are_all_that_is_there(run, tmp_path, capsys):  # noqa: F811
    folder, message = run(detect_inputs.build(tmp_path), '--save-json', '--save-txt')
    entries = {entry['image']: (entry['width'], entry['height']) for entry in read_json(folder)}
    assert entries == detect_inputs.IMAGES
    assert all((folder / name).is_file() or (folder / f'{name}.png').is_file() for name in entries)
    assert len(list((folder / 'labels').rglob('*.txt'))) == len(entries)

    said = capsys.readouterr().out
    assert said.count('left out') == 1 and 'pip install pillow-heif' in said
    assert all(f'{count} {kind}' in said for kind, count in detect_inputs.LEFT_OUT.items())
    assert f'\n{len(entries)} images, ' in said
    unreadable = detect_inputs.UNREADABLE
    assert message.startswith(f'{len(unreadable)} of {len(entries) + len(unreadable)} could not be read')
    assert all(name in message for name in unreadable)


@heic_is_unknown
def test_a_folder_of_heic_alone_names_what_reads_it(run, tmp_path):  # noqa: F811
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'a.heic').write_bytes(b'....ftypheic')
    message = run(tmp_path / 'in')[1]
    assert message.startswith('no images in') and '1 .heic' in message and 'pip install pillow-heif' in message


def test_every_suffix_that_is_read_gets_an_annotated_copy(run, tmp_path, noise):  # noqa: F811
    written = []
    for suffix in sorted(IMAGE_SUFFIXES - {'.heic', '.heif', '.mpo'}):
        image = Image.fromarray(noise(40, 60)).convert('1' if suffix == '.pbm' else 'RGB')
        (tmp_path / 'in').mkdir(exist_ok=True)
        form = {'.apng': 'PNG', '.jfif': 'JPEG', '.jpe': 'JPEG', '.dib': 'DIB', '.pbm': 'PPM', '.pnm': 'PPM'}
        image.save(tmp_path / 'in' / f'{suffix[1:]}{suffix}', form.get(suffix))
        written.append(f'{suffix[1:]}{suffix}')
    folder, message = run(tmp_path / 'in', '--save-json')
    assert message is None
    assert sorted(entry['image'] for entry in read_json(folder)) == sorted(written)
    for name in written:
        copy = folder / name if (folder / name).is_file() else folder / f'{name}.png'
        assert read_image(copy).shape == (40, 60, 3), name


def test_a_glob_through_a_loop_of_links_finds_each_file_once(run, tmp_path):  # noqa: F811
    place = detect_inputs.build(tmp_path)
    folder, _ = run(f'{place}/**/*.png', '--save-json')
    assert [entry['image'] for entry in read_json(folder)] == ['more/z.png']


@pytest.mark.parametrize('ends', ['\n', '\r', '\r\n'])
def test_lists_as_windows_writes_them(run, tmp_path, noise, ends, capsys):  # noqa: F811
    for name in ('a', 'b'):
        save(tmp_path / 'photos' / 'x' / f'{name}.png', noise(40, 60))
    rows = ['photos\\x\\b.png', 'photos\\x\\a.png', './photos/x/b.png', '']
    (tmp_path / 'list.txt').write_bytes(ends.join(rows).encode('utf-16'))
    folder, message = run(tmp_path / 'list.txt', '--save-json')
    assert message is None
    assert [entry['image'] for entry in read_json(folder)] == ['b.png', 'a.png']
    assert 'left out: 1 of 3 rows' in capsys.readouterr().out


def test_a_text_that_is_no_list_says_so(run, tmp_path):  # noqa: F811
    (tmp_path / 'label.txt').write_text('0 0.5 0.5 0.1 0.1\n')
    (tmp_path / 'empty.txt').write_text('\n')
    message = run(tmp_path / 'label.txt')[1]
    assert 'is no list of images' in message and '0 0.5 0.5' in message
    assert 'is an empty list' in run(tmp_path / 'empty.txt')[1]


def test_a_limit_that_was_reached_is_told(run, tmp_path, noise, capsys):  # noqa: F811
    source = save(tmp_path / 'in' / 'a.png', noise(61, 130))
    save(tmp_path / 'in' / 'b.png', noise(61, 130))
    folder, _ = run(source, '--save-json')
    assert 'warning' not in capsys.readouterr().err
    count = len(read_json(folder)[0]['detections'])
    for flags, words in ((['--max-det', count - 1], f'a.png and 1 more: as many boxes as --max-det {count - 1}'),):
        run(tmp_path / 'in', '--save-json', *flags)
        err = capsys.readouterr().err
        assert words in err and len(err.splitlines()) == 1
    run(source, '--max-det', 10**30)
    assert 'warning' not in capsys.readouterr().err


def test_default_limits_fit_text(run, tmp_path, noise, monkeypatch):  # noqa: F811
    seen = []
    real = Detector.__init__

    def remember(self, *args, **options):
        seen.append(options['max_det'])
        real(self, *args, **options)

    monkeypatch.setattr(Detector, '__init__', remember)
    source = save(tmp_path / 'a.png', noise(40, 60))
    run(source)
    run(source, '--slice')
    run(source, '--slice', '--max-det', 7)
    assert seen == [1000, 3000, 7]


def test_a_video_that_is_cut_short_gives_both_numbers(run, tmp_path, capsys):  # noqa: F811
    source = detect_inputs.build_cut_video(tmp_path / 'clip.avi', 40)
    folder, message = run(source, '--save-json', '--vid-stride', 2)
    frames = read_json(folder)
    assert message is None and 5 < len(frames) < 20
    (warning,) = capsys.readouterr().err.splitlines()
    read, named = map(int, re.findall(r'(\d+) frames could be read, its header names (\d+)', warning)[0])
    assert named == 40 and len(frames) == -(-read // 2)


def test_words_and_times_of_the_report(run, tmp_path, noise, capsys):  # noqa: F811
    """One is singular; images that go through the network together have no times of their own."""
    source = save(tmp_path / 'in' / 'a.png', noise(40, 60))
    run(source, '--max-det', 1)
    first, last = capsys.readouterr().out.splitlines()[:2]
    assert re.fullmatch(r'1/1 a\.png: 1 object, (\d\d+|\d\.\d) ms', first), first
    assert last.startswith('1 image, 1 object (')
    save(tmp_path / 'in' / 'b.png', noise(40, 60))
    run(tmp_path / 'in', '--max-det', 2)
    assert capsys.readouterr().out.splitlines()[:3] == [
        '1/2 a.png: 2 objects',
        '2/2 b.png: 2 objects',
        '2 images, 4 objects (confidence 0.4 or more)',
    ]


def test_coordinates_of_tiles_are_rounded(run, tmp_path, noise):  # noqa: F811
    folder, _ = run(save(tmp_path / 'a.png', noise(200, 300)), '--slice', 100, '--save-json')
    text = (folder / 'detections.json').read_text()
    boxes = [number for d in read_json(folder)[0]['detections'] for number in d['box']]
    assert len(boxes) > 100 and all(number == round(number, 2) for number in boxes)
    assert not re.search(r'\d\.\d{6,}', text)


def test_numbers_beyond_any_memory_get_a_line(run, tmp_path, noise):  # noqa: F811
    source = save(tmp_path / 'a.png', noise(40, 60))
    assert '--slice 1: tiles of 32 pixels' in run(source, '--slice', 1)[1]
    assert '--slice 1: tiles of 32 pixels' in run(source, '--slice', '--imgsz', 1)[1]
    assert run(source, '--line-thickness', 10**12)[1] is None


@pytest.mark.parametrize('script', ['detect.py', 'val.py', 'train.py', 'export.py'])
def test_an_image_size_beyond_any_memory_gets_a_line(script):
    given = ['--source', 'x'] if script == 'detect.py' else []
    given += [] if script == 'train.py' else ['--weights', 'x.pt']
    done = run_here(script, *given, '--imgsz', 64_000_000)
    assert done.returncode == 2 and '--imgsz' in done.stderr.splitlines()[-1] and 'Traceback' not in done.stderr


@pytest.fixture(scope='module')
def detector(weights):  # noqa: F811
    return Detector(weights, device='cpu', imgsz=96)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'max_det': -1}, 'max_det: -1, expected at least 1'),
        ({'max_det': True}, 'max_det: True'),
        ({'conf_thres': 33}, 'conf_thres: 33, expected 0 to 1'),
        ({'conf_thres': float('nan')}, 'conf_thres: nan'),
        ({'iou_thres': 45}, 'iou_thres: 45, expected 0 to 1'),
        ({'imgsz': -320}, 'imgsz: -320, expected 1 to 32768'),
        ({'imgsz': '320'}, "imgsz: '320'"),
        ({'imgsz': 320.0}, 'imgsz: 320.0'),
        ({'classes': 3}, 'classes: 3, expected a list of numbers'),
        ({'classes': ['text']}, 'expected a list of numbers'),
        ({'device': 99}, '99'),
    ],
)
def test_a_detector_refuses_what_detect_py_refuses(weights, options, words):  # noqa: F811
    with pytest.raises(UserError, match=words):
        Detector(weights, **({'device': 'cpu'} | options))


def test_a_detector_takes_numbers_of_numpy(weights, noise):  # noqa: F811
    numbers = {
        'imgsz': np.int64(96),
        'conf_thres': np.float32(0.5),
        'iou_thres': np.float64(0.4),
        'max_det': np.int8(2),
    }
    assert len(Detector(weights, device='cpu', **numbers)(noise(50, 70))) == 2


def test_a_detector_takes_paths_pil_images_and_arrays(detector, tmp_path, noise):  # noqa: F811
    pixels = noise(50, 70)
    expected = detector(pixels)
    file = save(tmp_path / 'a.png', pixels)
    alpha = np.full((50, 70, 1), 255, np.uint8)
    same = [
        file,
        str(file),
        Image.fromarray(pixels),
        Image.open(file),
        pixels / 255,
        (pixels / 255).astype(np.float32),
        pixels / 255 * 1.0009,
    ]
    same += [np.concatenate((pixels, alpha), 2), np.asfortranarray(pixels)]
    assert len(expected) > 3
    for image in same:
        np.testing.assert_array_equal(detector(image), expected)
    grey = pixels[..., 0]
    expected = detector(np.stack((grey, grey, grey), 2))
    for image in (grey, grey[..., None], Image.fromarray(grey)):
        np.testing.assert_array_equal(detector(image), expected)
    clear = np.concatenate((pixels, alpha * 0), 2)
    np.testing.assert_array_equal(detector(clear), detector(np.full_like(pixels, 255)))


def test_a_detector_turns_pil_images_as_it_turns_files(detector, tmp_path, noise):  # noqa: F811
    exif = Image.Exif()
    exif[0x0112] = 6
    file = save(tmp_path / 'a.png', noise(50, 70), exif=exif)
    np.testing.assert_array_equal(detector(Image.open(file)), detector(file))
    assert detector(file)[:, 3].max() > 60


@pytest.mark.parametrize(
    ('image', 'words'),
    [
        (np.zeros((0, 5, 3), np.uint8), 'without pixels'),
        (Image.new('RGB', (0, 5)), 'without pixels'),
        (np.zeros((3, 50, 70), np.uint8), 'is no image'),
        (np.zeros((1, 50, 70, 3), np.uint8), 'is no image'),
        (np.zeros(5, np.uint8), 'is no image'),
        (np.full((5, 5, 3), 200.0), 'from 200 to 200 is no image'),
        (np.full((5, 5, 3), -1.0), 'is no image'),
        (np.full((5, 5, 3), np.nan), 'is no image'),
        (np.zeros((5, 5, 3), np.int64), 'array of int64 is no image'),
        (torch.zeros(3, 50, 70), 'Tensor is no image'),
        (None, 'NoneType is no image'),
        ([np.zeros((5, 5, 3), np.uint8)], 'list is no image'),
        ('no/such.jpg', 'no/such.jpg'),
        (ROOT, 'cannot be read'),
    ],
)
def test_a_detector_refuses_what_is_no_image_in_one_line(detector, image, words):
    with pytest.raises(UserError, match=words) as error:
        detector(image)
    assert len(str(error.value).splitlines()) == 1


def test_a_detector_refuses_files_of_several_images(detector, tmp_path):
    place = detect_inputs.build(tmp_path)
    with pytest.raises(UserError, match='scan.tif holds 3 images'):
        detector(place / 'scan.tif')
    assert len(detector(read_image(place / 'scan.tif', 2))) > 0
    with pytest.raises(UserError, match='expected a list of images, got ndarray'):
        detector.find(np.zeros((5, 5, 3), np.uint8))


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        ("UserError('wrong')", 'error: wrong'),
        (
            'RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried to allocate 1 bytes")',
            'ran out of memory',
        ),
        ('MemoryError()', 'the machine ran out of memory'),
        ('RuntimeError("CUDA error: out of memory")', 'the GPU ran out of memory'),
        ('RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")', 'the GPU ran out of memory'),
    ],
)
def test_errors_stand_on_a_line_of_their_own(error, line):
    code = (
        'from tqdm import tqdm\n'
        'from models.errors import UserError\n'
        'from utils.runtime.cli import run_command\n'
        'def main():\n'
        '    for _ in tqdm(range(10)):\n'
        f'        raise {error}\n'
        'run_command(main)'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stderr.rstrip('\n').split('\n')[-1]
    assert done.returncode == 1 and last.startswith('error: ') and line in last and '\r' not in last
