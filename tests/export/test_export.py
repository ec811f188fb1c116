"""export.py's files against PyTorch: outputs, metadata, NMS; detect.py and val.py on them; what is refused."""

import json
import math
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import detect
import export
import val
from models.checkpoint import load_model, save_checkpoint
from models.errors import UserError
from models.exported import default_device, load_detector, long_side
from models.yolo import DetectionModel
from ocrdistill import TextDetector
from ocrdistill.letterbox import place
from ocrdistill.rows import corners_of
from tests.support import ROOT, run_here, small_cfg
from utils.boxes import non_max_suppression
from utils.detection.detector import Detector
from utils.export import card
from utils.export.check import OutputDifference, best_of_classes, compare
from utils.export.check import place as place_image
from utils.quads import decode

onnx = pytest.importorskip('onnx', reason='onnx is missing: pip install -r requirements-export.txt')
onnxruntime = pytest.importorskip('onnxruntime', reason='onnxruntime is missing')
pytest.importorskip('onnxscript', reason='onnxscript is missing')
pytest.importorskip('onnxslim', reason='onnxslim is missing')
# As models.exported does: no report of its use to anybody.
sys.modules.setdefault('openvino_telemetry', None)
pytest.importorskip('openvino', reason='openvino is missing')

# Every kind of layer once; a fraction of the time that the exporter takes for a whole YOLOv5.
TINY = {
    'nc': 1,
    'depth_multiple': 0.33,
    'width_multiple': 0.25,
    'anchors': [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]],
    'backbone': [
        [-1, 1, 'Conv', [32, 6, 2, 2]],
        [-1, 1, 'Conv', [32, 3, 2]],
        [-1, 1, 'Conv', [32, 3, 2]],
        [-1, 1, 'C3', [32]],
        [-1, 1, 'Conv', [32, 3, 2]],
        [-1, 1, 'Conv', [64, 3, 2]],
        [-1, 1, 'SPPF', [64, 5]],
    ],
    'head': [
        [-1, 1, 'nn.Upsample', [None, 2, 'nearest']],
        [[-1, 4], 1, 'Concat', [1]],
        [[3, 8, 6], 1, 'Detect', ['nc', 'anchors']],
    ],
}


def save_weights(file: Path, cfg, names: dict[int, str], quads: bool = True, **more) -> Path:
    """A random network whose objectness is high enough for boxes to come out."""
    torch.manual_seed(0)
    model = DetectionModel(cfg, nc=len(names), quads=quads)
    model.names = names
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):  # signals pass through all layers, so that cells differ
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
        if isinstance(module, torch.nn.BatchNorm2d):  # not the identity, so that fusing matters
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for conv in model.head.m:
        conv.bias.data.view(3, -1)[:, 4:] = 1
        conv.weight.data *= 5
    for conv in model.head.quad if quads else ():
        conv.bias.data.normal_()
    options = {'data': 'data/some.yaml', 'weights': '/home/someone/start.pt', 'epochs': 3, 'imgsz': 96}
    metrics = {'map50': 0.4321, 'map50_95': 0.2, 'precision': 0.5, 'recall': math.nan, 'icdar_hmean': 0.3456}
    entries = {'conf_threshold': 0.4, 'word_scale': [0.9, 0.8], 'options': options, 'metrics': metrics, 'epoch': 2}
    save_checkpoint(file, model, model.state_dict(), **entries, **more)
    return file


