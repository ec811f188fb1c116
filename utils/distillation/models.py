"""Teacher and student of a distillation, from a recipe's yamls and weights."""

from pathlib import Path
from typing import Any

import yaml

from models.checkpoint import Checkpoint, anchors_of, has_quads, read_checkpoint, same_anchors, transfer
from models.errors import UserError
from models.yamls import ROOT, near_program, read_yaml
from models.yolo import DetectionModel
from utils.distillation.craft import MapCache
from utils.distillation.recipe import Recipe, parse_recipe, read_recipe
from utils.loading.config import load_data_config
from utils.loading.dataset import TextDataset
from utils.loading.files import file_sha256
from utils.loading.listing import list_images
from utils.loading.maps import MapDataset
from utils.runtime.options import options_of
from utils.runtime.words import counted
from utils.training.options import DistillOptions, TeacherOptions
from utils.training.resolve import Start
from utils.training.run import TrainingRun, start_from


def require_teacher(recipe: Recipe, data: str) -> None:
    """Say how to get a teacher (and the data) before anything slow happens.

    Args:
        data: the data yaml.

    Raises:
        UserError: the teacher's weights are not there.
    """
    if recipe.teacher_weights and near_program(recipe.teacher_weights).is_file():
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


def take_own_yaml(recipe: Recipe, options: TeacherOptions) -> None:
    """Without --cfg_teacher the teacher's yaml becomes that of its weights, where they are of another of our sizes."""
    if options.cfg_teacher is not None or not near_program(recipe.teacher_weights).is_file():
        return
    own = yaml_of(read_checkpoint(recipe.teacher_weights).yaml or {})
    if own and own != yaml_of(read_yaml(recipe.teacher)):
        print(f'the teacher {recipe.teacher_weights} is of {own}, which takes the place of {recipe.teacher}')
        recipe.teacher = own


def yaml_of(content: dict[str, Any]) -> str:
    """The file in models/ that has the size of a model's yaml, '' where none has."""
    keys = ('depth_multiple', 'width_multiple')
    for file in sorted((ROOT / 'models').glob('yolov5?.yaml')):
        known = read_yaml(file)
        if all(content.get(key) == known[key] for key in keys):
            return file.relative_to(ROOT).as_posix()
    return ''


def load_teacher(recipe: Recipe, names: dict[int, str]) -> DetectionModel:
    """The recipe's teacher on the CPU, neither frozen nor fused; see match_teacher."""
    return match_teacher(read_checkpoint(recipe.teacher_weights), recipe.teacher, names)


def match_teacher(checkpoint: Checkpoint, cfg: str, names: dict[int, str]) -> DetectionModel:
    """A model with every entry of the checkpoint, head and anchors included.

    Args:
        cfg: the model's yaml.
        names: {class number: name} of the data.

    Raises:
        UserError: an entry that one has and the other has not, or other classes than the data's.
    """
    nc = len(names)
    teacher = DetectionModel(cfg, nc=nc, anchors=anchors_of(checkpoint), quads=has_quads(checkpoint))
    if nc > 1 and checkpoint.names != names:
        raise UserError(f'the teacher {checkpoint.path} has the classes {checkpoint.names}, the data {names}')
    report = transfer(teacher, checkpoint)
    if report.skipped or report.missing:
        first, own = (report.missing or report.skipped)[0], yaml_of(checkpoint.yaml or {})
        hint = f'; it is of {own}' if own and own != yaml_of(read_yaml(cfg)) else ''
        raise UserError(
            f'the teacher {checkpoint.path} does not fit {cfg} with {counted(nc, "class", "classes")}: {report}, '
            f'the first {first}; a teacher must match in every entry, the head included{hint}'
        )
    return teacher


def build_student(
    recipe: Recipe,
    teacher: DetectionModel,
    names: dict[int, str],
    resumed: Checkpoint | None = None,
    quads: bool = False,
) -> DetectionModel:
    """The student on the CPU: the teacher's anchors, and the entries of its weights that fit.

    Args:
        teacher: of which anchors and strides are taken.
        names: {class number: name} of the data.
        resumed: of the run that is resumed, whose weights will replace all that are here.
        quads: whether its head predicts quads; it does anyway where those weights, or the recipe's, have them.

    Raises:
        UserError: other strides or anchors than the teacher's, or weights of another architecture.
    """
    anchors = (teacher.head.anchors.float().cpu() * teacher.stride.view(-1, 1, 1)).flatten(1).tolist()
    checkpoint = read_checkpoint(recipe.student_weights) if recipe.student_weights and resumed is None else None
    origin = checkpoint or resumed
    quads = quads or (origin is not None and has_quads(origin))
    student = DetectionModel(recipe.student, nc=len(names), anchors=anchors, quads=quads or None)
    if student.head.strides != teacher.head.strides:
        raise UserError(f'the student has strides {student.head.strides}, the teacher {teacher.head.strides}')
    if checkpoint is not None:
        found = anchors_of(checkpoint)
        if found is not None and not same_anchors(found, anchors):
            raise UserError(f'{recipe.student_weights} has other anchors than the teacher; both must share them')
        start_from(student, checkpoint, names)
    return student


