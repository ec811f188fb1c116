"""Distillation methods that look at predictions, against literal loops on non-square pictures, and their promises."""

import math

import pytest
import torch

from models.errors import UserError
from models.yolo import DetectionModel
from tests.support import small_cfg
from utils.distillation import find_method
from utils.distillation.base import Signals
from utils.distillation.methods.gid import general_instances, instance_features
from utils.distillation.methods.logit import box_miss
from utils.distillation.recipe import parse_recipe

NONE = torch.zeros(0, 6)
SIZE = (64, 160)
CELLS = {17: (8, 20), 20: (4, 10), 23: (2, 5)}
NECK = [17, 20, 23]
# No centre on a cell's border or middle: rounding would decide which cells answer.
TARGETS = torch.tensor(
    [
        [0, 0, 0.307, 0.413, 0.21, 0.33],
        [0, 2, 0.623, 0.551, 0.061, 0.21],
        [0, 1, 0.903, 0.107, 0.004, 0.01],
        [1, 1, 0.713, 0.609, 0.11, 0.12],
    ]
)
IGNORE = torch.tensor([[0, 0, 0.66, 0.6, 0.08, 0.3], [1, 0, 0.2, 0.6, 0.3, 0.5]])
REGIONAL = [('mask', {'region': 'teacher'}), ('mask', {'region': 'union'}), ('pfi', {'region': 'union'})]
METHODS = [(name, {}) for name in ('gid', 'rank', 'logit', 'score_l2', 'defeat')]
every_method = pytest.mark.parametrize(('name', 'options'), METHODS + REGIONAL)
all_classes = pytest.mark.parametrize('nc', [1, 3])


pytestmark = pytest.mark.usefixtures('one_thread')


def models(nc):
    torch.manual_seed(0)
    return DetectionModel(small_cfg(0.125, nc)), DetectionModel(small_cfg(0.25, nc))


PAIRS = {nc: models(nc) for nc in (1, 3)}


def build(name, nc=1, options=None, layers=NECK, teacher_layers=None):
    method = find_method(name)
    return method(
        *PAIRS[nc], layers if method.LAYERS else [], torch.Generator().manual_seed(0), options, teacher_layers
    )


