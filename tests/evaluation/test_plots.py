"""Plots: files that OpenCV reads back at a plausible size, with ink where it belongs; empty inputs too."""

import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from models.errors import UserError
from ocrdistill.drawing import draw_words
from ocrdistill.letterbox import Letterbox
from ocrdistill.rows import corners_of
from utils.evaluation import grids, plots
from utils.evaluation.metrics import ConfusionMatrix, DetectionMetrics
from utils.evaluation.verdicts import MISSED, RIGHT, WRONG, Verdict
from utils.loading.batches import Batch, Sample, collate
from utils.loading.labels import Annotations

WORD = torch.tensor([[0.0, 10, 10, 60, 30]])
FOUND = torch.tensor([[11.0, 10, 60, 31, 0.8, 0], [200, 200, 250, 220, 0.4, 0]])


def read(file, least=(100, 100)) -> np.ndarray:
    """The picture (H, W, 3) RGB in a file, which is alone in its folder but for csv files, and larger than `least`."""
    assert [path.name for path in file.parent.iterdir() if path.suffix != '.csv'] == [file.name]
    image = cv2.imread(str(file))
    assert image is not None
    assert image.shape[0] >= least[0]
    assert image.shape[1] >= least[1]
    return image[..., ::-1]


def near(image: np.ndarray, color, tolerance: int = 40) -> np.ndarray:
    """(H, W) bool: pixels of about this colour."""
    return (np.abs(image.astype(int) - np.array(color)) <= tolerance).all(-1)


def curves(nc: int, labels=WORD, detections=FOUND) -> dict:
    metrics = DetectionMetrics(nc)
    metrics.update(detections, labels)
    return metrics.compute()['curves']


NOTHING = {'labels': torch.zeros(0, 5), 'detections': torch.zeros(0, 6)}


# Curves ---------------------------------------------------------------------------------------------------------------


def test_results(tmp_path):
    rows = [
        {'epoch': e, 'train/box': 1 / (e + 1), 'train/obj': 0.5, 'val/box': 2 / (e + 1)}
        | {'val/map50': e / 9 if e == 8 else np.nan, 'lr': e, 'val/precision': 0.25, 'unused': np.nan}
        | ({} if e < 3 else {'distill/hint.hint': e})
        for e in range(9)
    ]
    columns = plots.columns_of(rows)
    assert 'unused' not in columns
    assert columns['train/box'][1] == 0.5
    assert np.isnan(columns['distill/hint.hint'][:3]).all()
    panels, constant = plots.results_panels({name: values for name, values in columns.items() if name != 'epoch'})
    assert {panel.title: list(panel.lines) for panel in panels} == {
        'mAP on val': ['map50'],
        'box loss': ['train', 'val'],
        'learning rate': ['lr'],
        'distill/hint.hint': ['hint.hint'],
    }
    assert constant == ['train/obj', 'val/precision']  # they say nothing; a single value (of --noval) is not constant
    plots.plot_results(rows, tmp_path / 'results.png')
    image = read(tmp_path / 'results.png', (400, 600))
    assert near(image, (31, 111, 180)).sum() > 200  # train's blue
    assert near(image, (224, 123, 0)).sum() > 50  # val's orange


def test_terms_of_a_kind_share_a_panel():
    names = ('train/box', 'train/logit_obj', 'train/logit_box', 'weighted/box', 'weighted/logit_obj', 'val/box')
    columns = {name: np.array([4.0, 2.0, 1.0]) for name in names} | {'train/logit_box': np.array([0.0, 8.0, 2.0])}
    panels, _ = plots.results_panels(columns)
    lines = {panel.title: panel.lines for panel in panels}
    assert list(lines) == ['box loss', 'weight x term: parts of the loss', "teacher's terms, first epoch = 1"]
    assert {name: list(values) for name, values in lines["teacher's terms, first epoch = 1"].items()} == {
        'logit_obj': [1, 0.5, 0.25],
        'logit_box': [0, 1, 0.25],  # of the first value that is not 0
    }


@pytest.mark.parametrize('rows', [[], [{'epoch': 0, 'lr': 0.1}]], ids=['none', 'one epoch'])
def test_results_of_a_run_that_just_began(tmp_path, rows):
    plots.plot_results(rows, tmp_path / 'out.png')
    read(tmp_path / 'out.png')


@pytest.mark.parametrize('draw', [plots.plot_pr_curve, plots.plot_f1_curve])
@pytest.mark.parametrize('nc', [1, 12])
@pytest.mark.parametrize('what', [{}, NOTHING], ids=['words', 'nothing'])
def test_curves(tmp_path, draw, nc, what):
    labels = torch.cat([WORD + torch.tensor([[c, 0, 0, 0, 0]]) for c in range(nc)])
    draw(curves(nc, **({'labels': labels} | what)), tmp_path / 'curve.png', {0: 'text'})
    image = read(tmp_path / 'curve.png', (500, 700))
    assert bool(near(image, (31, 78, 156)).sum() > 300) == (not what)  # the mean's dark blue


