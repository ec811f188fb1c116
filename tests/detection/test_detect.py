"""detect.py from sources to files, with a small network whose objectness is high enough for boxes to come out."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import detect
from models.checkpoint import save_checkpoint
from models.errors import UserError
from models.yolo import DetectionModel
from ocrdistill.drawing import draw_words
from ocrdistill.errors import Interrupted
from ocrdistill.letterbox import place
from ocrdistill.reading_order import reading_order
from ocrdistill.rows import corners_of
from ocrdistill.sources import find_images
from tests import inputs
from tests.support import ROOT
from utils.detection.detector import Detector
from utils.detection.drawing import annotate
from utils.detection.options import DetectOptions
from utils.loading.images import read_image
from utils.runtime.options import parse


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = DetectionModel(ROOT / 'models' / 'yolov5n.yaml', nc=2)
    model.names = {0: 'text', 1: 'sign/board'}
    for conv in model.head.m:
        bias = conv.bias.data.view(3, -1)
        bias[:, 4] += 6
        bias[:, 5:] = torch.tensor([[6.0, 2.0], [2.0, 6.0], [6.0, 2.0]])  # the anchor decides the class
        conv.weight.data[:] *= 10
    file = tmp_path_factory.mktemp('weights') / 'best.pt'
    save_checkpoint(file, model, model.state_dict(), conf_threshold=0.4)
    return file


@pytest.fixture
def noise():
    rng = np.random.default_rng(0)
    return lambda height, width: rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def run(weights, tmp_path, monkeypatch):
    """Run the command in this process; returns its run folder and whether it ended with a UserError's text."""

    def command(source, *flags, imgsz=96):
        given = ['--weights', weights, '--source', source, '--imgsz', imgsz, '--project', tmp_path / 'runs']
        monkeypatch.setattr(sys, 'argv', ['detect.py', *map(str, given), '--device', 'cpu', *map(str, flags)])
        try:
            detect.main()
            message = None
        except UserError as error:
            message = str(error)
        folders = sorted((tmp_path / 'runs').glob('*'), key=lambda folder: folder.stat().st_mtime_ns)
        return (folders[-1] if folders else None), message

    return command


def save(file: Path, pixels: np.ndarray, **options) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)
    return file


def save_video(file: Path, frames: int, fps: float = 10, codec: str = 'mp4v') -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), fps, (96, 64))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.full((64, 96, 3), number * 20 % 256, np.uint8))
    writer.release()
    return file


def read_json(folder: Path) -> list[dict]:
    return json.loads((folder / 'detections.json').read_text())


