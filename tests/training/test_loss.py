"""The detection loss beyond the reference values: assignment, don't-care regions, empty pictures, options."""

import numpy as np
import pytest
import torch
from torchvision.ops import complete_box_iou_loss

from models.yolo import DetectionModel
from tests.support import boxes_of, small_cfg
from utils.boxes import ciou_miss
from utils.runtime.hyp import DEFAULTS
from utils.training.loss import DetectionLoss, assign, at_cells, centres_inside, scaled_gains


@pytest.fixture
def model():
    torch.manual_seed(0)
    return DetectionModel(small_cfg())


def random_maps(model, batch=2, height=96, width=160):
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(batch, 3, height // s, width // s, 5 + model.nc, generator=generator, requires_grad=True)
        for s in (8, 16, 32)
    ]


def test_assign_by_hand_on_a_non_square_map():
    """A box centred at cell (x 10.3, y 4.6) of a map 20 wide and 12 high: own cell, left and lower neighbours."""
    anchors = torch.tensor([[2.0, 1.0], [30.0, 30.0]])
    targets = torch.tensor([[1, 0, 10.3 / 20, 4.6 / 12, 2.2 / 20, 0.9 / 12]])
    (image, anchor, y, x), row = assign(targets, anchors, (12, 20), 4.0)
    assert image.tolist() == [1, 1, 1]
    assert anchor.tolist() == [0, 0, 0]  # the second anchor is over four times too large
    assert list(zip(x.tolist(), y.tolist(), strict=True)) == [(10, 4), (9, 4), (10, 5)]
    assert row.tolist() == [0, 0, 0]


def test_gradients_of_many_cells_are_the_same_each_time():
    """With several threads those of raw[cells] are not, as many cells answer for more than one target."""
    generator = torch.Generator().manual_seed(0)
    cells = [torch.randint(0, high, (8000,), generator=generator) for high in (2, 3, 8, 8)]
    raw = torch.randn(2, 3, 80, 80, 10, generator=generator)
    weight = torch.randn(8000, 10, generator=generator)
    threads, gradients = torch.get_num_threads(), []
    try:
        for count in (1, *[4] * 8):
            torch.set_num_threads(count)
            leaf = raw.clone().requires_grad_()
            rows = at_cells(leaf, tuple(cells))
            assert torch.equal(rows, raw[tuple(cells)])
            rows.backward(weight)
            gradients.append(leaf.grad)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
    leaf = raw.double().requires_grad_()
    leaf[tuple(cells)].backward(weight.double())
    torch.testing.assert_close(gradients[0].double(), leaf.grad, rtol=0, atol=1e-4)


def test_assign_at_the_border_stays_on_the_map():
    targets = torch.tensor([[0, 0, 0.999, 0.001, 0.1, 0.1], [0, 0, 1.0, 1.0, 0.1, 0.1]])
    (_, _, y, x), _ = assign(targets, torch.tensor([[2.0, 2.0]]), (6, 10), 4.0)
    assert x.max() <= 9
    assert y.min() >= 0
    assert y.max() <= 5


def test_centres_inside_by_hand():
    """A region over x 0.2..0.5, y 0.25..0.75 of a map 10 wide (centres .05, .15 ...) and 4 high (.125, .375 ...)."""
    regions = torch.tensor([[1, 0, 0.35, 0.5, 0.3, 0.5]])
    inside = centres_inside(regions, 2, (4, 10))
    expected = torch.zeros(2, 4, 10, dtype=torch.bool)
    expected[1, 1:3, 2:5] = True
    assert torch.equal(inside, expected)


