"""What train.py and distill.py do alike around the training loop: set up data, run, and report."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from models.checkpoint import Checkpoint, has_quads, load_model, read_checkpoint, save_checkpoint, take_point, transfer
from models.errors import UserError
from models.yolo import DetectionModel
from utils.evaluation.evaluate import check_truths
from utils.evaluation.report import CHOSEN, RESULTS, Report, begun_at, checkpoint_entries, evaluate_split, print_scores
from utils.evaluation.split import EvaluationSplit
from utils.loading.config import load_data_config
from utils.loading.dataset import TextDataset
from utils.loading.listing import shared_images
from utils.loading.loader import build_loader
from utils.runtime import distributed
from utils.runtime.device import describe, has_bfloat16
from utils.runtime.hyp import check_hyp, hyp_of
from utils.runtime.run_folder import make_run_folder, sole_writer, write_yaml
from utils.runtime.words import counted
from utils.training.anchors import anchor_recall
from utils.training.autobatch import fit_batch_size
from utils.training.criterion import DetectionCriterion
from utils.training.loop import Trainer
from utils.training.optimizer import norms
from utils.training.options import TeacherOptions
from utils.training.resolve import Start

VAL_BATCH = 32  # of a run whose --batch-size is -1
MAX_VAL_BATCH = 64  # a batch of many processes is not that of one


class TrainingRun:
    """A training run from its options to its report. train.py and distill.py add models and criterion.

    Args:
        start: options, device and what is resumed.
    """

    def __init__(self, start: Start):
        options = self.options = start.options
        self.device = start.device
        self.checkpoint, self._folder = start.checkpoint, start.folder
        distributed.start(self.device)
        if options.sync_bn and distributed.world() == 1 and self.checkpoint is None:
            raise UserError('--sync-bn is for several processes (torchrun): there is one')
        if distributed.world() > 1 and options.batch_size == -1:
            raise UserError('--batch-size -1 measures one GPU: with several processes, give the images of all of them')
        # Before --batch-size -1 finds its value: shapes of the validation batches depend on it, after --resume too.
        twice = min(2 * options.batch_size, MAX_VAL_BATCH) if options.batch_size > 0 else VAL_BATCH
        options.val_batch = options.val_batch or twice
        self.val_batch = options.val_batch
        self.data = load_data_config(options.data)
        self.hyp = check_hyp(self.checkpoint.meta['hyp'], self.checkpoint.path) if self.checkpoint else hyp_of(options)
        if options.label_smoothing and self.data.nc == 1:
            raise UserError(f'--label-smoothing is for several classes, and {options.data} has one')
        self.teacher_imgsz = (isinstance(options, TeacherOptions) and options.teacher_imgsz) or options.imgsz
        self._read_data()
        precision = 'bfloat16' if options.amp and has_bfloat16(self.device) else 'float32'
        print(f'device: {describe(self.device)}; the network trains in {precision}')

    def _read_data(self) -> None:
        """List and check the images of both splits, and say how many there are. Raises UserError."""
        options = self.options
        held = max(options.imgsz, self.teacher_imgsz)
        self.train_set = TextDataset(
            self.data,
            'train',
            held,
            self.hyp,
            augment=True,
            seed=options.seed,
            cache=options.cache,
            unlabelled=options.unlabelled if isinstance(options, TeacherOptions) else None,
            crop=options.crop and options.crop * held // options.imgsz,
            shown=options.imgsz,
        )
        self.val_set = self._val_set(options.imgsz)
        if not any(map(len, self.val_set.labels)):
            raise UserError(f'{options.data}: val has no target, so no epoch could be judged')
        check_truths(self.val_set.files)  # a mistake in them must not show after the last epoch
        print(f'{self.train_set.summary}\n{self.val_set.summary}')
        for split, count in shared_images(self.data, self.train_set.files).items():
            shared = counted(count, f'picture of {split} is', f'pictures of {split} are')
            print(f'warning: {shared} trained on: its metrics will be too good')

    @property
    def folder(self) -> Path:
        """The run's folder; there is one from the start of training on."""
        assert self._folder is not None
        return self._folder

    @property
    def input_size(self) -> int:
        """Longer side in pixels of what the student trains on."""
        return self.options.crop or self.options.imgsz

    @property
    def teacher_input_size(self) -> int:
        """Longer side in pixels of what the teacher sees of it."""
        return self.input_size * self.teacher_imgsz // self.options.imgsz

    def _val_set(self, imgsz: int) -> EvaluationSplit:
        return EvaluationSplit(self.data, 'val', imgsz, batch_size=self.val_batch, cache=self.options.cache)

    def name_classes(self, model: DetectionModel) -> DetectionModel:
        """Give a model the data's class names and move it to the device."""
        model.names = dict(self.data.names)
        return model.to(self.device, memory_format=torch.channels_last)

    def evaluate_val(self, model: DetectionModel, title: str, imgsz: int | None = None) -> Report:
        """Evaluate a model on the validation split, float32, by all processes together; imgsz: in place of the
        training's."""
        split = self.val_set if imgsz in (None, self.options.imgsz) else self._val_set(imgsz)
        return evaluate_split(model, split, self.device, part=distributed.part(), title=title)

    def train(self, model: DetectionModel, criterion: DetectionCriterion) -> Path:
        """Train and report; returns the run's folder.

        Args:
            model: on the device.
            criterion: on the device.
        """
        options = self.options
        given = self.checkpoint is not None or all((norm.running_var != 1).any() for norm in norms(model))
        if options.freeze_bn == 0 and not given:
            raise UserError('--freeze-bn 0: the network has no statistics yet; give weights, or a larger number')
        if model.quads:
            self.train_set.learn_quads()
            if not any(a.edge_weight[~a.dont_care].any() for a in self.train_set.annotations):
                print('warning: the network predicts corners, and no label of train gives them: boxes or edge_weight 0')
        fraction = anchor_recall(
            self.train_set.labels,
            self.train_set.sizes,
            model.head.anchors.cpu() * model.stride.view(-1, 1, 1),
            self.train_set.shown_sides(),
            self.hyp['anchor_t'],
        )
        hint = '' if fraction > 0.95 else '; the others cannot be learnt: a larger --imgsz or other anchors may help'
        print(f'anchors: {fraction:.1%} of the targets are within a factor of {self.hyp["anchor_t"]:g} of one{hint}')
        if options.batch_size == -1:
            options.batch_size = fit_batch_size(model, criterion, self.train_set.crop or self.train_set.imgsz)
            print(f'--batch-size -1: {options.batch_size}')
        part, pin = distributed.part(), self.device.type == 'cuda'
        loaders = (
            build_loader(
                self.train_set, options.batch_size, options.workers, shuffle=True, seed=options.seed, part=part, pin=pin
            ),
            self.val_set.loader(min(options.workers, 2), part, pin),
        )
        if self.checkpoint is None:
            first = distributed.rank() == 0
            folder = make_run_folder(options.project, options.name, options.exist_ok) if first else None
            self._folder = distributed.from_first(folder)
        with sole_writer(self.folder) if distributed.rank() == 0 else contextlib.nullcontext():
            self._run(model, criterion, loaders)
        return self.folder

    def _run(self, model: DetectionModel, criterion: DetectionCriterion, loaders: tuple) -> None:
        """The part of train() that writes to the run's folder."""
        options, first = self.options, distributed.rank() == 0
        kept = options.as_dict()  # a resumed run keeps its own command
        begun = self.checkpoint.meta['epoch'] + 1 if self.checkpoint else 0  # epochs
        if self.checkpoint is None and first:
            put_aside(self.folder)
        reports = (tensorboard(self.folder, begun),) if first else ()
        if self.checkpoint is not None:
            take_point(model, self.checkpoint.meta.get('starting_point') or {})
        trainer = Trainer(self._synchronised(model), criterion, loaders, kept, self.hyp, self.folder, reports)
        if self.checkpoint is None and first:
            write_yaml(self.folder / 'opt.yaml', kept)
            write_yaml(self.folder / 'hyp.yaml', self.hyp)
            if not options.noplots:
                self._draw_data()
        if self.checkpoint is not None:
            trainer.restore(self.checkpoint)
            done = trainer.state.progress
            within = f' and {done.batches} of {len(loaders[0])} batches' if done.batches else ''
            print(f'resuming {self.folder} after epoch {done.epoch}{within}')
        print(f'writing to {self.folder}')
        trainer.run()
        distributed.stop()  # the first process reports alone
        if first:
            self._report(trainer)

    def _synchronised(self, model: DetectionModel) -> DetectionModel:
        """The model as it is, or with --sync-bn its normalisation over all processes. Raises UserError."""
        if not self.options.sync_bn or distributed.world() == 1:
            return model
        if self.device.type != 'cuda':
            raise UserError('--sync-bn: PyTorch synchronises statistics of normalisation on GPUs only')
        return torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)

    def _draw_data(self) -> None:
        """What the network is about to see: statistics of the labels, and two augmented batches."""
        from utils.evaluation.grids import plot_batch
        from utils.evaluation.plots import plot_labels

        plot_labels(np.concatenate(self.train_set.labels), self.folder / 'labels.png', self.data.names)
        loader = build_loader(self.train_set, min(self.options.batch_size, 16), shuffle=True, seed=self.options.seed)
        for number, batch in zip(range(2), loader, strict=False):
            plot_batch(batch, self.folder / f'train_batch{number}.jpg', self.data.names)

    def _report(self, trainer: Trainer) -> None:
        """Evaluate best.pt in float32 on val, choose its threshold and word scale there, and draw."""
        best, best_epoch = load_model(trainer.best, self.device), trainer.state.best_epoch
        imgsz = self.options.imgsz
        begun = begun_at(trainer.model, imgsz)
        report = evaluate_split(best, self.val_set, self.device, choose=True, begun=begun, title='evaluating best.pt')
        metrics = report.metrics(weights=str(trainer.best), imgsz=imgsz, precision_of='float32', epoch=best_epoch)
        metrics |= report.point.origin_unless_chosen()
        store_metrics(trainer.best, metrics)
        if not self.options.noplots:
            from utils.evaluation.plots import plot_results

            plot_results(trainer.state.rows, self.folder / 'results.png')
        report.write(self.folder, metrics, plots=not self.options.noplots)
        print(f'best epoch {best_epoch + 1}:' if best_epoch >= 0 else 'no epoch was better than the starting weights:')
        print_scores(metrics)
        if report.point.origin != CHOSEN and 'icdar_hmean' not in metrics:  # print_scores has not said it
            width, height = report.point.scale
            print(f'threshold {report.point.threshold:g}, word scale {width:g} x {height:g}: {report.point.origin}')
        print(f'weights: {trainer.best}\nall results: {self.folder}')