def test_files_of_a_picture_agree(run, tmp_path, noise):
    source = save(tmp_path / 'in' / 'a.png', noise(61, 130))
    folder, message = run(source, '--save-json', '--save-txt', '--save-conf', '--save-crop', '--max-det', 20)
    assert message is None
    (entry,) = read_json(folder)
    assert set(entry) == {'image', 'width', 'height', 'detections'}
    assert (entry['image'], entry['width'], entry['height']) == ('a.png', 130, 61)
    found = entry['detections']
    assert 5 < len(found) <= 20
    lines = [d['line'] for d in found]
    assert lines == sorted(lines) and set(lines) == set(range(lines[-1] + 1))
    order = reading_order([d['box'] for d in found])
    assert [word for line in order for word in line] == list(range(len(found)))  # as people read
    assert all(d['score'] >= 0.4 for d in found)  # the checkpoint's own threshold
    assert {d['class'] for d in found} == {0, 1}

    rows = [list(map(float, line.split())) for line in (folder / 'labels' / 'a.txt').read_text().splitlines()]
    assert len(rows) == len(found)
    for number, (row, detection) in enumerate(zip(rows, found, strict=True)):
        assert set(detection) == {'box', 'quad', 'score', 'class', 'name', 'line'}
        x1, y1, x2, y2 = detection['box']
        assert detection['quad'] == [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
        assert 0 <= x1 < x2 <= 130 and 0 <= y1 < y2 <= 61
        x, y, w, h = row[1] * 130, row[2] * 61, row[3] * 130, row[4] * 61
        assert [x - w / 2, y - h / 2, x + w / 2, y + h / 2] == pytest.approx([x1, y1, x2, y2], abs=1e-3)
        assert row[0] == detection['class'] and row[5] == pytest.approx(detection['score'])
        assert detection['name'] == ('text', 'sign/board')[detection['class']]
        crop = Image.open(folder / 'crops' / detection['name'].replace('/', '_') / f'a_{number:03d}.jpg')
        margin = 0.1 * (y2 - y1)
        left, top = max(np.floor(x1 - margin), 0), max(np.floor(y1 - margin), 0)
        assert crop.size == (min(np.ceil(x2 + margin), 130) - left, min(np.ceil(y2 + margin), 61) - top)

    drawn = np.array(Image.open(folder / 'a.png'))
    assert drawn.shape == (61, 130, 3) and not np.array_equal(drawn, np.array(Image.open(source)))


def test_crops_without_a_margin(run, tmp_path, noise):
    source = save(tmp_path / 'in' / 'a.png', noise(61, 130))
    folder, _ = run(source, '--save-json', '--save-crop', '--crop-margin', 0, '--max-det', 3)
    for number, detection in enumerate(read_json(folder)[0]['detections']):
        x1, y1, x2, y2 = detection['box']
        crop = Image.open(folder / 'crops' / detection['name'].replace('/', '_') / f'a_{number:03d}.jpg')
        assert crop.size == (np.ceil(x2) - np.floor(x1), np.ceil(y2) - np.floor(y1))


def test_batches_find_what_single_pictures_give(weights, run, tmp_path, noise):
    """Seven pictures of two shapes in batches of up to three: the same boxes, each with its own picture."""
    for number in range(7):
        save(tmp_path / 'in' / f'{number}.png', noise(64, 96 if number % 3 else 60))
    found = []
    for size in (1, 3):
        folder, message = run(tmp_path / 'in', '--save-json', '--nosave', '--batch-size', size)
        assert message is None
        found.append(read_json(folder))
    for one, many in zip(*found, strict=True):
        assert one['image'] == many['image'] and (one['width'], one['height']) == (many['width'], many['height'])
        boxes, others = ({tuple(np.round(d['box'])) for d in entry['detections']} for entry in (one, many))
        assert len(boxes & others) > 0.9 * len(boxes | others) > 0


def test_slice_and_its_flags(run, tmp_path, noise):
    source = save(tmp_path / 'in' / 'a.png', noise(200, 300))
    folder, message = run(source, '--save-json', '--nosave', '--slice', '--slice-overlap', 0.1, '--max-det', 50)
    assert message is None
    (entry,) = read_json(folder)
    assert 0 < len(entry['detections']) <= 50
    boxes = np.array([d['box'] for d in entry['detections']])
    assert (boxes[:, 2] <= 300).all() and (boxes[:, 3] <= 200).all()
    assert boxes[:, 2].max() > 200 and boxes[:, 3].max() > 104  # of tiles that do not begin at the corner


def test_boxes_follow_the_picture_through_the_letterbox(weights, noise):
    """A box in network pixels returns to where it was, in pictures wider and taller than the network's input."""
    detector = Detector(weights, device='cpu', imgsz=96)
    for height, width in ((50, 200), (300, 70), (96, 96), (1, 400)):
        padded, letterbox = place(noise(height, width), detector.imgsz, detector.stride)
        assert max(padded.shape[:2]) == 128 and all(side % 32 == 0 for side in padded.shape[:2])
        scale = torch.tensor([letterbox.scale_x, letterbox.scale_y] * 2)
        pad = torch.tensor([letterbox.pad_x, letterbox.pad_y] * 2)
        box = torch.tensor([0.0, 0.0, width, height])
        inside = box * scale + pad
        torch.testing.assert_close(letterbox.to_image(inside, height, width), box)
        x1, y1, x2, y2 = inside.round().int().tolist()
        outside = padded.copy()
        outside[y1:y2, x1:x2] = 114
        assert (outside == 114).all()  # all that is not picture is grey


def test_folder_is_mirrored_and_equal_names_never_collide(run, tmp_path, noise):
    for name in ('x/a.jpg', 'y/a.jpg', 'y/a.png', 'y/z/a.JPG', '.hidden/a.jpg', 'x/._a.jpg'):
        save(tmp_path / 'in' / name, noise(40, 60))
    (tmp_path / 'in' / 'notes.md').write_text('no picture')
    folder, message = run(tmp_path / 'in', '--save-json', '--save-txt', '--save-crop', '--max-det', 1)
    assert message is None
    expected = {'x/a.jpg', 'y/a.jpg', 'y/a.png', 'y/z/a.JPG'}
    assert {entry['image'] for entry in read_json(folder)} == expected
    assert all((folder / name).is_file() for name in expected)
    labels = {str(file.relative_to(folder / 'labels')) for file in (folder / 'labels').rglob('*.txt')}
    assert labels == {'x/a.txt', 'y/a.txt', 'y/a.png.txt', 'y/z/a.txt'}
    assert len(list((folder / 'crops').rglob('*.jpg'))) == 4
    assert not list(folder.rglob('*.tmp'))


def test_crops_of_pictures_that_share_a_stem_are_not_mixed(run, tmp_path, noise):
    for name, count in (('a.jpg', 1), ('a.png', 3)):
        save(tmp_path / 'in' / name, noise(40 * count, 60))
    folder, _ = run(tmp_path / 'in', '--save-json', '--save-crop', '--conf-thres', 0.001)
    counts = {entry['image']: len(entry['detections']) for entry in read_json(folder)}
    names = Counter(file.stem.rpartition('_')[0] for file in (folder / 'crops').rglob('*.jpg'))
    assert counts['a.jpg'] and counts['a.png'] != counts['a.jpg']
    assert names == {'a': counts['a.jpg'], 'a.png': counts['a.png']}


def test_the_longest_name_that_a_file_can_have(run, tmp_path, noise):
    save(tmp_path / 'in' / f'{"x" * 251}.png', noise(40, 60))
    folder, message = run(tmp_path / 'in')
    assert message is None and (folder / f'{"x" * 251}.png').is_file()


def test_glob_and_list(run, tmp_path, noise):
    for number in (1, 2, 10):
        save(tmp_path / 'in' / f'img_{number}.bmp', noise(40, 60))
    folder, _ = run(tmp_path / 'in' / 'img_*.bmp', '--save-json', '--nosave')
    assert [entry['image'] for entry in read_json(folder)] == ['img_1.bmp', 'img_2.bmp', 'img_10.bmp']
    assert not list(folder.glob('*.bmp'))

    rows = ['./in/img_10.bmp', '', str(tmp_path / 'in/img_1.bmp'), 'in/missing.jpg', 'in/../in/img_10.bmp']
    (tmp_path / 'list.txt').write_text('\n'.join(rows), encoding='utf-8-sig')
    folder, message = run(tmp_path / 'list.txt', '--save-json')
    assert [entry['image'] for entry in read_json(folder)] == ['img_10.bmp', 'img_1.bmp']
    assert message.startswith('1 of 3') and 'missing.jpg' in message

    (tmp_path / 'list.txt').write_text('in/img_1.bmp\n/mnt/gone/b.jpg\n')
    folder, message = run(tmp_path / 'list.txt', '--save-json')
    assert [entry['image'] for entry in read_json(folder)] == ['img_1.bmp'] and ': mnt/gone/b.jpg' in message


def test_broken_files_are_named_and_the_others_done(run, tmp_path, noise, capsys):
    whole = save(tmp_path / 'in' / 'b.jpg', noise(200, 200)).read_bytes()
    (tmp_path / 'in' / 'a.jpg').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'in' / 'c.png').write_text('no picture')
    (tmp_path / 'in' / 'd.webp').write_bytes(b'')
    (tmp_path / 'in' / 'e.mp4').write_bytes(b'no video')
    folder, message = run(tmp_path / 'in', '--save-json')
    assert [entry['image'] for entry in read_json(folder)] == ['b.jpg']
    assert message.startswith('4 of 5')
    assert all(name in message for name in ('a.jpg', 'c.png', 'd.webp', 'e.mp4'))
    assert 'results in' in capsys.readouterr().out


