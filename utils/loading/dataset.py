"""Pictures and their labels: the data yaml, the dataset, batches and the loader that makes them."""

import contextlib
import hashlib
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from tqdm import tqdm

from models.errors import UserError
from utils.boxes import Letterbox
from utils.detection.sources import Unreadable, read_image, unfit
from utils.loading import augment
from utils.loading.augment import Example
from utils.loading.labels import Annotations, companion_file, read_labels
from utils.runtime import distributed
from utils.runtime.distributed import RUNS_AT_ONCE
from utils.runtime.hyp import check_hyp, check_keys, read_yaml
from utils.runtime.interrupt import STOPPING

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = {'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'}
SPLITS = ('train', 'val', 'test')
KEYS = ('path', *SPLITS, 'names', 'nc', 'dont_care', 'prepare')
DONT_CARE = ('ignore', 'text')
FILE_ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xae\x42\x60\x82'}  # what a complete file ends with
JPEG_START = b'\xff\xd8'
EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
NAMED = 5  # skipped files and rows that a summary names
MEMORY_FRACTION = 0.5  # of the free memory that a cache may take
THREADS = min(8, os.cpu_count() or 1)
# Loading processes are the trainer's own children, whatever Python's default: so they see it die, and end. Those of a
# server of processes (forkserver) would wait for ever after a kill -9.
FORK = 'fork' if sys.platform == 'linux' else None


@dataclass(frozen=True)
class DataConfig:
    """A data yaml: where the pictures of each split are, and what their classes are called.

    Attributes:
        path: the folder that the splits are relative to.
        splits: split name -> a folder of pictures, a list file (*.txt), or a list of these.
        names: class number -> name, 0 to nc - 1.
        nc: number of classes.
        dont_care: 'ignore' (regions in ignore/ are neither targets nor background) or 'text' (they are targets).
        prepare: the command that makes the data, '' if none was given.
        file: the yaml.
    """

    path: Path
    splits: dict[str, str | list[str]]
    names: dict[int, str]
    nc: int
    dont_care: str
    prepare: str
    file: Path

    @property
    def selected_on_test(self) -> bool:
        """Whether val, which chooses epoch and threshold, is the test split, so that its figures are too good."""
        return self.splits['val'] == self.splits.get('test')


def load_data_config(file: Path | str) -> DataConfig:
    """Read a data yaml. The data itself may be missing still: listing its pictures is what asks for it.

    Raises:
        UserError: no such file, not yaml, an unknown or missing key, a value of the wrong form.
    """
    file = Path(file)
    values = read_yaml(file)
    check_keys(values, KEYS, file)
    for key in ('path', 'train', 'val', 'names'):
        if values.get(key) in (None, '', []):
            raise UserError(f'{file}: the key {key!r} is missing or empty')
    splits = {split: values[split] for split in SPLITS if values.get(split) is not None}
    for split, entry in splits.items():
        if not all(isinstance(item, str) for item in _listed(entry)):
            raise UserError(f'{file}: {split} is {entry!r}, expected a folder, a list file, or a list of these')
    names = _read_names(values['names'], file)
    if values.get('nc', len(names)) != len(names):
        raise UserError(f'{file}: nc is {values["nc"]}, but names has {len(names)} classes')
    dont_care = values.get('dont_care', DONT_CARE[0])
    if dont_care not in DONT_CARE:
        raise UserError(f'{file}: dont_care is {dont_care!r}, expected one of {", ".join(DONT_CARE)}')
    places = [place for entry in splits.values() for place in _listed(entry)]
    try:
        folder = Path(str(values['path'])).expanduser()
        here, in_root = ([(base / place).exists() for place in places] for base in (folder, ROOT / folder))
    except (OSError, RuntimeError, ValueError) as error:  # a name too long for a file system, no such user
        raise UserError(f'{file}: path, train, val and test must name places ({error})') from None
    if not any(here) and (any(in_root) or not folder.exists()):  # ROOT / folder is folder where that is absolute
        folder = ROOT / folder
    return DataConfig(folder, splits, names, len(names), dont_care, str(values.get('prepare') or ''), file)


def _listed(entry) -> list:
    return entry if isinstance(entry, list) else [entry]