def test_dont_care_cells_leave_the_objectness_sum_alone(model):
    """By hand: the sum without the cells whose centre is inside, over the old denominator."""
    maps = random_maps(model)
    ignore = torch.tensor([[0, 0, 0.3, 0.5, 0.4, 0.6], [1, 0, 0.9, 0.1, 0.2, 0.2]])
    loss = DetectionLoss(model, DEFAULTS)
    expected = 0.0
    for raw, balance in zip(maps, (4.0, 1.0, 0.4), strict=True):
        cost = torch.nn.functional.softplus(raw[..., 4].detach())  # without targets all are background
        keep = ~centres_inside(ignore, 2, raw.shape[2:4])
        expected += balance * (cost * keep[:, None]).sum().item() / cost.numel()
    terms = loss(maps, torch.zeros(0, 6), ignore)
    assert terms['obj'].item() == pytest.approx(expected, rel=1e-5)
    terms['obj'].backward()
    inside = centres_inside(ignore, 2, maps[0].shape[2:4])[:, None].expand(-1, 3, -1, -1)
    assert (maps[0].grad[..., 4][inside] == 0).all()
    assert (maps[0].grad[..., 4][~inside] != 0).all()


def test_targets_inside_dont_care_regions_still_count(model):
    maps = random_maps(model)
    targets = boxes_of(np.random.default_rng(0), 6, 2)
    whole = torch.tensor([[0, 0, 0.5, 0.5, 1, 1], [1, 0, 0.5, 0.5, 1, 1]])
    DetectionLoss(model, DEFAULTS)(maps, targets, whole)['obj'].backward()
    touched = sum(int((raw.grad[..., 4] != 0).sum()) for raw in maps)
    cells = {
        (level, *map(int, cell))
        for level, raw in enumerate(maps)
        for cell in zip(*assign(targets, model.head.anchors[level], raw.shape[2:4], 4.0)[0], strict=True)
    }
    assert touched == len(cells) > 0


def test_no_targets_give_zero_box_and_finite_objectness(model):
    terms = DetectionLoss(model, DEFAULTS)(random_maps(model), torch.zeros(0, 6), torch.zeros(0, 6))
    assert terms['box'] == 0
    assert terms['cls'] == 0
    assert torch.isfinite(terms['obj'])


def test_of_targets_that_share_a_prediction_the_last_counts():
    """Two, and a third that is not valid, at one place: the same with any number of threads, and ones that vary."""
    place = [torch.zeros(3, dtype=torch.long)] * 4
    miss, valid = torch.tensor([0.2, 0.7, 0.1]), torch.tensor([True, True, False])
    wanted, assigned = DetectionLoss._wanted((1, 1, 2, 2), place, miss, valid)
    assert wanted.flatten().tolist() == pytest.approx([0.3, 0, 0, 0])
    assert assigned.flatten().tolist() == [True, False, False, False]
    many, generator = 200_000, torch.Generator().manual_seed(0)
    place = [torch.zeros(many, dtype=torch.long)] * 3 + [torch.randint(0, 50, (many,), generator=generator)]
    miss, valid = torch.rand(many, generator=generator), torch.ones(many, dtype=torch.bool)
    expected = {int(x): 1 - float(value) for x, value in zip(place[3], miss, strict=True)}
    for _ in range(5):
        wanted, _ = DetectionLoss._wanted((1, 1, 1, 50), place, miss, valid)
        assert wanted.flatten().tolist() == pytest.approx([expected[x] for x in range(50)])


def test_ciou_and_its_gradient_are_those_of_torchvision():
    generator = torch.Generator().manual_seed(0)
    corner, size = torch.rand(2, 2, 3000, 2, generator=generator) * 10
    first, second = torch.cat((corner, corner + size + 0.01), 2)
    ours, theirs = (first.clone().requires_grad_() for _ in range(2))
    found, expected = ciou_miss(ours, second), complete_box_iou_loss(theirs, second)
    assert (found > 1).any() and (found < 0.5).any()  # boxes apart and boxes on each other
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


