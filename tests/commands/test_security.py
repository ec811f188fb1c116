"""What files from strangers may not do: see docs/security.md. What fuzzing found stands here too."""

import argparse
import ast
import contextlib
import json
import os
import re
import struct
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
import yaml
from scipy.io import savemat

from benchmarks import audit
from data import convert
from data.formats import FORMATS
from data.formats.image_files import ImageFiles
from data.formats.mat_file import read_mat
from models.checkpoint import read_checkpoint, save_checkpoint
from models.errors import UserError
from models.exported import ExportedModel
from models.yamls import read_yaml
from models.yolo import DetectionModel
from ocrdistill.errors import Unreadable
from teacher.download import load_manifest
from tests.support import ROOT, small_cfg
from utils.detection.writer import SourceImage, Writer
from utils.evaluation.icdar import read_ground_truth
from utils.loading.config import load_data_config
from utils.loading.images import load_image, probe_image, read_image
from utils.loading.labels import read_label_file
from utils.runtime.hyp import check_hyp

ENVIRONMENTS = {place.parent.relative_to(ROOT).parts[0] for place in ROOT.glob('*/pyvenv.cfg')}
OTHERS = {'tests', 'runs', *ENVIRONMENTS}
SOURCES = sorted(file for file in ROOT.rglob('*.py') if not OTHERS & set(file.relative_to(ROOT).parts))


# --- nothing is executed ----------------------------------------------------------------------------------------------

BARE = {'eval', 'exec', 'compile', '__import__'}
DOTTED = {'os.system', 'os.popen', 'os.execv', 'os.execvp', 'subprocess.getoutput', 'subprocess.getstatusoutput'}
MODULES = {'pickle', 'cPickle', 'dill', 'joblib', 'marshal', 'shelve', 'cloudpickle', 'jsonpickle'}


