"""Write a network without its part for quads; its boxes stay as they are.

    python benchmarks/without_quads.py weights/ocrdistill-n.pt runs/boxes.pt

So a training with quads and one without can start from the same network (docs/evidence/quads.yaml).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.errors import UserError
from utils.runtime.cli import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='a checkpoint with quads')
    parser.add_argument('out', type=Path, help='file to write')
    options = parser.parse_args()
    from models.checkpoint import anchors_of, has_quads, read_checkpoint, save_checkpoint, transfer
    from models.yolo import DetectionModel

    if options.out.exists() and options.out.samefile(options.source):
        raise UserError(f'{options.out} is the source: name a new file')
    checkpoint = read_checkpoint(options.source)
    if not has_quads(checkpoint):
        raise UserError(f'{options.source} has no quads')
    model = DetectionModel(checkpoint.yaml, nc=len(checkpoint.names), anchors=anchors_of(checkpoint), quads=False)
    model.names = checkpoint.names
    report = transfer(model, checkpoint)
    save_checkpoint(options.out, model, model.state_dict())
    print(f'{options.out}: {report}')


if __name__ == '__main__':
    run_command(main)
