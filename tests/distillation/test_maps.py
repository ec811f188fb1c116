"""`maps`: CRAFT's maps go through augmentation with their pictures, and the student's features learn to show them."""

import cv2
import numpy as np
import pytest
import torch
import yaml

import distill
from models.checkpoint import load_model
from models.errors import UserError
from models.yolo import DetectionModel
from ocrdistill.letterbox import GREY
from tests.support import small_cfg
from tests.world import SMALL, assert_equal, call, interrupt_at, load, place, rows_of
from utils.distillation import find_method
from utils.distillation.base import Signals
from utils.distillation.craft import MapCache
from utils.distillation.recipe import parse_recipe
from utils.loading.config import load_data_config
from utils.loading.dataset import TextDataset
from utils.loading.images import load_image
from utils.loading.listing import list_images
from utils.loading.loader import build_loader
from utils.loading.maps import COLOURS, INSIDE, MapDataset
from utils.runtime.hyp import DEFAULTS

# Everything that moves pixels, at once.
MOVED = DEFAULTS | {
    'degrees': 10.0,
    'shear': 5.0,
    'perspective': 0.0005,
    'aspect': 0.3,
    'flipud': 0.5,
    'mosaic': 0.5,
    'mixup': 0.5,
    'blur': 0.5,
    'jpeg': 0.5,
}
STILL = dict.fromkeys(COLOURS, 0.0)


def pixels_as_maps(file) -> np.ndarray:
    """Red and green in the place of region and affinity: then maps can be compared with pictures."""
    return load_image(file).transpose(2, 0, 1)[:2]


def both(data, hyp, **options) -> tuple[TextDataset, TextDataset]:
    """A training set, and the same with its maps."""
    plain = TextDataset(load_data_config(data), 'train', 160, hyp, augment=True, **options)
    with_maps = TextDataset(load_data_config(data), 'train', 160, hyp, augment=True, **options)
    with_maps.maps = MapDataset(with_maps, pixels_as_maps)
    return plain, with_maps


@pytest.mark.parametrize('crop', [None, 64])
@pytest.mark.parametrize('cache', [False, True])
def test_maps_take_the_way_of_their_pictures(tiny_data, crop, cache):
    """Whatever is drawn: with colours left alone, maps made of pixels come out as those pixels. 160 is half of what
    the pictures have, which both are brought to; by means and by interpolation, so their edges differ a little."""
    plain, with_maps = both(tiny_data, MOVED | STILL, crop=crop, cache=cache)
    for key in [(epoch, index) for epoch in range(3) for index in range(8)]:
        sample = with_maps[key]
        assert sample.maps.shape == sample.image.shape and sample.maps.dtype == torch.uint8
        gap = (sample.maps[:2].int() - sample.image[:2].int()).abs().float()
        assert gap.mean() < 4, key
        assert plain[key].maps is None
        assert torch.equal(plain[key].image, sample.image)  # nothing else changes
    assert sample.maps[2].max() == INSIDE


def test_colours_change_no_map(tiny_data):
    """Also what is drawn after colours stays the same: maps are those of a training without colours."""
    moved = MOVED | {'paste': 1.0}
    _, coloured = both(tiny_data, moved, crop=64)
    _, still = both(tiny_data, moved | STILL, crop=64)
    keys = [(epoch, index) for epoch in range(2) for index in range(8)]
    assert all(torch.equal(coloured[key].maps, still[key].maps) for key in keys)
    assert not all(torch.equal(coloured[key].image, still[key].image) for key in keys)


def test_batches_have_maps(tiny_data):
    plain, with_maps = both(tiny_data, DEFAULTS)
    batch = next(iter(build_loader(with_maps, 4, shuffle=True)))
    assert batch.maps.shape == batch.images.shape
    assert next(iter(build_loader(plain, 4, shuffle=True))).maps is None


@pytest.fixture(scope='module')
def models():
    torch.manual_seed(0)
    return DetectionModel(small_cfg(0.125)), DetectionModel(small_cfg(0.25))


