"""From a checkpoint or an exported file to boxes of images."""

import math
import time
from itertools import pairwise

from models.errors import UserError

# numpy, OpenCV and torch are imported where they are used: detect.py answers --help and a wrong flag at once.

DEFAULT_CONFIDENCE = 0.25  # of checkpoints that have none of their own


class Detector:
    """A checkpoint's network with all that turns a picture into boxes.

    Args:
        weights: checkpoint or exported file.
        device: '', 'cpu' or the number of a CUDA device.
        imgsz: pixels of the long side as the network sees it; None takes 640, or what an exported file is for.
        conf_thres: lowest confidence; None takes the checkpoint's, else 0.25.
        iou_thres: overlap above which the worse of two boxes of a class goes.
        max_det: boxes kept of a picture at most.
        classes: numbers of the classes to keep, None all.
        amp: run a checkpoint in bfloat16 where the device has it; exported files compute as they were exported.

    Attributes:
        names: {class number: name}.
        seconds: spent so far in pre-processing, network and NMS.

    Raises:
        UserError: no such checkpoint, device or class; `amp` switched off for an exported file.
    """

    def __init__(
        self,
        weights: str,
        *,
        device: str = '',
        imgsz: int | None = None,
        conf_thres: float | None = None,
        iou_thres: float = 0.45,
        max_det: int = 1000,
        classes: list[int] | None = None,
        amp: bool = True,
    ):
        import torch

        from models.exported import default_device, is_exported, load_detector, long_side
        from utils.runtime.device import network_dtype, select_device

        if not amp and is_exported(weights):
            raise UserError(f'--no-amp is for checkpoints: {weights} computes as it was exported')
        self.device = select_device(device or default_device(weights))
        self.model = load_detector(weights, self.device)
        self.dtype = network_dtype(self.device, amp=amp and not is_exported(weights))
        if self.dtype == torch.bfloat16:
            self.model.to_bfloat16()  # cast once, not for every picture
        self.names = self.model.names
        self.imgsz = long_side(self.model, imgsz)
        self.stride = int(self.model.stride.max())
        chosen = self.model.point_at(self.imgsz).conf_threshold if conf_thres is None else conf_thres
        self.conf_thres = DEFAULT_CONFIDENCE if chosen is None else chosen
        self.iou_thres, self.max_det, self.classes = iou_thres, max_det, classes
        self.seconds = [0.0, 0.0, 0.0]
        unknown = sorted(set(classes or ()) - self.names.keys())
        if unknown:
            raise UserError(f'--classes {unknown[0]}: {weights} has the classes 0 to {max(self.names)} only')

    def __call__(self, image):
        """Boxes of one picture, best first.

        Args:
            image: a path, a PIL image or an array; see utils.detection.inputs.to_image.

        Returns:
            (n, 6) float64 array: x1, y1, x2, y2 in the upright picture's pixels, confidence, class.

        Raises:
            UserError: it is no image.
        """
        return self.find([image])[0]

    def find(self, images: list, batch_size: int = 1) -> list:
        """Boxes of several pictures of any sizes; those of one network shape go through the network together.

        Args:
            images: a list; what a call takes.
            batch_size: pictures in the network at a time at most.

        Returns:
            What a call returns, of each picture.

        Raises:
            UserError: one of them is no image.
        """
        from utils import boxes  # noqa: F401
        from utils.detection.inputs import to_image
        from utils.loading import augment  # noqa: F401  imported before the clock starts

        if self.model.input_size:
            batch_size = 1  # an export of one size takes one picture
        if not isinstance(images, (list, tuple)):
            raise UserError(f'expected a list of images, got {type(images).__name__}')
        images = [to_image(image) for image in images]
        start = time.perf_counter()
        placed = [self._place(image) for image in images]
        self.seconds[0] += time.perf_counter() - start
        alike = {}  # numbers of the pictures of each network shape
        for number, (padded, _) in enumerate(placed):
            alike.setdefault(padded.shape, []).append(number)
        result = [None] * len(images)
        for numbers in alike.values():
            for first in range(0, len(numbers), batch_size):
                chosen = numbers[first : first + batch_size]
                found = self._find_alike([placed[number] for number in chosen], [images[number] for number in chosen])
                for number, rows in zip(chosen, found, strict=True):
                    result[number] = rows
        return result

    def _find_alike(self, placed: list, images: list) -> list:
        """Boxes of pictures that are (h, w, 3) and a Letterbox each in `placed`, h and w the same in all."""
        import numpy as np
        import torch

        from utils.boxes import MAX_CANDIDATES, non_max_suppression

        clock = [time.perf_counter()]
        with torch.inference_mode():
            batch = torch.from_numpy(np.stack([padded for padded, _ in placed])).to(self.device)  # (B, h, w, 3)
            batch = batch.permute(0, 3, 1, 2).to(self.dtype).div_(255)  # (B, 3, h, w), channels last
            clock.append(self._now())
            decoded, _ = self.model(batch)
            clock.append(self._now())
            # Overlaps count within a class only, so classes can be chosen after NMS; the limit comes last.
            found = non_max_suppression(
                decoded, self.conf_thres, self.iou_thres, MAX_CANDIDATES, nc=self.model.nc, by_quads=True
            )
            parts = zip(found, placed, images, strict=True)
            found = [self._select(rows, letterbox, *image.shape[:2]) for rows, (_, letterbox), image in parts]
            clock.append(self._now())
        spent = [after - before for before, after in pairwise(clock)]
        self.seconds = [total + step for total, step in zip(self.seconds, spent, strict=True)]
        return found

    def _place(self, image):
        """Resize a picture's long side to imgsz and pad it with grey to multiples of the stride or an export's size."""
        from utils.boxes import Letterbox
        from utils.loading.augment import pad_to, resize_long_side

        height, width = image.shape[:2]
        fixed, longest = self.model.input_size, max(height, width)
        side = round(min(fixed[0] / height, fixed[1] / width) * longest) if fixed else self.imgsz
        resized = resize_long_side(image, side)
        new_height, new_width = resized.shape[:2]
        whole = fixed or [math.ceil(side / self.stride) * self.stride for side in (new_height, new_width)]
        padded, left, top = pad_to(resized, *whole)
        return padded, Letterbox(new_width / width, new_height / height, float(left), float(top))

    def _select(self, rows, letterbox, height: int, width: int):
        """Rows (n, 6) or with quads (n, 14) in pixels of the picture, of boxes after NMS (n, 6) or with edges (n, 10);
        rounded to what is written everywhere, none without area."""
        import torch

        from utils.quads import decode

        rows = rows.cpu()
        parts = [letterbox.to_image(rows[:, :4], height, width), rows[:, 4:6]]
        if self.model.quads:
            parts.append(letterbox.quads_to_image(decode(rows[:, :4], rows[:, 6:]), height, width).flatten(1))
        rows = torch.cat(parts, 1).double().numpy()
        if self.classes:
            rows = rows[[int(category) in self.classes for category in rows[:, 5]]]
        rows[:, :4], rows[:, 6:] = rows[:, :4].round(2), rows[:, 6:].round(2)
        rows[:, 4] = rows[:, 4].round(5)
        return rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])][: self.max_det]

    def _now(self) -> float:
        if self.device.type == 'cuda':
            import torch

            torch.cuda.synchronize(self.device)
        return time.perf_counter()