def test_a_thumbnail_is_no_picture_more(run, tmp_path, noise, capsys):
    (tmp_path / 'in').mkdir()
    inputs.with_thumbnail(tmp_path / 'in/scan.tif', Image.fromarray(noise(200, 200)))
    folder, _ = run(tmp_path / 'in', '--save-json')
    assert [entry['image'] for entry in read_json(folder)] == ['scan.tif'] and '1/1 scan.tif' in capsys.readouterr().out


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:20, :30] = (255, 0, 0)  # red at the top left
    stored = {  # what undoes each of EXIF's turns
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = save(tmp_path / 'a.jpg', np.ascontiguousarray(stored), exif=exif, quality=95, subsampling=0)
    image = read_image(file)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 3


def test_exif_in_detections(run, tmp_path, noise):
    exif = Image.Exif()
    exif[0x0112] = 6
    source = save(tmp_path / 'a.jpg', noise(40, 100), exif=exif)
    folder, _ = run(source, '--save-json')
    (entry,) = read_json(folder)
    assert (entry['width'], entry['height']) == (40, 100)
    assert Image.open(folder / 'a.jpg').size == (40, 100)
    assert max(detection['box'][3] for detection in entry['detections']) > 40


def test_colour_modes_and_depths(tmp_path):
    """Every form of an orange picture reads as orange (or its grey), whatever it is stored as."""
    orange = np.empty((20, 30, 3), np.uint8)
    orange[:] = (240, 120, 40)
    base = Image.fromarray(orange)
    grey = np.full((20, 30), 0x9090, np.uint16)
    clear = base.convert('RGBA')
    clear.putalpha(0)
    base.convert('CMYK').save(tmp_path / 'cmyk.jpg', quality=95)
    base.quantize(4).save(tmp_path / 'palette.png')
    base.convert('RGBA').save(tmp_path / 'rgba.png')
    for suffix in ('webp', 'bmp', 'tiff', 'ppm', 'gif'):
        base.save(tmp_path / f'rgb.{suffix}')
    for suffix in ('png', 'tif'):
        cv2.imwrite(str(tmp_path / f'deep.{suffix}'), orange[..., ::-1].astype(np.uint16) * 257)
    for file in tmp_path.iterdir():
        image = read_image(file)
        assert image.dtype == np.uint8 and image.shape == (20, 30, 3), file
        assert np.abs(image.astype(int) - orange).max() <= 12, file

    clear.save(tmp_path / 'clear.png')
    assert (read_image(tmp_path / 'clear.png') == 255).all()
    Image.fromarray(grey).save(tmp_path / 'grey16.png')
    assert (read_image(tmp_path / 'grey16.png') == 0x90).all()
    base.convert('L').save(tmp_path / 'grey.png')
    assert read_image(tmp_path / 'grey.png').shape == (20, 30, 3)


def test_video(run, tmp_path):
    source = save_video(tmp_path / 'clip.mp4', frames=7)
    folder, message = run(source, '--save-json', '--save-txt', '--vid-stride', 3)
    assert message is None
    assert [entry['image'] for entry in read_json(folder)] == [f'clip.mp4#frame_{n}' for n in (0, 3, 6)]
    assert {file.name for file in (folder / 'labels' / 'clip.mp4').iterdir()} == {f'frame_{n}.txt' for n in (0, 3, 6)}
    written = cv2.VideoCapture(str(folder / 'clip.mp4'))
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert written.get(cv2.CAP_PROP_FRAME_WIDTH) == 96
    assert written.get(cv2.CAP_PROP_FPS) == pytest.approx(10 / 3, abs=0.01)


def test_a_video_of_another_form_in_a_folder(run, tmp_path):
    save_video(tmp_path / 'films/below/clip.mp4', frames=2).rename(tmp_path / 'films/below/clip.avi')
    folder, message = run(tmp_path / 'films')
    assert message is None and (folder / 'below/clip.avi.mp4').is_file()


@pytest.mark.parametrize('fps', [119.987, 899.913])
def test_videos_of_unusual_rates(run, tmp_path, fps):
    source = save_video(tmp_path / 'clip.avi', frames=2, fps=fps, codec='MJPG')
    folder, message = run(source)
    assert message is None and (folder / 'clip.avi.mp4').is_file()


def test_a_video_that_does_not_fit_on_the_disk(run, tmp_path):
    """As a limit on the size of files has it: OpenCV raises nothing, and leaves a file that nothing can play."""
    resource = pytest.importorskip('resource')
    source = save_video(tmp_path / 'clip.mp4', frames=40)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        folder, message = run(source, '--save-json', '--max-det', 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert message.startswith(f'cannot write the video {folder / "clip.mp4"}: of 40 frames it holds 0')
    assert len(read_json(folder)) == 40


@pytest.mark.skipif(sys.platform != 'linux', reason='names of files are UTF-8 elsewhere')
def test_a_video_whose_name_is_not_utf8(run, tmp_path):
    source = save_video(tmp_path / 'clip.mp4', frames=2).rename(os.fsdecode(os.fsencode(tmp_path) + b'/in\xe9.mp4'))
    assert 'must be UTF-8' in run(source)[1]


def test_no_source_is_replaced(run, tmp_path, noise):
    """The copy of p/a.jpg would be p/x/a.jpg, which is another source."""
    save(tmp_path / 'p/a.jpg', noise(40, 60))
    other = save(tmp_path / 'p/x/a.jpg', noise(40, 60))
    before = other.read_bytes()
    _, message = run(tmp_path / 'p/**/*.jpg', '--project', tmp_path / 'p', '--name', 'x', '--exist-ok')
    assert 'is a source' in message and other.read_bytes() == before
    _, message = run(tmp_path / 'p', '--project', tmp_path / 'p', '--name', 'y')
    assert 'p is the source itself' in message and not (tmp_path / 'p/y').exists()
    assert run(tmp_path / 'p', '--project', tmp_path / 'p', '--name', 'y', '--nosave')[1] is None


def test_runs_below_the_source_are_no_sources(run, tmp_path, noise, capsys):
    save(tmp_path / 'p/a.jpg', noise(40, 60))
    for source in ('p', 'p', 'p/**/*.jpg'):
        run(tmp_path / source, '--project', tmp_path / 'p/runs', '--save-json')
        assert [entry['image'] for entry in read_json(max((tmp_path / 'p/runs').iterdir()))] == ['a.jpg']
        said = capsys.readouterr().out
        assert 'left out: 1 .json, 1 .yaml' not in said
    assert 'left out: 2 in folders that are written to' in said
    run(tmp_path / 'p/runs/exp*/*.jpg', '--project', tmp_path / 'p/runs', '--save-json')  # asked for
    assert len(read_json(max((tmp_path / 'p/runs').iterdir()))) == 3


@pytest.mark.parametrize('source', ['link/../a.jpg', 'link/..', 'link/../*.jpg', 'list.txt'])
def test_the_folder_above_a_linked_one_is_that_of_its_target(run, tmp_path, noise, monkeypatch, source):
    """As the system has it; the text alone would name another file, which is also there."""
    save(tmp_path / 'in/a.jpg', noise(40, 60))
    save(tmp_path / 'real/a.jpg', noise(50, 70))
    save(tmp_path / 'far/b.jpg', noise(50, 70))
    (tmp_path / 'real/below').mkdir()
    (tmp_path / 'real/below/more').symlink_to(tmp_path / 'far')
    (tmp_path / 'in/link').symlink_to(tmp_path / 'real/below')
    (tmp_path / 'in/list.txt').write_text('link/../a.jpg\nlink/../below/more/b.jpg\n')
    monkeypatch.chdir(tmp_path / 'in')
    both = source in ('link/..', 'list.txt')
    expected = {'a.jpg': 70} | ({'below/more/b.jpg': 70} if both else {})
    folder, message = run(source, '--save-json')
    assert message is None and {entry['image']: entry['width'] for entry in read_json(folder)} == expected
    if '*' not in source and source != 'list.txt':
        found, _ = find_images([source])
        assert {str(name): Image.open(file).width for name, file in found.items()} == expected


def test_three_files_of_one_name(run, tmp_path, noise):
    for name in ('a.png.jpg', 'a.jpg', 'a.png'):
        save(tmp_path / 'in' / name, noise(40, 60))
    (tmp_path / 'list.txt').write_text('in/a.png.jpg\nin/a.jpg\nin/a.png\n')
    folder, message = run(tmp_path / 'list.txt', '--save-txt', '--nosave')
    assert message is None and len(list((folder / 'labels').iterdir())) == 3


@pytest.mark.parametrize('signals', [True, False])
def test_a_webcam_that_ends_otherwise(run, tmp_path, monkeypatch, signals, capsys):
    clip = save_video(tmp_path / 'clip.mp4', frames=5)

    class Webcam:
        """Plays a clip; then it is gone, or SIGTERM comes."""

        def __init__(self, number):
            self.clip = real(str(clip))

        def __getattr__(self, name):
            return getattr(self.clip, name)

        def grab(self):
            found = self.clip.grab()
            if signals and not found:
                raise Interrupted(signal.SIGTERM)
            return found

    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, 'VideoCapture', Webcam)
    if signals:
        with pytest.raises(Interrupted):
            run('0')
        return
    _, message = run('0', '--save-json')
    assert message is None and 'webcam_0 gave no more frames after 5' in capsys.readouterr().err


def test_webcam_ends_with_ctrl_c(run, tmp_path, monkeypatch):
    clip = save_video(tmp_path / 'clip.mp4', frames=5)
    opened = []

    class Webcam:
        """Plays a clip, then Ctrl-C."""

        def __init__(self, number):
            opened.append(number)
            self.clip = real(str(clip))

        def __getattr__(self, name):
            return getattr(self.clip, name)

        def grab(self):
            if not self.clip.grab():
                raise KeyboardInterrupt
            return True

    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, 'VideoCapture', Webcam)
    folder, message = run('0', '--save-json')
    assert message is None and opened[0] == 0
    assert [entry['image'] for entry in read_json(folder)] == [f'webcam_0#frame_{n}' for n in range(5)]
    assert real(str(folder / 'webcam_0.mp4')).get(cv2.CAP_PROP_FRAME_COUNT) == 5


