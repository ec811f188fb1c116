"""benchmarks/detectors.py from end to end, with a tiny CRAFT, and what it says of networks' sizes."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks import detectors
from benchmarks.reading import installed
from models.errors import UserError
from ocrdistill.detector import network_file
from tests.support import run_here
from tests.teacher.craft_world import publish, tiny_craft
from utils.distillation.craft_network import folded


def test_the_table(tmp_path, monkeypatch):
    """Three pictures, two of them timed; the third goes to CRAFT's cache of maps."""
    folders = tmp_path / 'images/val', tmp_path / 'gt/val'
    for folder in folders:
        folder.mkdir(parents=True)
    for name in 'abc':
        image = Image.new('RGB', (256, 160), 'white')
        ImageDraw.Draw(image).text((60, 60), f'{name} word', 'black', font_size=36)
        image.save(folders[0] / f'{name}.png')
        (folders[1] / f'gt_{name}.txt').write_text('60,60,200,60,200,100,60,100,word\n')
    data = tmp_path / 'data.yaml'
    data.write_text(f'path: {tmp_path}\ntrain: images/val\nval: images/val\nnames: [text]\n')
    weights = publish(monkeypatch, tmp_path)

    flags = ('--data', data, '--detectors', 'fast', '--craft', weights, '--craft-cache', tmp_path / 'maps')
    done = run_here('benchmarks/detectors.py', *flags, '--timed', 2, '--threads', 1)
    assert done.returncode == 0, done.stderr
    head, *table = done.stdout.splitlines()
    assert head.startswith('3 pictures of val, 2 of them timed; ')
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in table]
    assert rows[0][3:7] == ['precision', 'recall', 'hmean', 'more than the first']
    assert set(rows[1]) == {'---'} and {len(row) for row in rows} == {8}
    assert [row[0] for row in rows[2:]] == ['fast', 'craft']
    assert rows[2][1:3] == ['1.77', f'{network_file("n").stat().st_size / 1e6:.1f}']
    assert all(0 <= float(score) <= 1 for row in rows[2:] for score in row[3:6])
    difference, low, high = (float(part) for part in rows[3][6].translate(str.maketrans('', '', '[],')).split())
    assert not rows[2][6] and low <= difference <= high
    assert difference == pytest.approx(float(rows[3][5]) - float(rows[2][5]), abs=0.0011)
    assert len(list((tmp_path / 'maps').glob('*/*.png'))) == 1


def test_crafts_quick_way_gives_the_same(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    file = tmp_path / 'a.png'
    Image.fromarray(rng.integers(0, 256, (96, 160, 3), np.uint8)).save(file)
    monkeypatch.setattr('utils.distillation.craft.WORD', 0.0)
    detector = detectors.craft(str(publish(monkeypatch, tmp_path)), str(tmp_path / 'maps'))
    assert detector.parameters == sum(p.numel() for p in folded(tiny_craft()).parameters())
    found = detector.find(file)
    np.testing.assert_allclose(detector.quick(file), found.clip(0, (160, 96)))
    assert found.shape[1:] == (4, 2)


def test_a_package_that_is_missing_is_one_line():
    with pytest.raises(UserError, match='no_such_package.*: pip install no_such_package'):
        installed('no_such_package')
