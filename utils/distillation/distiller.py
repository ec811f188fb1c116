"""The criterion of distillation: the detection loss and the terms of the recipe's methods."""

import math
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import UserError
from models.layers import Detect
from models.yolo import DetectionModel
from utils.distillation import balance
from utils.distillation.base import Method, Signals, resize
from utils.distillation.recipe import Recipe, auto_ratios
from utils.loading.batches import Batch
from utils.runtime import distributed
from utils.runtime.device import autocast, has_bfloat16
from utils.training.criterion import WAIT, DetectionCriterion, weighted_sum


def freeze_teacher(model: DetectionModel) -> DetectionModel:
    """Fused, without gradients, and in eval mode whatever later calls train()."""
    model.requires_grad_(False).fuse()
    model.train = MethodType(lambda self, mode=True: self, model)  # type: ignore[method-assign]
    return model


@dataclass(frozen=True)
class DistillerSettings:
    """What a Distiller must know of the training.

    Attributes:
        hyp, imgsz, amp: see DetectionCriterion.
        seed: of the adapters' weights.
        epochs: of the whole training, for weights that decay.
        teacher_imgsz: longer side of the teacher's pictures in pixels; None: imgsz.
        labelled: fraction of the training pictures that have labels, for automatic weights.
    """

    hyp: dict[str, Any]
    imgsz: int
    amp: bool = True
    seed: int = 0
    epochs: int = 1
    teacher_imgsz: int | None = None
    labelled: float = 1.0


