"""Mutated files for every reader: it reads them or refuses them in one clear line, and nothing of theirs is executed.

    FUZZ=120 python -m pytest tests/commands/test_fuzz.py -s  twice the files of each kind that make test-slow tries

FUZZ_SEED chooses other mutations. What was found this way stands in test_security.py.
"""

import contextlib
import io
import json
import math
import os
import random
import re
import shutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data import convert, prepare_icdar2015
from data.formats import FORMATS
from models.checkpoint import read_checkpoint, restore, save_checkpoint
from models.errors import UserError
from models.exported import ExportedModel, load_detector
from models.yamls import read_yaml
from models.yolo import DetectionModel
from ocrdistill.errors import Unreadable
from teacher.download import describe, load_manifest
from tests.data import test_convert, test_prepare
from tests.models.test_checkpoint import save_public
from tests.support import ROOT, SHARED, small_cfg
from utils.detection.sources import find_sources
from utils.distillation.recipe import METHOD_KEYS, parse_recipe
from utils.evaluation.icdar import read_ground_truth
from utils.export import metadata
from utils.loading.config import load_data_config
from utils.loading.dataset import TextDataset
from utils.loading.images import load_image, read_image
from utils.loading.labels import read_label_file
from utils.loading.listing import list_images
from utils.runtime.hyp import load_hyp

pytestmark = pytest.mark.filterwarnings('ignore')  # of decoders, and of layers without weights
FULL, SEED = int(os.environ.get('FUZZ', '60')), os.environ.get('FUZZ_SEED', '0')
COUNTS = [6, pytest.param(FULL, marks=pytest.mark.slow)]
SECONDS = 60  # that a reader may take for a file of a few kB, on a busy machine
CANARY = Path('executed_by_fuzz')
TOKEN = re.compile(rb'[-+.\w]+')
HOSTILE = [
    *(b'', b'-1', b'0', b'nan', b'1e309', b'-inf', b'99999999999999999999', b'9' * 5000, b'true', b'null', b'x' * 5000),
    *(b'[]', b'{}', b'[[[', b'&a [*a]', b'*a', b'"\\0"', b'../../../fuzz', b'/etc/passwd', b'\xff\xfe', b'2001-99-99'),
    *(b'~nobody', b'!!int x', b'!!python/object/apply:os.mkdir [executed_by_fuzz]', b'<<: *a', b'\r', b'\n', b'###'),
]


# --- mutations --------------------------------------------------------------------------------------------------------


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Some bytes, words or entries of a file changed, removed or repeated."""
    if content.startswith(b'PK') and chance.random() < 0.8:
        return mutate_archive(content, chance)
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        change(changed, chance)
    return bytes(changed)


def change(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content) + 1)
    end = at + chance.choice((1, 1, 2, 8, 64))
    how = chance.random()
    if how < 0.2:
        content[at:end] = chance.randbytes(end - at)
    elif how < 0.4:
        del content[at:end]
    elif how < 0.5:
        content[at:at] = content[chance.randrange(len(content) + 1) :][: end - at]
    elif how < 0.55:
        del content[at:]
    elif word := TOKEN.search(content, at):
        content[word.start() : word.end()] = chance.choice(HOSTILE)


def mutate_archive(content: bytes, chance: random.Random) -> bytes:
    """An archive with intact checksums, one of whose entries has other content, another name, or is missing."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    # Half of the time what is not just numbers: the pickle of a checkpoint.
    places = [n for n, (name, _) in enumerate(entries) if name.endswith('.pkl')]
    place = chance.choice(places) if places and chance.random() < 0.5 else chance.randrange(len(entries))
    name, inner = entries.pop(place)
    if chance.random() < 0.1:
        name = chance.choice(
            ('../../fuzz', '/tmp/fuzz', '/', name + '\0x', 'x' * 5000, entries[0][0] if entries else 'x')
        )
    if chance.random() < 0.95:
        entries.insert(place, (name, mutate(inner, chance)))
    packed = io.BytesIO()
    kind = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(packed, 'w', kind) as archive:
        for name, inner in entries:
            archive.writestr(name, inner)
    return packed.getvalue()


