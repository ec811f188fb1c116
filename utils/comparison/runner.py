"""The processes of a comparison: several at once, with progress, ended together."""

import os
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from models.yamls import ROOT
from utils.comparison.runs import Job, read_metrics
from utils.comparison.statistics import COMPARED, METRICS
from utils.runtime.cores import usable_cores
from utils.runtime.distributed import RUNS_AT_ONCE
from utils.runtime.run_folder import write_json
from utils.training.log import duration

POLL, GRACE = 0.2, 600  # seconds between looks at the processes; that they get to end a step and save


class Runner:
    """Runs jobs as child processes, several at once, and shows how far they are.

    Args:
        jobs: to run.
        count: at once.
        report: called after every job that ends well.
    """

    def __init__(self, jobs: list[Job], count: int, report: Callable[[], None]):
        self.waiting, self.number, self.count, self.report = deque(jobs), len(jobs), count, report
        self.active: list[tuple[Job, subprocess.Popen]] = []
        self.failed: list[str] = []
        self.total, self.ended, self.start = sum(job.work for job in jobs), 0, time.monotonic()
        self.environment = os.environ | {'OMP_NUM_THREADS': str(threads_of(count)), RUNS_AT_ONCE: str(count)}
        self.bar: tqdm | None = None

    def run(self) -> list[str]:
        """Run all; returns the names of those that failed.

        Raises:
            KeyboardInterrupt: after the children have ended; what is on disk stays.
        """
        form = '{desc}: {percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left'
        try:
            with tqdm(total=self.total, desc='all runs', bar_format=form, disable=None) as self.bar:
                while self.waiting or self.active:
                    self._fill()
                    time.sleep(POLL)
                    for job, child in [pair for pair in self.active if pair[1].poll() is not None]:
                        self.active.remove((job, child))
                        self._follow(job, child.returncode)
                    self.bar.n = self._progress()
                    self.bar.refresh()
        except KeyboardInterrupt:
            print('\nstopping; all that is done is kept: call the same command again to go on', file=sys.stderr)
            raise
        finally:
            self._stop()
        return self.failed

    def _say(self, text: str) -> None:
        self.bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def _fill(self) -> None:
        """Start what there is room for."""
        while self.waiting and len(self.active) < self.count:
            job = self.waiting.popleft()
            job.began = time.monotonic()
            if job.record:
                for file in (job.results, job.evaluation):  # of an earlier start
                    file.unlink(missing_ok=True)
                write_json(*job.record)
            job.log.parent.mkdir(parents=True, exist_ok=True)
            how = 'goes on' if '--resume' in job.steps[0] else 'starts' if job.epochs else 'is evaluated'
            self._say(f'{job.name} {how} ({job.log})')
            self._step(job)

    def _step(self, job: Job) -> None:
        """Start the job's next command; its output is added to the log."""
        script, *arguments = job.steps.pop(0)
        with open(job.log, 'a', encoding='utf-8') as log:
            log.write(f'$ python {shlex.join([script, *arguments])}\n')
            log.flush()
            command = [sys.executable, str(ROOT / script), *arguments]
            # A process group of its own: Ctrl-C reaches this process alone, and _stop() tells the children once. Two
            # signals would end them at once, with the step under way lost.
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                process_group=0,
            )
        self.active.append((job, child))

    def _follow(self, job: Job, status: int) -> None:
        """A command has ended: start the job's next one, or report."""
        if status == 0 and job.steps:
            self._step(job)
            return
        self.ended += job.work
        fraction = self._progress() / self.total
        passed = time.monotonic() - self.start
        left = f'{len(self.waiting) + len(self.active)} of {self.number} left'
        left += (
            f', about {duration(passed / fraction - passed)}' if fraction < 1 and job.epochs else ''
        )  # an evaluation alone tells nothing
        if status:
            self.failed.append(job.name)
            self._say(f'{job.name} FAILED with status {status}: {last_error(job.log)} ({left})')
            return
        metrics = read_metrics(job.evaluation)
        scores = ', '.join(f'{METRICS[key]} {metrics[key]:.4f}' for key in COMPARED if key in metrics)
        self._say(f'{job.name} done in {duration(time.monotonic() - job.began)}: {scores} ({left})')
        self.report()

    def _progress(self) -> int:
        return self.ended + sum(job.done() for job, _ in self.active)

    def _stop(self) -> None:
        """End the children: they keep what is on disk. Those that do not end in time are killed."""
        children = [child for _, child in self.active]
        try:
            for child in children:
                child.terminate()
            for child in children:
                child.wait(GRACE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            for child in children:
                child.kill()


def threads_of(count: int) -> int:
    """Threads that each of so many runs at once computes with: OMP_NUM_THREADS, or its part of the cores."""
    given = os.environ.get('OMP_NUM_THREADS', '')
    if given.isdecimal() and int(given):
        return int(given)
    return max(usable_cores() // count, 1)


def last_error(log: Path) -> str:
    """The last line of a log, or its last 'error: ...' of the last command."""
    lines = [line.strip() for line in log.read_text(encoding='utf-8', errors='replace').splitlines() if line.strip()]
    start = max(number for number, line in enumerate(lines) if line.startswith('$ python '))
    errors = [line for line in lines[start:] if line.startswith('error: ')]
    return errors[-1] if errors else lines[-1]
