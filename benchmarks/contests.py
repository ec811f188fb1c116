"""What run.py times: each contestant in a process of its own, set up once, then asked for one round after the other.

A contestant is a class with a round() that does a fixed amount of work, after which the device is idle again.
"""

import contextlib
import io
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch
import torchvision  # noqa: F401  part of every contestant's memory alike
from torch import nn
from torch.utils.data import DataLoader

from benchmarks import plain
from models.checkpoint import load_model
from models.layers import BN_MOMENTUM
from models.yamls import read_yaml
from models.yolo import DetectionModel
from utils.detection.detector import Detector
from utils.distillation.distiller import Distiller, DistillerSettings, freeze_teacher
from utils.distillation.recipe import parse_recipe
from utils.evaluation.evaluate import evaluate, to_network
from utils.evaluation.split import EvaluationSplit
from utils.loading.batches import collate
from utils.loading.config import load_data_config
from utils.loading.dataset import TextDataset
from utils.loading.listing import list_images
from utils.loading.loader import build_loader
from utils.runtime.device import find_device, has_bfloat16, keep_freed_memory, select_device
from utils.runtime.hyp import load_hyp
from utils.training.criterion import DetectionCriterion
from utils.training.loop import Trainer
from utils.training.optimizer import norms
from utils.training.state import Progress

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {'x': 'recipes/xn_maskdiff_PFI.yaml', 'l': 'recipes/ln_4maskdiff.yaml'}
CONFIDENCE = 0.25
ENDLESS = 10_000  # epochs: the schedule does not matter here


@dataclass(frozen=True)
class Settings:
    """What all contestants of a run share.

    Attributes:
        data: data yaml, with train and test pictures.
        weights: YOLOv5-N checkpoint for validation and detection.
        device: as of --device.
        imgsz: pixels.
        batch: pictures a training step.
        steps: training steps a round.
        workers: loading processes.
    """

    data: str
    weights: str
    device: str
    imgsz: int
    batch: int
    steps: int
    workers: int

    @property
    def hyp(self) -> dict:
        return load_hyp(ROOT / 'data/hyps/text.yaml')


class Batches:
    """Loaded beforehand: steps are timed without loading. Has what the trainer asks of a loader."""

    def __init__(self, settings: Settings):
        data = load_data_config(settings.data)
        dataset = TextDataset(data, 'train', settings.imgsz, settings.hyp, augment=True)
        samples = [dataset[0, i % len(dataset)] for i in range(settings.batch * settings.steps)]
        self.batches = [collate(samples[i :: settings.steps]) for i in range(settings.steps)]
        if torch.cuda.is_available():  # as the loader does
            self.batches = [batch._replace(images=batch.images.pin_memory()) for batch in self.batches]
        self.batch_sampler = SimpleNamespace(epoch=0, start=0, size=lambda _: settings.batch)

    def __iter__(self):
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def close(self) -> None:
        """Nothing to end."""


def pins(settings: Settings) -> bool:
    """Whether batches go to a GPU."""
    return find_device(settings.device).type == 'cuda'


def limited_loader(settings: Settings):
    """The product's loader of augmented pictures from memory, for as many batches as a round has."""
    dataset = TextDataset(
        load_data_config(settings.data), 'train', settings.imgsz, settings.hyp, augment=True, cache=True
    )
    loader = build_loader(dataset, settings.batch, settings.workers, shuffle=True, pin=pins(settings))
    loader.batch_sampler.n = settings.batch * settings.steps
    return loader


def new_model(size: str, device: torch.device) -> DetectionModel:
    """Random weights, the same every time, and running statistics that keep the scale of activations."""
    torch.manual_seed(0)
    model = DetectionModel(ROOT / f'models/yolov5{size}.yaml', nc=1)
    for norm in norms(model):
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.rand(2, 3, 128, 128))
    for norm in norms(model):
        norm.momentum = BN_MOMENTUM
    return model.to(device)


def recipe_of(teacher: str):
    return parse_recipe(read_yaml(ROOT / RECIPES[teacher]), RECIPES[teacher])


