"""The criterion of distillation: the detection loss and the terms of the recipe's methods."""

import math
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import UserError
from models.layers import Detect
from models.yolo import DetectionModel
from utils.distillation import balance
from utils.distillation.base import Signals
from utils.distillation.recipe import Recipe, auto_ratios
from utils.loading.batches import Batch
from utils.runtime import distributed
from utils.runtime.device import autocast, has_bfloat16
from utils.training.criterion import WAIT, DetectionCriterion, weighted_sum


def freeze_teacher(model: DetectionModel) -> DetectionModel:
    """Fused, without gradients, and in eval mode whatever later calls train()."""
    model.requires_grad_(False).fuse()
    model.train = MethodType(lambda self, mode=True: self, model)
    return model


class Distiller(DetectionCriterion):
    """Detection loss plus distillation terms.

    The teacher is no submodule: it is neither trained, nor saved, nor moved with the criterion. The methods, with
    their adapters, are.

    Args:
        student: the model to train.
        teacher: frozen (see freeze_teacher), on the student's device.
        recipe: methods, layers, weights.
        hyp, imgsz, amp: see DetectionCriterion.
        seed: of the adapters' weights.
        epochs: of the whole training, for weights that decay.
        teacher_imgsz: longer side of the teacher's pictures in pixels; None: imgsz. forward() takes pictures of the
            larger of both sizes.
        labelled: share of the training pictures that have labels, for automatic weights.

    Raises:
        UserError: a method that cannot compare models that see different sizes; layers whose cells do not fit.
    """

    def __init__(
        self,
        student: DetectionModel,
        teacher: DetectionModel,
        recipe: Recipe,
        hyp: dict,
        imgsz: int,
        amp: bool = True,
        seed: int = 0,
        epochs: int = 1,
        teacher_imgsz: int | None = None,
        labelled: float = 1.0,
    ):
        super().__init__(student, hyp, imgsz, amp)
        device = next(student.parameters()).device
        generator = torch.Generator().manual_seed(seed)
        self.methods = nn.ModuleDict(
            {
                name: u.method(student, teacher, u.layers, generator, u.options, u.teacher_layers)
                for name, u in recipe.methods.items()
            }
        ).to(device, memory_format=torch.channels_last)
        self.imgsz, self.teacher_imgsz = imgsz, teacher_imgsz or imgsz
        self._refuse_sizes()
        self._refuse_levels(student, teacher)
        if labelled < 1 and all(method.needs_labels for method in self.methods.values()):
            raise UserError(
                f'unlabelled pictures teach nothing by {", ".join(self.methods)}: without labels they are 0'
            )
        weights = {term: weight for use in recipe.methods.values() for term, weight in use.weights.items()}
        clash = weights.keys() & self.gains.keys()
        if clash:
            raise ValueError(f'terms of methods must not be named as the detection loss: {sorted(clash)}')
        self.given_weights = weights
        self.auto = {term: weight for term, weight in weights.items() if isinstance(weight, str)}
        # Found in the first batches, then kept, by checkpoints too; NaN: not yet. On the CPU, as every step reads them.
        self.register_buffer('auto_weights', torch.full((len(self.auto),), math.nan) if self.auto else None)
        self.labelled, self.told = labelled, False
        self.warmup_epochs, self.decay, self.epochs = recipe.warmup_epochs, recipe.decay, epochs
        self.taps = sorted({layer for method in self.methods.values() for layer in method.layers})
        self.teacher_taps = sorted({i for method in self.methods.values() for i in method.teacher_layer.values()})
        self._head, self.anchor_t = (student.head,), hyp['anchor_t']
        if amp and has_bfloat16(device):
            teacher.to_bfloat16()  # its weights never change: cast once, not in every step
        self._teacher = (teacher,)  # a tuple hides it from nn.Module, as it does the head
        self.teacher_dtype = next(teacher.parameters()).dtype

    @property
    def teacher(self) -> DetectionModel:
        return self._teacher[0]

    def _refuse_sizes(self) -> None:
        strict = [name for name, method in self.methods.items() if method.SAME_SIZE]
        if strict and self.teacher_imgsz != self.imgsz:
            raise UserError(
                f'the teacher sees {self.teacher_imgsz} pixels, the student {self.imgsz}: {", ".join(strict)} '
                f'compares predictions cell by cell and needs the same size'
            )

    def _refuse_levels(self, student: DetectionModel, teacher: DetectionModel) -> None:
        if self.teacher_imgsz != self.imgsz:
            return
        for name, method in self.methods.items():
            for layer, theirs in method.teacher_layer.items():
                own, its = student.layer_strides[layer], teacher.layer_strides[theirs]
                if own != its:
                    larger = its > own and not method.SAME_SIZE
                    raise UserError(
                        f"{name}: layer {layer} has cells of {own:g} pixels, the teacher's layer {theirs} of {its:g}"
                        + ('; they fit where the teacher sees larger pictures (--teacher_imgsz)' if larger else '')
                    )

    def forward(self, model: DetectionModel, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        signals = self._signals(model, images, batch)
        every = batch.labelled is None or bool(batch.labelled.all())
        whole = batch.whole or len(images)  # pictures of all processes
        labelled = signals if every else signals.select(batch.labelled)
        detection = self.loss(
            labelled.whole_maps(), labelled.targets, labelled.ignore, distributed.total, labelled.edges
        )
        count, terms = len(labelled.student_maps[0]), {}
        for method in self.methods.values():
            # Every method's terms are means over the pictures that it sees; they become sums over those of the batch.
            seen, pictures = (labelled, count) if method.needs_labels else (signals, len(images))
            found = method(seen) if pictures else nothing(method, images.device)
            terms |= {name: term * (pictures / whole) for name, term in found.items()}
        if distributed.world() > 1 or not every:  # another process may have pictures without labels
            fraction = labelled_fraction(images, batch)
            detection = {name: term * fraction for name, term in detection.items()}
        return detection | terms

    def _signals(self, model: DetectionModel, images: Tensor, batch: Batch) -> Signals:
        """Run both networks; images are of the larger of their sizes."""
        larger = max(self.imgsz, self.teacher_imgsz)
        with torch.no_grad():
            seen = shrink(images, self.teacher_imgsz / larger).to(self.teacher_dtype)
            teacher_maps, teacher_features = self.teacher.raw_maps(seen, self.teacher_taps)
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
            anchor_t=self.anchor_t,
            teacher_size=tuple(seen.shape[2:]),
            edges=batch.edges,
            student_edges=edges_of(self._head[0], maps),
            teacher_edges=edges_of(self.teacher.head, teacher_maps),
        )

    def prepare(self, model: DetectionModel, images: Tensor, batch: Batch, first: bool = False) -> None:
        """Fit the adapters to the first batch, print how the terms pull at the student, and set the automatic weights
        that are not known yet.

        Detection loss and terms that need labels count as in a batch with the usual share of labelled pictures.
        """
        with balance.buffers_kept(model, self):
            if first:
                with torch.no_grad():
                    signals = self._signals(model, images, batch)
                for method in self.methods.values():
                    method.fit_adapters(signals)
            terms = self(model, images, batch)
            kd = {name: term for name, term in terms.items() if name not in self.gains}
            total = weighted_sum({name: terms[name] for name in self.gains}, self.gains)
            norms = balance.gradient_norms(model, kd | {'detection': total})
        here = float(labelled_fraction(images, batch))
        usual = self.labelled / here if here else 1.0  # without labels here, these norms are 0
        learnt = {'detection'} | {term for m in self.methods.values() if m.needs_labels for term in m.TERMS}
        norms = {name: norm * usual if name in learnt else norm for name, norm in norms.items()}
        detection = norms.pop('detection')
        ratios = auto_ratios({term: weight for term, weight in self.auto.items() if term in kd})
        known = self.kd_weights
        for number, term in enumerate(self.auto):
            if self.auto_weights[number].isnan():
                ratio = ratios.get(term)  # None: a term that this number of classes does without
                weight = balance.automatic_weight(ratio, detection, norms[term]) if ratio else 0.0
                self.auto_weights[number] = weight
        if self.told and known == self.kd_weights:
            return
        self.told = True
        print(
            balance.describe(
                {name: float(distributed.total(term.detach())) for name, term in kd.items()},
                self.kd_weights,
                norms,
                detection,
            )
        )
        if self.waiting:
            names = [term for term, weight in zip(self.auto, self.auto_weights, strict=True) if weight.isnan()]
            text = f'0 until one of the first {WAIT} batches has one'
            print(f'no gradient to choose the weight of {", ".join(names)} by: {text}')

    @property
    def waiting(self) -> bool:
        """Whether an automatic weight is not known yet, as the batches so far had nothing to choose it by."""
        return bool(self.auto) and bool(self.auto_weights.isnan().any())

    @property
    def kd_weights(self) -> dict[str, float]:
        """The full weight of every distillation term."""
        found = self.auto_weights.nan_to_num(0.0).tolist() if self.auto else []
        return self.given_weights | dict(zip(self.auto, found, strict=True))

    def weights(self, epoch: float) -> dict[str, float]:
        """Detection gains, and distillation weights by their schedule; epoch in passes since the start."""
        fraction = self.schedule(epoch)
        return self.detection_weights(epoch) | {name: weight * fraction for name, weight in self.kd_weights.items()}

    def schedule(self, epoch: float) -> float:
        """The distillation weights' share, 0..1: it grows over the warm-up, then stays or falls to 0 at the end."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        if self.decay == 'constant':
            return 1.0
        done = min((epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9), 1.0)
        return 1 - done if self.decay == 'linear' else (1 + math.cos(math.pi * done)) / 2


def labelled_fraction(images: Tensor, batch: Batch) -> Tensor:
    """The labelled pictures' share of a batch, that of all processes; images are this one's."""
    count = len(images) if batch.labelled is None else int(batch.labelled.sum())
    return distributed.total(torch.tensor(float(count), device=images.device)) / (batch.whole or len(images))


def nothing(method: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """A method's terms where nothing is labelled: 0, with gradients of 0, which other processes wait for."""
    zero = sum((parameter.sum() * 0 for parameter in method.parameters()), torch.zeros((), device=device))
    return dict.fromkeys(method.TERMS, zero)


def edges_of(head: Detect, maps: list[Tensor]) -> list[Tensor] | None:
    """The edges' logits of raw maps, (B, 3, h, w, 4) a level; None without quads."""
    return None if head.quad is None else [raw[..., head.outputs :] for raw in maps]


def shrink(images: Tensor, fraction: float) -> Tensor:
    """(B, 3, H, W) -> (B, 3, share H, share W): each pixel the mean of those that it replaces."""
    if fraction == 1:
        return images
    height, width = images.shape[2:]
    return F.interpolate(images, size=(round(height * fraction), round(width * fraction)), mode='area')
