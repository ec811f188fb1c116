"""The whole story on rendered pictures: data, a control, a distilled student, their metrics, words found.

At the end the shipped student (weights/ocrdistill-n.pt) looks at street-like pictures that it never saw.

Runs the project's own commands one after the other and prints each; everything stays in runs/.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from models.errors import UserError
from utils.runtime.cli import run_command

ROOT = Path(__file__).resolve().parent
TEACHER, START = 'teacher/demo/yolov5s.pt', 'teacher/demo/yolov5n.pt'
SHARED = (
    '--data data/demo.yaml --imgsz 512 --nominal-batch 16 --optimizer AdamW --lr0 0.0003 --cos-lr --cache --workers 1'
)
ROWS = {
    'teacher (YOLOv5-S)': ('demo_teacher', TEACHER),
    'start (N, where both began)': ('demo_start', START),
    'control (N, not distilled)': ('demo_control', 'runs/train/demo_control/weights/best.pt'),
    'student (N, distilled)': ('demo_student', 'runs/distill/demo_student/weights/best.pt'),
}


def run(command: str) -> None:
    """Run one of the project's commands as a user would; its output goes to the terminal."""
    print(f'\n$ python {command}', flush=True)
    done = subprocess.run([sys.executable, *shlex.split(command)], cwd=ROOT, check=False)
    if done.returncode:
        raise UserError(f'"python {command}" ended with status {done.returncode}')


def print_table() -> None:
    """The metrics of all four models on the test pictures, none of which any of them was trained on."""
    print(f'\n{"on 100 test pictures, 512 px":<32}{"mAP50":>8}{"mAP50-95":>10}{"hmean":>8}')
    for title, (name, _) in ROWS.items():
        scores = json.loads((ROOT / 'runs/val' / name / 'metrics.json').read_text())
        print(f'{title:<32}{scores["map50"]:>8.4f}{scores["map50_95"]:>10.4f}{scores["icdar_hmean"]:>8.4f}')
    print('One seed and a few epochs: a demonstration of the tool, not of what distillation gains.')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--epochs', type=int, default=5, help='of the control and of the student (%(default)s)')
    options = parser.parse_args()
    start = time.time()
    run('data/synthtext.py')
    training = f'{SHARED} --epochs {options.epochs} --exist-ok'
    run(f'train.py --weights {START} {training} --name demo_control')
    run(f'distill.py --recipe recipes/demo.yaml {training} --name demo_student')
    for name, weights in ROWS.values():
        run(f'val.py --weights {weights} --data data/demo.yaml --task test --imgsz 512 --name {name} --exist-ok')
    student = ROWS['student (N, distilled)'][1]
    run(
        f'detect.py --weights {student} --source demo_data/images/test_icdar --imgsz 512 --save-json '
        '--name demo --exist-ok'
    )
    run('data/synthtext.py --style incidental --size 1280x720 --train 0 --test 8 --seed 99 --out demo_pictures')
    run('detect.py --source demo_pictures/images/test_icdar --save-json --name demo_shipped --exist-ok')
    print_table()
    print(
        f'\n{(time.time() - start) / 60:.1f} minutes. Words found: runs/detect/demo; by the shipped student: '
        'runs/detect/demo_shipped; labels beside predictions: runs/val/demo_student/predictions.jpg; curves: '
        f'runs/distill/demo_student/results.png; student: {student}'
    )


if __name__ == '__main__':
    run_command(main)