def resolve_recipe(start: Start[DistillOptions], published: str | None = None) -> Recipe:
    """The recipe of the options or of the resumed run, kept in the options with the size that its teacher sees.

    Args:
        published: the recipe that the script stands for, if it is not distill.py.

    Raises:
        UserError: see read_recipe; there is no teacher; the resumed run is of another recipe, or keeps none.
    """
    options = start.options
    if start.checkpoint is not None:
        path = start.checkpoint.path
        if published and (options.recipe != published or options.methods):
            raise UserError(f'{path} is of {options.recipe}, this script of {published}')
        if not isinstance(options.recipe_content, dict) or not options.recipe_content:
            raise UserError(f'{path} cannot be resumed: it keeps no recipe')
        return parse_recipe(options.recipe_content, path)
    recipe = read_recipe(options.recipe, options.methods, options)
    if options.methods:
        print(yaml.safe_dump(recipe.as_dict(), sort_keys=False), end='')
    require_teacher(recipe, options.data)
    take_own_yaml(recipe, options)
    refuse_frozen(recipe, options.freeze)
    if options.maps != options_of(DistillOptions)['maps'].default and not recipe.needs_maps:
        raise UserError(f'--maps {options.maps} has no use: no method of the recipe is maps')
    asked = f'--teacher_imgsz {options.teacher_imgsz}' if options.teacher_imgsz else 'teacher_scale'
    options.teacher_imgsz = options.teacher_imgsz or recipe.teacher_imgsz(options.imgsz, options.crop)
    if options.teacher_imgsz not in (None, options.imgsz) and not recipe.reads_teacher:
        raise UserError(f'{asked} has no use: no method of the recipe reads the teacher')
    options.recipe_content = recipe.as_dict()
    return recipe


def add_maps(pictures: TextDataset, recipe: Recipe, options: DistillOptions) -> None:
    """Make the training set give CRAFT's maps beside its pictures, if a method reads them.

    Raises:
        UserError: there are none of a picture.
    """
    if recipe.needs_maps:
        require_maps(pictures.files, options)
        pictures.maps = MapDataset(pictures, MapCache(options.maps).read)


def require_maps(files: list[Path], options: TeacherOptions) -> None:
    """Raise a UserError where there are no maps of CRAFT of a training picture."""
    cache = MapCache(options.maps)
    lacking = [file for file in files if not cache.has(file)]
    if lacking:
        raise UserError(
            f'{len(lacking)} of {counted(len(files), "training picture")} have no maps of CRAFT in {options.maps}, '
            f'the first {lacking[0]}: make them with "python teacher/craft.py --data {options.data} --task train"; '
            f'those of other pictures with "python teacher/label.py --teacher craft"'
        )


def refuse_frozen(recipe: Recipe, count: int) -> None:
    """Raise a UserError where a method looks at layers alone that --freeze keeps as they are: it teaches nothing."""
    for name, use in recipe.methods.items():
        if use.layers and max(use.layers) < count and not use.method.TEACHES_HEAD:
            layers = ', '.join(map(str, use.layers))
            raise UserError(f'--freeze {count}: {name} teaches layers {layers}, and none of them would train')


def resolve_teacher(run: TrainingRun, teacher: DetectionModel, recipe: Recipe) -> None:
    """Keep in the run's options what its teacher was: the file's SHA-256, and its scores on val before the first epoch
    (none if no method reads what it says).

    Raises:
        UserError: a run would be resumed with another teacher.
    """
    options, weights = run.options, recipe.teacher_weights
    digest = file_sha256(near_program(weights))
    if run.checkpoint is not None:
        if options.teacher_sha256 not in ('', digest):  # an earlier version kept none
            raise UserError(f'{weights} is not the teacher that the run began with: its content is another')
    elif recipe.reads_teacher:
        scores = run.evaluate_val(teacher, 'evaluating the teacher', run.teacher_imgsz).scores
        print(f'teacher on val: mAP50 {scores["map50"]:.4f}, mAP50-95 {scores["map50_95"]:.4f}')
        options.teacher_scores = scores
    options.teacher_sha256 = digest
