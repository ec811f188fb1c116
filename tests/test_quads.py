"""Quads: their form as box and edges, their IoU against shapely, NMS by quads, and the head that predicts them."""

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoint import load_model, read_checkpoint, transfer
from models.yolo import DetectionModel
from ocrdistill import quads as numpy_quads
from ocrdistill.nms import class_nms, quad_nms
from ocrdistill.quads import pairwise_quad_iou
from tests.support import ROOT, SHARED, boxes_of, small_cfg
from utils.boxes import non_max_suppression
from utils.evaluation.icdar import read_ground_truth
from utils.loading.labels import Annotations
from utils.quads import decode, encode, ordered, quad_iou, signed_areas
from utils.runtime.hyp import DEFAULTS
from utils.training.criterion import DetectionCriterion
from utils.training.loss import DetectionLoss

RECTANGLE = torch.tensor([[[10.0, 20], [50, 20], [50, 40], [10, 40]]])


def rotated(degrees: float, width: float = 60.0, height: float = 16.0) -> torch.Tensor:
    """A rectangle about (100, 100), turned clockwise on the screen; corners from its own top left."""
    angle = np.radians(degrees)
    corners = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return torch.tensor(corners @ turn + 100, dtype=torch.float32)[None]


def shapely_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    first, second = shapely.polygons(a.astype(float)), shapely.polygons(b.astype(float))
    return shapely.area(shapely.intersection(first, second)) / shapely.area(shapely.union(first, second))


# Convex: corners on an ellipse, at least a tenth of a radian apart.
angles = (
    st.lists(st.floats(0, 2 * np.pi - 0.1), min_size=4, max_size=4)
    .map(sorted)
    .filter(
        lambda found: (
            min(np.diff([*found, found[0] + 2 * np.pi])) > 0.1 and max(np.diff([*found, found[0] + 6.2832])) < 3
        )
    )
)
convex = st.tuples(angles, st.floats(5, 200), st.floats(0.2, 5), st.floats(-50, 50), st.floats(-50, 50)).map(
    lambda v: np.stack((v[3] + v[1] * v[2] * np.cos(v[0]), v[4] + v[1] * np.sin(v[0])), 1).astype(np.float32)
)


def test_upright_rectangle_has_no_edges():
    boxes, edges = encode(RECTANGLE)
    assert boxes.tolist() == [[10, 20, 50, 40]]
    assert edges.abs().max() == 0
    assert torch.equal(decode(boxes, edges), RECTANGLE)


def test_edges_by_hand():
    """A parallelogram whose right end hangs 5 pixels lower, in a box 40 wide and 25 high."""
    quad = torch.tensor([[[0.0, 0], [40, 5], [40, 25], [0, 20]]])
    boxes, edges = encode(quad)
    assert boxes.tolist() == [[0, 0, 40, 25]]
    torch.testing.assert_close(edges, torch.tensor([[0.2, 0.2, 0, 0]]))
    torch.testing.assert_close(decode(boxes, edges), quad)


@pytest.mark.parametrize('degrees', [-80, -44, -30, -5, 5, 30, 44, 46, 80])
def test_turned_rectangles_come_back(degrees):
    quad = rotated(degrees)
    assert quad_iou(decode(*encode(quad)), quad).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('turn', range(4))
@pytest.mark.parametrize('direction', [1, -1])
def test_any_first_corner_and_direction_are_the_same_quad(turn, direction):
    quad = rotated(12)
    other = quad.roll(turn, 1) if direction == 1 else quad.flip(1).roll(turn, 1)
    torch.testing.assert_close(encode(other)[1], encode(quad)[1])
    assert torch.equal(ordered(other), ordered(quad))


def test_level_text_is_continuous():
    """A degree more or less around level changes the edges by little: no jump where most words are."""
    edges = torch.cat([encode(rotated(degrees))[1] for degrees in np.linspace(-3, 3, 61)])
    assert edges.diff(dim=0).abs().max() < 0.05


