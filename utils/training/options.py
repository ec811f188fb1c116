"""The options of train.py and distill.py, and what compare.py shares with them. Imports nothing heavy."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from utils.runtime.cores import usual_workers
from utils.runtime.options import MAX_SIDE, Options, option, options_of

DECAYS = ('constant', 'linear', 'cosine')  # of distillation weights
FROM_SCRATCH = 'models/yolov5n.yaml'
OPTIMIZERS = ('SGD', 'AdamW')
MAX_SEED = 2**63 - 1  # of torch's generators
WORKERS = usual_workers()
MODELS = "models and methods (defaults: the recipe's)"  # a group of --help
DEFAULT_RECIPE = 'recipes/xn_maskdiff_PFI.yaml'

of_data, of_learning, of_machine, of_run, of_models = (
    partial(option, group=group) for group in ('data', 'learning', 'machine', 'run', MODELS)
)


@dataclass(kw_only=True)
class RunOptions(Options):
    """What a run settles by itself and keeps with its options.

    Attributes:
        command: as it was typed.
        kind: 'train' or 'distill'.
        val_batch: images a validation batch; 0: not settled yet.
    """

    command: str = ''
    kind: str = ''
    val_batch: int = 0


@dataclass(kw_only=True)
class TrainingOptions(Options):
    """What every training takes."""

    data: str = of_data('data/ICDAR.yaml', 'data yaml (default: {default})', metavar='YAML')
    hyp: str = of_data(  # compared by content, as are lr0 and label_smoothing
        'data/hyps/text.yaml', 'hyperparameters ({default})', metavar='YAML', agree=False
    )
    imgsz: int = of_data(
        640,
        'longer side, pixels ({default})',
        *('--imgsz', '--img', '--img-size'),
        metavar='PX',
        min=64,
        max=MAX_SIDE,
        multiple=32,
    )
    crop: int | None = of_data(
        None,
        'train on random squares of this side, cut from images of --imgsz around their words; validation sees whole '
        'images of --imgsz (default: train on whole images)',
        metavar='PX',
        min=64,
        max=MAX_SIDE,
        multiple=32,
    )
    quads: bool = of_data(False, 'also learn the four corners of words (weights that have them keep them)')
    cache: bool = of_data(
        True,
        'keep the decoded images in memory, where they fit into half of what is free (yes)',
        negatable=True,
        agree=False,
    )
    workers: int = of_data(WORKERS, 'loading processes ({default})', metavar='N', min=0, max=256, agree=False)

    epochs: int = of_learning(300, 'passes over the training images ({default})', metavar='N', min=1)
    batch_size: int = of_learning(
        16, 'images a forward pass, -1: as many as fit in 80% of the GPU ({default})', metavar='N', min=1, also=(-1,)
    )
    nominal_batch: int = of_learning(
        64, 'gradients of this many images are accumulated for a step ({default})', metavar='N', min=1
    )
    optimizer: str = of_learning('SGD', '({default}; AdamW wants a smaller --lr0, such as 0.001)', choices=OPTIMIZERS)
    lr0: float | None = of_learning(
        None, "initial learning rate in place of the hyp file's", metavar='RATE', agree=False
    )
    cos_lr: bool = of_learning(False, 'learning rate along a cosine instead of a line')
    label_smoothing: float | None = of_learning(
        None, "0..0.5, in place of the hyp file's", metavar='FRACTION', agree=False
    )
    patience: int = of_learning(
        100, 'stop after so many epochs without a better result, 0: never ({default})', metavar='EPOCHS', min=0
    )
    freeze: int = of_learning(0, 'do not train the first layers ({default}; 10: the backbone)', metavar='LAYERS', min=0)
    freeze_bn: int | None = of_learning(
        None,
        'after so many epochs the statistics of normalisation stand still, which makes steps shorter; for weights that '
        'are trained already (never)',
        metavar='EPOCHS',
        min=0,
    )
    seed: int = of_learning(0, 'of weights, order and augmentation ({default})', metavar='N', min=0, max=MAX_SEED)

    device: str = of_machine(  # its type is compared
        '',
        "'cpu', the number of a GPU, or with torchrun a list of them (default: GPUs if there are any)",
        resume=True,
        agree=False,
    )
    compile: bool = of_machine(
        False,
        'translate the network by torch.compile before the first step: on some processors steps are faster, on others '
        'slower (docs/performance.md); a C++ compiler must be there',
        agree=False,
    )
    sync_bn: bool = of_machine(False, 'with several GPUs: statistics of normalisation over all of them')
    amp: bool = of_machine(True, 'float32 instead of bfloat16 where the processor has that', '--no-amp')

    project: str = of_run('runs/train', 'folder of the runs ({default})', metavar='DIR', agree=False)
    name: str = of_run('exp', 'folder of this run in it, numbered if it exists ({default})', agree=False)
    exist_ok: bool = of_run(False, 'write into an existing folder', agree=False)
    save_period: int = of_run(
        0, 'also keep a checkpoint every so many epochs, 0: never ({default})', metavar='EPOCHS', min=0, agree=False
    )
    save_every: float = of_run(
        10.0,
        'also save last.pt within an epoch, 0: after every step ({default})',
        metavar='MINUTES',
        min=0,
        agree=False,
    )
    skip_nonfinite: int | None = (
        of_run(  # changes nothing but for the steps that it leaves out, where a run would have stopped
            None,
            'leave out up to K steps whose loss or gradient is not finite, and stop at the next (0)',
            metavar='K',
            min=0,
            resume=True,
            agree=False,
        )
    )
    noval: bool = of_run(False, 'validate after the last epoch only')
    noplots: bool = of_run(False, 'draw no images', agree=False)
    resume: str | None = of_run(
        None,
        'continue a run exactly where it was saved (without a path: the latest run) with its own options; only '
        '--device and --skip-nonfinite can be new',
        metavar='LAST.PT',
        bare='',
        resume=True,
        agree=False,
        kept=False,
    )

    def contradictions(self, given: set[str]) -> Iterator[str]:
        if self.resume is not None:
            yield from useless_with_resume(self, given)
        if self.noval and self.patience and 'patience' in given:
            yield '--patience: with --noval no epoch has a result before the last'
        if self.freeze_bn is not None and self.freeze_bn >= self.epochs:
            yield '--freeze-bn: the training ends before, see --epochs'
        if self.sync_bn and self.freeze_bn == 0:
            yield '--sync-bn: with --freeze-bn 0 there is nothing to synchronise'
        if self.crop is not None and self.crop > self.imgsz:
            yield '--crop: a multiple of 32, from 64 to --imgsz'


def useless_with_resume(options: TrainingOptions, given: set[str]) -> Iterator[str]:
    """A line about what a resumed run, which has its own options, does not take."""
    known = options_of(type(options))
    taken = {name for name, each in known.items() if each.resume}
    if not options.resume:
        taken.add('project')  # where the latest run is looked for
    if useless := [each.flag for name, each in known.items() if name in given - taken]:
        yield f'--resume continues with the options of its run: leave out {", ".join(useless)}'


@dataclass(kw_only=True)
class TrainOptions(TrainingOptions, RunOptions):
    """Of train.py."""

    FIRST: ClassVar = ('model',)
    kind: str = 'train'

    cfg: str = option(
        '', f"model yaml (default: the weights' own, without weights {FROM_SCRATCH})", group='model', metavar='YAML'
    )
    weights: str = option(
        '', 'checkpoint to start from, ours or a public YOLOv5 .pt (default: from scratch)', group='model', metavar='PT'
    )


@dataclass(kw_only=True)
class TeacherOptions(TrainingOptions):
    """What a recipe's runs have beyond plain training, in distill.py and compare.py."""

    cfg_teacher: str | None = of_models(
        None, "the teacher's model yaml", *('--cfg_teacher', '--cfg-teacher'), metavar='YAML'
    )
    cfg_student: str | None = of_models(
        None, "the student's model yaml", *('--cfg_student', '--cfg-student'), metavar='YAML'
    )
    teacher_weights: str | None = of_models(
        None, 'a trained teacher; every entry must match', *('--teacher_weights', '--teacher-weights'), metavar='PT'
    )
    student_weights: str | None = of_models(
        None,
        "weights to start the student from, '': from scratch",
        *('--student_weights', '--student-weights'),
        metavar='PT',
    )
    kd_warmup: float | None = of_models(
        None,
        "distillation weights grow from 0 over these, at most a third of the training (the recipe's)",
        '--kd_warmup',
        metavar='EPOCHS',
        min=0,
        below=math.inf,
    )
    kd_decay: str | None = of_models(
        None, 'distillation weights stay, or fall to 0 by the end', '--kd_decay', choices=DECAYS
    )
    teacher_imgsz: int | None = of_models(
        None,
        "longer side of the teacher's images, pixels (the recipe's teacher_scale times --imgsz); methods that compare "
        'predictions refuse any but --imgsz',
        '--teacher_imgsz',
        metavar='PX',
        min=64,
        max=MAX_SIDE,
        multiple=32,
    )
    unlabelled: str | None = of_models(
        None, 'more images, in a folder or named by a list file, for the terms that need no labels', metavar='DIR'
    )
    maps: str = of_models(
        'runs/craft/1280',
        "folder of CRAFT's maps of the training images, for the method maps; see teacher/craft.py ({default})",
        metavar='DIR',
    )

    def contradictions(self, given: set[str]) -> Iterator[str]:
        yield from super().contradictions(given)
        if self.crop and self.teacher_imgsz and (self.crop * self.teacher_imgsz) % (32 * self.imgsz):
            yield '--teacher_imgsz: its fraction of --imgsz must make --crop another multiple of 32'


