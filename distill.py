"""Distil a large, frozen teacher into a small student.

    python distill.py --recipe recipes/xn_maskdiff_PFI.yaml --data data/ICDAR.yaml --name xn_maskdiff_PFI
    python distill.py --methods mask,pfi=5,cwd=auto
    python distill.py --list-methods

The five published recipes have scripts of their own (distill_xn_maskdiff_PFI.py ...) that take the same flags.
The control of a comparison is train.py with the same options and seed: it starts from the same student.
"""

import sys
from pathlib import Path

from utils.runtime.cli import run_command
from utils.runtime.options import parse
from utils.training.options import DistillOptions


def parse_options(recipe: str | None) -> DistillOptions:
    """The command's options; a published script fixes the recipe, and explains itself."""
    if recipe:
        chosen = ('recipe', 'methods', 'list_methods')
        options = parse(DistillOptions, sys.modules['__main__'].__doc__, without=chosen)
        options.recipe = recipe
    else:
        options = parse(DistillOptions, __doc__)
    shorthand = options.methods and options.methods.replace(',', '+').replace('=', '').replace(':', '')
    options.name = options.name or shorthand or Path(options.recipe).stem
    return options


def main(recipe: str | None = None) -> None:
    """Run the distillation command; `recipe` is the one that a published script stands for."""
    options = parse_options(recipe)
    if options.list_methods:
        from utils.distillation import list_methods

        print(list_methods())
        return
    from utils.distillation.distiller import Distiller, DistillerSettings, freeze_teacher
    from utils.distillation.models import add_maps, build_student, load_teacher, resolve_recipe, resolve_teacher
    from utils.training.resolve import resolve
    from utils.training.run import TrainingRun, seed_everything

    start = resolve(options)
    content = resolve_recipe(start, published=recipe)
    run = TrainingRun(start)
    add_maps(run.train_set, content, run.options)
    teacher = freeze_teacher(run.name_classes(load_teacher(content, run.data.names)))
    seed_everything(run.options.seed)
    student = build_student(content, teacher, run.data.names, run.checkpoint, run.options.quads)
    student = run.name_classes(student)
    resolve_teacher(run, teacher, content)
    settings = DistillerSettings(
        hyp=run.hyp,
        imgsz=run.input_size,
        amp=run.options.amp,
        seed=run.options.seed,
        epochs=run.options.epochs,
        teacher_imgsz=run.teacher_input_size,
        labelled=run.train_set.labelled / len(run.train_set),
    )
    run.train(student, Distiller(student, teacher, content, settings))


if __name__ == '__main__':
    run_command(main)