@settings(max_examples=300, deadline=None)
@given(convex)
def test_any_quad_keeps_its_box(quad):
    boxes, edges = encode(torch.tensor(quad)[None])
    found = decode(boxes, edges)[0].numpy()
    assert edges.abs().max() <= 1
    np.testing.assert_allclose([*quad.min(0), *quad.max(0)], boxes[0], rtol=1e-5)
    np.testing.assert_allclose([*found.min(0), *found.max(0)], boxes[0], rtol=1e-4, atol=1e-3)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-0.4, 0.4), min_size=4, max_size=4), st.floats(5, 300), st.floats(5, 300))
def test_words_of_this_form_come_back(edges, width, height):
    box = torch.tensor([[10, 20, 10 + width, 20 + height]])
    quad = decode(box, torch.tensor([edges]))
    boxes, found = encode(quad)
    assert shapely_iou(decode(boxes, found).numpy(), quad.numpy())[0] == pytest.approx(1, abs=1e-4)


@pytest.mark.skipif(not (SHARED / 'icdar2015').is_dir(), reason='ICDAR2015 is not beside the project')
def test_all_icdar_words(tmp_path):
    import zipfile

    with zipfile.ZipFile(SHARED / 'icdar2015/Challenge4_Test_Task1_GT.zip') as archive:
        archive.extractall(tmp_path)
    found = [read_ground_truth(file) for file in sorted(tmp_path.glob('gt_*.txt'))]
    quads = torch.from_numpy(np.concatenate([quads[~flags] for quads, flags in found])).float()
    iou = quad_iou(decode(*encode(quads)), quads)
    assert len(quads) == 2077
    assert iou.mean() > 0.99
    assert iou.min() > 0.9


@settings(max_examples=300, deadline=None)
@given(convex, convex)
def test_iou_is_that_of_shapely(a, b):
    expected = pytest.approx(float(shapely_iou(a[None], b[None])[0]), abs=1e-4)
    assert quad_iou(torch.tensor(a)[None], torch.tensor(b)[None]).item() == expected
    assert numpy_quads.quad_iou(a[None], b[None])[0] == expected


@pytest.mark.parametrize('degrees', [0, 17, 45])
def test_iou_where_sides_lie_on_each_other(degrees):
    """Rectangles on a grid: most pairs have sides on one line, on the same side of it or on either."""
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 5, (2, 300, 2, 2))
    low, high = corners.min(2), corners.max(2) + 1
    shared = (np.minimum(high[0], high[1]) - np.maximum(low[0], low[1])).clip(min=0).prod(1)
    expected = shared / ((high - low).prod(2).sum(0) - shared)
    boxes = np.concatenate((low, high), 2)
    turn = np.array([[np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]])
    turn = np.concatenate((turn, turn[:, ::-1] * [-1, 1]))
    a, b = 20 * boxes[..., [0, 1, 2, 1, 2, 3, 0, 3]].reshape(2, 300, 4, 2) @ turn
    np.testing.assert_allclose(numpy_quads.quad_iou(a, b), expected, atol=1e-6)
    np.testing.assert_allclose(numpy_quads.quad_iou(*np.float32((a, b))), expected, atol=1e-5)
    torch.testing.assert_close(
        quad_iou(torch.tensor(a), torch.tensor(b)).double(), torch.tensor(expected), atol=1e-4, rtol=0
    )


@settings(max_examples=100, deadline=None)
@given(convex)
def test_iou_of_a_quad_with_itself_and_symmetry(quad):
    quad = torch.tensor(quad)[None]
    shifted = quad + 3
    assert quad_iou(quad, quad).item() == pytest.approx(1, abs=1e-5)
    assert quad_iou(quad, shifted).item() == pytest.approx(quad_iou(shifted, quad).item(), abs=1e-5)
    assert quad_iou(quad, quad.flip(1)).item() == pytest.approx(1, abs=1e-5)


def test_iou_by_hand():
    a = torch.tensor([[[0.0, 0], [4, 0], [4, 4], [0, 4]]]).repeat(3, 1, 1)
    diamond = torch.tensor([[2.0, 0], [4, 2], [2, 4], [0, 2]])
    b = torch.stack((a[0] + 2, diamond, a[0] + 10))
    assert quad_iou(a, b).tolist() == pytest.approx([4 / 28, 8 / 16, 0])


