"""What a training starts from: the options (a resumed run's own, where there is one) and the device."""

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

from models.checkpoint import Checkpoint, read_checkpoint
from models.errors import UserError
from models.yamls import read_yaml
from utils.runtime import distributed
from utils.runtime.device import select_device
from utils.runtime.run_folder import command_line
from utils.training.options import DistillOptions, TrainOptions

T = TypeVar('T', TrainOptions, DistillOptions)


@dataclass
class Start(Generic[T]):
    """A training before its data are read.

    Attributes:
        options: of the command, or of the run that is resumed.
        device: selected.
        checkpoint: the last.pt that is resumed, or None.
    """

    options: T
    device: torch.device
    checkpoint: Checkpoint | None = None

    @property
    def folder(self) -> Path | None:
        """That of the resumed run."""
        return self.checkpoint.path.resolve().parents[1] if self.checkpoint else None


def resolve(options: T) -> Start[T]:
    """Find the run to resume, if any, and select the device. Raises UserError."""
    options.command = command_line()
    wanted = resume_after_restart(options) if options.resume is None else options.resume
    if options.resume == '' and distributed.requested():
        raise UserError(
            '--resume: name the last.pt, as processes that torchrun starts anew would look for the latest again'
        )
    if wanted is None:
        return Start(options, select_device(options.device))
    checkpoint = read_resumable(find_resumable(wanted, options.project), options.kind)
    kept = checkpoint.meta['options']
    own = {'device': options.device or same_device(str(kept.get('device') or ''))}
    if options.skip_nonfinite is not None:
        own['skip_nonfinite'] = options.skip_nonfinite
    options = type(options).from_dict(kept, f'{checkpoint.path} cannot be resumed', **own)
    return Start(options, select_device(options.device), checkpoint)


def resume_after_restart(options: TrainOptions | DistillOptions) -> str | None:
    """The last.pt of this very command, if torchrun has started it anew after a failure."""
    if not distributed.restarted():
        return None
    for last in reversed(resumable(options.project)):
        kept = last.parents[1] / 'opt.yaml'
        if kept.is_file() and read_yaml(kept).get('command') == options.command:
            return str(last)
    return None


def resumable(project: str) -> list[Path]:
    """Each last.pt of a project, the latest one last. Names of runs may have folders, and a run's folder be a link."""
    patterns = ('*/weights/last.pt', '**/weights/last.pt')  # the second does not follow links
    found = {file for pattern in patterns for file in Path(project).glob(pattern)}
    return sorted(found, key=lambda file: file.stat().st_mtime)


def find_resumable(path: str, project: str) -> Path:
    """The last.pt to resume: the given one, or that of the latest run of the project. Raises UserError."""
    if path:
        if not Path(path).is_file():
            raise UserError(f'--resume: no such checkpoint: {path}')
        return Path(path)
    found = resumable(project)
    if not found:
        raise UserError(f'--resume: no run in {project} has a last.pt')
    return found[-1]


def read_resumable(path: Path, kind: str) -> Checkpoint:
    """A last.pt in the folder of its run. Raises UserError where it is none, or of another command."""
    checkpoint = read_checkpoint(path)
    options = checkpoint.meta.get('options')
    if not isinstance(options, dict) or 'resume' not in checkpoint.meta:
        raise UserError(f'{path} cannot be resumed: only the last.pt of a run can')
    if options.get('kind') != kind:
        raise UserError(f'{path} belongs to a run of {options.get("kind")}.py')
    if path.resolve().parent.name != 'weights':
        raise UserError(f'{path} does not lie in its run, as RUN/weights/last.pt')
    return checkpoint


def same_device(kept: str) -> str:
    """The device of a run that is resumed, or '' where there are as many processes as it does not fit."""
    processes = distributed.environment('LOCAL_WORLD_SIZE', 1)
    return kept if kept == 'cpu' or len(kept.split(',')) == processes else ''
