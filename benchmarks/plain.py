"""Every stage as a straightforward script does it: what run.py compares with.

The networks, the detection loss and the definitions of the terms are the product's own, so that both compute the same
figures. The way is the field's usual one: float32 on the CPU and float16 autocast with a gradient scaler on CUDA,
unfused networks in PyTorch's default memory format, features caught by hooks, the teacher's boxes found by NMS in every
step, masks and matching in Python loops, pictures decoded anew for every use and padded to squares.
"""

import math
import random
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from models.checkpoint import read_checkpoint, restore
from models.yolo import DetectionModel
from utils.evaluation.icdar import LOWEST_THRESHOLD, read_ground_truth
from utils.evaluation.metrics import IOU_THRESHOLDS, average_precision
from utils.loading.augment import random_projection
from utils.loading.batches import Batch
from utils.loading.labels import companion_file
from utils.training.criterion import DetectionCriterion
from utils.training.optimizer import MAX_GRADIENT, build_optimizer

GREY = 114
GRID = 1e-4  # cells; how far a box must reach into a cell to overlap it


def plain_model(weights: str, device: torch.device) -> DetectionModel:
    """A checkpoint's network as it was trained: nothing folded, default memory format."""
    return restore(read_checkpoint(weights)).eval().to(device)


class PlainTraining:
    """Training steps of a student, with or without a teacher.

    Args:
        student, teacher: float32; no teacher: plain training.
        adapters: {method: {layer: 1x1 convolution}} for mask and PFI; empty without a teacher.
        weights: {term: weight} of the distillation terms.
        hyp, imgsz: see DetectionCriterion.
    """

    def __init__(self, student, teacher, adapters: dict, weights: dict, hyp: dict, imgsz: int, batch: int):
        self.student, self.teacher, self.adapters, self.weights = student.train(), teacher, adapters, weights
        self.device = next(student.parameters()).device
        self.criterion = DetectionCriterion(student, hyp, imgsz, amp=False)
        self.weights |= self.criterion.gains
        holder = nn.ModuleList(conv for layers in adapters.values() for conv in layers.values())
        groups = build_optimizer(student, holder, hyp, 'SGD', batch).param_groups
        self.optimizer = torch.optim.SGD([group | {'foreach': False, 'fused': False} for group in groups])
        self.trained = [list(student.parameters()), list(holder.parameters())]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.device.type == 'cuda')
        self.average = {key: value.clone() for key, value in student.state_dict().items()}
        self.updates = 0
        self.features: dict[str, dict[int, Tensor]] = {'student': {}, 'teacher': {}}
        if teacher is not None:
            teacher.eval()
            for layer in sorted({layer for layers in adapters.values() for layer in layers}):
                for name, model in (('student', student), ('teacher', teacher)):
                    model.model[layer].register_forward_hook(self._keeper(name, layer))

    def _keeper(self, name: str, layer: int):
        def keep(_module, _inputs, output):
            self.features[name][layer] = output

        return keep

    def step(self, batch: Batch) -> dict[str, float]:
        """One step on a batch; the unweighted terms."""
        images = batch.images.to(self.device).float() / 255
        targets, ignore = batch.targets.to(self.device), batch.ignore.to(self.device)
        with torch.autocast(self.device.type, torch.float16, enabled=self.device.type == 'cuda'):
            terms = self._terms(images, targets, ignore)
        total = sum(self.weights[name] * term for name, term in terms.items()) * len(images)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        for parameters in self.trained:
            if parameters:
                nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT, foreach=False)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self._update_average()
        return {name: term.item() for name, term in terms.items()}

    def _terms(self, images: Tensor, targets: Tensor, ignore: Tensor) -> dict[str, Tensor]:
        teacher_maps = None
        if self.teacher is not None:
            with torch.no_grad():
                decoded, teacher_maps = self.teacher(images)
                plain_nms(decoded.float(), 0.25, 0.45)
        maps = self.student(images)
        terms = self.criterion.loss(maps, targets, ignore)
        if 'mask' in self.adapters:
            terms |= self._mask_terms(targets, ignore)
        if 'pfi' in self.adapters:
            terms['pfi'] = self._pfi_term(maps, teacher_maps)
        return terms

    def _difference(self, method: str, layer: int) -> Tensor:
        """(B, h, w): the normalised squared difference of adapted student and teacher."""
        teacher = self.features['teacher'][layer].float()
        adapted = self.adapters[method][layer](self.features['student'][layer]).float()
        unit = (teacher**2).mean(dim=(1, 2, 3)).view(-1, 1, 1)
        return ((adapted - teacher) ** 2).mean(dim=1) / unit

    def _mask_terms(self, targets: Tensor, ignore: Tensor) -> dict[str, Tensor]:
        objects, background = [], []
        for layer in self.adapters['mask']:
            difference = self._difference('mask', layer)
            shape = difference.shape
            inside, left_out = looped_mask(targets, shape), looped_mask(ignore, shape)
            care = 1 - left_out.to(difference)
            mask = inside.to(difference) * care
            rest = (1 - inside.to(difference)) * care
            for cells, found in ((mask, objects), (rest, background)):
                values = [(difference[i] * cells[i]).sum() / cells[i].sum().clamp(min=1) / 2 for i in range(len(cells))]
                found.append(sum(values) / len(values))
        return {'mask_obj': sum(objects) / len(objects), 'mask_bg': sum(background) / len(background)}

    def _pfi_term(self, maps: list[Tensor], teacher_maps: list[Tensor]) -> Tensor:
        found = []
        for level, layer in enumerate(self.adapters['pfi']):
            student, teacher = (m[level][..., 4].float().sigmoid() for m in (maps, teacher_maps))
            gap = ((student - teacher) ** 2).mean(dim=1).detach()  # (B, h, w)
            found.append((gap * self._difference('pfi', layer)).mean())
        return sum(found) / len(found)

    def _update_average(self) -> None:
        self.updates += 1
        decay = 0.9999 * (1 - math.exp(-self.updates / 2000))
        with torch.no_grad():
            for key, value in self.student.state_dict().items():
                if value.dtype.is_floating_point:
                    self.average[key] *= decay
                    self.average[key] += (1 - decay) * value