def test_degenerate_quads_give_numbers_and_finite_gradients():
    point = torch.ones(4, 2)
    line = torch.tensor([[0.0, 0], [4, 0], [4, 0], [0, 0]])
    bow = torch.tensor([[0.0, 0], [4, 4], [4, 0], [0, 4]])
    quads = torch.stack((point, line, bow, RECTANGLE[0], RECTANGLE[0])).requires_grad_()
    others = torch.stack((RECTANGLE[0], RECTANGLE[0], RECTANGLE[0] / 10, RECTANGLE[0], point)).requires_grad_()
    iou = quad_iou(quads, others)
    iou.sum().backward()
    assert torch.isfinite(iou).all()
    assert ((iou >= 0) & (iou <= 1 + 1e-5)).all()
    assert torch.isfinite(quads.grad).all()
    assert torch.isfinite(others.grad).all()


def test_gradients_are_those_of_finite_differences():
    a, b = rotated(10)[0].double(), rotated(-7)[0].double() + 4
    base = a.float()[None].requires_grad_()
    quad_iou(base, b.float()[None]).backward()
    step, numeric = 1e-2, torch.zeros(4, 2)
    for corner in range(4):
        for axis in range(2):
            moved = torch.zeros(4, 2, dtype=torch.float64)
            moved[corner, axis] = step
            high, low = (shapely_iou((a + sign * moved).numpy()[None], b.numpy()[None])[0] for sign in (1, -1))
            numeric[corner, axis] = (high - low) / (2 * step)
    torch.testing.assert_close(base.grad[0], numeric, atol=1e-4, rtol=0.01)


def test_pairs_that_cannot_exceed_are_left_out_and_the_others_agree():
    rng = np.random.default_rng(0)
    quads = torch.cat([rotated(d) + torch.tensor(rng.uniform(-60, 60, 2)).float() for d in rng.uniform(-60, 60, 40)])
    pairs = torch.from_numpy(pairwise_quad_iou(quads.numpy(), quads.numpy(), 0.3, True))
    wanted = torch.stack([quad_iou(quad.expand(40, 4, 2), quads) for quad in quads])
    over = wanted > 0.3
    torch.testing.assert_close(pairs[over], wanted[over])
    assert (pairs > 0.3).equal(over)


def test_nms_keeps_words_that_lean_side_by_side():
    """Two lines of text at 40 degrees: their boxes overlap by half, their quads not at all."""
    first = rotated(40, 120, 20)
    second = first + torch.tensor([-14.0, 17])
    rows = []
    for confidence, quad in ((0.9, first), (0.8, second), (0.7, first + 1)):
        (x0, y0, x1, y1), edges = encode(quad)[0][0], encode(quad)[1][0]
        rows.append([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, confidence, 1.0, *edges])
    decoded = torch.tensor([rows])
    upright = non_max_suppression(decoded, nc=1)[0]
    by_quads = non_max_suppression(decoded, nc=1, by_quads=True)[0]
    assert upright[:, 4].tolist() == pytest.approx([0.9])
    assert by_quads[:, 4].tolist() == pytest.approx([0.9, 0.8])
    torch.testing.assert_close(decode(by_quads[:, :4], by_quads[:, 6:])[1], ordered(second)[0], atol=1e-3, rtol=0)


def test_nms_by_quads_is_greedy_and_of_a_class():
    quads = RECTANGLE.numpy() + np.array([0, 6, 12])[:, None, None] * [1, 0]
    # The middle one falls to the first, and does not drop the last.
    assert quad_nms(quads, np.zeros(3), 0.6).tolist() == [0, 2]
    assert quad_nms(quads, np.array([0, 1, 0]), 0.6).tolist() == [0, 1, 2]


def test_nms_compares_blocks_as_it_does_all_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    quads = np.array([[0.0, 0], [30, 4], [30, 16], [0, 12]]) + rng.integers(0, 60, (40, 1, 2))
    category, boxes = rng.integers(0, 2, 40), np.concatenate((quads.min(1), quads.max(1)), 1)
    whole, boxes_whole = quad_nms(quads, category, 0.3), class_nms(boxes, category, 0.3)
    monkeypatch.setattr('ocrdistill.nms.AT_ONCE', 7)
    assert quad_nms(quads, category, 0.3).tolist() == whole.tolist() and 0 < len(whole) < 40
    assert class_nms(boxes, category, 0.3).tolist() == boxes_whole.tolist() and 0 < len(boxes_whole) < 40


