"""The dataset: the images of one split as network inputs."""

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from models.errors import UserError
from ocrdistill.letterbox import Letterbox
from utils.loading import augment
from utils.loading.augment import MIN_SIDE, Example
from utils.loading.batches import Sample
from utils.loading.cache import ImageCache
from utils.loading.config import DataConfig
from utils.loading.degrade import degraded
from utils.loading.images import load_image
from utils.loading.labels import Annotations, companion_file
from utils.loading.listing import length, list_split, new_images, twins
from utils.loading.paste import paste_words
from utils.loading.scan import describe, examine, map_threaded, measure
from utils.runtime.hyp import check_hyp
from utils.runtime.words import counted

STRIDE = 32  # the network's largest: sides of its input are multiples of it


class TextDataset(Dataset):
    """The pictures of one split, as network inputs.

    `dataset[epoch, index]` is a pure function of (seed, epoch, index). A picture without a label file is background.
    Targets that augmentation cuts or shrinks too much become don't-care regions, whatever `dont_care` says.
    Unlabelled pictures come after the others; a mosaic is of one kind.

    Args:
        data: the data yaml's content.
        split: 'train', 'val' or 'test'.
        imgsz: longer side of the pictures in pixels, a multiple of 32.
        hyp: hyperparameters of the augmentation; missing ones take their defaults.
        augment: mosaic, projection, colours, flips, mixup; False: letterbox only.
        seed: of the augmentation, not negative.
        rect: sort the pictures by aspect ratio, and give each `batch_size` in a row the least padding; no mosaic.
        batch_size: of the loader; with rect only.
        pad: with rect, extra border as a share of 32 pixels.
        cache: hold all resized pictures in memory that worker processes share.
        unlabelled: a folder or a list file of more pictures, of which nothing is known; label files are not read.
        crop: with augment, side in pixels of the squares that are cut from the pictures and given out, a multiple of
            32. Pictures are then held at imgsz at most; smaller ones are not enlarged.
        shown: the longer side at which hyp is for them; None: imgsz. Pictures, words and squares are imgsz / shown
            times larger than those of a data set of this imgsz, and otherwise the same.

    Attributes:
        files: n pictures (Path).
        sizes: (n, 2) int original (width, height).
        annotations: n Annotations (0..1), don't-care regions included.
        labels: n arrays (m, 5) float32 of targets: class, x, y, w, h (0..1).
        summary: what was found, and what was skipped and why.
        maps: a data set whose images become the samples' maps (utils.loading.maps); None, as at first: there are none.

    Raises:
        UserError: no usable picture, no label file at all, labels outside 0..1 or of unknown classes, bad arguments.
    """

    def __init__(
        self,
        data: DataConfig,
        split: str,
        imgsz: int,
        hyp: dict | None = None,
        *,
        augment: bool = False,
        seed: int = 0,
        rect: bool = False,
        batch_size: int = 16,
        pad: float = 0.0,
        cache: bool = False,
        unlabelled: Path | str | None = None,
        crop: int | None = None,
        shown: int | None = None,
    ):
        if imgsz < STRIDE or imgsz % STRIDE:
            raise UserError(f'the image size is {imgsz}, expected a multiple of {STRIDE}')
        if seed < 0:
            raise UserError(f'the seed is {seed}, expected 0 or more')
        if crop is not None and (not augment or rect or crop < STRIDE or crop % STRIDE):
            raise UserError(f'crops are {crop} pixels, expected a multiple of {STRIDE}, in training')
        if rect and unlabelled:
            raise UserError('pictures without labels are for training, and rect for evaluation')
        self.imgsz, self.augment, self.seed, self.rect, self.crop = imgsz, augment, seed, rect, crop
        self.shown = shown or imgsz
        self.min_side = MIN_SIDE * imgsz / self.shown
        self.hyp = check_hyp(hyp or {})
        if augment and crop is None and self.hyp['paste']:
            raise UserError('paste of --hyp, which pastes words, is for training with --crop')
        self._scan(data, split)
        self.labelled = len(self.files)
        if unlabelled:
            self._add_unlabelled(Path(unlabelled), data)
        if rect:
            self._sort_by_aspect()
        self.labels = self._rows()
        self.maps: TextDataset | None = None
        self._input_shapes = self._plan_shapes(batch_size, pad) if rect else None
        self._cache = None
        if cache:
            sizes = np.array([self._held_shape(index) for index in range(len(self))])
            self._cache = ImageCache.filled(sizes, self._read, split)

    def _scan(self, data: DataConfig, split: str) -> None:
        """Read the sizes and labels of all pictures; sets files, sizes, annotations and summary."""
        listing = list_split(data, split)
        images = listing.images
        found = map_threaded(lambda file: examine(file, data.nc, data.dont_care), images, f'reading {split}')
        usable = [(file, scanned) for file, scanned in zip(images, found, strict=True) if not scanned.problem]
        problems = [scanned.problem for scanned in found if scanned.problem]
        if not usable:
            count = counted(len(images), 'picture')
            raise UserError(f'{data.file}: none of the {count} of {split!r} is usable: {problems[0]}')
        if not any(scanned.labelled for scanned in found):
            place = companion_file(usable[0][0], 'labels')
            raise UserError(f'{data.file}: no picture of {split!r} has a label file (the first would be {place})')
        self.files = [file for file, _ in usable]
        self.sizes = np.array([scanned.size for _, scanned in usable])
        weights = listing.edge_weights
        self.annotations = [scanned.annotations.weighted(weights.get(file, 1.0)) for file, scanned in usable]
        marks = np.concatenate([a.dont_care for a in self.annotations])
        unlabelled = sum(not scanned.labelled for _, scanned in usable)
        unread = counted(marks.sum(), "don't-care region")
        counts = (
            f'{split}: {counted(len(self.files), "picture")}, {counted((~marks).sum(), "target")}, '
            f'{unread}, {counted(unlabelled, "picture")} without a label file (background)'
        )
        labelled = [file for file, scanned in usable if scanned.labelled]
        notes = filter(None, [listing.taken, twins(labelled), listing.left_out()])
        self.summary = '\n'.join([counts, *describe(found), *notes])
        if split == 'train' and marks.all():
            print(self.summary)
            raise UserError(f'{data.file}: there is nothing to train on, {split!r} has 0 targets')

    def _add_unlabelled(self, place: Path, data: DataConfig) -> None:
        """Append pictures without annotations that are in no split of the data. Raises UserError if there are none."""
        images, listing = new_images(place, data)
        left_out = len(listing.images) - len(images)
        found = map_threaded(measure, images, 'reading unlabelled pictures')
        usable = [(file, scanned.size) for file, scanned in zip(images, found, strict=True) if scanned.size]
        if not usable:
            problem = found[0].problem
            raise UserError(f'unlabelled pictures: none of the {len(images)} of {place} is usable: {problem}')
        self.files += [file for file, _ in usable]
        self.sizes = np.concatenate((self.sizes, np.array([size for _, size in usable])))
        self.annotations += [Annotations.build([], [])] * len(usable)
        kept_out = f'; {left_out} more are left out, as they are in a split of the data' if left_out else ''
        lines = [
            f'unlabelled: {counted(len(usable), "picture")}{kept_out}',
            *describe(found),
            *filter(None, [listing.left_out()]),
        ]
        self.summary += '\n' + '\n'.join(lines)

    def _rows(self) -> list[np.ndarray]:
        return [a[~a.dont_care].rows(1, 1) for a in self.annotations]

    def learn_quads(self) -> None:
        """For a network that predicts quads: a word with other than four corners is taught as the smallest rectangle
        around it, box and all; without edges where that rectangle leaves the picture."""
        for index, annotations in enumerate(self.annotations):
            self.annotations[index] = annotations.as_quads(*self.sizes[index].tolist())
        self.labels = self._rows()

    def fingerprint(self) -> str:
        """A digest of the pictures' names, sizes in pixels and in bytes, and annotations, in their order."""
        digest = hashlib.sha256(np.ascontiguousarray(self.sizes).tobytes())
        for file, annotations in zip(self.files, self.annotations, strict=True):
            digest.update(os.fsencode(file.name) + b' %d' % length(file))
            for part in (annotations.classes, annotations.polygons, annotations.dont_care, annotations.edge_weight):
                digest.update(np.ascontiguousarray(part).tobytes())
        return f'2:{digest.hexdigest()}'  # earlier versions, of another content, had no number

    def _sort_by_aspect(self) -> None:
        order = np.argsort(self.sizes[:, 1] / self.sizes[:, 0], kind='stable')
        self.sizes = self.sizes[order]
        self.files = [self.files[i] for i in order]
        self.annotations = [self.annotations[i] for i in order]

    def _plan_shapes(self, batch_size: int, pad: float) -> np.ndarray:
        """(n, 2) (width, height) of each picture's network input: what its batch needs, and a little border."""
        needed = np.array([augment.resized_shape(w, h, self.imgsz) for w, h in self.sizes.tolist()])
        for start in range(0, len(needed), batch_size):
            largest = needed[start : start + batch_size].max(0)
            needed[start : start + batch_size] = np.ceil(largest / STRIDE + pad).astype(int) * STRIDE
        return needed

    def _held_side(self, index: int) -> int:
        """Pixels of the longer side at which a picture is held: imgsz, for crops no more than it has."""
        return min(self.imgsz, int(self.sizes[index].max())) if self.crop else self.imgsz

    def shown_sides(self) -> list[float]:
        """Longer side in pixels of each picture as the student sees it, before augmentation."""
        return [min(self.shown, int(size.max())) if self.crop else self.shown for size in self.sizes]

    def _held_shape(self, index: int) -> tuple[int, int]:
        """(width, height) at which a picture is held."""
        width, height = self.sizes[index].tolist()
        return augment.resized_shape(width, height, self._held_side(index))

    def _read(self, index: int) -> np.ndarray:
        """A picture from its file, (h, w, 3) RGB, at the size at which it is held."""
        image = load_image(self.files[index])
        if image.shape[1::-1] != tuple(self.sizes[index]):
            raise UserError(f'{self.files[index]}: the picture has changed since it was first read')
        return augment.resize_long_side(image, self._held_side(index))

    def example(self, index: int) -> Example:
        """A resized picture (h, w, 3), not to be written to, and its annotations in pixels of it."""
        image = self._read(index) if self._cache is None else self._cache[index]
        height, width = image.shape[:2]
        return image, self.annotations[index].scaled(width, height)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of (epoch, index)."""
        epoch, index = key
        width, height = self.sizes[index].tolist()
        if self.augment:
            image, annotations = self._augmented(np.random.default_rng((self.seed, epoch, index)), index)
            letterbox = Letterbox(1.0, 1.0, 0.0, 0.0)
        else:
            (image, annotations), letterbox = self._letterboxed(index)
        planes = np.empty((3, *image.shape[:2]), np.uint8)
        cv2.split(image, list(planes))
        path, labelled = str(self.files[index]), index < self.labelled
        maps = None if self.maps is None else self.maps[key].image
        return Sample(torch.from_numpy(planes), annotations, path, (height, width), letterbox, labelled, maps)

    def _input_size(self, index: int) -> tuple[int, int]:
        """(width, height) of a picture's network input."""
        return (self.imgsz, self.imgsz) if self._input_shapes is None else tuple(self._input_shapes[index].tolist())

    def _letterboxed(self, index: int) -> tuple[Example, Letterbox]:
        image, annotations = self.example(index)
        (height, width), (original_width, original_height) = image.shape[:2], self.sizes[index].tolist()
        input_width, input_height = self._input_size(index)
        padded, left, top = augment.pad_to(image, input_height, input_width)
        letterbox = Letterbox(width / original_width, height / original_height, float(left), float(top))
        return (padded, annotations.scaled(1, 1, left, top)), letterbox

    def _augmented(self, rng: np.random.Generator, index: int) -> Example:
        hyp = self.hyp
        example = self._composed(rng, index)
        if not self.rect and rng.random() < hyp['mixup']:
            example = augment.blend(rng, example, self._composed(rng, int(self._others(rng, index, 1)[0])))
        image = augment.jitter_hsv(rng, example[0], hyp['hsv_h'], hyp['hsv_s'], hyp['hsv_v'])
        example = augment.random_flips(rng, (image, example[1]), hyp['flipud'], hyp['fliplr'])
        image, annotations = example if self.rect else augment.random_turn(rng, example, hyp['turn'])
        return degraded(rng, image, hyp), annotations  # last: what it draws moves nothing else

    def _others(self, rng: np.random.Generator, index: int, count: int) -> list[int]:
        """Pictures of the same kind, labelled or not, to compose with."""
        low, high = (0, self.labelled) if index < self.labelled else (self.labelled, len(self))
        return rng.integers(low, high, size=count).tolist()

    def _composed(self, rng: np.random.Generator, index: int) -> Example:
        """A crop; or a mosaic, or the letterboxed picture alone, through one random projection."""
        if self.crop:
            return self._cropped(rng, index)
        if not self.rect and rng.random() < self.hyp['mosaic']:
            images = (index, *self._others(rng, index, 3))
            example = augment.compose_mosaic(rng, [self.example(i) for i in images], self.imgsz)
        else:
            example, _ = self._letterboxed(index)
        source, target = example[0].shape[1::-1], self._input_size(index)
        matrix = augment.random_projection(rng, self.hyp, source, target, self.imgsz / self.shown)
        return augment.project(example, matrix, target, min_side=self.min_side)

    def _cropped(self, rng: np.random.Generator, index: int) -> Example:
        """A crop of the picture, or a mosaic of four crops of its size."""
        whole = rng.random() >= self.hyp['mosaic']
        images = (index,) if whole else (index, *self._others(rng, index, 3))
        crops = [self._crop(rng, i) for i in images]
        if whole:
            return self._pasted(rng, index, crops[0])
        image, annotations = augment.compose_mosaic(rng, crops, self.crop // 2)
        return image, annotations.demoted(self.min_side, augment.WHOLE)

    def _crop(self, rng: np.random.Generator, index: int) -> Example:
        own, held = int(self.sizes[index].max()), self._held_side(index)
        usual = min(self.shown, own)  # what _held_side is for a data set of that imgsz
        larger = (held / usual, self.imgsz / self.shown)
        return augment.random_crop(rng, self.hyp, self.example(index), self.crop, self.shown / usual, larger)

    def _pasted(self, rng: np.random.Generator, index: int, crop: Example) -> Example:
        """The crop, with the probability of hyp's `paste` with words of another picture in it."""
        if not self.hyp['paste'] or rng.random() >= self.hyp['paste']:
            return crop
        other = self._others(rng, index, 1)[0]
        return paste_words(rng, crop, self._crop(rng, other))
