"""Benchmarks that other programs' time makes too long to run here: what they ask for, and how they count."""

from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import torch

from benchmarks import exports, slices, soak
from data.synthesis.image import render_image
from models.checkpoint import load_model
from tests.support import ROOT, run_here
from utils.export.options import ExportOptions
from utils.runtime.options import parse


def test_export_takes_the_flags_of_every_format(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(exports, 'subprocess', SimpleNamespace(run=lambda command, **_: asked.append(command)))
    exports.export_all(Namespace(weights=ROOT / 'weights/ocrdistill-n.pt', data='data/ICDAR.yaml', out=tmp_path))
    options = [parse(ExportOptions, None, command[2:]) for command in asked]
    assert len(options) == 2 * len(exports.FORMATS)
    assert sum(one.int8 for one in options) == 2 and sum(one.dynamic for one in options) == len(options) // 2


def test_the_large_picture_has_its_colours():
    image, _ = slices.build_image()
    width, height = slices.SIZE
    first, _, _ = render_image(slices.SEED, 'test', 0, slices.SIZE)
    np.testing.assert_array_equal(image[:height, :width], first[..., ::-1])
    assert abs(first[..., 0].astype(int) - first[..., 2]).mean() > 1


def test_every_kill_stands_in_a_quarter():
    seen = dict.fromkeys(soak.COLUMNS, 1.0)
    minutes = [0.0, 4.9, 5.0, 19.9, 20.0, 20.7]  # the last process may be killed after the end
    rows = soak.table([seen | {'minute': minute} for minute in minutes], 20).splitlines()[2:]
    assert [row.split(' | ')[:2] for row in rows] == [['| 0 to 5', '2'], ['| 5 to 10', '1'], ['| 15 to 20', '3']]


def test_a_network_without_its_quads_finds_the_same_boxes(tmp_path):
    weights, out = ROOT / 'weights/ocrdistill-n.pt', tmp_path / 'boxes.pt'
    run_here('benchmarks/without_quads.py', weights, out)
    whole, boxes = load_model(weights), load_model(out)
    images = torch.rand(1, 3, 64, 96)
    assert whole.quads and not boxes.quads and boxes.names == whole.names
    torch.testing.assert_close(boxes(images)[0], whole(images)[0][..., :6])
    assert 'has no quads' in run_here('benchmarks/without_quads.py', out, tmp_path / 'again.pt').stderr
    assert 'is the source' in run_here('benchmarks/without_quads.py', out, out).stderr
