"""Run a plan of trainings whose results are kept, row by row, and add what comes out to the csv beside the plan.

    python benchmarks/evidence.py docs/evidence/icdar2015.yaml --list
    timeout 2h python benchmarks/evidence.py docs/evidence/icdar2015.yaml

What the csv has is not run again, and what was interrupted goes on: call the same command once more, each evening.
docs/draw_evidence.py makes tables and curves of the csv; docs/evidence/README.md explains it.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.errors import UserError
from utils.runtime.cli import run_command
from utils.runtime.options import Options, option, parse


@dataclass(kw_only=True)
class EvidenceOptions(Options):
    """Of this command."""

    plan: Path = option(help='the plan', flags=('plan',), metavar='YAML')
    list: bool = option(False, 'run nothing: show the steps, what is done, and the hours that the rest should take')
    step: int | None = option(None, 'run this step alone, by its number in --list', metavar='N', min=1)
    jobs: int = option(1, 'runs at once, each with its part of the cores ({default})', metavar='N', min=1)
    other_processor: bool = option(False, 'begin the plan anew on another kind of processor than that of the csv')

    def contradictions(self, given: set[str]) -> Iterator[str]:
        if self.list and given & {'step', 'jobs', 'other_processor'}:
            yield '--step, --jobs and --other-processor: have no use with --list'


def main() -> None:
    options = parse(EvidenceOptions, __doc__)
    from utils.comparison.evidence import Evidence
    from utils.comparison.plan import read_plan
    from utils.runtime.run_folder import make_folder, sole_writer

    evidence = Evidence(read_plan(options.plan), options.jobs)
    if options.list:
        print(evidence.describe())
        return
    if not options.other_processor:
        evidence.refuse_other_processor()
    with sole_writer(make_folder(evidence.place)):
        failed = evidence.run(options.step)
    print(f'results: {evidence.file}')
    if failed:
        raise UserError(f'{len(failed)} failed: {", ".join(failed)}; see the logs in {evidence.place}')


if __name__ == '__main__':
    run_command(main)
