"""Pictures made worse, and words pasted into them."""

import numpy as np
import pytest

from models.errors import UserError
from utils.loading import degrade
from utils.loading.config import load_data_config
from utils.loading.dataset import TextDataset
from utils.loading.degrade import degraded
from utils.loading.labels import Annotations
from utils.loading.paste import paste_words
from utils.runtime.hyp import DEFAULTS

NONE = dict.fromkeys(degrade.CHANGES, 0.0)


def scene(height: int = 60, width: int = 90) -> np.ndarray:
    rows = np.linspace(20, 230, width, dtype=np.uint8)
    image = np.broadcast_to(rows[None, :, None], (height, width, 3)).copy()
    image[20:40, 30:60] = (250, 10, 10)
    return image


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_without_probabilities_nothing_changes_and_nothing_is_drawn():
    rng = generator()
    assert np.array_equal(degraded(rng, scene(), NONE), scene())
    assert rng.random() == generator().random()


@pytest.mark.parametrize('name', degrade.CHANGES)
def test_each_change_changes_a_picture_and_repeats_with_its_seed(name: str):
    hyp = NONE | {name: 1.0}
    before = scene()
    first = degraded(generator(3), before, hyp)
    assert np.array_equal(before, scene())  # the picture given is left alone
    assert first.shape == before.shape and first.dtype == np.uint8 and first.flags['C_CONTIGUOUS']
    assert not np.array_equal(first, before)
    assert np.array_equal(first, degraded(generator(3), scene(), hyp))
    assert not np.array_equal(first, degraded(generator(4), scene(), hyp))
    assert abs(first[..., 0].mean() - before[..., 0].mean()) < (120 if name == 'dark' else 3)  # red stays red


def test_darkness_is_a_gamma():
    image = np.full((2, 2, 3), 128, np.uint8)
    for seed in range(20):
        value = degraded(generator(seed), image, NONE | {'dark': 1.0})[0, 0, 0]
        assert 255 * (128 / 255) ** 3.0 - 1 <= value <= 255 * (128 / 255) ** 1.3 + 1
    black_and_white = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    assert np.array_equal(degraded(generator(), black_and_white, NONE | {'dark': 1.0}), black_and_white)


def test_a_blur_keeps_the_light_of_a_point():
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    for seed in range(20):
        assert degraded(generator(seed), image, NONE | {'blur': 1.0}).sum(dtype=int) == pytest.approx(3 * 255, rel=0.35)


@pytest.mark.parametrize('length', [3, 4, 7, 11])
@pytest.mark.parametrize('angle', [0.0, np.pi / 2, 0.7])
def test_a_line_of_weights(length: int, angle: float):
    kernel = degrade._line(length, angle)
    assert kernel.sum() == pytest.approx(1)
    assert np.allclose(kernel, kernel[::-1, ::-1], atol=0.05)  # no shift of the picture
    rows, columns = (np.ptp(np.nonzero(kernel.sum(axis))) + 1 for axis in (1, 0))
    assert max(rows, columns) <= length // 2 * 2 + 1
    if angle == 0:
        assert rows == 1 and columns == length // 2 * 2 + 1


def test_noise_has_its_strength():
    image = np.full((100, 100, 3), 128, np.uint8)
    for seed in range(5):
        spread = degraded(generator(seed), image, NONE | {'noise': 1.0}).std()
        assert degrade.NOISE[0] * 0.9 < spread < degrade.NOISE[1] * 1.1


def words(places: list[tuple[int, int, int, int]], dont_care: bool = False) -> Annotations:
    polygons = [np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], float) for x1, y1, x2, y2 in places]
    return Annotations.build([0] * len(places), polygons, dont_care)


def test_pasted_words_lie_where_nothing_was_with_their_pixels():
    donor_image = np.full((200, 200, 3), 200, np.uint8)
    places = [(20, 20, 60, 40), (100, 120, 160, 140)]
    for x1, y1, x2, y2 in places:
        donor_image[y1:y2, x1:x2] = 90
    example = np.zeros((200, 200, 3), np.uint8), words([(80, 80, 120, 100)])
    pasted = 0
    for seed in range(30):
        image, found = paste_words(generator(seed), example, (donor_image, words(places)))
        assert not example[0].any()  # the picture given is left alone
        assert np.array_equal(found.boxes()[0], (80, 80, 120, 100))
        assert not image[80:100, 80:120].any()
        for x1, y1, x2, y2 in found.boxes()[1:].astype(int):
            assert (image[y1:y2, x1:x2] == 90).all()
            assert image[max(y1 - 2, 0) : y2 + 2, max(x1 - 2, 0) : x2 + 2].max() == 200  # its background came along
        boxes = found.boxes()
        for i in range(len(boxes)):
            for j in range(i):
                assert (np.minimum(boxes[i, 2:], boxes[j, 2:]) <= np.maximum(boxes[i, :2], boxes[j, :2])).any()
        pasted += len(found) - 1
    assert pasted > 30


def test_what_a_patch_would_cut_stays_and_what_it_holds_comes_along():
    empty = np.zeros((100, 200, 3), np.uint8), words([])
    cut = Annotations.concatenate([words([(20, 20, 60, 40)]), words([(50, 30, 150, 60)], dont_care=True)])
    held = Annotations.concatenate([words([(20, 20, 60, 40)]), words([(55, 22, 62, 38)], dont_care=True)])
    donor = np.full((100, 200, 3), 9, np.uint8)
    assert all(len(paste_words(generator(seed), empty, (donor, cut))[1]) == 0 for seed in range(5))
    for seed in range(5):
        found = paste_words(generator(seed), empty, (donor, held))[1]
        assert found.dont_care.tolist() == [False, True]
        word, ignored = found.boxes()
        assert np.allclose(ignored - word[[0, 1, 0, 1]], (35, 2, 42, 18))


def test_words_that_the_donors_frame_cuts_or_that_find_no_place_stay():
    donor = np.full((50, 50, 3), 9, np.uint8)
    part = words([(-30, 10, 20, 30)]).clipped(50, 50)
    full = np.zeros((50, 50, 3), np.uint8), words([(0, 0, 50, 50)])
    assert len(paste_words(generator(), (full[0], words([])), (donor, part))[1]) == 0
    assert len(paste_words(generator(), full, (donor, words([(10, 10, 30, 20)])))[1]) == 1


def test_crops_with_all_of_it_repeat_and_pasting_adds_words(tiny_data):
    hyp = DEFAULTS | {'mosaic': 0.0, 'scale': 0.2, 'zoom': 1.0, 'fliplr': 0.0}
    data = load_data_config(tiny_data)

    def dataset(**changes: float) -> TextDataset:
        return TextDataset(data, 'train', 128, hyp | changes, augment=True, crop=96)

    plain, pasting = dataset(), dataset(paste=1.0, dark=0.5, blur=0.5, noise=0.5, jpeg=0.5)
    more = 0
    for index in range(len(plain)):
        first, again = pasting[1, index], pasting[1, index]
        assert first.image.equal(again.image)
        assert np.array_equal(first.annotations.polygons, again.annotations.polygons)
        more += len(first.annotations) - len(plain[1, index].annotations)
    assert more > 0


def test_pasting_needs_crops(tiny_data):
    with pytest.raises(UserError, match='paste .* --crop'):
        TextDataset(load_data_config(tiny_data), 'train', 128, DEFAULTS | {'paste': 0.5}, augment=True)
