"""Pack a trained checkpoint for sharing: half precision, without what only resuming needs.

python teacher/pack.py runs/train/demo_teacher/weights/best.pt teacher/demo/yolov5s.pt
python teacher/pack.py runs/train/n_quad/weights/best.pt weights/ocrdistill-n.pt --sizes 640 960 1280

With --sizes the packed file also carries a threshold (for boxes a word scale too) for each of these image sizes, chosen
on val.
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


def choose_points(model, options: PackOptions):
    """(the point of each size, chosen on val of --data, with the figures of each printed; where those points are from
    that val did not choose)."""
    from models.checkpoint import ready
    from ocrdistill.points import Point
    from utils.evaluation.evaluate import check_truths
    from utils.evaluation.report import evaluate_split, print_scores
    from utils.evaluation.split import EvaluationSplit, require_class_count
    from utils.loading.config import load_data_config
    from utils.runtime.device import select_device

    device, data = select_device(options.device), load_data_config(options.data)
    require_class_count(model, options.source, data)
    network, points, origins = ready(copy.deepcopy(model), device), {}, {}
    splits = {size: EvaluationSplit(data, 'val', size) for size in sorted(set(options.sizes))}
    check_truths(next(iter(splits.values())).files)
    for size, split in splits.items():
        report = evaluate_split(network, split, device, choose=True, title=f'val at {size}')
        points[size] = Point(report.point.threshold, report.point.scale)
        origins |= report.point.origin_unless_chosen()
        print(f'{size} pixels: ', end='')
        print_scores(report.metrics())
    return points, origins


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
        points, origins = choose_points(copy.deepcopy(model).float(), options)
        trained_at = (entries.get('options') or {}).get('imgsz')
        own = Point(entries.get('conf_threshold'), tuple(entries.get('word_scale') or (1.0, 1.0)))
        if own.conf_threshold is None or trained_at in points:  # None: as of a last.pt
            threshold, scale = nearest(points, trained_at or max(points), Point())
            entries |= {'conf_threshold': threshold, 'word_scale': list(scale), 'conf_threshold_from': None} | origins
        elif trained_at:
            points[trained_at] = own
        entries |= {'points': to_plain(points), 'chosen_on': options.data}
    save_checkpoint(options.target, model, model.state_dict(), **entries)
    print(f'{options.target}: {megabytes(options.target.stat().st_size)}')


if __name__ == '__main__':
    run_command(main)