def signals(nc=1, batch=2, targets=TARGETS, ignore=IGNORE, cells=CELLS, size=SIZE):
    """Random features and maps of the right shapes; a head with real anchors."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape):
        return torch.randn(*shape, generator=generator).requires_grad_()

    student, teacher = PAIRS[nc]
    maps = [[random(batch, 3, *cells[i], 5 + nc) for i in NECK] for _ in range(2)]
    features = [{i: random(batch, model.channels[i], *cells[i]) for i in NECK} for model in (student, teacher)]
    targets = targets * torch.tensor([1, float(nc > 1), 1, 1, 1, 1])
    return Signals(size, targets, ignore, *maps, *features, head=student.head)


def terms(method, s):
    return {name: value.item() for name, value in method(s).items()}


# The letter: scalars and loops.


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def kl(student, teacher, temperature=1.0):
    p, q = sigmoid(teacher / temperature), sigmoid(student / temperature)
    return temperature**2 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))


def score(row):
    return [sigmoid(row[4])] if len(row) == 6 else [sigmoid(row[4]) * sigmoid(c) for c in row[5:]]


def box(row, anchor, x, y):
    """The xyxy box in cells that an anchor-cell predicts."""
    cx, cy = 2 * sigmoid(row[0]) - 0.5 + x, 2 * sigmoid(row[1]) - 0.5 + y
    w, h = (2 * sigmoid(row[2])) ** 2 * anchor[0], (2 * sigmoid(row[3])) ** 2 * anchor[1]
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


def iou(a, b):
    common = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def ciou_miss(a, b):
    centres = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    hull = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    aspect = [math.atan((r[2] - r[0]) / (r[3] - r[1])) for r in (a, b)]
    v = 4 / math.pi**2 * (aspect[0] - aspect[1]) ** 2
    return 1 - iou(a, b) + centres / hull + v * v / (1 - iou(a, b) + v)


def anchor_cells(s, image):
    """(level, anchor, y, x, student's row, teacher's row) of every anchor-cell of a picture."""
    for level, (student, teacher) in enumerate(zip(s.student_maps, s.teacher_maps, strict=True)):
        ours, theirs = student[image].tolist(), teacher[image].tolist()
        _, anchors, h, w, _ = student.shape
        for a in range(anchors):
            for y in range(h):
                for x in range(w):
                    yield level, a, y, x, ours[a][y][x], theirs[a][y][x]


def assigned(s, cx, cy, width, height):
    """The (level, anchor, y, x) that answer for a box (0..1)."""
    found = []
    for level, raw in enumerate(s.student_maps):
        h, w = raw.shape[2:4]
        x, y, bw, bh = cx * w, cy * h, width * w, height * h
        for a, (aw, ah) in enumerate(s.head.anchors[level].tolist()):
            if min(bw, bh) <= 0 or max(bw / aw, aw / bw, bh / ah, ah / bh) >= s.anchor_t:
                continue
            steps = [(0, 0)]
            if x % 1 < 0.5 and x > 1:
                steps.append((-0.5, 0))
            if y % 1 < 0.5 and y > 1:
                steps.append((0, -0.5))
            if (w - x) % 1 < 0.5 and w - x > 1:
                steps.append((0.5, 0))
            if (h - y) % 1 < 0.5 and h - y > 1:
                steps.append((0, 0.5))
            found += [(level, a, int(y + dy), int(x + dx)) for dx, dy in steps]
    return found


def rows_of(boxes, image):
    return [row[1:] for row in boxes.tolist() if row[0] == image]


def overlapped(rows, y, x, h, w):
    """Whether cell (y, x) of an h x w map shares area with one of the rows class, x, y, w, h."""
    for _, cx, cy, bw, bh in rows:
        in_x = min((cx + bw / 2) * w, x + 1) - max((cx - bw / 2) * w, x)
        in_y = min((cy + bh / 2) * h, y + 1) - max((cy - bh / 2) * h, y)
        if in_x > 1e-4 and in_y > 1e-4:
            return True
    return False


def energy(method, s, layer):
    """E by the letter, (B, h, w)."""
    adapted, teacher = method.adapters[str(layer)](s.student_features[layer]), s.teacher_features[layer]
    return torch.stack([((a - t) ** 2).mean(0) / (t**2).mean() for a, t in zip(adapted, teacher, strict=True)]).detach()


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def literal_sides(method, s, boxes):
    """Half of E inside and outside of boxes, without don't-care."""
    sides = ([], [])
    for layer in NECK:
        e = energy(method, s, layer)
        h, w = e.shape[1:]
        for image in range(len(e)):
            parts = ([], [])
            for y in range(h):
                for x in range(w):
                    if not overlapped(rows_of(s.ignore, image), y, x, h, w):
                        outside = not overlapped(rows_of(boxes, image), y, x, h, w)
                        parts[outside].append(e[image, y, x].item())
            for side, part in zip(sides, parts, strict=True):
                side.append(mean(part) / 2)
    return mean(sides[0]), mean(sides[1])


def literal_defeat(method, s, temperature):
    positives, negatives = [], []
    for image in range(2):
        wanted = {cell for _, *row in rows_of(s.targets, image) for cell in assigned(s, *row)}
        assert wanted
        pos, neg = [], []
        for level, a, y, x, ours, theirs in anchor_cells(s, image):
            if overlapped(rows_of(s.ignore, image), y, x, *s.student_maps[level].shape[2:4]):
                continue
            cost = kl(ours[4], theirs[4], temperature)
            if (level, a, y, x) not in wanted:
                neg.append(cost)
            elif len(ours) == 6:
                pos.append(cost)
            else:
                pos.append(cost + mean(kl(o, t, temperature) for o, t in zip(ours[5:], theirs[5:], strict=True)))
        positives.append(mean(pos))
        negatives.append(mean(neg))
    obj, bg = literal_sides(method, s, s.targets)
    return {'defeat_obj': obj, 'defeat_bg': bg, 'defeat_pos': mean(positives), 'defeat_neg': mean(negatives)}


@all_classes
@pytest.mark.parametrize('temperature', [1.0, 3.0])
def test_defeat_by_the_letter(nc, temperature):
    method, s = build('defeat', nc, {'temperature': temperature}), signals(nc)
    assert terms(method, s) == pytest.approx(literal_defeat(method, s, temperature), rel=1e-4)


