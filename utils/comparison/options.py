"""The options of compare.py. Imports nothing heavy."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from utils.runtime.options import Options, option, options_of
from utils.training.options import MODELS, TeacherOptions, TrainingOptions

SIZES = ('n', 's', 'm', 'l', 'x')
ROWS = 'rows of the table'
DEFAULT_RECIPES = 'control,xn_maskdiff,xn_maskdiff_PFI,xn_maskdiff_PFI_Hint'
DECIDED = ('seed', 'resume', 'exist_ok')  # by the comparison itself
OWN = ('project', 'name', *DECIDED)  # training options that its runs do not get from it


def seed_list(text: str) -> list[int]:
    """'3' -> [0, 1, 2]; '0,3,5' -> [0, 3, 5]."""
    parts = [part.strip() for part in text.split(',') if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f'{text!r}: expected a number of seeds, or a list such as 0,3,5')
    seeds = [int(part) for part in parts] if ',' in text else list(range(*map(int, parts)))
    if not seeds or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f'{text!r}: at least one seed, and each once')
    return seeds


def size_list(text: str) -> list[str]:
    """'s,m' -> ['s', 'm']."""
    sizes = text.split(',')
    if set(sizes) - set(SIZES) or len(set(sizes)) < len(sizes):
        raise argparse.ArgumentTypeError(f'{text!r}: expected sizes of {", ".join(SIZES)}, each once')
    return sizes


@dataclass(kw_only=True)
class CompareOptions(TeacherOptions):
    """Of compare.py: the rows, and the training options that all runs get."""

    FIRST: ClassVar = (ROWS, MODELS)

    recipes: str = option(
        DEFAULT_RECIPES,
        "of 'control', names in recipes/, yamls, or methods as distill.py --methods takes them with + for the comma, "
        'such as mask+pfi=5; the control is always there ({default})',
        group=ROWS,
        metavar='LIST',
    )
    seeds: list[int] = option(
        [0, 1, 2], 'so many (0 to N-1), or a list: 0,3,5 (3)', group=ROWS, metavar='N', parse=seed_list
    )
    baselines: list[str] = option(
        [],
        'of n, s, m, l, x: also train models/yolov5SIZE.yaml from scratch, without a teacher (none)',
        group=ROWS,
        metavar='SIZES',
        parse=size_list,
    )
    task: str = option('test', 'split of the table ({default})', group=ROWS, choices=('val', 'test'))
    table: bool = option(False, 'run nothing: write the table from what is there', group=ROWS, kept=False)
    jobs: int = option(
        1,
        'runs at once, each with its part of the cores unless OMP_NUM_THREADS is set ({default})',
        group=ROWS,
        metavar='N',
        min=1,
    )
    project: str = option('runs/compare', 'folder of the comparisons ({default})', group='run', metavar='DIR')
    name: str = option('exp', 'folder of this comparison in it; one that exists is continued ({default})', group='run')
    # Not shown, but told apart from --seeds and the like
    seed: int = option(0)
    resume: str | None = option(None, bare='', kept=False)
    exist_ok: bool = option(False)

    def contradictions(self, given: set[str]) -> Iterator[str]:
        for name in sorted(given & set(DECIDED)):
            flag = options_of(type(self))[name].flag
            yield f'{flag}: a comparison has --seeds and --name, and goes on by itself where it was'
        yield from super().contradictions(given)
        if self.batch_size == -1:
            yield '--batch-size -1: another number for each recipe would be no comparison; give one'


def training_flags(options: Options) -> list[str]:
    """The training options that are not at their defaults, as train.py and distill.py take them."""
    known = options_of(TrainingOptions).values()
    return [part for each in known if each.name not in OWN for part in each.as_flags(getattr(options, each.name))]


def method_flags(options: TeacherOptions, maps: bool = True) -> list[str]:
    """What distill.py takes beside them and is given; `--maps` for recipes that need them alone."""
    known = [each for name, each in options_of(TeacherOptions).items() if name not in options_of(TrainingOptions)]
    known = [each for each in known if maps or each.name != 'maps']
    return [part for each in known for part in each.as_flags(getattr(options, each.name))]
