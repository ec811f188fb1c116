"""Files for phones and examples/phones: ncnn's files against PyTorch, the Kotlin code's words against detect.py's."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.phones import count_same
from models.checkpoint import load_model
from models.errors import UserError
from models.exported import load_detector, sidecar
from ocrdistill.images import upright_rgb
from ocrdistill.letterbox import Letterbox
from ocrdistill.nms import BOX_IOU, QUAD_IOU, UPRIGHT_IOU
from tests.export.test_export import TINY, run_export, save_weights
from tests.support import ROOT
from utils.boxes import non_max_suppression
from utils.export.network import FlatDecoding
from utils.loading.augment import pad_to, resize_long_side
from utils.quads import decode
from utils.runtime.words import megabytes

ANDROID, IOS, FAKES = ROOT / 'examples/phones/android', ROOT / 'examples/phones/ios', ROOT / 'tests/export/phones'


@pytest.fixture(scope='module')
def quad_weights(tmp_path_factory) -> Path:
    """Of a network whose edges are not zero."""
    file = save_weights(tmp_path_factory.mktemp('phones') / 'q.pt', TINY | {'quads': True}, {0: 'text', 1: 'sign'})
    checkpoint = torch.load(file, weights_only=True)
    for name, tensor in checkpoint['model'].items():
        if '.quad.' in name:
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)) / 10)
    torch.save(checkpoint, file)
    return file


@pytest.mark.parametrize('size', [(64, 128), (96, 96)])
def test_flat_decoding_is_decoding(quad_weights, size):
    model = load_model(quad_weights)
    images = torch.rand(1, 3, *size)
    expected = model(images)[0]
    assert expected.shape[2] == 11 and expected[..., 7:].abs().max() > 0.05
    torch.testing.assert_close(FlatDecoding(model, size)(images), expected, rtol=1e-5, atol=1e-4)


@pytest.fixture(scope='module')
def ncnn_file(quad_weights) -> Path:
    pytest.importorskip('pnnx', reason='pnnx is missing: pip install -r requirements-export.txt')
    pytest.importorskip('ncnn', reason='ncnn is missing: pip install -r requirements-export.txt')
    run_export('--weights', quad_weights, '--format', 'ncnn', '--imgsz', 64, 128)
    return quad_weights.with_name('q.ncnn.param')


def test_ncnn_computes_what_pytorch_does(ncnn_file, quad_weights):
    images = torch.rand(2, 3, 64, 128)
    given, expected = load_detector(ncnn_file), load_model(quad_weights)
    assert given.quads and given.nc == 2 and given.conf_threshold == 0.4 and given.input_size == (64, 128)
    torch.testing.assert_close(given(images)[0], expected(images)[0], rtol=1e-4, atol=1e-3)


def test_ncnn_files(ncnn_file):
    names = sorted(file.name for file in ncnn_file.parent.glob('q.ncnn*'))
    assert names == ['q.ncnn.bin', *(f'q.ncnn.param{end}' for end in ('', '.card.md', '.json'))]
    graph = ncnn_file.read_text()
    assert 'images' in graph.splitlines()[2] and ' boxes ' in graph.splitlines()[-1]
    about = json.loads(sidecar(ncnn_file).read_text())
    assert about['imgsz'] == [64, 128] and about['quads'] and about['names'] == {'0': 'text', '1': 'sign'}
    card = ncnn_file.with_name('q.ncnn.param.card.md').read_text()
    assert '| format | ncnn, float32 |' in card and 'largest difference from PyTorch' in card
    assert '`images` (3, H, W)' in card and '`boxes` (M, 11)' in card and 'the four edges of a quad' in card


def test_ncnn_half(ncnn_file, quad_weights):
    run_export('--weights', quad_weights, '--format', 'ncnn', '--imgsz', 64, 128, '--float16')
    half = ncnn_file.with_name('q_half.ncnn.bin')
    assert half.stat().st_size < 0.8 * ncnn_file.with_suffix('.bin').stat().st_size
    assert load_detector(half.with_suffix('.param')).precision == 'float16'


def test_ncnn_refused(ncnn_file, tmp_path):
    param = shutil.copy(ncnn_file, tmp_path / 'x.ncnn.param')
    with pytest.raises(UserError, match='is no export of ours: x.ncnn.param.json'):
        load_detector(param)
    shutil.copy(sidecar(ncnn_file), sidecar(param))
    with pytest.raises(UserError, match='weights are not beside it'):
        load_detector(param)


@pytest.mark.slow
def test_litert_computes_what_pytorch_does(quad_weights):
    pytest.importorskip('litert_torch', reason='litert_torch is missing: pip install litert-torch==0.10.0')
    run_export('--weights', quad_weights, '--format', 'tflite', '--imgsz', 64, 128)
    given, expected = load_detector(quad_weights.with_name('q.tflite')), load_model(quad_weights)
    assert given.quads and given.conf_threshold == 0.4 and given.input_size == (64, 128)
    images = torch.rand(2, 3, 64, 128)
    torch.testing.assert_close(given(images)[0], expected(images)[0], rtol=1e-4, atol=1e-3)
    assert '| format | LiteRT, float32 |' in quad_weights.with_name('q.tflite.card.md').read_text()


def test_phones_and_the_page_have_the_packages_overlaps():
    """Without a compiler too: Kotlin's is seldom here, Swift's never."""
    kotlin, swift, page = (
        (ROOT / 'examples' / file).read_text()
        for file in ('phones/android/Words.kt', 'phones/ios/Words.swift', 'web/detector.js')
    )
    assert f'if (quads) {QUAD_IOU} else {BOX_IOU}' in kotlin and f'(quads ? {QUAD_IOU} : {BOX_IOU})' in swift
    assert all(f'max(overlap, {UPRIGHT_IOU})' in text for text in (kotlin, swift))
    for name, value in (('BOX_IOU', BOX_IOU), ('QUAD_IOU', QUAD_IOU), ('UPRIGHT_IOU', UPRIGHT_IOU)):
        assert f'const {name} = {value};' in page


def test_what_is_missing_is_named(quad_weights, monkeypatch):
    for form, package, where in (
        ('ncnn', 'pnnx', '-r requirements-export.txt'),
        ('tflite', 'litert_torch', 'litert-torch==0.10.0'),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=f'needs the package {package}: pip install {where}'):
            run_export('--weights', quad_weights, '--format', form)


def test_sizes_of_small_files_are_not_zero():
    assert [megabytes(size) for size in (7_083_123, 1494, 16_482)] == ['7.08 MB', '0.0015 MB', '0.016 MB']


def test_the_same_words():
    word = np.array([[10, 20, 50, 40, 0.5, 0]], float)
    for moved, same in (([0.4, 0, 0, 0, 0, 0], 1), ([0, 0.6, 0, 0, 0, 0], 0), ([0, 0, 0, 0, 0.01, 0], 0)):
        assert count_same(word, word + moved) == same
    assert count_same(word, word[:0]) == count_same(word[:0], word) == 0
    quad = np.concatenate((word, [[10, 20, 50, 22, 50, 40, 10, 38]]), 1)
    assert count_same(quad, quad + ([3] * 4 + [0] * 10)) == 1, 'corners are compared, not the box'


@pytest.fixture(scope='module')
def print_words(tmp_path_factory) -> list[str]:
    """The command that runs examples/phones, on stand-ins for Android's classes."""
    found = importlib.util.find_spec('run_kotlin_kernel')
    if found is None or not shutil.which('java'):
        pytest.skip('no Kotlin compiler: pip install kotlin-jupyter-kernel, and Java')
    jars = Path(found.origin).parent / 'jars'
    library = next(jars.glob('kotlin-stdlib-*.jar'))
    built = tmp_path_factory.mktemp('kotlin') / 'words.jar'
    compiler = ['java', '-cp', f'{jars}/*', 'org.jetbrains.kotlin.cli.jvm.K2JVMCompiler', '-no-stdlib', '-no-reflect']
    sources = [*sorted(ANDROID.glob('*.kt')), *sorted(FAKES.glob('*.kt'))]
    subprocess.run([*compiler, '-Werror', '-cp', library, '-d', built, *sources], check=True)
    return ['java', '-cp', f'{built}:{library}', 'PrintWordsKt']