def start_from(model: DetectionModel, checkpoint: Checkpoint, names: dict[int, str]) -> None:
    """Copy the entries that fit, and say how many did; where all did, take the threshold and the word scale too.

    Args:
        names: {class number: name} of the data.

    Raises:
        UserError: another architecture.
    """
    report = transfer(model, checkpoint)
    print(f'{checkpoint.path}: {report}')
    if model.quads and not has_quads(checkpoint):
        print('--quads: these weights predict no corners yet; a short training makes their boxes worse (docs/quads.md)')
    if len(report.matched) < len(model.state_dict()) / 2:
        raise UserError(f'{checkpoint.path} is of another architecture than the model: only {report}')
    model.pretrained = not report.skipped and not report.missing
    if model.pretrained and model.nc > 1 and checkpoint.names != names:
        print(f'warning: {checkpoint.path} has the classes {checkpoint.names}, the data {names}: they are learned anew')
        model.pretrained = False
    if model.pretrained:  # the scores of a new head are others
        take_point(model, checkpoint.meta)


def store_metrics(path: Path, metrics: dict) -> None:
    """Write what metrics.json says of val into a checkpoint: what was chosen there, and the final scores."""
    checkpoint = read_checkpoint(path)
    model = DetectionModel(checkpoint.yaml)
    model.names = checkpoint.names
    save_checkpoint(path, model, checkpoint.state, **(checkpoint.meta | checkpoint_entries(metrics)))


