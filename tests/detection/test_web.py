"""The page of examples/web in a headless Chromium: the boxes of detect.py, and clear messages."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from data.synthesis.image import render_image
from models.checkpoint import anchors_of, read_checkpoint, save_checkpoint, transfer
from models.yolo import DetectionModel
from ocrdistill.nms import select
from tests.support import ROOT, run_here
from utils.detection.detector import Detector

WEB = ROOT / 'examples' / 'web'
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
pytest.importorskip('onnx', reason='needs requirements-export.txt')
MISSING = [
    *(() if CHROMIUM else ('Chromium',)),
    *(() if shutil.which('node') else ('Node.js',)),
    *(() if (WEB / 'node_modules/puppeteer-core').is_dir() else ('npm ci in examples/web',)),
]


def in_browser(test):
    """`make test-slow` brings what is needed."""
    return pytest.mark.slow(pytest.mark.skipif(bool(MISSING), reason=f'needs {", ".join(MISSING)}')(test))


@contextlib.contextmanager
def serving(*command):
    """A server on this machine while the context lasts; gives its URL, which its first line holds."""
    command = [sys.executable, '-u', *map(str, command)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            yield re.search(r'http://[^/]+/', server.stdout.readline())[0]
        finally:
            server.terminate()


def corners_of_boxes(rows: torch.Tensor) -> torch.Tensor:
    return rows[:, [0, 1, 2, 1, 2, 3, 0, 3]].view(-1, 4, 2)


def with_quads(source: Path, file: Path) -> None:
    """The network of a checkpoint with a head for quads that says something: small random weights."""
    checkpoint = read_checkpoint(source)
    model = DetectionModel(checkpoint.yaml, nc=1, anchors=anchors_of(checkpoint), quads=True)
    transfer(model, checkpoint)
    generator = torch.Generator().manual_seed(0)
    for convolution in model.head.quad:
        torch.nn.init.normal_(convolution.weight, 0, 0.03, generator=generator)
    threshold = checkpoint.meta.get('conf_threshold')
    save_checkpoint(file, model, model.state_dict(), conf_threshold=threshold, word_scale=None)


@pytest.fixture(scope='module')
def seen(tmp_path_factory) -> tuple[dict, Path]:
    """Drive the page once; returns what was seen and the folder of all files."""
    folder = tmp_path_factory.mktemp('web')
    with_quads(ROOT / 'teacher/demo/yolov5n.pt', folder / 'model.pt')
    exported = run_here('export.py', '--weights', folder / 'model.pt', '--format', 'onnx', '--dynamic')
    assert exported.returncode == 0, exported.stderr
    image, _, _ = render_image(11, 'test', 8, (1000, 600))
    Image.fromarray(image).save(folder / 'picture.png')
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: shown turned right by 90 degrees
    Image.fromarray(image).rotate(90, expand=True).save(folder / 'turned.jpg', exif=exif, quality=95)
    (folder / 'broken.png').write_bytes((folder / 'picture.png').read_bytes()[:500])
    (folder / 'model.onnx.txt.onnx').write_text('no model')
    ours = serving(WEB / 'serve.py', '--port', 0, '--model', folder / 'model.onnx')
    plain = serving('-m', 'http.server', 0, '--bind', '127.0.0.1', '--directory', WEB)
    with ours as url, plain as plain_url:
        command = ['node', ROOT / 'tests/web_page.mjs', CHROMIUM, url, plain_url, folder]
        ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr + (folder / 'result.json').read_text()
    command = ['node', ROOT / 'tests/web_offline.mjs', CHROMIUM, url, folder]  # both servers are gone
    offline = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240, check=False)
    assert offline.returncode == 0, offline.stderr
    return json.loads((folder / 'result.json').read_text()) | {'offline': int(offline.stdout)}, folder


@in_browser
def test_the_boxes_of_detect(seen):
    """The same file on the same picture: every box agrees, but for what OpenCV's and the page's rounding leave."""
    result, folder = seen
    (entry,) = json.loads((folder / 'detections.json').read_text())
    detector = Detector(str(folder / 'model.onnx'))
    expected = torch.from_numpy(detector(np.array(Image.open(folder / 'picture.png'))))
    found = torch.tensor([[*word['box'], word['score']] for word in entry['detections']], dtype=torch.double)
    assert len(found) == len(expected) > 5
    assert (entry['image'], entry['width'], entry['height']) == ('picture.png', 1000, 600)
    overlap, match = box_iou(expected[:, :4], found[:, :4]).max(1)
    assert overlap.min() > 0.98 and sorted(match.tolist()) == list(range(len(found)))
    torch.testing.assert_close(found[match, 4], expected[:, 4], atol=0.01, rtol=0)
    quads = torch.tensor([word['quad'] for word in entry['detections']], dtype=torch.double)[match]
    corners = expected[:, 6:].view(-1, 4, 2)
    assert (corners - corners_of_boxes(expected)).abs().max() > 2  # the edges say something
    assert (quads - corners).norm(dim=2).mean() < 0.5
    assert result['confidence'] == pytest.approx(detector.conf_thres, abs=0.005)
    assert result['crops'] == result['again'] == len(expected) > result['confident']
    assert re.fullmatch(rf'{len(expected)} words in picture.png, 1000 × 600 pixels; .* \d+ ms\.', result['status'])


@in_browser
def test_offline_after_the_first_load(seen):
    result, _ = seen
    assert result['offline'] == result['crops']
    assert result['example'] > 5
    assert re.fullmatch(r'Loaded: 2\d\.\d MB \(runtime 14\.\d MB, network \d\.\d MB\)\.', result['size'])


@in_browser
def test_a_turned_photograph(seen):
    """EXIF is heeded: the picture is as wide as the upright one, and the drop of two pictures ends with the second."""
    result, _ = seen
    assert ' in turned.jpg, 1000 × 600 pixels;' in result['turned']


@in_browser
def test_messages(seen):
    result, _ = seen
    assert result['errors'] == [] and result['isolated'] is True and result['plain'] is False
    assert result['broken'] == 'broken.png is no picture that this browser can show.'
    assert result['noModel'].startswith('model.onnx.txt.onnx cannot be used: no file of export.py')
    assert result['unsure'] > result['crops']
    assert 'There is no model.onnx' in result['missing']
    assert len(result['runtime']) == 3 and all('onnxruntime-web cannot be loaded' in text for text in result['runtime'])


@pytest.mark.skipif(not shutil.which('node'), reason='needs Node.js')
def test_the_page_suppresses_as_the_package(tmp_path):
    """A word that a surer box hides is gone, and hides no other one: all boxes come before all quads."""
    rng = np.random.default_rng(0)
    decoded = np.zeros((200, 10), np.float32)  # x, y, w, h, objectness, one class, four edges
    decoded[:, :2], decoded[:, 2:4] = rng.uniform(20, 300, (200, 2)), rng.uniform(20, 90, (200, 2))
    decoded[:, 4], decoded[:, 5] = rng.uniform(0.3, 1, 200), 1
    decoded[:, 6:] = rng.uniform(-0.3, 0.3, (200, 4))  # convex
    decoded[:3] = [[x, 100, 100, 20, score, 1, 0, 0, 0, 0] for x, score in ((500, 0.9), (553, 0.8), (555, 0.7))]
    decoded[100:] = decoded[:100] + np.float32([1, 1, 2, 1, -0.05, 0, 0, 0, 0, 0])  # each once more, a little aside
    for quads in (True, False):
        columns = 10 if quads else 6
        rows = decoded[:, :columns]
        expected = select(rows, 1, 0.25, 0.3 if quads else 0.45)[:, 4]
        script = f"""
            import {{ chooseBoxes, decode }} from {json.dumps((WEB / 'detector.js').as_uri())};
            const place = {{ left: 0, top: 0, scaleX: 1, scaleY: 1, width: 700, height: 400 }};
            const rows = Float32Array.from({json.dumps(rows.ravel().tolist())});
            const words = chooseBoxes(decode(rows, {columns}, 1, place), 0.25);
            console.log(JSON.stringify(words.map(({{ score }}) => score)));
        """
        (tmp_path / 'run.mjs').write_text(script)
        done = subprocess.run(['node', tmp_path / 'run.mjs'], capture_output=True, text=True, check=True)
        np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-6)
        assert 20 < len(expected) < 190


@pytest.mark.skipif(not (WEB / 'node_modules').is_dir(), reason='needs npm ci in examples/web')
def test_serve_prints_the_size_and_takes_a_host(tmp_path):
    (tmp_path / 'model.onnx').write_bytes(bytes(2_000_000))
    command = [sys.executable, '-u', WEB / 'serve.py', '--port', 0, '--model', tmp_path / 'model.onnx', '--host']
    with subprocess.Popen([*map(str, command), '0.0.0.0'], stdout=subprocess.PIPE, text=True) as server:
        line = server.stdout.readline()
        server.terminate()
    assert re.fullmatch(r'http://[\w.-]+:\d+/ \(Ctrl-C ends\); 16\.\d MB to load \(.*, network 2\.00\)\n', line)
    refused = run_here('examples/web/serve.py', '--port', 0, '--host', '192.0.2.1')
    assert refused.returncode == 2 and '--host 192.0.2.1' in refused.stderr
    refused = run_here('examples/web/serve.py', '--port', 70000)
    assert refused.returncode == 2 and '--port 70000' in refused.stderr and 'Traceback' not in refused.stderr


def test_serve_says_what_is_missing(tmp_path):
    result = run_here('examples/web/serve.py', '--model', tmp_path / 'no.onnx')
    assert result.returncode == 2 and 'there is no file' in result.stderr