def run_export(*arguments) -> None:
    """The command, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['export.py', *map(str, arguments)])
        export.main()


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('export')


@pytest.fixture(scope='module')
def weights(folder) -> Path:
    return save_weights(folder / 'best.pt', TINY, {0: 'text'})


@pytest.fixture(scope='module')
def dynamic_onnx(folder) -> Path:
    """Of a whole YOLOv5-N for two classes, any size."""
    run_export('--weights', save_weights(folder / 'two.pt', small_cfg(nc=2), {0: 'text', 1: 'sign'}), '--dynamic')
    return folder / 'two.onnx'


FLAGS = {
    'onnx, 64x128': ('best.onnx', ('--imgsz', 64, 128)),
    'openvino': ('best.xml', ('--format', 'openvino', '--dynamic')),
    'torchscript': ('best.torchscript', ('--format', 'torchscript', '--dynamic')),
}


class Exports:
    """exports[kind]: (export, its checkpoint), made when first asked for."""

    def __init__(self, weights: Path, request: pytest.FixtureRequest):
        self.weights, self.request = weights, request

    def __getitem__(self, kind: str) -> tuple[Path, Path]:
        if kind == 'onnx, any size':
            file = self.request.getfixturevalue('dynamic_onnx')
            return file, file.with_suffix('.pt')
        name, flags = FLAGS[kind]
        file = self.weights.with_name(name)
        if not file.exists():
            run_export('--weights', self.weights, *flags)
        return file, self.weights


@pytest.fixture(scope='module')
def exports(weights, request) -> Exports:
    return Exports(weights, request)


KINDS = [
    'onnx, 64x128',
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in ('onnx, any size', 'openvino', 'torchscript')),
]


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(1, 3, 64, 64), (2, 3, 96, 160), (3, 3, 320, 32)])
def test_onnx_runs_without_us(dynamic_onnx, shape):
    """Plain ONNX Runtime gives what the unfused network gives, for other numbers and sizes than it was traced with."""
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    expected = load_model(dynamic_onnx.with_suffix('.pt'), fuse=False)(images)[0].numpy()
    found = onnxruntime.InferenceSession(str(dynamic_onnx)).run(['boxes'], {'images': images.numpy()})[0]
    assert found.shape == expected.shape == (shape[0], 3 * shape[2] * shape[3] // 1024 * 21, 11)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_onnx_file_says_what_it_is(dynamic_onnx):
    graph = onnx.load(dynamic_onnx)
    onnx.checker.check_model(graph, full_check=True)
    axes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.graph.input]
    assert axes == [['batch', 3, 'height', 'width']]
    assert 'BatchNormalization' not in {node.op_type for node in graph.graph.node}
    entries = {entry.key: json.loads(entry.value) for entry in graph.metadata_props}
    assert entries['names'] == {'0': 'text', '1': 'sign'}
    assert (entries['stride'], entries['imgsz'], entries['dynamic']) == (32, [96, 96], True), 'the size of the training'
    assert entries['conf_threshold'] == 0.4 and entries['precision'] == 'float32'
    assert entries['preprocessing']['colours'] == 'RGB' and '114' in entries['preprocessing']['letterbox']
    assert entries['source']['metrics']['map50'] == 0.4321 and 'recall' not in entries['source']['metrics']
    assert entries['source']['options']['weights'] == 'start.pt', 'no folders of the machine that trained it'
    assert 'Apache-2.0' in entries['license'] and entries['versions']['torch']
    for trace in (str(ROOT), 'layers.py', '/home/someone'):
        assert trace.encode() not in dynamic_onnx.read_bytes()


@pytest.mark.parametrize('kind', KINDS)
def test_one_interface(exports, kind):
    file, checkpoint = exports[kind]
    model, native = load_detector(file), load_detector(checkpoint)
    assert (model.names, model.nc, model.conf_threshold) == (native.names, native.nc, native.conf_threshold)
    assert model.word_scale == native.word_scale == (0.9, 0.8)
    assert int(model.stride.max()) == 32 and model.precision == 'float32'
    assert model.input_size == ((64, 128) if '64x128' in kind else None) and native.input_size is None
    images = torch.rand(2, 3, 64, 128).to(memory_format=torch.channels_last)
    decoded, maps = model(images)
    assert maps is None
    torch.testing.assert_close(decoded, native(images)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('size', [(90, 150), (150, 40)])
def test_detect_finds_the_same(exports, kind, size):
    """On landscape and portrait pictures; the checkpoint in float32 and, for a fixed size, letterboxed by hand."""
    file, checkpoint = exports[kind]
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = Detector(str(file), imgsz=None if '64x128' in kind else 128)
    native = Detector(str(checkpoint), imgsz=128, device='cpu', amp=False)
    native.model.input_size = found.model.input_size
    rows, expected = found(image), native(image)
    assert len(rows) > 3
    np.testing.assert_allclose(rows, expected, atol=0.02)
    assert rows[:, 2].max() <= size[1] and rows[:, 3].max() <= size[0]
    with pytest.raises(UserError, match='--no-amp is for checkpoints'):
        Detector(str(file), amp=False)


def test_a_fixed_size_holds_any_picture(exports):
    detector = Detector(str(exports['onnx, 64x128'][0]))
    for height, width in [(1, 1), (64, 128), (128, 64), (333, 667), (1000, 3), (3, 1000), (777, 1000)]:
        padded, letterbox = place(np.full((height, width, 3), 7, np.uint8), 0, 32, detector.model.input_size)
        inside = (padded == 7).all(2)
        assert padded.shape[:2] == (64, 128)
        ys, xs = np.nonzero(inside)
        extent = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        x, y = letterbox.pad_x, letterbox.pad_y
        corners = [x, y, x + width * letterbox.scale_x, y + height * letterbox.scale_y]
        np.testing.assert_allclose(extent, corners, atol=1e-6)
        assert max((xs.max() + 1 - xs.min()) / 128, (ys.max() + 1 - ys.min()) / 64) > 0.98, 'fills a side'


@pytest.mark.parametrize('kind', KINDS[:2])
@pytest.mark.parametrize('size', [(90, 150), (333, 160)])
@pytest.mark.parametrize('colours', [3, 4])
def test_the_runtime_finds_the_same(exports, kind, size, colours, tmp_path):
    """TextDetector's words are detect.py's boxes, of transparent pictures too."""
    file, _ = exports[kind]
    photo = tmp_path / 'photo.png'
    cv2.imwrite(str(photo), np.random.default_rng(2).integers(0, 256, (*size, colours), dtype=np.uint8))
    words = TextDetector(file, size=640)(photo)
    found = np.array([[*word.box, word.score, word.category, *word.quad.ravel()] for word in words])
    expected = Detector(str(file), imgsz=640 if 'any size' in kind else None)(photo)
    assert len(expected) > 3 and expected.shape[1] == 14
    assert abs(expected[:, 6:] - corners_of(expected[:, :6]).reshape(-1, 8)).max() > 5, 'quads that are no boxes'
    np.testing.assert_allclose(*(rows[np.lexsort(rows.T)] for rows in (found, expected)), atol=0.02)


def test_example_of_the_docs(exports, tmp_path):
    file, _ = exports['onnx, 64x128']
    cv2.imwrite(str(tmp_path / 'photo.png'), np.random.default_rng(2).integers(0, 256, (90, 150, 3), dtype=np.uint8))
    done = run_here('examples/onnx_detect.py', tmp_path / 'photo.png', file)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(Detector(str(file))(tmp_path / 'photo.png')) > 3
    assert all(len(line.split()) == 9 for line in done.stdout.splitlines())
    code = (ROOT / 'examples/onnx_detect.py').read_text()
    assert f'```python\n{code.rstrip()}\n```' in (ROOT / 'docs/deploy.md').read_text()


def run_val(tmp_path, monkeypatch, *arguments) -> dict:
    monkeypatch.setattr(sys, 'argv', ['val.py', *map(str, arguments), '--project', str(tmp_path), '--exist-ok'])
    with torch.no_grad():
        val.main()
    return json.loads((tmp_path / 'exp' / 'metrics.json').read_text())


@pytest.mark.slow
def test_val_takes_exports(exports, tiny_data, tmp_path, monkeypatch):
    file, checkpoint = exports['openvino']
    common = ['--data', tiny_data, '--imgsz', 96, '--workers', 0, '--noplots', '--batch-size', 3]
    given = run_val(tmp_path, monkeypatch, '--weights', file, *common)
    native = run_val(tmp_path, monkeypatch, '--weights', checkpoint, '--device', 'cpu', *common)
    for name in ('precision', 'recall', 'map50', 'map50_95'):
        assert given[name] == pytest.approx(native[name], abs=1e-4)
    assert given['precision_of'] == 'float32' and given['weights'] == str(file)
    with pytest.raises(UserError, match='--bfloat16 is for checkpoints'):
        run_val(tmp_path, monkeypatch, '--weights', file, '--half', *common)
    with pytest.raises(UserError, match='no squares'):
        run_val(tmp_path, monkeypatch, '--weights', exports['onnx, 64x128'][0], '--data', tiny_data)


def test_thresholds_of_several_sizes(tmp_path):
    """They go from the checkpoint to detect.py, to the file, and to the package."""
    plain = {str(size): {'conf_threshold': size / 1000, 'word_scale': [1.0, 1.0]} for size in (64, 128, 640)}
    checkpoint = save_weights(tmp_path / 'sized.pt', TINY, {0: 'text'}, points=plain)
    detector = Detector(str(checkpoint))
    assert (detector.imgsz, detector.conf_thres) == (128, 0.128)  # of the middle size
    run_export('--weights', checkpoint, '--dynamic', '--out', tmp_path / 'any.onnx')
    assert load_detector(tmp_path / 'any.onnx').points == load_model(checkpoint).points
    thresholds = {size: TextDetector(tmp_path / 'any.onnx', size=size).threshold for size in (64, 128, 'best')}
    assert thresholds == {64: 0.064, 128: 0.128, 'best': 0.64}
    assert '0.64 at 640' in (tmp_path / 'any.onnx.card.md').read_text()
    run_export('--weights', checkpoint, '--imgsz', 64, 128, '--license', 'ours alone', '--out', tmp_path / 'one.onnx')
    assert '## Licence\n\nours alone\n' in (tmp_path / 'one.onnx.card.md').read_text()
    assert load_detector(tmp_path / 'one.onnx').conf_threshold == 0.128


def test_card(exports):
    file, _ = exports['onnx, 64x128']
    card = file.with_name('best.onnx.card.md').read_text()
    for text in (
        '128x64 pixels, only',
        'scaled by the smaller of H / height and W / width',
        'data/some.yaml',
        'map50 0.4321',
        'icdar_hmean 0.3456. mAP',
        'ICDAR2015 task 4.1 at the threshold 0.4, of quads.',
        '`val`',
        'ms (median',
        'MB',
        'Apache-2.0',
        '(B, M, 10)',
    ):
        assert text in card, text
    parameters = sum(p.numel() for p in load_model(exports['onnx, 64x128'][1]).parameters())
    assert f'{parameters:,}' in card


def test_card_says_what_val_chose(tmp_path):
    plain = {'file': 'x.pt', 'conf_threshold': 0.4, 'word_scale': [1, 1], 'chosen_on': None}

    def training(**options) -> str:
        entries = {'options': {'data': 'd.yaml', **options}, 'epoch': 2, 'metrics': {'map50': 0.5}}
        return ' '.join(card._training({'source': {**entries, **plain}}))

    assert 'After epoch 2' in training() and 'chose epoch, threshold and scale' in training(noval=False)
    assert 'After epoch 2' in training(noval=True) and 'chose threshold and scale' in training(noval=True)
    assert 'Of the average, on the split' in training(averaged=['a.pt', 'b.pt'])
    assert 'chose threshold and scale' in training(averaged=['a.pt', 'b.pt'])
    entries = {'options': {'data': 'd.yaml'}, 'epoch': -1, 'metrics': {'map50': 0.5}}
    source = plain | entries | {'conf_threshold_from': 'those of the starting weights'}
    told = ' '.join(card._training({'source': source}))
    assert 'Of the weights that the training began with' in told and 'This split chose the epoch.' in told
    told = ' '.join(card._training({'source': plain | entries | {'chosen_on': 'vals.yaml'}}))
    assert 'This split chose the epoch. Val of `vals.yaml` chose the threshold.' in told
    told = ' '.join(card._training({'source': plain | entries | {'conf_threshold': None}}))
    assert 'This split chose no threshold.' in told
    scored = plain | {'options': {'data': 'd.yaml'}, 'epoch': 2, 'metrics': {'icdar_hmean': 0.5}}
    told = ' '.join(card._training({'source': scored | {'word_scale': [0.9, 0.8]}, 'quads': False}))
    assert 'at the threshold 0.4, of boxes times 0.9 x 0.8 (width, height) about their centres' in told


@pytest.mark.slow
def test_batches_of_an_export_of_one_size_are_refused(exports, tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / 'photo.png'), np.zeros((64, 96, 3), np.uint8))
    flags = ['--source', str(tmp_path / 'photo.png'), '--batch-size', '2', '--project', str(tmp_path / 'runs')]
    monkeypatch.setattr(sys, 'argv', ['detect.py', '--weights', str(exports['onnx, 64x128'][0]), *flags])
    with pytest.raises(UserError, match='one image at a time'):
        detect.main()
    monkeypatch.setattr(sys, 'argv', ['detect.py', '--weights', str(exports['onnx, any size'][0]), *flags])
    detect.main()


@pytest.mark.parametrize('kind', KINDS)
def test_nothing_else_is_left(exports, kind):
    file, _ = exports[kind]
    assert not [entry for entry in file.parent.iterdir() if entry.name.startswith('.')]


@pytest.mark.slow
def test_half(folder, weights):
    """Half the size, within the looser bound; boxes are decoded in float32."""
    whole = folder / 'whole.onnx'
    run_export('--weights', weights, '--half', '--imgsz', 64, '--out', folder / 'small.onnx')
    run_export('--weights', weights, '--imgsz', 64, '--out', whole)
    assert (folder / 'small.onnx').stat().st_size < 0.75 * whole.stat().st_size
    given, expected = load_detector(folder / 'small.onnx'), load_model(weights)
    assert given.precision == 'float16'
    difference = compare(expected, given, [torch.rand(1, 3, 64, 64)])
    assert 0 < difference.scores < 2e-2 and 0 < difference.boxes < 2e-2
    # A cell's corner lies at a whole number of pixels; in float16 no fraction would be left beyond 1024.
    run_export('--weights', weights, '--half', '--imgsz', 32, 2048, '--out', folder / 'wide.onnx')
    decoded = load_detector(folder / 'wide.onnx')(torch.rand(1, 3, 32, 2048))[0][..., 0]
    assert ((decoded[decoded > 1100] % 1).unique().numel()) > 50


@pytest.mark.slow
def test_int8(folder, weights, tiny_data, capsys):
    pytest.importorskip('nncf', reason='nncf is missing: pip install -r requirements-export.txt')
    run_export(
        '--weights', weights, '--format', 'openvino', '--int8', '--data', tiny_data, '--imgsz', 96, '--calibration', 8
    )
    output = capsys.readouterr().out
    assert 'mAP50' in output and 'in float32' in output and 'a loss of' in output and '8 pictures' in output
    text = (folder / 'best_int8.xml').read_text()
    assert text.count('type="FakeQuantize"') > 10
    model = load_detector(folder / 'best_int8.xml')
    assert model.precision == 'int8' and model.input_size == (96, 96)
    images = torch.rand(1, 3, 96, 96)
    expected, given = load_model(weights)(images)[0], model(images)[0]
    assert not torch.equal(expected, given)
    # Head and decoding take what 8 bits leave; positions are not in steps of 96 / 256 pixels.
    assert (expected[..., :2] - given[..., :2]).abs().median() < 2
    assert 'mAP50 on val' in (folder / 'best_int8.xml.card.md').read_text()
    (folder / 'ir').mkdir()
    for name in ('best_int8.xml', 'best_int8.bin'):
        (folder / 'ir' / name).write_bytes((folder / name).read_bytes())
    assert load_detector(folder / 'ir').precision == 'int8', 'a folder is enough'


def identity(nc: int):
    """A graph that passes decoded boxes on, in the place of a network."""
    text = f'<ir_version: 10, opset_import: ["" : 18]> network (float[batch, cells, {5 + nc}] images) => '
    return onnx.parser.parse_model(text + f'(float[batch, cells, {5 + nc}] boxes) {{ boxes = Identity (images) }}')


@pytest.mark.parametrize('nc', [1, 3])
@pytest.mark.parametrize('conf_thres', [0.05, 0.4])
def test_nms_is_ours(nc, conf_thres):
    """The graph's NMS finds what non_max_suppression does, in crowded pictures and in one without any box."""
    from utils.export.onnx_graph import append_nms

    rng = np.random.default_rng(nc)
    decoded = np.concatenate(
        (rng.uniform(0, 200, (3, 250, 2)), rng.uniform(5, 60, (3, 250, 2)), rng.uniform(0, 1, (3, 250, 1 + nc))), 2
    ).astype(np.float32)
    decoded[1, :, 4] = 0
    graph = append_nms(identity(nc), nc, conf_thres, 0.5, 300)
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    detections, image = session.run(['detections', 'picture'], {'images': decoded})
    expected = non_max_suppression(torch.from_numpy(decoded), conf_thres, 0.5, 300)
    assert len(expected[0]) > 20 and not (image == 1).any()
    for number, rows in enumerate(expected):
        given = detections[image == number]
        np.testing.assert_allclose(given[np.argsort(-given[:, 4])], rows.numpy(), rtol=1e-5, atol=1e-4)
    few = onnxruntime.InferenceSession(append_nms(identity(nc), nc, conf_thres, 0.5, 2).SerializeToString())
    detections, image = few.run(None, {'images': decoded})
    for number, rows in enumerate(expected):
        kept = best_of_classes(rows, 2).numpy()
        given = detections[image == number]
        np.testing.assert_allclose(given[np.argsort(-given[:, 4])], kept, rtol=1e-5, atol=1e-4)
    assert len(detections) == 2 * 2 * nc, 'two pictures, two of each class'