def plain_device(spec: str, keep_memory: bool = False) -> torch.device:
    """The device without what select_device() sets up besides; keep_memory: but with the allocator's setting."""
    if keep_memory:
        keep_freed_memory()
    return find_device(spec)


class Training:
    """The product's training step, run by its own trainer.

    Args:
        student: size.
        teacher: size, or '' for plain training.
        amp: bfloat16 where the device has it.
        loading: with the product's loader at work, instead of batches loaded beforehand.
    """

    def __init__(
        self, settings: Settings, student: str = 'n', teacher: str = '', amp: bool = True, loading: bool = False
    ):
        self.device = select_device(settings.device)
        self.batches = limited_loader(settings) if loading else Batches(settings)
        model = new_model(student, self.device).to(memory_format=torch.channels_last)
        hyp = settings.hyp
        if teacher:
            frozen = freeze_teacher(new_model(teacher, self.device).to(memory_format=torch.channels_last))
            self.criterion = Distiller(model, frozen, recipe_of(teacher), DistillerSettings(hyp, settings.imgsz, amp))
        else:
            self.criterion = DetectionCriterion(model, hyp, settings.imgsz, amp)
        options = {'epochs': ENDLESS, 'batch_size': settings.batch, 'nominal_batch': settings.batch}
        options |= {'optimizer': 'SGD', 'freeze': 0, 'cos_lr': False, 'noval': True, 'patience': 0}
        options |= {'skip_nonfinite': 0, 'save_every': math.inf, 'imgsz': settings.imgsz}
        self.folder = tempfile.TemporaryDirectory()
        loaders = (self.batches, self.batches)
        self.trainer = Trainer(model, self.criterion, loaders, options, hyp, Path(self.folder.name))
        self.epoch = 0

    def round(self) -> dict:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            self.trainer.state.progress = Progress(self.epoch)
            means = self.trainer._train_epoch(self.epoch)
        self.epoch += 1
        return {name[6:]: value for name, value in means.items() if name.startswith('train/')}


class PlainTraining:
    """The same step, plainly. The weights of student, teacher and adapters are those of `Training`."""

    def __init__(self, settings: Settings, student: str = 'n', teacher: str = '', keep_memory: bool = False):
        device = plain_device(settings.device, keep_memory)
        self.batches = Batches(settings)
        model, adapters, weights, frozen = new_model(student, device), {}, {}, None
        if teacher:
            frozen = new_model(teacher, device)
            recipe = recipe_of(teacher)
            generator = torch.Generator().manual_seed(0)
            for name, use in recipe.methods.items():
                method = use.method(model, frozen, use.layers, generator, use.options, use.teacher_layers)
                built: dict[str, nn.Conv2d] = method.adapters
                adapters[name] = {int(layer): conv.to(device) for layer, conv in built.items()}
                weights |= dict.fromkeys(use.weights, 0.0) | use.weights
        self.training = plain.PlainTraining(
            model, frozen, adapters, weights, settings.hyp, settings.imgsz, settings.batch
        )

    def round(self) -> dict:
        found = [self.training.step(batch) for batch in self.batches]
        return {name: float(np.mean([terms[name] for terms in found])) for name in found[0]}


class Teacher:
    """The forward pass of the product's teacher alone: fused, channels last, in its best precision, no features."""

    def __init__(self, settings: Settings, teacher: str):
        self.device = select_device(settings.device)
        self.model = freeze_teacher(new_model(teacher, self.device).to(memory_format=torch.channels_last))
        if has_bfloat16(self.device):
            self.model.to_bfloat16()
        self.images = [batch.images for batch in Batches(settings)]

    @torch.no_grad()
    def round(self) -> dict:
        for images in self.images:
            self.model(to_network(images, self.device, amp=True))
        return {}


