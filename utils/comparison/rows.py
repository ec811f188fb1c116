"""The rows of a comparison: control, baselines, recipes and teachers, each checked before anything runs."""

import contextlib
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from models.checkpoint import anchors_of, has_quads, read_checkpoint, same_anchors
from models.errors import UserError
from models.yamls import near_program, read_yaml
from models.yolo import DetectionModel
from utils.comparison.comparison import Comparison
from utils.comparison.options import CompareOptions, method_flags
from utils.distillation.craft import MapCache
from utils.distillation.distiller import Distiller, DistillerSettings, freeze_teacher
from utils.distillation.models import (
    build_student,
    load_teacher,
    refuse_frozen,
    require_maps,
    require_teacher,
    take_own_yaml,
)
from utils.distillation.recipe import Recipe, read_recipe
from utils.loading.config import DataConfig
from utils.loading.listing import list_images, new_images
from utils.loading.scan import examine, measure
from utils.runtime.options import options_of
from utils.runtime.run_folder import write_yaml
from utils.training.options import DEFAULT_RECIPE

CONTROL = 'control'


@dataclass(frozen=True)
class Choice:
    """An entry of --recipes: a recipe's file, and methods in place of its own."""

    label: str
    file: str = DEFAULT_RECIPE
    methods: str | None = None

    @property
    def flags(self) -> list[str]:
        """As distill.py takes them."""
        return ['--methods', self.methods] if self.methods else ['--recipe', self.file]


def add_rows(comparison: Comparison) -> None:
    """Add the rows. Raises UserError where an entry is wrong, or there would be no fair control."""
    options = comparison.options
    names = [name.strip() for name in options.recipes.split(',') if name.strip()]
    if CONTROL not in names:
        print('--recipes: the control is added')
        names.insert(0, CONTROL)
    choices = [choose(name) for name in names if name != CONTROL]
    baselines = {f'yolov5{size}': f'models/yolov5{size}.yaml' for size in options.baselines}
    labels = [name for name in names if name == CONTROL] + [*baselines, *(choice.label for choice in choices)]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UserError(f'--recipes: {twice[0]} stands there twice')
    recipes = [read_choice(choice, options) for choice in choices]
    if options.maps != options_of(CompareOptions)['maps'].default and not any(recipe.needs_maps for recipe in recipes):
        raise UserError(f'--maps {options.maps} has no use: no method of the recipes is maps')
    for recipe in recipes if options.table else []:
        if not near_program(recipe.teacher_weights).is_file():  # deleted since: of the size that it had
            recipe.teacher = comparison.saved.get('teacher_yamls', {}).get(recipe.teacher_weights, recipe.teacher)
    add_control(comparison, recipes)
    for label, cfg in baselines.items():
        comparison.add(label, 'baseline', ['--cfg', cfg], cfg=cfg, weights='')
    for choice, recipe in zip(choices, recipes, strict=True):
        add_recipe(comparison, choice, recipe)


def choose(name: str) -> Choice:
    """'xn_maskdiff', 'my.yaml' or 'mask+pfi=5' -> what it stands for."""
    if Path(name).is_file() or name.endswith(('.yaml', '.yml')):
        return Choice(Path(name).stem, name)
    if near_program(f'recipes/{name}.yaml').is_file():
        return Choice(name, f'recipes/{name}.yaml')
    return Choice(name, methods=name.replace('+', ','))


def read_choice(choice: Choice, options: CompareOptions) -> Recipe:
    """The recipe of an entry. Raises UserError, also where its teacher is not there, unless a table is all we want."""
    try:
        recipe = read_recipe(choice.file, choice.methods, options)
    except UserError as error:
        if not choice.methods:
            raise
        name = choice.label
        raise UserError(f'--recipes: {name} is no name in recipes/ and no file, and as methods: {error}') from None
    if not options.table:
        require_teacher(recipe, options.data)
    take_own_yaml(recipe, options)  # for a table too: it looks for runs of this very teacher
    return recipe


def add_control(comparison: Comparison, recipes: list[Recipe]) -> None:
    """Add the control, which starts as the recipes' student does (the default recipe's where there are none)."""
    options = comparison.options
    student, weights = common_student(recipes or [read_recipe(DEFAULT_RECIPE, None, options)])
    if weights:
        if not options.table or near_program(weights).is_file():
            check_network(student, weights, comparison.data.nc, options.quads)
        comparison.add(CONTROL, 'control', ['--weights', weights], cfg='', weights=weights)
        return
    teachers = list(dict.fromkeys(recipe.teacher_weights for recipe in recipes))
    cfg = take_anchors(student, teachers, comparison)
    comparison.add(CONTROL, 'control', ['--cfg', cfg], cfg=cfg, weights='')