def test_run_folders_and_exist_ok(run, tmp_path, noise):
    source = save(tmp_path / 'a.jpg', noise(40, 60))
    names = [run(source)[0].name, run(source)[0].name, run(source, '--exist-ok')[0].name]
    assert names[:2] == ['exp', 'exp2'] and not (tmp_path / 'runs' / 'exp3').exists()
    before = source.read_bytes()
    _, message = run(source, '--project', tmp_path.parent, '--name', tmp_path.name, '--exist-ok')
    assert 'overwritten' in message and source.read_bytes() == before


def test_classes(run, tmp_path, noise):
    source = save(tmp_path / 'a.png', noise(64, 96))

    def found(*flags):
        folder, _ = run(source, '--save-json', *flags)
        rows = read_json(folder)[0]['detections']  # in reading order, which depends on what else is there
        return sorted(((d['score'], d['class'], d['box']) for d in rows), reverse=True)

    everything = found()
    chosen = [row for row in everything if row[1] == 1]
    assert found('--classes', 1) == chosen
    best = found('--classes', 1, '--max-det', 3)  # which of two with one score is left to NMS
    assert set(map(str, best)) <= set(map(str, chosen)) and [row[0] for row in best] == [row[0] for row in chosen[:3]]
    assert len(found('--conf-thres', 0.99999)) == 0
    assert len(found('--iou-thres', 0.1)) < len(everything)
    assert 'classes 0 to 1' in run(source, '--classes', 2)[1]