class Distiller(DetectionCriterion):
    """Detection loss plus distillation terms.

    The teacher is no submodule: it is neither trained, nor saved, nor moved with the criterion. The methods, with
    their adapters, are. forward() takes pictures of the larger of the two models' sizes.

    Args:
        student: the model to train.
        teacher: frozen (see freeze_teacher), on the student's device.
        recipe: methods, layers, weights.
        settings: of the training.

    Raises:
        UserError: a method that cannot compare models that see different sizes; layers whose cells do not fit.
    """

    auto_weights: Tensor | None

    def __init__(self, student: DetectionModel, teacher: DetectionModel, recipe: Recipe, settings: DistillerSettings):
        super().__init__(student, settings.hyp, settings.imgsz, settings.amp)
        self.settings, self.recipe = settings, recipe
        self.imgsz, self.teacher_imgsz = settings.imgsz, settings.teacher_imgsz or settings.imgsz
        device = next(student.parameters()).device
        generator = torch.Generator().manual_seed(settings.seed)
        self.used = {
            name: use.method(student, teacher, use.layers, generator, use.options, use.teacher_layers)
            for name, use in recipe.methods.items()
        }
        self.methods = nn.ModuleDict(self.used).to(device).to(memory_format=torch.channels_last)
        self._refuse_sizes()
        self._refuse_levels(student, teacher)
        self._refuse_labels()
        self._refuse_names()
        self.given_weights = {term: weight for use in recipe.methods.values() for term, weight in use.weights.items()}
        self.auto = {term: weight for term, weight in self.given_weights.items() if isinstance(weight, str)}
        if self.auto and not any(self.gains.values()):
            raise UserError('auto: a ratio to the gradient of the detection loss, whose gains are all 0')
        # Found in the first batches, then kept, by checkpoints too; NaN: not yet. On the CPU, as every step reads them.
        self.register_buffer('auto_weights', torch.full((len(self.auto),), math.nan) if self.auto else None)
        self.told = self.owed = False  # the report of the terms' strengths
        self.taps = sorted({layer for method in self.used.values() for layer in method.layers})
        self.teacher_taps = sorted({i for method in self.used.values() for i in method.teacher_layer.values()})
        if self.amp and has_bfloat16(device):
            teacher.to_bfloat16()  # its weights never change: cast once, not in every step
        self._teacher, self._head = (teacher,), (student.head,)  # tuples hide them from nn.Module
        self.teacher_dtype = next(teacher.parameters()).dtype

    @property
    def teacher(self) -> DetectionModel:
        return self._teacher[0]

    def _refuse_sizes(self) -> None:
        strict = [name for name, method in self.used.items() if method.SAME_SIZE]
        if strict and self.teacher_imgsz != self.imgsz:
            raise UserError(
                f'the teacher sees {self.teacher_imgsz} pixels, the student {self.imgsz}: {", ".join(strict)} '
                f'compares predictions cell by cell and needs the same size'
            )

    def _refuse_levels(self, student: DetectionModel, teacher: DetectionModel) -> None:
        if self.teacher_imgsz != self.imgsz:
            return
        for name, method in self.used.items():
            for layer, theirs in method.teacher_layer.items():
                own, its = student.layer_strides[layer], teacher.layer_strides[theirs]
                if own != its:
                    larger = its > own and not method.SAME_SIZE
                    raise UserError(
                        f"{name}: layer {layer} has cells of {own:g} pixels, the teacher's layer {theirs} of {its:g}"
                        + ('; they fit where the teacher sees larger pictures (--teacher_imgsz)' if larger else '')
                    )

    def _refuse_labels(self) -> None:
        if self.settings.labelled < 1 and all(method.needs_labels for method in self.used.values()):
            raise UserError(f'unlabelled pictures teach nothing by {", ".join(self.used)}: without labels they are 0')

    def _refuse_names(self) -> None:
        owner = dict.fromkeys(self.gains, 'the detection loss')
        for name, method in self.used.items():
            for term in method.TERMS:
                if term in owner:
                    raise UserError(f'{name}: its term {term} is named as one of {owner[term]}')
                owner[term] = name

    def forward(self, model: DetectionModel, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        signals = self._signals(model, images, batch)
        whole = batch.whole or len(images)  # pictures of all processes
        every = batch.labelled is None or bool(batch.labelled.all())
        labelled = signals if batch.labelled is None or every else signals.select(batch.labelled)
        detection = self.loss(
            labelled.whole_maps(), labelled.targets, labelled.ignore, distributed.total, labelled.edges
        )
        count, terms = len(labelled.student_maps[0]), dict[str, Tensor]()
        for name, method in self.used.items():
            # Every method's terms are means over the pictures that it sees; they become sums over those of the batch.
            seen, pictures = (labelled, count) if method.needs_labels else (signals, len(images))
            found = checked(name, method, method(seen)) if pictures else nothing(method, images.device)
            terms |= {term: value * (pictures / whole) for term, value in found.items()}
        if distributed.world() > 1 or not every:  # another process may have pictures without labels
            fraction = labelled_fraction(images, batch)
            detection = {name: term * fraction for name, term in detection.items()}
        return detection | terms

    def _signals(self, model: DetectionModel, images: Tensor, batch: Batch) -> Signals:
        """Run both networks; images are of the larger of their sizes."""
        larger = max(self.imgsz, self.teacher_imgsz)
        seen = shrink(images, self.teacher_imgsz / larger)
        teacher_maps, teacher_features = list[Tensor](), dict[int, Tensor]()
        if self.recipe.reads_teacher:
            with torch.no_grad():
                teacher_maps, teacher_features = self.teacher.raw_maps(seen.to(self.teacher_dtype), self.teacher_taps)
        own = shrink(images, self.imgsz / larger)
        with autocast(images.device, self.amp):
            maps, features = model(own, self.taps) if self.taps else (model(own), {})
        return Signals(
            size=tuple(own.shape[2:]),
            targets=batch.targets,
            ignore=batch.ignore,
            student_maps=[raw[..., : self._head[0].outputs] for raw in maps],
            teacher_maps=[raw[..., : self.teacher.head.outputs] for raw in teacher_maps],
            student_features=features,
            teacher_features=teacher_features,
            head=self._head[0],
            anchor_t=self.settings.hyp['anchor_t'],
            teacher_size=tuple(seen.shape[2:]),
            edges=batch.edges,
            student_edges=edges_of(self._head[0], maps),
            teacher_edges=edges_of(self.teacher.head, teacher_maps),
            maps=batch.maps,
        )

    def prepare(self, model: DetectionModel, images: Tensor, batch: Batch, first: bool = False) -> None:
        """Fit the adapters to the first batch, choose the automatic weights that are not known yet, and report how
        the terms pull at the student where that is news."""
        with balance.buffers_kept(model, self):
            if first:
                self._fit_adapters(model, images, batch)
            terms = self(model, images, batch)
            labelled = float(labelled_fraction(images, batch))
            norms = self._gradient_norms(model, terms, labelled)
        before = self.kd_weights
        self._choose_weights(norms)
        if self.told and before == self.kd_weights:
            return
        if not labelled:  # there is nothing to compare the terms with
            if first:
                print(f'first batch: no labelled picture; the first of {WAIT} with one shows how strong the terms are')
                self.owed = True
            return
        self.told, self.owed = True, False
        self._report('first batch' if first else 'a later batch', terms, norms)

    def _fit_adapters(self, model: DetectionModel, images: Tensor, batch: Batch) -> None:
        with torch.no_grad():
            signals = self._signals(model, images, batch)
        for method in self.used.values():
            method.fit_adapters(signals)

    def _gradient_norms(self, model: DetectionModel, terms: dict[str, Tensor], labelled: float) -> dict[str, float]:
        """How each distillation term (at weight 1) and 'detection' pull at the student; frees the terms' graph.

        Detection loss and terms that need labels count as in a batch with the usual fraction of labelled pictures;
        `labelled` is that of this batch.
        """
        detection = weighted_sum({name: terms[name] for name in self.gains}, self.gains)
        norms = balance.gradient_norms(model, self._distillation(terms) | {'detection': detection})
        usual = self.settings.labelled / labelled if labelled else 1.0  # without labels here, these norms are 0
        learnt = {'detection'} | {term for m in self.used.values() if m.needs_labels for term in m.TERMS}
        return {name: norm * usual if name in learnt else norm for name, norm in norms.items()}

    def _distillation(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms that are not the detection loss's."""
        return {name: term for name, term in terms.items() if name not in self.gains}

    def _choose_weights(self, norms: dict[str, float]) -> None:
        """Set the automatic weights that are not known yet by the terms' gradient norms, where there are any."""
        if self.auto_weights is None:
            return
        ratios = auto_ratios({term: weight for term, weight in self.auto.items() if term in norms})
        for number, term in enumerate(self.auto):
            if self.auto_weights[number].isnan():
                ratio = ratios.get(term)  # None: a term that this number of classes does without
                weight = balance.automatic_weight(ratio, norms['detection'], norms[term]) if ratio else 0.0
                self.auto_weights[number] = weight

    def _report(self, title: str, terms: dict[str, Tensor], norms: dict[str, float]) -> None:
        """Print the balance of the terms, and the automatic weights that are not known yet."""
        values = {name: float(distributed.total(term.detach())) for name, term in self._distillation(terms).items()}
        print(balance.describe(title, values, self.kd_weights, norms))
        if self.auto_weights is not None and self._unknown:
            names = [term for term, weight in zip(self.auto, self.auto_weights, strict=True) if weight.isnan()]
            text = f'0 until one of the first {WAIT} batches has one'
            print(f'no gradient to choose the weight of {", ".join(names)} by: {text}')

    @property
    def waiting(self) -> bool:
        """Whether the batches so far had nothing to compare the terms with, or to choose an automatic weight by."""
        return self.owed or self._unknown

    @property
    def _unknown(self) -> bool:
        return self.auto_weights is not None and bool(self.auto_weights.isnan().any())

    @property
    def kd_weights(self) -> dict[str, float]:
        """The full weight of every distillation term."""
        found = [] if self.auto_weights is None else self.auto_weights.nan_to_num(0.0).tolist()
        chosen = dict(zip(self.auto, found, strict=True))
        given = self.given_weights.items()
        return {term: chosen[term] if isinstance(weight, str) else weight for term, weight in given}

    def weights(self, epoch: float) -> dict[str, float]:
        """Detection gains, and distillation weights by their schedule; epoch in passes since the start."""
        fraction = self.schedule(epoch)
        return self.detection_weights(epoch) | {name: weight * fraction for name, weight in self.kd_weights.items()}

    def schedule(self, epoch: float) -> float:
        """The distillation weights' fraction, 0..1: it grows over the warm-up, then stays or falls to 0 at the end. The
        warm-up is at most a third of the training, as that of the learning rate."""
        warmup, decay = min(self.recipe.warmup_epochs, self.settings.epochs / 3), self.recipe.decay
        if epoch < warmup:
            return epoch / warmup
        if decay == 'constant':
            return 1.0
        done = min((epoch - warmup) / (self.settings.epochs - warmup), 1.0)
        return 1 - done if decay == 'linear' else (1 + math.cos(math.pi * done)) / 2


def checked(name: str, method: Method, found: object) -> dict[str, Tensor]:
    """What a method returned, if that is a dict of scalars of its TERMS. Raises UserError."""
    if not isinstance(found, dict):
        raise UserError(f'{name}: forward returned {type(found).__name__}, expected a dict {{term: scalar}}')
    strangers = found.keys() - method.TERMS.keys()
    if strangers:
        raise UserError(f'{name}: forward returned {sorted(strangers)}, which TERMS does not have')
    bad = [term for term, value in found.items() if not isinstance(value, Tensor) or value.dim()]
    if bad:
        raise UserError(f'{name}: forward returned something else than a scalar tensor for {", ".join(bad)}')
    return found


def labelled_fraction(images: Tensor, batch: Batch) -> Tensor:
    """The labelled pictures' fraction of a batch, that of all processes; images are this one's."""
    count = len(images) if batch.labelled is None else int(batch.labelled.sum())
    return distributed.total(torch.full((), float(count), device=images.device)) / (batch.whole or len(images))


def nothing(method: Method, device: torch.device) -> dict[str, Tensor]:
    """A method's terms where nothing is labelled: 0, with gradients of 0, which other processes wait for."""
    zero = sum((parameter.sum() * 0 for parameter in method.parameters()), start=torch.zeros((), device=device))
    return dict.fromkeys(method.TERMS, zero)


def edges_of(head: Detect, maps: list[Tensor]) -> list[Tensor] | None:
    """The edges' logits of raw maps, (B, 3, h, w, 4) a level; None without quads."""
    return None if head.quad is None else [raw[..., head.outputs :] for raw in maps]


def shrink(images: Tensor, fraction: float) -> Tensor:
    """(B, 3, H, W) -> (B, 3, fraction H, fraction W): each pixel the mean of those that it replaces."""
    return images if fraction == 1 else resize(images, [round(side * fraction) for side in images.shape[2:]])
