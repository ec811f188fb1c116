"""Small figures around a run."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.checkpoint import load_model
from models.yolo import DetectionModel
from ocrdistill.points import Point
from tests.support import ROOT, small_cfg
from utils.evaluation.evaluate import Evaluation, ImageResult
from utils.evaluation.metrics import ConfusionMatrix, DetectionMetrics
from utils.evaluation.report import (
    FEWEST,
    OperatingPoint,
    choose_point,
    choose_scale,
    choose_threshold,
    evaluate_split,
    point_of,
)
from utils.evaluation.split import EvaluationSplit
from utils.loading.config import load_data_config
from utils.training.anchors import anchor_recall

LABELS = [np.array([[0, 0.5, 0.5, 0.1, 0.2], [0, 0.5, 0.5, 0.001, 0.9]], np.float32)]
SHAPES = np.array([[1280, 640]])


def test_anchor_recall_by_hand():
    """At 640 the boxes are 64 x 64 and 0.64 x 288 pixels; 20 x 30 is within a factor of 4 of the first alone."""
    anchors = torch.tensor([[[20.0, 30.0]]])
    assert anchor_recall(LABELS, SHAPES, anchors, [640], 4.0) == pytest.approx(0.5)
    assert anchor_recall([np.zeros((0, 5), np.float32)], SHAPES, anchors, [640], 4.0) == 1.0


def evaluation_of(folder, words: list[str], boxes: list[list[float]], scores: list[float]) -> Evaluation:
    """One picture with official ground truth, and what was found in it."""
    for name in ('images', 'gt'):
        (folder / name / 'test_icdar').mkdir(parents=True, exist_ok=True)
    (folder / 'gt/test_icdar/gt_img_1.txt').write_text('\n'.join(words))
    found = torch.tensor([[*box, score, 0] for box, score in zip(boxes, scores, strict=True)])
    path, none = str(folder / 'images/test_icdar/img_1.jpg'), torch.zeros(0, 4)
    image = ImageResult(path, (400, 400), found, found, torch.zeros(0, 5), none)
    details = DetectionMetrics(1).compute()
    return Evaluation({}, {}, details, ConfusionMatrix(1), {}, [image], '')


def test_scale_and_threshold_of_leaning_words(tmp_path):
    """The upright boxes of words at 20 degrees are too high for them; .8 of the height is the first that will do."""
    corners = np.array(
        [[-25, -18], [31, 3], [25, 18], [-31, -3]]
    )  # 60 x 16 pixels; tests/evaluation/test_icdar.py has its IoUs
    centres = np.array([[100, 100], [200, 100], [100, 200]])
    words = [','.join(map(str, (corners + centre).flatten())) + ',word' for centre in centres]
    boxes = [[*((corners + c).min(0)), *((corners + c).max(0))] for c in centres] + [[300, 300, 350, 320]]
    found = evaluation_of(tmp_path, words, boxes, [0.9, 0.8, 0.7, 0.3])
    assert found.icdar().sweep()[1]['hmean'].max() == 0
    scale = choose_scale(found)
    assert scale == (1, 0.8)
    assert found.icdar(scale).at(0.5)['icdar_hmean'] == 1
    assert choose_threshold(found, scale) == 0.31  # the lowest over the false alarm


def test_scale_of_boxes_that_are_too_high_and_too_wide(tmp_path):
    """Words of 60 x 10 pixels: a box 22 high is right from .85 on, one 124 wide at .94 only."""
    words = ['20,10,80,10,80,20,20,20,word', '120,110,180,110,180,120,120,120,word']
    found = evaluation_of(tmp_path, words, [[20, 4, 80, 26], [88, 109, 212, 121]], [0.9, 0.8])
    assert [found.icdar(scale).at(0.5)['icdar_recall'] for scale in ((1.0, 1.0), (1.0, 0.85))] == [0, 0.5]
    assert choose_scale(found) == (0.94, 0.85)
    assert found.icdar((0.94, 0.85)).at(0.5)['icdar_hmean'] == 1


def test_level_words_keep_their_boxes(tmp_path):
    """Where every scale finds the word, the box as it is is kept; without ground truth too."""
    found = evaluation_of(tmp_path, ['10,10,90,10,90,30,10,30,word'], [[10, 10, 90, 30]], [0.9])
    assert choose_scale(found) == (1, 1)
    found = evaluation_of(tmp_path / 'other', ['10,10,90,10,90,30,10,30,word'], [[10, 10, 90, 30]], [0.9])
    (tmp_path / 'other/gt/test_icdar/gt_img_1.txt').unlink()
    assert found.truths is None and found.icdar() is None and choose_scale(found) == (1, 1)


BEGUN = OperatingPoint(0.31, (0.91, 0.75), 'the checkpoint')


def test_few_pictures_keep_the_threshold_of_the_starting_weights(tmp_path):
    """One picture is too few; of twenty a threshold is chosen, but not where none of the words is found."""
    found = evaluation_of(tmp_path, ['10,10,90,10,90,30,10,30,word'], [[10, 10, 90, 30]], [0.9])
    kept = choose_point(found, begun=BEGUN)
    assert (kept.threshold, kept.scale) == (0.31, (0.91, 0.75))
    assert kept.origin == 'those of the starting weights, as val has 1 picture, 20 are needed to choose'
    found.images *= FEWEST
    assert choose_point(found, begun=BEGUN) == choose_point(found)
    assert choose_point(found).threshold == 0.05 and choose_point(found).scale == (1, 1)


@pytest.mark.parametrize('truth', [True, False])
def test_where_nothing_is_found_no_threshold_is_chosen(tmp_path, truth):
    found = evaluation_of(tmp_path, ['10,10,90,10,90,30,10,30,word'], [[300, 300, 390, 320]], [0.9])
    found.images *= FEWEST
    found.scores['recall'] = 0.0
    if not truth:
        (tmp_path / 'gt/test_icdar/gt_img_1.txt').unlink()
    kept, default = choose_point(found, begun=BEGUN), choose_point(found)
    assert (kept.threshold, kept.scale) == (0.31, (0.91, 0.75)) and 'nothing was found on val' in kept.origin
    assert (default.threshold, default.scale) == (0.25, (1, 1)) and 'nothing was found on val' in default.origin


def test_a_models_own_point():
    """What a model carries, and what is asked for in its place."""
    model = DetectionModel(small_cfg())
    assert point_of(model, 640).threshold == 0.25 and 'holds none' in point_of(model, 640).origin
    model.conf_threshold, model.word_scale, model.trained_on = 0.4, (1.0, 0.9), 'a.yaml'
    found = point_of(model, 640)
    assert (found.threshold, found.scale, found.origin) == (0.4, (1, 0.9), 'the checkpoint, chosen on val of a.yaml')
    assert point_of(model, 640, (0.8, 0.7)).scale == (0.8, 0.7)
    model.points = {640: Point(0.5, (0.7, 0.6)), 1280: Point(0.6)}
    assert [point_of(model, size).threshold for size in (320, 640, 1280)] == [0.5, 0.5, 0.6]
    assert point_of(model, 640).scale == (0.7, 0.6)


def test_nothing_is_chosen_on_test():
    with pytest.raises(ValueError, match='never on test'):
        evaluate_split(None, SimpleNamespace(name='test'), torch.device('cpu'), choose=True)


def test_report_of_a_split(tiny_data, tmp_path):
    """The model's point, a chosen one and one that is asked for: the same scores of boxes, hmean at the point."""
    model, cpu = load_model(ROOT / 'teacher/demo/yolov5n.pt'), torch.device('cpu')
    split = EvaluationSplit(load_data_config(tiny_data), 'val', 320)
    own, chosen = (evaluate_split(model, split, cpu, choose=choose) for choose in (False, True))
    asked = evaluate_split(model, split, cpu, threshold=0.9, scale=(1, 0.5))
    assert own.point.threshold == model.conf_threshold
    assert chosen.point == choose_point(own.evaluation)
    assert (asked.point.threshold, asked.point.scale) == (0.9, (1, 0.5))
    assert own.scores == chosen.scores == asked.scores and own.scores['map50'] > 0.2
    hmeans = [report.metrics()['icdar_hmean'] for report in (own, chosen, asked)]
    assert hmeans[1] == max(hmeans) > hmeans[2]
    metrics = chosen.metrics(epoch=3)
    assert (metrics['split'], metrics['pictures'], metrics['epoch']) == ('val', len(split), 3)
    chosen.write(tmp_path, metrics, plots=False)
    assert [file.name for file in tmp_path.iterdir()] == ['metrics.json']