def replace_an_entry(content, chance: random.Random):
    """Nested plain data with one value, at any depth, replaced by another."""
    values = (None, -1, 0, 1.5, math.nan, 10**400, True, '', 'x', [], {}, [[]], {1: 2}, torch.zeros(0), torch.tensor(9))
    if isinstance(content, dict | list) and content and chance.random() < 0.85:
        copy = content.copy()
        key = chance.choice(list(copy)) if isinstance(copy, dict) else chance.randrange(len(copy))
        copy[key] = replace_an_entry(copy[key], chance)
        return copy
    return chance.choice(values)


# --- kinds of files, and their readers --------------------------------------------------------------------------------
# A maker writes intact files into a folder and returns them; a reader gets the folder and the file that was mutated.


def own_checkpoint(folder: Path) -> list[Path]:
    model = DetectionModel(small_cfg(0.125))
    save_checkpoint(folder / 'own.pt', model, model.state_dict(), conf_threshold=0.3, options={'epochs': 3})
    return [folder / 'own.pt']


def public_checkpoint(folder: Path) -> list[Path]:
    save_public(folder / 'public.pt', DetectionModel(small_cfg(0.125)))
    return [folder / 'public.pt']


def published_checkpoint(folder: Path) -> list[Path]:
    source = SHARED / 'weights/yolov5n.pt'
    if not source.is_file():
        pytest.skip('the public weights (../shared/weights) are not here')
    shutil.copy(source, folder)
    return [folder / source.name]


def read_weights(_folder: Path, file: Path) -> None:
    restore(read_checkpoint(file))


def labels(folder: Path) -> list[Path]:
    (folder / 'boxes.txt').write_text('0 .5 .5 .2 .1\n1 0.25 0.5 0.1 0.9\n')
    (folder / 'polygons.txt').write_text('0 .1 .1 .4 .1 .4 .3 .1 .3\n0 0 0 1 0 1 1 .5 .7 0 1\n' * 3)
    return [folder / 'boxes.txt', folder / 'polygons.txt']


def ground_truth(folder: Path) -> list[Path]:
    (folder / 'gt.txt').write_text(f'\ufeff{test_prepare.WORD}\r\n{test_prepare.DONT_CARE}\r\n', encoding='utf-8')
    return [folder / 'gt.txt']


