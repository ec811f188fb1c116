"""Where non-maximum suppression comes from: torchvision's kernel alone, or its public function."""

import subprocess
import sys

import pytest

from tests.support import ROOT

# Two boxes with an overlap of 0.8 and one apart, then the same of another class: the weaker one of each pair goes.
SUPPRESS = """
boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60]]).repeat(2, 1)
kept = class_nms(boxes, torch.tensor([0.5, 0.9, 0.3, 0.8, 0.7, 0.2]), torch.tensor([0, 0, 0, 1, 1, 1]), 0.5)
assert kept.tolist() == [1, 3, 2, 5], kept
"""
# What our own loading meets; torchvision itself finds what it needs.
BROKEN = """
load = torch.ops.load_library
def refuse(path):
    torch.ops.load_library = load
    raise OSError('Could not load this library')
torch.ops.load_library = refuse
"""
MOVED = """
import importlib.util
find = importlib.util.find_spec
def miss(name):
    importlib.util.find_spec = find
importlib.util.find_spec = miss
"""


@pytest.mark.parametrize(('before', 'imported'), [('', False), (BROKEN, True), (MOVED, True)])
def test_suppression_with_and_without_the_private_library(before, imported):
    code = f'import sys, torch\nfrom utils.boxes import class_nms\n{before}{SUPPRESS}'
    code += f"assert ('torchvision' in sys.modules) is {imported}\n"
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