def looped_mask(boxes: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Cells that a box overlaps, box after box: (n, 6) image, class, x, y, w, h (0..1) -> (B, h, w)."""
    batch, height, width = shape
    mask = torch.zeros(batch, height, width)
    for image, _, x, y, w, h in boxes.tolist():
        left, right = max(math.floor((x - w / 2) * width + GRID), 0), math.ceil((x + w / 2) * width - GRID)
        top, bottom = max(math.floor((y - h / 2) * height + GRID), 0), math.ceil((y + h / 2) * height - GRID)
        mask[int(image), top:bottom, left:right] = 1
    return mask.to(boxes.device)


def plain_nms(decoded: Tensor, confidence: float, overlap: float, most: int = 300) -> list[Tensor]:
    """(B, M, 5 + nc) -> B tensors (n, 6): picture by picture."""
    found = []
    for rows in decoded:
        score, category = (rows[:, 4:5] * rows[:, 5:]).max(1)
        keep = score > confidence
        rows, score, category = rows[keep], score[keep], category[keep].float()  # noqa: PLW2901
        x, y, w, h = rows[:, :4].unbind(1)
        boxes = torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1)
        best = torchvision.ops.batched_nms(boxes, score, category, overlap)[:most]
        found.append(torch.cat((boxes[best], score[best, None], category[best, None]), 1))
    return found


class PlainPictures(torch.utils.data.Dataset):
    """Mosaics of four pictures, every picture decoded and resized anew.

    Args:
        files: pictures.
        labels: for each (n, 5) class, x, y, w, h (0..1).
        imgsz: side of the result in pixels.
        hyp: hyperparameters of the augmentation.
    """

    def __init__(self, files: list[Path], labels: list[np.ndarray], imgsz: int, hyp: dict):
        self.files, self.labels, self.imgsz, self.hyp = files, labels, imgsz, hyp

    def __len__(self) -> int:
        return len(self.files)

    def _load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """A picture with its long side at imgsz, and its boxes (n, 5) class, x1, y1, x2, y2 in pixels."""
        image = cv2.imread(str(self.files[index]))
        fraction = self.imgsz / max(image.shape[:2])
        image = cv2.resize(image, None, fx=fraction, fy=fraction, interpolation=cv2.INTER_LINEAR)
        height, width = image.shape[:2]
        rows = self.labels[index].astype(np.float64)
        x, y, w, h = (rows[:, 1:] * (width, height, width, height)).T
        return image, np.stack((rows[:, 0], x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        size, side = self.imgsz, 2 * self.imgsz
        canvas = np.full((side, side, 3), GREY, np.uint8)
        centre_x, centre_y = (random.randint(size // 2, side - size // 2) for _ in range(2))
        boxes = []
        for corner, number in enumerate([index, *random.choices(range(len(self)), k=3)]):
            image, rows = self._load(number)
            height, width = image.shape[:2]
            left = centre_x - width * (corner % 2 == 0)
            top = centre_y - height * (corner < 2)
            x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, side), min(top + height, side)
            canvas[y1:y2, x1:x2] = image[y1 - top : y2 - top, x1 - left : x2 - left]
            boxes.append(rows + (0, left, top, left, top))
        matrix = random_projection(np.random.default_rng(), self.hyp, (side, side), (size, size))
        image = cv2.warpPerspective(canvas, matrix, (size, size), borderValue=(GREY,) * 3)
        rows = self._moved(np.concatenate(boxes), matrix)
        image = self._recoloured(image)
        if random.random() < self.hyp['fliplr']:
            image = np.fliplr(image)
            rows[:, [1, 3]] = size - rows[:, [3, 1]]
        image = np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))
        centre, extent = (rows[:, 1:3] + rows[:, 3:5]) / 2 / size, (rows[:, 3:5] - rows[:, 1:3]) / size
        return torch.from_numpy(image), torch.from_numpy(np.concatenate((rows[:, :1], centre, extent), 1))

    def _moved(self, rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Boxes around the moved corners, without those that leave the picture."""
        kept = []
        for category, x1, y1, x2, y2 in rows:
            corners = np.array([(x1, y1, 1), (x2, y1, 1), (x2, y2, 1), (x1, y2, 1)]) @ matrix.T
            corners = (corners[:, :2] / corners[:, 2:]).clip(0, self.imgsz)
            low, high = corners.min(0), corners.max(0)
            if (high - low > 2).all():
                kept.append((category, *low, *high))
        return np.array(kept).reshape(-1, 5)

    def _recoloured(self, image: np.ndarray) -> np.ndarray:
        gains = [1 + random.uniform(-1, 1) * self.hyp[name] for name in ('hsv_h', 'hsv_s', 'hsv_v')]
        channels = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
        steps = np.arange(256)
        tables = [(steps * gains[0]) % 180, (steps * gains[1]).clip(0, 255), (steps * gains[2]).clip(0, 255)]
        channels = [cv2.LUT(c, table.astype(np.uint8)) for c, table in zip(channels, tables, strict=True)]
        return cv2.cvtColor(cv2.merge(channels), cv2.COLOR_HSV2BGR)


def stack(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, H, W), and targets (N, 6) with the number of their picture."""
    rows = [torch.cat((torch.full((len(t), 1), i), t), 1) for i, (_, t) in enumerate(samples)]
    return torch.stack([image for image, _ in samples]), torch.cat(rows)


def letterboxed(image: np.ndarray, size: int) -> tuple[np.ndarray, float, float, float]:
    """A BGR picture on a grey square, (3, size, size) RGB, with the scale and the left and top margins."""
    fraction = size / max(image.shape[:2])
    image = cv2.resize(image, None, fx=fraction, fy=fraction, interpolation=cv2.INTER_LINEAR)
    height, width = image.shape[:2]
    left, top = (size - width) // 2, (size - height) // 2
    square = cv2.copyMakeBorder(
        image, top, size - height - top, left, size - width - left, cv2.BORDER_CONSTANT, value=(GREY,) * 3
    )
    return np.ascontiguousarray(square[:, :, ::-1].transpose(2, 0, 1)), fraction, left, top


@torch.no_grad()
def plain_detect(model: DetectionModel, image: np.ndarray, size: int) -> Tensor:
    """(n, 6) boxes in the pixels of a BGR picture, confidence, class."""
    device = next(model.parameters()).device
    square, fraction, left, top = letterboxed(image, size)
    decoded, _ = model((torch.from_numpy(square).to(device).float() / 255)[None])
    boxes = plain_nms(decoded, 0.25, 0.45)[0].cpu()
    boxes[:, [0, 2]] = (boxes[:, [0, 2]] - left) / fraction
    boxes[:, [1, 3]] = (boxes[:, [1, 3]] - top) / fraction
    return boxes


class PlainSquares(torch.utils.data.Dataset):
    """Letterboxed pictures of a split, decoded anew."""

    def __init__(self, files: list[Path], size: int):
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int, float, float, float]:
        square, fraction, left, top = letterboxed(cv2.imread(str(self.files[index])), self.size)
        return torch.from_numpy(square), index, fraction, left, top


@torch.no_grad()
def plain_validate(model: DetectionModel, data, size: int, batch: int, workers: int) -> tuple[float, float | None]:
    """(mAP50 of one class, ICDAR2015 hmean at confidence .25; None without its ground truth) of a set."""
    device = next(model.parameters()).device
    loader = torch.utils.data.DataLoader(PlainSquares(data.files, size), batch, num_workers=workers)
    scores, hits, words, counts = [], [], 0, np.zeros(3, int)
    for images, indices, fractions, lefts, tops in loader:
        decoded, _ = model(images.to(device).float() / 255)
        found = plain_nms(decoded, 0.001, 0.6)
        chosen = plain_nms(decoded, 0.25, 0.45)
        for number, index in enumerate(indices.tolist()):
            place = (float(fractions[number]), float(lefts[number]), float(tops[number]))
            truth = data.annotations[index].scaled(*map(float, data.sizes[index]))
            labels, ignored = truth[~truth.dont_care].boxes(), truth[truth.dont_care].boxes()
            boxes = _in_image(found[number].cpu().numpy(), *place)
            words += len(labels)
            for score, hit in looped_matches(boxes, labels, ignored):
                scores.append(score)
                hits.append(hit)
            file = companion_file(data.files[index], 'gt')
            if file is not None and file.is_file():
                counts += looped_icdar(_in_image(chosen[number].cpu().numpy(), *place), *read_ground_truth(file))
    order = np.argsort(-np.array(scores), kind='stable')
    curves = np.array(hits).reshape(-1, len(IOU_THRESHOLDS))[order].cumsum(0)
    ranks = np.arange(1, len(order) + 1)
    ap = [average_precision(curve / max(words, 1), curve / ranks) for curve in curves.T]
    hit, detected, wanted = counts
    return ap[0], 2 * hit / max(detected + wanted, 1) if wanted else None


def _in_image(boxes: np.ndarray, fraction: float, left: float, top: float) -> np.ndarray:
    boxes = boxes.copy()
    boxes[:, :4] = (boxes[:, :4] - (left, top, left, top)) / fraction
    return boxes


def looped_matches(boxes: np.ndarray, labels: np.ndarray, ignored: np.ndarray) -> Iterator[tuple[float, list[bool]]]:
    """(score, hit at each IoU threshold) of each detection of a picture that counts."""
    taken = [set() for _ in IOU_THRESHOLDS]
    labels = torch.from_numpy(labels.astype(np.float32))
    for box in boxes[np.argsort(-boxes[:, 4], kind='stable')]:
        overlaps = torchvision.ops.box_iou(torch.from_numpy(box[None, :4]), labels)[0].tolist()
        best = int(np.argmax(overlaps)) if overlaps else -1
        hit = []
        for threshold, used in zip(IOU_THRESHOLDS, taken, strict=True):
            good = best >= 0 and overlaps[best] >= threshold and best not in used
            if good:
                used.add(best)
            hit.append(good)
        area = (box[2] - box[0]) * (box[3] - box[1])
        if any(hit) or all(_shared(box, region) <= area / 2 for region in ignored):
            yield float(box[4]), hit


def _shared(first, second) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)


def looped_icdar(boxes: np.ndarray, quads: np.ndarray, dont_care: np.ndarray) -> np.ndarray:
    """ICDAR2015's rule, pair by pair: (words found, detections that count, words)."""
    from shapely import Polygon, make_valid
    from shapely import box as rectangle

    boxes = boxes[boxes[:, 4] >= LOWEST_THRESHOLD]
    found = [rectangle(*row[:4].round()) for row in boxes]
    words = [make_valid(Polygon(quad)) for quad in quads]
    regions = [word for word, skip in zip(words, dont_care, strict=True) if skip]
    words = [word for word, skip in zip(words, dont_care, strict=True) if not skip]
    counting = [b for b in found if all(b.intersection(r).area <= b.area / 2 for r in regions)]
    free = set(range(len(counting)))
    hits = 0
    for word in words:
        for number in sorted(free):
            shared = counting[number].intersection(word).area
            if shared / max(counting[number].area + word.area - shared, 1e-9) > 0.5:
                free.remove(number)
                hits += 1
                break
    return np.array((hits, len(counting), len(words)))