def copies(*patterns: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        return [Path(shutil.copy(file, folder)) for pattern in patterns for file in sorted(ROOT.glob(pattern))]

    return make


def read_data(_folder: Path, file: Path) -> None:
    data = load_data_config(file)
    for split in data.splits:
        with contextlib.suppress(UserError):
            list_images(data, split)


def published_zips(folder: Path) -> list[Path]:
    test_prepare.write_zips(folder, test_prepare.published_files(3, 2))
    return sorted(folder.glob('*.zip'))


def read_zips(folder: Path, _file: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare_icdar2015, 'EXPECTED', {'train_icdar': 3, 'test_icdar': 2})
        prepare_icdar2015.prepare(folder, folder.parent / 'out')


def annotations(form: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        for name in test_convert.NAMES:
            test_convert.image(folder / 'photos' / f'{name}.jpg')
        (folder / 'words').mkdir()
        test_convert.MAKERS[form](folder / 'words')
        return sorted((folder / 'words').iterdir())

    return make


def read_annotations(form: str) -> Callable[[Path, Path], None]:
    def read(folder: Path, file: Path) -> None:
        place = file if FORMATS[form].place == 'file' else folder / 'words'
        items = convert.read_items(FORMATS[form], place, folder / 'photos', convert.Unread(set()), convert.Skipped())
        convert.write_set(items, folder.parent / 'out', link=False)

    return read


def images(*suffixes: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        files = [folder / f'{number}{suffix}' for number, suffix in enumerate(suffixes)]
        for file in files:
            Image.fromarray(pixels).save(file)
        return files

    return make


def look_at(folder: Path, file: Path) -> None:
    """The three ways to read a picture; a data set names the broken ones and needs one that is whole."""
    yaml = folder / 'data.yaml'
    yaml.write_text(f'path: {folder}\ntrain: list.txt\nval: list.txt\nnames: [text]\n')
    (folder / 'list.txt').write_text(f'{file.name}\n')
    file.with_suffix('.txt').write_text('0 .5 .5 .5 .5\n')
    with contextlib.suppress(Unreadable):
        read_image(file)
    with contextlib.suppress(UserError):
        load_image(file)
    TextDataset(load_data_config(yaml), 'train', 64)[0, 0]


def image_list(folder: Path) -> list[Path]:
    images('.jpg', '.png')(folder)
    (folder / 'list.txt').write_text('0.jpg\n./1.png\n../in/0.jpg\n')
    return [folder / 'list.txt']


def read_list(_folder: Path, file: Path) -> None:
    found = []
    with contextlib.suppress(UserError):  # not one row names a file
        found, _ = find_sources(str(file))
    for source in found:
        assert '..' not in source.name.parts and not source.name.is_absolute()
        with contextlib.suppress(Unreadable):
            read_image(source.path)


def exported(folder: Path) -> list[Path]:
    own_checkpoint(folder)
    checkpoint = read_checkpoint(folder / 'own.pt')
    described = metadata.describe(checkpoint, restore(checkpoint), size=(64, 64), dynamic=False, precision='float32')
    (folder / 'metadata.json').write_text(json.dumps(described))
    with zipfile.ZipFile(folder / 'model.torchscript', 'w') as archive:
        archive.writestr('model/extra/ocrdistill.json', json.dumps(described))
        archive.writestr('model/data.pkl', b'\x80\x02}.')
    return [folder / 'metadata.json', folder / 'model.torchscript']


def read_exported(_folder: Path, file: Path) -> None:
    if file.suffix == '.torchscript':
        load_detector(file)
        return
    with contextlib.suppress(ValueError):  # JSON itself is the runtimes' wrapping
        content = json.loads(file.read_bytes())
        ExportedModel(file, content if isinstance(content, dict) else {}, lambda images: images)


KINDS = {
    'own checkpoints': (own_checkpoint, read_weights),
    'public checkpoints': (public_checkpoint, read_weights),
    'the published checkpoint': (published_checkpoint, read_weights),
    'labels': (labels, lambda _, file: read_label_file(file, 2)),
    'ICDAR ground truth': (ground_truth, lambda _, file: read_ground_truth(file)),
    'hyperparameters': (copies('data/hyps/*.yaml'), lambda _, file: load_hyp(file)),
    'data yamls': (copies('data/*.yaml'), read_data),
    'model yamls': (copies('models/yolov5n.yaml'), lambda _, file: DetectionModel(file)),
    'recipes': (copies('recipes/*.yaml'), lambda _, file: parse_recipe(read_yaml(file), file)),
    'manifests': (copies('teacher/weights.yaml'), lambda _, file: describe(load_manifest(file))),
    'ICDAR2015 zips': (published_zips, read_zips),
    **{f'{form} annotations': (annotations(form), read_annotations(form)) for form in FORMATS},
    'JPEG pictures': (images('.jpg'), look_at),
    'PNG pictures': (images('.png'), look_at),
    'other pictures': (images('.bmp', '.tif', '.webp'), look_at),
    'lists of pictures': (image_list, read_list),
    'exported files': (exported, read_exported),
}


class Late(BaseException):
    """No Exception: readers turn all of those, TimeoutError too, into a refusal."""


@contextlib.contextmanager
def no_longer_than(seconds: int):
    def late(*_):
        raise Late(f'no answer in {seconds} s')

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(read: Callable[[], None]) -> str:
    """'read', 'refused', or what else came of it."""
    try:
        with no_longer_than(SECONDS):
            read()
    except (UserError, Unreadable) as error:
        return 'refused' if str(error) else 'refused without a word'
    except BaseException as error:  # noqa: BLE001  anything else is a finding
        return f'{type(error).__name__}: {str(error)[:300]}'
    return 'read'


@pytest.mark.parametrize('count', COUNTS)
@pytest.mark.parametrize('kind', KINDS)
def test_mutated_files(kind, count, tmp_path, monkeypatch):
    make, read = KINDS[kind]
    folder = tmp_path / 'in'
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    files = make(folder)
    intact = {file: file.read_bytes() for file in files}
    for file in files:
        assert (
            attempt(lambda file=file: read(folder, file)) == 'read' or file.suffix == '.torchscript'
        )  # holds no network
        shutil.rmtree(tmp_path / 'out', ignore_errors=True)
    outcomes = {}
    for number in range(count):
        chance = random.Random(f'{SEED} {kind} {number}')
        shutil.rmtree(tmp_path / 'out', ignore_errors=True)
        file = chance.choice(files)
        file.write_bytes(mutate(intact[file], chance))
        outcomes.setdefault(attempt(lambda file=file: read(folder, file)), []).append(number)
        file.write_bytes(intact[file])
        assert {path.name for path in tmp_path.iterdir()} <= {'in', 'out'}, f'{number} wrote elsewhere'
    done = {name: len(outcomes.pop(name, [])) for name in ('read', 'refused')}
    print(f'{kind}: {count} files, {done["read"]} read, {done["refused"]} refused')
    assert not outcomes


@pytest.mark.parametrize('count', COUNTS)
def test_checkpoints_with_other_entries(count, tmp_path):
    """Well-formed checkpoints that hold something else than they should."""
    content = torch.load(own_checkpoint(tmp_path)[0], weights_only=True)
    outcomes = set()
    for number in range(count):
        chance = random.Random(f'{SEED} entries {number}')
        torch.save(replace_an_entry(content, chance), tmp_path / 'changed.pt')
        outcomes.add(attempt(lambda: read_weights(tmp_path, tmp_path / 'changed.pt')))
    print(f'checkpoints with other entries: {count} files')
    assert outcomes <= {'read', 'refused'}


# --- anything at all --------------------------------------------------------------------------------------------------

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10) | st.integers(), inner, max_size=4)
    ),
    max_leaves=8,
)
EXPORT = {
    'format': 'ocrdistill',
    'version': 1,
    'names': {'0': 'text'},
    'stride': 32,
    'dynamic': True,
    'imgsz': [64, 64],
    'conf_threshold': 0.3,
    'source': {'options': {}},
}
BY_KEYS = {
    'recipe': (
        ('teacher', 'student', 'methods', 'warmup_epochs', 'decay', 'teacher_weights', 'student_weights'),
        parse_recipe,
    ),
    'mask': (
        METHOD_KEYS,
        lambda use, file: parse_recipe({'teacher': 't', 'student': 's', 'methods': {'mask': use}}, file),
    ),
    'model': (
        ('nc', 'depth_multiple', 'width_multiple', 'anchors', 'backbone', 'head'),
        lambda given, _: DetectionModel(small_cfg(0.125) | given),
    ),
    'export': (
        ('names', 'stride', 'dynamic', 'imgsz', 'conf_threshold', 'word_scale'),
        lambda given, file: ExportedModel(Path(file), EXPORT | given, None),
    ),
}


