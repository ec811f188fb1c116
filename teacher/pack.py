"""Pack a trained checkpoint for sharing: half precision, without what only resuming needs.

python teacher/pack.py runs/train/demo_teacher/weights/best.pt teacher/demo/yolov5s.pt
python teacher/pack.py runs/train/n_quad/weights/best.pt weights/ocrdistill-n.pt --sizes 640 960 1280

With --sizes the packed file also carries a threshold (for boxes a word scale too) for each of these image sizes, chosen
on val, and for those that the source has thresholds for. Where val has fewer than 20 pictures, they are those of the
source.
"""

import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.errors import UserError
from models.yamls import near_program
from utils.runtime.cli import run_command
from utils.runtime.options import MAX_SIDE, Options, option, parse


@dataclass(kw_only=True)
class PackOptions(Options):
    """Of this command."""

    source: str = option(help='checkpoint of a run', flags=('source',), metavar='PT')
    target: Path = option(help='file to write', flags=('target',), metavar='PT')
    sizes: list[int] | None = option(
        None,
        'choose a threshold for each of these longer sides (default: that of the training alone has one, and keeps it)',
        metavar='PX',
        nargs='+',
        min=32,
        max=MAX_SIDE,
        multiple=32,
    )
    data: str = option('data/ICDAR.yaml', 'with --sizes: its val chooses ({default})', metavar='YAML')
    device: str = option('', "'cpu' or the number of a GPU (default: a GPU if there is one)")

    def contradictions(self, given: set[str]) -> Iterator[str]:
        if not self.sizes and given & {'data', 'device'}:
            yield '--data and --device: have a use with --sizes only'


def choose_points(model, options: PackOptions, sizes: set[int]):
    """({size: its point}, where they are from if val of --data did not choose them); prints the figures of each. Raises
    UserError where nothing is found at a size."""
    from models.checkpoint import ready
    from ocrdistill.points import Point
    from utils.evaluation.evaluate import check_truths
    from utils.evaluation.report import FOUND_NOTHING, begun_at, evaluate_split, print_scores
    from utils.evaluation.split import EvaluationSplit, require_class_count
    from utils.loading.config import load_data_config
    from utils.runtime.device import select_device

    device, data = select_device(options.device), load_data_config(options.data)
    require_class_count(model, options.source, data)
    network, points, origin = ready(copy.deepcopy(model), device), {}, {}
    splits = {size: EvaluationSplit(data, 'val', size) for size in sorted(sizes)}
    check_truths(next(iter(splits.values())).files)
    for size, split in splits.items():
        begun = begun_at(network, size)
        report = evaluate_split(network, split, device, choose=True, begun=begun, title=f'val at {size}')
        point, metrics = report.point, report.metrics()
        if FOUND_NOTHING in point.origin:
            raise UserError(f'{size} pixels: {FOUND_NOTHING}, so no threshold can be chosen for this size')
        points[size], origin = Point(point.threshold, point.scale), point.origin_unless_chosen()
        print(f'{size} pixels: ', end='')
        print_scores(metrics | origin)
    return points, origin


def main() -> None:
    options = parse(PackOptions, __doc__)
    from models.checkpoint import read_checkpoint, restore, save_checkpoint
    from ocrdistill.points import Point, nearest, to_plain
    from utils.runtime.run_folder import make_folder
    from utils.runtime.words import megabytes

    source = near_program(options.source)
    if options.target.is_dir() or (options.target.exists() and source.exists() and options.target.samefile(source)):
        raise UserError(
            f'{options.target} is {"a folder" if options.target.is_dir() else "the source"}: name a new file'
        )
    checkpoint = read_checkpoint(options.source)
    make_folder(options.target.parent)
    model = restore(checkpoint).half()
    entries = {key: value for key, value in checkpoint.meta.items() if key != 'resume'}
    if options.sizes:
        # Of the rounded weights, which are those that will be used.
        trained_at = (entries.get('options') or {}).get('imgsz')
        sizes = {*options.sizes, *model.points}
        if trained_at and model.conf_threshold is not None:  # None: as of a last.pt
            sizes.add(trained_at)
        points, origin = choose_points(copy.deepcopy(model).float(), options, sizes)
        threshold, scale = nearest(points, trained_at or max(points), Point())
        entries |= {'conf_threshold': threshold, 'word_scale': list(scale), 'conf_threshold_from': None, **origin}
        entries |= {'points': to_plain(points), 'chosen_on': None if origin else options.data}
    save_checkpoint(options.target, model, model.state_dict(), **entries)
    print(f'{options.target}: {megabytes(options.target.stat().st_size)}')


if __name__ == '__main__':
    run_command(main)
