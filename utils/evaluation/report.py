"""Evaluate a model on a split, and write down what came out: metrics.json, curves, images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.exported import ExportedModel
from models.yolo import DetectionModel
from ocrdistill.nms import usual_iou
from ocrdistill.points import DEFAULT_THRESHOLD, UNSCALED
from utils.evaluation.evaluate import QUAD_SCORES, SCORES, Evaluation, evaluate
from utils.evaluation.icdar import HEIGHT_SCALES, LOWEST_THRESHOLD, WIDTH_SCALES, write_submission
from utils.evaluation.split import EvaluationSplit
from utils.loading.images import load_image
from utils.loading.listing import selected_on_test
from utils.runtime.run_folder import write_json
from utils.runtime.words import counted

SHOWN = 8  # images in a grid
FEWEST = 20  # images on which a threshold is chosen in place of that of the starting weights
RESULTS = (  # files that a report may write
    *('metrics.json', 'submit.zip', 'predictions.jpg'),
    *('pr_curve.png', 'f1_curve.png', 'confusion.png', 'icdar_curve.png'),
)
CHOSEN = 'chosen on these pictures, the validation split'
FOUND_NOTHING = 'nothing was found on val'


@dataclass(frozen=True)
class OperatingPoint:
    """Where the ICDAR scores are taken.

    Attributes:
        threshold: confidence.
        scale: of the words' width and height, see boxes_to_quads.
        origin: of the threshold, in words.
    """

    threshold: float
    scale: tuple[float, float]
    origin: str

    def origin_unless_chosen(self) -> dict[str, str]:
        """{'conf_threshold_from': origin}, as files keep it; nothing where these pictures chose the threshold."""
        return {} if self.origin == CHOSEN else {'conf_threshold_from': self.origin}


@dataclass
class Report:
    """What a model reached on a split.

    Attributes:
        evaluation: scores, curves, and what was found in every image.
        split: that it is for.
        point: where its ICDAR scores are taken.
    """

    evaluation: Evaluation
    split: EvaluationSplit
    point: OperatingPoint

    @property
    def scores(self) -> dict[str, float]:
        """precision, recall, map50, map50_95; of a network with quads also quad_map50, quad_map50_95."""
        return self.evaluation.scores

    def metrics(self, **context: Any) -> dict[str, Any]:
        """The content of metrics.json: scores, with the protocol they are for.

        Args:
            context: more entries (weights, imgsz, precision of the arithmetic ...).
        """
        evaluation, data = self.evaluation, self.split.data
        icdar = evaluation.icdar(self.point.scale)
        shapes = 'quads' if evaluation.quads else 'boxes times word_scale (width, height) about their centres'
        overlap = usual_iou(evaluation.quads)
        protocol = f'; icdar_*: ICDAR2015 task 4.1 at conf_threshold, NMS IoU {overlap}, {shapes}'
        return {
            **evaluation.scores,
            **(icdar.at(self.point.threshold) if icdar else {}),
            'conf_threshold': self.point.threshold,
            'word_scale': list(self.point.scale),
            'split': self.split.name,
            'pictures': len(evaluation.images),
            'data': str(data.file),
            'dont_care': data.dont_care,
            'selected_on_test': selected_on_test(data),
            'protocol': evaluation.protocol + (protocol if icdar else ''),
            'speed_ms': {name: round(value, 2) for name, value in evaluation.speed.items()},
            **context,
        }

    def write(self, folder: Path, metrics: dict[str, Any], plots: bool = True) -> None:
        """Write metrics.json and, with `plots`, curves and images of what is right, wrong and missed."""
        if plots:
            self._draw(folder, metrics)
        write_json(folder / 'metrics.json', metrics)  # last: a run that has it is complete

    def _draw(self, folder: Path, metrics: dict[str, Any]) -> None:
        from utils.evaluation.plots import plot_confusion, plot_f1_curve, plot_icdar_curve, plot_pr_curve

        evaluation, data = self.evaluation, self.split.data
        curves = evaluation.details['curves']
        subject = f'{self.split.name} of {data.file.name}, {counted(len(evaluation.images), "picture")}'
        regions = f'{subject}, dont_care: {data.dont_care}'  # which hmean ignores always
        plot_pr_curve(curves, folder / 'pr_curve.png', data.names, regions)
        plot_f1_curve(curves, folder / 'f1_curve.png', data.names, regions)
        plot_confusion(evaluation.confusion.matrix, data.names, folder / 'confusion.png')
        icdar = evaluation.icdar(self.point.scale)
        if icdar:
            chosen = self.point.threshold, metrics['icdar_hmean']
            plot_icdar_curve(icdar.sweep()[1], folder / 'icdar_curve.png', *chosen, subject)
        self._draw_predictions(folder / 'predictions.jpg', subject)

    def _draw_predictions(self, file: Path, subject: str) -> None:
        """The first images with what is right, wrong and missed at the threshold."""
        from utils.evaluation.grids import plot_predictions
        from utils.evaluation.verdicts import judge_image

        evaluation, shown = self.evaluation, self.evaluation.images[:SHOWN]
        truths = evaluation.truths[:SHOWN] if evaluation.truths else [None] * len(shown)
        threshold, scale = self.point.threshold, self.point.scale
        plot_predictions(
            [load_image(image.path) for image in shown],
            [judge_image(image, threshold, scale, truth) for image, truth in zip(shown, truths, strict=True)],
            [Path(image.path).name for image in shown],
            file,
            self.split.data.names,
            f'{subject}; the first {len(shown)} at confidence {threshold:.2f} or more; right: IoU over 0.5'
            f'{", as in hmean" if evaluation.truths else ""}',
        )

    def write_submission(self, file: Path) -> None:
        """The words over the threshold, as hmean takes them, in the form that the Robust Reading site takes."""
        quads = {}
        for image in self.evaluation.images:
            over = (image.words[:, 4] >= self.point.threshold).numpy()
            quads[Path(image.path).name] = image.icdar_quads(self.point.scale)[over]
        write_submission(file, quads)


def evaluate_split(
    model: DetectionModel | ExportedModel,
    split: EvaluationSplit,
    device: torch.device,
    *,
    workers: int = 0,
    part: tuple[int, int] = (0, 1),
    choose: bool = False,
    begun: OperatingPoint | None = None,
    threshold: float | None = None,
    scale: tuple[float, float] | None = None,
    **options: Any,
) -> Report:
    """Evaluate a model on a split.

    Args:
        model: in eval mode, on `device`; or an exported file's.
        workers: loading processes.
        part: (rank, world) of the processes that share the split; all get the whole's report.
        choose: choose the threshold and the word scale on these images, for val only; otherwise they are the model's.
        begun: of the weights that the training began with, see choose_point.
        threshold: in place of both.
        scale: the same.
        options: of evaluate().

    Raises:
        ValueError: a choice on another split than val.
    """
    if choose and split.name != 'val':
        raise ValueError(f'threshold and word scale are chosen on val, never on {split.name}')
    evaluation = evaluate(model, split.loader(workers, part, pin=device.type == 'cuda'), device, **options)
    if choose:
        point = choose_point(evaluation, scale, begun)
    else:
        point = point_of(model, split.imgsz, scale)
    if threshold is not None:
        point = OperatingPoint(threshold, point.scale, '--icdar-conf')
    return Report(evaluation, split, point)


def point_of(
    model: DetectionModel | ExportedModel, imgsz: int, scale: tuple[float, float] | None = None
) -> OperatingPoint:
    """The operating point that a model carries for images of this size, or the default."""
    threshold, own_scale = model.point_at(imgsz)
    scale = scale or own_scale
    if threshold is None:
        return OperatingPoint(DEFAULT_THRESHOLD, scale, 'the default: the checkpoint holds none')
    of_data = f', chosen on val of {model.trained_on}' if model.trained_on else ''
    return OperatingPoint(threshold, scale, f'the checkpoint{of_data}')


def begun_at(model: DetectionModel, imgsz: int) -> OperatingPoint | None:
    """The operating point that weights carry to what is made of them; None where none was chosen for them."""
    return None if model.point_at(imgsz).conf_threshold is None else point_of(model, imgsz)


def choose_point(
    evaluation: Evaluation, scale: tuple[float, float] | None = None, begun: OperatingPoint | None = None
) -> OperatingPoint:
    """The operating point of the best hmean, with this scale if one is given. For val only.

    Where nothing is found, no point is better than another: it is the one that training began with, or the default.
    The former also stays where there are too few images to choose on.
    """
    count = len(evaluation.images)
    if begun is not None and count < FEWEST:
        reason = f'val has {counted(count, "picture")}, {FEWEST} are needed to choose'
        return OperatingPoint(begun.threshold, scale or begun.scale, f'those of the starting weights, as {reason}')
    scale_found = scale or choose_scale(evaluation)
    if not best_score(evaluation, scale_found):
        if begun is None:
            return OperatingPoint(DEFAULT_THRESHOLD, scale or UNSCALED, f'the defaults, as {FOUND_NOTHING}')
        origin = f'those of the starting weights, as {FOUND_NOTHING}'
        return OperatingPoint(begun.threshold, scale or begun.scale, origin)
    return OperatingPoint(choose_threshold(evaluation, scale_found), scale_found, CHOSEN)


def best_score(evaluation: Evaluation, scale: tuple[float, float]) -> float:
    """The highest hmean of any threshold, or recall at the best F1 where there is no ICDAR ground truth."""
    icdar = evaluation.icdar(scale)
    return float(icdar.sweep()[1]['hmean'].max()) if icdar else evaluation.scores['recall']


def choose_scale(evaluation: Evaluation) -> tuple[float, float]:
    """The word scale (see boxes_to_quads) of the best hmean: its height first, then its width. For val only; quads need
    none."""
    if evaluation.truths is None or evaluation.quads:
        return UNSCALED

    height = max(HEIGHT_SCALES, key=lambda height: best_score(evaluation, (1.0, height)))
    return max(((width, height) for width in WIDTH_SCALES), key=lambda scale: best_score(evaluation, scale))


def choose_threshold(evaluation: Evaluation, scale: tuple[float, float]) -> float:
    """The confidence of the best hmean, or of the best F1 where there is no ICDAR ground truth. For val only."""
    icdar = evaluation.icdar(scale)
    if icdar:
        return float(icdar.sweep()[0])
    return max(float(evaluation.details['best_f1_conf']), LOWEST_THRESHOLD)  # hmean on other data must be possible


def checkpoint_entries(metrics: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint keeps of its metrics.json: threshold, word scale, their origin if not chosen, scores."""
    names = SCORES + QUAD_SCORES
    scores = {name: value for name, value in metrics.items() if name in names or name.startswith('icdar_')}
    point = {name: metrics.get(name) for name in ('conf_threshold', 'word_scale', 'conf_threshold_from')}
    return {**point, 'metrics': scores}


