"""Rendered data for benchmarks that train."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def render(folder: Path, images: int) -> Path:
    """Render training images, and 8 test images, into folder/set; returns the data yaml beside it, which trains on all
    of the first (every tenth is val, too)."""
    command = [sys.executable, 'data/synthtext.py', '--out', folder / 'set', '--train', images, '--test', 8]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (folder / 'data.yaml').write_text(
        f'path: {folder / "set"}\ntrain: images/train_icdar\nval: val.txt\nnames: [text]\n'
    )
    return folder / 'data.yaml'