def test_nms_of_a_graph_with_quads():
    """The boxes are those without quads; the corners are decode's."""
    from utils.export.onnx_graph import append_nms

    rng = np.random.default_rng(5)
    parts = [(0, 200, 2), (5, 60, 2), (0, 1, 2), (-1, 1, 4)]
    decoded = np.concatenate([rng.uniform(low, high, (2, 250, n)) for low, high, n in parts], 2).astype(np.float32)
    session = onnxruntime.InferenceSession(append_nms(identity(5), 1, 0.3, 0.5, 300, quads=True).SerializeToString())
    detections, image = session.run(['detections', 'picture'], {'images': decoded})
    expected = non_max_suppression(torch.from_numpy(decoded), 0.3, 0.5, 300, nc=1)
    assert len(expected[0]) > 20
    for number, rows in enumerate(expected):
        given = detections[image == number]
        given = given[np.argsort(-given[:, 4])]
        np.testing.assert_allclose(given[:, :6], rows[:, :6].numpy(), rtol=1e-5, atol=1e-4)
        quads = decode(rows[:, :4], rows[:, 6:])
        np.testing.assert_allclose(given[:, 6:], quads.reshape(-1, 8).numpy(), rtol=1e-5, atol=1e-4)


def test_a_network_without_quads(tmp_path):
    """Its words are boxes, in detect.py, in the runtime and in PyTorch."""
    checkpoint = save_weights(tmp_path / 'boxes.pt', TINY, {0: 'text'}, quads=False)
    run_export('--weights', checkpoint, '--imgsz', 64, 128)
    photo = tmp_path / 'photo.png'
    cv2.imwrite(str(photo), np.random.default_rng(2).integers(0, 256, (90, 150, 3), dtype=np.uint8))
    found = Detector(str(tmp_path / 'boxes.onnx'))
    native = Detector(str(checkpoint), imgsz=128, device='cpu', amp=False)
    native.model.input_size = found.model.input_size
    rows = found(photo)
    assert len(rows) > 3 and rows.shape[1] == 6
    np.testing.assert_allclose(rows, native(photo), atol=0.02)
    words = TextDetector(tmp_path / 'boxes.onnx')(photo)
    quads = np.array([word.quad for word in words])
    np.testing.assert_allclose(np.sort(quads, 0), np.sort(corners_of(rows), 0), atol=0.02)


