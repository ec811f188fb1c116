"""Turn an Evaluation into a run's files: metrics.json, curves, pictures."""

from pathlib import Path

import numpy as np
import torch

from utils.evaluation.evaluate import WORD_NMS_IOU, Evaluation, ImageResult
from utils.evaluation.icdar import HEIGHT_SCALES, LOWEST_THRESHOLD, UNSCALED, WIDTH_SCALES
from utils.loading.config import DataConfig
from utils.loading.images import load_image
from utils.runtime.run_folder import write_json

SHOWN = 8  # pictures in a grid


def choose_scale(evaluation: Evaluation) -> tuple[float, float]:
    """The word scale (see boxes_to_quads) of the best hmean: its height first, then its width. For val only; quads need
    none."""
    if evaluation.truths is None or evaluation.quads:
        return UNSCALED

    def hmean(scale: tuple[float, float]) -> float:
        return evaluation.icdar(scale).sweep()[1]['hmean'].max()

    height = max(HEIGHT_SCALES, key=lambda height: hmean((1.0, height)))
    return max(((width, height) for width in WIDTH_SCALES), key=hmean)


def choose_threshold(evaluation: Evaluation, scale: tuple[float, float]) -> float:
    """The confidence of the best hmean, or of the best F1 where there is no ICDAR ground truth. For val only."""
    icdar = evaluation.icdar(scale)
    if icdar:
        return float(icdar.sweep()[0])
    return max(float(evaluation.details['best_f1_conf']), LOWEST_THRESHOLD)  # hmean on other data must be possible


def figures(
    evaluation: Evaluation, data: DataConfig, split: str, threshold: float, scale: tuple[float, float], **context
) -> dict:
    """The content of metrics.json: scores, with the protocol they are for.

    Args:
        threshold: confidence that the ICDAR figures are for, chosen on val.
        scale: of the words that they are for, chosen on val; see boxes_to_quads.
        context: more entries (weights, imgsz, precision of the arithmetic ...).
    """
    icdar = evaluation.icdar(scale)
    return {
        **evaluation.scores,
        **(icdar.at(threshold) if icdar else {}),
        'conf_threshold': threshold,
        'word_scale': list(scale),
        'split': split,
        'pictures': len(evaluation.images),
        'data': str(data.file),
        'dont_care': data.dont_care,
        'selected_on_test': data.selected_on_test,
        'protocol': evaluation.protocol
        + (
            f'; icdar_*: ICDAR2015 task 4.1 at conf_threshold, NMS IoU {WORD_NMS_IOU}, '
            + ('quads' if evaluation.quads else 'boxes times word_scale (width, height) about their centres')
            if icdar
            else ''
        ),
        'speed_ms': {name: round(value, 2) for name, value in evaluation.speed.items()},
        **context,
    }


def write_report(folder: Path, evaluation: Evaluation, content: dict, data: DataConfig, plots: bool = True) -> None:
    """Write metrics.json and, with `plots`, curves and grids of labels beside predictions."""
    if plots:
        _draw(folder, evaluation, content, data)
    write_json(folder / 'metrics.json', content)  # last: a run that has it is complete


def _draw(folder: Path, evaluation: Evaluation, content: dict, data: DataConfig) -> None:
    """Curves, the confusion matrix, and a grid of labels beside predictions."""
    from utils.evaluation.plots import plot_confusion, plot_f1_curve, plot_icdar_curve, plot_pr_curve

    curves = evaluation.details['curves']
    subject = f'{content["split"]} of {data.file.name}, {content["pictures"]} pictures'
    regions = f'{subject}, dont_care: {data.dont_care}'  # which hmean ignores always
    plot_pr_curve(curves, folder / 'pr_curve.png', data.names, regions)
    plot_f1_curve(curves, folder / 'f1_curve.png', data.names, regions)
    plot_confusion(evaluation.confusion.matrix, data.names, folder / 'confusion.png')
    icdar = evaluation.icdar(tuple(content['word_scale']))
    if icdar:
        chosen = content['conf_threshold'], content['icdar_hmean']
        plot_icdar_curve(icdar.sweep()[1], folder / 'icdar_curve.png', *chosen, subject)
    draw_predictions(evaluation.images[:SHOWN], content['conf_threshold'], folder / 'predictions.jpg', data)


def draw_predictions(images: list[ImageResult], threshold: float, file: Path, data: DataConfig) -> None:
    """Labels beside the predictions over the threshold."""
    from utils.evaluation.plots import plot_predictions

    plot_predictions(
        [load_image(image.path) for image in images],
        [image.labels for image in images],
        [image.ignore for image in images],
        [image.words[image.words[:, 4] >= threshold] for image in images],
        file,
        data.names,
    )


def print_scores(content: dict) -> None:
    """The figures as a person reads them, with their protocol."""
    print(
        f'{content["split"]} of {content["data"]}, {content["pictures"]} pictures, dont_care: {content["dont_care"]}: '
        f"YOLOv5's mAP50 {content['map50']:.4f}, mAP50-95 {content['map50_95']:.4f}, "
        f'precision {content["precision"]:.4f}, recall {content["recall"]:.4f} (at the best F1)'
    )
    if 'quad_map50' in content:
        print(f'quads: mAP50 {content["quad_map50"]:.4f}, mAP50-95 {content["quad_map50_95"]:.4f}')
    if 'icdar_hmean' in content:
        origin = content.get('conf_threshold_from')
        width, height = content['word_scale']
        scaled = f', boxes times {width:g} x {height:g}' if (width, height) != UNSCALED else ''
        print(
            f'ICDAR2015 task 4.1 at confidence {content["conf_threshold"]:.2f}{f" ({origin})" if origin else ""}'
            f'{scaled}: '
            f'precision {content["icdar_precision"]:.4f}, recall {content["icdar_recall"]:.4f}, '
            f'hmean {content["icdar_hmean"]:.4f}'
        )
    if content['selected_on_test']:
        print('val is the test split here: what is chosen on val is selected on test, too good by an unknown amount')


def anchor_recall(
    labels: list[np.ndarray], shapes: np.ndarray, anchors: torch.Tensor, imgsz: int, limit: float
) -> float:
    """Share of targets that some anchor can answer for.

    Args:
        labels: per picture (n, 5) class, x, y, w, h (0..1).
        shapes: (pictures, 2) width, height.
        anchors: (levels, 3, 2) pixels.
        imgsz: longer side of the network's input.
        limit: anchor_t, the greatest factor between a target's and an anchor's side.
    """
    sizes = [rows[:, 3:5] * shape * (imgsz / shape.max()) for rows, shape in zip(labels, shapes, strict=True)]
    sizes = torch.from_numpy(np.concatenate(sizes)).float()
    if not len(sizes):
        return 1.0
    ratio = sizes[:, None] / anchors.detach().cpu().view(1, -1, 2)
    return float((torch.maximum(ratio, 1 / ratio).amax(2).amin(1) < limit).float().mean())
