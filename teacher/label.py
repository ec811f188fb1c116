"""Label pictures with a teacher: CRAFT, or any checkpoint or exported file of this project.

    python teacher/label.py --teacher craft --source photos --out labelled
    python teacher/label.py --teacher weights/ocrdistill-s.pt --source photos --out labelled
    python teacher/label.py --teacher craft --source icdar2013/images/train --missing --out icdar2013_more

Words of which the teacher is sure become labels, the other words that it may see become don't-care regions: what a
network trains on is right, or left open. With --missing the pictures have labels, which stay as they are; words that
they lack become don't-care. OUT has images/, labels/, ignore/, and scores/ with all that the teacher found. A run that
was cut goes on where it stopped; pictures that have changed since, or their labels, are labelled anew.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from teacher.craft import CraftOptions
from utils.runtime.cli import run_command
from utils.runtime.options import MAX_SIDE, option, parse


@dataclass(kw_only=True)
class LabelOptions(CraftOptions):
    """Of this command."""

    teacher: str = option(help="'craft', or a checkpoint or exported file", metavar='craft|PT')
    source: Path = option(help='folder of pictures, subfolders too, or a list file', metavar='DIR')
    out: Path = option(help='folder to write; new, empty, or of the same command before', metavar='DIR')
    missing: bool = option(False, "keep the pictures' labels, and add don't-care regions for words that they lack")
    sure: float | None = option(
        None,
        "score from which a word is a label (default: CRAFT's .7, a checkpoint's own threshold)",
        metavar='SCORE',
        above=0,
        max=1,
    )
    unsure: float | None = option(
        None,
        "score from which a word is don't-care (default: half of --sure or of its default, the lower)",
        metavar='SCORE',
        above=0,
        max=1,
    )
    imgsz: int | None = option(
        None,
        'longer side, pixels (CRAFT 1280, the shipped weights 960, others that of their training)',
        metavar='PX',
        min=64,
        max=MAX_SIDE,
        multiple=32,
    )
    link: bool = option(False, 'link to the pictures instead of copying them')

    def contradictions(self, given: set[str]) -> Iterator[str]:
        if self.teacher != 'craft' and (unused := sorted(given & {'weights', 'cache'})):
            yield f'--{unused[0]} is for --teacher craft: {self.teacher} is a file of its own'


def main() -> None:
    options = parse(LabelOptions, __doc__)
    from utils.distillation.labelling import Labeller, make_teacher

    Labeller(make_teacher(options), options.source, options.out, options.missing, options.link).run()


if __name__ == '__main__':
    run_command(main)
