"""Compare distillation recipes with their control, over several seeds, in one table.

    python compare.py --recipes control,xn_maskdiff,xn_maskdiff_PFI --seeds 3 --name first
    python compare.py --recipes cwd,mask+pfi=5,my.yaml --seeds 0,3,5 --baselines s,m --epochs 100 --name second
    python compare.py --name first --table

Every run gets the same options. With one seed, the control (train.py) and the recipes (distill.py) start from the same
weights and see the same pictures in the same order. Every best.pt is then judged on the test split, at the threshold
that was chosen on val. What is done is not done again: after an interruption, call the same command once more.

All lies in runs/compare/NAME: table.md, table.csv (a row per recipe), runs.csv (a row per run), table.png,
comparison.yaml (the settings), and in runs/ a folder and a log of each run.
"""

import argparse
import contextlib
from pathlib import Path

from models.errors import UserError
from utils.runtime.cli import run_command
from utils.runtime.options import add_distillation_options, add_training_options, check_training_options, given_options

DEFAULT_RECIPES = 'control,xn_maskdiff,xn_maskdiff_PFI,xn_maskdiff_PFI_Hint'
CONTROL = 'control'
SIZES = ('n', 's', 'm', 'l', 'x')
MODELS = ('cfg_teacher', 'cfg_student', 'teacher_weights', 'student_weights')
METHODS = ('kd_warmup', 'kd_decay', 'teacher_imgsz', 'unlabelled')
REFUSED = ('seed', 'resume', 'exist_ok')  # what a comparison decides by itself
OWN = {
    'project': ('runs/compare', 'folder of the comparisons (%(default)s)'),
    'name': ('exp', 'folder of this comparison in it; one that exists is continued (%(default)s)'),
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows = parser.add_argument_group('rows of the table')
    rows.add_argument(
        '--recipes',
        default=DEFAULT_RECIPES,
        metavar='LIST',
        help="of 'control', names in recipes/, yamls, or methods as distill.py --methods takes them with + for the "
        'comma, such as mask+pfi=5; the control is always there (%(default)s)',
    )
    rows.add_argument(
        '--seeds', type=seed_list, default='3', metavar='N', help='so many (0 to N-1), or a list: 0,3,5 (%(default)s)'
    )
    rows.add_argument(
        '--baselines',
        type=size_list,
        default=[],
        metavar='SIZES',
        help='of n, s, m, l, x: also train models/yolov5SIZE.yaml from scratch, without a teacher (none)',
    )
    rows.add_argument('--task', choices=('val', 'test'), default='test', help='split of the table (%(default)s)')
    rows.add_argument('--table', action='store_true', help='run nothing: write the table from what is there')
    rows.add_argument(
        '--jobs',
        type=int,
        default=1,
        metavar='N',
        help='runs at once, each with its share of the cores unless OMP_NUM_THREADS is set (%(default)s)',
    )
    models = parser.add_argument_group("models and methods (defaults: the recipes'; --help of distill.py explains)")
    for name in MODELS:
        kind = 'PT' if name.endswith('weights') else 'YAML'
        models.add_argument(f'--{name}', f'--{name.replace("_", "-")}', metavar=kind, help="in place of the recipes'")
    add_distillation_options(models)
    add_training_options(parser)
    for action in parser._actions:
        if action.dest in REFUSED:
            action.help = argparse.SUPPRESS
        if action.dest in OWN:
            action.default, action.help = OWN[action.dest]
    return parser


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


def parse_options() -> argparse.Namespace:
    """The options; --table with nothing but --name takes the others from comparison.yaml."""
    parser = build_parser()
    options = parser.parse_args()
    given = given_options(parser)
    if refused := given & set(REFUSED):
        flag = min(refused).replace('_', '-')
        parser.error(f'--{flag}: a comparison has --seeds and --name, and goes on by itself where it was')
    check_training_options(parser, options)
    if options.batch_size == -1:
        parser.error('--batch-size -1: another number for each recipe would be no comparison; give one')
    if options.jobs < 1:
        parser.error('--jobs: at least 1')
    saved = Path(options.project) / options.name / 'comparison.yaml'
    if options.table and given <= {'table', 'name', 'project'} and saved.is_file():
        from utils.runtime.hyp import read_yaml

        return argparse.Namespace(
            **(vars(options) | read_yaml(saved)['options'] | {key: getattr(options, key) for key in given})
        )
    return options


def main() -> None:
    options = parse_options()
    from utils.comparison.comparison import Comparison
    from utils.comparison.runs import unlike
    from utils.loading.config import load_data_config
    from utils.loading.listing import list_images
    from utils.runtime.device import find_device
    from utils.runtime.run_folder import make_folder, sole_writer

    data = load_data_config(options.data)
    if not options.table:
        find_device(options.device)
        for split in dict.fromkeys(('train', 'val', options.task)):
            list_images(data, split)
    comparison = Comparison(options, training_flags(options))
    plan(comparison, options, data.nc)
    for run in comparison.runs:
        if difference := unlike(run):
            raise UserError(f'{run.folder} was run with other settings: {difference}; choose another --name')
    if options.table:
        if not any(run.trained for run in comparison.runs):
            raise UserError(f'--table: there are no finished runs in {comparison.place}')
        comparison.write_table()
        print(comparison.markdown())
        return
    with sole_writer(make_folder(comparison.folder)):
        compare(comparison, options.jobs)


def compare(comparison, count: int) -> None:
    """Run what is not done yet, count runs at once, and write the table. Raises UserError where a run failed."""
    from utils.comparison.runner import Runner

    comparison.save()
    jobs = comparison.jobs()
    print(f'{len(jobs)} to run, {comparison.size - len(jobs)} done before; results: {comparison.folder}', flush=True)
    failed = Runner(jobs, count, comparison.write_table).run()
    comparison.write_table()
    print(comparison.markdown())
    if failed:
        raise UserError(f'{len(failed)} of {len(jobs)} failed: {", ".join(failed)}; see the logs in {comparison.place}')


def training_flags(options: argparse.Namespace) -> list[str]:
    """The training options that are not at their defaults, as train.py and distill.py take them."""
    parser = argparse.ArgumentParser()
    add_training_options(parser)
    flags = []
    for action in parser._actions:
        value = getattr(options, action.dest, action.default)
        if value != action.default and action.dest not in (*OWN, *REFUSED):
            off = value is False  # of --cache and --no-cache, which are one option, the second
            flags += [action.option_strings[-1 if off else 0]] + [str(value)] * (action.nargs != 0)
    return flags


def plan(comparison, options: argparse.Namespace, nc: int) -> None:
    """Add the rows: control, baselines, recipes, teachers. Raises UserError where there would be no fair control."""
    names = [name.strip() for name in options.recipes.split(',') if name.strip()]
    if CONTROL not in names:
        print('--recipes: the control is added')
    distilled = [name for name in names if name != CONTROL]
    taken = [CONTROL] * max(names.count(CONTROL), 1) + [f'yolov5{size}' for size in options.baselines]
    which = {}
    for name in distilled or [None]:
        flags, recipe, label = resolve_recipe(name, options)
        which[label] = (flags, recipe)
        taken.append(label)
    if twice := [label for label in taken if taken.count(label) > 1]:
        raise UserError(f'--recipes: {twice[0]} stands there twice')
    recipes = [recipe for _, recipe in which.values()]
    for field in ('student', 'student_weights'):
        found = list(dict.fromkeys(getattr(recipe, field) for recipe in recipes))
        if len(found) > 1:
            flag = {'student': '--cfg_student', 'student_weights': '--student_weights'}[field]
            raise UserError(f'the recipes have different students, {found[0]!r} and {found[1]!r}: choose with {flag}')
    teachers = list(dict.fromkeys(recipe.teacher_weights for recipe in recipes if distilled))
    student, weights = control_start(recipes[0], teachers, comparison.folder, nc)
    flags = ['--weights', weights] if weights else ['--cfg', student]
    comparison.add(CONTROL, 'control', flags, cfg='' if weights else student, weights=weights)
    for size in options.baselines:
        cfg = f'models/yolov5{size}.yaml'
        comparison.add(f'yolov5{size}', 'baseline', ['--cfg', cfg], cfg=cfg, weights='')
    for label, (flags, recipe) in which.items() if distilled else ():
        size = options.teacher_imgsz or recipe.teacher_imgsz(options.imgsz)
        if not options.table:
            try_recipe(label, recipe, comparison, size)
        more = {'teacher_imgsz': size, 'unlabelled': options.unlabelled}
        comparison.add(label, 'recipe', flags, recipe_content=recipe.as_dict(), **more)
        comparison.add_teacher(recipe.teacher, recipe.teacher_weights, size)


def resolve_recipe(name: str | None, options: argparse.Namespace):
    """(distill.py's flags, Recipe, label) of an entry of --recipes; None: the default recipe's models. UserError."""
    import distill

    methods, recipe = None, distill.DEFAULT_RECIPE
    if name and (Path(name).is_file() or name.endswith(('.yaml', '.yml'))):
        recipe = name
    elif name and Path(f'recipes/{name}.yaml').is_file():
        recipe = f'recipes/{name}.yaml'
    elif name:
        methods = name.replace('+', ',')
    flags = ['--methods', methods] if methods else ['--recipe', recipe]
    replaced = {key: getattr(options, key) for key in (*MODELS, *METHODS)}
    flags += [part for key, value in replaced.items() if value is not None for part in (f'--{key}', str(value))]
    weights = dict.fromkeys(distill.WEIGHT_FLAGS)
    try:
        with contextlib.redirect_stdout(None):  # it prints what a shorthand stands for
            content = distill.read_recipe(argparse.Namespace(recipe=recipe, methods=methods, **replaced, **weights))
    except UserError as error:
        if methods:
            raise UserError(f'--recipes: {name} is no name in recipes/ and no file, and as methods: {error}') from None
        raise
    if name and not options.table:
        distill.require_teacher(content, options.data)
    return flags, content, name if methods else Path(recipe).stem


def try_recipe(label: str, recipe, comparison, teacher_imgsz: int | None) -> None:
    """Raise what distill.py would of these models and methods, now and not after hours of the control. UserError."""
    import distill
    from models.checkpoint import read_checkpoint
    from utils.distillation.distiller import Distiller, DistillerSettings, freeze_teacher

    options, data = comparison.options, comparison.data
    try:
        with contextlib.redirect_stdout(None):
            teacher = distill.matched_teacher(read_checkpoint(recipe.teacher_weights), recipe.teacher, data.names)
            student = distill.build_student(recipe, teacher, data.nc, resuming=False)
            labelled = 0.5 if options.unlabelled else 1.0  # whatever is less than all
            settings = DistillerSettings(comparison.hyp, options.imgsz, teacher_imgsz=teacher_imgsz, labelled=labelled)
            Distiller(student, freeze_teacher(teacher), recipe, settings)
    except UserError as error:
        raise UserError(f'{label}: {error}') from None


def control_start(recipe, teachers: list[str], folder: Path, nc: int) -> tuple[str, str]:
    """(model yaml, weights) of the control, which must start as the recipe's student does.

    They take their teacher's anchors. Where these are not the yaml's, the control gets a yaml of its own.

    Raises:
        UserError: the teachers have different anchors, or the weights are of another network than the student.
    """
    import yaml

    from models.checkpoint import anchors_of, read_checkpoint, same_anchors
    from models.yolo import DetectionModel
    from utils.runtime.run_folder import write_yaml

    student, weights = recipe.student, recipe.student_weights
    model = DetectionModel(student, nc=nc)
    if weights:
        start = DetectionModel(read_checkpoint(weights).yaml or student, nc=nc)
        shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in (model, start)]
        if shapes[0] != shapes[1]:
            raise UserError(f'{weights} is of another network than the student {student}: give its --cfg_student')
        return student, weights
    file = folder / 'student.yaml'
    if not all(Path(teacher).is_file() for teacher in teachers):  # --table alone gets here without them
        return str(file) if file.is_file() else student, weights
    found = [anchors_of(read_checkpoint(teacher)) or model.yaml['anchors'] for teacher in teachers]
    for teacher, anchors in zip(teachers, found, strict=True):
        if not same_anchors(anchors, found[0]):
            raise UserError(f'{teachers[0]} and {teacher} have different anchors: one control cannot stand for both')
    if not found or same_anchors(found[0], model.yaml['anchors']):
        return student, weights
    write_yaml(file, yaml.safe_load(Path(student).read_text(encoding='utf-8')) | {'anchors': found[0]})
    print(f"the control takes the teacher's anchors, as the students do: {file}")
    return str(file), weights


if __name__ == '__main__':
    run_command(main)
