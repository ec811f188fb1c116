"""TextDetector on networks whose answers are known, and beside detect.py on the shipped one."""

import copy
import io
import os
import pickle
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import cv2
import numpy as np
import pytest
from PIL import Image

from ocrdistill import TextDetector, Unreadable, UserError, finder
from ocrdistill.detector import network_file
from ocrdistill.files import HAS_HEIF
from ocrdistill.images import pages, read_image
from ocrdistill.inputs import to_image
from ocrdistill.network import OnnxNetwork
from ocrdistill.rows import corners_of
from ocrdistill.sources import read_pages
from tests.support import ROOT
from utils.loading.images import decode_with_opencv, load_image, probe_image

pytest.importorskip('onnx', reason='onnx is missing: pip install -r requirements-export.txt')
pytest.importorskip('onnxruntime', reason='onnxruntime is missing')
from tests.ocrdistill_runtime.networks import write_network  # noqa: E402

# x, y, w, h in pixels of a 672 x 384 input, in which a 640 x 360 image begins at (16, 12); a lean of the upper side.
LEVEL, WEAKER, LEANING = [
    [116, 60, 40, 20, 0.9, 1, 0, 0, 0, 0],
    [116, 61, 40, 20, 0.5, 1, 0, 0, 0, 0],
    [216, 60, 40, 20, 0.35, 1, 0.5, 0.5, 0, 0],
]


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    return write_network(tmp_path_factory.mktemp('network') / 'three.onnx', [LEVEL, WEAKER, LEANING])


@pytest.fixture
def white():
    return np.full((360, 640, 3), 255, np.uint8)


def test_words_by_hand(network, white):
    words = {word.score: word for word in TextDetector(network, size=640)(white)}
    assert sorted(words) == [0.35, 0.9]  # the weaker one lies on a better one
    assert words[0.9].quad.tolist() == [[80, 38], [120, 38], [120, 58], [80, 58]]
    assert words[0.35].quad.tolist() == [[180, 38], [220, 48], [220, 58], [180, 48]]
    assert words[0.35].box.tolist() == [180, 38, 220, 58]
    assert words[0.9].name == 'text' and words[0.9].line in (0, 1) and (words[0.9].image == white).all()
    assert words[0.9].as_dict() == {
        'box': [80, 38, 120, 58],
        'quad': [[80, 38], [120, 38], [120, 58], [80, 58]],
        'score': 0.9,
        'class': 0,
        'name': 'text',
        'line': words[0.9].line,
    }


def test_sizes_have_the_thresholds_that_were_chosen_for_them(network):
    found = {size: TextDetector(network, size=size).threshold for size in ('fast', 'balanced', 'best', 700, 4000)}
    assert found == {'fast': 0.3, 'balanced': 0.4, 'best': 0.5, 700: 0.3, 4000: 0.5}
    assert TextDetector(network, threshold=0.7).threshold == 0.7
    assert TextDetector(network).threshold == found['fast']  # the size that the file was exported for


def test_a_network_without_thresholds_has_a_default(tmp_path, white):
    file = write_network(tmp_path / 'a.onnx', [LEVEL], conf_threshold=None, points={})
    assert TextDetector(file).threshold == 0.25


def test_boxes_without_quads_have_their_corners(tmp_path, white):
    file = write_network(tmp_path / 'a.onnx', [LEVEL[:6]], quads=False)
    (word,) = TextDetector(file, size=640)(white)
    assert word.quad.tolist() == [[80, 38], [120, 38], [120, 58], [80, 58]]


def test_what_is_taken_for_an_image(network, white, tmp_path):
    detector = TextDetector(network, size=640)
    Image.fromarray(white).save(tmp_path / 'a.png')
    content = io.BytesIO()
    Image.fromarray(white).save(content, 'PNG')
    given = [tmp_path / 'a.png', str(tmp_path / 'a.png'), content.getvalue(), Image.fromarray(white), white / 255.0]
    expected = [word.as_dict() for word in detector(white)]
    for words in detector(given):
        assert [word.as_dict() for word in words] == expected
    assert detector([]) == []