def test_user_errors(run, tmp_path, noise, monkeypatch):
    (tmp_path / 'empty').mkdir()
    image = save(tmp_path / 'a.jpg', noise(40, 60))
    (tmp_path / 'bad.mp4').write_bytes(b'no video')
    assert 'no such source' in run(tmp_path / 'nowhere')[1]
    assert 'no images' in run(tmp_path / 'empty')[1]
    assert 'no such source' in run('')[1]
    assert 'no such source' in run('20240131123456')[1]  # no webcam has such a number
    assert '--vid-stride' in run(image, '--vid-stride', 2)[1]
    assert not (tmp_path / 'runs').exists()  # nothing is made before all is known to be there
    assert 'bad.mp4' in run(tmp_path / 'bad.mp4')[1]
    assert 'no such checkpoint' in run(image, '--weights', tmp_path / 'no.pt')[1]
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert '--device cpu' in run(image, '--device', '0')[1]
    monkeypatch.setenv('QT_QPA_PLATFORM', 'no such platform')
    assert '--show' in run(image, '--show')[1]


@pytest.mark.parametrize(
    'flags',
    [
        ['--save-conf'],
        ['--nosave', '--hide-labels'],
        ['--show-conf', '--hide-conf'],
        ['--nosave', '--line-thickness', '2'],
        ['--conf-thres', '1.5'],
        ['--iou-thres', 'nan'],
        ['--imgsz', '0'],
        ['--max-det', 'x'],
        ['--crop-margin', '0.1'],
        ['--slice-overlap', '0.1'],
        ['--slice', '--slice-overlap', '0.95'],
        ['--batch-size', '0'],
        ['--no-such-flag'],
    ],
)
def test_useless_flags_are_refused(flags, capsys):
    with pytest.raises(SystemExit) as end:
        parse(DetectOptions, None, ['--weights', 'w.pt', '--source', 'x', *flags])
    assert end.value.code == 2
    flag = [text for text in flags if text.startswith('--')][-1]
    line = capsys.readouterr().err.splitlines()[-1]  # before it the usage, which names all flags
    assert flag in line and ('unrecognized' in line) == (flag == '--no-such-flag')


