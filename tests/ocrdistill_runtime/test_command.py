"""The command `ocrdistill`."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

import ocrdistill
from ocrdistill import Word, cli
from ocrdistill.reading import reader
from tests.support import ROOT

pytest.importorskip('onnx', reason='onnx is missing: pip install -r requirements-export.txt')
pytest.importorskip('onnxruntime', reason='onnxruntime is missing')
from tests.ocrdistill_runtime.networks import write_network  # noqa: E402

CELLS = [[116, 60, 40, 20, 0.9, 1, 0, 0, 0, 0], [216, 60, 40, 20, 0.35, 1, 0, 0, 0, 0]]


@pytest.fixture
def run(tmp_path, capsys):
    """run(*arguments) -> (status, standard output, standard error)."""
    network = write_network(tmp_path / 'two.onnx', CELLS)

    def call(command, *arguments, model=network):
        status = 0
        try:
            cli.main([command, *map(str, arguments), '--model', str(model), '--size', '640'])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def photos(tmp_path):
    """a.jpg, below/b.png and two pages of c.tif; a text, and a file that is none."""
    folder = tmp_path / 'photos'
    (folder / 'below').mkdir(parents=True)
    white = Image.new('RGB', (640, 360), 'white')
    white.save(folder / 'a.jpg')
    white.save(folder / 'below/b.png')
    white.save(folder / 'c.tif', save_all=True, append_images=[white])
    (folder / 'readme.md').write_text('x')
    return folder


def test_help_is_instant():
    code = (
        'import sys\n'
        'from ocrdistill import cli\n'
        'try:\n'
        '    cli.main(["read", "--help"])\n'
        'except SystemExit as end:\n'
        '    assert end.code == 0\n'
        'assert not {"numpy", "PIL", "onnxruntime", "torch"} & sys.modules.keys()\n'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and '--recogniser' in done.stdout, done.stderr


def test_detect_writes_what_is_asked_for(run, photos, tmp_path):
    out = tmp_path / 'out'
    status, said, err = run(
        'detect', photos, '--json', out / 'd.json', '--draw', out / 'drawn', '--crops', out / 'crops'
    )
    assert (status, err) == (0, 'left out: 1 .md\n')
    assert said.splitlines() == ['a.jpg: 2 words', 'below/b.png: 2 words', 'c.tif: 2 words', 'c_page2.tif: 2 words']
    entries = json.loads((out / 'd.json').read_text())
    assert [entry['image'] for entry in entries] == ['a.jpg', 'below/b.png', 'c.tif', 'c_page2.tif']
    first = entries[0]['detections'][0]
    assert first['box'] == [80, 38, 120, 58] and first['quad'][0] == [80, 38] and first['line'] == 0
    drawn = sorted(str(file.relative_to(out / 'drawn')) for file in (out / 'drawn').rglob('*.*'))
    assert drawn == ['a.jpg', 'below/b.png', 'c.tif.png', 'c_page2.tif.png']
    assert np.asarray(Image.open(out / 'drawn/below/b.png')).min() < 100
    assert len(list((out / 'crops').rglob('*.png'))) == 8 and (out / 'crops/below/b.png_001.png').is_file()


def test_limits_providers_and_scores(run, photos, tmp_path):
    plain, scored = tmp_path / 'plain', tmp_path / 'scored'
    source = photos / 'below/b.png'
    assert run('detect', source, '--draw', plain)[1] == 'b.png: 2 words\n'
    status, said, err = run('detect', source, '--max-words', 1, '--providers', ' CPUExecutionProvider')
    assert (status, said) == (0, 'b.png: 1 word\n') and 'warning: b.png: as many words as max_words, 1, allows' in err
    assert "no 'Other' here" in run('detect', source, '--providers', 'Other,CPUExecutionProvider')[2]
    assert run('detect', source, '--draw', scored, '--scores')[0] == 0
    first, second = (np.asarray(Image.open(folder / 'b.png')).astype(int) for folder in (plain, scored))
    beside = np.abs(first - second).sum(2)
    assert beside.any() and not beside[40:57, 82:118].any(), 'scores stand beside words, not over them'


def test_json_is_printed_alone(run, photos):
    status, said, err = run('detect', photos / 'a.jpg', '--json', '-')
    assert status == 0 and len(json.loads(said)[0]['detections']) == 2 and err == 'a.jpg: 2 words\n'


def test_what_cannot_be_read_is_named_at_the_end(run, photos):
    (photos / 'broken.jpg').write_bytes(b'\xff\xd8 no picture')
    status, said, err = run('detect', photos)
    assert status == 1 and len(said.splitlines()) == 4
    assert err.splitlines()[1].startswith('broken.jpg: not read (')
    assert err.splitlines()[-1].startswith('error: 1 of 5 could not be read: broken.jpg (')


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['no/such'], 'no such source: no/such'),
        (['https://example.com/a.jpg'], 'no such source: https://example.com/a.jpg (addresses are not read)'),
        ([''], 'a source is empty'),
        (['{photos}/a.jpg', '--size', 'big'], 'size'),
        (['{photos}/a.jpg', '--threshold', '7'], 'threshold: 7'),
        (['{photos}/readme.md'], 'readme.md (no image'),
    ],
)
def test_mistakes_are_one_line(run, photos, arguments, words, capsys):
    arguments = [argument.format(photos=photos) for argument in arguments]
    if '--size' in arguments:
        with pytest.raises(SystemExit) as end:
            cli.main(['detect', *arguments])
        err = capsys.readouterr().err
        assert end.value.code == 1 and err.startswith('error: size') and err.count('\n') == 1
        return
    status, _, err = run('detect', *arguments)
    assert status == 1 and words in err.splitlines()[-1] and 'Traceback' not in err


@pytest.mark.parametrize('flag', ['--draw', '--crops'])
def test_an_empty_name_is_no_folder(photos, flag, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(['detect', str(photos), flag, ''])
    assert end.value.code == 2 and f'{flag}: it is empty: name a folder' in capsys.readouterr().err


def test_drawings_do_not_replace_sources(run, photos):
    status, _, err = run('detect', photos, '--draw', photos)
    assert status == 1 and 'is the source itself' in err
    status, _, err = run('detect', photos / 'a.jpg', '--draw', photos)
    assert status == 1 and 'is a source itself' in err and Image.open(photos / 'a.jpg').getpixel((80, 48)) == (255,) * 3


def test_reports_do_not_replace_sources_or_folders(run, photos, tmp_path):
    before = (photos / 'a.jpg').read_bytes()
    for command, flag in (('detect', '--json'), ('read', '--out')):
        status, said, err = run(command, photos, flag, photos / 'a.jpg')
        assert status == 1 and not said and 'is a source itself' in err and (photos / 'a.jpg').read_bytes() == before
    status, said, err = run('detect', photos, '--json', tmp_path)
    assert status == 1 and not said and 'is a folder' in err


def test_what_was_found_before_an_interruption_is_written(run, photos, tmp_path, monkeypatch):
    def save(_self, _image, file):
        if 'below' in str(file):
            raise KeyboardInterrupt

    monkeypatch.setattr(cli.Images, 'save', save)
    status, _, err = run('detect', photos, '--draw', tmp_path, '--json', tmp_path / 'd.json')
    assert status == 130 and err.endswith('interrupted\n')
    assert [entry['image'] for entry in json.loads((tmp_path / 'd.json').read_text())] == ['a.jpg', 'below/b.png']


def test_sigterm_keeps_what_was_found(run, photos, tmp_path, monkeypatch):
    def save(_self, _image, file):
        if 'below' in str(file):
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli.Images, 'save', save)
    (tmp_path / 'd.json').write_text('an earlier report')
    (tmp_path / 'd.json').chmod(0o600)
    try:
        status, _, err = run('detect', photos, '--draw', tmp_path, '--json', tmp_path / 'd.json')
    finally:
        signal.signal(signal.SIGTERM, before)
    assert status == 128 + signal.SIGTERM and err.endswith('interrupted\n')
    assert len(json.loads((tmp_path / 'd.json').read_text())) == 2
    assert not list(tmp_path.glob('.*')), 'a temporary file was left'
    assert sys.platform == 'win32' or (tmp_path / 'd.json').stat().st_mode & 0o777 == 0o600


def test_an_earlier_report_stays_where_the_new_one_fails(run, photos, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, 'No space left on device')

    (tmp_path / 'd.json').write_text('an earlier report')
    monkeypatch.setattr('ocrdistill.whole_files.os.replace', fail)
    status, _, err = run('detect', photos, '--json', tmp_path / 'd.json')
    assert status == 1 and 'No space left' in err and (tmp_path / 'd.json').read_text() == 'an earlier report'


@pytest.mark.parametrize('flag', ['--draw', '--crops'])
def test_what_a_run_has_drawn_is_no_source_of_the_next(run, photos, flag):
    first = run('detect', photos, flag, photos / 'out')
    status, said, err = run('detect', photos, flag, photos / 'out')
    written = sum(file.is_file() for file in (photos / 'out').rglob('*'))
    assert (status, said) == (0, first[1]) and first[2] == 'left out: 1 .md\n' and written
    assert err == f'left out: 1 .md; left out: {written} in folders that are written to\n'
    assert run('detect', photos / 'out', flag, photos / 'out' / 'again')[0] == 0  # where it is asked for


def test_a_report_goes_through_a_link(run, photos, tmp_path):
    (tmp_path / 'link.json').symlink_to('target.json')
    status, _, _ = run('detect', photos / 'a.jpg', '--json', tmp_path / 'link.json')
    assert status == 0 and (tmp_path / 'link.json').is_symlink()
    assert len(json.loads((tmp_path / 'target.json').read_text())) == 1


def test_drawings_do_not_replace_each_other(run, photos, tmp_path):
    Image.new('RGB', (640, 360), 'black').save(photos / 'c.tif.png')
    status, _, _ = run('detect', photos, '--draw', tmp_path / 'out')
    names = ['a.jpg', 'annotated_c.tif.png', 'below', 'c.tif.png', 'c_page2.tif.png']
    assert status == 0 and sorted(file.name for file in (tmp_path / 'out').iterdir()) == names


def test_a_drawing_is_there_whole_or_as_it_was(run, photos, tmp_path, monkeypatch):
    (tmp_path / 'a.jpg').write_bytes(b'of an earlier run')

    def cut(self, file, *_, **__):
        file.write_bytes(b'half')
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, 'save', cut)
    with pytest.raises(KeyboardInterrupt):
        cli.Images([str(photos)]).save(np.zeros((8, 8, 3), np.uint8), tmp_path / 'a.jpg')
    assert (tmp_path / 'a.jpg').read_bytes() == b'of an earlier run'
    assert not list(tmp_path.glob('.*'))


def test_pictures_that_their_form_cannot_hold_become_png(run, tmp_path):
    Image.new('RGB', (17_000, 8), 'white').save(tmp_path / 'a.png')
    (tmp_path / 'a.png').rename(tmp_path / 'a.webp')
    status, _, err = run('detect', tmp_path / 'a.webp', '--draw', tmp_path / 'drawn')
    assert status == 0 and [file.name for file in (tmp_path / 'drawn').iterdir()] == ['a.webp.png'], err


def test_a_report_keeps_no_pixels(photos):
    image = np.zeros((360, 640, 3), np.uint8)
    with cli.Report(lambda _pages: '', None, cli.Images([str(photos)])) as report:
        report.add('a', image, [Word(np.zeros((4, 2)), np.zeros(4), 1.0, 0, image=image)])
        kept = report.pages[0].words[0].image
        assert kept.size == 0 and kept.base is None and report.pages[0].width == 640


def test_a_run_that_never_began_leaves_no_report(run, photos, tmp_path):
    status, _, err = run('detect', photos, '--json', tmp_path / 'd.json', model=tmp_path / 'none.onnx')
    assert status == 1 and 'no such file' in err and not (tmp_path / 'd.json').exists()


@pytest.mark.skipif(sys.platform == 'win32', reason='names are text there')
def test_a_name_that_is_no_text_and_a_reader_that_goes_away(run, photos, tmp_path):
    odd = photos / os.fsdecode(b'caf\xe9.jpg')
    try:
        (photos / 'a.jpg').rename(odd)
    except OSError:
        pytest.skip('this file system takes no such name')
    network = write_network(tmp_path / 'net.onnx', CELLS)
    flags = ['--model', str(network), '--json', str(tmp_path / 'd.json')]
    command = [sys.executable, '-m', 'ocrdistill', 'detect', str(photos), *flags]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, 'left out: 1 .md\n')
    names = [entry['image'] for entry in json.loads((tmp_path / 'd.json').read_text())]
    assert len(names) == 4 and odd.name in names


@pytest.fixture
def command(photos, tmp_path):
    """Run `ocrdistill detect a.jpg` in a shell, with its output buffered as in a user's pipe; what follows is given."""
    network = write_network(tmp_path / 'net.onnx', CELLS)
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'}

    def call(rest):
        line = f'"{sys.executable}" -m ocrdistill detect "{photos}/a.jpg" --model "{network}" {rest}'
        shell = ['bash', '-c', f'set -o pipefail; {line}']
        return subprocess.run(shell, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    return call


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs a shell and /dev/full')
@pytest.mark.parametrize(
    ('rest', 'status', 'error'),
    [
        ('--json - | true', 0, ''),
        ('--json - > /dev/full', 1, 'error: No space left on device'),
        ('--json - >&-', 1, 'error: standard output is closed: name a file'),
        ('--json >(true)', 1, 'error: Broken pipe'),
    ],
)
def test_outputs_that_take_nothing_are_one_line(command, rest, status, error):
    done = command(rest)
    lines = [line for line in done.stderr.splitlines() if line != 'a.jpg: 2 words']
    assert (done.returncode, lines) == (status, [error] if error else [])


def test_a_full_disk_for_pictures_leaves_the_report(run, photos, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, 'save', full)
    status, said, err = run('detect', photos, '--json', '-', '--draw', tmp_path / 'out')
    assert status == 1 and 'No space left' in err and json.loads(said)[0]['image'] == 'a.jpg'


def test_progress_goes_nowhere_where_standard_error_is_closed(command):
    done = command('--json - 2>&-')
    assert done.returncode == 0 and json.loads(done.stdout)[0]['image'] == 'a.jpg'


LONG = """
import sys
from pathlib import Path
from tqdm import tqdm
from ocrdistill.command import end_plainly

def main():
    for number in tqdm(range(3)):
        print(number, flush=True)
        print(number, file=sys.stderr, flush=True)
    Path(sys.argv[1]).write_text('done')
    sys.exit(7)

end_plainly(main)
"""


@pytest.mark.skipif(sys.platform == 'win32', reason='needs a shell')
@pytest.mark.parametrize('streams', ['> >(true) 2> >(true)', '>&- 2>&-', '2>&1 | true'])
def test_a_command_outlasts_those_who_read_what_it_says(tmp_path, streams):
    """As a training does whose `| tee log` was ended by the same Ctrl-C, or whose `| head` has read enough."""
    line = f'set -o pipefail; sleep 0.2 && "$0" -c "$1" "$2" {streams}'
    shell = ['bash', '-c', line, sys.executable, LONG, str(tmp_path / 'end')]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 7 and (tmp_path / 'end').read_text() == 'done'
    assert 'Error' not in done.stderr


@pytest.mark.skipif(not os.path.exists('/dev/stdout'), reason='needs a shell and /dev/stdout')
def test_a_pipe_takes_the_report(command):
    done = command('--json /dev/stdout | cat')
    assert done.returncode == 0 and done.stderr == '' and '"image": "a.jpg"' in done.stdout


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(['--version'])
    assert end.value.code == 0 and capsys.readouterr().out == f'ocrdistill {ocrdistill.__version__}\n'


def test_a_source_after_slice_is_named(capsys):
    with pytest.raises(SystemExit):
        cli.main(['detect', '--slice', 'a.jpg'])
    assert 'name the pictures before --slice' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (['detect', 'x', '--scores'], '--scores are drawn'),
        (['read', 'x', '--language', 'eng'], '--language is for'),
        (['find', 'x'], 'invalid choice'),
        ([], 'required: command'),
    ],
)
def test_useless_flags_are_refused(flags, words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(flags)
    assert end.value.code == 2 and words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ('form', 'start'), [('text', 'word'), ('json', '[{"image"'), ('hocr', '<?xml'), ('alto', '<?xml')]
)
def test_read_prints_or_writes_every_form(run, photos, tmp_path, monkeypatch, form, start):
    monkeypatch.setattr(reader, 'make_recogniser', lambda *_: lambda crops: [('wörd', 0.5)] * len(crops))
    start = start.replace('word', 'wörd wörd\n')
    status, said, err = run('read', photos / 'a.jpg', '--format', form)
    assert status == 0 and said.startswith(start) and err == ''
    assert run('read', photos / 'a.jpg', '--format', form, '--out', '-') == (status, said, err)
    status, said, err = run('read', photos / 'a.jpg', '--format', form, '--out', tmp_path / 'x' / 'out')
    assert status == 0 and said == '' and err == 'a.jpg: 2 words\n'
    assert (tmp_path / 'x/out').read_text(encoding='utf-8').startswith(start)