def test_arrays_may_be_bgr(network, white):
    """The network finds words in what is red; of grey ground it is less sure."""
    blue = white * np.array([0, 0, 1], np.uint8)
    assert TextDetector(network, size=640, threshold=0.6)(blue) == []
    detector = TextDetector(network, size=640, threshold=0.6, colours='BGR')
    assert len(detector(blue)) == 1 and detector(Image.fromarray(blue)) == []
    assert detector(blue)[0].image[0, 0].tolist() == [255, 0, 0]
    opaque = np.concatenate((blue, np.full_like(blue[..., :1], 255)), 2)
    assert detector(opaque)[0].image[0, 0].tolist() == [255, 0, 0]


def test_a_network_of_one_size_takes_no_other(tmp_path, white, caplog):
    file = write_network(tmp_path / 'fixed.onnx', [LEVEL], dynamic=False, imgsz=[384, 640])
    assert len(TextDetector(file)(white)) == len(TextDetector(file, size='fast')(white)) == 1
    assert not caplog.text
    assert len(TextDetector(file, size='best')(white)) == 1 and 'takes 640 pixels only' in caplog.text


def test_tiles_fit_a_network_that_takes_an_oblong(tmp_path, monkeypatch):
    file = write_network(tmp_path / 'fixed.onnx', [LEVEL], dynamic=False, imgsz=[384, 640])
    seen, real = set(), finder.place
    monkeypatch.setattr(finder, 'place', lambda image, *rest: (seen.add(image.shape[:2]), real(image, *rest))[1])
    TextDetector(file, slice=True)(np.zeros((720, 1280, 3), np.uint8))
    assert seen == {(720, 1280), (384, 384)}


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'model': 'x'}, 'no such file: x'),
        ({'size': 'large'}, "'fast', 'balanced', 'best'"),
        ({'size': 0}, 'size: 0'),
        ({'size': 10**9}, 'size: 1000000000'),
        ({'threshold': 1.5}, 'threshold: 1.5'),
        ({'slice': 3}, 'slice: 3'),
        ({'slice': 0}, 'slice: 0'),
        ({'slice': True, 'size': 1}, 'size: 1, expected 32 pixels at least with slice'),
        ({'max_words': 0}, 'max_words: 0'),
        ({'max_words': -1}, 'max_words: -1'),
        ({'threads': 0}, 'threads: 0'),
        ({'colours': 'rgb'}, "colours: 'rgb'"),
        ({'providers': ['NoSuchProvider']}, 'NoSuchProvider'),
        ({'providers': 'NoSuchProvider'}, 'NoSuchProvider'),
        ({'providers': ('CPUExecutionProvider', {})}, 'expected a name or a pair'),
        ({'providers': [5]}, 'providers: 5'),
        ({'model': None}, 'model: None'),
        ({'size': True}, 'size: True'),
        ({'size': 640.5}, 'size: 640.5'),
        ({'size': np.array([640.0])}, 'size: array'),
        ({'threshold': '0.3'}, "threshold: '0.3'"),
        ({'threshold': float('nan')}, 'threshold: nan'),
        ({'slice': '640'}, "slice: '640'"),
        ({'slice': 300.5}, 'slice: 300.5'),
        ({'max_words': 2.5}, 'max_words: 2.5'),
        ({'threads': '2'}, "threads: '2'"),
        ({'threads': 2**31}, 'threads: 2147483648, expected 1 to 1024'),
        ({'providers': ['']}, "has no '' here"),
    ],
)
def test_mistakes_are_one_line(network, options, words):
    with pytest.raises(UserError, match=words) as error:
        TextDetector(**({'model': network} | options))
    assert len(str(error.value).splitlines()) == 1