def test_labels_stay_inside_the_picture():
    image = np.full((60, 200, 3), 50, np.uint8)
    green = [(0, 255, 0)]
    for quad in corners_of(np.array([[0, 0, 20, 10], [190, 50, 200, 60], [100, 2, 140, 30]])):
        plain = draw_words(image, quad[None], green)
        drawn = draw_words(image, quad[None], green, ['text 0.99'])
        label = (plain != drawn).any(-1)
        rows, columns = np.nonzero(label)
        assert columns.max() - columns.min() > 40 and rows.max() - rows.min() > 8  # whole, not cut at an edge
    assert (image == 50).all()
    tiny = draw_words(np.zeros((8, 8, 3), np.uint8), corners_of(np.array([[1, 1, 6, 6]])), green, ['text 0.99'])
    assert tiny.shape == (8, 8, 3) and tiny.any()  # the box without its label
    assert (draw_words(image, np.zeros((0, 4, 2)), []) == image).all()


def test_slow_packages_stay_out(weights, tmp_path, noise):
    """The first result comes within a second of importing torch only while these are not imported on the way."""
    source = save(tmp_path / 'a.png', noise(40, 60))
    code = (
        'import sys, detect\n'
        'detect.main()\n'
        'slow = {"matplotlib", "scipy", "tensorboard", "shapely", "torchvision", "torch._dynamo"}\n'
        'assert not slow & sys.modules.keys(), slow & sys.modules.keys()'
    )
    flags = ['--weights', weights, '--source', source, '--project', tmp_path / 'runs', '--device', 'cpu']
    command = [sys.executable, '-c', code, *map(str, flags), '--save-json']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def start(weights, source, project, *flags):
    command = [sys.executable, ROOT / 'detect.py', '--weights', weights, '--source', source, '--project', project]
    command += ['--imgsz', '96', '--device', 'cpu', *flags]
    environment = {**os.environ, 'PYTHONUNBUFFERED': '1', 'OMP_NUM_THREADS': '1'}
    pipe = subprocess.PIPE
    return subprocess.Popen(list(map(str, command)), stdout=pipe, stderr=pipe, text=True, env=environment)


