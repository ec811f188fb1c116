"""Checkpoints: round trips, public files, hostile files, transfer to another class count."""

import math
import os
import pickle
import sys
import types
from collections import OrderedDict

import pytest
import torch
from torch import nn

from models import layers
from models.checkpoint import (
    StandIn,
    anchors_of,
    load_model,
    read_checkpoint,
    restore,
    same_anchors,
    save_checkpoint,
    transfer,
)
from models.errors import UserError
from models.yolo import DetectionModel
from tests.support import ROOT, SHARED, small_cfg

PUBLIC = SHARED / 'weights/yolov5n.pt'
needs_public = pytest.mark.skipif(not PUBLIC.is_file(), reason='the public weights (../shared/weights) are not here')


def save_public(path, model, key='model', **entries):
    """Write a model as public YOLOv5 files hold one: a pickled module whose classes are models.yolo's and .common's."""

    class Model(nn.Module):
        pass

    homes = {Model: 'models.yolo', layers.Detect: 'models.yolo'}
    homes |= dict.fromkeys((layers.Conv, layers.Bottleneck, layers.C3, layers.SPPF, layers.Concat), 'models.common')
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, 'models.common', types.ModuleType('models.common'))
        Model.__qualname__ = 'Model'
        for kind, home in homes.items():
            patch.setattr(kind, '__module__', home)
            patch.setattr(sys.modules[home], kind.__name__, kind, raising=False)
        public = Model()
        public.model, public.yaml, public.names = model.model, model.yaml, list(model.names.values())
        torch.save({'epoch': -1, 'model': None, key: public.half(), **entries}, path)


def test_own_round_trip(tmp_path):
    model = DetectionModel(small_cfg())
    model.names = {0: 'word'}
    save_checkpoint(tmp_path / 'a.pt', model, model.state_dict(), epoch=3, conf_threshold=0.4, word_scale=[0.9, 0.8])
    raw = torch.load(tmp_path / 'a.pt', weights_only=True)
    assert raw['stride'] == [8, 16, 32]
    assert raw['yaml'] == model.yaml
    assert not list(tmp_path.glob('.*'))  # no temporary file is left
    loaded = load_model(tmp_path / 'a.pt', fuse=False)
    assert loaded.names == {0: 'word'}
    assert loaded.conf_threshold == 0.4 and loaded.word_scale == (0.9, 0.8)
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in model.state_dict().items())


def test_half_precision_weights_load_as_float32(tmp_path):
    model = DetectionModel(small_cfg())
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_checkpoint(tmp_path / 'a.pt', model, state)
    assert all(p.dtype == torch.float32 for p in load_model(tmp_path / 'a.pt').parameters())


def test_a_failed_write_leaves_the_last_good_file(tmp_path, monkeypatch):
    model = DetectionModel(small_cfg())
    save_checkpoint(tmp_path / 'a.pt', model, model.state_dict(), epoch=1)
    monkeypatch.setattr(torch, 'save', lambda *_: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(UserError, match=r'cannot write .*a\.pt: disk full'):
        save_checkpoint(tmp_path / 'a.pt', model, model.state_dict(), epoch=2)
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / 'a.pt').meta['epoch'] == 1
    assert [file.name for file in tmp_path.iterdir()] == ['a.pt']