@pytest.mark.parametrize('form', ['text', 'hocr', 'alto'])
def test_where_no_picture_could_be_read_nothing_is_written(run, photos, tmp_path, monkeypatch, form):
    monkeypatch.setattr(reader, 'make_recogniser', lambda *_: lambda crops: [('', 0.0)] * len(crops))
    status, said, err = run('read', photos / 'readme.md', '--format', form)
    assert (status, said) == (1, '') and 'error: 1 of 1 could not be read' in err
    assert run('read', photos / 'readme.md', '--format', form, '--out', tmp_path / 'out')[0] == 1
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    pytest.importorskip('setuptools', '77', reason='setuptools 77 is missing')
    build = [
        sys.executable,
        '-m',
        'pip',
        'wheel',
        '--no-deps',
        '--no-build-isolation',
        '-q',
        '-w',
        str(tmp_path),
        str(tmp_path / 'source'),
    ]
    (tmp_path / 'source').mkdir()  # building leaves folders where the sources are
    for name in ('pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in'):
        shutil.copy(ROOT / name, tmp_path / 'source')
    shutil.copytree(ROOT / 'ocrdistill', tmp_path / 'source/ocrdistill')
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob('*.whl')
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split('/')[0].split('-')[0] for name in names} == {'ocrdistill'}
    assert {'ocrdistill/networks/n.onnx', 'ocrdistill/reading/reader.py', 'ocrdistill/py.typed'} <= set(names)
    assert not [name for name in names if 'test' in name] and wheel.stat().st_size < 20e6

    zipfile.ZipFile(wheel).extractall(tmp_path / 'site')
    (entry,) = (tmp_path / 'site').glob('*.dist-info/entry_points.txt')
    assert 'ocrdistill = ocrdistill.cli:main' in entry.read_text()
    command = [sys.executable, '-m', 'ocrdistill', 'detect', str(ROOT / 'examples/web/example.jpg'), '--json', '-']
    environment = os.environ | {'PYTHONPATH': str(tmp_path / 'site')}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and len(json.loads(done.stdout)[0]['detections']) > 3, done.stderr