def print_scores(metrics: dict[str, Any]) -> None:
    """The scores as a person reads them, with their protocol."""
    print(
        f'{metrics["split"]} of {metrics["data"]}, {counted(metrics["pictures"], "picture")}, '
        f"dont_care: {metrics['dont_care']}: YOLOv5's mAP50 {metrics['map50']:.4f}, "
        f'mAP50-95 {metrics["map50_95"]:.4f}, '
        f'precision {metrics["precision"]:.4f}, recall {metrics["recall"]:.4f} (at the best F1)'
    )
    if 'quad_map50' in metrics:
        print(f'quads: mAP50 {metrics["quad_map50"]:.4f}, mAP50-95 {metrics["quad_map50_95"]:.4f}')
    if 'icdar_hmean' in metrics:
        origin = metrics.get('conf_threshold_from')
        width, height = metrics['word_scale']
        scaled = f', boxes times {width:g} x {height:g}' if (width, height) != UNSCALED else ''
        print(
            f'ICDAR2015 task 4.1 at confidence {metrics["conf_threshold"]:.2f}{f" ({origin})" if origin else ""}'
            f'{scaled}: '
            f'precision {metrics["icdar_precision"]:.4f}, recall {metrics["icdar_recall"]:.4f}, '
            f'hmean {metrics["icdar_hmean"]:.4f}'
        )
    if metrics['selected_on_test']:
        print('val is the test split here: what is chosen on val is selected on test, too good by an unknown amount')