def common_student(recipes: list[Recipe]) -> tuple[str, str]:
    """(model yaml, weights) of the student that all recipes have. Raises UserError where they have several."""
    for field, flag in (('student', '--cfg_student'), ('student_weights', '--student_weights')):
        found = list(dict.fromkeys(getattr(recipe, field) for recipe in recipes))
        if len(found) > 1:
            raise UserError(f'the recipes have different students, {found[0]!r} and {found[1]!r}: choose with {flag}')
    return recipes[0].student, recipes[0].student_weights


def check_network(student: str, weights: str, nc: int, quads: bool) -> None:
    """Raise a UserError where train.py --weights would build another network than the student's yaml."""
    checkpoint = read_checkpoint(weights)
    quads = quads or has_quads(checkpoint)
    cfgs = (student, checkpoint.yaml or student)
    states = [DetectionModel(cfg, nc=nc, quads=quads or None).state_dict() for cfg in cfgs]
    first, second = ({key: value.shape for key, value in state.items()} for state in states)
    if first != second:
        raise UserError(f'{weights} is of another network than the student {student}: give its --cfg_student')


def take_anchors(student: str, teachers: list[str], comparison: Comparison) -> str:
    """The student's yaml, or one with the teachers' anchors in the comparison's folder, where these are others. Its
    name tells its content: what another command of the same --name writes is another file.

    Raises:
        UserError: the teachers have different anchors.
    """
    if not all(near_program(teacher).is_file() for teacher in teachers):  # --table alone gets here without them
        flags = comparison.saved.get('rows', {}).get(CONTROL, {}).get('flags') or ['--cfg', student]
        return flags[1]
    own = DetectionModel(student, nc=comparison.data.nc).yaml['anchors']
    found = [anchors_of(read_checkpoint(teacher)) or own for teacher in teachers]
    for teacher, anchors in zip(teachers, found, strict=True):
        if not same_anchors(anchors, found[0]):
            raise UserError(f'{teachers[0]} and {teacher} have different anchors: one control cannot stand for both')
    if not found or same_anchors(found[0], own):
        return student
    content = read_yaml(student) | {'anchors': found[0]}
    file = comparison.folder / f'student-{sha256(json.dumps(content).encode()).hexdigest()[:8]}.yaml'
    write_yaml(file, content)
    print(f"the control takes the teacher's anchors, as the students do: {file}")
    return str(file)


def add_recipe(comparison: Comparison, choice: Choice, recipe: Recipe) -> None:
    """Add a recipe's row and its teacher. Raises UserError where distill.py would refuse it."""
    options = comparison.options
    size = options.teacher_imgsz or recipe.teacher_imgsz(options.imgsz, options.crop)
    if not options.table:
        try_recipe(comparison, choice.label, recipe, size)
    more = {'teacher_imgsz': size, 'unlabelled': options.unlabelled}
    flags = choice.flags + method_flags(options, maps=recipe.needs_maps)
    comparison.add(choice.label, 'recipe', flags, recipe_content=recipe.as_dict(), **more)
    comparison.add_teacher(recipe.teacher, recipe.teacher_weights, size)


def try_recipe(comparison: Comparison, label: str, recipe: Recipe, teacher_imgsz: int | None) -> None:
    """Build what distill.py would, to raise its UserError now and not after hours of the control."""
    options, data = comparison.options, comparison.data
    try:
        with contextlib.redirect_stdout(None):
            teacher = load_teacher(recipe, data.names)
            student = build_student(recipe, teacher, data.names, quads=options.quads)
            labelled = 0.5 if options.unlabelled else 1.0  # whatever is less than all
            settings = DistillerSettings(comparison.hyp, options.imgsz, teacher_imgsz=teacher_imgsz, labelled=labelled)
            Distiller(student, freeze_teacher(teacher), recipe, settings)
            refuse_frozen(recipe, options.freeze)
            if recipe.needs_maps:
                require_maps(pictures_with_maps(options, data), options)
    except UserError as error:
        raise UserError(f'{label}: {error}') from None


def pictures_with_maps(options: CompareOptions, data: DataConfig) -> list[Path]:
    """The pictures of a training that need maps: broken ones, which it leaves out, have none."""
    has = MapCache(options.maps).has
    more = new_images(Path(options.unlabelled), data)[0] if options.unlabelled else []
    labelled = list_images(data, 'train')
    return [file for file in labelled if has(file) or not examine(file, data.nc, data.dont_care).problem] + [
        file for file in more if has(file) or not measure(file).problem
    ]