@pytest.mark.slow
def test_nms_export(folder, weights):
    run_export('--weights', weights, '--nms', '--imgsz', 64, 96, '--conf-thres', 0.3, '--max-det', 20)
    session = onnxruntime.InferenceSession(str(folder / 'best_nms.onnx'))
    detections, image = session.run(None, {'images': np.random.default_rng(0).random((1, 3, 64, 96), np.float32)})
    assert 0 < len(detections) <= 20 and (detections[:, 4] > 0.3).all() and (image == 0).all()
    nms = json.loads(session.get_modelmeta().custom_metadata_map['nms'])
    assert nms == {'conf_thres': 0.3, 'iou_thres': 0.45, 'max_det': 20}
    with pytest.raises(UserError, match='NMS inside'):
        load_detector(folder / 'best_nms.onnx')


def test_a_wrong_export_is_removed(folder, weights, monkeypatch):
    """A file that computes something else never gets its name; the one of before stays."""
    from utils.export import onnx_graph

    target = folder / 'wrong.onnx'
    target.write_text('of before')
    right = onnx_graph.to_onnx

    def wrong(*arguments):
        graph = right(*arguments)
        weight = next(tensor for tensor in graph.graph.initializer if len(tensor.dims) == 4)
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1.1, weight.name))
        return graph

    monkeypatch.setattr(onnx_graph, 'to_onnx', wrong)
    with pytest.raises(UserError, match='computes something else'):
        run_export('--weights', weights, '--imgsz', 64, '--out', target)
    assert target.read_text() == 'of before' and not list(folder.glob('.export*'))
    assert not (folder / 'wrong.onnx.card.md').exists()


