"""The page of examples/web in a headless Chromium: the boxes of detect.py, and clear messages."""

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

import detect
from data.synthtext import render_picture
from tests.conftest import ROOT, run_script

WEB = ROOT / 'examples' / 'web'
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
pytest.importorskip('onnx', reason='needs requirements-export.txt')
pytestmark = [
    pytest.mark.skipif(not CHROMIUM or not shutil.which('node'), reason='needs Chromium and Node.js'),
    pytest.mark.skipif(not (WEB / 'node_modules/puppeteer-core').is_dir(), reason='needs npm ci in examples/web'),
]


@pytest.fixture(scope='module')
def seen(tmp_path_factory) -> tuple[dict, Path]:
    """Drive the page once; returns what was seen and the folder of all files."""
    folder = tmp_path_factory.mktemp('web')
    shutil.copy(ROOT / 'teacher/demo/yolov5n.pt', folder / 'model.pt')
    exported = run_script('export.py', '--weights', folder / 'model.pt', '--format', 'onnx', '--dynamic')
    assert exported.returncode == 0, exported.stderr
    picture, _, _ = render_picture(11, 'test', 8, (1000, 600))
    Image.fromarray(picture).save(folder / 'picture.png')
    (folder / 'broken.png').write_bytes((folder / 'picture.png').read_bytes()[:500])
    (folder / 'model.onnx.txt.onnx').write_text('no model')
    server = subprocess.Popen(
        [sys.executable, WEB / 'serve.py', '--port', '0', '--model', folder / 'model.onnx'],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = server.stdout.readline().split()[0]
        files = [folder / name for name in ('picture.png', 'broken.png', 'model.onnx')]
        command = ['node', ROOT / 'tests/web_page.mjs', CHROMIUM, url, *files, folder]
        ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240, check=False)
    finally:
        server.terminate()
    assert ended.returncode == 0, ended.stderr + (folder / 'result.json').read_text()
    return json.loads((folder / 'result.json').read_text()), folder


def test_the_boxes_of_detect(seen):
    """The same file on the same picture: every box agrees, but for what OpenCV's and the page's rounding leave."""
    result, folder = seen
    (entry,) = json.loads((folder / 'detections.json').read_text())
    detector = detect.Detector(str(folder / 'model.onnx'))
    expected = torch.from_numpy(detector(np.array(Image.open(folder / 'picture.png'))))
    found = torch.tensor([[*word['box'], word['score']] for word in entry['detections']], dtype=torch.double)
    assert len(found) == len(expected) > 5
    assert (entry['image'], entry['width'], entry['height']) == ('picture.png', 1000, 600)
    overlap, match = box_iou(expected[:, :4], found[:, :4]).max(1)
    assert overlap.min() > 0.98 and sorted(match.tolist()) == list(range(len(found)))
    torch.testing.assert_close(found[match, 4], expected[:, 4], atol=0.01, rtol=0)
    assert result['confidence'] == pytest.approx(detector.conf_thres, abs=0.005)
    assert result['crops'] == result['again'] == len(expected) > result['confident']
    assert re.fullmatch(rf'{len(expected)} words in picture.png, 1000 × 600 pixels; .* \d+ ms\.', result['status'])


def test_messages(seen):
    result, _ = seen
    assert result['errors'] == [] and result['isolated'] is True
    assert result['broken'] == 'broken.png is no picture that this browser can show.'
    assert result['noModel'].startswith('model.onnx.txt.onnx cannot be used: no file of export.py')
    assert 'There is no model.onnx' in result['missing']


def test_serve_says_what_is_missing(tmp_path):
    result = run_script('examples/web/serve.py', '--model', tmp_path / 'no.onnx')
    assert result.returncode == 2 and 'there is no file' in result.stderr