def test_icdar_curve(tmp_path):
    x = np.linspace(0.05, 0.95, 91)
    plots.plot_icdar_curve(
        {'threshold': x, 'precision': x, 'recall': 1 - x, 'hmean': 2 * x * (1 - x)}, tmp_path / 'c.png', 0.2, 0.32
    )
    dots = near(read(tmp_path / 'c.png', (500, 700)), (31, 78, 156))
    assert dots.sum() > 300
    height = dots.sum(0)  # of the blue in each column: the threshold's dot is thicker than the line, the top is not
    at = {fraction: height[round((0.085 + 0.9 * fraction) * dots.shape[1])] for fraction in (0.2, 0.5)}
    assert at[0.2] > at[0.5]


@pytest.mark.parametrize('nc', [1, 3, 20])
def test_confusion(tmp_path, nc):
    matrix = ConfusionMatrix(nc)
    plots.plot_confusion(matrix.matrix, {0: 'text'}, tmp_path / 'none.png')
    dark = near(read(tmp_path / 'none.png', (300, 300)), (8, 48, 107), 12).sum()
    (tmp_path / 'none.png').unlink()
    matrix.update(FOUND, WORD)
    plots.plot_confusion(matrix.matrix, {0: 'text'}, tmp_path / 'some.png')
    # The cell of the word that was found is filled; all of a class is the darkest blue.
    assert near(read(tmp_path / 'some.png', (300, 300)), (8, 48, 107), 12).sum() > dark + 200


def test_names_that_look_like_formulas(tmp_path):
    """matplotlib would read '$$' as an empty formula, and its letters have no glyph for a line's end."""
    matrix, names = ConfusionMatrix(3), {0: '$', 1: '$$', 2: r'$\frac{$'}
    plots.plot_confusion(matrix.matrix, names, tmp_path / 'a.png')
    plots.plot_labels([[number, 0.5, 0.5, 0.1, 0.1] for number in names], tmp_path / 'b.png', names)
    grids.plot_predictions([np.zeros((9, 9, 3), np.uint8)], [Verdict()], ['new\nline.png'], tmp_path / 'c.jpg')
    assert {file.name for file in tmp_path.iterdir()} == {'a.png', 'b.png', 'c.jpg'}


@pytest.mark.parametrize('count', [0, 1, 3000])
def test_labels(tmp_path, count):
    rng = np.random.default_rng(0)
    rows = np.column_stack((np.arange(count) % 2, rng.random((count, 2)), rng.lognormal(-3, 0.5, (count, 2))))
    plots.plot_labels(rows, tmp_path / 'labels.png', ['text', 'sign'])
    image = read(tmp_path / 'labels.png', (600, 600))
    assert bool(near(image, grids.PALETTE[0], 10).sum() > 1000) == bool(count)


def test_figures_in_many_threads(tmp_path):
    x = np.linspace(0.05, 0.95, 91)
    errors = []

    def draw(number):
        try:
            curve = {'threshold': x, 'precision': x, 'recall': x, 'hmean': x**number}
            plots.plot_icdar_curve(curve, tmp_path / f'{number}.png', 0.5, 0.5**number)
        except Exception as error:  # noqa: BLE001  handed to the main thread
            errors.append(error)

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len({(tmp_path / f'{number}.png').read_bytes() for number in range(1, 5)}) == 4


# Boxes on pictures ----------------------------------------------------------------------------------------------------


def test_boxes_are_drawn_where_they_are():
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = draw_words(image, corners_of(np.array([[50, 60, 120, 90.0]])), [(225, 60, 50)], thickness=grids.LINE)
    inked = np.argwhere(near(drawn, (225, 60, 50)))
    assert inked.min(0) == pytest.approx((60, 50), abs=1)
    assert inked.max(0) == pytest.approx((90, 120), abs=1)
    assert not drawn[70:80, 60:110].any()
    assert not image.any()  # the picture itself is left alone


def test_hatching_marks_its_region_alone():
    image = np.full((200, 300, 3), 20, np.uint8)
    regions = corners_of(np.array([[50, 60, 120, 90], [290, 190, 400, 300]]))
    hatched = grids.hatch(image, regions)
    changed = (hatched != image).any(-1)
    assert changed[60:90, 50:120].all()
    assert changed[195:, 295:].all()
    assert not changed[:55].any()
    assert not changed[100:180].any()
    inner = hatched[62:88, 52:118, 0]
    assert len(np.unique(inner)) == 2  # stripes
    leaning = grids.hatch(image, [[[50, 60], [120, 90], [120, 92], [50, 62]]])
    assert (leaning != image)[60:92, 50:120].any() and (leaning == image)[60:70, 100:120].all()


def batch_of(size: tuple[int, int], rows: list[tuple], shapes: list[tuple[int, int]]) -> Batch:
    """Pictures in letterboxes of a size (height, width), rows: picture, class, polygon (4, 2) in its own pixels."""
    samples = []
    for number, (height, width) in enumerate(shapes):
        image = torch.full((3, *size), 114, dtype=torch.uint8)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        image[:, top : top + height, left : left + width] = 30
        mine = [(category, np.array(polygon) + (left, top)) for index, category, polygon in rows if index == number]
        words = Annotations.build([max(c, 0) for c, _ in mine], [polygon for _, polygon in mine])
        words = replace(words, dont_care=np.array([c < 0 for c, _ in mine], bool))
        place = Letterbox(1, 1, left, top)
        samples.append(Sample(image, words, f'folder/img_{number}.png', (height, width), place, True))
    return collate(samples)