def test_a_provider_that_does_not_start_is_told(network, monkeypatch, caplog):
    """ONNX Runtime lists what it was compiled with, and computes on the processor where that does not start."""
    import onnxruntime

    names = ['CUDAExecutionProvider', 'CPUExecutionProvider']
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: names)
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, 'InferenceSession', lambda file, options, providers: session(file, options))
    TextDetector(network, providers=names)
    assert 'CUDAExecutionProvider did not start' in caplog.text and 'CPUExecutionProvider computes' in caplog.text


def test_words_keep_their_image_when_an_array_is_used_again(network, white):
    frame = white.copy()
    words = TextDetector(network, size=640)(frame)
    frame[:] = 0
    assert words and all((word.image == 255).all() for word in words)


def test_numbers_of_numpy_are_taken(network, white):
    options = {'size': np.int64(640), 'threshold': np.float32(0.5), 'max_words': np.int32(3), 'threads': np.int8(1)}
    assert len(TextDetector(network, slice=np.int16(640), **options)(white)) == 1


def test_an_icon_is_no_targa(tmp_path):
    Image.new('RGBA', (128, 128), (255, 0, 0, 255)).save(tmp_path / 'a.ico', sizes=[(128, 128)], bitmap_format='bmp')
    assert to_image(tmp_path / 'a.ico').shape == (128, 128, 3)