def violations(source: str) -> list[str]:
    """What in a program could execute a file's content."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, 'module', None) or '']
            found += [name for name in names if name.partition('.')[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        loader = ast.unparse(node.args[1]) if len(node.args) > 1 else given.get('Loader', '')
        found += [name] * (
            name in BARE | DOTTED
            or given.get('shell', 'False') != 'False'
            or given.get('allow_pickle', 'False') != 'False'
            or (name == 'torch.load' and given.get('weights_only') != 'True')
            or (name in ('yaml.load', 'yaml.load_all') and loader != 'PlainLoader')
            or name in ('yaml.unsafe_load', 'yaml.full_load')
            or (name.endswith(('.extractall', '.extract')) and name != 'extractor.extract')  # ncnn's: a result
        )
    return found


def test_no_source_executes_what_it_reads():
    assert len(SOURCES) > 60
    assert {str(file): found for file in SOURCES if (found := violations(file.read_text()))} == {}


@pytest.mark.parametrize(
    'line',
    [
        *('eval("1")', 'exec(x)', 'import pickle', 'from joblib import load', 'torch.load(f)', 'yaml.load(f, Loader)'),
        *(
            'torch.load(f, weights_only=False)',
            'subprocess.run(x, shell=True)',
            'os.system(x)',
            'np.load(f, allow_pickle=x)',
        ),
        *('archive.extractall(x)', 'yaml.unsafe_load(x)', 'yaml.load(f, Loader=yaml.Loader)', '__import__(x)'),
    ],
)
def test_what_would_be_found(line):
    assert len(violations(line)) == 1


# --- nothing takes all memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (
            'a: &a [x, x]\n' + ''.join(f'{b}: &{b} [*{a}, *{a}]\n' for a, b in pairwise('abcdefghijklmnopqrst')),
            'values',
        ),
        ('a: &a\n  b: *a\n', 'values'),  # holds itself
        ('a: ' + '[' * 5000, 'Recursion'),
        ('a: x\n' * 300_000, 'larger than 1 MiB'),
        ('a: 2001-05-99', 'day'),
        ('a: !!int x', 'int'),
        ('a: !!python/object/apply:os.mkdir [executed]', 'could not determine a constructor'),
        ('a: ' + '9' * 5000, 'limit'),
    ],
)
def test_yamls(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.yaml').write_text(text)
    with pytest.raises(UserError, match=words):
        read_yaml(tmp_path / 'a.yaml')
    assert [file.name for file in tmp_path.iterdir()] == ['a.yaml']


def test_labels_of_a_million_rows(tmp_path):
    file = tmp_path / 'a.txt'
    file.write_text('0 .5 .5 .1 .1\n' * 20_000)
    with pytest.raises(UserError, match='too much for one picture'):
        read_label_file(file, 1)
    file.write_text('1,1,2,1,2,2,1,2,x\n' * 1_000_000)
    with pytest.raises(UserError, match='too much for one picture'):
        read_ground_truth(file)
    file.write_text('0 ' + '.1 .2 .3 .4 ' * 1000 + '\n0 .5 .5 .1 .1\n')  # other polygons would be padded to its length
    annotations, _, skipped, *_ = read_label_file(file, 1)
    assert len(annotations) == 1 and 'more than 2001 columns' in skipped[0]


@pytest.mark.parametrize('corner', ['1e300', 'inf', 'nan', '99999999999'])
def test_ground_truth_of_impossible_coordinates(tmp_path, corner):
    (tmp_path / 'a.txt').write_text(f'1,1,2,1,2,2,1,{corner},x\n')
    with pytest.raises(UserError, match='line 1: expected x1,y1'):
        read_ground_truth(tmp_path / 'a.txt')


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises more than there is."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    parts = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + parts


@pytest.mark.parametrize('content', [png_of(60_000, 60_000), b'P6 60000 60000 255\n' + bytes(1000)])
def test_pictures_of_gigapixels(tmp_path, content):
    file = tmp_path / ('a.png' if content[:1] == b'\x89' else 'a.ppm')
    file.write_bytes(content)
    with pytest.raises(Unreadable, match='more than 179 million pixels'):
        read_image(file)
    with pytest.raises(UserError, match='cannot be read'):
        load_image(file)
    with pytest.raises(Exception, match='more than 179 million pixels'):  # noqa: B017  Pillow's; the data set names the file
        probe_image(file)
    (tmp_path / 'gt_a.txt').write_text('1,1,2,1,2,2,1,2,x\n')
    with pytest.raises(UserError, match='no picture can be used.*more than 179 million pixels'):
        convert.read_items(FORMATS['icdar2015'], tmp_path, None, convert.Unread(set()), convert.Skipped())


def test_devices_and_pipes_are_no_pictures(tmp_path):
    os.mkfifo(tmp_path / 'pipe.png')
    for file in (tmp_path / 'pipe.png', Path('/dev/zero')):
        with pytest.raises(Unreadable, match='no file'):
            read_image(file)
        with pytest.raises(OSError, match='no file'):
            probe_image(file)
    with pytest.raises(Unreadable, match='too long'):
        read_image(tmp_path / ('x' * 5000))


def test_checkpoints_that_are_small_and_would_be_large(tmp_path):
    model = DetectionModel(small_cfg(0.125))
    file = tmp_path / 'a.pt'
    save_checkpoint(file, model, model.state_dict())
    bomb = tmp_path / 'bomb.pt'
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(bomb, 'w', zipfile.ZIP_DEFLATED) as other:
        for entry in archive.infolist():
            other.writestr(entry.filename, archive.read(entry) + bytes(10_000_000) * entry.filename.endswith('data/0'))
    with pytest.raises(UserError, match='would unpack to'):
        read_checkpoint(bomb)
    content = torch.load(file, weights_only=True)
    content['model']['x'] = torch.zeros(1).expand(10**12)
    torch.save(content, file)
    with pytest.raises(UserError, match='less than it claims'):
        read_checkpoint(file)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'width_multiple': 99}, 'billion weights'),
        ({'nc': 10**9}, 'number of classes'),
        ({'depth_multiple': 99, 'backbone': [[-1, 10**9, 'C3', [64]]]}, 'billion weights'),
        ({'backbone': [[-1, 1, 'Conv', [64, 10**6]]]}, 'billion weights'),
        ({'backbone': [[-1, 1, 'nn.Upsample', [None, 4096, 'nearest']]]}, 'larger than the picture'),
        ({'anchors': [[1.0] * 9000] * 3, 'nc': 9999}, 'billion weights'),
        ({'head': None}, 'cannot be built'),
        ({'backbone': [['x', 'y']]}, 'cannot be built'),
    ],
)
def test_model_yamls_of_giants(tmp_path, change, words):
    (tmp_path / 'a.yaml').write_text(yaml.safe_dump(small_cfg(0.125) | change))
    with pytest.raises(UserError, match=words):
        DetectionModel(tmp_path / 'a.yaml')


# --- nothing is written elsewhere -------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['../../out', '/etc/out', 'a\0b', '..', '\n', 'x' * 500, ''])
def test_names_of_classes_stay_in_the_folder(tmp_path, name):
    """A checkpoint's class names become folders of crops."""
    wanted = {'nosave': True, 'save_txt': False, 'save_crop': True, 'save_json': False, 'crop_margin': None}
    options = argparse.Namespace(project=str(tmp_path / 'runs'), name='exp', exist_ok=False, **wanted)
    with Writer(options, {0: name}) as writer:
        image = SourceImage(np.zeros((40, 60, 3), np.uint8), 'a.png', PurePosixPath('a.png'))
        writer.add(image, np.array([[2, 2, 30, 20, 0.9, 0.0]]), np.zeros(1))
    files = [file for file in tmp_path.rglob('*.jpg') if file.is_file()]
    assert len(files) == 1 and files[0].parent.parent == tmp_path / 'runs/exp/crops'


@pytest.mark.parametrize(
    ('entry', 'words'),
    [
        ({'target': '../../best.pt'}, 'expected a place in this folder'),
        ({'target': '/etc/best.pt'}, 'expected a place in this folder'),
        ({'target': 5}, 'target of x is 5, expected text'),
        ({'size': '7'}, "size of x is '7', expected a whole number"),
        ({'sha256': 0}, 'sha256 of x is 0'),
        ({'url': ['a']}, 'url of x is'),
    ],
)
def test_manifests(tmp_path, entry, words):
    entry = {'licence': 'any', 'url': 'https://example.org/a.pt', 'target': 'teacher/a.pt'} | entry
    (tmp_path / 'a.yaml').write_text(yaml.safe_dump({'x': entry}))
    with pytest.raises(UserError, match=words):
        load_manifest(tmp_path / 'a.yaml')


