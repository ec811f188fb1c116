"""The training loop: one for plain training and for distillation, which differ in their criterion only."""

import functools
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from models.checkpoint import Checkpoint, save_checkpoint, save_plain
from models.errors import Interrupted, UserError
from models.files import remove_leftovers
from models.yolo import DetectionModel
from utils.evaluation.evaluate import Evaluation, evaluate, to_network
from utils.loading.batches import Batch
from utils.loading.loader import BatchLoader, WorkerDied
from utils.runtime import distributed
from utils.runtime.interrupt import StopRequest
from utils.runtime.run_folder import versions, write_rows
from utils.training.criterion import WAIT, DetectionCriterion, weighted_sum
from utils.training.ema import ModelEMA

MAX_GRADIENT = 10.0  # norm at which gradients are clipped, as YOLOv5
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)
DECAY_BATCH = 64  # the batch that hyp's weight_decay is for
SCORES = ('precision', 'recall', 'map50', 'map50_95')
QUAD_SCORES = ('quad_map50', 'quad_map50_95')  # of a network with quads, too
RESTARTS = 3  # of loading processes that die, in an epoch or its validation


@dataclass
class Progress:
    """How far an epoch has come, at an optimizer step.

    Attributes:
        epoch: its number.
        batches: that were trained on.
        sums: {'pictures' | 'train/term' | 'weighted/term': sum over pictures}, float64, of this process's part.
        seconds: that training took.
        skipped: steps of the whole run that were left out as not finite.
    """

    epoch: int
    batches: int = 0
    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    skipped: int = 0