def test_exit_status_and_one_line_of_error(weights, tmp_path, noise):
    save(tmp_path / 'in' / 'a.jpg', noise(40, 60))
    (tmp_path / 'in' / 'b.jpg').write_text('no picture')
    process = start(weights, tmp_path / 'in', tmp_path / 'runs', '--save-json')
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1 and 'b.jpg' in errors
    assert len(read_json(tmp_path / 'runs' / 'exp')) == 1 and '\n1 image, ' in output


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interruption_keeps_what_is_done(weights, tmp_path, number):
    save_video(tmp_path / 'clip.mp4', frames=1500)
    process = start(weights, tmp_path / 'clip.mp4', tmp_path / 'runs', '--save-json', '--save-txt')
    labels = tmp_path / 'runs' / 'exp' / 'labels' / 'clip.mp4'
    deadline = time.monotonic() + 120
    while not (labels.is_dir() and len(list(labels.iterdir())) > 5) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    assert 'Traceback' not in errors
    entries = read_json(tmp_path / 'runs' / 'exp')
    assert 5 < len(entries) < 1500
    video = cv2.VideoCapture(str(tmp_path / 'runs' / 'exp' / 'clip.mp4'))
    assert abs(video.get(cv2.CAP_PROP_FRAME_COUNT) - len(entries)) <= 1


