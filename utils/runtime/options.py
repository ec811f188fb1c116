"""The options that train.py and distill.py share. Imports nothing heavy: --help answers at once."""

import argparse
import math
import os
from pathlib import Path

from models.errors import UserError

DECAYS = ('constant', 'linear', 'cosine')  # of distillation weights
OPTIMIZERS = ('SGD', 'AdamW')
MAX_SEED = 2**63 - 1  # of torch's generators
RESUME_TAKES = ('resume', 'device', 'skip_nonfinite')


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the shared options to a parser."""
    data = parser.add_argument_group('data')
    data.add_argument('--data', default='data/ICDAR.yaml', metavar='YAML', help='data yaml (default: %(default)s)')
    data.add_argument('--hyp', default='data/hyps/text.yaml', metavar='YAML', help='hyperparameters (%(default)s)')
    data.add_argument(
        '--imgsz', '--img', '--img-size', type=int, default=640, metavar='PX', help='longer side, pixels (%(default)s)'
    )
    data.add_argument(
        '--crop',
        type=int,
        metavar='PX',
        help='train on random squares of this side, cut from pictures of --imgsz around their words; validation sees '
        'whole pictures of --imgsz (default: train on whole pictures)',
    )
    data.add_argument(
        '--quads', action='store_true', help='also learn the four corners of words (weights that have them keep them)'
    )
    data.add_argument(
        '--cache',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='keep the decoded pictures in memory, where they fit into half of what is free (yes)',
    )
    data.add_argument(
        '--workers', type=int, default=min(8, os.cpu_count() or 1), help='loading processes (%(default)s)'
    )
    learning = parser.add_argument_group('learning')
    learning.add_argument('--epochs', type=int, default=300, help='passes over the training pictures (%(default)s)')
    learning.add_argument(
        '--batch-size',
        type=int,
        default=16,
        metavar='N',
        help='pictures a forward pass, -1: as many as fit in 80%% of the GPU (%(default)s)',
    )
    learning.add_argument(
        '--nominal-batch',
        type=int,
        default=64,
        metavar='N',
        help='gradients of this many pictures are accumulated for a step (%(default)s)',
    )
    learning.add_argument(
        '--optimizer',
        choices=OPTIMIZERS,
        default='SGD',
        help='(%(default)s; AdamW wants a smaller --lr0, such as 0.001)',
    )
    learning.add_argument('--lr0', type=float, metavar='RATE', help="initial learning rate in place of the hyp file's")
    learning.add_argument('--cos-lr', action='store_true', help='learning rate along a cosine instead of a line')
    learning.add_argument('--label-smoothing', type=float, metavar='SHARE', help="0..0.5, in place of the hyp file's")
    learning.add_argument(
        '--patience',
        type=int,
        default=100,
        metavar='EPOCHS',
        help='stop after so many without a better result, 0: never (%(default)s)',
    )
    learning.add_argument(
        '--freeze',
        type=int,
        default=0,
        metavar='LAYERS',
        help='do not train the first layers (%(default)s; 10: the backbone)',
    )
    learning.add_argument('--seed', type=int, default=0, help='of weights, order and augmentation (%(default)s)')
    machine = parser.add_argument_group('machine')
    machine.add_argument(
        '--device',
        default='',
        help="'cpu', the number of a GPU, or with torchrun a list of them (default: GPUs if there are any)",
    )
    machine.add_argument(
        '--sync-bn', action='store_true', help='with several GPUs: statistics of normalisation over all of them'
    )
    machine.add_argument(
        '--no-amp', dest='amp', action='store_false', help='float32 instead of bfloat16 where the processor has that'
    )
    run = parser.add_argument_group('run')
    run.add_argument('--project', help='folder of the runs (default: runs/train or runs/distill)')
    run.add_argument('--name', help='folder of this run in it, numbered if it exists')
    run.add_argument('--exist-ok', action='store_true', help='write into an existing folder')
    run.add_argument(
        '--save-period',
        type=int,
        default=0,
        metavar='EPOCHS',
        help='also keep a checkpoint every so many epochs, 0: never',
    )
    run.add_argument(
        '--save-every',
        type=float,
        default=10.0,
        metavar='MINUTES',
        help='also save last.pt within an epoch, 0: after every step (%(default)s)',
    )
    run.add_argument(
        '--skip-nonfinite',
        type=int,
        default=0,
        metavar='K',
        help='leave out up to K steps whose loss or gradient is not finite, and stop at the next (%(default)s)',
    )
    run.add_argument('--noval', action='store_true', help='validate after the last epoch only')
    run.add_argument('--noplots', action='store_true', help='draw no pictures')
    run.add_argument(
        '--resume',
        nargs='?',
        const='',
        metavar='LAST.PT',
        help='continue a run exactly where it was saved (without a path: the latest run) with its own options; only '
        '--device and --skip-nonfinite can be new',
    )


def add_distillation_options(group: argparse._ArgumentGroup) -> None:
    """Add what distill.py and compare.py let a recipe's runs have beyond plain training."""
    group.add_argument('--kd_warmup', type=float, metavar='EPOCHS', help='distillation weights grow from 0 over these')
    group.add_argument('--kd_decay', choices=DECAYS, help='distillation weights stay, or fall to 0 by the end')
    group.add_argument(
        '--teacher_imgsz',
        type=int,
        metavar='PX',
        help="longer side of the teacher's pictures (the recipe's teacher_scale times --imgsz); methods that compare "
        'predictions refuse any but --imgsz',
    )
    group.add_argument(
        '--unlabelled',
        metavar='DIR',
        help='more pictures, in a folder or named by a list file, for the terms that need no labels',
    )