@pytest.mark.skipif(sys.platform == 'win32', reason='the stand-in is a shell script')
def test_no_program_runs_for_a_picture(network, tmp_path, monkeypatch):
    """EPS is a program; Pillow would give it to Ghostscript, whatever the file's name."""
    program = tmp_path / 'gs'
    program.write_text(f'#!/bin/sh\ntouch {tmp_path}/it-ran\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    photo = tmp_path / 'photo.jpg'
    photo.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n')
    for image in (photo, photo.read_bytes()):
        with pytest.raises(UserError, match='no image, or of an unknown format'):
            TextDetector(network)(image)
    for read in (load_image, probe_image):
        with pytest.raises((UserError, Unreadable), match='no image, or of an unknown format'):
            read(photo)
    assert not (tmp_path / 'it-ran').exists()


@pytest.mark.parametrize(
    ('image', 'words'),
    [
        (b'text', '4 bytes'),
        (None, 'NoneType'),
        ('no.jpg', 'no.jpg'),
        ('http://a/b.jpg', 'http://a/b.jpg: addresses'),
        (np.zeros(3), 'no image'),
    ],
)
def test_what_is_no_image_is_one_line(network, image, words):
    with pytest.raises(UserError, match=words) as error:
        TextDetector(network)(image)
    assert len(str(error.value).splitlines()) == 1


def test_images_that_break_late_are_one_line(network, tmp_path, white):
    content, pages = io.BytesIO(), io.BytesIO()
    Image.fromarray(white).save(content, 'JPEG')
    Image.fromarray(white).save(pages, 'TIFF', save_all=True, append_images=[Image.fromarray(white)])
    closed = Image.open(io.BytesIO(content.getvalue()))
    closed.close()
    (tmp_path / 'cut.jpg').write_bytes(content.getvalue()[:-400])
    (tmp_path / 'pages.tif').write_bytes(pages.getvalue())
    detector = TextDetector(network)
    for image in (closed, Image.open(tmp_path / 'cut.jpg'), tmp_path / 'pages.tif', pages.getvalue()):
        with pytest.raises(UserError) as error:
            detector(image)
        assert len(str(error.value).splitlines()) == 1


def test_bytes_of_a_photoshop_file(network, tmp_path):
    """Pillow numbers its images from 1."""
    head = b'8BPS' + struct.pack('>H6xHIIHH', 1, 3, 20, 30, 8, 3) + struct.pack('>III', 0, 0, 0) + struct.pack('>H', 0)
    (tmp_path / 'a.psd').write_bytes(head + b'\x80' * 1800)
    assert (to_image((tmp_path / 'a.psd').read_bytes()) == to_image(tmp_path / 'a.psd')).all()


@pytest.mark.parametrize('content', [b'', b'no graph', b'\x08\x07' * 50])
def test_what_is_no_network_is_one_line(tmp_path, content):
    (tmp_path / 'a.onnx').write_bytes(content)
    with pytest.raises(UserError, match='cannot be read as an exported model') as error:
        TextDetector(tmp_path / 'a.onnx')
    assert len(str(error.value).splitlines()) == 1
    (tmp_path / 'a.onnx').rename(tmp_path / 'a.pt')
    with pytest.raises(UserError, match=r'export.py makes .onnx files of checkpoints$'):
        TextDetector(tmp_path / 'a.pt')


@pytest.mark.parametrize(
    'about',
    [
        {'imgsz': [1 << 20, 1 << 20]},
        {'points': {'9' * 401: {'conf_threshold': 0.3, 'word_scale': [1.0, 1.0]}}},
        {'points': {'65536': {'conf_threshold': 0.3, 'word_scale': [1.0, 1.0]}}},
    ],
)
def test_sizes_beyond_any_memory_are_damage(tmp_path, about):
    with pytest.raises(UserError, match='is damaged'):
        TextDetector(write_network(tmp_path / 'a.onnx', [LEVEL], **about))


def test_networks_of_others_and_of_other_shapes_are_refused(tmp_path, white, monkeypatch):
    with pytest.raises(UserError, match='no export of ours'):
        TextDetector(write_network(tmp_path / 'a.onnx', [LEVEL], format='other'))
    with pytest.raises(UserError, match='gives'):
        TextDetector(write_network(tmp_path / 'a.onnx', [LEVEL[:6]]))(white)
    monkeypatch.setattr('ocrdistill.detector.NETWORKS', tmp_path)
    with pytest.raises(UserError, match=r"'s' is not installed \(there: 'a'\)"):
        network_file('s')


def test_threads_share_a_detector(network, white):
    detector = TextDetector(network, size=320)
    images = [white[: 360 - 7 * number] for number in range(16)]
    expected = [[word.as_dict() for word in words] for words in detector(images)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(detector, images))
    assert [[word.as_dict() for word in words] for words in found] == expected


def test_copies_and_pickles_find_the_same(network, white):
    detector = TextDetector(network, size=640, threshold=0.3, max_words=9)
    expected = [word.as_dict() for word in detector(white)]
    for other in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        assert expected and [word.as_dict() for word in other(white)] == expected


def test_words_beyond_the_limit_are_told(network, white, caplog, tmp_path):
    scores = sorted((word.score for word in TextDetector(network, size=640)(white)), reverse=True)
    assert not caplog.records
    few = TextDetector(network, size=640, max_words=len(scores) - 1)(white)
    assert sorted((word.score for word in few), reverse=True) == scores[:-1]
    assert 'an image: as many words as max_words' in caplog.text
    Image.fromarray(white).save(tmp_path / 'a.png')
    TextDetector(network, size=640, max_words=1)([tmp_path / 'a.png'])
    assert f'{tmp_path / "a.png"}: as many words as max_words, 1,' in caplog.text


def test_slices_and_turns(network, white):
    """Every tile and every turn shows the same words to this network; each is told where its view lies."""
    plain, tiles = TextDetector(network, size=320)(white), TextDetector(network, size=320, slice=320)(white)
    assert len(tiles) > len(plain)
    turned = TextDetector(network, size=640, rotate=True)(white)
    corners = np.concatenate([word.quad for word in turned])
    assert len(turned) > 2 and corners.min() >= 0 and (corners.max(0) <= (640, 360)).all()
    assert {tuple(word.quad[1] - word.quad[0]) for word in turned} >= {(40, 0)}


@pytest.mark.parametrize('flags', [{'slice': 320}, {'rotate': True}, {'slice': 320, 'rotate': True}])
def test_a_limit_takes_the_best_of_what_all_views_found(flags):
    picture = ROOT / 'examples/web/example.jpg'
    everything, few = (
        sorted((word.score, *word.box) for word in TextDetector(size='fast', max_words=limit, **flags)(picture))
        for limit in (None, 3)
    )
    assert len(everything) > 10 and few == everything[-3:]


def test_onnx_runtime_counts_nobody():
    """Neither PyTorch nor OpenCV is loaded, and ONNX Runtime's count of uses is off."""
    code = (
        'import os, sys\n'
        'from ocrdistill.network import import_onnxruntime\n'
        'import ocrdistill.detector, ocrdistill.drawing, ocrdistill.sources, ocrdistill.reading.reader\n'
        'import_onnxruntime()\n'
        'assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"\n'
        'assert not {"torch", "cv2", "matplotlib", "tqdm", "yaml"} & sys.modules.keys()\n'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_installed_network_says_where_it_is_from():
    from models.checkpoint import read_checkpoint, restore
    from utils.export.metadata import describe

    checkpoint = read_checkpoint(ROOT / 'weights/ocrdistill-n.pt')
    own = describe(checkpoint, restore(checkpoint), size=(640, 640), dynamic=True, precision='float16')
    source = OnnxNetwork(network_file('n'), 1, None).about.source
    assert source == own['source'] and source['options']['methods'] == 'maps=20'
    assert not {'recipe', 'teacher_weights'} & source['options'].keys()  # which it did not learn from


@pytest.mark.slow
def test_the_installed_network_finds_what_detect_finds():
    """The 50 rendered pictures' words: the same, and their corners less than half a pixel apart. Of two candidates of
    one word whose scores differ by rounding alone either may be kept."""
    from data.synthesis.image import render_image
    from utils.detection.detector import Detector

    runtime = TextDetector(size=640)
    native = Detector(str(ROOT / 'weights/ocrdistill-n.pt'), imgsz=640, device='cpu', amp=False)
    native.conf_thres = runtime.threshold
    candidates = Detector(str(ROOT / 'weights/ocrdistill-n.pt'), imgsz=640, device='cpu', amp=False, iou_thres=1.0)
    pairs = only = 0
    for number in range(50):
        image = np.ascontiguousarray(render_image(0, 'test', number, (640, 480))[0][:, :, ::-1])
        words, rows = runtime(image), native(image)
        quads = corners_of(rows)
        for word in words:
            distance = np.abs(quads - word.quad).max((1, 2)) if len(quads) else np.array([np.inf])
            near = distance.argmin()
            if distance[near] < 0.5:
                pairs += 1
            else:
                only += 1
                every = candidates(image)
                same = every[np.abs(corners_of(every) - word.quad).max((1, 2)) < 0.5, 4]
                tied = len(rows) and (abs(same - rows[near, 4]) < 1e-3).any()
                assert tied or word.score < runtime.threshold + 0.02, (number, word, distance[near])
        only += max(len(rows) - len(words), 0)
    assert pairs > 100 and only <= 0.02 * pairs


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_colours_of_16_bits(tmp_path, suffix):
    """Read as OpenCV reads them, to a step of grey; dark ones, of which Pillow would leave a few bits, are refused."""
    values = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    file = tmp_path / f'deep.{suffix}'
    cv2.imwrite(str(file), values)
    expected = to_image(file, decode_with_opencv)
    for image in (file, file.read_bytes(), Image.open(file)):
        assert np.abs(to_image(image).astype(int) - expected).max() <= 1
    cv2.imwrite(str(file), values >> 4)
    expected = to_image(file, decode_with_opencv)
    assert expected.max() == 255 and (to_image(file.read_bytes(), decode_with_opencv) == expected).all()
    for image in (file, file.read_bytes(), Image.open(file)):
        with pytest.raises(UserError, match='dark colours of 16 bits'):
            to_image(image)


def test_black_drawings_on_transparency_of_16_bits_are_not_dark(tmp_path):
    values = np.zeros((4, 6, 4), np.uint16)
    values[1:3, 2:4, 3] = 65535
    cv2.imwrite(str(tmp_path / 'a.png'), values)
    expected = np.full((4, 6, 3), 255)
    expected[1:3, 2:4] = 0
    for decode in (None, decode_with_opencv):
        assert (to_image(tmp_path / 'a.png', decode) == expected).all()
    values[1, 2, :3] = 4000  # a drawing of 12 bits, perhaps
    cv2.imwrite(str(tmp_path / 'a.png'), values)
    with pytest.raises(UserError, match='dark colours of 16 bits'):
        to_image(tmp_path / 'a.png')


def test_bitmaps_of_five_and_six_bits_may_be_dark(tmp_path):
    """As a camera at night gives them: Pillow's raw mode of these is BGR;16."""
    size, dark = (4, 2), 3 << 11 | 7 << 5 | 2
    masks = struct.pack('<III', 0xF800, 0x07E0, 0x001F)
    info = struct.pack('<IiiHHIIiiII', 40, *size, 1, 16, 3, 16, 0, 0, 0, 0) + masks
    head = b'BM' + struct.pack('<IHHI', 14 + len(info) + 16, 0, 0, 14 + len(info))
    (tmp_path / 'a.bmp').write_bytes(head + info + struct.pack('<H', dark) * 8)
    assert to_image(tmp_path / 'a.bmp')[0, 0].tolist() == [24, 28, 16]


def test_what_is_transparent_in_16_bit_grey_is_white(tmp_path):
    values = np.full((4, 6), 40000, np.uint16)
    values[:, :3] = 0
    Image.fromarray(values).save(tmp_path / 'a.png', transparency=0)
    assert to_image(tmp_path / 'a.png')[0, :, 0].tolist() == [255] * 3 + [156] * 3
    values[:, 3:] = 4000, 4000, 2000  # of 12 bits
    Image.fromarray(values).save(tmp_path / 'a.png', transparency=0)
    assert to_image(tmp_path / 'a.png')[0, :, 0].tolist() == [255] * 3 + [249, 249, 125], 'stretched as others are'


def test_pages_are_counted_up_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr('ocrdistill.images.MAX_PAGES', 3)
    page = Image.new('RGB', (8, 8))
    page.save(tmp_path / 'a.tif', save_all=True, append_images=[page] * 6)
    with monkeypatch.context() as patch:
        patch.setattr('PIL.TiffImagePlugin.TiffImageFile.n_frames', property(lambda _: 1 / 0))
        assert pages(tmp_path / 'a.tif') == [0, 1, 2]
    page.save(tmp_path / 'b.tif')
    assert pages(tmp_path / 'b.tif') == [0]


def test_the_good_pages_of_a_broken_file_are_read(tmp_path, white):
    page = Image.fromarray(white)
    page.save(tmp_path / 'whole.tif', save_all=True, append_images=[page] * 3)
    content = (tmp_path / 'whole.tif').read_bytes()
    (tmp_path / 'cut.tif').write_bytes(content[: len(content) * 6 // 10])
    found = [image for _, image in read_pages(tmp_path / 'cut.tif', PurePosixPath('cut.tif'), {})]
    assert [isinstance(image, Unreadable) for image in found] == [False, False, True, True]
    assert all(np.array_equal(image, white) for image in found[:2])
    assert np.array_equal(read_image(tmp_path / 'cut.tif'), white)


def test_a_lack_of_memory_is_not_called_a_broken_image(tmp_path, monkeypatch, white):
    def fail(*_args):
        raise MemoryError

    Image.fromarray(white).save(tmp_path / 'a.png')
    content = (tmp_path / 'a.png').read_bytes()
    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', fail)
    for image in (tmp_path / 'a.png', content):
        with pytest.raises(UserError, match='there is not enough memory for it'):
            to_image(image)


def test_bytes_of_a_phone_say_what_reads_them(network):
    if HAS_HEIF:
        pytest.skip('pillow-heif is installed')
    with pytest.raises(UserError, match='pillow-heif'):
        TextDetector(network)(b'\0\0\0\x18ftypheic' + b'\0' * 100)
