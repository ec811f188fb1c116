"""A training as a job: from its start, or from where it was interrupted, to its evaluation."""

import shlex
from pathlib import Path

from utils.comparison.runs import Job, Run, column
from utils.comparison.settings import commit, machine, processor
from utils.runtime.options import options_of
from utils.runtime.run_folder import versions
from utils.training.options import TrainingOptions


def training_job(
    run: Run, flags: list[str], options: TrainingOptions, then: list[list[str]], evaluation: Path, threads: int
) -> Job:
    """The commands that complete a run.

    Args:
        run: what is there decides whether it is trained, goes on, or is evaluated only.
        flags: beside those of its entry.
        options: that hold for it.
        then: commands that follow the training.
        evaluation: the metrics.json that the last of them writes.
        threads: that it will compute with.
    """
    log = run.place / f'{run.name}.log'
    if run.trained:
        return Job(run.name, then, log, evaluation)
    results = run.folder / 'results.csv'
    if run.last.is_file():
        left = options.epochs - len(column(results, 'epoch'))
        return Job(run.name, [resumption(run, options), *then], log, evaluation, results, left)
    where = ['--seed', str(run.seed), '--project', str(run.place), '--name', run.name, '--exist-ok']
    step = [run.entry.script, *run.entry.flags, *flags, *where]
    content = {
        **{'command': shlex.join(['python', *step]), 'settings': run.settings, 'versions': versions()},
        **{'machine': machine(options.device), 'processor': processor(options.device)},
        **{'threads': threads, 'commit': commit()},
    }
    return Job(run.name, [step, *then], log, evaluation, results, options.epochs, (run.record, content))


def resumption(run: Run, options: TrainingOptions) -> list[str]:
    """The command that continues a run."""
    anew = [each for each in options_of(TrainingOptions).values() if each.resume and each.name != 'resume']
    flags = [part for each in anew for part in each.as_flags(getattr(options, each.name))]
    return [run.entry.script, '--resume', str(run.last), *flags]
