"""For users of PyTorch: torch.hub.load('FOLDER_OR_REPOSITORY', 'ocrdistill_n'). See docs/python.md."""

from pathlib import Path
from typing import Any

dependencies = ['torch', 'torchvision', 'cv2', 'numpy', 'PIL', 'yaml', 'tqdm']
WEIGHTS = Path(__file__).resolve().parent / 'weights'


def ocrdistill_n(**options: Any) -> Any:
    """The small detector. Options are those of utils.detection.detector.Detector: device, imgsz, conf_thres ...

    Called with an image (path, PIL image, array, bytes) it gives rows (n, 14): x1, y1, x2, y2, score, class, corners.
    """
    return custom(WEIGHTS / 'ocrdistill-n.pt', **options)


def ocrdistill_s(**options: Any) -> Any:
    """The larger detector; see ocrdistill_n."""
    return custom(WEIGHTS / 'ocrdistill-s.pt', **options)


def custom(path: str | Path, **options: Any) -> Any:
    """The detector of a checkpoint or an exported file; see ocrdistill_n. Without quads its rows are (n, 6)."""
    from utils.detection.detector import Detector

    return Detector(str(path), **options)
