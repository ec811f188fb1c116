"""Steps that are not finite: kept for whoever looks for the reason, and left out where that is allowed."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from models.checkpoint import save_plain
from models.errors import UserError
from models.yolo import DetectionModel
from utils.loading.batches import Batch
from utils.runtime import distributed


@dataclass
class StepResult:
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

    def remember(self) -> None:
        """Copy the model's buffers as they are; not where no step may be left out."""
        if self.allowed:
            self._buffers = [buffer.clone() for buffer in self.model.buffers()]

    def leave_out(self, step: StepResult, batch: Batch, place: tuple[int, int], skipped: int) -> int:
        """Bring back what was remembered.

        Args:
            place: the numbers of epoch and batch, from 0.
            skipped: steps that were left out before; returns them and this one.

        Raises:
            UserError: there were too many.
        """
        epoch, number = place[0] + 1, place[1] + 1
        process = f'_process{distributed.rank()}' if distributed.world() > 1 else ''
        file = self.folder / f'nonfinite_epoch{epoch}_batch{number}{process}.pt'
        parts = {'images': batch.images, 'targets': batch.targets, 'ignore': batch.ignore, 'paths': batch.paths}
        save_plain(file, parts | {'terms': {name: term.detach() for name, term in step.terms.items()}})
        images = ', '.join(Path(path).name for path in batch.paths)
        text = f'not finite in epoch {epoch}, batch {number}: {step.problem}; pictures: {images}; kept in {file}'
        if skipped >= self.allowed:
            raise UserError(
                f'{text}. The weights are those before this step. --skip-nonfinite K (also with --resume) leaves such '
                'steps out; a lower --lr0 or --no-amp may prevent them'
            )
        for buffer, value in zip(self.model.buffers(), self._buffers, strict=True):
            buffer.copy_(value)
        print(f'\nwarning: {text}; left out ({skipped + 1} of {self.allowed})', flush=True)
        return skipped + 1