def test_perfect_boxes_cost_nothing():
    """Logits that decode to the target exactly: 1 - CIoU is 0."""
    model = DetectionModel(small_cfg())
    loss = DetectionLoss(model, DEFAULTS)
    maps = [torch.zeros(1, 3, 8 * 32 // s, 8 * 32 // s, 6) for s in (8, 16, 32)]
    # Centre of the cell (sigmoid .5 -> offset .5) and the anchor's own size (sigmoid .5 -> factor 1).
    anchor = model.head.anchors[0][1]
    targets = torch.tensor([[0, 0, 10.5 / 32, 7.5 / 32, anchor[0] / 32, anchor[1] / 32]])
    predicted = torch.zeros(1, 6)
    found, aim = loss._boxes(predicted, targets, anchor[None], torch.tensor([10]), torch.tensor([7]), (32, 32))
    assert torch.allclose(found, aim, atol=1e-5)
    exact = DetectionLoss(model, DEFAULTS | {'anchor_t': 1.01})  # the anchor of that size alone answers
    assert exact(maps, targets)['box'].item() == pytest.approx(0, abs=1e-5)
    maps[0][..., 2:4] = 1.0  # another size
    assert exact(maps, targets)['box'].item() > 0.3


def test_batch_size_does_not_change_the_mean(model):
    """Every term is a mean: the same picture twice costs what it costs once."""
    maps = [raw.detach()[:1] for raw in random_maps(model)]
    targets = boxes_of(np.random.default_rng(1), 5, 1)
    twice = torch.cat((targets, targets + torch.tensor([1.0, 0, 0, 0, 0, 0])))
    loss = DetectionLoss(model, DEFAULTS)
    once = loss(maps, targets)
    both = loss([torch.cat((raw, raw)) for raw in maps], twice)
    assert {k: v.item() for k, v in both.items()} == pytest.approx({k: v.item() for k, v in once.items()}, rel=1e-5)


def test_half_precision_maps_are_judged_in_float32(model):
    maps = [raw.detach().to(torch.bfloat16) for raw in random_maps(model)]
    targets = boxes_of(np.random.default_rng(2), 5, 2)
    loss = DetectionLoss(model, DEFAULTS)
    low, high = loss(maps, targets), loss([raw.float() for raw in maps], targets)
    assert all(term.dtype == torch.float32 for term in low.values())
    assert all(torch.equal(low[name], high[name]) for name in high)


def test_extreme_logits_stay_finite(model):
    maps = [torch.full_like(raw, -200.0).requires_grad_() for raw in random_maps(model)]
    terms = DetectionLoss(model, DEFAULTS)(maps, boxes_of(np.random.default_rng(3), 8, 2))
    sum(terms.values()).backward()
    assert all(torch.isfinite(raw.grad).all() for raw in maps)


def test_focal_loss_by_hand(model):
    """Background, logit 0: p = .5, alpha .75, (1 - .5)^2: .75 * .25 * ln 2."""
    loss = DetectionLoss(model, DEFAULTS | {'fl_gamma': 2.0})
    assert loss._entropy(torch.zeros(1), torch.zeros(1), 1.0).item() == pytest.approx(0.75 * 0.25 * np.log(2))


def test_focal_gradients_of_sure_background_are_finite(model):
    maps = random_maps(model)
    for raw, logit in zip(maps, (-18.0, -110.0, -30.0), strict=True):
        raw.data[..., 4] = logit
    loss = DetectionLoss(model, DEFAULTS | {'fl_gamma': 0.5})(maps, torch.zeros(0, 6))
    loss['obj'].backward()
    assert all(raw.grad.isfinite().all() for raw in maps) and loss['obj'].isfinite()


def test_class_term_with_label_smoothing_by_hand():
    """Two classes, logits 0: ln 2 whatever the smoothing; a sure and right answer costs more with smoothing."""
    model = DetectionModel(small_cfg(nc=2))
    plain, smooth = (DetectionLoss(model, DEFAULTS | {'label_smoothing': s}) for s in (0.0, 0.1))
    zeros, sure = torch.zeros(1, 2), torch.tensor([[10.0, -10.0]])
    assert plain._class_loss(zeros, torch.tensor([0])).item() == pytest.approx(np.log(2))
    assert smooth._class_loss(zeros, torch.tensor([0])).item() == pytest.approx(np.log(2))
    expected = np.log1p(np.exp(-10)) + 0.05 * 10
    assert smooth._class_loss(sure, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-4)


def test_gains_are_scaled_as_yolov5_scales_them():
    assert scaled_gains({'box': 0.05, 'obj': 1.0, 'cls': 0.5}, nc=1, imgsz=96) == pytest.approx(
        {'box': 0.05, 'obj': 0.0225, 'cls': 0.00625}
    )