def test_zero_head_leaves_every_box_and_makes_quads_of_them():
    torch.manual_seed(0)
    plain = DetectionModel(small_cfg()).eval()
    quads = DetectionModel(small_cfg(), quads=True).eval()
    quads.load_state_dict(plain.state_dict(), strict=False)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        (a, maps_a), (b, maps_b) = plain(images), quads(images)
    assert torch.equal(a, b[..., :6])
    assert b.shape == (*a.shape[:2], 10)
    assert b[..., 6:].abs().max() == 0
    assert all(torch.equal(x, y[..., :6]) for x, y in zip(maps_a, maps_b, strict=True))
    assert quads.yaml['quads'] is True
    assert 'quads' not in plain.yaml


def test_a_fused_head_gives_the_same_boxes_and_edges():
    checkpoint = read_checkpoint(ROOT / 'teacher/demo/yolov5s.pt')
    plain, quads = (DetectionModel(checkpoint.yaml, nc=1, quads=quads) for quads in (False, True))
    for model in (plain, quads):
        transfer(model, checkpoint)
    torch.manual_seed(0)
    for conv in quads.head.quad:
        torch.nn.init.normal_(conv.weight, 0, 0.1)
    images = torch.rand(2, 3, 128, 96)
    with torch.no_grad():
        apart = quads.eval()(images)[0]
        boxes, (joined, maps) = plain.fuse()(images)[0], quads.fuse()(images)
    assert quads.quads and not list(quads.head.quad.parameters())
    assert torch.equal(joined[..., :6], boxes)
    torch.testing.assert_close(joined[..., 6:], apart[..., 6:], atol=1e-4, rtol=0)
    assert apart[..., 6:].abs().max() > 0.01
    assert torch.equal(quads.head.decode(maps), joined)


def test_the_head_draws_no_random_numbers():
    states = []
    for quads in (False, True):
        torch.manual_seed(3)
        DetectionModel(small_cfg(), quads=quads)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_old_checkpoints_start_a_model_with_quads():
    checkpoint = read_checkpoint(ROOT / 'teacher/demo/yolov5s.pt')
    model = DetectionModel(checkpoint.yaml, nc=1, quads=True)
    report = transfer(model, checkpoint)
    assert not report.skipped
    assert report.missing == [f'model.24.quad.{level}.{part}' for level in range(3) for part in ('bias', 'weight')]
    assert not load_model(ROOT / 'teacher/demo/yolov5s.pt').quads


def annotated(polygons: list, **options) -> Annotations:
    return Annotations.build([0] * len(polygons), [np.array(p, float) for p in polygons], **options)


def test_edges_of_annotations():
    word = [[0, 0], [40, 5], [40, 25], [0, 20]]
    rows = annotated([word, word]).edges()
    np.testing.assert_allclose(rows[0], [0.2, 0.2, 0, 0, 1], atol=1e-6)
    assert annotated([word], edge_weight=0.0).edges().tolist() == [[0] * 5]
    cut = annotated([[[-20, 0], [40, 5], [40, 25], [-20, 20]]]).clipped(100, 100)
    assert len(cut) == 1
    assert cut.edges()[0, 4] == 0  # the frame cuts it: its corners are not the word's
    six = [[0, 10], [10, 0], [60, 0], [70, 10], [60, 20], [10, 20]]
    np.testing.assert_allclose(annotated([six]).edges()[0], [0, 0, 0, 0, 1], atol=1e-5)


