"""From a checkpoint or an exported file to boxes of images."""

import operator

from models.errors import UserError
from ocrdistill.finder import Finder
from utils.detection.options import DetectOptions
from utils.runtime.options import options_of

# OpenCV and torch are imported where they are used: detect.py answers --help and a wrong flag at once.


class Detector(Finder):
    """A checkpoint's network with all that turns a picture into boxes.

    Args:
        weights: checkpoint or exported file.
        device: 'cpu' or the number of a CUDA device; '': one if there is one.
        imgsz: pixels of the long side as the network sees it; None takes the middle one of the sizes that the weights
            have thresholds for (960 for the shipped ones), else that of the training, or what an exported file is for.
        conf_thres: lowest confidence; None takes the checkpoint's, else 0.25.
        iou_thres: overlap above which the worse of two boxes of a class goes; None: 0.45, of quads 0.3.
        max_det: boxes kept of a picture at most.
        classes: numbers of the classes to keep, None all.
        amp: run a checkpoint in bfloat16 where the device has it; exported files compute as they were exported.

    Attributes:
        model: the network.
        names: {class number: name}.
        seconds: spent so far in pre-processing, network and NMS.

    Raises:
        UserError: no such checkpoint, device or class; a number outside the range that detect.py has for it; `amp`
            switched off for an exported file.
    """

    def __init__(
        self,
        weights: str,
        *,
        device: str | int = '',
        imgsz: int | None = None,
        conf_thres: float | None = None,
        iou_thres: float | None = None,
        max_det: int = 1000,
        classes: list[int] | None = None,
        amp: bool = True,
    ):
        try:
            classes = None if classes is None else [operator.index(number) for number in classes]
        except TypeError:
            raise UserError(f'classes: {classes!r}, expected a list of numbers') from None
        _check(imgsz=imgsz, conf_thres=conf_thres, iou_thres=iou_thres, max_det=max_det)

        import torch

        from models.exported import default_device, is_exported, load_detector, long_side
        from ocrdistill.points import middle
        from utils.loading.images import decode_with_opencv
        from utils.runtime.device import network_dtype, select_device

        if not amp and is_exported(weights):
            raise UserError(f'--no-amp is for checkpoints: {weights} computes as it was exported')
        self.device = select_device(default_device(weights) if device in ('', None) else str(device))
        self.model = load_detector(weights, self.device)
        self.dtype = network_dtype(self.device, amp=amp and not is_exported(weights))
        if self.dtype == torch.bfloat16:
            self.model.to_bfloat16()  # cast once, not for every picture
        self.names = self.model.names
        usual = None if is_exported(weights) else middle(self.model.points)
        imgsz = long_side(self.model, imgsz or usual)
        super().__init__(
            self._compute,
            self.model,
            stride=int(self.model.stride.max()),
            imgsz=imgsz,
            conf_thres=self.model.point_at(imgsz).threshold if conf_thres is None else conf_thres,
            iou_thres=iou_thres,
            max_det=max_det,
            classes=classes,
            decode=decode_with_opencv,
        )
        unknown = sorted(set(classes or ()) - self.names.keys())
        if unknown:
            raise UserError(f'--classes {unknown[0]}: {weights} has the classes 0 to {max(self.names)} only')

    def __call__(self, image):
        """Boxes of one picture, best first.

        Args:
            image: a path, a file's bytes, a PIL image or an array; see ocrdistill.inputs.to_image.

        Returns:
            (n, 6) float64 array: x1, y1, x2, y2 in the upright picture's pixels, confidence, class; of a network with
            quads (n, 14): then x, y of the corners.

        Raises:
            UserError: it is no image.
        """
        return self.find([image])[0]

    def _compute(self, images):
        """(B, H, W, 3) uint8 -> decoded (B, M, 5 + nc [+ 4]) float32."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(images).to(self.device)
            batch = batch.permute(0, 3, 1, 2).to(self.dtype).div_(255)  # (B, 3, H, W), channels last
            return self.model(batch)[0].float().cpu().numpy()


def _check(**values) -> None:
    """Raise UserError where a value is not one that detect.py takes for the option of that name."""
    for name, value in values.items():
        option = options_of(DetectOptions)[name]
        if option.problem(value):
            raise UserError(f'{name}: {value!r}, expected {option.expected}')