@needs_public
def test_public_weights_load_and_find_things():
    """The COCO model: 80 classes, all entries, and sensible outputs on a picture that a package ships."""
    import cv2
    import matplotlib

    from utils.boxes import non_max_suppression

    model = load_model(PUBLIC)
    assert model.nc == 80
    assert model.names[0] == 'person'
    image = cv2.imread(os.path.join(matplotlib.get_data_path(), 'sample_data', 'grace_hopper.jpg'))[..., ::-1].copy()
    image = cv2.copyMakeBorder(image[:512, :512], 0, 64, 0, 64, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    with torch.no_grad():
        decoded, _ = model(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    found = non_max_suppression(decoded, 0.5)[0]
    assert 'person' in [model.names[int(c)] for c in found[:, 5]]


@needs_public
def test_public_weights_for_one_class_transfer_all_but_the_head():
    model = DetectionModel(ROOT / 'models/yolov5n.yaml', nc=1)
    checkpoint = read_checkpoint(PUBLIC)
    report = transfer(model, checkpoint)
    head = {f'model.24.m.{level}.{leaf}' for level in range(3) for leaf in ('weight', 'bias')}
    assert set(report.missing) == set(report.skipped) == head
    assert len(report.matched) == len(model.state_dict()) - 7  # six of the head and the anchors
    assert torch.equal(model.model[0].conv.weight, checkpoint.state['model.0.conv.weight'].float())


@needs_public
def test_public_anchors_are_the_yamls():
    assert same_anchors(
        anchors_of(read_checkpoint(PUBLIC)), DetectionModel(ROOT / 'models/yolov5n.yaml').yaml['anchors']
    )


@pytest.mark.parametrize('entry', ['model', 'ema'])
def test_public_form_is_read_from_model_or_ema(tmp_path, entry):
    model = DetectionModel(small_cfg(nc=2))
    save_public(tmp_path / 'p.pt', model, key=entry)
    loaded = restore(read_checkpoint(tmp_path / 'p.pt'))
    assert loaded.nc == 2
    torch.testing.assert_close(loaded.model[0].conv.weight, model.model[0].conv.weight.float())


def test_public_training_checkpoint_with_numpy_and_options(tmp_path):
    """Files that were not stripped hold an optimizer state, numpy figures and an argparse.Namespace."""
    import argparse

    import numpy as np

    save_public(
        tmp_path / 'p.pt',
        DetectionModel(small_cfg()),
        best_fitness=np.array([0.5]),
        opt=argparse.Namespace(epochs=3),
        optimizer={'state': {0: {'step': 1}}, 'param_groups': []},
    )
    assert restore(read_checkpoint(tmp_path / 'p.pt')).nc == 1


def test_models_before_v6_are_refused_by_name(tmp_path):
    model = DetectionModel(small_cfg())
    model.yaml['backbone'][0][2] = 'Focus'
    save_public(tmp_path / 'p.pt', model)
    with pytest.raises(UserError, match=r'before v6\.0 \(it uses Focus\)'):
        read_checkpoint(tmp_path / 'p.pt')


class Hostile:
    """Runs a command when unpickled without restrictions."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


@pytest.mark.parametrize('place', ['top', 'in the model', 'in a container'])
def test_hostile_pickles_are_refused_and_do_nothing(tmp_path, place):
    marker, file = tmp_path / 'ran', tmp_path / 'h.pt'
    if place == 'in the model':
        model = DetectionModel(small_cfg())
        model.yaml['evil'] = Hostile(marker)
        save_public(file, model)
    else:
        hostile = Hostile(marker)
        torch.save({'model': hostile} if place == 'top' else {'model': OrderedDict(a=[hostile])}, file)
    with pytest.raises(UserError, match='refused: it asks to load posix.system') as error:
        read_checkpoint(file)
    assert '\n' not in str(error.value)
    assert not marker.exists()


def test_other_harmless_looking_callables_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return eval, ('1 + 1',)

    torch.save({'model': Evil()}, tmp_path / 'h.pt')
    with pytest.raises(UserError, match='builtins.eval'):
        read_checkpoint(tmp_path / 'h.pt')


def test_stand_ins_hold_attributes_and_run_nothing():
    stand_in = StandIn('any', thing=1)
    stand_in.__setstate__({'training': False})
    stand_in.__setstate__(('not', 'a dict'))
    assert vars(stand_in) == {'training': False}


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('empty.pt', b''),
        ('text.pt', b'hello'),
        ('pickle.pt', pickle.dumps({'a': 1})),
        ('zip.pt', b'PK\x03\x04nonsense'),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_checkpoint(tmp_path / name)


def test_truncated_checkpoint(tmp_path):
    model = DetectionModel(small_cfg())
    save_checkpoint(tmp_path / 'a.pt', model, model.state_dict())
    data = (tmp_path / 'a.pt').read_bytes()
    (tmp_path / 'b.pt').write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match='b.pt'):
        read_checkpoint(tmp_path / 'b.pt')


def test_missing_file_and_wrong_content(tmp_path):
    with pytest.raises(UserError, match='no such checkpoint'):
        read_checkpoint(tmp_path / 'none.pt')
    torch.save({'weights': torch.zeros(3)}, tmp_path / 'w.pt')
    with pytest.raises(UserError, match='holds no YOLOv5 model'):
        read_checkpoint(tmp_path / 'w.pt')
    torch.save(torch.zeros(3), tmp_path / 't.pt')
    with pytest.raises(UserError, match='no checkpoint'):
        read_checkpoint(tmp_path / 't.pt')


def test_restore_wants_every_entry_and_the_right_classes(tmp_path):
    model = DetectionModel(small_cfg())
    state = model.state_dict()
    del state['model.24.m.1.bias']
    save_checkpoint(tmp_path / 'a.pt', model, state)
    with pytest.raises(UserError, match=r'1 missing, the first model\.24\.m\.1\.bias'):
        load_model(tmp_path / 'a.pt')


def test_refitted_anchors_survive(tmp_path):
    anchors = [[5, 4, 9, 7, 14, 9], [20, 11, 30, 16, 44, 22], [70, 30, 110, 50, 200, 90]]
    model = DetectionModel(small_cfg(), anchors=anchors)
    save_checkpoint(tmp_path / 'a.pt', model, model.state_dict())
    loaded = load_model(tmp_path / 'a.pt')
    assert torch.equal(loaded.head.anchors, model.head.anchors)
    assert not same_anchors(anchors, DetectionModel(small_cfg()).yaml['anchors'])


def corrupt(model, **change):
    """A state dict with entries replaced (None: left out)."""
    state = {**model.state_dict(), **change}
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model.0.conv.weight': torch.full((8, 3, 6, 6), torch.nan)}, 'not finite'),
        ({'model.24.anchors': torch.tensor(3.0)}, 'anchors are of another form'),
        ({'model.24.anchors': None}, r'1 missing, the first model\.24\.anchors'),
    ],
)
def test_damaged_weights_are_refused(tmp_path, change, message):
    model = DetectionModel(small_cfg())
    save_checkpoint(tmp_path / 'a.pt', model, corrupt(model, **change))
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / 'a.pt')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model': None}, 'no state dict'),
        ({'model': 3}, 'damaged'),
        ({'names': {5: 'a'}}, r'classes are numbered \[5\]'),
        ({'names': 7}, 'damaged'),
        ({'conf_threshold': 'high'}, 'confidence threshold'),
        ({'word_scale': [1.0, 'high']}, 'word scale'),
        *(({'word_scale': [1.0, value]}, 'word scale') for value in (math.nan, math.inf, 0.0, 3.0, True)),
        ({'word_scale': [1.0]}, 'word scale'),
        ({'version': 99}, 'version 99'),
        *(({'options': value}, 'training options') for value in ('x', 1.5, [[]])),
        *(({'metrics': value}, 'metrics') for value in ([0.5], {'map50': 'high'})),
        ({'yaml': '/etc/passwd'}, 'model yaml is none'),
    ],
)
def test_forged_content_is_refused(tmp_path, change, message):
    model = DetectionModel(small_cfg())
    save_checkpoint(tmp_path / 'a.pt', model, model.state_dict())
    content = torch.load(tmp_path / 'a.pt', weights_only=True) | change
    torch.save(content, tmp_path / 'b.pt')
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / 'b.pt')