def test_polygons_become_quads_by_hand():
    """A leaning hexagon becomes its rectangle; one whose rectangle leaves the picture, a box and a quad stay."""
    hexagon = np.array([[20, 30], [50, 20], [80, 10], [84, 22], [54, 32], [24, 42]], float)
    high = np.array([[20, 11], [70, 1], [78, 3], [80, 9], [24, 23]], float)  # its rectangle begins above the picture
    quad = np.array([[10, 60], [60, 70], [60, 80], [10, 70]], float)
    size = (100, 90)
    given = annotated([hexagon / size, high / size, quad / size, hexagon / size], edge_weight=[1, 1, 0.5, 0])
    found = given.as_quads(*size)
    assert found.edge_weight.tolist() == [1, 0, 0.5, 0]
    kept = [polygon * size for polygon in found.polygon_list(1, 1)]
    assert [len(polygon) for polygon in kept] == [4, 5, 4, 6]
    rectangle = shapely.Polygon(kept[0])
    assert rectangle.area == pytest.approx(shapely.MultiPoint(hexagon).minimum_rotated_rectangle.area, rel=1e-4)
    assert all(rectangle.buffer(1e-3).covers(shapely.Point(point)) for point in hexagon)
    for row in (1, 2, 3):
        np.testing.assert_array_equal(kept[row], given.polygon_list(1, 1)[row] * size)
    boxes, edges = encode(torch.from_numpy(kept[0][None]))
    scaled = found.scaled(*size)
    np.testing.assert_allclose(scaled.edges()[0, :4], edges[0], atol=1e-5)
    np.testing.assert_allclose(scaled.boxes()[0], boxes[0], atol=1e-4)  # what is learned is one and the same quad
    assert annotated([quad / size]).as_quads(*size).polygons.shape == (1, 4, 2)
    triangle = annotated([[[0.2, 0.2], [0.8, 0.2], [0.5, 0.6]]]).as_quads(100, 100)
    assert triangle.polygons.shape == (1, 4, 2)


def loss_of(model: DetectionModel, maps: list, targets: torch.Tensor, edges: torch.Tensor | None) -> dict:
    return DetectionLoss(model, DEFAULTS)(maps, targets, edges=edges)


def test_terms_of_quads():
    torch.manual_seed(0)
    model = DetectionModel(small_cfg(), quads=True)
    targets = boxes_of(np.random.default_rng(0), 6, 2)
    maps = [raw.detach().requires_grad_() for raw in model(torch.rand(2, 3, 64, 64))]
    level = torch.zeros(6, 5)
    level[:, 4] = 1
    lean = level.clone()
    lean[:, :2] = 0.5
    assert loss_of(model, maps, targets, level)['edge'] == 0
    # |error| = .5 in two of four edges, over beta: .5 - .05 each; a mean on each of the two levels that have targets
    assert loss_of(model, maps, targets, lean)['edge'].item() == pytest.approx(2 * 0.225, rel=1e-3)
    terms = loss_of(model, maps, targets, lean)
    (terms['edge'] + terms['quad']).backward()
    assert all(torch.isfinite(raw.grad).all() for raw in maps)
    assert any(raw.grad[..., 6:].abs().sum() > 0 for raw in maps)
    light = lean.clone()
    light[:, 4] = 0.25  # of all targets: their corners count a quarter, beside boxes and objectness
    for name, share in (('edge', 0.25), ('quad', 0.25), ('box', 1)):
        assert loss_of(model, maps, targets, light)[name].item() == pytest.approx(share * terms[name].item(), rel=1e-5)
    none = loss_of(model, maps, targets, torch.zeros(6, 5))
    assert none['edge'] == none['quad'] == 0  # labels that are boxes only
    plain = DetectionModel(small_cfg())
    assert set(loss_of(plain, [raw[..., :6] for raw in maps], targets, lean)) == {'box', 'obj', 'cls'}
    same = loss_of(plain, [raw[..., :6] for raw in maps], targets, None)
    for name, value in same.items():
        assert value == terms[name]


def test_the_iou_of_quads_grows_over_its_warmup():
    criterion = DetectionCriterion(DetectionModel(small_cfg(), quads=True), DEFAULTS, 640)
    assert criterion.weights(0.0)['quad'] == 0
    assert criterion.weights(0.5)['quad'] == pytest.approx(DEFAULTS['quad'] / 2)
    assert criterion.weights(9.0) == {**criterion.gains}
    assert 'quad' not in DetectionCriterion(DetectionModel(small_cfg()), DEFAULTS, 640).weights(0.0)


def test_areas_have_a_sign():
    assert signed_areas(RECTANGLE).item() == 800
    assert signed_areas(RECTANGLE.flip(1)).item() == -800
