"""What an exported network says of itself, checked: it may come from a stranger. utils/export/metadata.py writes it."""

from pathlib import Path
from typing import Any

from ocrdistill.errors import UserError
from ocrdistill.points import MAX_SIDE, UNSCALED, Point, from_plain, is_scale, is_threshold, nearest

FORMAT, VERSION = 'ocrdistill', 1


class Metadata:
    """The description of an exported network.

    Args:
        file: where it comes from, for messages.
        content: plain data.

    Attributes:
        names: {class number: name}; nc: their count.
        quads: whether the network predicts corners.
        stride: of its coarsest level.
        input_size: (H, W) that the file is for, one image at a time; None if it takes any multiple of the stride.
        long_side: pixels of the longer side that it is for, or with any size is best at.
        conf_threshold: the confidence chosen on the validation split, None before it is chosen.
        points: those of other sizes, see ocrdistill.points.
        word_scale, precision, source: see utils.export.metadata.describe.

    Raises:
        UserError: it is not ours, is for another use, or is incomplete.
    """

    def __init__(self, file: Path, content: dict[str, Any]):
        _check(file, content)
        self.file = file
        self.names = {int(number): str(name) for number, name in content['names'].items()}
        self.nc, self.quads, self.stride = len(self.names), bool(content.get('quads')), int(content['stride'])
        self.input_size = None if content['dynamic'] else tuple(content['imgsz'])
        self.long_side = max(content['imgsz'])
        self.conf_threshold, self.points = content.get('conf_threshold'), from_plain(content.get('points'))
        self.word_scale = tuple(content.get('word_scale') or UNSCALED)
        self.precision, self.source = content.get('precision', 'float32'), content['source']

    def point_at(self, imgsz: int) -> Point:
        """Threshold and word scale for images whose longer side has this many pixels."""
        return nearest(self.points, imgsz, Point(self.conf_threshold, self.word_scale))


def _check(file: Path, content: dict[str, Any]) -> None:
    if content.get('format') != FORMAT or content.get('version') != VERSION:
        raise UserError(f'{file} is no export of ours (export.py writes metadata of version {VERSION} into its files)')
    if content.get('nms'):
        raise UserError(f'{file} has NMS inside, for other programs: export without --nms for this one')
    threshold, size = content.get('conf_threshold'), content.get('imgsz')
    source = content.get('source')
    names, stride = content.get('names'), content.get('stride')
    fine = (
        isinstance(names, dict)
        and names.keys() == {str(number) for number in range(len(names))}
        and isinstance(stride, int)
        and stride > 0
        and isinstance(content.get('dynamic'), bool)
        and isinstance(size, list)
        and len(size) == 2
        and all(isinstance(side, int) and 0 < side <= MAX_SIDE and side % stride == 0 for side in size)
        and isinstance(source, dict)
        and isinstance(source.get('options'), dict)
        and is_threshold(threshold)
        and is_scale(content.get('word_scale'))
    )
    if not (fine and names):
        raise UserError(f'{file} is damaged: its metadata is incomplete')
    try:
        from_plain(content.get('points'))
    except ValueError as error:
        raise UserError(f'{file} is damaged: {error}') from None
