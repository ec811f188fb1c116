"""Average trained checkpoints of one network into one that is often better than each (model soup).

python teacher/average.py runs/train/a/weights/best.pt runs/train/b/weights/best.pt --out runs/soup.pt

For runs that began from the same weights: only then does what lies between them work. Threshold and word scale are
chosen anew on the validation split, whose figures are printed; compare them with those of the parts. Where it has
fewer than 20 pictures, or nothing is found there, they are those of the first checkpoint.
"""

import copy
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.runtime.cli import run_command
from utils.runtime.options import Options, option, parse


@dataclass(kw_only=True)
class AverageOptions(Options):
    """Of this command."""

    sources: list[str] = option(
        help='checkpoints of one network, two or more', flags=('sources',), metavar='PT', nargs='+'
    )
    out: Path = option(help='file to write', metavar='PT')
    shares: list[float] | None = option(
        None,
        'of each in the average, in their order (equal ones)',
        metavar='SHARE',
        nargs='+',
        min=0,
        below=math.inf,
    )
    data: str = option('data/ICDAR.yaml', 'its val chooses ({default})', metavar='YAML')
    imgsz: int | None = option(
        None,
        "longer side, pixels (default: that of the first one's training, or 640)",
        metavar='PX',
        min=32,
        multiple=32,
    )
    device: str = option('', "'cpu' or the number of a GPU (default: a GPU if there is one)")

    def contradictions(self, given: set[str]) -> Iterator[str]:
        if len(self.sources) < 2:
            yield 'two checkpoints at least'
        if self.shares is not None and len(self.shares) != len(self.sources):
            yield f'--shares: {len(self.sources)} of them, one for each checkpoint'
        if self.shares is not None and not 0 < sum(self.shares) < math.inf:
            yield '--shares: 0 or more, and not all 0'
        if self.out.is_dir():
            yield f'--out: {self.out} is a folder'
        if self.out.resolve() in [Path(source).resolve() for source in self.sources]:
            yield f'--out: {self.out} is one of the parts'


def parse_options() -> AverageOptions:
    options = parse(AverageOptions, __doc__)
    options.shares = options.shares or [1.0] * len(options.sources)
    return options


def average(checkpoints: list, fractions: list[float]):
    """The mean of the weights of checkpoints (Wortsman 2022, Model soups, section 2: uniform soup, here with shares).

    Running statistics of normalisation are averaged like weights; what is no floating-point number is the first's.

    Args:
        checkpoints: from read_checkpoint, of one network.
        fractions: shares of each, in any unit.

    Returns:
        A DetectionModel in float32.

    Raises:
        UserError: another architecture, other classes or other anchors than the first's.
    """
    from models.checkpoint import anchors_of, restore, same_anchors
    from models.errors import UserError

    first = checkpoints[0]
    model = restore(first)
    for other in checkpoints[1:]:
        shapes = [{key: value.shape for key, value in c.state.items()} for c in (first, other)]
        if shapes[0] != shapes[1] or first.names != other.names:
            raise UserError(f'{other.path} is of another network than {first.path}')
        if not same_anchors(anchors_of(first), anchors_of(other)):
            raise UserError(f'{other.path} has other anchors than {first.path}')
    state = model.state_dict()
    for key, value in state.items():
        if value.is_floating_point() and not key.endswith('.anchors'):
            weighted = (fraction * c.state[key].float() for c, fraction in zip(checkpoints, fractions, strict=True))
            state[key] = sum(weighted) / sum(fractions)
    model.load_state_dict(state)
    return model


def main() -> None:
    options = parse_options()
    from models.checkpoint import read_checkpoint, ready, save_checkpoint
    from utils.evaluation.evaluate import check_truths
    from utils.evaluation.report import begun_at, checkpoint_entries, evaluate_split, print_scores
    from utils.evaluation.split import EvaluationSplit, require_class_count
    from utils.loading.config import load_data_config
    from utils.runtime.device import select_device
    from utils.runtime.run_folder import command_line, make_folder, versions

    device = select_device(options.device)
    data = load_data_config(options.data)
    checkpoints = [read_checkpoint(file) for file in options.sources]
    model = average(checkpoints, options.shares)
    require_class_count(model, options.sources[0], data)
    imgsz = options.imgsz or model.long_side
    split = EvaluationSplit(data, 'val', imgsz)
    print(split.summary)
    check_truths(split.files)
    make_folder(options.out.parent)
    begun = begun_at(model, imgsz)
    report = evaluate_split(ready(copy.deepcopy(model), device), split, device, choose=True, begun=begun)
    metrics = report.metrics() | report.point.origin_unless_chosen()
    kept = {'data': options.data, 'imgsz': imgsz, 'averaged': options.sources, 'shares': options.shares}
    epoch = max((c.meta['epoch'] for c in checkpoints if c.meta.get('epoch') is not None), default=None)
    entries = {'command': command_line(), 'options': kept, 'epoch': epoch, 'versions': versions()}
    entries |= checkpoint_entries(metrics)
    save_checkpoint(options.out, model, model.state_dict(), **entries)
    print_scores(metrics)
    print(f'weights: {options.out}')


if __name__ == '__main__':
    run_command(main)
