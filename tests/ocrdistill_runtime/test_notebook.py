"""examples/words.ipynb, cell by cell; and hubconf.py as torch.hub loads it."""

import json
import sys

import pytest
import torch

from tests.support import ROOT


@pytest.mark.slow
def test_the_notebook_runs(capsys):
    pytest.importorskip('onnxruntime', reason='onnxruntime is missing')
    cells = json.loads((ROOT / 'examples/words.ipynb').read_text())['cells']
    names: dict = {'__name__': '__main__'}
    for number, cell in enumerate(cells):
        if cell['cell_type'] == 'code':
            assert not cell['outputs']
            exec(compile(''.join(cell['source']), f'cell {number}', 'exec'), names)  # noqa: S102
    assert len(names['words']) >= 5 and {word.line for word in names['words']} == {0, 1, 2}
    assert len(capsys.readouterr().out.splitlines()) >= 5


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ocrdistill_n', 'ocrdistill_s'])
def test_torch_hub_loads_the_detectors(name, monkeypatch):
    monkeypatch.setattr(sys, 'path', sys.path.copy())
    detector = torch.hub.load(str(ROOT), name, source='local', device='cpu', imgsz=64)
    assert detector.names == {0: 'text'} and len(detector(torch.zeros(64, 64, 3).byte().numpy())) == 0
