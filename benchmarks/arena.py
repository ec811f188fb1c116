"""Contestants side by side: one process each, one round of each after the other, so that all meet the same machine."""

import contextlib
import os
import re
import resource
import statistics
import sys
import time
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from models.errors import UserError

MEGA = 2**20


@dataclass
class Record:
    """What one contestant did.

    Attributes:
        seconds: of each round after the first, which warms up.
        results: what the first round found; training goes on from there.
        memory: MiB at its peak: of the GPU where one is used, else of the process.
        base: the same before its first round, all models and pictures loaded.
    """

    seconds: list[float] = field(default_factory=list)
    results: dict = field(default_factory=dict)
    memory: float = 0.0
    base: float = 0.0


def peak_memory() -> float:
    """MiB that this process has held at once so far."""
    status = Path('/proc/self/status')
    if status.exists():  # rusage would count what the parent held when it started this process
        return int(re.search(r'VmHWM:\s+(\d+)', status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MEGA if sys.platform == 'darwin' else 1024)


def _serve(pipe: Connection, name: str, settings, options: dict) -> None:
    """A contestant's process: set up, then a round for every message but the last, False."""
    import torch

    from benchmarks.contests import CONTESTANTS

    def memory() -> float:
        return torch.cuda.max_memory_allocated() / MEGA if torch.cuda.is_initialized() else peak_memory()

    def wait() -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()

    try:
        with open(os.devnull, 'w') as nothing, contextlib.redirect_stdout(nothing):
            contestant = CONTESTANTS[name](settings, **options)
        pipe.send(memory())
        while pipe.recv():
            wait()
            start = time.perf_counter()
            found = contestant.round()
            wait()
            pipe.send((time.perf_counter() - start, found, memory()))
    except Exception as error:
        expected = isinstance(error, UserError)
        pipe.send(error if expected else UserError(f'{name} {options}: {error!r}'))
        if not expected:
            raise


class Contestant:
    """The other end of a contestant's process."""

    def __init__(self, name: str, settings, options: dict):
        context = get_context('spawn')
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, name, settings, options), daemon=False)
        self.process.start()
        other.close()
        self.record = Record()

    def _receive(self):
        try:
            answer = self.pipe.recv()
        except EOFError:
            raise UserError('a process of the benchmark died: too little memory?') from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ready(self) -> None:
        self.record.base = self._receive()

    def round(self, warm: bool) -> None:
        self.pipe.send(True)
        seconds, found, self.record.memory = self._receive()
        if warm:
            self.record.seconds.append(seconds)
        else:
            self.record.results = found

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send(False)
        self.process.join(30)
        if self.process.is_alive():
            self.process.terminate()


def compete(contestants: dict[str, tuple[str, dict]], settings, rounds: int) -> dict[str, Record]:
    """Time contestants side by side.

    Args:
        contestants: {title: (name of a class in contests.py, its options)}.
        rounds: timed rounds of each, after one that warms up.

    Returns:
        {title: Record}.
    """
    started: dict[str, Contestant] = {}
    try:
        for title, (name, options) in contestants.items():
            started[title] = Contestant(name, settings, options)
            started[title].ready()  # one by one: set-ups must not disturb each other's memory
        for number in range(rounds + 1):
            for contestant in started.values():
                contestant.round(warm=number > 0)
        return {title: contestant.record for title, contestant in started.items()}
    finally:
        for contestant in started.values():
            contestant.end()


def ratio(first: list[float], second: list[float]) -> dict[str, float]:
    """Of two lists of seconds, round by round: median, least and greatest quotient."""
    quotients = sorted(a / b for a, b in zip(first, second, strict=True))
    return {'median': statistics.median(quotients), 'least': quotients[0], 'greatest': quotients[-1]}
