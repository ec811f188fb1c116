"""Distil a large, frozen teacher into a small student.

    python distill.py --recipe recipes/xn_maskdiff_PFI.yaml --data data/ICDAR.yaml --name xn_maskdiff_PFI
    python distill.py --methods mask,pfi=5,cwd=auto
    python distill.py --list-methods

The five published recipes have scripts of their own (distill_xn_maskdiff_PFI.py ...) that take the same flags.
The control of a comparison is train.py with the same options and seed: it starts from the same student.
"""

import argparse
import hashlib
import sys
from pathlib import Path

from utils.runtime.cli import run_command
from utils.runtime.options import add_distillation_options, add_training_options, check_training_options

DEFAULT_RECIPE = 'recipes/xn_maskdiff_PFI.yaml'
WEIGHT_FLAGS = {'mask_diff': 'mask', 'PFI_diff': 'pfi', 'feature_diff': 'hint'}
REPLACED = {
    'cfg_teacher': 'teacher',
    'cfg_student': 'student',
    'teacher_weights': 'teacher_weights',
    'student_weights': 'student_weights',
}


def parse_options(recipe: str | None) -> argparse.Namespace:
    """The command's options; a published script fixes the recipe."""
    description = sys.modules['__main__'].__doc__ if recipe else __doc__  # a published script explains itself
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = parser.add_argument_group('models and methods (defaults: the recipe)')
    if recipe is None:
        which = models.add_mutually_exclusive_group()
        which.add_argument('--recipe', metavar='YAML', help=f'({DEFAULT_RECIPE})')
        which.add_argument(
            '--methods',
            metavar='LIST',
            help="such as mask,pfi=5,cwd=auto: these methods with their default layers, and the default recipe's "
            'models; a number is the weight of the first term (the others keep their ratio), auto: weights that bring '
            "the terms' gradients, added, to 0.3 of the detection loss's in the first batch; auto:R: each term's to R",
        )
        which.add_argument('--list-methods', action='store_true', help='show all methods, a line each')
    models.add_argument('--cfg_teacher', '--cfg-teacher', metavar='YAML', help="the teacher's model yaml")
    models.add_argument('--cfg_student', '--cfg-student', metavar='YAML', help="the student's model yaml")
    models.add_argument(
        '--teacher_weights', '--teacher-weights', metavar='PT', help='a trained teacher; every entry must match'
    )
    models.add_argument(
        '--student_weights',
        '--student-weights',
        metavar='PT',
        help="weights to start the student from, '': from scratch",
    )
    models.add_argument(
        '--mask_diff',
        type=float,
        metavar='WEIGHT',
        help='weight of the mask term (objects; the background keeps its ratio)',
    )
    models.add_argument('--PFI_diff', type=float, metavar='WEIGHT', help='weight of the PFI term')
    models.add_argument('--feature_diff', type=float, metavar='WEIGHT', help='weight of the hint term')
    add_distillation_options(models)
    add_training_options(parser)
    options = parser.parse_args()
    if recipe is None and options.list_methods:
        from utils.distillation import list_methods

        print(list_methods())
        sys.exit()
    check_training_options(parser, options)
    if recipe is None and options.methods == '':
        parser.error('--methods: empty; leave it out for the recipe')
    vars(options).pop('list_methods', None)  # no setting of a run
    options.methods = None if recipe else options.methods
    options.recipe = recipe or options.recipe or DEFAULT_RECIPE
    shorthand = options.methods and options.methods.replace(',', '+').replace('=', '').replace(':', '')
    options.name = options.name or shorthand or Path(options.recipe).stem
    return options


def main(recipe: str | None = None) -> None:
    """Run the distillation command; `recipe` is the one that a published script stands for."""
    options = parse_options(recipe)
    from models.errors import UserError
    from utils.runtime.device import select_device

    select_device(options.device)  # the quickest mistake to report
    if options.resume is None:
        content = read_recipe(options)
        require_teacher(content, options.data)
        options.teacher_imgsz = options.teacher_imgsz or content.teacher_imgsz(options.imgsz)
    from utils.distillation.distiller import Distiller, DistillerSettings
    from utils.distillation.recipe import parse_recipe
    from utils.training.run import TrainingRun, seed_everything

    run = TrainingRun('distill', options)
    if recipe and (run.options.recipe != recipe or run.options.methods):
        raise UserError(f'{run.checkpoint.path} is of {run.options.recipe}, this script of {recipe}')
    options = run.options
    if run.checkpoint is not None:
        content = parse_recipe(options.recipe_content, run.checkpoint.path)
    teacher = load_teacher(run, content)
    seed_everything(options.seed)
    student = run.name_classes(build_student(content, teacher, run.data.nc, run.checkpoint, options.quads))
    kept = what_teacher(run, teacher, content.teacher_weights)
    settings = DistillerSettings(
        run.hyp,
        run.input_size,
        options.amp,
        options.seed,
        options.epochs,
        run.teacher_input_size,
        run.train_set.labelled / len(run.train_set),
    )
    criterion = Distiller(student, teacher, content, settings)
    run.train(student, criterion, recipe_content=content.as_dict(), **kept)