def with_examples(strategy, check: Callable, count: int) -> None:
    """Call `check` with three times `count` examples of a strategy."""
    checks = settings(
        max_examples=3 * count, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
    )
    checks(given(strategy)(check))()


@pytest.mark.parametrize('count', COUNTS)
@pytest.mark.parametrize('what', BY_KEYS)
def test_known_keys_with_any_values(what, count):
    keys, read = BY_KEYS[what]

    def check(entries):
        assert attempt(lambda: read(entries, 'given')) in ('read', 'refused')

    with_examples(st.dictionaries(st.sampled_from(keys), PLAIN), check, count)


@pytest.mark.parametrize('count', COUNTS)
def test_any_bytes(tmp_path, count):
    contents = st.binary(max_size=300) | st.text(max_size=300).map(str.encode)
    with_examples(contents, lambda content: read_all(tmp_path, content), count)


def read_all(folder: Path, content: bytes) -> None:
    """The same bytes as every kind of file."""
    for name, read in {
        'a.pt': read_checkpoint,
        'a.txt': lambda file: (read_label_file(file, 2), read_ground_truth(file)),
        'a.yaml': read_yaml,
        'a.png': read_image,
        'a.torchscript': load_detector,
    }.items():
        (folder / name).write_bytes(content)
        assert attempt(lambda: read(folder / name)) in ('read', 'refused'), name  # noqa: B023