@all_classes
def test_logit_by_the_letter(nc):
    s = signals(nc)
    expected = {'logit_box': 0.0, 'logit_obj': 0.0, 'logit_cls': 0.0}
    for image in range(2):
        for level, a, y, x, ours, theirs in anchor_cells(s, image):
            fraction = 1 / (2 * 3 * s.student_maps[level][0, ..., 0].numel())  # pictures, levels, anchor-cells
            anchor, objectness = s.head.anchors[level, a].tolist(), sigmoid(theirs[4])
            expected['logit_box'] += (
                fraction * objectness * ciou_miss(box(ours, anchor, x, y), box(theirs, anchor, x, y))
            )
            expected['logit_obj'] += fraction * kl(ours[4], theirs[4])
            classes = mean(kl(o, t) for o, t in zip(ours[5:], theirs[5:], strict=True))
            expected['logit_cls'] += fraction * objectness * classes
    if nc == 1:
        del expected['logit_cls']
    assert terms(build('logit', nc), s) == pytest.approx(expected, rel=1e-4)


def test_box_miss_of_boxes_of_all_sizes():
    """Equal boxes cost nothing, and the size of a cell does not matter, down to a hundredth of it."""
    raw = torch.zeros(1, 3, 1, 6, 6)
    raw[..., 2:4] = torch.tensor([50.0, 0, -2, -3, -9, -50])[:, None]
    anchors = PAIRS[1][0].head.anchors[0]
    assert box_miss(raw, raw, anchors).abs().max() < 1e-5
    wider = raw + torch.tensor([0.1, 0, 0.2, 0, 0, 0])
    for x in range(4):
        for a, anchor in enumerate(anchors.tolist()):
            expected = ciou_miss(
                box(wider[0, a, 0, x].tolist(), anchor, 0, 0), box(raw[0, a, 0, x].tolist(), anchor, 0, 0)
            )
            assert box_miss(wider, raw, anchors)[0, a, 0, x].item() == pytest.approx(expected, rel=1e-3, abs=1e-5)


@all_classes
def test_rank_by_the_letter(nc):
    s = signals(nc)
    images = []
    for image in range(2):
        objects = []
        ignored = rows_of(s.ignore, image)
        for category, *row in rows_of(s.targets, image):
            cells = [c for c in assigned(s, *row) if not overlapped(ignored, *c[2:], *s.student_maps[c[0]].shape[2:4])]
            ours, theirs = (
                [score(maps[c[0]][image][c[1:]].tolist())[int(category)] for c in cells]
                for maps in (s.student_maps, s.teacher_maps)
            )
            q, p = ([math.exp(v) / sum(map(math.exp, values)) for v in values] for values in (ours, theirs))
            objects.append(sum(b * math.log(b / a) for a, b in zip(q, p, strict=True)))
        images.append(mean(objects))
    assert min(images) > 1e-4
    assert terms(build('rank', nc), s)['rank'] == pytest.approx(mean(images), rel=1e-4)


def test_rank_of_lone_anchors_and_objects_without_any():
    """A pixel has no anchor; what is left of another object by a don't-care region is a single anchor-cell."""
    s = signals(targets=TARGETS[2:3], ignore=NONE)
    assert not assigned(s, *TARGETS[2, 2:].tolist())
    value = build('rank')(s)['rank']
    value.backward()
    assert value == 0
    # 33 x 30 pixels at (44, 12): the head's P3 anchor 33 x 23 among others; all but the first column is don't care.
    s = signals(targets=torch.tensor([[0, 0, 44 / 160, 12 / 64, 9 / 160, 11 / 64]]), ignore=NONE)
    cells = assigned(s, *s.targets[0, 2:].tolist())
    assert len(cells) > 1
    assert build('rank')(s)['rank'] > 0
    s.anchor_t = 1.3
    assert len(assigned(s, *s.targets[0, 2:].tolist())) == 2  # one anchor in two cells
    keep = assigned(s, *s.targets[0, 2:].tolist())[0]
    others = [c for c in assigned(s, *s.targets[0, 2:].tolist()) if c != keep]
    s.ignore = torch.tensor([[0, 0, (x + 0.5) / 20, (y + 0.5) / 8, 0.5 / 20, 0.5 / 8] for _, _, y, x in others])
    assert build('rank')(s)['rank'].item() == pytest.approx(0, abs=1e-7)


def test_rank_ignores_what_all_anchors_of_an_object_share():
    """Only the order counts: the same rise of all scores changes nothing, a rise of one does."""
    s = signals()
    for raw, wanted in zip(s.student_maps, s.teacher_maps, strict=True):
        raw.data[..., 4] = (wanted.data[..., 4].sigmoid() / 2).logit()
        wanted.data[..., 4] = (wanted.data[..., 4].sigmoid() / 2 + 0.3).logit()
    assert build('rank')(s)['rank'].item() == pytest.approx(0, abs=1e-6)
    s.student_maps[0].data[0, :, 3, 6, 4] += 2
    assert build('rank')(s)['rank'] > 1e-4