def check_training_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:  # noqa: PLR0912
    """End with status 2 for values that cannot be meant."""
    given = given_options(parser)
    if options.resume is not None:
        taken = RESUME_TAKES if options.resume else (*RESUME_TAKES, 'project')  # where the latest run is looked for
        useless = [action.option_strings[0] for action in parser._actions if action.dest in given - set(taken)]
        if useless:
            parser.error(f'--resume continues with the options of its run: leave out {", ".join(useless)}')
    if options.noval and options.patience and 'patience' in given:
        parser.error('--patience: with --noval no epoch has a result before the last')
    if options.epochs < 1:
        parser.error('--epochs: at least 1')
    if options.batch_size < 1 and options.batch_size != -1:
        parser.error('--batch-size: at least 1, or -1')
    if options.nominal_batch < 1:
        parser.error('--nominal-batch: at least 1')
    if options.imgsz < 64 or options.imgsz % 32:
        parser.error('--imgsz: a multiple of 32, at least 64')
    if options.crop is not None and not (64 <= options.crop <= options.imgsz and options.crop % 32 == 0):
        parser.error('--crop: a multiple of 32, from 64 to --imgsz')
    teacher_imgsz = getattr(options, 'teacher_imgsz', None)  # train.py has none
    if teacher_imgsz is not None and (teacher_imgsz < 64 or teacher_imgsz % 32):
        parser.error('--teacher_imgsz: a multiple of 32, at least 64')
    counts = ('workers', 'freeze', 'save_period', 'save_every', 'skip_nonfinite', 'patience', 'seed')
    if not all(getattr(options, name) >= 0 for name in counts):  # nan is no count either
        parser.error(', '.join(f'--{name.replace("_", "-")}' for name in counts) + ': 0 or more')
    if options.seed > MAX_SEED:
        parser.error(f'--seed: {MAX_SEED} at most')
    if options.crop and teacher_imgsz and (options.crop * teacher_imgsz) % (32 * options.imgsz):
        parser.error('--teacher_imgsz: its share of --imgsz must make --crop another multiple of 32')
    kd_warmup = getattr(options, 'kd_warmup', None)
    if kd_warmup is not None and not 0 <= kd_warmup < math.inf:
        parser.error('--kd_warmup: 0 or more epochs')


def given_options(parser: argparse.ArgumentParser) -> set[str]:
    """Names of the options that the command line gives, at their defaults or not."""
    unset = object()
    fresh = argparse.Namespace(**{action.dest: unset for action in parser._actions})
    return {name for name, value in vars(parser.parse_args(namespace=fresh)).items() if value is not unset}


def resume_after_restart(options: argparse.Namespace, project: str) -> str | None:
    """The last.pt of this very command, if torchrun has started it anew after a failure; else --resume as it is."""
    from utils.runtime import distributed
    from utils.runtime.hyp import read_yaml
    from utils.runtime.run_folder import command_line

    if options.resume is not None or not distributed.restarted():
        return options.resume
    for last in sorted(Path(project).glob('*/weights/last.pt'), key=lambda file: -file.stat().st_mtime):
        kept = last.parents[1] / 'opt.yaml'
        if kept.is_file() and read_yaml(kept).get('command') == command_line():
            return str(last)
    return None


def find_resumable(path: str, project: str) -> Path:
    """The last.pt to resume: the given one, or that of the latest run of the project. Raises UserError."""
    if path:
        if not Path(path).is_file():
            raise UserError(f'--resume: no such checkpoint: {path}')
        return Path(path)
    found = sorted(Path(project).glob('*/weights/last.pt'), key=lambda file: file.stat().st_mtime)
    if not found:
        raise UserError(f'--resume: no run in {project} has a last.pt')
    return found[-1]
