"""What training minimises. The trainer knows only this interface; distillation extends it."""

import torch
from torch import Tensor, nn

from models.yolo import DetectionModel
from utils.loading.batches import Batch
from utils.runtime import distributed
from utils.runtime.device import autocast
from utils.training.loss import DetectionLoss, scaled_gains

WAIT = 50  # first batches, in which automatic weights wait for a gradient


class DetectionCriterion(nn.Module):
    """YOLOv5's detection loss: {'box', 'obj', 'cls'}, with quads also {'edge', 'quad'}.

    Args:
        model: the model to train; gives anchors and classes.
        hyp: hyperparameters, with the gains of the terms.
        imgsz: training size in pixels (scales the objectness gain).
        amp: run the network in bfloat16 where the device has it.
    """

    def __init__(self, model: DetectionModel, hyp: dict, imgsz: int, amp: bool = True):
        super().__init__()
        self.loss = DetectionLoss(model, hyp)
        self.gains = scaled_gains(hyp, model.nc, imgsz, quads=model.quads)
        self.quad_warmup = hyp['quad_warmup']
        self.amp = amp

    def forward(self, model: DetectionModel, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Unweighted float32 terms, means over the batch; images (B, 3, H, W) 0..1 on the model's device.

        Where several processes share a batch, this process's part of them.
        """
        with autocast(images.device, self.amp):
            maps = model(images)
        return self.loss(maps, batch.targets, batch.ignore, distributed.total, batch.edges)

    @property
    def waiting(self) -> bool:
        """Whether prepare wants another batch."""
        return False

    def prepare(self, model: DetectionModel, images: Tensor, batch: Batch, first: bool = False) -> None:
        """Called with the first batch before the first step, and with up to WAIT in all as long as `waiting`.

        Must leave the model as it is. `first`: whether it is the first batch of all.
        """

    def weights(self, epoch: float) -> dict[str, float]:
        """The weight of every term at a time, in epochs."""
        return self.detection_weights(epoch)

    def detection_weights(self, epoch: float) -> dict[str, float]:
        """The detection loss's: its gains, that of quads growing from 0 over the first epochs. The IoU of quads says
        little before the edges have learnt something."""
        grown = min(epoch / self.quad_warmup, 1.0) if self.quad_warmup else 1.0
        return {name: gain * grown if name == 'quad' else gain for name, gain in self.gains.items()}


def weighted_sum(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """sum of weight * term over all terms; a term without a weight is an error."""
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