def _read_names(names, file: Path) -> dict[int, str]:
    """Class names from a list, or from a mapping with the keys 0 to n - 1."""
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(key, int) for key in names):
        raise UserError(f'{file}: names is {names!r}, expected a list, or rows of the form "0: text"')
    if sorted(names) != list(range(len(names))):
        raise UserError(f'{file}: the class numbers in names are {sorted(names)}, expected 0 to {len(names) - 1}')
    return {number: str(names[number]) for number in sorted(names)}


def list_images(data: DataConfig, split: str) -> list[Path]:
    """The pictures of a split, each once: those of a folder sorted, those of a list file in its order.

    Files that a list names are not looked for here.

    Raises:
        UserError: the yaml lacks the split, or there is no such folder or list file, or no picture in it.
    """
    if split not in data.splits:
        raise UserError(f'{data.file}: there is no split {split!r} (there are: {", ".join(data.splits)})')
    hint = f'; prepare the data with: {data.prepare}' if data.prepare else ''
    if not data.path.is_dir():
        raise UserError(f'{data.file}: the data folder {data.path} does not exist{hint}')
    entry = data.splits[split]
    images = {}
    for source in _listed(entry):
        place = data.path / source
        found = _images_at(place)
        if found is None:
            raise UserError(f'{data.file}: {split} names {place}, which is neither a folder nor a list file{hint}')
        if not found:
            raise UserError(f'{data.file}: there are no pictures of the split {split!r} in {place}{hint}')
        images.update(dict.fromkeys(found))
    return list(images)


def shared_images(data: DataConfig) -> dict[str, int]:
    """{split: pictures of it that are trained on too}, of the splits where there are any."""
    trained_on = _real_files(data, 'train')
    shared = {split: len(trained_on & _real_files(data, split)) for split in data.splits if split != 'train'}
    return {split: count for split, count in shared.items() if count}


def _real_files(data: DataConfig, split: str) -> set[Path]:
    """The files behind a split's pictures, whatever links lead to them; none where it cannot be listed."""
    with contextlib.suppress(UserError):
        return {_real(file) for file in list_images(data, split)}
    return set()


def _real(file: Path) -> Path:
    """The file behind links; what is none (a loop of links, a name that no file can have) stays as it is."""
    try:
        return file.resolve()
    except (OSError, RuntimeError, ValueError):
        return file


def _images_at(place: Path) -> list[Path] | None:
    """The pictures in a folder or of a list file; None if the place is neither."""
    if place.is_dir():
        return sorted(file for file in place.rglob('*') if file.suffix.lower() in SUFFIXES)
    if place.suffix == '.txt' and place.is_file():
        try:
            rows = map(str.strip, place.read_text('utf-8-sig', errors='replace').splitlines())
        except OSError as error:
            raise UserError(f'{place}: the list cannot be read ({error.strerror})') from None
        return [place.parent / row for row in rows if row]
    return None


def probe_image(file: Path) -> tuple[int, int]:
    """(width, height) of a picture as OpenCV will show it (EXIF orientation applied), mostly without decoding it.

    Raises:
        OSError: the file is missing, is no picture, or is cut short.
        Exception: what else a decoder makes of a broken file.
    """
    if file.exists() and (problem := unfit(file)):
        raise OSError(problem)
    with Image.open(file) as image:
        width, height = image.size
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        with open(file, 'rb') as stream:
            stream.seek(-min(16, os.path.getsize(file)), os.SEEK_END)
            complete = stream.read().endswith(FILE_ENDS.get(image.format, b'none'))
        if not complete:
            image.load()  # decodes all of it, and raises if data is missing
        if orientation != 1 and image.format != 'JPEG':
            height, width = _decode(file).shape[:2]
        elif orientation in SIDEWAYS:
            width, height = height, width
    return width, height