@all_classes
def test_score_l2_by_the_letter(nc):
    method, s = build('score_l2', nc), signals(nc)
    values = []
    for level, layer in enumerate(NECK):
        e = energy(method, s, layer)
        for image in range(2):
            best = {}
            for at, _, y, x, _, theirs in anchor_cells(s, image):
                if at == level:
                    best[y, x] = max(best.get((y, x), 0), *score(theirs))
            values.append(sum(v * e[image][cell].item() for cell, v in best.items()) / sum(best.values()))
    assert terms(method, s)['score_l2'] == pytest.approx(mean(values), rel=1e-4)


def test_score_l2_with_a_larger_teacher_and_layers_that_feed_no_head():
    s, method = signals(), build('score_l2')
    large = signals(cells={i: (2 * h, 2 * w) for i, (h, w) in CELLS.items()})
    s.teacher_features, s.teacher_maps, s.teacher_size = large.teacher_features, large.teacher_maps, (128, 320)
    values = []
    for level, layer in enumerate(NECK):
        teacher = torch.nn.functional.avg_pool2d(s.teacher_features[layer], 2)
        weight = torch.nn.functional.avg_pool2d(s.teacher_maps[level][..., 4].sigmoid().amax(1)[:, None], 2)[:, 0]
        e = (method.adapters[str(layer)](s.student_features[layer]) - teacher).square().mean(1)
        e = e / teacher.square().mean((1, 2, 3))[:, None, None]
        values.append(((weight * e).sum((1, 2)) / weight.sum((1, 2))).mean().item())
    assert terms(method, s)['score_l2'] == pytest.approx(mean(values), rel=1e-4)
    s.teacher_maps = [torch.full_like(raw, -200) for raw in s.teacher_maps]  # scores of exactly 0
    assert terms(method, s)['score_l2'] == 0
    with pytest.raises(UserError, match=r'score_l2: layers \[13\]'):
        build('score_l2', layers=[13])


def test_score_l2_takes_the_scores_of_the_teachers_level():
    s, method = signals(), build('score_l2', layers=NECK[:2], teacher_layers=NECK[1:])
    large = signals(cells={i: (2 * h, 2 * w) for i, (h, w) in CELLS.items()})
    s.teacher_features, s.teacher_maps, s.teacher_size = large.teacher_features, large.teacher_maps, (128, 320)
    values = []
    for level, layer in enumerate(NECK[:2]):
        teacher = s.teacher_features[NECK[level + 1]]
        weight = s.teacher_maps[level + 1][..., 4].sigmoid().amax(1)
        e = (method.adapters[str(layer)](s.student_features[layer]) - teacher).square().mean(1)
        e = e / teacher.square().mean((1, 2, 3))[:, None, None]
        values.append(((weight * e).sum((1, 2)) / weight.sum((1, 2))).mean().item())
    assert terms(method, s)['score_l2'] == pytest.approx(mean(values), rel=1e-4)


def test_maps_that_do_not_fit_are_refused_where_both_models_see_one_size():
    s = signals()
    s.teacher_features = signals(cells={i: (2 * h, 2 * w) for i, (h, w) in CELLS.items()}).teacher_features
    with pytest.raises(UserError, match='layer 17: the student has a map of'):
        build('mask')(s)


def literal_instances(s, image, count, overlap):
    """xyxy boxes (0..1), best first."""
    height, width = s.size
    found = []
    for level, a, y, x, ours, theirs in anchor_cells(s, image):
        p_s, p_t = score(ours), score(theirs)
        row, stride = theirs if max(p_t) > max(p_s) else ours, s.head.strides[level]
        corners = [v * stride for v in box(row, s.head.anchors[level, a].tolist(), x, y)]
        corners = [min(max(v / limit, 0), 1) for v, limit in zip(corners, (width, height) * 2, strict=True)]
        if corners[0] < corners[2] and corners[1] < corners[3]:  # something of it lies in the picture
            found.append((max(abs(t - o) for o, t in zip(p_s, p_t, strict=True)), corners))
    kept = []
    for _, corners in sorted(found, reverse=True):
        if all(iou(corners, other) <= overlap for other in kept):
            kept.append(corners)
    return kept[:count]


