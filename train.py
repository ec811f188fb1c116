"""Train a YOLOv5 text detector of any size, from scratch or from weights.

python train.py --cfg models/yolov5x.yaml --data data/ICDAR.yaml --name x
"""

import sys

from models.errors import UserError
from utils.runtime.cli import run_command
from utils.runtime.options import parse
from utils.training.options import FROM_SCRATCH, TrainOptions


def main() -> None:
    if len(sys.argv) == 1:  # 300 epochs are not what somebody wants who tries what the command does
        raise UserError('name the data to train on, such as --data data/ICDAR.yaml; --help lists all options')
    options = parse(TrainOptions, __doc__)
    from utils.training.criterion import DetectionCriterion
    from utils.training.resolve import resolve
    from utils.training.run import TrainingRun, seed_everything

    run = TrainingRun(resolve(options))
    seed_everything(run.options.seed)
    model = run.name_classes(build_model(run.options, run.data.names, run.checkpoint))
    criterion = DetectionCriterion(model, run.hyp, run.input_size, run.options.amp)
    run.train(model, criterion)


def build_model(options: TrainOptions, names: dict[int, str], resumed):
    """The model of --cfg and --weights, with the entries of the weights that fit it; or that of the resumed run."""
    from models.checkpoint import anchors_of, has_quads, read_checkpoint, same_anchors
    from models.yolo import DetectionModel
    from utils.training.run import start_from

    if resumed is not None:
        return DetectionModel(resumed.yaml, nc=len(names), anchors=anchors_of(resumed))
    if not options.weights:
        return DetectionModel(options.cfg or FROM_SCRATCH, nc=len(names), quads=options.quads or None)
    checkpoint = read_checkpoint(options.weights)
    model = DetectionModel(
        options.cfg or checkpoint.yaml,
        nc=len(names),
        anchors=None if options.cfg else anchors_of(checkpoint),
        quads=options.quads or has_quads(checkpoint) or None,
    )
    found = anchors_of(checkpoint)
    if found is not None and not same_anchors(found, model.yaml['anchors']):
        raise UserError(f'{options.weights} has other anchors than {options.cfg}; leave out --cfg to keep them')
    start_from(model, checkpoint, names)
    return model


if __name__ == '__main__':
    run_command(main)