class Step(nn.Module):
    """Model and criterion as one module: what processes exchange gradients of, adapters included."""

    def __init__(self, model: DetectionModel, criterion: DetectionCriterion):
        super().__init__()
        self.model, self.criterion = model, criterion

    def forward(self, images: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        return self.criterion(self.model, images, batch)


class Trainer:
    """Trains a model until its epochs are over or it stops improving.

    Args:
        model: to train, on its device, channels last.
        criterion: gives the unweighted terms of a batch and their weights at a time.
        loaders: (training, validation).
        options: the command's options (plain data).
        hyp: hyperparameters.
        folder: the run's folder.
        reports: called as report(row: dict) after every epoch (TensorBoard, say).
    """

    def __init__(
        self,
        model: DetectionModel,
        criterion: DetectionCriterion,
        loaders: tuple[BatchLoader, BatchLoader],
        options: dict,
        hyp: dict,
        folder: Path,
        reports: tuple = (),
    ):
        self.model, self.criterion, self.options, self.hyp, self.folder = model, criterion, options, hyp, folder
        self.loader, self.val_loader = loaders
        self.reports = reports
        self.device = next(model.parameters()).device
        self.epochs, self.batch_size = options['epochs'], options['batch_size']
        self.accumulate = max(round(options['nominal_batch'] / self.batch_size), 1)
        self.optimizer = build_optimizer(model, criterion, hyp, options['optimizer'], self.batch_size * self.accumulate)
        # Apart, so that the adapters' gradients never shrink the student's step; plain training has no adapters.
        self.clipped = [p for p in (list(model.parameters()), list(criterion.parameters())) if p]
        self.ema = ModelEMA(model)
        self.frozen = freeze(model, options['freeze'])
        self.step = distributed.wrap(Step(model, criterion))
        self.rows: list[dict] = []
        self.progress, self.best_fitness, self.best_epoch = Progress(0), -1.0, 0
        self.stop, self.saved_at = StopRequest(), time.monotonic()
        (folder / 'weights').mkdir(exist_ok=True)

    @property
    def best(self) -> Path:
        return self.folder / 'weights' / 'best.pt'

    @property
    def last(self) -> Path:
        return self.folder / 'weights' / 'last.pt'

    def run(self) -> None:
        """Train; the run's folder then holds best.pt, last.pt and results.csv.

        Ctrl-C and SIGTERM end it after the step under way, saved as last.pt.

        Raises:
            UserError: a loss is not finite, pictures cannot be read, or the GPU is out of memory.
            Interrupted: last.pt is as after the last step.
        """
        try:
            with self.stop, distributed.clear_messages():
                self._run()
        except torch.OutOfMemoryError:
            raise UserError(
                f'the GPU ran out of memory with --batch-size {self.batch_size}; try --batch-size '
                f'{max(self.batch_size // 2, 1)} (the step stays the same: gradients are accumulated), or -1'
            ) from None
        except (KeyboardInterrupt, UserError) as error:
            what = 'interrupted' if isinstance(error, KeyboardInterrupt) else 'stopped'
            if self.last.is_file():
                print(f'\n{what}; {self.last} is complete, continue with: --resume {self.last}')
            raise
        finally:
            self.loader.close()
            self.val_loader.close()

    def _run(self) -> None:
        if distributed.rank() == 0:
            remove_leftovers(self.last.parent)
        if not self.rows and not self.progress.batches:
            self._save_last()  # from here on there is something to resume
        for epoch in range(self.progress.epoch, self.epochs):
            if self._stalled(epoch):
                print(f'stopped: no better result in {self.options["patience"]} epochs (--patience)')
                break
            means = self._train_epoch(epoch)
            evaluation = self._validate(epoch)
            self._finish_epoch(epoch, means, evaluation)
            self._heed(bool(self.stop.number))

    def _stalled(self, epoch: int) -> bool:
        """Whether an epoch need not start, because those before it brought nothing better for long."""
        return epoch - 1 - self.best_epoch >= self.options['patience'] > 0 and not self.options['noval']

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training pictures, or what is left of it; the mean terms, unweighted and weighted."""
        self.model.train()
        self.criterion.train()
        for module in self.frozen:
            module.eval()
        batches, begun = len(self.loader), self.progress.batches
        start = time.perf_counter() - self.progress.seconds
        pending = 0
        bar = tqdm(
            self._batches(epoch, begun),
            f'epoch {epoch + 1}/{self.epochs}',
            batches,
            initial=begun,
            unit='batch',
            leave=False,
            mininterval=1,
            disable=None,
        )
        self.optimizer.zero_grad(set_to_none=True)
        kept = self._statistics()
        for number, batch in enumerate(bar, begun):
            accumulate = self._schedule(epoch + number / batches, epoch, batches)
            # Every epoch ends with a step.
            last = pending + 1 >= accumulate or number == batches - 1
            terms, problem = self._forward_backward(batch, epoch, number, last)
            pending += 1
            if not problem and last:
                problem = self._optimize()
            if problem:
                self._skip(problem, terms, batch, epoch, number, kept)
            if number % 10 == 0:
                bar.set_postfix({name: f'{float(term.detach()):.4f}' for name, term in terms.items()})
            if problem or last:
                pending, kept = 0, self._statistics()
                self.progress.batches, self.progress.seconds = number + 1, time.perf_counter() - start
                self._pause()
        self._sum_up()
        sums = self.progress.sums
        return {name: float(sums[name] / sums['pictures']) for name in sorted(sums) if name != 'pictures'}

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """An epoch's batches on the device from number `start`; loading processes that die are replaced."""
        order, died = self.loader.batch_sampler, 0
        order.epoch = epoch
        while True:
            order.start = start
            try:
                for batch in ahead(self.loader, self.device):
                    yield batch._replace(whole=order.size(start))
                    start += 1
                return
            except WorkerDied as error:
                died += 1
                survive(error, died)
            finally:
                order.start = 0

    def _forward_backward(self, batch: Batch, epoch: int, number: int, last: bool) -> tuple[dict, str]:
        """Add a batch's gradients and terms; returns the terms, and what is not finite, if anything."""
        now = epoch + number / len(self.loader)
        images = to_network(batch.images, self.device, self.criterion.amp)
        if epoch == 0 and (number == 0 or (number < WAIT and self.criterion.waiting)):
            self.criterion.prepare(self.model, images, batch, number == 0)
        with distributed.accumulating(self.step, last):
            terms = self.step(images, batch)
            weights = self.criterion.weights(now)
            total = weighted_sum(terms, weights)
            # Gradients are averaged over processes whose terms are parts that add up.
            (total * (batch.whole * distributed.world())).backward()
        finite = bool(torch.isfinite(total))  # asks the device, which by now has enough to do
        bad = [] if finite else [name for name, term in terms.items() if not torch.isfinite(term)] or list(terms)
        if distributed.any_of(torch.tensor([float(not finite)], device=self.device)).item():
            return terms, ', '.join(bad) or 'in another process'
        sums = self.progress.sums
        for name, term in terms.items():
            value = term.detach().double() * batch.whole
            sums[f'train/{name}'] = sums.get(f'train/{name}', 0) + value
            sums[f'weighted/{name}'] = sums.get(f'weighted/{name}', 0) + value * weights[name]
        count = torch.tensor(float(len(images)), dtype=torch.float64, device=self.device)
        sums['pictures'] = sums.get('pictures', 0) + count
        return terms, ''

    def _schedule(self, now: float, epoch: int, batches: int) -> int:
        """Set learning rates and momentum for this time (in epochs); returns how many batches make a step."""
        hyp = self.hyp
        base = learning_rate_fraction(epoch, self.epochs, hyp['lrf'], self.options['cos_lr'])
        # Warm-up lasts hyp's epochs or 100 batches, but never over a third of the training.
        warmup = min(max(hyp['warmup_epochs'], 100 / batches), self.epochs / 3)
        fraction = min(now / warmup, 1.0) if hyp['warmup_epochs'] else 1.0
        for group in self.optimizer.param_groups:
            start = hyp['warmup_bias_lr'] if group['kind'] == 'bias' and self.options['optimizer'] == 'SGD' else 0.0
            group['lr'] = start + (group['initial_lr'] * base - start) * fraction
            if 'momentum' in group:
                group['momentum'] = hyp['warmup_momentum'] + (hyp['momentum'] - hyp['warmup_momentum']) * fraction
        return max(1, round(1 + (self.accumulate - 1) * fraction))

    def _optimize(self) -> str:
        """The optimizer's step; returns what is not finite, and then leaves the weights alone."""
        norms = [nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT) for parameters in self.clipped]
        if not all(math.isfinite(norm) for norm in norms):
            return 'gradient'
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if distributed.rank() == 0:
            self.ema.update(self.model)
        return ''

    def _statistics(self) -> list[torch.Tensor]:
        """Copies of the model's buffers, which a forward pass changes; none where no step may be left out."""
        return [buffer.clone() for buffer in self.model.buffers()] if self.options['skip_nonfinite'] else []

    def _skip(self, problem: str, terms: dict, batch: Batch, epoch: int, number: int, kept: list) -> None:
        """Leave out a step that is not finite. Raises UserError if there were too many of them."""
        self.optimizer.zero_grad(set_to_none=True)
        process = f'_process{distributed.rank()}' if distributed.world() > 1 else ''
        file = self.folder / f'nonfinite_epoch{epoch + 1}_batch{number + 1}{process}.pt'
        parts = {'images': batch.images, 'targets': batch.targets, 'ignore': batch.ignore, 'paths': batch.paths}
        save_plain(file, parts | {'terms': {name: term.detach() for name, term in terms.items()}})
        pictures = ', '.join(Path(path).name for path in batch.paths)
        text = f'not finite in epoch {epoch + 1}, batch {number + 1}: {problem}; pictures: {pictures}; kept in {file}'
        if self.progress.skipped >= self.options['skip_nonfinite']:
            raise UserError(
                f'{text}. The weights are those before this step. --skip-nonfinite K (also with --resume) leaves such '
                'steps out; a lower --lr0 or --no-amp may prevent them'
            )
        self.progress.skipped += 1
        for buffer, value in zip(self.model.buffers(), kept, strict=True):
            buffer.copy_(value)
        print(f'\nwarning: {text}; left out ({self.progress.skipped} of {self.options["skip_nonfinite"]})', flush=True)

    def _pause(self) -> None:
        """Between two steps: save if it is time, or stop if that was asked for. Raises Interrupted."""
        due = time.monotonic() - self.saved_at >= 60 * self.options['save_every']
        flags = torch.tensor([float(self.stop.number), float(due and distributed.rank() == 0)], device=self.device)
        stop, due = distributed.any_of(flags).tolist()
        if stop or due:
            self._sum_up()
            self._save_last()
        self._heed(bool(stop))

    def _heed(self, stop: bool) -> None:
        """End a run that was asked to stop, in all processes at the same place. Raises Interrupted."""
        if distributed.any_of(torch.tensor([float(stop)], device=self.device)).item():
            raise Interrupted(self.stop.number or signal.SIGTERM)

    def _sum_up(self) -> None:
        """Let the first process have the sums of all."""
        for name, value in sorted(self.progress.sums.items()):
            summed = distributed.total(value)
            self.progress.sums[name] = summed if distributed.rank() == 0 else torch.zeros_like(summed)

    def _validate(self, epoch: int) -> Evaluation | None:
        """Judge the averaged weights; the epoch's training is saved if this fails or is interrupted."""
        if self.options['noval'] and epoch < self.epochs - 1:
            return None
        distributed.copy_from_first(self.ema.model)
        try:
            with self.stop.at_once():
                return self._evaluated()
        except (KeyboardInterrupt, Exception):
            self._save_last()
            raise

    def _evaluated(self) -> Evaluation:
        """The averaged weights' evaluation; begun anew where loading processes die."""
        died = 0
        while True:
            try:
                return evaluate(
                    self.ema.model, self.val_loader, self.device, amp=self.criterion.amp, loss=self.criterion.loss
                )
            except WorkerDied as error:
                died += 1
                survive(error, died)

    def _finish_epoch(self, epoch: int, means: dict, evaluation: Evaluation | None) -> None:
        """Write the epoch's row, checkpoints and line."""
        row = {'epoch': epoch, **means}
        names = SCORES + QUAD_SCORES if self.model.quads else SCORES
        scores = evaluation.scores if evaluation else dict.fromkeys(names, math.nan)
        losses = evaluation.losses if evaluation else dict.fromkeys(self.criterion.gains, math.nan)
        row |= {f'val/{name}': value for name, value in {**scores, **losses}.items()}
        seconds = self.progress.seconds + (evaluation.seconds if evaluation else 0)
        row |= {'lr': self.optimizer.param_groups[0]['lr'], 'seconds': round(seconds, 2)}
        self.rows.append(row)
        self.progress = Progress(epoch + 1, skipped=self.progress.skipped)
        fitness = 0.1 * scores['map50'] + 0.9 * scores['map50_95'] if evaluation else -1.0  # YOLOv5's
        if evaluation is None or fitness > self.best_fitness:
            self.best_fitness, self.best_epoch = fitness, epoch
            self.save(self.best, epoch, scores)
        self._save_last()
        if self.options['save_period'] > 0 and (epoch + 1) % self.options['save_period'] == 0:
            self.save(self.last.with_name(f'epoch{epoch + 1}.pt'), epoch, scores)
        self._write_rows()
        self._print(row, seconds, epoch)

    def _write_rows(self) -> None:
        """Write results.csv and report the last row."""
        if self.rows and distributed.rank() == 0:
            write_rows(self.folder / 'results.csv', self.rows)
            for report in self.reports:
                report(self.rows[-1])

    def _print(self, row: dict, seconds: float, epoch: int) -> None:
        left = (self.epochs - epoch - 1) * np.median([r['seconds'] for r in self.rows])
        terms = ' '.join(f'{k[9:]} {v:.4f}' for k, v in row.items() if k.startswith('weighted/'))
        scores = f'mAP50 {row["val/map50"]:.4f} mAP50-95 {row["val/map50_95"]:.4f}'
        if math.isnan(row['val/map50']):
            scores = 'not validated'
        print(
            f'epoch {epoch + 1}/{self.epochs}: {terms} | {scores} | {seconds:.0f} s an epoch, {duration(left)} left',
            flush=True,
        )

    def _save_last(self) -> None:
        """Write last.pt: all that an exact continuation needs."""
        scores = {name: self.rows[-1][f'val/{name}'] for name in SCORES} if self.rows else {}
        self.save(self.last, self.progress.epoch - 1, scores, resume=True)
        self.saved_at = time.monotonic()

    def save(self, path: Path, epoch: int, scores: dict, resume: bool = False) -> None:
        """Write the EMA student as a checkpoint; with `resume` also all that an exact continuation needs."""
        if distributed.rank():
            return
        entries = {
            'command': self.options.get('command'),
            'options': self.options,
            'hyp': self.hyp,
            'epoch': epoch,
            'metrics': scores,
            'versions': versions(),
            'conf_threshold': None,
            'word_scale': None,
        }
        if resume:
            entries['resume'] = {
                'model': self.model.state_dict(),
                'ema_updates': self.ema.updates,
                'optimizer': self.optimizer.state_dict(),
                'criterion': self.criterion.state_dict(),
                'best_fitness': self.best_fitness,
                'best_epoch': self.best_epoch,
                'rows': self.rows,
                'progress': asdict(self.progress),
                'data': self.loader.dataset.fingerprint(),
                'rng': torch.get_rng_state(),
            }
        save_checkpoint(path, self.model, self.ema.model.state_dict(), **entries)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a last.pt. Raises UserError if it cannot."""
        saved = checkpoint.meta.get('resume')
        if saved is None:
            raise UserError(f'{checkpoint.path} cannot be resumed: only last.pt can')
        try:
            self._take(checkpoint, saved)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f'{checkpoint.path} cannot be resumed: {error!r}') from None
        begun = self.progress.epoch
        finished = not self.progress.batches and (begun >= self.epochs or self._stalled(begun))
        if finished and (self.folder / 'metrics.json').is_file():  # else only the report is left to do
            raise UserError(f'{checkpoint.path} belongs to a finished run: nothing to resume')
        if saved['data'] != self.loader.dataset.fingerprint():
            print('warning: the training pictures or their labels have changed since: the run goes on, but not exactly')

    def _take(self, checkpoint: Checkpoint, saved: dict) -> None:
        self.model.load_state_dict(saved['model'])
        self.ema.model.load_state_dict(checkpoint.state)
        self.ema.updates = saved['ema_updates']
        self.optimizer.load_state_dict(saved['optimizer'])
        self.criterion.load_state_dict(saved['criterion'])
        self.best_fitness, self.best_epoch = saved['best_fitness'], saved['best_epoch']
        self.rows = saved['rows']
        self.progress = Progress(**saved['progress'])
        mine = distributed.rank() == 0  # the sums are of all processes
        sums = {name: value.to(self.device) for name, value in self.progress.sums.items()}
        self.progress.sums = {name: value if mine else torch.zeros_like(value) for name, value in sums.items()}
        torch.set_rng_state(saved['rng'])
        self._write_rows()  # of an epoch whose checkpoint was written, but not its row


def survive(error: WorkerDied, died: int) -> None:
    """Say that loading processes are replaced; raises the error if they died too often."""
    if died > RESTARTS:
        raise error
    print(f'\nwarning: {error}. Going on with new ones ({died} of {RESTARTS} times)', flush=True)


def ahead(loader: BatchLoader, device: torch.device) -> Iterator[Batch]:
    """The loader's batches on the device; a GPU copies each while it computes with the one before."""
    if device.type != 'cuda':
        yield from loader
        return
    stream = side_stream(device)
    waiting = None
    for batch in loader:
        with torch.cuda.stream(stream):
            copied = to_device(batch, device), stream.record_event()
        if waiting is not None:
            yield _arrived(*waiting, device)
        waiting = copied
    if waiting is not None:
        yield _arrived(*waiting, device)