def bilinear(feature, y, x):
    """A vector of a (C, h, w) map, of which border cells continue outwards."""
    h, w = feature.shape[1:]
    y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
    y0, x0 = int(y), int(x)
    y1, x1, dy, dx = min(y0 + 1, h - 1), min(x0 + 1, w - 1), y - y0, x - x0
    upper = feature[:, y0, x0] * (1 - dx) + feature[:, y0, x1] * dx
    return upper * (1 - dy) + (feature[:, y1, x0] * (1 - dx) + feature[:, y1, x1] * dx) * dy


def literal_pool(feature, corners):
    """7 x 7 means of 2 x 2 samples each; cell centres lie at whole numbers."""
    h, w = feature.shape[1:]
    x1, y1, x2, y2 = corners[0] * w - 0.5, corners[1] * h - 0.5, corners[2] * w - 0.5, corners[3] * h - 0.5
    step_x, step_y = (x2 - x1) / 14, (y2 - y1) / 14
    rows = [[bilinear(feature, y1 + (i + 0.5) * step_y, x1 + (j + 0.5) * step_x) for j in range(14)] for i in range(14)]
    fine = torch.stack([torch.stack(row) for row in rows])  # (14, 14, C)
    return fine.view(7, 2, 7, 2, -1).mean((1, 3)).permute(2, 0, 1).flatten()


def literal_relation(student, teacher):
    def relative(items):
        distance = {(i, j): (a - b).norm().item() for i, a in enumerate(items) for j, b in enumerate(items) if i != j}
        return {pair: d / mean(distance.values()) for pair, d in distance.items()}

    gaps = [abs(o - t) for o, t in zip(relative(student).values(), relative(teacher).values(), strict=True)]
    return mean(g * g / 2 if g < 1 else g - 0.5 for g in gaps)


