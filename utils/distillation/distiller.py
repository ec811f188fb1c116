"""The criterion of distillation: the detection loss and the terms of the recipe's methods."""

from types import MethodType

import torch
from torch import Tensor, nn

from models.yolo import DetectionModel
from utils.criterion import DetectionCriterion
from utils.dataset import Batch
from utils.device import autocast, has_bfloat16
from utils.distillation.base import Signals
from utils.distillation.recipe import Recipe


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
    ):
        super().__init__(student, hyp, imgsz, amp)
        device = next(student.parameters()).device
        generator = torch.Generator().manual_seed(seed)
        self.methods = nn.ModuleDict(
            {name: use.method(student, teacher, use.layers, generator) for name, use in recipe.methods.items()}
        ).to(device, memory_format=torch.channels_last)
        self.kd_weights = {term: w for use in recipe.methods.values() for term, w in use.weights.items()}
        clash = self.kd_weights.keys() & self.gains.keys()
        if clash:
            raise ValueError(f'terms of methods must not be named as the detection loss: {sorted(clash)}')
        self.warmup_epochs = recipe.warmup_epochs
        self.taps = sorted({layer for use in recipe.methods.values() for layer in use.layers})
        if amp and has_bfloat16(device):
            # Its weights never change: cast once, not in every step. The head's anchors are not used here.
            teacher.to(torch.bfloat16)
        self._teacher = (teacher,)  # a tuple hides it from nn.Module
        self.teacher_dtype = next(teacher.parameters()).dtype

    @property
    def teacher(self) -> DetectionModel:
        return self._teacher[0]

    def forward(self, model: DetectionModel, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            (_, teacher_maps), teacher_features = self.teacher(images.to(self.teacher_dtype), self.taps)
        with autocast(images.device, self.amp):
            maps, features = model(images, self.taps)
        signals = Signals(
            size=tuple(images.shape[2:]),
            targets=batch.targets,
            ignore=batch.ignore,
            student_maps=maps,
            teacher_maps=teacher_maps,
            student_features=features,
            teacher_features=teacher_features,
        )
        terms = self.loss(maps, batch.targets, batch.ignore)
        for method in self.methods.values():
            with autocast(images.device, self.amp):
                terms |= method(signals)
        return terms

    def weights(self, epoch: float) -> dict[str, float]:
        """Detection gains, and distillation weights that grow from 0 over the warm-up."""
        share = min(epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0
        return self.gains | {name: weight * share for name, weight in self.kd_weights.items()}
