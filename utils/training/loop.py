"""The training loop: one for plain training and for distillation, which differ in their criterion only."""

import math
import signal
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from models.checkpoint import Checkpoint
from models.errors import Interrupted, UserError
from models.yolo import DetectionModel
from ocrdistill.whole_files import remove_leftovers
from utils.evaluation.evaluate import QUAD_SCORES, SCORES, Evaluation, evaluate, to_network
from utils.loading.batches import Batch
from utils.loading.loader import BatchLoader, WorkerDied
from utils.runtime import distributed
from utils.runtime.interrupt import StopRequest
from utils.runtime.run_folder import write_rows
from utils.training.criterion import WAIT, DetectionCriterion, weighted_sum
from utils.training.ema import ModelEMA
from utils.training.log import epoch_line
from utils.training.nonfinite import GRADIENT, BatchResult, StepGuard
from utils.training.optimizer import MAX_GRADIENT, build_optimizer, freeze, norms
from utils.training.prefetch import ahead
from utils.training.schedule import Schedule
from utils.training.state import Progress, TrainingState

RESTARTS = 3  # of loading processes that die, in an epoch or its validation


class ModelAndCriterion(nn.Module):
    """Both as one module: what processes exchange gradients of, adapters included.

    Args:
        translate: torch.compile translates the network for batches of so many pictures; 0: not at all. The last batch
            of an epoch, if it is smaller, is not worth a second translation: it runs as it is.
    """

    def __init__(self, model: DetectionModel, criterion: DetectionCriterion, translate: int = 0):
        super().__init__()
        self.model, self.criterion = model, criterion
        self.translated = torch.compile(model) if translate else model  # the same weights
        self.translate = translate

    def forward(self, images: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        network = self.translated if len(images) == self.translate else self.model
        return self.criterion(network, images, batch)


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

    Attributes:
        state: how far it has come.
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
        self.model, self.criterion, self.options, self.folder, self.reports = model, criterion, options, folder, reports
        threshold, scale = model.point_at(options['imgsz'])
        point = {'conf_threshold': threshold, 'word_scale': list(scale)}
        self.about = {'command': options.get('command'), 'options': options, 'hyp': hyp, 'starting_point': point}
        self.loader, self.val_loader = loaders
        self.device = next(model.parameters()).device
        self.epochs, self.batch_size = options['epochs'], options['batch_size']
        accumulate = max(round(options['nominal_batch'] / self.batch_size), 1)
        self.schedule = Schedule(hyp, self.epochs, len(self.loader), accumulate, options['cos_lr'])
        optimizer = build_optimizer(model, criterion, hyp, options['optimizer'], self.batch_size * accumulate)
        self.state = TrainingState(model, ModelEMA(model), criterion, optimizer)
        self.guard = StepGuard(model, folder, options['skip_nonfinite'] or 0)
        # Apart, so that the adapters' gradients never shrink the student's step; plain training has no adapters.
        self.clipped = [p for p in (list(model.parameters()), list(criterion.parameters())) if p]
        self.score_names = SCORES + QUAD_SCORES if model.quads else SCORES
        self.frozen = freeze(model, options['freeze'])
        full = self.loader.batch_sampler.share(0) if options.get('compile') else 0
        self.forward = distributed.wrap(ModelAndCriterion(model, criterion, full))
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

        Ctrl-C, SIGTERM and SIGHUP end it after the step under way, saved as last.pt.

        Raises:
            UserError: a loss is not finite, images cannot be read, or the network cannot be translated.
            torch.OutOfMemoryError: the GPU has too little memory.
            Interrupted: last.pt is as after the last step.
        """
        try:
            with self.stop, distributed.clear_messages():
                self._run()
        except (KeyboardInterrupt, UserError, torch.OutOfMemoryError) as error:
            what = 'interrupted' if isinstance(error, KeyboardInterrupt) else 'stopped'
            if self.last.is_file():
                print(f'\n{what}; {self.last} is complete, continue with: --resume {self.last}')
            raise
        except RuntimeError as error:
            if not type(error).__module__.startswith(('torch._dynamo', 'torch._inductor')):
                raise
            raise UserError(f'--compile: {str(error).splitlines()[0]}; leave the flag out') from None
        finally:
            self.loader.close()
            self.val_loader.close()

    # The loop: epochs, their batches, and the step of each --------------------------------------------------------

    def _run(self) -> None:
        if distributed.rank() == 0:
            remove_leftovers(self.last.parent)
        if not self.state.begun:
            if self.model.pretrained and not self.options['noval']:
                self._judge_start()
            self._save_last()  # from here on there is something to resume
        if self.options.get('compile'):
            print('--compile: the first step translates the network, which takes a minute or several', flush=True)
        for epoch in range(self.state.progress.epoch, self.epochs):
            if self._stalled(epoch):
                print(
                    f'stopped: no better result in {self.options["patience"]} epochs (--patience){self._warming(epoch)}'
                )
                break
            means = self._train_epoch(epoch)
            evaluation = self._validate(epoch)
            self._finish_epoch(epoch, means, evaluation)
            self._heed(bool(self.stop.number))

    def _judge_start(self) -> None:
        """Evaluate the weights that training begins with: they are the best until an epoch is better."""
        with torch.random.fork_rng(devices=[]), self.stop.at_once():  # training draws the same numbers as without
            scores = self._evaluated().scores
        state = self.state
        state.best_fitness, state.best_epoch = fitness_of(scores), -1
        state.save(self.best, self.about, -1, scores)
        print(f'starting weights: mAP50 {scores["map50"]:.4f} mAP50-95 {scores["map50_95"]:.4f}', flush=True)

    def _warming(self, epoch: int) -> str:
        """What a run that stops before this epoch adds where the learning rate has not reached its value."""
        if epoch >= self.schedule.warmup or not self.schedule.hyp['warmup_epochs']:
            return ''
        return (
            f'; the learning rate was still warming up, for {self.schedule.warmup:.3g} epochs: try a larger --patience'
        )

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training images, or what is left of it; the mean terms, unweighted and weighted."""
        optimizer, progress = self.state.optimizer, self.state.progress
        batches, begun = len(self.loader), progress.batches
        start = time.perf_counter() - progress.seconds
        self._training_mode(epoch)
        optimizer.zero_grad(set_to_none=True)
        self.guard.begin()
        # How many batches' gradients wait for the optimizer's step, and the sums before these batches.
        pending, sums = 0, dict(progress.sums)
        bar = self._bar(epoch, begun)
        for number, batch in enumerate(bar, begun):
            accumulate = self.schedule.set(optimizer, epoch, number)
            pending += 1
            last = pending >= accumulate or number == batches - 1  # every epoch ends with a step
            result = self._step(batch, epoch, number, last)
            self.guard.add(batch, result)
            if result.problem:
                optimizer.zero_grad(set_to_none=True)
                progress.skipped = self.guard.leave_out((epoch, number), progress.skipped)
                progress.sums = sums  # none of the step's batches counts
                progress.leave_out(result.terms)
            if number % 10 == 0:
                bar.set_postfix({name: f'{float(term.detach()):.4f}' for name, term in result.terms.items()})
            if result.problem or last:
                pending, sums = 0, dict(progress.sums)
                self.guard.begin()
                progress.batches, progress.seconds = number + 1, time.perf_counter() - start
                self._pause()
        progress.sum_up()
        return progress.means()

    def _step(self, batch: Batch, epoch: int, number: int, last: bool) -> BatchResult:
        """Add a batch's gradients; the last of the batches that make a step moves the weights."""
        images = to_network(batch.images, self.device, self.criterion.amp)
        before = epoch * len(self.loader) + number
        if before == 0 or (before < WAIT and self.criterion.waiting):
            self.criterion.prepare(self.model, images, batch, before == 0)
        with distributed.accumulating(self.forward, last):
            terms = self.forward(images, batch)
            weights = self.criterion.weights(epoch + number / len(self.loader))
            total = weighted_sum(terms, weights)
            # Gradients are averaged over processes whose terms are parts that add up.
            (total * (batch.whole * distributed.world())).backward()
        problem = self._not_finite(total, terms)
        if problem is None:
            self.state.progress.add(terms, weights, batch.whole, len(images))
            problem = self._optimize() if last else None
        return BatchResult(terms, problem)

    def _optimize(self) -> str | None:
        """The optimizer's step; returns what is not finite, and then leaves the weights alone."""
        lengths = [nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT) for parameters in self.clipped]
        if not all(math.isfinite(length) for length in lengths):
            return GRADIENT
        self.state.optimizer.step()
        self.state.optimizer.zero_grad(set_to_none=True)
        if distributed.rank() == 0:
            self.state.ema.update(self.model)
        return None

    def _validate(self, epoch: int) -> Evaluation | None:
        """Evaluate the averaged weights; the epoch's training is saved if this fails or is interrupted."""
        if self.options['noval'] and epoch < self.epochs - 1:
            return None
        distributed.copy_from_first(self.state.ema.model)
        try:
            with self.stop.at_once():
                return self._evaluated()
        except (KeyboardInterrupt, Exception):
            self._save_last()
            raise

    def _finish_epoch(self, epoch: int, means: dict, evaluation: Evaluation | None) -> None:
        """Write the epoch's row, checkpoints and line."""
        state = self.state
        scores = evaluation.scores if evaluation else dict.fromkeys(self.score_names, math.nan)
        losses = evaluation.losses if evaluation else dict.fromkeys(self.criterion.gains, math.nan)
        seconds = state.progress.seconds + (evaluation.seconds if evaluation else 0)
        row = {'epoch': epoch, **means}
        row |= {f'val/{name}': value for name, value in {**scores, **losses}.items()}
        row |= {'lr': state.optimizer.param_groups[0]['lr'], 'seconds': round(seconds, 2)}
        state.rows.append(row)
        state.progress = Progress(epoch + 1, skipped=state.progress.skipped)
        fitness = fitness_of(scores) if evaluation else -1.0
        if evaluation is None or fitness > state.best_fitness:
            state.best_fitness, state.best_epoch = fitness, epoch
            state.save(self.best, self.about, epoch, scores)
        self._save_last()
        if self.options['save_period'] > 0 and (epoch + 1) % self.options['save_period'] == 0:
            state.save(self.last.with_name(f'epoch{epoch + 1}.pt'), self.about, epoch, scores)
        self._write_rows()
        print(epoch_line(state.rows, self.epochs), flush=True)

    # What the loop asks for -------------------------------------------------------------------------------------------

    def _stalled(self, epoch: int) -> bool:
        """Whether an epoch need not start, because those before it brought nothing better for long."""
        waited = epoch - 1 - self.state.best_epoch
        return waited >= self.options['patience'] > 0 and not self.options['noval']

    def _training_mode(self, epoch: int) -> None:
        self.model.train()
        self.criterion.train()
        after = self.options.get('freeze_bn')
        still = norms(self.model) if after is not None and epoch >= after else []
        if still:  # they count in training now: those of the first process, which are saved
            distributed.copy_from_first(self.model)
        for module in (*self.frozen, *still):
            module.eval()

    def _bar(self, epoch: int, begun: int) -> tqdm:
        """An epoch's batches from number `begun` behind a bar that shows how far they are."""
        title, batches = f'epoch {epoch + 1}/{self.epochs}', self._batches(epoch, begun)
        look = {'initial': begun, 'unit': 'batch', 'leave': False, 'mininterval': 1, 'disable': None}
        return tqdm(batches, title, len(self.loader), **look)

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

    def _not_finite(self, total: torch.Tensor, terms: dict[str, torch.Tensor]) -> str | None:
        """The terms that are not finite, the same answer in all processes: None if all are."""
        finite = bool(torch.isfinite(total))  # asks the device, which by now has enough to do
        bad = [] if finite else [name for name, term in terms.items() if not torch.isfinite(term)] or list(terms)
        if distributed.any_of(torch.tensor([float(not finite)], device=self.device)).item():
            return ', '.join(bad) or 'in another process'
        return None

    def _evaluated(self) -> Evaluation:
        """The averaged weights' evaluation; begun anew where loading processes die."""
        model, criterion, died = self.state.ema.model, self.criterion, 0
        while True:
            try:
                return evaluate(model, self.val_loader, self.device, amp=criterion.amp, loss=criterion.loss)
            except WorkerDied as error:
                died += 1
                survive(error, died)

    # Between steps: stopping, saving and resuming ---------------------------------------------------------------------

    def _pause(self) -> None:
        """Between two steps: save if it is time, or stop if that was asked for. Raises Interrupted."""
        due = time.monotonic() - self.saved_at >= 60 * self.options['save_every']
        flags = torch.tensor([float(self.stop.number), float(due and distributed.rank() == 0)], device=self.device)
        stop, due = distributed.any_of(flags).tolist()
        if stop or due:
            self.state.progress.sum_up()
            self._save_last()
        self._heed(bool(stop))

    def _heed(self, stop: bool) -> None:
        """End a run that was asked to stop, in all processes at the same place. Raises Interrupted."""
        if distributed.any_of(torch.tensor([float(stop)], device=self.device)).item():
            raise Interrupted(self.stop.number or signal.SIGTERM)

    def _save_last(self) -> None:
        """Write last.pt: all that an exact continuation needs."""
        state = self.state
        scores = {name: state.rows[-1][f'val/{name}'] for name in self.score_names} if state.rows else {}
        state.save(self.last, self.about, state.progress.epoch - 1, scores, self.fingerprints)
        self.saved_at = time.monotonic()

    def _write_rows(self) -> None:
        """Write results.csv and report the last row."""
        rows = self.state.rows
        if rows and distributed.rank() == 0:
            write_rows(self.folder / 'results.csv', rows)
            for report in self.reports:
                report(rows[-1])

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a last.pt. Raises UserError if it cannot."""
        trained_on = self.state.restore(checkpoint)
        self._write_rows()  # of an epoch whose checkpoint was written, but not its row
        begun = self.state.progress.epoch
        finished = not self.state.progress.batches and (begun >= self.epochs or self._stalled(begun))
        if finished and (self.folder / 'metrics.json').is_file():  # else only the report is left to do
            raise UserError(f'{checkpoint.path} belongs to a finished run: nothing to resume')
        for split, own in self.fingerprints.items():
            if (then := trained_on.get(split, own)) != own:
                what = f'pictures or labels of {split} have' if ':' in then else 'the program has'
                print(f'warning: {what} changed since: the run goes on, but not exactly')

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of train and val, which do not change while the run lasts."""
        return {'train': self.loader.dataset.fingerprint(), 'val': self.val_loader.dataset.fingerprint()}


def fitness_of(scores: dict[str, float]) -> float:
    """What the best epoch has most of: YOLOv5's weighting."""
    return 0.1 * scores['map50'] + 0.9 * scores['map50_95']


def survive(error: WorkerDied, died: int) -> None:
    """Say that loading processes are replaced; raises the error if they died too often."""
    if died > RESTARTS:
        raise error
    print(f'\nwarning: {error}. Going on with new ones ({died} of {RESTARTS} times)', flush=True)
