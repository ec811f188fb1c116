"""What a training is at a moment: all that an exact continuation needs, saved in last.pt and taken back from it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from models.checkpoint import Checkpoint, save_checkpoint
from models.errors import UserError
from models.yolo import DetectionModel
from utils.runtime import distributed
from utils.runtime.run_folder import versions
from utils.training.ema import ModelEMA

DAMAGE = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)  # of what a last.pt should hold


@dataclass
class Progress:
    """How far an epoch has come, at an optimizer step.

    Attributes:
        epoch: its number.
        batches: that were trained on.
        sums: {'pictures' | 'train/term' | 'weighted/term': sum over images}, float64, of this process's part.
        seconds: that training took.
        skipped: steps of the whole run that were left out as not finite.
    """

    epoch: int
    batches: int = 0
    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    skipped: int = 0

    def add(self, terms: dict[str, torch.Tensor], weights: dict[str, float], whole: int, images: int) -> None:
        """Count a batch in: its terms, means over the `whole` batch of all processes, and the images of this one."""
        sums = self.sums
        for name, term in terms.items():
            value = term.detach().double() * whole
            sums[f'train/{name}'] = sums.get(f'train/{name}', 0) + value
            sums[f'weighted/{name}'] = sums.get(f'weighted/{name}', 0) + value * weights[name]
        count = value.new_full((), images)
        sums['pictures'] = sums.get('pictures', 0) + count

    def leave_out(self, terms: dict[str, torch.Tensor]) -> None:
        """Name the terms of a batch that does not count: an epoch of which none does has means too, that are NaN."""
        for name in ('pictures', *(f'{kind}/{name}' for kind in ('train', 'weighted') for name in terms)):
            self.sums.setdefault(name, torch.zeros((), dtype=torch.float64, device=next(iter(terms.values())).device))

    def sum_up(self) -> None:
        """Let the first process have the sums of all."""
        for name, value in sorted(self.sums.items()):
            summed = distributed.total(value)
            self.sums[name] = summed if distributed.rank() == 0 else torch.zeros_like(summed)

    def means(self) -> dict[str, float]:
        """The mean terms over all images, unweighted and weighted; NaN where every step was left out."""
        sums = self.sums
        return {name: float(sums[name] / sums['pictures']) for name in sorted(sums) if name != 'pictures'}


@dataclass
class TrainingState:
    """What changes while a model is trained.

    Attributes:
        model: that learns.
        ema: the average of its weights, which is validated and kept.
        criterion: with the adapters and weights of its terms.
        optimizer: of the parameters of both.
        progress: of the epoch under way.
        rows: of results.csv.
        best_fitness: of all epochs so far, and
        best_epoch: the number of that epoch.
    """

    model: DetectionModel
    ema: ModelEMA
    criterion: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress = field(default_factory=lambda: Progress(0))
    rows: list[dict] = field(default_factory=list)
    best_fitness: float = -1.0
    best_epoch: int = 0

    @property
    def begun(self) -> bool:
        """Whether a step was made."""
        return bool(self.rows or self.progress.batches)

    def save(self, path: Path, about: dict, epoch: int, scores: dict, data: dict[str, str] | None = None) -> None:
        """Write the averaged model as a checkpoint; the first process alone does.

        Args:
            about: command, options, hyp and starting point of the training.
            epoch: that it is the result of.
            scores: on val.
            data: fingerprints of train and val; given, also all that an exact continuation needs is written.
        """
        if distributed.rank():
            return
        entries = {**about, 'epoch': epoch, 'metrics': scores, 'versions': versions()}
        entries |= {'conf_threshold': None, 'word_scale': None}  # chosen when the training is over
        if data is not None:
            entries['resume'] = {
                'model': self.model.state_dict(),
                'ema_updates': self.ema.updates,
                'optimizer': self.optimizer.state_dict(),
                'criterion': self.criterion.state_dict(),
                'best_fitness': self.best_fitness,
                'best_epoch': self.best_epoch,
                'rows': self.rows,
                'progress': asdict(self.progress),
                'data': data,
                'rng': torch.get_rng_state(),
            }
        save_checkpoint(path, self.model, self.ema.model.state_dict(), **entries)

    def restore(self, checkpoint: Checkpoint) -> dict[str, str]:
        """Become what save() wrote; returns the fingerprints of its data. Raises UserError if that cannot be."""
        try:
            return self._take(checkpoint, checkpoint.meta['resume'])
        except DAMAGE as error:
            raise UserError(f'{checkpoint.path} cannot be resumed: {error!r}') from None

    def _take(self, checkpoint: Checkpoint, saved: dict) -> dict[str, str]:
        self.model.load_state_dict(saved['model'])
        self.ema.model.load_state_dict(checkpoint.state)
        self.ema.updates = saved['ema_updates']
        self.optimizer.load_state_dict(saved['optimizer'])
        self.criterion.load_state_dict(saved['criterion'])
        self.best_fitness, self.best_epoch = saved['best_fitness'], saved['best_epoch']
        self.rows = [dict(row) for row in saved['rows']]
        self.progress = Progress(**saved['progress'])
        mine = distributed.rank() == 0  # the sums are of all processes
        device = next(self.model.parameters()).device
        sums = {name: value.to(device) for name, value in self.progress.sums.items()}
        self.progress.sums = {name: value if mine else torch.zeros_like(value) for name, value in sums.items()}
        torch.set_rng_state(saved['rng'])
        return saved['data'] if isinstance(saved['data'], dict) else {'train': saved['data']}  # of earlier versions