INPUT, CLASSES, THRESHOLD = (96, 160), {'0': 'text', '1': 'sign'}, 0.2  # height and width


def crowded_output(quads: bool) -> np.ndarray:
    """(M, 7 or 11) float32: random rows of a network, most of which overlap others."""
    rng, rows = np.random.default_rng(0), 300
    places = rng.uniform(0, INPUT[::-1], (rows, 2)), rng.uniform(5, 40, (rows, 2))
    edges = [rng.uniform(-0.3, 0.3, (rows, 4))] if quads else []  # convex, as words are
    return np.concatenate((*places, rng.uniform(0, 1, (rows, 3)), *edges), 1).astype(np.float32)


def random_picture(shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 4) uint8 RGBA, partly transparent."""
    rng = np.random.default_rng(1)
    alpha = rng.choice([0, 100, 255], (*shape, 1), p=[0.1, 0.1, 0.8]).astype(np.uint8)
    return np.concatenate((rng.integers(0, 256, (*shape, 3), dtype=np.uint8), alpha), 2)


def check_words(printed: str, decoded: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Compare what a program printed with what detect.py finds in the same output: corners, scores, classes and order,
    and what is drawn. Returns the network's input (H, W, 3) uint8."""
    *lines, drawn = printed.splitlines()
    given, shape = np.array([line.split() for line in lines], float), picture.shape[:2]
    image, quads = upright_rgb(Image.fromarray(picture, 'RGBA')), decoded.shape[1] == 11
    resized = resize_long_side(image, round(min(INPUT[0] / shape[0], INPUT[1] / shape[1]) * max(shape)))
    padded, left, top = pad_to(resized, *INPUT)
    letterbox = Letterbox(resized.shape[1] / shape[1], resized.shape[0] / shape[0], left, top)
    overlap = QUAD_IOU if quads else BOX_IOU
    found = non_max_suppression(torch.from_numpy(decoded)[None], THRESHOLD, overlap, 9999, nc=2, by_quads=True)[0]
    edges = found[:, 6:] if quads else torch.zeros(len(found), 4)
    corners = letterbox.to_image(decode(found[:, :4], edges).flatten(1), *shape)
    box = letterbox.to_image(found[:, :4], *shape)
    expected = torch.cat((corners, found[:, 4:6]), 1)[(box[:, 2:] > box[:, :2]).all(1)].numpy()
    assert len(expected) > 20
    np.testing.assert_allclose(given, expected, atol=1e-2)
    np.testing.assert_allclose(np.array(drawn.split()[1:], float), given[0, :8], atol=1e-6)
    return padded


