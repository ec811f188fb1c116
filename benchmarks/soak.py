"""A soak: one run after another on rendered pictures, killed (-9) at random moments and resumed, for some minutes.

    python benchmarks/soak.py --minutes 20

Before every kill the process's memory, open files and threads are noted; they must not grow from life to life, nor with
a life's length. Every run that comes to its end must have the results of the first, which nobody disturbed. Prints a
Markdown table (medians of each quarter of the time); ends with status 1 if a run differs.
"""

import argparse
import csv
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.rendered import render  # noqa: E402
from models.errors import UserError  # noqa: E402
from utils.runtime.cli import run_command  # noqa: E402

COLUMNS = {'memory, MB': 'VmRSS', 'most memory, MB': 'VmHWM', 'threads': 'Threads', 'open files': ''}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=20, help='(%(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the moments (%(default)s)')
    return parser.parse_args()


def start(folder: Path, run: Path) -> subprocess.Popen:
    """train.py in the run's folder, from the beginning or from its last.pt."""
    last = run / 'weights/last.pt'
    if last.is_file():
        flags = ['--resume', last, '--device', 'cpu']
    else:
        flags = ['--data', folder / 'data.yaml', '--imgsz', 320, '--batch-size', 8, '--epochs', 6, '--workers', 1]
        flags += ['--device', 'cpu', '--noplots', '--save-every', 0.02, '--project', folder, '--name', run.name]
        flags += ['--exist-ok']
    quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, 'train.py', *map(str, flags)], cwd=ROOT, **quiet)


def look_at(process: subprocess.Popen) -> dict[str, float]:
    """Memory in MB, threads and open files of a process, from /proc; nothing of one that has ended."""
    place = Path('/proc') / str(process.pid)
    rows = dict(line.split(':', 1) for line in (place / 'status').read_text().splitlines())
    if 'VmRSS' not in rows:
        return {}
    found = {}
    for column, key in COLUMNS.items():
        number = int(rows[key].split()[0]) if key else len(list((place / 'fd').iterdir()))
        found[column] = number / 1024 if column.endswith('MB') else number
    return found


def results(run: Path) -> list[dict]:
    """Rows of results.csv but for the clock's."""
    with open(run / 'results.csv', newline='') as file:
        return [{key: value for key, value in row.items() if key != 'seconds'} for row in csv.DictReader(file)]


def table(notes: list[dict], minutes: float) -> str:
    lines = ['| minutes | kills | ' + ' | '.join(COLUMNS) + ' |', '|---' * (2 + len(COLUMNS)) + '|']
    for quarter in range(4):
        low, high = minutes * quarter / 4, minutes * (quarter + 1) / 4
        # The last process may be killed after the last minute.
        mine = [note for note in notes if low <= note['minute'] and (note['minute'] < high or quarter == 3)]
        if mine:
            cells = [f'{statistics.median(note[column] for note in mine):.0f}' for column in COLUMNS]
            lines.append(f'| {low:.0f} to {high:.0f} | {len(mine)} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def soak(folder: Path, minutes: float, chance: random.Random) -> tuple[list[dict], int]:
    """What was noted before every kill, and how many runs came to their end. Raises UserError if one differs."""
    begin = time.monotonic()
    if start(folder, folder / 'straight').wait():
        raise UserError('the undisturbed run failed')
    seconds, wanted = time.monotonic() - begin, results(folder / 'straight')
    notes, finished, begin = [], 0, time.monotonic()
    while time.monotonic() - begin < 60 * minutes:
        run = folder / f'run{finished}'
        process = start(folder, run)
        try:
            process.wait(chance.uniform(0, 1.2 * seconds))
        except subprocess.TimeoutExpired:
            seen = look_at(process)
            notes += [seen | {'minute': (time.monotonic() - begin) / 60}] if seen else []  # else it has just ended
            process.kill()
            process.wait()
            continue
        # A run that was killed after its report says that there is nothing to resume.
        if results(run) != wanted or not (run / 'metrics.json').is_file():
            raise UserError(f'{run} differs from the undisturbed run after {len(notes)} kills')
        finished += 1
        shutil.rmtree(run)
    return notes, finished


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as folder:
        render(Path(folder), 64)
        shared = len(os.listdir('/dev/shm'))
        notes, finished = soak(Path(folder), options.minutes, random.Random(options.seed))
        print(table(notes, options.minutes), flush=True)
        time.sleep(10)  # loading processes of the killed notice within 5 s
        left = subprocess.run(['pgrep', '-f', folder], capture_output=True, text=True, check=False).stdout.split()
    print(
        f'{len(notes)} kills, {finished} runs ended as the undisturbed one; left over: {len(left)} processes, '
        f'{len(os.listdir("/dev/shm")) - shared} files in shared memory'
    )


if __name__ == '__main__':
    run_command(main)
