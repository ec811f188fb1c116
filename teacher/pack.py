"""Pack a trained checkpoint for sharing: half precision, without what only resuming needs.

python teacher/pack.py runs/train/demo_teacher/weights/best.pt teacher/demo/yolov5s.pt
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.runtime.cli import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', help='checkpoint of a run')
    parser.add_argument('target', type=Path, help='file to write')
    options = parser.parse_args()
    from models.checkpoint import read_checkpoint, restore, save_checkpoint

    checkpoint = read_checkpoint(options.source)
    model = restore(checkpoint).half()
    left_out = ('format', 'version', 'stride', 'resume')
    options.target.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        options.target,
        model,
        model.state_dict(),
        **{key: value for key, value in checkpoint.meta.items() if key not in left_out},
    )
    print(f'{options.target}: {options.target.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    run_command(main)