def method_of(models, layers=(17,)):
    return find_method('maps')(*models, layers, torch.Generator().manual_seed(0))


def signals_of(models, maps, features):
    return Signals((16, 32), torch.zeros(0, 6), torch.zeros(0, 6), [], [], features, {}, models[0].head, maps=maps)


def test_the_value(models):
    """Maps of 16 x 32 on 2 x 4 cells: the region is 1 in the left half; a quarter of the lower cells has no picture."""
    method = method_of(models)
    maps = torch.zeros(1, 3, 16, 32, dtype=torch.uint8)
    maps[:, 0, :, :16], maps[:, 1] = 255, 51
    maps[:, 2] = INSIDE
    maps[:, :, 12:, ::2] = GREY
    adapter = method.adapters['17']
    with torch.no_grad():
        adapter.weight.zero_()
        adapter.bias.copy_(torch.tensor([0.25, 0.0]))
    features = torch.randn(1, models[0].channels[17], 2, 4, requires_grad=True)
    found = method(signals_of(models, maps, {17: features}))
    upper = (2 * 0.75**2 + 2 * 0.25**2 + 4 * 0.2**2) / 2  # sums over four cells of the mean over two maps
    lower = (2 * 0.5**2 + 2 * 0.25**2 + 4 * 0.15**2) / 2
    assert found.keys() == {'maps'} and found['maps'].dtype == torch.float32
    assert found['maps'].item() == pytest.approx((upper + lower) / 8 / 2)
    found['maps'].backward()
    assert adapter.weight.grad.abs().sum() > 0 and features.grad is not None


def test_blended_pictures_have_blended_maps(models):
    """Also where one of the two is margin: its share of the pixel has no text, the other picture's share keeps it."""
    method, cells = method_of(models), (20, 20)
    first, second = (np.full((160, 160, 3), GREY, np.uint8) for _ in range(2))
    first[:, :80], second[:, 40:120] = (200, 100, INSIDE), (50, 150, INSIDE)
    maps = cv2.addWeighted(first, 0.4, second, 0.6, 0)
    tensor = torch.from_numpy(maps.transpose(2, 0, 1)[None].copy())
    _, found = method._aligned(signals_of(models, tensor, {17: torch.zeros(1, 1, *cells)}), 17)
    expected = {0: (80, 40), 7: (110, 130), 12: (30, 90), 17: (0, 0)}  # columns: first alone, both, second alone, none
    for column, (region, affinity) in expected.items():
        assert found[0, :, 3, column].mul(255).tolist() == pytest.approx([region, affinity], abs=1.1)


def test_empty_pictures_count_as_others(models):
    """No unit of a picture's own: without text the term is the prediction's mean square, however small the map is."""
    method, features = method_of(models), torch.randn(2, models[0].channels[17], 2, 4)
    maps = torch.full((2, 3, 16, 32), INSIDE, dtype=torch.uint8)
    maps[:, :2] = 0
    expected = method.adapters['17'](features).square().mean() / 2
    assert method(signals_of(models, maps, {17: features}))['maps'].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_branch_starts_where_it_fits(models):
    """Maps that are linear in the features are met at once."""
    method = method_of(models)
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 256, (2, 3, 16, 32), generator=generator, dtype=torch.uint8)
    maps = maps.repeat_interleave(8, 2).repeat_interleave(8, 3)
    maps[:, 2] = INSIDE
    cells = torch.nn.functional.avg_pool2d(maps[:, :2].float() / 255, 8)
    features = torch.randn(2, models[0].channels[17], 16, 32, generator=generator) * 0.01
    features[:, 0], features[:, 1] = cells[:, 0] + cells[:, 1], cells[:, 1]
    found = signals_of(models, maps, {17: features})
    before = method(found)['maps'].item()
    method.fit_adapters(found)
    after = method(found)['maps'].item()
    assert after < 0.01 * before and after < 0.01 * cells.var().item()