# --- one line, no traceback -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('change', [{'path': '~nobody_of_that_name'}, {'train': 'x' * 5000}, {'path': 'x' * 5000}])
def test_data_yamls_that_name_no_places(tmp_path, change):
    content = {'path': '.', 'train': 'a', 'val': 'b', 'names': ['text']} | change
    (tmp_path / 'a.yaml').write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match='must name places'):
        load_data_config(tmp_path / 'a.yaml')


def test_numbers_that_are_too_large():
    with pytest.raises(UserError, match='expected a number'):
        check_hyp({'lr0': 10**400})


def test_metadata_with_classes_that_are_not_numbered():
    with pytest.raises(UserError, match='metadata is incomplete'):
        ExportedModel(Path('a.onnx'), {'format': 'ocrdistill', 'version': 1, 'names': {'': 'x'}, 'stride': 32}, None)


def test_mat_files(tmp_path):
    """SciPy's compiled reader crashes on some that are cut or changed, so ours must read what it writes."""
    cells = np.empty((2, 3), object)
    for place in np.ndindex(cells.shape):
        cells[place] = np.arange(6.0).reshape(2, 3) if place[1] else 'caf\xe9'
    for compressed in (False, True):
        savemat(tmp_path / 'a.mat', {'other': np.arange(3), 'polygt': cells}, do_compression=compressed)
        content = (tmp_path / 'a.mat').read_bytes()
        for place, value in np.ndenumerate(read_mat(content, 'polygt')):
            assert np.array_equal(value, cells[place] if place[1] else ['caf\xe9'])
        with pytest.raises(ValueError, match='cut short'):
            read_mat(content[: len(content) - 40], 'polygt')


def test_words_that_no_encoding_has(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'x')
    shape = {'points': [[0, 0], [9, 0], [9, 9], [0, 9]], 'description': '\ud800', 'label': 'x'}
    (tmp_path / 'a.json').write_text(json.dumps({'imagePath': 'a.jpg', 'shapes': [shape]}))
    (page,) = FORMATS['labelme'].read(tmp_path, ImageFiles(tmp_path))
    assert convert._truth_row(page.regions[0], (9, 9)) == '0,0,9,0,9,9,0,9,?\n'


def test_coco_text_with_a_list_for_a_set(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'x')
    (tmp_path / 'a.json').write_text(
        '{"imgs": {"1": {"set": [], "file_name": "a.jpg"}}, "anns": {"1": {"image_id": 1}}}'
    )
    (page,) = FORMATS['coco-text'].read(tmp_path / 'a.json', ImageFiles(tmp_path))
    assert 'expected train, val or test' in page.problem


# --- dependencies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['requirements', 'requirements-dev'])
def test_lock_files(name):
    """Every package with its hashes, those that we ask for at our versions, and no place to get them from."""
    text = (ROOT / f'{name}.lock').read_text()
    assert not re.search(r'://|--(?!hash=sha256:[0-9a-f]{64}\b)', text)
    locked = dict(re.findall(r'^(\S+)==(\S+)', text, re.MULTILINE))
    entries = re.split(r'\n(?=\S)', text.strip())
    assert all(re.match(r'[\w.-]+==\S+', entry) and '--hash=sha256:' in entry for entry in entries)
    files = (
        [f'{name}.txt']
        if name == 'requirements'
        else [f'{n}.txt' for n in ('requirements', 'requirements-export', name)]
    )
    asked = dict(re.findall(r'^(\S+)==(\S+)', ''.join((ROOT / file).read_text() for file in files), re.MULTILINE))
    assert asked.items() <= locked.items()


@pytest.mark.parametrize(
    ('packages', 'words'),
    [
        (None, 'cannot be reached .no connection'),
        ([{'name': 'a', 'skip_reason': 'not found'}], 'knows no package'),
        ([{'name': 'a', 'version': '1', 'vulns': [{'id': 'X-1', 'fix_versions': []}]}], '2 known vulnerabilities'),
        ([{'name': 'a', 'version': '1', 'vulns': []}], ''),
    ],
)
def test_audit(tmp_path, monkeypatch, capsys, packages, words):
    answer = "import sys; sys.exit('no connection')"
    if packages:
        of_lock = "json.dumps(DATA).replace('\"a\"', '\"of dev\"') if 'dev' in sys.argv[-1] else json.dumps(DATA)"
        answer = f'import json, sys\nDATA = { ({"dependencies": packages})!r}\nprint({of_lock})'
    (tmp_path / 'pip_audit.py').write_text(answer)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    monkeypatch.setattr('sys.argv', ['audit.py'])
    with pytest.raises(UserError, match=words) if words else contextlib.nullcontext():
        audit.main()
    assert words or capsys.readouterr().out == '2 packages audited\n'
