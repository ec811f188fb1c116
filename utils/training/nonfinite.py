"""Steps that are not finite: kept for whoever looks for the reason, and left out where that is allowed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from models.checkpoint import save_plain
from models.errors import UserError
from models.yolo import DetectionModel
from utils.loading.batches import Batch
from utils.runtime import distributed

GRADIENT = 'gradient'  # the problem of a step whose losses are finite


@dataclass
class BatchResult:
    """What became of a batch.

    Attributes:
        terms: unweighted, this process's part of them.
        problem: what is not finite, None if all is well. The weights are then those before the step.
    """

    terms: dict[str, Tensor]
    problem: str | None = None


class StepGuard:
    """Takes a model back behind a step that is not finite.

    Args:
        model: whose buffers a forward pass changes; its weights are the optimizer's business.
        folder: where the batches of such steps are written.
        allowed: such steps of the whole training.
    """

    def __init__(self, model: DetectionModel, folder: Path, allowed: int):
        self.model, self.folder, self.allowed = model, folder, allowed
        self._buffers: list[Tensor] = []
        self._batches: list[tuple[Batch, BatchResult]] = []

    def begin(self) -> None:
        """A step begins: copy the model's buffers as they are; not where no step may be left out."""
        self._batches.clear()
        if self.allowed:
            self._buffers = [buffer.clone() for buffer in self.model.buffers()]

    def add(self, batch: Batch, result: BatchResult) -> None:
        """Hold a batch of the step."""
        self._batches.append((batch, result))

    def leave_out(self, place: tuple[int, int], skipped: int) -> int:
        """Bring back what was remembered. All batches of the step are left out; those that may be the reason are named
        and kept: of a loss the last one, of a gradient, to which all have added, all of them.

        Args:
            place: the numbers of the epoch and of the step's last batch, from 0.
            skipped: steps that were left out before; returns them and this one.

        Raises:
            UserError: there were too many.
        """
        epoch, number = place[0] + 1, place[1] + 1
        problem = self._batches[-1][1].problem
        suspects = self._batches if problem == GRADIENT else self._batches[-1:]
        process = f'_process{distributed.rank()}' if distributed.world() > 1 else ''
        file = self.folder / f'nonfinite_epoch{epoch}_batch{number}{process}.pt'
        save_plain(file, {'batches': [_contents(batch, result) for batch, result in suspects]})
        images = ', '.join(Path(path).name for batch, _ in suspects for path in batch.paths)
        which = _numbers(number - len(suspects) + 1, number)
        text = f'not finite in epoch {epoch}, {which}: {problem}; pictures: {images}; kept in {file}'
        if skipped >= self.allowed:
            raise UserError(
                f'{text}. The weights are those before this step. --skip-nonfinite K (also with --resume) leaves such '
                'steps out; a lower --lr0 or --no-amp may prevent them'
            )
        for buffer, value in zip(self.model.buffers(), self._buffers, strict=True):
            buffer.copy_(value)
        healthy = len(self._batches) - len(suspects)
        step = f' with {_numbers(number - healthy, number - 1)} of the same step' if healthy else ''
        print(f'\nwarning: {text}; left out{step} ({skipped + 1} of {self.allowed})', flush=True)
        return skipped + 1


def _contents(batch: Batch, result: BatchResult) -> dict[str, Any]:
    parts = {'images': batch.images, 'targets': batch.targets, 'ignore': batch.ignore, 'paths': batch.paths}
    return parts | {'terms': {name: term.detach() for name, term in result.terms.items()}}


def _numbers(first: int, last: int) -> str:
    """'batch 3', or 'batches 1 to 4'."""
    return f'batch {last}' if first == last else f'batches {first} to {last}'
