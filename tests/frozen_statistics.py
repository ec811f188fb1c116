"""train.py or distill.py in float32 with normalisation as it is in inference, for comparisons of one process with many:

    python tests/frozen_statistics.py STEPS.json distill.py FLAGS

STEPS.json gets the sums of the terms after every step.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from utils.runtime import distributed
from utils.runtime.cli import run_command
from utils.training.loop import Trainer


def main() -> None:
    out, command = Path(sys.argv[1]), sys.argv[2]
    sys.argv = sys.argv[2:]
    torch.nn.BatchNorm2d.train = lambda self, _mode=True: torch.nn.Module.train(self, False)
    steps, pause = [], Trainer._pause

    def noted(self):
        steps.append({name: float(distributed.total(v)) for name, v in sorted(self.state.progress.sums.items())})
        pause(self)

    Trainer._pause = noted
    __import__(command.removesuffix('.py')).main()
    # The process group has gone: the first process is the one that has reported.
    if not int(os.environ.get('RANK', '0')):
        out.write_text(json.dumps(steps))


if __name__ == '__main__':
    run_command(main)