def test_scores_names_and_colours_of_what_is_drawn():
    image, names = np.full((80, 200, 3), 128, np.uint8), {0: 'text', 1: 'sign'}
    rows = np.array([[20, 30, 80, 50, 0.95, 0], [120, 30, 180, 50, 0.05, 1]], np.float32)

    def drawn(*flags: str, names=names) -> np.ndarray:
        return annotate(image, rows, names, parse(DetectOptions, None, ['--source', 'a.jpg', *flags])).astype(int)

    named = drawn()
    without = drawn('--hide-labels')
    assert (named != without).any() and (drawn('--hide-conf') == named).all()
    assert (drawn('--show-conf', '--hide-labels') != without).any() and (drawn('--show-conf') != named).any()
    one = drawn(names={0: 'text'})
    assert (one != drawn('--show-conf', names={0: 'text'})).any()
    sure, unsure = one[30, 50], one[30, 150]  # on the upper sides
    assert sure[1] > sure[0] + 50 and unsure[0] > unsure[1] + 50, 'sure is green, unsure is red'


def test_a_bar_takes_the_place_of_lines_from_twenty_sources_on(run, tmp_path, noise, capsys):
    for number in range(20):
        save(tmp_path / f'photos/{number:02}.jpg', noise(32, 48))
    run(tmp_path / 'photos', '--nosave')
    said = capsys.readouterr().out
    assert '07.jpg' not in said and '20 images' in said
    (tmp_path / 'photos/19.jpg').unlink()
    run(tmp_path / 'photos', '--nosave')
    assert '07.jpg' in capsys.readouterr().out