def test_pictures_are_placed_as_they_are():
    """A picture of just the export's size is neither resized nor padded, and turned from BGR it is a view."""
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    placed = place_image(image[..., ::-1], (64, 96))
    assert placed.shape == (1, 3, 64, 96)
    np.testing.assert_array_equal((placed[0] * 255).round().byte().permute(1, 2, 0).numpy(), image[..., ::-1])


def test_compare_sees_what_is_not_finite():
    right = torch.ones(1, 4, 6)
    wrong = right.clone()
    wrong[0, 2, 5] = float('nan')
    assert compare(lambda _: (right,), lambda _: (wrong,), [None]) == OutputDifference(float('inf'), float('inf'))
    shifted = right.clone()
    shifted[0, 1, 0] += 0.5
    shifted[0, 3, 4] -= 0.25
    assert compare(lambda _: (right,), lambda _: (shifted,), [None]) == OutputDifference(0.25, 0.5)


@pytest.mark.slow
def test_sizes(exports):
    fixed, free = load_detector(exports['onnx, 64x128'][0]), load_detector(exports['openvino'][0])
    assert [long_side(fixed, None), long_side(fixed, 128), long_side(free, None)] == [128, 128, 96]
    free.long_side = 1280  # as of export.py --dynamic --imgsz 1280
    assert [long_side(free, None), long_side(free, 96)] == [1280, 96]
    with pytest.raises(UserError, match='takes 128x64 pixels only: use --imgsz 128'):
        long_side(fixed, 640)
    with pytest.raises(UserError, match='takes pictures of 128x64'):
        fixed(torch.zeros(1, 3, 128, 64))


