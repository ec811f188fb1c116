"""--crop: squares around words, at the scales that the hyp says; what the frame cuts is nobody's target."""

import itertools

import numpy as np
import pytest

from models.errors import UserError
from utils.loading import augment
from utils.loading.config import load_data_config
from utils.loading.dataset import TextDataset
from utils.loading.labels import Annotations
from utils.loading.loader import build_loader
from utils.runtime.hyp import DEFAULTS

STILL = DEFAULTS | dict.fromkeys(
    ('degrees', 'translate', 'shear', 'perspective', 'mosaic', 'hsv_h', 'hsv_s', 'hsv_v'), 0.0
)
NEAR = STILL | {'scale': 0.0, 'zoom': 1.0, 'fliplr': 0.0}


def page(width: int = 400, height: int = 300) -> tuple[np.ndarray, Annotations]:
    """Three words of 40 x 20 far from each other, and a don't-care region."""
    places = [(20, 20), (300, 40), (180, 240)]
    image = np.zeros((height, width, 3), np.uint8)
    polygons = []
    for number, (x, y) in enumerate(places):
        image[y : y + 20, x : x + 40] = 80 * (number + 1)
        polygons.append(np.array([(x, y), (x + 40, y), (x + 40, y + 20), (x, y + 20)], float))
    ignored = Annotations.build([0], [np.array([(200, 100), (240, 100), (240, 120), (200, 120)], float)], True)
    return image, Annotations.concatenate([Annotations.build([0, 0, 0], polygons), ignored])


def test_a_crop_holds_a_whole_word_where_the_picture_has_it():
    image, annotations = page()
    for seed in range(100):
        cut, found = augment.random_crop(np.random.default_rng(seed), NEAR, (image, annotations), 96)
        assert cut.shape == (96, 96, 3)
        targets = found[~found.dont_care]
        assert len(targets) >= 1
        for x1, y1, x2, y2 in targets.boxes().round().astype(int):
            assert (x2 - x1, y2 - y1) == (40, 20)
            inner = cut[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]  # the edge is between two pixels
            assert len(np.unique(inner)) == 1  # the pixels of one word, and nothing else
            assert inner.max() > 0


