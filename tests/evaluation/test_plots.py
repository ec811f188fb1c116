"""Plots: files that OpenCV reads back at a plausible size, with ink where it belongs; empty inputs too."""

import threading

import cv2
import numpy as np
import pytest
import torch

from models.errors import UserError
from utils.evaluation import grids, plots
from utils.evaluation.metrics import ConfusionMatrix, DetectionMetrics

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
    csv = tmp_path / 'results.csv'
    names = ['epoch', 'train/box', 'train/obj', 'val/box', 'val/map50', 'lr', 'distill/hint.hint', 'note', 'unused']
    rows = [f'{e}, {1 / (e + 1)},0.5,{2 / (e + 1)},{e / 9},1e-2,{"" if e < 3 else e},text,' for e in range(9)]
    csv.write_text('\n'.join([','.join(names), *rows]))
    columns = plots.read_results(csv)
    assert list(columns) == names[:-2]  # neither words nor empty columns
    assert columns['train/box'][1] == 0.5
    assert np.isnan(columns['distill/hint.hint'][:3]).all()
    panels = plots._panels([name for name in columns if name != 'epoch'])
    assert ('box (train, val)', ['train/box', 'val/box']) in panels
    assert [title for title, _ in panels if 'box' not in title] == ['train/obj', 'val/map50', 'lr', 'distill/hint.hint']
    plots.plot_results(csv)
    image = read(tmp_path / 'results.png', (400, 600))
    assert near(image, (31, 111, 180)).sum() > 200  # train's blue
    assert near(image, (224, 123, 0)).sum() > 50  # val's orange


@pytest.mark.parametrize('text', ['', 'epoch,lr\n', 'epoch,lr\n0,0.1\n'], ids=['empty', 'header', 'one epoch'])
def test_results_of_a_run_that_just_began(tmp_path, text):
    csv = tmp_path / 'results.csv'
    csv.write_text(text)
    plots.plot_results(csv, tmp_path / 'out.png')
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
    drawn = grids.draw_boxes(image, np.array([[50, 60, 120, 90.0]]), [''], (225, 60, 50))
    inked = np.argwhere(near(drawn, (225, 60, 50)))
    assert inked.min(0) == pytest.approx((60, 50), abs=1)
    assert inked.max(0) == pytest.approx((90, 120), abs=1)
    assert not drawn[70:80, 60:110].any()
    assert not image.any()  # the picture itself is left alone


def test_hatching_marks_its_region_alone():
    image = np.full((200, 300, 3), 20, np.uint8)
    hatched = grids.hatch_boxes(image, [[50, 60, 120, 90], [290, 190, 400, 300]])
    changed = (hatched != image).any(-1)
    assert changed[60:90, 50:120].all()
    assert changed[195:, 295:].all()
    assert not changed[:55].any()
    assert not changed[100:180].any()
    inner = hatched[62:88, 52:118, 0]
    assert len(np.unique(inner)) == 2  # stripes


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_batch(tmp_path, suffix):
    images = torch.full((3, 3, 96, 128), 30, dtype=torch.uint8)
    images[1, 0] = 200  # the second picture is red
    targets = torch.tensor([[1, 0, 0.5, 0.5, 0.5, 0.25], [2, 1, 0.25, 0.5, 0.25, 0.5]])
    ignore = torch.tensor([[0, 0, 0.5, 0.5, 0.5, 0.5]])
    file = tmp_path / f'batch{suffix}'
    grids.plot_batch(images, targets, ignore, file, {0: 'text', 1: 'sign'})
    image = read(file, (96 * 2, 128 * 2))
    assert image.shape == (96 * 2 + 4, 128 * 2 + 4, 3)  # two by two
    first, second, third = image[:96, :128], image[:96, 132:], image[100:, :128]
    assert near(second[2:8, 2:8], (200, 30, 30), 15).all()  # RGB all the way
    assert near(second[36, 40:90], grids.PALETTE[0]).mean() > 0.7  # the upper side: 96 * (.5 - .125)
    assert near(third[30:70, 16], grids.PALETTE[1]).mean() > 0.7  # the left side: 128 * (.25 - .125)
    assert first[30:60, 40:90].mean() > 60  # grey
    assert first[2:18].mean() < 40


def test_batch_shows_the_first_pictures_and_takes_none(tmp_path):
    images = torch.zeros(20, 3, 32, 64, dtype=torch.uint8)
    grids.plot_batch(images, torch.zeros(0, 6), None, tmp_path / 'few.png', max_images=4)
    assert read(tmp_path / 'few.png', (60, 60)).shape == (68, 132, 3)
    (tmp_path / 'few.png').unlink()
    grids.plot_batch(images[:0], torch.zeros(0, 6), torch.zeros(0, 6), tmp_path / 'none.png')
    read(tmp_path / 'none.png')


def test_predictions(tmp_path):
    images = [np.full((360, 640, 3), 40, np.uint8), np.full((500, 300, 3), 40, np.uint8)]  # one wide, one upright
    labels = [torch.tensor([[0, 100, 100, 300, 160.0]]), torch.zeros(0, 5)]
    ignore = [torch.tensor([[400, 100, 500, 200.0]]), torch.zeros(0, 4)]
    detections = [torch.tensor([[100, 100, 300, 160, 0.9, 0.0]]), torch.zeros(0, 6)]
    file = tmp_path / 'predictions.jpg'
    grids.plot_predictions(images, labels, ignore, detections, file, {0: 'text'})
    image = read(file, (1000, 1900))
    half = image.shape[1] // 2
    left, right = image[:560, :half], image[:560, half:]
    assert near(left, grids.PALETTE[0]).sum() > 500
    assert near(right, grids.PALETTE[0]).sum() == 0
    assert near(right, grids.PREDICTION_COLOR).sum() > 500
    assert near(left, grids.PREDICTION_COLOR).sum() == 0
    scale = 956 / 640
    where = np.argwhere(near(left, grids.PALETTE[0]))
    assert where.min(0) == pytest.approx((30 + 100 * scale, 100 * scale), abs=4)
    assert where.max(0) == pytest.approx((30 + 160 * scale, 300 * scale), abs=4)
    file.unlink()
    grids.plot_predictions([], [], [], [], file)
    read(file)


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / 'picture.png'
    grids.save_image(np.zeros((120, 120, 3), np.uint8), file)
    before = file.read_bytes()

    def fail(*_):
        raise OSError('disk')

    monkeypatch.setattr('models.files.os.replace', fail)
    with pytest.raises(UserError, match='disk'):
        grids.save_image(np.ones((120, 120, 3), np.uint8), file)
    assert file.read_bytes() == before
    read(file)  # and nothing beside it