@all_classes
def test_gid_by_the_letter(nc):
    method, s = build('gid', nc, {'instances': 4, 'overlap': 0.3}), signals(nc)
    feature, relation, response = [], [], []
    for image in range(2):
        instances = literal_instances(s, image, 4, 0.3)
        assert len(instances) == 4
        for layer in NECK:
            with torch.no_grad():
                adapted = method.adapters[str(layer)](s.student_features[layer])[image]
                teacher = s.teacher_features[layer][image].detach()
            ours, theirs = ([literal_pool(f, corners) for corners in instances] for f in (adapted, teacher))
            unit = (teacher**2).mean()
            feature.append(mean((((a - t) ** 2).mean() / unit).item() for a, t in zip(ours, theirs, strict=True)))
            relation.append(literal_relation(ours, theirs))
        wanted = {
            c for x1, y1, x2, y2 in instances for c in assigned(s, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        }
        assert wanted
        costs = []
        for level, a, y, x, ours, theirs in anchor_cells(s, image):
            if (level, a, y, x) in wanted:
                anchor = s.head.anchors[level, a].tolist()
                cost = kl(ours[4], theirs[4]) + ciou_miss(box(ours, anchor, x, y), box(theirs, anchor, x, y))
                if nc > 1:
                    cost += mean(kl(o, t) for o, t in zip(ours[5:], theirs[5:], strict=True))
                costs.append(cost)
        response.append(mean(costs))
    expected = {'gid_feature': mean(feature), 'gid_relation': mean(relation), 'gid_response': mean(response)}
    assert terms(method, s) == pytest.approx(expected, rel=1e-3)


def test_gid_instances_stand_where_the_models_differ():
    """One anchor-cell differs in the second picture alone: its box, of the model with the higher score."""
    s = signals()
    s.student_maps = [raw.detach() - torch.tensor([0, 0, 0, 0, 4, 0]) for raw in s.teacher_maps]
    s.teacher_maps = [raw.clone() for raw in s.student_maps]
    place = (1, 2, 1, 6)  # picture, anchor, y, x of level 1, stride 16
    seen = [0.3, -0.4, 0, 0, 3.0, 0]
    s.teacher_maps[1][place] = torch.tensor(seen)
    boxes, valid = general_instances(s, 10, 0.3)
    assert valid.tolist() == [[False] * 10, [True] + [False] * 9]
    anchor = s.head.anchors[1, 2].tolist()
    corners = [min(max(v * 16 / limit, 0), 1) for v, limit in zip(box(seen, anchor, 6, 1), (160, 64) * 2, strict=True)]
    assert boxes[1, 0].tolist() == pytest.approx(corners, abs=1e-5)
    # The places of instances that are missing take no cell: the mean is over those of the one box.
    x1, y1, x2, y2 = corners
    cells = set(assigned(s, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1))
    assert (1, 2, 1, 6) in cells
    before = s.student_maps[1][place].tolist()
    cost = kl(before[4], seen[4]) + ciou_miss(box(before, anchor, 6, 1), box(seen, anchor, 6, 1))
    assert terms(build('gid'), s)['gid_response'] == pytest.approx(cost / len(cells) / 2, rel=1e-3)
    # A box that lies outside the picture is no instance.
    s.teacher_maps[1][place] = s.student_maps[1][place]
    s.teacher_maps[0][0, 0, 3, 0] = torch.tensor([-50.0, 0, -50, 0, 3, 0])
    assert not general_instances(s, 10, 0.3)[1].any()


def test_gid_without_suppression_takes_the_largest_differences():
    s = signals()
    boxes, valid = general_instances(s, 5, 1.0)
    assert valid.all()
    for image in range(2):
        expected = literal_instances(s, image, 5, 1.0)
        assert boxes[image].tolist() == [pytest.approx(corners, abs=1e-5) for corners in expected]


def test_gid_relations_of_constant_features_are_not_those_of_rounding():
    s = signals()
    noise = torch.Generator().manual_seed(0)
    for feature in (*s.student_features.values(), *s.teacher_features.values()):
        feature.data = 0.7 + 1e-6 * torch.rand(feature.shape, generator=noise)
    value = build('gid')(s)['gid_relation']
    assert value < 1e-6
    value.backward()
    assert max(feature.grad.abs().max() for feature in s.student_features.values()) < 1


def test_gid_of_equal_features_and_of_one_instance():
    s = signals(targets=NONE)
    method = build('gid')
    s.teacher_features = {i: method.adapters[str(i)](s.student_features[i]).detach() for i in NECK}
    value = terms(method, s)
    assert value['gid_feature'] == pytest.approx(0, abs=1e-9)
    assert value['gid_relation'] == pytest.approx(0, abs=1e-9)
    assert value['gid_response'] > 0.01
    lone = terms(build('gid', options={'instances': 1}), signals())
    assert lone['gid_relation'] == 0
    assert lone['gid_feature'] > 0


def test_gid_pools_half_a_map():
    feature = torch.zeros(1, 1, 4, 8)
    feature[..., 4:] = 1.0
    halves = torch.tensor([[[0.0, 0.0, 0.4, 1.0], [0.6, 0.0, 1.0, 1.0]]])
    assert torch.equal(instance_features(feature, halves)[0].mean(1), torch.tensor([0.0, 1.0]))


# Regions of mask and PFI.


def boxes_of_region(s, region, confidence=0.25):
    found = s.teacher_boxes(confidence)
    return {'ground-truth': s.targets, 'teacher': found, 'union': torch.cat((s.targets, found))}[region]


def teacher_of_two_words(nc=1):
    """A teacher that sees one word in each picture, the second within a don't-care region."""
    s = signals(nc)
    for raw in s.teacher_maps:
        raw.data[..., 4] = -9
    s.teacher_maps[0].data[0, 1, 2, 15, :] = torch.tensor([0, 0, 0.5, 0, 2, *[2.0] * nc])
    s.teacher_maps[0].data[1, 1, 5, 4, :] = torch.tensor([0, 0, 0.5, 0, 2, *[2.0] * nc])
    assert s.teacher_boxes(0.25)[:, 0].tolist() == [0, 1]
    return s


def test_teacher_boxes_by_hand():
    """On 160x64 pixels: stride 8, second anchor, 16x30, cells (15, 2) and (4, 5); the second sticks out below."""
    s = teacher_of_two_words()
    s.teacher_maps[0].data[1, 1, 5, 4, 3] = 0.5
    width, height = (side * (2 / (1 + math.exp(-0.5))) ** 2 for side in (16, 30))
    top = (5 + 0.5) * 8 - height / 2
    wanted = [
        [0, 0, (15 + 0.5) * 8 / 160, (2 + 0.5) * 8 / 64, width / 160, 30 / 64],
        [1, 0, (4 + 0.5) * 8 / 160, (top + 64) / 2 / 64, width / 160, (64 - top) / 64],
    ]
    torch.testing.assert_close(s.teacher_boxes(0.25), torch.tensor(wanted))
    s.size = (32, 80)  # the student's says nothing of the teacher's boxes
    s.teacher_size = SIZE
    torch.testing.assert_close(s.teacher_boxes(0.25), torch.tensor(wanted))


@pytest.mark.parametrize('region', ['ground-truth', 'teacher', 'union'])
def test_mask_of_regions_by_the_letter(region):
    method, s = build('mask', options={'region': region}), teacher_of_two_words()
    obj, bg = literal_sides(method, s, boxes_of_region(s, region))
    assert terms(method, s) == pytest.approx({'mask_obj': obj, 'mask_bg': bg}, rel=1e-4)
    assert method.needs_labels == (region != 'teacher')


@pytest.mark.parametrize('region', ['everywhere', 'ground-truth', 'teacher', 'union'])
def test_pfi_of_regions_by_the_letter(region):
    method, s = build('pfi', options={'region': region}), teacher_of_two_words()
    values = []
    for level, layer in enumerate(NECK):
        e = energy(method, s, layer)
        h, w = e.shape[1:]
        for image in range(2):
            gap = {}
            for at, _, y, x, ours, theirs in anchor_cells(s, image):
                if at == level:
                    gap[y, x] = gap.get((y, x), 0) + (sigmoid(ours[4]) - sigmoid(theirs[4])) ** 2 / 3
            if region != 'everywhere':
                rows, free = rows_of(boxes_of_region(s, region), image), rows_of(s.ignore, image)
                gap = {c: g for c, g in gap.items() if overlapped(rows, *c, h, w) and not overlapped(free, *c, h, w)}
            values.append(mean(g * e[image][cell].item() for cell, g in gap.items()))
    assert terms(method, s)['pfi'] == pytest.approx(mean(values), rel=1e-4)
    assert method.needs_labels == (region in ('ground-truth', 'union'))


def test_regions_move_with_the_teachers_confidence_and_an_empty_one_gives_0():
    s = teacher_of_two_words()  # objectness sigmoid(2) = 0.88, class sigmoid(2): confidence 0.78
    for name, term in (('mask', 'mask_obj'), ('pfi', 'pfi')):
        assert build(name, options={'region': 'teacher', 'confidence': 0.77})(s)[term] > 0
        nothing = build(name, options={'region': 'teacher', 'confidence': 0.79})(s)[term]
        assert nothing == 0
        nothing.backward()


def test_a_dont_care_region_over_all_of_the_teachers_box_takes_it_out():
    s = teacher_of_two_words()
    s.ignore = torch.tensor([[0, 0, 0.5, 0.5, 1, 1], [1, 0, 0.5, 0.5, 1, 1.0]])
    for name in ('mask', 'pfi'):
        assert sum(terms(build(name, options={'region': 'union'}), s).values()) == 0


@pytest.mark.parametrize(('name', 'region'), [('mask', 'ground-truth'), ('pfi', 'everywhere'), ('pfi', 'ground-truth')])
def test_confidence_without_a_teachers_region_is_refused(name, region):
    with pytest.raises(UserError, match=f'{name}: confidence has no effect with region {region}'):
        build(name, options={'region': region, 'confidence': 0.5})


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('mask', {'region': 'everywhere'}, 'expected one of ground-truth, teacher, union'),
        ('pfi', {'region': 'labels'}, 'expected one of everywhere, ground-truth'),
        ('pfi', {'confidence': 2}, 'from 0 to 1'),
        ('gid', {'instances': 2.5}, 'a whole number'),
        ('gid', {'overlap': -1}, 'from 0 to 1'),
        ('defeat', {'temperature': 0}, 'from 0.01'),
    ],
)
def test_options_are_checked(name, options, message):
    with pytest.raises(UserError, match=message):
        parse_recipe({'teacher': 't', 'student': 's', 'methods': {name: {'options': options}}}, 'test')