def test_no_layers_of_the_teacher(models):
    assert method_of(models).teacher_layer == {}
    use = {'maps': {'layers': [17], 'teacher_layers': [20]}}
    with pytest.raises(UserError, match="maps looks at CRAFT's maps, it takes no teacher_layers"):
        parse_recipe({'teacher': 't.yaml', 'student': 's.yaml', 'methods': use}, 'test')


@pytest.fixture(scope='module')
def kept(world, tmp_path_factory):
    """Maps of all training pictures of the small world: where they are bright."""
    cache = MapCache(tmp_path_factory.mktemp('craft'))
    for file in list_images(load_data_config(world.few), 'train'):
        grey = load_image(file)[::2, ::2].mean(2).astype(np.uint8)
        cache.write(file, np.stack((grey, 255 - grey)))
    return cache


def run(world, folder, kept, *flags):
    models = ('--cfg_teacher', world.teacher, '--teacher_weights', world.teacher_pt, '--cfg_student', world.student)
    given = ('--methods', 'maps,hint', '--data', world.few, '--maps', kept.folder, '--epochs', 2, '--crop', 64)
    call(distill.main, 'distill.py', *SMALL, '--imgsz', 96, *given, *models, *place(folder), *flags)
    return folder


@pytest.mark.usefixtures('one_thread')
def test_a_training(world, tmp_path, kept, monkeypatch):
    """The term is logged, nothing of it is in the student, and an interrupted run goes on as if it had not been."""
    whole = run(world, tmp_path / 'whole', kept)
    assert all(0 < float(row['train/maps']) < 10 for row in rows_of(whole))
    plain = DetectionModel(world.student, nc=1)
    assert load(whole / 'weights/best.pt')['model'].keys() == plain.state_dict().keys()
    load_model(whole / 'weights/best.pt')
    assert yaml.safe_load((whole / 'opt.yaml').read_text())['maps'] == str(kept.folder)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            run(world, tmp_path / 'cut', kept)
    call(distill.main, 'distill.py', '--resume', tmp_path / 'cut/weights/last.pt', '--device', 'cpu')
    first, second = load(whole / 'weights/last.pt'), load(tmp_path / 'cut/weights/last.pt')
    assert_equal(first['model'], second['model'])
    assert rows_of(whole) == rows_of(tmp_path / 'cut')


@pytest.mark.usefixtures('one_thread')
def test_alone_they_need_no_teacher(world, tmp_path, kept, monkeypatch):
    """The recipe's teacher does not run; with pictures without labels beside them, too."""
    ran, raw_maps = set(), DetectionModel.raw_maps
    monkeypatch.setattr(DetectionModel, 'raw_maps', lambda *a: (ran.add(a[0].channels[17]), raw_maps(*a))[1])
    for file in world.unlabelled.iterdir():
        kept.write(file, np.zeros((2, *(side // 2 for side in load_image(file).shape[:2])), np.uint8))
    folder = run(world, tmp_path / 'run', kept, '--methods', 'maps', '--epochs', 1, '--unlabelled', world.unlabelled)
    assert all(float(row['train/maps']) > 0 for row in rows_of(folder))
    assert (
        ran == {DetectionModel(world.student, nc=1).channels[17]} != {DetectionModel(world.teacher, nc=1).channels[17]}
    )


def test_pictures_without_maps(world, tmp_path, mistake, kept):
    models = ('--cfg_teacher', world.teacher, '--teacher_weights', world.teacher_pt, '--cfg_student', world.student)
    flags = (*SMALL, *models, '--methods', 'maps', '--data', world.data, *place(tmp_path / 'run'), '--epochs', 1)
    line = mistake(distill.main, 'distill.py', *flags, '--maps', kept.folder)
    assert 'training pictures have no maps of CRAFT in ' in line
    assert f'python teacher/craft.py --data {world.data} --task train' in line
    line = mistake(distill.main, 'distill.py', *flags, '--methods', 'logit', '--maps', kept.folder)
    assert 'has no use: no method of the recipe is maps' in line
    line = mistake(distill.main, 'distill.py', *flags, '--maps', kept.folder, '--teacher_imgsz', 256)
    assert '--teacher_imgsz 256 has no use' in line