def test_every_word_is_reached_equally_often():
    image, annotations = page()
    seen = np.zeros(3)
    for seed in range(600):
        cut, found = augment.random_crop(np.random.default_rng(seed), NEAR, (image, annotations), 64)
        (box,) = found[~found.dont_care].boxes().round().astype(int)
        seen[cut[box[1] + 5, box[0] + 5, 0] // 80 - 1] += 1
    assert seen.sum() == 600
    assert (abs(seen - 200) < 45).all()  # four standard deviations


def test_words_that_the_frame_cuts_are_dont_care():
    word = np.array([(0, 40), (300, 40), (300, 60), (0, 60)], float)
    image, annotations = np.zeros((100, 300, 3), np.uint8), Annotations.build([0], [word])
    for seed in range(20):
        _, found = augment.random_crop(np.random.default_rng(seed), NEAR, (image, annotations), 96)
        assert found.dont_care.all()
        assert (found.edges()[:, 4] == 0).all()


def test_gains_stay_in_the_range_and_are_even_on_a_logarithmic_scale():
    hyp = NEAR | {'scale': 0.5, 'zoom': 2.0}
    gains = np.array([augment.random_gain(np.random.default_rng(seed), hyp) for seed in range(2000)])
    assert gains.min() >= 0.5
    assert gains.max() <= 2
    assert np.mean(gains < 1) == pytest.approx(0.5, abs=0.05)
    assert augment.random_gain(np.random.default_rng(0), hyp, small=8) >= 1  # a small picture is not reduced further
    old = np.array([augment.random_gain(np.random.default_rng(seed), DEFAULTS) for seed in range(500)])
    assert 0.5 <= old.min() < 0.6
    assert 1.4 < old.max() <= 1.5


def test_aspect_widens_and_narrows_and_keeps_the_area():
    factors = np.array([augment.random_stretch(np.random.default_rng(i), NEAR | {'aspect': 1.0}) for i in range(500)])
    np.testing.assert_allclose(factors.prod(1), 1)
    ratio = factors[:, 0] / factors[:, 1]
    assert 0.5 <= ratio.min() < 0.6
    assert 1.8 < ratio.max() <= 2
    assert augment.random_stretch(np.random.default_rng(0), NEAR).tolist() == [1, 1]


@pytest.mark.parametrize('gain', [1, 2])
def test_the_scale_is_that_of_the_picture_at_imgsz(monkeypatch, gain):
    """At gain 2 the word is twice as large; the picture itself may be smaller than the square."""
    monkeypatch.setattr(augment, 'random_gain', lambda *_: gain)
    image, annotations = page(120, 90)
    kept = annotations[np.array([True, False, False, False])]
    cut, found = augment.random_crop(np.random.default_rng(1), NEAR, (image, kept), 256)
    assert (found.boxes()[0, 2:] - found.boxes()[0, :2]).round().tolist() == [40 * gain, 20 * gain]
    grey = (cut == augment.GREY).all(2).mean()  # a picture of 120 x 90 in a square of 256
    assert grey == pytest.approx(1 - 120 * 90 * gain**2 / 256**2, abs=0.02)


def test_a_picture_without_words_is_cropped_too():
    image = np.full((200, 300, 3), 7, np.uint8)
    cut, found = augment.random_crop(np.random.default_rng(0), NEAR, (image, Annotations.build([], [])), 64)
    assert (cut == 7).all()
    assert len(found) == 0


def test_dataset_gives_squares_of_the_crop(tiny_data):
    data = load_data_config(tiny_data)
    dataset = TextDataset(data, 'train', 320, NEAR | {'mosaic': 0.5}, augment=True, crop=128, cache=True)
    batch = next(iter(build_loader(dataset, 6, shuffle=True)))
    assert batch.images.shape == (6, 3, 128, 128)
    assert len(batch.targets) > 0
    again = TextDataset(data, 'train', 320, NEAR | {'mosaic': 0.5}, augment=True, crop=128)
    for index in (0, 5):
        first, second = dataset[2, index], again[2, index]
        assert (first.image == second.image).all()
        np.testing.assert_array_equal(first.annotations.polygons, second.annotations.polygons)
    assert (dataset[2, 0].image != dataset[3, 0].image).any()


@pytest.mark.parametrize('imgsz', [128, 320])  # the pictures are larger; and between this and twice this
def test_crops_for_a_teacher_of_larger_pictures_show_the_student_the_same(tiny_data, imgsz):
    """With shown, all words and their places are those of the plain data set, twice as large."""
    hyp = DEFAULTS | {'scale': 0.5, 'zoom': 2.0, 'aspect': 0.5, 'degrees': 5.0, 'perspective': 5e-4, 'mosaic': 0.0}
    data = load_data_config(tiny_data)
    plain = TextDataset(data, 'train', imgsz, hyp, augment=True, crop=64)
    twice = TextDataset(data, 'train', 2 * imgsz, hyp, augment=True, crop=128, shown=imgsz)
    words = 0
    for key in itertools.product(range(5), range(len(plain))):
        one, two = (dataset[key].annotations for dataset in (plain, twice))
        np.testing.assert_allclose(two.polygons, 2 * one.polygons, atol=0.05)
        np.testing.assert_array_equal(two.dont_care, one.dont_care)
        words += (~one.dont_care).sum()
    assert words > 20


def test_sides_that_the_student_sees(tiny_data):
    """Crops never enlarge a picture first; whole pictures are brought to one size; a larger teacher changes neither."""
    data = load_data_config(tiny_data)
    for imgsz, more in ((128, {}), (4096, {}), (128, {'crop': 64}), (4096, {'crop': 64})):
        plain = TextDataset(data, 'train', imgsz, DEFAULTS, augment=True, **more)
        own = plain.sizes.max(1)
        assert plain.shown_sides() == (np.minimum(own, imgsz) if more else np.full(len(own), imgsz)).tolist()
        crop = {'crop': 128} if more else {}
        larger = TextDataset(data, 'train', 2 * imgsz, DEFAULTS, augment=True, shown=imgsz, **crop)
        assert larger.shown_sides() == plain.shown_sides()


def test_whole_pictures_for_a_teacher_of_larger_ones_show_the_student_the_same(tiny_data):
    hyp = DEFAULTS | {'scale': 0.3, 'degrees': 5.0, 'perspective': 1e-3, 'mosaic': 0.0}
    data = load_data_config(tiny_data)
    plain = TextDataset(data, 'train', 128, hyp, augment=True)
    twice = TextDataset(data, 'train', 256, hyp, augment=True, shown=128)
    for key in itertools.product(range(5), range(len(plain))):
        one, two = (dataset[key].annotations.boxes() for dataset in (plain, twice))
        np.testing.assert_allclose(two, 2 * one, atol=1.5)  # of the letterbox's border, whole pixels


@pytest.mark.parametrize('options', [{'crop': 100}, {'crop': 64, 'augment': False}, {'crop': 64, 'rect': True}])
def test_crops_that_cannot_be_meant(tiny_data, options):
    with pytest.raises(UserError, match='crops are'):
        TextDataset(load_data_config(tiny_data), 'train', 320, **({'augment': True} | options))