# What every method promises.


@all_classes
@every_method
def test_zero_when_the_student_is_the_teacher(name, options, nc):
    method, s = build(name, nc, options), signals(nc)
    assert sum(terms(method, s).values()) > 1e-3
    s.student_maps = [raw.detach().clone() for raw in s.teacher_maps]
    if method.ADAPTS:
        s.teacher_features = {i: method.adapters[str(i)](s.student_features[i]).detach() for i in NECK}
    assert all(value == pytest.approx(0, abs=1e-6) for value in terms(method, s).values())


@all_classes
@every_method
def test_gradient_reaches_student_and_adapters_never_the_teacher(name, options, nc):
    method, s = build(name, nc, options), signals(nc)
    found = method(s)
    assert set(found) == set(method.TERMS) - ({'logit_cls'} if nc == 1 else set())
    sum(found.values()).backward()
    for layer in method.layers:
        assert s.student_features[layer].grad.abs().sum() > 0
        assert method.adapters[str(layer)].weight.grad.abs().sum() > 0
    if name in ('gid', 'rank', 'logit', 'defeat'):
        assert s.student_maps[0].grad.abs().sum() > 0
        classes = [raw.grad[..., 5:].abs().sum() for raw in s.student_maps if raw.grad is not None]
        assert (sum(classes) > 0) == (nc > 1)
    assert all(tensor.grad is None for tensor in [*s.teacher_maps, *s.teacher_features.values()])


