"""The whole story on rendered pictures: what a teacher adds to a student that has little time to learn.

A YOLOv5-S that knows rendered text teaches an N that begins with random weights. Beside it an equal N learns without a
teacher: the control. Both see the same pictures in the same order, with three seeds. compare.py trains and judges them.
At the end the shipped student (weights/ocrdistill-n.pt) looks at street-like pictures that it never saw.

Runs the project's own commands one after the other and prints each; everything stays in runs/.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

from models.errors import UserError
from utils.runtime.cli import positive, run_command

ROOT = Path(__file__).resolve().parent
PROJECT = ROOT / 'runs/compare'
EPOCHS = 8
SIZE = 256
DATA = 'data/demo_small.yaml'
OPTIONS = (
    f'--imgsz {SIZE} --batch-size 16 --nominal-batch 16 --optimizer AdamW --lr0 0.002 --cos-lr --cache --workers 0'
)
SHOWN = 6  # pictures


def run(command: str) -> None:
    """Run one of the project's commands as a user would; its output goes to the terminal."""
    print(f'\n$ python {command}', flush=True)
    # In a group of its own: it is told once to stop, by us, and has time to stop what it started.
    with subprocess.Popen([sys.executable, *shlex.split(command)], cwd=ROOT, process_group=0) as process:
        try:
            process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        raise UserError(f'"python {command}" ended with status {process.returncode}')


def draw_words(models: dict[str, Path], file: Path) -> None:
    """What both students find in the first test pictures."""
    import torch

    from models.checkpoint import load_model
    from utils.evaluation.grids import plot_side_by_side
    from utils.evaluation.report import evaluate_split
    from utils.evaluation.split import EvaluationSplit
    from utils.evaluation.verdicts import Verdict, judge_image
    from utils.loading.config import load_data_config
    from utils.loading.images import load_image

    split = EvaluationSplit(load_data_config(ROOT / DATA), 'test', SIZE)
    verdicts: dict[str, list[Verdict]] = {}
    for name, weights in models.items():
        report = evaluate_split(load_model(weights), split, torch.device('cpu'), title=name)
        shown, truths, point = report.evaluation.images[:SHOWN], report.evaluation.truths, report.point
        verdicts[name] = [
            judge_image(image, point.threshold, point.scale, truth)
            for image, truth in zip(shown, truths or [], strict=False)
        ]
    title = f'the first {SHOWN} test pictures, each at the threshold that val chose for it; right: IoU over 0.5'
    plot_side_by_side([load_image(image.path) for image in shown], verdicts, file, title)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--epochs', type=positive, default=EPOCHS, help='of each run (%(default)s)')
    parser.add_argument('--seeds', type=positive, default=3, help='runs of each kind (%(default)s)')
    options = parser.parse_args()
    start = time.time()
    name = 'demo' if options.epochs == EPOCHS else f'demo_{options.epochs}_epochs'  # compare.py mixes no lengths
    folder = PROJECT / name
    run('data/synthtext.py --size 320x192 --out demo_small')
    run(
        f'compare.py --recipes control,recipes/demo.yaml --seeds {options.seeds} --jobs 2 --data {DATA} {OPTIONS} '
        f'--epochs {options.epochs} --noplots --name {name}'
    )
    weights = {
        student: folder / f'runs/{run_name}-seed0/weights/best.pt'
        for student, run_name in (('control', 'control'), ('taught', 'demo'))
    }
    draw_words(weights, folder / 'words.jpg')
    run('data/synthtext.py --style incidental --size 1280x720 --train 0 --test 8 --seed 99 --out demo_pictures')
    run('detect.py --source demo_pictures/images/test_icdar --save-json --name demo --exist-ok')
    print(
        f'\n{(time.time() - start) / 60:.1f} minutes. In {folder.relative_to(ROOT)}: table.md (above) and table.png; '
        'curves.png, how both learned; words.jpg, what both find. Both learned for a short time, and the taught one '
        'took longer for it (training, in the table). Words found by the shipped student: runs/detect/demo'
    )


if __name__ == '__main__':
    run_command(main)
