"""What a distillation adds, and what it leaves as it is, against values worked out by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.yolo import DetectionModel
from tests.support import boxes_of, small_cfg
from utils.distillation import find_method
from utils.distillation.base import resize
from utils.distillation.distiller import Distiller, DistillerSettings, freeze_teacher
from utils.distillation.recipe import parse_recipe
from utils.loading.batches import Batch
from utils.runtime.hyp import DEFAULTS
from utils.training.criterion import DetectionCriterion


def pair(quads=True):
    torch.manual_seed(0)
    return DetectionModel(small_cfg(0.125), quads=quads), freeze_teacher(DetectionModel(small_cfg(0.25), quads=quads))


def distiller(methods, quads):
    student, teacher = pair(quads)
    recipe = parse_recipe({'teacher': 't', 'student': 's', 'methods': methods}, 'test')
    student.eval().training = True
    return Distiller(student, teacher, recipe, DistillerSettings(DEFAULTS, 64, False)), student


def batch_of(**more):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return images, Batch(images, boxes_of(np.random.default_rng(7), 8, 2), torch.zeros(0, 6), [], [], [], [], **more)


def test_quad_method_by_hand():
    method = find_method('quad')(*pair(), [], torch.Generator())
    student = [torch.zeros(1, 3, n, n, 4, requires_grad=True) for n in (4, 2, 1)]
    teacher = [torch.zeros(1, 3, n, n, 4) for n in (4, 2, 1)]
    maps = [torch.full((1, 3, n, n, 6), -50.0) for n in (4, 2, 1)]
    teacher[0][0, 1, 2, 3] = math.atanh(0.5)  # where the teacher sees a word
    maps[0][0, 1, 2, 3, 4] = 50
    teacher[0][0, 0, 0, 0] = 9.0  # where it sees none
    found = method(SimpleNamespace(student_edges=student, teacher_edges=teacher, teacher_maps=maps))
    assert found['quad_edges'].item() == pytest.approx(0.45 / 3, rel=1e-4)
    found['quad_edges'].backward()
    here = student[0].grad[0, 1, 2, 3]
    assert (here < 0).all()  # towards the teacher's
    everywhere = sum(edges.grad.abs().sum() for edges in student)
    assert everywhere.item() == pytest.approx(here.abs().sum().item(), abs=1e-6)


def test_quads_are_learned_in_distillation_too():
    criterion, student = distiller({'logit': {}}, True)
    images, batch = batch_of(edges=torch.rand(8, 5))
    found = criterion(student, images, batch)
    plain = DetectionCriterion(student, DEFAULTS, 64, False)(student, images, batch)
    assert {n: found[n].item() for n in plain} == pytest.approx({n: t.item() for n, t in plain.items()}, rel=1e-5)
    assert plain['edge'] > 0 and plain['quad'] > 0


def test_a_processs_part_of_a_batch():
    criterion, student = distiller({'hint': {}}, False)
    images, batch = batch_of()
    whole, part = criterion(student, images, batch), criterion(student, images, batch._replace(whole=4))
    assert part['hint'].item() == pytest.approx(whole['hint'].item() / 2)


def test_pictures_shrink_by_area_also_where_the_sides_are_no_multiples():
    """At two thirds a pixel is one and a half of the larger picture's: half of its neighbour, or of both."""
    images = torch.randn(2, 3, 12, 18, generator=torch.Generator().manual_seed(0))
    found = resize(images, (8, 12))
    twice = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(found, torch.nn.functional.avg_pool2d(twice, 3))
    torch.testing.assert_close(resize(torch.ones(1, 1, 39, 40), (20, 20)), torch.ones(1, 1, 20, 20))
    torch.testing.assert_close(resize(images, (6, 9)), torch.nn.functional.avg_pool2d(images, 2))