LEANING = [(20, 30), (80, 60), (76, 80), (16, 50)]


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_batch(tmp_path, suffix):
    rows = [
        (1, 0, LEANING),
        (2, 1, corners_of(np.array([[16, 24, 48, 72]]))[0]),
        (0, -1, corners_of(np.array([[40, 30, 90, 60]]))[0]),
    ]
    batch = batch_of((96, 128), rows, [(96, 128)] * 3)
    batch.images[1, 0] = 200  # the second picture is red
    file = tmp_path / f'batch{suffix}'
    grids.plot_batch(batch, file, {0: 'text', 1: 'sign'})
    image = read(file, (96 * 2, 128 * 2))
    assert image.shape == (96 * 2 + grids.GAP, 128 * 2 + grids.GAP, 3)  # two by two
    right, below = 128 + grids.GAP, 96 + grids.GAP
    first, second, third = image[:96, :128], image[:96, right:], image[below:, :128]
    assert near(second[2:8, 2:8], (200, 30, 30), 15).all()  # RGB all the way
    assert near(second[44:47, 49:52], grids.PALETTE[0]).any()  # the middle of the leaning word's upper side
    assert not near(second[29:32, 60:80], grids.PALETTE[0]).any()  # its box's side would be there
    assert near(third[30:70, 16], grids.PALETTE[1]).mean() > 0.7  # the left side
    assert first[32:58, 42:88].mean() > 40  # grey
    assert first[2:18].mean() < 40


def test_preview_has_no_grey_around_its_pictures(tmp_path):
    rows = [(0, 0, corners_of(np.array([[20, 10, 100, 40]]))[0]), (1, 0, corners_of(np.array([[5, 20, 50, 90]]))[0])]
    grids.plot_preview(batch_of((128, 128), rows, [(64, 128), (128, 64)]), tmp_path / 'preview.png', ['text'])
    image = read(tmp_path / 'preview.png')
    assert not near(image, (114, 114, 114), 3).all(-1).any()
    dark = near(image, (30, 30, 30), 3).mean()
    assert dark > 0.25  # two pictures side by side, in a row that is no higher than it may be
    assert near(image, grids.PALETTE[0]).sum() > 800


def test_rows_fill_the_page():
    shapes = [(720, 1280), (720, 1280), (100, 4000), (1600, 900), (500, 500)]
    rows = grids.rows_of(shapes, 1920, 540)
    assert [row for row, _ in rows] == [[0, 1], [2], [3, 4]]
    gap, (first, second, last) = grids.GAP, [height for _, height in rows]
    assert first == pytest.approx((1920 - gap) / (2 * 1280 / 720))
    assert second == pytest.approx(1920 / 40)
    assert last == 540  # too few for the width
    assert grids.rows_of([], 1920, 540) == []


def test_predictions(tmp_path):
    images = [np.full((360, 640, 3), 40, np.uint8), np.full((500, 300, 3), 40, np.uint8)]  # one wide, one upright
    boxes = ([100, 100, 300, 160], [350, 20, 600, 60], [20, 250, 200, 300])
    marks = [(kind, corners_of(np.array([box])), 0) for kind, box in zip((RIGHT, WRONG, MISSED), boxes, strict=True)]
    verdicts = [Verdict(marks, corners_of(np.array([[400, 100, 500, 200]]))), Verdict()]
    file = tmp_path / 'predictions.jpg'
    grids.plot_predictions(images, verdicts, ['a.jpg', 'b.jpg'], file, {0: 'text'}, 'val of data.yaml')
    image = read(file, (500, 1900))
    top = 2 * grids.HEADER + grids.CAPTION
    scale = grids.ROW_HEIGHT / 360  # both fit into one row
    for kind, (x1, y1, x2, y2) in zip((RIGHT, WRONG, MISSED), boxes, strict=True):
        where = np.argwhere(near(image[top:], grids.VERDICT_COLORS[kind]))
        assert where.min(0) == pytest.approx((y1 * scale, x1 * scale), abs=4)
        assert where.max(0) == pytest.approx((y2 * scale, x2 * scale), abs=4)
        assert near(image[grids.HEADER : 2 * grids.HEADER], grids.VERDICT_COLORS[kind], 10).sum() > 80  # the legend
    file.unlink()
    grids.plot_predictions([], [], [], file)
    read(file)


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / 'picture.png'
    grids.save_image(np.zeros((120, 120, 3), np.uint8), file)
    before = file.read_bytes()

    def fail(*_):
        raise OSError('disk')

    monkeypatch.setattr('ocrdistill.whole_files.os.replace', fail)
    with pytest.raises(UserError, match='disk'):
        grids.save_image(np.ones((120, 120, 3), np.uint8), file)
    assert file.read_bytes() == before
    read(file)  # and nothing beside it