def put_aside(folder: Path) -> None:
    """Clear a folder of the results of an earlier run (--exist-ok): nobody may take them for those of this one. Its
    best.pt stays until this run has its own, as this one may begin with it."""
    files = [folder / name for name in (*RESULTS, 'results.csv', 'results.png', 'labels.png')]
    for pattern in ('events.out.tfevents.*', 'train_batch*.jpg', 'nonfinite_*.pt'):
        files += folder.glob(pattern)
    for file in files:
        file.unlink(missing_ok=True)
    for file in (folder / 'weights').glob('*.pt'):  # nobody may resume the last one for this run
        if re.fullmatch(r'last|epoch\d+', file.stem):
            file.replace(file.with_suffix('.old.pt'))


def tensorboard(folder: Path, begun: int = 0) -> Callable[[dict], None]:
    """A report that writes every number of an epoch's row for TensorBoard; begun: epochs that are there already."""
    from torch.utils.tensorboard import SummaryWriter

    # What is reported again after a resumption replaces what was there.
    writer = SummaryWriter(folder, purge_step=begun - 1 if begun else None)

    def report(row: dict) -> None:
        for name, value in row.items():
            if name != 'epoch':
                writer.add_scalar(name, value, row['epoch'])
        writer.flush()

    return report


def seed_everything(seed: int) -> None:
    """Weights are drawn from torch's generator; order and augmentation have generators of their own."""
    torch.manual_seed(seed)
    cv2.setNumThreads(0)