def read_recipe(options: argparse.Namespace):
    """The recipe with the command's overrides. Raises UserError."""
    import yaml

    from models.errors import UserError
    from utils.distillation.recipe import parse_recipe, read_shorthand
    from utils.runtime.hyp import read_yaml

    content, source = read_yaml(options.recipe), options.recipe
    if options.methods:
        content['methods'], source = read_shorthand(options.methods), f'--methods {options.methods}'
    for flag, key in (('kd_warmup', 'warmup_epochs'), ('kd_decay', 'decay')):
        if getattr(options, flag) is not None:
            content[key] = getattr(options, flag)
    recipe = parse_recipe(content, source)
    for flag, field in REPLACED.items():
        if getattr(options, flag) is not None:
            setattr(recipe, field, getattr(options, flag))
    for flag, method in WEIGHT_FLAGS.items():
        if getattr(options, flag) is not None:
            if options.methods and any(entry.startswith(f'{method}=') for entry in options.methods.split(',')):
                raise UserError(f'--{flag} contradicts --methods {options.methods}: both give a weight of {method}')
            recipe.override(f'--{flag}', method, getattr(options, flag))
    if options.methods:
        print(yaml.safe_dump(recipe.as_dict(), sort_keys=False), end='')
    return recipe


def require_teacher(recipe, data: str) -> None:
    """Say how to get a teacher (and the data) before anything slow happens. Raises UserError."""
    from models.errors import UserError
    from utils.loading.config import load_data_config
    from utils.loading.listing import list_images

    if recipe.teacher_weights and Path(recipe.teacher_weights).is_file():
        return
    size = Path(recipe.teacher).stem.removeprefix('yolov5')
    config = load_data_config(data)
    try:
        list_images(config, 'train')
        prepare = ''
    except UserError:
        prepare = f'prepare the data with "{config.prepare}", then '
    fetch = f'fetch a teacher with "python teacher/download.py icdar-{size}" or ' if size in 'nsmlx' else ''
    raise UserError(
        f'there are no teacher weights at {recipe.teacher_weights or "(none given)"}: {prepare}{fetch}'
        f'train one with "python train.py --cfg {recipe.teacher} '
        f'--data {data} --name teacher_{size}" and name its weights/best.pt with --teacher_weights'
    )


def load_teacher(run, recipe):
    """The teacher: every entry matched, frozen, on the device."""
    from models.checkpoint import read_checkpoint
    from utils.distillation.distiller import freeze_teacher

    teacher = matched_teacher(read_checkpoint(recipe.teacher_weights), recipe.teacher, run.data.names)
    return freeze_teacher(run.name_classes(teacher))


def what_teacher(run, teacher, weights: str) -> dict:
    """What a run keeps of its teacher: the file's SHA-256, and its scores on val, judged before the first epoch.

    Raises UserError where a run would be resumed with another teacher.
    """
    from models.errors import UserError

    with open(weights, 'rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    if run.checkpoint is not None:
        if getattr(run.options, 'teacher_sha256', digest) != digest:  # an earlier version kept none
            raise UserError(f'{weights} is not the teacher that the run began with: its content is another')
        return {'teacher_sha256': digest, 'teacher_scores': run.options.teacher_scores}
    scores = run.evaluate_val(teacher, 'judging the teacher', run.teacher_imgsz).scores
    print(f'teacher on val: mAP50 {scores["map50"]:.4f}, mAP50-95 {scores["map50_95"]:.4f}')
    return {'teacher_sha256': digest, 'teacher_scores': scores}


def matched_teacher(checkpoint, cfg: str, names: dict[int, str]):
    """A model of `cfg` with every entry of the checkpoint, head and anchors included. Raises UserError."""
    from models.checkpoint import anchors_of, has_quads, transfer
    from models.errors import UserError
    from models.yolo import DetectionModel

    nc = len(names)
    teacher = DetectionModel(cfg, nc=nc, anchors=anchors_of(checkpoint), quads=has_quads(checkpoint))
    if nc > 1 and checkpoint.names != names:
        raise UserError(f'the teacher {checkpoint.path} has the classes {checkpoint.names}, the data {names}')
    report = transfer(teacher, checkpoint)
    if report.skipped or report.missing:
        first = (report.missing or report.skipped)[0]
        raise UserError(
            f'the teacher {checkpoint.path} does not fit {cfg} with {nc} classes: {report}, the first {first}; a '
            f'teacher must match in every entry, the head included'
        )
    return teacher


def build_student(recipe, teacher, nc: int, resumed=None, quads: bool = False):
    """The student: the teacher's anchors, and the entries of --student_weights that fit; or that of the resumed run."""
    from models.checkpoint import anchors_of, has_quads, read_checkpoint, same_anchors
    from models.errors import UserError
    from models.yolo import DetectionModel
    from utils.training.run import start_from

    anchors = (teacher.head.anchors.float().cpu() * teacher.stride.view(-1, 1, 1)).flatten(1).tolist()
    checkpoint = read_checkpoint(recipe.student_weights) if recipe.student_weights and resumed is None else None
    origin = checkpoint or resumed
    student = DetectionModel(
        recipe.student, nc=nc, anchors=anchors, quads=quads or (origin is not None and has_quads(origin)) or None
    )
    if student.head.strides != teacher.head.strides:
        raise UserError(f'the student has strides {student.head.strides}, the teacher {teacher.head.strides}')
    if checkpoint:
        found = anchors_of(checkpoint)
        if found is not None and not same_anchors(found, anchors):
            raise UserError(f'{recipe.student_weights} has other anchors than the teacher; both must share them')
        start_from(student, checkpoint)
    return student


if __name__ == '__main__':
    run_command(main)
