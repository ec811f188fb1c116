"""Augmentation: regions follow pixels exactly, cut regions stay tight, and draws come from the generator alone."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon, box

from utils.loading import augment
from utils.loading.labels import Annotations
from utils.loading.polygons import clip_polygons, polygon_areas
from utils.runtime.hyp import DEFAULTS

WILD = DEFAULTS | {'degrees': 40, 'shear': 10, 'perspective': 0.0008, 'scale': 0.5, 'translate': 0.2}
QUAD = np.array([(60, 40), (130, 55), (120, 100), (50, 80)], float)


def painted(width, height, polygon, dont_care=False):
    """A black picture with one white polygon, and its annotation."""
    fine = 16
    image = np.zeros((height * fine, width * fine, 3), np.uint8)
    cv2.fillPoly(image, [np.round(polygon * fine - 0.5).astype(int)], (255,) * 3)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return image, Annotations.build([0], [np.asarray(polygon, float)], dont_care)


def extents(image):
    """x1, y1, x2, y2 of what is white."""
    ys, xs = np.nonzero((image > 127).all(2))
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize('seed', range(25))
@pytest.mark.parametrize('perspective', [0, 0.0008])
def test_projected_boxes_are_tight_around_the_moved_pixels(seed, perspective):
    source, target = (320, 180), (288, 352)
    example = painted(*source, QUAD)
    matrix = augment.random_projection(generator(seed), WILD | {'perspective': perspective}, source, target)
    image, annotations = augment.project(example, matrix, target)
    assert image.shape == (352, 288, 3)
    # Grey beyond the picture is 114, under the threshold of what counts as white.
    if (image > 127).any() and len(annotations) and annotations.visible[0] > 0.3:
        np.testing.assert_allclose(extents(image), annotations.boxes()[0], atol=1.5)


def test_most_projections_of_the_test_above_keep_the_region():
    kept = [
        len(
            augment.project(
                painted(320, 180, QUAD),
                augment.random_projection(generator(seed), WILD, (320, 180), (288, 352)),
                (288, 352),
            )[1]
        )
        for seed in range(25)
    ]
    assert sum(kept) >= 20


def test_projection_centres_the_picture_when_nothing_is_drawn():
    still = DEFAULTS | dict.fromkeys(('degrees', 'translate', 'scale', 'shear', 'perspective'), 0.0)
    matrix = augment.random_projection(generator(), still, (200, 100), (160, 120))
    np.testing.assert_allclose(matrix, [[1, 0, -20], [0, 1, 10], [0, 0, 1]], atol=1e-12)


def test_projection_of_the_identity_leaves_every_pixel():
    image = generator().integers(0, 256, (30, 50, 3), np.uint8)
    example = image, Annotations.build([], [])
    assert np.array_equal(augment.project(example, np.eye(3), (50, 30))[0], image)


def test_projection_moves_pixels_by_their_corners_not_their_centres():
    image = generator().integers(0, 256, (30, 50, 3), np.uint8)
    example = image, Annotations.build([], [])
    mirror = np.array([[-1, 0, 50], [0, 1, 0], [0, 0, 1]])
    assert np.array_equal(augment.project(example, mirror, (50, 30))[0], image[:, ::-1])
    quarter_turn = np.array([[0, -1, 30], [1, 0, 0], [0, 0, 1]])
    assert np.array_equal(augment.project(example, quarter_turn, (30, 50))[0], np.rot90(image, -1))


def test_perspective_never_reaches_the_horizon():
    for seed in range(200):
        matrix = augment.random_projection(generator(seed), WILD | {'perspective': 0.001}, (2560, 2560), (1280, 1280))
        corners = np.array([(0, 0, 1), (2560, 0, 1), (0, 2560, 1), (2560, 2560, 1)]) @ matrix[2]
        assert corners.min() >= 0.5 - 1e-9


def test_mosaic_places_four_pictures_around_one_point():
    colours = (10, 60, 110, 160)
    shapes = ((90, 160), (160, 100), (120, 160), (160, 160))
    corner = np.array([(2, 3), (42, 3), (42, 23), (2, 23)], float)
    examples = []
    for colour, shape in zip(colours, shapes, strict=True):
        image = np.full((*shape, 3), colour, np.uint8)
        image[3:23, 2:42] = 255
        examples.append((image, Annotations.build([colour], [corner])))
    for seed in range(10):
        canvas, annotations = augment.compose_mosaic(generator(seed), examples, 160)
        assert canvas.shape == (320, 320, 3)
        for category, (x1, y1, x2, y2) in zip(annotations.classes, annotations.boxes().astype(int), strict=True):
            assert (canvas[y1:y2, x1:x2] == 255).all()
            assert category in colours
        assert (canvas == 255).all(2).sum() == round(polygon_areas(annotations.polygons).sum())
        assert {0} | set(colours) >= set(np.unique(canvas)) - {255, augment.GREY}


def test_flips_move_pixels_and_regions_alike():
    example = painted(200, 120, QUAD)
    image, annotations = augment.random_flips(generator(), example, 1, 0)
    np.testing.assert_allclose(annotations.boxes()[0], (50, 20, 130, 80))  # 120 - 100, 120 - 40
    np.testing.assert_allclose(extents(image), annotations.boxes()[0], atol=1)
    image, annotations = augment.random_flips(generator(), example, 0, 1)
    np.testing.assert_allclose(annotations.boxes()[0], (70, 40, 150, 100))  # 200 - 130, 200 - 50
    np.testing.assert_allclose(extents(image), annotations.boxes()[0], atol=1)
    image, annotations = augment.random_flips(generator(), example, 0, 0)
    assert image is example[0]


def test_quarter_turns_move_pixels_and_regions_alike():
    example = painted(200, 120, QUAD)  # its box is 50, 40, 130, 100
    boxes = {'clockwise': (20, 50, 80, 130), 'back': (40, 70, 100, 150)}  # 120 - 100 .. 120 - 40; 200 - 130 .. 200 - 50
    seen = set()
    for seed in range(8):
        image, annotations = augment.random_turn(generator(seed), example, 1)
        assert image.shape == (200, 120, 3)
        seen |= {name for name, box in boxes.items() if np.allclose(annotations.boxes()[0], box)}
        np.testing.assert_allclose(extents(image), annotations.boxes()[0], atol=1)
    assert seen == set(boxes)


def test_quarter_turns_are_as_frequent_as_asked_and_draw_nothing_where_they_are_not():
    example, rng = painted(200, 120, QUAD), generator()
    turned = [augment.random_turn(rng, example, 0.2)[0] is not example[0] for _ in range(2000)]
    assert 0.17 < np.mean(turned) < 0.23
    state = rng.bit_generator.state
    assert augment.random_turn(rng, example, 0)[0] is example[0] and rng.bit_generator.state == state


def test_a_cut_target_becomes_dont_care_and_not_background():
    square = np.array([(0, 0), (100, 0), (100, 100), (0, 100)], float)
    for visible, dont_care in ((0.5, False), (0.21, False), (0.19, True), (0.001, True)):
        shift = np.array([[1, 0, 200 - 100 * visible], [0, 1, 20], [0, 0, 1]])
        _, annotations = augment.project(painted(200, 150, square), shift, (200, 150))
        assert annotations.visible[0] == pytest.approx(visible)
        assert annotations.dont_care.tolist() == [dont_care]
    gone = np.array([[1, 0, 201], [0, 1, 0], [0, 0, 1]])
    assert len(augment.project(painted(200, 150, square), gone, (200, 150))[1]) == 0


def test_a_target_under_two_pixels_becomes_dont_care():
    strip = np.array([(20, 20), (80, 20), (80, 24), (20, 24)], float)
    for gain, dont_care in ((0.51, False), (0.49, True)):
        _, annotations = augment.project(painted(100, 60, strip), np.diag((gain, gain, 1)), (100, 60))
        assert annotations.dont_care.tolist() == [dont_care]


def test_two_cuts_in_a_row_are_counted_together():
    square = np.array([(-50, 0), (50, 0), (50, 100), (-50, 100)], float)
    annotations = Annotations.build([0], [square]).clipped(200, 200)
    assert annotations.visible == pytest.approx([0.5])
    again = annotations.scaled(1, 1, 0, -50).clipped(200, 200)
    assert again.visible == pytest.approx([0.25])


def test_dont_care_goes_through_every_augmentation():
    example = painted(320, 180, QUAD, dont_care=True)
    target = painted(320, 180, QUAD)
    canvas, annotations = augment.compose_mosaic(generator(), [example] * 4, 320)
    assert len(annotations) and annotations.dont_care.all()
    matrix = augment.random_projection(generator(1), DEFAULTS, (640, 640), (320, 320))
    image, annotations = augment.project((canvas, annotations), matrix, (320, 320))
    assert len(annotations) and annotations.dont_care.all()
    image, annotations = augment.random_flips(generator(), (image, annotations), 1, 1)
    assert len(annotations) and annotations.dont_care.all()
    assert augment.blend(generator(), target, example)[1].dont_care.tolist() == [False, True]


def test_blend_is_a_weighted_mean_near_one_half():
    black, white = np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), 200, np.uint8)
    none = Annotations.build([], [])
    values = [augment.blend(generator(seed), (black, none), (white, none))[0][0, 0, 0] for seed in range(50)]
    assert abs(np.mean(values) - 100) < 8 and 5 < np.std(values) < 25  # Beta(32, 32) has a deviation of 0.062


def test_hsv_shifts_stay_in_their_ranges():
    red = np.zeros((2, 3, 3), np.uint8)
    red[..., 0] = 200
    assert augment.jitter_hsv(generator(), red, 0, 0, 0) is red
    values = [augment.jitter_hsv(generator(seed), red, 0, 0, 0.4)[0, 0] for seed in range(60)]
    assert np.all(np.array(values)[:, 1:] == 0)  # the colour stays
    brightest = np.array(values)[:, 0]
    assert 119 <= brightest.min() < 140 and 240 < brightest.max() <= 255
    hues = [
        cv2.cvtColor(augment.jitter_hsv(generator(s), red, 0.1, 0, 0), cv2.COLOR_RGB2HSV)[0, 0, 0] for s in range(60)
    ]
    signed = (np.array(hues, int) + 90) % 180 - 90
    assert -18 <= signed.min() < -9 and 9 < signed.max() <= 18


@pytest.mark.parametrize('shape', [(96, 128), (90, 128), (91, 127)])
def test_pad_to_centres_the_picture(shape):
    image = np.full((*shape, 3), 7, np.uint8)
    padded, left, top = augment.pad_to(image, 96, 128)
    assert padded.shape == (96, 128, 3)
    assert (left, top) == ((128 - shape[1]) // 2, (96 - shape[0]) // 2)
    inside = padded[top : top + shape[0], left : left + shape[1]]
    assert (inside == 7).all()
    assert (padded == 7).all(2).sum() == shape[0] * shape[1] and set(np.unique(padded)) <= {7, augment.GREY}


def test_resize_long_side():
    assert augment.resize_long_side(np.zeros((720, 1280, 3), np.uint8), 640).shape == (360, 640, 3)
    assert augment.resize_long_side(np.zeros((333, 100, 3), np.uint8), 640).shape == (640, 192, 3)  # 192.19
    assert augment.resize_long_side(np.zeros((1, 3000, 3), np.uint8), 640).shape == (1, 640, 3)


def test_clip_by_hand():
    triangle = np.array([[(-2, 1), (2, 1), (2, 5)]], float)
    # Left of x = 0 goes, which cuts the slanted side at (0, 3); above y = 4 goes, which cuts it at (1, 4).
    cut = clip_polygons(triangle, 10, 4)[0]
    assert {tuple(p) for p in cut.tolist()} == {(0, 1), (2, 1), (2, 4), (1, 4), (0, 3)}
    assert polygon_areas(cut[None])[0] == pytest.approx(5.5)


def test_clip_beside_a_corner_that_is_nearly_zero():
    """By hand: from the slanted side x = y / 144 to x = 1, over y = 0 to 60. Shapely cuts this one wrongly, to 60."""
    triangle = np.array([[(1, 144), (1, -1), (3.5e-279, 9.7e-233)]])
    assert polygon_areas(clip_polygons(triangle, 100, 60))[0] == pytest.approx(60 - 60**2 / 288)


# Whole millionths of a pixel: shapely fails at numbers such as 1e-279 (see above).
COORDINATES = st.integers(-50_000_000, 150_000_000).map(lambda millionths: millionths / 1e6)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(COORDINATES, COORDINATES), min_size=3, max_size=7), st.integers(0, 3))
def test_clip_agrees_with_shapely(points, repeats):
    convex = Polygon(points).convex_hull
    if convex.geom_type != 'Polygon' or convex.area < 1:
        return
    corners = np.array(convex.exterior.coords)[:-1]
    corners = np.concatenate((corners, np.repeat(corners[-1:], repeats, 0)))
    expected = convex.intersection(box(0, 0, 100, 60))
    cut = clip_polygons(corners[None], 100, 60)
    assert polygon_areas(cut)[0] == pytest.approx(expected.area, abs=1e-6)
    if expected.area > 1e-3:
        found = (*cut[0].min(0), *cut[0].max(0))
        np.testing.assert_allclose(found, expected.bounds, atol=1e-6)


def test_annotations_pad_and_unpad_polygons():
    triangle, pentagon = np.array([(0, 0), (8, 0), (8, 4)]), np.array([(1, 1), (2, 0), (3, 1), (3, 3), (1, 3)])
    annotations = Annotations.build([0, 1], [triangle, pentagon])
    assert annotations.polygons.shape == (2, 5, 2)
    first, second = annotations.polygon_list(8, 4)
    np.testing.assert_allclose(first, triangle / (8, 4))
    np.testing.assert_allclose(second, pentagon / (8, 4))
    both = Annotations.concatenate([Annotations.build([], []), Annotations.build([2], [triangle]), annotations])
    assert both.classes.tolist() == [2, 0, 1]
    np.testing.assert_allclose(both.boxes(), [(0, 0, 8, 4), (0, 0, 8, 4), (1, 0, 3, 3)])
    np.testing.assert_allclose(both.rows(8, 4)[2], [1, 0.25, 0.375, 0.25, 0.75])