@all_classes
@every_method
def test_a_batch_is_the_mean_of_its_pictures(name, options, nc):
    method, s = build(name, nc, options), signals(nc)
    alone = [terms(method, s.select(torch.tensor([image == 0, image == 1]))) for image in range(2)]
    for term, value in terms(method, s).items():
        assert value == pytest.approx((alone[0][term] + alone[1][term]) / 2, rel=1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@every_method
def test_half_precision_inputs(name, options, dtype):
    method, s = build(name, 3, options), signals(3)
    exact = terms(method, s)
    s.student_maps, s.teacher_maps = ([raw.to(dtype) for raw in maps] for maps in (s.student_maps, s.teacher_maps))
    s.teacher_features = {i: feature.to(dtype) for i, feature in s.teacher_features.items()}
    if dtype == torch.bfloat16:
        s.student_features = {i: feature.to(dtype) for i, feature in s.student_features.items()}
    found = method(s)
    assert all(value.dtype == torch.float32 and value.shape == () for value in found.values())
    loose = 0.15 if name == 'gid' else 0.03  # rounding may exchange an instance
    assert terms(method, s) == pytest.approx(exact, rel=loose, abs=2e-3)


WHOLE = torch.tensor([[0, 0, 0.5, 0.5, 1, 1], [1, 0, 0.5, 0.5, 1, 1.0]])
BORDERS = torch.tensor(
    [[0, 1, 0, 0, 0.2, 0.2], [0, 2, 1, 1, 0.1, 0.3], [1, 0, 1, 0.5, 0.02, 1], [1, 0, 0.5, 0.5, 1, 1]]
)
HARD = {
    'empty pictures': {'targets': NONE, 'ignore': NONE},
    'one picture': {'batch': 1, 'targets': TARGETS[:3], 'ignore': IGNORE[:1]},
    'pixels': {'targets': TARGETS[2:3].repeat(3, 1), 'ignore': NONE},
    'borders': {'targets': BORDERS, 'ignore': NONE},
    "all is don't care": {'ignore': WHOLE},
    'maps of one cell': {'cells': dict.fromkeys(NECK, (1, 1)), 'size': (8, 8)},
}


def hard_signals(case):
    s = signals(3, **HARD.get(case, {}))
    features = [*s.student_features.values(), *s.teacher_features.values()]
    for raw in s.teacher_maps if case == 'no teacher boxes' else []:
        raw.data[..., 4] = -50
    for feature in features if case in ('constant features', 'zero features') else []:
        feature.data.fill_(0.7 if case == 'constant features' else 0)
    for raw in [*s.student_maps, *s.teacher_maps] if case == 'saturated' else []:
        raw.data = raw.data.sign() * 50
    return s


@pytest.mark.parametrize('case', [*HARD, 'no teacher boxes', 'constant features', 'zero features', 'saturated'])
@every_method
def test_hard_inputs_give_finite_terms_and_gradients(name, options, case):
    method, s = build(name, 3, options), hard_signals(case)
    found = method(s)
    total = sum(found.values())
    assert torch.isfinite(total)
    if total.requires_grad:
        total.backward()
    tensors = [*s.student_maps, *s.student_features.values(), *method.parameters()]
    assert all(t.grad is None or torch.isfinite(t.grad).all() for t in tensors)
    if case == 'empty pictures':
        labelled = {'rank': ['rank'], 'defeat': ['defeat_obj', 'defeat_pos']}
        assert all(found[term] == 0 for term in labelled.get(name, []))
    if case == "all is don't care" and method.needs_labels:
        assert total == 0


@every_method
def test_the_global_generator_is_left_alone(name, options):
    s = signals()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build(name, 1, options)(s)
    assert torch.equal(torch.rand(3), expected)


def test_what_the_methods_need():
    needs = {name: (m.needs_labels, m.SAME_SIZE, m.ADAPTS) for name, _ in METHODS for m in [build(name)]}
    assert needs == {
        'gid': (False, True, True),
        'rank': (True, True, False),
        'logit': (False, True, False),
        'score_l2': (False, False, True),
        'defeat': (True, True, True),
    }