class Loading:
    """Augmented mosaics by the product's loader, pictures decoded once."""

    def __init__(self, settings: Settings, cache: bool = True, workers: int | None = None):
        select_device(settings.device)  # as every command does first
        data = load_data_config(settings.data)
        with contextlib.redirect_stdout(io.StringIO()):
            dataset = TextDataset(data, 'train', settings.imgsz, settings.hyp, augment=True, cache=cache)
        workers = settings.workers if workers is None else workers
        self.loader = build_loader(dataset, 16, workers, shuffle=True, pin=pins(settings))
        self.epoch = 0

    def round(self) -> dict:
        self.loader.batch_sampler.epoch = self.epoch
        self.epoch += 1
        return {'pictures': sum(len(batch.images) for batch in self.loader)}


def one_thread(_worker: int) -> None:
    cv2.setNumThreads(0)


class PlainLoading:
    """The same mosaics, plainly."""

    def __init__(self, settings: Settings, workers: int | None = None):
        dataset = TextDataset(load_data_config(settings.data), 'train', settings.imgsz)
        images = plain.PlainPictures(dataset.files, dataset.labels, settings.imgsz, settings.hyp)
        workers = settings.workers if workers is None else workers
        self.loader = DataLoader(
            images,
            16,
            shuffle=True,
            num_workers=workers,
            collate_fn=plain.stack,
            persistent_workers=workers > 0,
            worker_init_fn=one_thread,
        )

    def round(self) -> dict:
        return {'pictures': sum(len(images) for images, _ in self.loader)}


class Validation:
    """All stages from files to mAP and hmean, as val.py has them.

    Args:
        amp: bfloat16, as in training and with --bfloat16.
    """

    def __init__(self, settings: Settings, amp: bool):
        self.device, self.amp = select_device(settings.device), amp
        self.model = load_model(settings.weights, self.device)
        data = load_data_config(settings.data)
        self.split = EvaluationSplit(data, 'test', settings.imgsz)
        self.loader = self.split.loader(settings.workers, pin=pins(settings))  # kept, so that its processes start once

    def round(self) -> dict:
        with contextlib.redirect_stderr(io.StringIO()):
            found = evaluate(self.model, self.loader, self.device, amp=self.amp)
        hmean = found.icdar().at(CONFIDENCE)['icdar_hmean'] if found.truths is not None else None
        return {'pictures': len(self.split), 'map50': found.scores['map50'], 'hmean': hmean}


class PlainValidation:
    """The same, plainly."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.model = plain.plain_model(settings.weights, plain_device(settings.device))
        self.dataset = TextDataset(load_data_config(settings.data), 'test', settings.imgsz)

    def round(self) -> dict:
        s = self.settings
        map50, hmean = plain.plain_validate(self.model, self.dataset, s.imgsz, 32, s.workers)
        return {'pictures': len(self.dataset), 'map50': map50, 'hmean': hmean}


def test_images(settings: Settings, count: int = 16) -> list[np.ndarray]:
    """(H, W, 3) BGR."""
    return [cv2.imread(str(file)) for file in list_images(load_data_config(settings.data), 'test')[:count]]


class Detection:
    """Boxes of decoded pictures, one by one, as detect.py finds them."""

    def __init__(self, settings: Settings):
        self.images = [cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in test_images(settings)]
        self.detector = Detector(
            settings.weights, device=settings.device, imgsz=settings.imgsz, conf_thres=CONFIDENCE, max_det=300
        )

    def round(self) -> dict:
        return {'pictures': len(self.images), 'boxes': sum(len(self.detector(image)) for image in self.images)}


class PlainDetection:
    """The same, plainly."""

    def __init__(self, settings: Settings, keep_memory: bool = False):
        self.images, self.imgsz = test_images(settings), settings.imgsz
        self.model = plain.plain_model(settings.weights, plain_device(settings.device, keep_memory))

    def round(self) -> dict:
        found = sum(len(plain.plain_detect(self.model, image, self.imgsz)) for image in self.images)
        return {'pictures': len(self.images), 'boxes': found}


CONTESTANTS = {
    contestant.__name__: contestant
    for contestant in (
        *(Training, PlainTraining, Teacher, Loading, PlainLoading),
        *(Validation, PlainValidation, Detection, PlainDetection),
    )
}
