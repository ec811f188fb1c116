"""The images of a split, as every detector is evaluated on them."""

from models.errors import UserError
from models.exported import ExportedModel
from models.yolo import DetectionModel
from utils.loading.config import DataConfig
from utils.loading.dataset import TextDataset
from utils.loading.loader import BatchLoader, build_loader
from utils.runtime.words import counted

BATCH_SIZE = 32
PAD = 0.5  # extra border of a rectangular batch, as a share of the stride (YOLOv5's protocol)


class EvaluationSplit(TextDataset):
    """One split in a fixed order, not augmented.

    Args:
        data: the data yaml's content.
        name: 'train', 'val' or 'test'.
        imgsz: longer side of the images in pixels.
        batch_size: the images of a batch share one shape, so scores depend on it a little.
        squares: every image in a square, for a network of one input size; otherwise a batch has the least padding.
        cache: hold all resized images in memory.

    Raises:
        UserError: as TextDataset.
    """

    def __init__(
        self,
        data: DataConfig,
        name: str,
        imgsz: int,
        *,
        batch_size: int = BATCH_SIZE,
        squares: bool = False,
        cache: bool = False,
    ):
        super().__init__(data, name, imgsz, rect=not squares, pad=PAD, batch_size=batch_size, cache=cache)
        self.data, self.name, self.batch_size = data, name, batch_size

    def loader(self, workers: int = 0, part: tuple[int, int] = (0, 1), pin: bool = False) -> BatchLoader:
        """Its batches; part and pin as of build_loader."""
        return build_loader(self, self.batch_size, workers, part=part, pin=pin)


def require_class_count(model: DetectionModel | ExportedModel, weights: str, data: DataConfig) -> None:
    """Raises UserError where the model of the file `weights` has another number of classes than the data."""
    if model.nc != data.nc:
        raise UserError(f'{weights} knows {counted(model.nc, "class", "classes")}, {data.file} names {data.nc}')