def _decode(file: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, EXIF orientation applied; OSError or Unreadable if the file is missing or no picture."""
    content = np.fromfile(file, np.uint8)
    if content[:2].tobytes() != JPEG_START:
        return read_image(file)  # as detect.py reads it: any depth, and what is transparent is white
    image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    if image is None:
        raise OSError('not a picture that OpenCV can decode')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def load_image(file: Path | str) -> np.ndarray:
    """(H, W, 3) uint8 RGB, EXIF orientation applied.

    Raises:
        UserError: the file is missing or no picture.
    """
    try:
        return _decode(Path(file))
    except (OSError, cv2.error, Unreadable) as error:
        raise UserError(f'{file}: the picture cannot be read ({error})') from None


class Sample(NamedTuple):
    """One picture as the network sees it; its annotations are in pixels of `image`."""

    image: Tensor  # (3, H, W) uint8 RGB
    annotations: Annotations
    path: str
    shape: tuple[int, int]  # original (height, width)
    letterbox: Letterbox
    labelled: bool  # False: nobody has said what is in it


class Batch(NamedTuple):
    """Pictures of one size, and what is in them."""

    images: Tensor  # (B, 3, H, W) uint8 RGB
    targets: Tensor  # (N, 6) float32: image, class, x, y, w, h (0..1 of W, H)
    ignore: Tensor  # (K, 6) float32, the same form: don't-care regions
    polygons: list[np.ndarray]  # N arrays (P, 2) float32 x, y (0..1), aligned with targets
    paths: list[str]
    shapes: list[tuple[int, int]]  # original (height, width)
    letterboxes: list[Letterbox]  # from original to input pixels; meaningless after augmentation
    labelled: Tensor | None = None  # (B,) bool; None: all pictures have labels
    edges: Tensor | None = None  # (N, 5) float32 t, b, l, r (utils.quads) and their weight, aligned with targets
    whole: int | None = None  # pictures of the batch in all processes that share it; None: B


class TextDataset(Dataset):
    """The pictures of one split, as network inputs.

    `dataset[epoch, index]` is a pure function of (seed, epoch, index). A picture without a label file is background.
    Targets that augmentation cuts or shrinks too much become don't-care regions, whatever `dont_care` says.
    Unlabelled pictures come after the others; a mosaic is of one kind.

    Args:
        data: the data yaml's content.
        split: 'train', 'val' or 'test'.
        imgsz: longer side of the pictures in pixels, a multiple of stride.
        hyp: hyperparameters of the augmentation; missing ones take their defaults.
        augment: mosaic, projection, colours, flips, mixup; False: letterbox only.
        seed: of the augmentation, not negative.
        rect: sort the pictures by aspect ratio, and give each `batch_size` in a row the least padding; no mosaic.
        batch_size: of the loader; with rect only.
        stride: of the network; rectangular shapes are multiples of it.
        pad: with rect, extra border as a share of stride.
        cache: hold all resized pictures in memory that worker processes share.
        dont_care: 'ignore' or 'text'; None: what data says.
        unlabelled: a folder or a list file of more pictures, of which nothing is known; label files are not read.
        crop: with augment, side in pixels of the squares that are cut from the pictures and given out, a multiple of
            stride. Pictures are then held at imgsz at most; smaller ones are not enlarged.

    Attributes:
        files: n pictures (Path).
        shapes: (n, 2) int original (width, height).
        annotations: n Annotations (0..1), don't-care regions included.
        labels: n arrays (m, 5) float32 of targets: class, x, y, w, h (0..1).
        summary: what was found, and what was skipped and why.

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
        stride: int = 32,
        pad: float = 0.0,
        cache: bool = False,
        dont_care: str | None = None,
        unlabelled: Path | str | None = None,
        crop: int | None = None,
    ):
        if imgsz < stride or imgsz % stride:
            raise UserError(f'the image size is {imgsz}, expected a multiple of {stride}')
        if seed < 0:
            raise UserError(f'the seed is {seed}, expected 0 or more')
        dont_care = dont_care or data.dont_care
        if dont_care not in DONT_CARE:
            raise UserError(f'dont_care is {dont_care!r}, expected one of {", ".join(DONT_CARE)}')
        if crop is not None and (not augment or rect or crop < stride or crop % stride):
            raise UserError(f'crops are {crop} pixels, expected a multiple of {stride}, in training')
        self.imgsz, self.augment, self.seed, self.rect, self.crop = imgsz, augment, seed, rect, crop
        self.hyp = check_hyp(hyp or {})
        self._scan(data, split, dont_care)
        self.labelled = len(self.files)
        if unlabelled:
            self._add_unlabelled(Path(unlabelled), data)
        if rect:
            self._sort_by_aspect()
        self.labels = [a[~a.dont_care].rows(1, 1) for a in self.annotations]
        self._input_shapes = self._plan_shapes(batch_size, stride, pad) if rect else None
        self._buffer = self._offsets = None
        if cache:
            self._fill_cache(split)

    def _scan(self, data: DataConfig, split: str, dont_care: str) -> None:
        """Read the sizes and labels of all pictures; sets files, shapes, annotations and summary."""
        images = list_images(data, split)

        def examine(file: Path):
            shape, problem = _measure(file)
            if problem:
                return None, None, [problem], 0
            return shape, *_read_annotations(file, data.nc, dont_care)

        found = _map_files(examine, images, f'reading {split}')
        usable = [(file, *rest) for file, rest in zip(images, found, strict=True) if rest[0] is not None]
        broken = [rest[2][0] for rest in found if rest[0] is None]
        bad_rows = [message for _, _, _, skipped, _ in usable for message in skipped]
        if not usable:
            raise UserError(f'{data.file}: none of the {len(images)} pictures of {split!r} is usable: {broken[0]}')
        labelled = sum(row[4] for row in usable)
        if not labelled:
            place = companion_file(usable[0][0], 'labels')
            raise UserError(f'{data.file}: no picture of {split!r} has a label file (the first would be {place})')
        self.files = [row[0] for row in usable]
        self.shapes = np.array([row[1] for row in usable])
        self.annotations = [row[2] for row in usable]
        self.summary = self._summarise(split, len(self.files) - labelled, broken, bad_rows)

    def _add_unlabelled(self, place: Path, data: DataConfig) -> None:
        """Append pictures without annotations that are in no split of the data. Raises UserError if there are none."""
        everything = _images_at(place)
        if not everything:
            raise UserError(f'unlabelled pictures: {place} is no folder or list file of pictures')
        known = set().union(*(_real_files(data, split) for split in data.splits))
        images = [file for file in everything if _real(file) not in known]
        left_out = len(everything) - len(images)
        if not images:
            raise UserError(f'unlabelled pictures: all {left_out} of {place} are in a split of {data.file}')
        found = list(zip(images, _map_files(_measure, images, 'reading unlabelled pictures'), strict=True))
        usable = [(file, shape) for file, (shape, _) in found if shape]
        broken = [problem for _, (_, problem) in found if problem]
        if not usable:
            raise UserError(f'unlabelled pictures: none of the {len(images)} of {place} is usable: {broken[0]}')
        self.files += [file for file, _ in usable]
        self.shapes = np.concatenate((self.shapes, np.array([shape for _, shape in usable])))
        self.annotations += [Annotations.build([], [])] * len(usable)
        kept_out = f'; {left_out} more are left out, as they are in a split of the data' if left_out else ''
        lines = [f'unlabelled: {len(usable)} pictures{kept_out}', *_skipped('pictures', broken)]
        self.summary += '\n' + '\n'.join(lines)

    def _summarise(self, split: str, unlabelled: int, broken: list[str], bad_rows: list[str]) -> str:
        marks = np.concatenate([a.dont_care for a in self.annotations])
        lines = [
            f"{split}: {len(self.files)} pictures, {(~marks).sum()} targets, {marks.sum()} don't-care regions, "
            f'{unlabelled} pictures without a label file (background)'
        ]
        return '\n'.join(lines + _skipped('broken or missing pictures', broken) + _skipped('bad label rows', bad_rows))

    def fingerprint(self) -> str:
        """A digest of the pictures' names, sizes and annotations, in their order."""
        digest = hashlib.sha256(np.ascontiguousarray(self.shapes).tobytes())
        for file, annotations in zip(self.files, self.annotations, strict=True):
            digest.update(file.name.encode())
            for part in (annotations.classes, annotations.polygons, annotations.dont_care):
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def _sort_by_aspect(self) -> None:
        order = np.argsort(self.shapes[:, 1] / self.shapes[:, 0], kind='stable')
        self.shapes = self.shapes[order]
        self.files = [self.files[i] for i in order]
        self.annotations = [self.annotations[i] for i in order]

    def _plan_shapes(self, batch_size: int, stride: int, pad: float) -> np.ndarray:
        """(n, 2) (width, height) of each picture's network input: what its batch needs, and a little border."""
        needed = np.array([augment.resized_shape(w, h, self.imgsz) for w, h in self.shapes.tolist()])
        for start in range(0, len(needed), batch_size):
            largest = needed[start : start + batch_size].max(0)
            needed[start : start + batch_size] = np.ceil(largest / stride + pad).astype(int) * stride
        return needed

    def _fill_cache(self, split: str) -> None:
        """Decode every picture into one shared buffer, unless memory is short; says its size."""
        sizes = np.array([self._held_shape(index) for index in range(len(self))])
        ends = np.cumsum(sizes.prod(1) * 3)
        # Processes of torchrun, and runs of a comparison, each fill a cache of their own.
        sharing = distributed.environment('LOCAL_WORLD_SIZE', 1) * distributed.environment(RUNS_AT_ONCE, 1)
        total, free = int(ends[-1]), free_memory() // sharing
        text = f'cache of {split}: {total / 2**30:.2f} GiB of {free / 2**30:.2f} GiB free memory'
        if total > MEMORY_FRACTION * free:
            print(f'{text}: too little is free, pictures are read from files')
            return
        print(text)
        buffer = torch.empty(total, dtype=torch.uint8).share_memory_()
        flat, starts = buffer.numpy(), ends - sizes.prod(1) * 3

        def store(i: int) -> None:
            flat[starts[i] : ends[i]] = self._read(i).reshape(-1)

        with ThreadPoolExecutor(THREADS) as pool:
            list(tqdm(pool.map(store, range(len(self))), f'caching {split}', len(self), leave=False, delay=1))
        self._offsets, self._buffer = starts, buffer

    def _held_side(self, index: int) -> int:
        """Pixels of the longer side at which a picture is held: imgsz, for crops no more than it has."""
        return min(self.imgsz, int(self.shapes[index].max())) if self.crop else self.imgsz

    def _held_shape(self, index: int) -> tuple[int, int]:
        """(width, height) at which a picture is held."""
        return augment.resized_shape(*self.shapes[index].tolist(), self._held_side(index))

    def _read(self, index: int) -> np.ndarray:
        """A picture from its file, (h, w, 3) RGB, at the size at which it is held."""
        image = load_image(self.files[index])
        if image.shape[1::-1] != tuple(self.shapes[index]):
            raise UserError(f'{self.files[index]}: the picture has changed since it was first read')
        return augment.resize_long_side(image, self._held_side(index))

    def example(self, index: int) -> Example:
        """A resized picture (h, w, 3), not to be written to, and its annotations in pixels of it."""
        if self._buffer is None:
            image = self._read(index)
            height, width = image.shape[:2]
        else:
            width, height = self._held_shape(index)
            start = self._offsets[index]
            image = self._buffer.numpy()[start : start + width * height * 3].reshape(height, width, 3)
        return image, self.annotations[index].scaled(width, height)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of (epoch, index)."""
        epoch, index = key
        width, height = self.shapes[index].tolist()
        if self.augment:
            image, annotations = self._augmented(np.random.default_rng((self.seed, epoch, index)), index)
            letterbox = Letterbox(1.0, 1.0, 0.0, 0.0)
        else:
            (image, annotations), letterbox = self._letterboxed(index)
        planes = np.empty((3, *image.shape[:2]), np.uint8)
        cv2.split(image, list(planes))
        path, labelled = str(self.files[index]), index < self.labelled
        return Sample(torch.from_numpy(planes), annotations, path, (height, width), letterbox, labelled)

    def _input_size(self, index: int) -> tuple[int, int]:
        """(width, height) of a picture's network input."""
        return (self.imgsz, self.imgsz) if self._input_shapes is None else tuple(self._input_shapes[index].tolist())

    def _letterboxed(self, index: int) -> tuple[Example, Letterbox]:
        image, annotations = self.example(index)
        (height, width), (original_width, original_height) = image.shape[:2], self.shapes[index].tolist()
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
        return augment.random_flips(rng, (image, example[1]), hyp['flipud'], hyp['fliplr'])

    def _others(self, rng: np.random.Generator, index: int, count: int) -> list[int]:
        """Pictures of the same kind, labelled or not, to compose with."""
        least, most = (0, self.labelled) if index < self.labelled else (self.labelled, len(self))
        return rng.integers(least, most, size=count).tolist()

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
        return augment.project(example, augment.random_projection(rng, self.hyp, source, target), target)

    def _cropped(self, rng: np.random.Generator, index: int) -> Example:
        """A crop of the picture, or a mosaic of four crops of its size."""
        whole = rng.random() >= self.hyp['mosaic']
        images = (index,) if whole else (index, *self._others(rng, index, 3))
        small = [self.imgsz / self._held_side(i) for i in images]
        crops = [
            augment.random_crop(rng, self.hyp, self.example(i), self.crop, times)
            for i, times in zip(images, small, strict=True)
        ]
        if whole:
            return crops[0]
        image, annotations = augment.compose_mosaic(rng, crops, self.crop // 2)
        return image, annotations.demoted(augment.MIN_SIDE, augment.WHOLE)


def _measure(file: Path) -> tuple[tuple[int, int] | None, str]:
    """((width, height), '') of a picture, or None and what is wrong with it."""
    try:
        return probe_image(file), ''
    except FileNotFoundError:
        return None, f'{file}: missing'
    except Exception as error:  # noqa: BLE001  decoders raise anything from SyntaxError to struct.error
        return None, f'{file}: broken ({error})'


def _map_files(examine: Callable, files: list[Path], title: str) -> list:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(tqdm(pool.map(examine, files), title, len(files), leave=False, delay=2))


def _skipped(what: str, messages: list[str]) -> list[str]:
    """A line that says what was skipped, if anything was."""
    if not messages:
        return []
    more = [f'... and {len(messages) - NAMED} more'] if len(messages) > NAMED else []
    return [f'skipped {len(messages)} {what}: ' + '; '.join(messages[:NAMED] + more)]


def _read_annotations(image: Path, nc: int, dont_care: str) -> tuple[Annotations, list[str], bool]:
    """Targets and don't-care regions (0..1) of a picture, messages of skipped rows, whether it has a label file."""
    parts, skipped, labelled = [Annotations.build([], [])], [], False
    for kind in ('labels', 'ignore'):
        file = companion_file(image, kind)
        if file is None or not file.is_file():
            continue
        annotations, messages = read_labels(file, nc, dont_care=kind == 'ignore' and dont_care == 'ignore')
        parts.append(annotations)
        skipped += messages
        labelled |= kind == 'labels' or dont_care == 'text'
    return Annotations.concatenate(parts), skipped, labelled


def free_memory() -> int:
    """Bytes that a shared buffer could take: the least of free memory, the container's limit and shared memory."""
    limits = [8 * 2**30]  # where the system does not say
    meminfo, group, shared = Path('/proc/meminfo'), Path('/sys/fs/cgroup'), Path('/dev/shm')
    if meminfo.exists():
        rows = dict(row.split(':', 1) for row in meminfo.read_text().splitlines())
        limits = [int(rows['MemAvailable'].split()[0]) * 1024]
    if (group / 'memory.max').exists() and (limit := (group / 'memory.max').read_text().strip()) != 'max':
        limits.append(int(limit) - int((group / 'memory.current').read_text()))
    if shared.is_dir():
        status = os.statvfs(shared)
        limits.append(status.f_bavail * status.f_frsize)
    return max(min(limits), 0)


def collate(samples: list[Sample]) -> Batch:
    """Join samples of one size; annotations become shares of the input, targets apart from don't-care regions."""
    images = default_collate([sample.image for sample in samples])  # a worker writes into shared memory at once
    height, width = images.shape[2:]
    targets, ignore, polygons, edges = [], [], [], []
    for number, sample in enumerate(samples):
        annotations = sample.annotations
        rows = annotations.rows(width, height)
        rows = np.concatenate((np.full((len(rows), 1), number, np.float32), rows), 1)
        targets.append(rows[~annotations.dont_care])
        ignore.append(rows[annotations.dont_care])
        polygons += annotations[~annotations.dont_care].polygon_list(width, height)
        edges.append(annotations[~annotations.dont_care].edges())
    return Batch(
        images,
        torch.from_numpy(np.concatenate(targets)),
        torch.from_numpy(np.concatenate(ignore)),
        polygons,
        [sample.path for sample in samples],
        [sample.shape for sample in samples],
        [sample.letterbox for sample in samples],
        None if all(sample.labelled for sample in samples) else torch.tensor([sample.labelled for sample in samples]),
        torch.from_numpy(np.concatenate(edges)),
    )


class EpochBatches(Sampler):
    """Batches of (epoch, index), every picture once, the last batch possibly smaller.

    The order is a function of (seed, epoch).

    Args:
        n: pictures.
        batch_size: of all processes together.
        seed, shuffle: of the order.
        part: (rank, world): shuffled batches are shared out among the processes, others go to them in turn.

    Attributes:
        epoch: set it before each.
        start: batches at the beginning of an epoch that are left out.
    """

    def __init__(self, n: int, batch_size: int, seed: int = 0, shuffle: bool = True, part: tuple[int, int] = (0, 1)):
        self.n, self.batch_size, self.seed, self.shuffle = n, batch_size, seed, shuffle
        self.rank, self.world = part
        self.epoch = self.start = 0

    def __len__(self) -> int:
        batches = -(-self.n // self.batch_size)
        return batches if self.shuffle else len(range(self.rank, batches, self.world))

    def size(self, number: int) -> int:
        """Pictures of a batch in all processes."""
        return min(self.batch_size, self.n - number * self.batch_size)

    def __iter__(self):
        order = (
            np.random.default_rng((self.seed, self.epoch)).permutation(self.n) if self.shuffle else np.arange(self.n)
        )
        whole = [order[at : at + self.batch_size] for at in range(0, self.n, self.batch_size)][self.start :]
        if self.shuffle:
            mine = [np.array_split(batch, self.world)[self.rank] for batch in whole]
        else:
            mine = whole[self.rank :: self.world]
        return iter([[(self.epoch, int(index)) for index in batch] for batch in mine])


DEATHS = re.compile('DataLoader worker|Pin memory thread')  # in torch's words for a loading process that died


class WorkerDied(UserError):
    """A loading process ended without being asked to."""


class BatchLoader(DataLoader):
    """A DataLoader whose errors stay one line when they come from a worker process.

    Raises, when iterated:
        UserError: of the data.
        WorkerDied: a worker process was killed or crashed. The next iteration starts new ones.
    """

    def __iter__(self):
        try:
            yield from self._from_workers()
        except (RuntimeError, ConnectionError, EOFError) as error:
            # A batch whose worker dies before it is fetched ends the connection to it, as a rule before torch can tell
            # that the process is gone.
            if not self.num_workers or (isinstance(error, RuntimeError) and not DEATHS.search(str(error))):
                raise
            self.close()
            raise WorkerDied(
                'a process that loads pictures was killed (out of memory?) or crashed; --workers 0 loads without them'
            ) from None
        except UserError as error:
            # torch wraps a worker's error in its traceback, of which the last line is the message. The frames
            # keep the worker processes' queues in a cycle, whose collection would wait 5 s for each worker.
            traceback.clear_frames(error.__traceback__)
            raise UserError(str(error).strip().splitlines()[-1].removeprefix('models.errors.UserError: ')) from None

    def _from_workers(self):
        batches = super().__iter__()
        if self.num_workers and threading.current_thread() is threading.main_thread():
            # torch would report a dead worker from a signal handler, in the middle of anything. Without that the wait
            # for its next batch ends.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        yield from batches

    def close(self) -> None:
        """End the worker processes; left to the interpreter's exit after an error, they complain."""
        if getattr(self, '_iterator', None) is not None:
            self._iterator._shutdown_workers()
            self._iterator = None


def _start_worker(_number: int) -> None:
    """One thread; Ctrl-C and SIGHUP are the main process's business, and SIGTERM ends a worker without a word."""
    cv2.setNumThreads(0)
    for number in (signal.SIGINT, *STOPPING):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def build_loader(
    dataset: TextDataset,
    batch_size: int,
    workers: int = 0,
    shuffle: bool = False,
    seed: int = 0,
    part: tuple[int, int] = (0, 1),
) -> BatchLoader:
    """Batches of a dataset, the last one possibly smaller. `loader.batch_sampler.epoch = e` before each epoch.

    What comes out does not depend on the number of workers, and nothing is drawn from torch's global generator.

    Args:
        part: (rank, world) of the processes that share the batches, see EpochBatches.

    Raises:
        UserError: a batch has fewer pictures than there are processes to share it.
        ValueError: shuffling a dataset whose batches are rectangular.
    """
    if shuffle and dataset.rect:
        raise ValueError('rectangular batches have a fixed order: shuffle must be False')
    batches = EpochBatches(len(dataset), batch_size, seed, shuffle, part)
    last = batches.size((len(dataset) - 1) // batch_size)
    if shuffle and min(last, batch_size) < part[1]:
        raise UserError(
            f'{len(dataset)} pictures in batches of {batch_size}: the last batch has {last} for {part[1]} processes; '
            'choose another --batch-size'
        )
    return BatchLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        multiprocessing_context=FORK if workers else None,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(seed),
    )