def test_refused(exports, folder, tmp_path):
    file, _ = exports['onnx, 64x128']
    assert default_device(file) == 'cpu' and default_device('best.pt') == ''
    with pytest.raises(UserError, match='runs on the CPU here'):
        load_detector(file, 'cuda')
    with pytest.raises(UserError, match='no such file'):
        load_detector(tmp_path / 'none.onnx')
    with pytest.raises(UserError, match='0 .xml files'):
        load_detector(tmp_path)
    (tmp_path / 'other.onnx').write_bytes(identity(1).SerializeToString())
    with pytest.raises(UserError, match='no export of ours'):
        load_detector(tmp_path / 'other.onnx')
    for name in ('text.onnx', 'text.xml', 'text.torchscript'):
        (tmp_path / name).write_text('no model at all')
        with pytest.raises(UserError, match='cannot be read as an exported model'):
            load_detector(tmp_path / name)
    graph = onnx.load(file)
    next(entry for entry in graph.metadata_props if entry.key == 'names').value = '{"0": "a", "2": "b"}'
    onnx.save(graph, tmp_path / 'gap.onnx')
    with pytest.raises(UserError, match='damaged'):
        load_detector(tmp_path / 'gap.onnx')


@pytest.mark.slow
def test_torchscript_tells_nothing_of_the_machine(exports):
    with zipfile.ZipFile(exports['torchscript'][0]) as archive:
        for entry in archive.infolist():
            assert str(ROOT).encode() not in archive.read(entry), entry.filename


