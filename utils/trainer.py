"""The training loop: one for plain training and for distillation, which differ in their criterion only."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from models.checkpoint import save_checkpoint
from models.errors import UserError
from models.yolo import DetectionModel
from utils.criterion import DetectionCriterion, weighted_sum
from utils.dataset import Batch, BatchLoader
from utils.ema import ModelEMA
from utils.evaluate import Evaluation, evaluate, to_network
from utils.run import command_line, versions, write_rows

MAX_GRADIENT = 10.0  # norm at which gradients are clipped, as YOLOv5
DECAY_BATCH = 64  # the batch that hyp's weight_decay is for


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
        self.rows: list[dict] = []
        self.start_epoch, self.best_fitness, self.best_epoch = 0, -1.0, 0
        (folder / 'weights').mkdir(exist_ok=True)

    @property
    def best(self) -> Path:
        return self.folder / 'weights' / 'best.pt'

    @property
    def last(self) -> Path:
        return self.folder / 'weights' / 'last.pt'

    def run(self) -> None:
        """Train; the run's folder then holds best.pt, last.pt and results.csv.

        Raises:
            UserError: a term of the loss is not finite, or the GPU is out of memory.
            KeyboardInterrupt: with last.pt as after the last full epoch.
        """
        try:
            for epoch in range(self.start_epoch, self.epochs):
                if self._stalled(epoch):
                    print(f'stopped: no better result in {self.options["patience"]} epochs (--patience)')
                    break
                start = time.perf_counter()
                means = self._train_epoch(epoch)
                evaluation = None
                if not self.options['noval'] or epoch == self.epochs - 1:
                    evaluation = evaluate(
                        self.ema.model, self.val_loader, self.device, amp=self.criterion.amp, loss=self.criterion.loss
                    )
                self._finish_epoch(epoch, means, evaluation, time.perf_counter() - start)
        except torch.OutOfMemoryError:
            raise UserError(
                f'the GPU ran out of memory with --batch-size {self.batch_size}; try --batch-size '
                f'{max(self.batch_size // 2, 1)} (the step stays the same: gradients are accumulated), or -1'
            ) from None
        except KeyboardInterrupt:
            # Only what is on disk counts: the batch under way is dropped.
            if self.rows:
                print(f'\ninterrupted; {self.last} is complete, continue with: --resume {self.last}')
            raise
        finally:
            self.loader.close()
            self.val_loader.close()

    def _stalled(self, epoch: int) -> bool:
        """Whether an epoch need not start, because those before it brought nothing better for long."""
        return epoch - 1 - self.best_epoch >= self.options['patience'] > 0 and not self.options['noval']

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training pictures; the epoch's mean terms, unweighted and weighted."""
        self.model.train()
        self.criterion.train()
        for module in self.frozen:
            module.eval()
        self.loader.sampler.epoch = epoch
        batches = len(self.loader)
        sums: dict[str, torch.Tensor] = {}
        pictures = pending = 0
        title = f'epoch {epoch + 1}/{self.epochs}'
        bar = tqdm(
            ahead(self.loader, self.device), title, batches, unit='batch', leave=False, mininterval=1, disable=None
        )
        self.optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(bar):
            now = epoch + number / batches
            accumulate = self._schedule(now, epoch, batches)
            images = to_network(batch.images, self.device, self.criterion.amp)
            if epoch == number == 0:
                self.criterion.prepare(self.model, images, batch)
            terms = self.criterion(self.model, images, batch)
            weights = self.criterion.weights(now)
            total = weighted_sum(terms, weights)
            (total * len(images)).backward()
            self._check_finite(total, terms, epoch, number)  # asks the device, which by now has enough to do
            pending += 1
            # Every epoch ends with a step, so that a checkpoint between epochs needs no gradients.
            if pending >= accumulate or number == batches - 1:
                self._step()
                pending = 0
            pictures += len(images)
            for name, term in terms.items():
                value = term.detach() * len(images)
                sums[f'train/{name}'] = sums.get(f'train/{name}', 0) + value
                sums[f'weighted/{name}'] = sums.get(f'weighted/{name}', 0) + value * weights[name]
            if number % 10 == 0:
                bar.set_postfix({name: f'{float(term.detach()):.4f}' for name, term in terms.items()})
        return {name: float(value) / pictures for name, value in sorted(sums.items())}

    def _schedule(self, now: float, epoch: int, batches: int) -> int:
        """Set learning rates and momentum for this time (in epochs); returns how many batches make a step."""
        hyp = self.hyp
        base = learning_rate_share(epoch, self.epochs, hyp['lrf'], self.options['cos_lr'])
        # Warm-up lasts hyp's epochs or 100 batches, but never over a third of the training.
        warmup = min(max(hyp['warmup_epochs'], 100 / batches), self.epochs / 3)
        share = min(now / warmup, 1.0) if hyp['warmup_epochs'] else 1.0
        for group in self.optimizer.param_groups:
            start = hyp['warmup_bias_lr'] if group['kind'] == 'bias' and self.options['optimizer'] == 'SGD' else 0.0
            group['lr'] = start + (group['initial_lr'] * base - start) * share
            if 'momentum' in group:
                group['momentum'] = hyp['warmup_momentum'] + (hyp['momentum'] - hyp['warmup_momentum']) * share
        return max(1, round(1 + (self.accumulate - 1) * share))

    def _step(self) -> None:
        try:
            for parameters in self.clipped:
                nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT, error_if_nonfinite=True)
        except RuntimeError:
            raise UserError(
                'a gradient is not finite; the weights are those before this step. A lower lr0 may help'
            ) from None
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.model)

    def _check_finite(self, total: torch.Tensor, terms: dict, epoch: int, number: int) -> None:
        if not torch.isfinite(total):
            bad = [name for name, term in terms.items() if not torch.isfinite(term)] or list(terms)
            raise UserError(
                f'the loss is not finite in epoch {epoch + 1}, batch {number + 1}: {", ".join(bad)}; the weights are '
                f'those before this batch, last.pt is of the epoch before. A lower lr0 or --no-amp may help'
            )

    def _finish_epoch(self, epoch: int, means: dict, evaluation: Evaluation | None, seconds: float) -> None:
        """Write the epoch's row, checkpoints and line."""
        row = {'epoch': epoch, **means}
        names = ('precision', 'recall', 'map50', 'map50_95')
        scores = evaluation.scores if evaluation else dict.fromkeys(names, math.nan)
        losses = evaluation.losses if evaluation else dict.fromkeys(('box', 'obj', 'cls'), math.nan)
        row |= {f'val/{name}': value for name, value in {**scores, **losses}.items()}
        row |= {'lr': self.optimizer.param_groups[0]['lr'], 'seconds': round(seconds, 2)}
        self.rows.append(row)
        fitness = 0.1 * scores['map50'] + 0.9 * scores['map50_95'] if evaluation else -1.0  # YOLOv5's
        if evaluation is None or fitness > self.best_fitness:
            self.best_fitness, self.best_epoch = fitness, epoch
            self.save(self.best, epoch, scores)
        self.save(self.last, epoch, scores, resume=True)
        if self.options['save_period'] > 0 and (epoch + 1) % self.options['save_period'] == 0:
            self.save(self.last.with_name(f'epoch{epoch + 1}.pt'), epoch, scores)
        write_rows(self.folder / 'results.csv', self.rows)
        for report in self.reports:
            report(row)
        self._print(row, seconds, epoch)

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

    def save(self, path: Path, epoch: int, scores: dict, resume: bool = False) -> None:
        """Write the EMA student as a checkpoint; with `resume` also all that an exact continuation needs."""
        entries = {
            'command': command_line(),
            'options': self.options,
            'hyp': self.hyp,
            'epoch': epoch,
            'metrics': scores,
            'versions': versions(),
            'conf_threshold': None,
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
                'rng': torch.get_rng_state(),
            }
        save_checkpoint(path, self.model, self.ema.model.state_dict(), **entries)

    def restore(self, checkpoint) -> None:
        """Continue from a last.pt (models.checkpoint.Checkpoint). Raises UserError if it cannot."""
        saved = checkpoint.meta.get('resume')
        if saved is None:
            raise UserError(f'{checkpoint.path} cannot be resumed: only last.pt can')
        self.model.load_state_dict(saved['model'])
        self.ema.model.load_state_dict(checkpoint.state)
        self.ema.updates = saved['ema_updates']
        self.optimizer.load_state_dict(saved['optimizer'])
        self.criterion.load_state_dict(saved['criterion'])
        self.best_fitness, self.best_epoch = saved['best_fitness'], saved['best_epoch']
        self.rows = saved['rows']
        torch.set_rng_state(saved['rng'])
        self.start_epoch = checkpoint.meta['epoch'] + 1
        finished = self.start_epoch >= self.epochs or self._stalled(self.start_epoch)
        if finished and (self.folder / 'metrics.json').is_file():  # else only the report is left to do
            raise UserError(f'{checkpoint.path} belongs to a finished run: nothing to resume')


def ahead(loader: BatchLoader, device: torch.device) -> Iterator[Batch]:
    """The loader's batches on the device; a GPU copies each while it computes with the one before."""
    if device.type != 'cuda':
        yield from loader
        return
    stream = torch.cuda.Stream(device)
    waiting = None
    for batch in loader:
        with torch.cuda.stream(stream):
            copied = to_device(batch, device)
        if waiting is not None:
            yield _arrived(waiting, stream, device)
        waiting = copied
    if waiting is not None:
        yield _arrived(waiting, stream, device)


def _arrived(batch: Batch, stream, device: torch.device) -> Batch:
    """A batch that a side stream copied, safe to compute with."""
    now = torch.cuda.current_stream(device)
    now.wait_stream(stream)
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
            kind = 'bias' if key == 'bias' else 'norm' if isinstance(module, nn.BatchNorm2d) else 'weight'
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


def learning_rate_share(epoch: int, epochs: int, final: float, cosine: bool) -> float:
    """From 1 to `final` over the epochs, in a straight line or along half a cosine."""
    share = epoch / epochs
    if cosine:
        share = (1 - math.cos(math.pi * share)) / 2
    return 1 + (final - 1) * share


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