@functools.cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all epochs: memory that was freed in a stream is used again in that stream alone."""
    return torch.cuda.Stream(device)


def _arrived(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """A batch that the side stream copied, safe to compute with."""
    now = torch.cuda.current_stream(device)
    now.wait_event(copied)
    for value in batch:
        if isinstance(value, torch.Tensor):
            value.record_stream(now)  # its memory must not be given away before the computation is over
    return batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device; plain lists stay."""
    return batch._replace(
        **{
            name: value.to(device, non_blocking=True)
            for name, value in batch._asdict().items()
            if isinstance(value, torch.Tensor)
        }
    )


def build_optimizer(
    model: DetectionModel, criterion: nn.Module, hyp: dict, name: str, batch: int
) -> torch.optim.Optimizer:
    """SGD (Nesterov) or AdamW over three groups: decayed weights, normalisation weights, biases.

    Args:
        criterion: its parameters (adapters) are trained too.
        batch: pictures a step; weight decay is hyp's for 64 and scales with it.
    """
    groups = {'weight': [], 'norm': [], 'bias': []}
    for module in (*model.modules(), *criterion.modules()):
        for key, parameter in module.named_parameters(recurse=False):
            kind = 'bias' if key == 'bias' else 'norm' if isinstance(module, NORMS) else 'weight'
            groups[kind].append(parameter)
    decay = {'weight': hyp['weight_decay'] * batch / DECAY_BATCH}
    parts = [
        {'params': parameters, 'kind': kind, 'initial_lr': hyp['lr0'], 'weight_decay': decay.get(kind, 0.0)}
        for kind, parameters in groups.items()
        if parameters
    ]
    if name == 'AdamW':
        return torch.optim.AdamW(parts, lr=hyp['lr0'], betas=(hyp['momentum'], 0.999), fused=True)
    return torch.optim.SGD(parts, lr=hyp['lr0'], momentum=hyp['momentum'], nesterov=True, fused=True)


def learning_rate_fraction(epoch: int, epochs: int, final: float, cosine: bool) -> float:
    """From 1 to `final` over the epochs, in a straight line or along half a cosine."""
    fraction = epoch / epochs
    if cosine:
        fraction = (1 - math.cos(math.pi * fraction)) / 2
    return 1 + (final - 1) * fraction


def freeze(model: DetectionModel, count: int) -> list[nn.Module]:
    """Freeze the first `count` layers; returns them (their normalisation must stay in eval mode too)."""
    if count >= len(model.model):
        raise UserError(f'--freeze {count}: the model has {len(model.model)} layers, at least one must train')
    layers = list(model.model[:count])
    for layer in layers:
        layer.requires_grad_(False)
    return layers


def duration(seconds: float) -> str:
    """3725 -> '1 h 2 min', 59 -> '59 s'."""
    if seconds < 120:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 60 else f'{minutes // 60} h {minutes % 60} min'