def test_torchscript_of_others_is_not_run(exports, tmp_path, monkeypatch):
    source, _ = exports['torchscript']
    stripped = tmp_path / 'other.torchscript'
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(stripped, 'w') as new:
        for entry in old.infolist():
            if '/extra/' not in entry.filename:
                new.writestr(entry, old.read(entry))
    monkeypatch.setattr(torch.jit, 'load', lambda *_, **__: pytest.fail('loaded'))
    with pytest.raises(UserError, match='no export of ours'):
        load_detector(stripped)


@pytest.mark.parametrize('package', ['onnxruntime', pytest.param('openvino', marks=pytest.mark.slow)])
def test_missing_package(exports, monkeypatch, package):
    file, _ = exports['onnx, 64x128' if package == 'onnxruntime' else 'openvino']
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f'{package}: pip install '):
        load_detector(file)


def test_packages_are_imported_where_they_are_used():
    code = 'import sys, torch, detect, models.exported, utils.evaluation.evaluate, utils.export.job\n'
    code += "print(sorted({'onnx', 'onnxruntime', 'openvino', 'nncf', 'onnxscript'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


@pytest.mark.parametrize(
    'flags',
    [
        ['--imgsz', '100'],
        ['--imgsz', '64', '64', '64'],
        ['--half', '--int8'],
        ['--int8'],
        ['--format', 'torchscript', '--half'],
        ['--format', 'openvino', '--nms'],
        ['--format', 'ncnn', '--dynamic'],
        ['--format', 'tflite', '--half'],
        ['--format', 'ncnn', '--out', 'x.param'],
        ['--format', 'openvino', '--int8', '--imgsz', '64', '96'],
        ['--dynamic', '--imgsz', '64', '96'],
        ['--conf-thres', '0.5'],
        ['--calibration', '300'],
        ['--data', 'data/ICDAR.yaml'],
        ['--nms', '--iou-thres', '1.5'],
        ['--out', 'x.xml'],
        ['--out', 'folder/.onnx'],
    ],
)
def test_flags_that_make_no_sense(flags, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['export.py', '--weights', 'best.pt', *flags])
    with pytest.raises(SystemExit) as ended:
        export.main()
    last = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and 'error: ' in last and not re.search('unrecognized|invalid choice', last)