@dataclass(kw_only=True)
class DistillOptions(TeacherOptions, RunOptions):
    """Of distill.py and the published scripts.

    Attributes:
        recipe_content: the recipe as it is used, settled by the command.
        teacher_sha256: of the teacher's file, settled by the command.
        teacher_scores: of the teacher on val, settled by the command.
    """

    FIRST: ClassVar = ('recipe', MODELS)
    kind: str = 'distill'
    recipe_content: dict = field(default_factory=dict)
    teacher_sha256: str = ''
    teacher_scores: dict = field(default_factory=dict)

    recipe: str = option(DEFAULT_RECIPE, '({default})', group='recipe', exclusive='recipe', metavar='YAML')
    methods: str | None = option(
        None,
        "such as mask,pfi=5,cwd=auto: these methods with their default layers, and the default recipe's models and "
        'warm-up; a number is the weight of the first term (the others keep their ratio), auto: weights that bring the '
        "terms' gradients, added, to 0.3 of the detection loss's in the first batch; auto:R: each term's to R",
        group='recipe',
        exclusive='recipe',
        metavar='LIST',
    )
    list_methods: bool = option(False, 'show all methods, a line each', group='recipe', exclusive='recipe', kept=False)
    mask_diff: float | None = option(
        None,
        'weight of the mask term (objects; the background keeps its ratio)',
        '--mask_diff',
        group='recipe',
        metavar='WEIGHT',
    )
    PFI_diff: float | None = option(None, 'weight of the PFI term', '--PFI_diff', group='recipe', metavar='WEIGHT')
    feature_diff: float | None = option(
        None, 'weight of the hint term', '--feature_diff', group='recipe', metavar='WEIGHT'
    )
    project: str = of_run('runs/distill', 'folder of the runs ({default})', metavar='DIR', agree=False)
    name: str = of_run('', 'folder of this run in it, numbered if it exists (the name of the recipe)', agree=False)

    def contradictions(self, given: set[str]) -> Iterator[str]:
        yield from super().contradictions(given)
        if self.sync_bn and self.unlabelled:
            yield '--sync-bn: not with --unlabelled, as a GPU without a labelled picture would let others wait'
        if self.methods == '':
            yield '--methods: empty; leave it out for the recipe'