@pytest.mark.slow
@pytest.mark.parametrize('quads', [True, False])
@pytest.mark.parametrize('shape', [(90, 150), (31, 17), (333, 700)])
def test_kotlin_finds_the_same(print_words, tmp_path, shape, quads):
    decoded, picture = crowded_output(quads), random_picture(shape)
    about = {'format': 'ocrdistill', 'dynamic': False, 'nms': None, 'imgsz': INPUT, 'quads': quads}
    about |= {'names': CLASSES, 'conf_threshold': THRESHOLD}
    (tmp_path / 'metadata.txt').write_text(''.join(f'{key}\t{json.dumps(about[key])}\n' for key in about))
    decoded.astype('>f4').tofile(tmp_path / 'output.bin')
    pixels = (picture[..., [3, 0, 1, 2]].astype(np.uint32) << [24, 16, 8, 0]).sum(2).ravel().astype(np.uint32)
    np.concatenate((shape[::-1], pixels)).astype('>u4').tofile(tmp_path / 'picture.bin')
    done = subprocess.run([*print_words, tmp_path], capture_output=True, text=True, check=True)
    padded = check_words(done.stdout, decoded, picture)
    network_input = np.fromfile(tmp_path / 'input.bin', '>f4').reshape(3, *INPUT)
    assert np.abs(network_input * 255 - padded.transpose(2, 0, 1)).max() < 1.01


@pytest.fixture(scope='module')
def swift_words(tmp_path_factory) -> Path:
    """A program that prints the words which the Swift code finds, compiled on stand-ins for UIKit and ONNX Runtime."""
    if not shutil.which('swiftc'):
        pytest.skip('no Swift compiler (swiftc; Debian has it as swiftlang)')
    place = tmp_path_factory.mktemp('swift')
    for module in ('UIKit', 'OnnxRuntimeBindings'):
        kind = ['-emit-library', '-emit-module', '-parse-as-library', '-module-name', module]
        built = place / f'lib{module}.so'
        beside = ['-emit-module-path', place / f'{module}.swiftmodule']
        subprocess.run(['swiftc', *kind, *beside, '-o', built, FAKES / f'{module}.swift'], check=True)
    modules = ['-I', place, '-L', place, '-lUIKit', '-lOnnxRuntimeBindings', '-Xlinker', '-rpath', '-Xlinker', place]
    sources = [*sorted(IOS.glob('*.swift')), FAKES / 'PrintWords.swift']
    program = place / 'words'
    subprocess.run(['swiftc', '-O', '-parse-as-library', *modules, '-o', program, *sources], check=True)
    return program


def run_swift(program: Path, folder: Path, decoded: np.ndarray, picture: np.ndarray, quads: bool):
    decoded.astype('<f4').tofile(folder / 'output.bin')
    picture.tofile(folder / 'picture.rgba')
    (folder / 'size.txt').write_text(f'{picture.shape[1]} {picture.shape[0]}')
    numbers = (INPUT[1], INPUT[0], len(CLASSES), int(quads), decoded.shape[1])
    return subprocess.run([program, folder, *map(str, numbers)], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize('quads', [True, False])
@pytest.mark.parametrize('shape', [(96, 160), (60, 160), (96, 31), (333, 700)])
def test_swift_finds_the_same(swift_words, tmp_path, shape, quads):
    decoded, picture = crowded_output(quads), random_picture(shape)
    done = run_swift(swift_words, tmp_path, decoded, picture, quads)
    assert done.returncode == 0, done.stderr
    padded = check_words(done.stdout, decoded, picture)
    network_input = np.fromfile(tmp_path / 'input.bin', '<f4').reshape(3, *INPUT)
    if max(shape[0] / INPUT[0], shape[1] / INPUT[1]) == 1:  # nothing is resized, which here is not Apple's work
        assert np.abs(network_input * 255 - padded.transpose(2, 0, 1)).max() < 1.01


@pytest.mark.slow
def test_swift_refuses_a_network_of_other_columns(swift_words, tmp_path):
    done = run_swift(swift_words, tmp_path, crowded_output(quads=False), random_picture((96, 160)), quads=True)
    assert done.returncode and 'otherNetwork' in done.stderr
