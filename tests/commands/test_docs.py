"""The documentation: links lead somewhere, commands take the flags that the pages give them, versions agree."""

import functools
import re
import shlex
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import cv2
import pytest
import yaml
from packaging.requirements import Requirement

import demo
import ocrdistill
from ocrdistill import cli
from tests.support import ROOT, run_here

PAGES = sorted(
    [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md'), *ROOT.glob('*/README.md'), *ROOT.glob('docs/*/README.md')]
)
PUBLISHED = (
    'python distill_xn_maskdiff_PFI.py --cfg_teacher models/yolov5x.yaml --cfg_student models/yolov5n.yaml '
    "--teacher_weights teacher/x/weights/best.pt --student_weights '' --data data/ICDAR.yaml --device 0 "
    '--name xn_maskdiff_PFI'
)


def anchors(page: Path) -> set[str]:
    """What '#...' may follow a link to the page: its headings, as GitHub writes them."""
    headings = re.findall(r'^#+ (.+)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    prose = re.sub(r'^ {4}.*$|`[^`]*`', '', page.read_text(), flags=re.MULTILINE)
    for link in re.findall(r'\]\(([^)]+)\)', prose):
        if link.startswith(('https://', 'mailto:')):
            continue
        name, _, anchor = link.partition('#')
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def commands(page: Path) -> list[list[str]]:
    """The indented lines of a page that call a script of the repository, as words."""
    text = page.read_text().replace('\\\n', ' ')
    lines = re.findall(r'^ {4}(?:\S.*?\s)?(?:\.venv/bin/)?(?:python|torchrun) (.+)$', text, re.MULTILINE)
    words = [shlex.split(line, comments=True) for line in lines]
    # tests/pretend_gpu.py and torchrun take another script as their argument: the last one has the flags
    starts = [max((i for i, word in enumerate(line) if word.endswith('.py')), default=None) for line in words]
    return [line[start:] for line, start in zip(words, starts, strict=True) if start is not None]


def test_the_packages_commands_are_taken():
    found = 0
    for page in PAGES:
        text = page.read_text().replace('\\\n', ' ')
        for line in re.findall(r'^ {4}(?:\S.*\s)?ocrdistill ((?:detect|read) .+)$', text, re.MULTILINE):
            cli.build_parser().parse_args(shlex.split(line, comments=True))
            found += 1
    assert found >= 5


def test_the_demos_commands_and_its_picture(tiny_data, tmp_path, monkeypatch):
    given = []
    with monkeypatch.context() as patch:
        patch.setattr(demo, 'run', given.append)
        patch.setattr(demo, 'draw_words', lambda *_: None)
        patch.setattr(sys, 'argv', ['demo.py'])
        demo.main()
        patch.setattr(sys, 'argv', ['demo.py', '--epochs', '2'])
        demo.main()
    given, shorter = given[: len(given) // 2], given[len(given) // 2 :]
    names = [re.search(r'--name (\S+)', lines[1])[1] for lines in (given, shorter)]
    assert names == ['demo', 'demo_2_epochs']  # which compare.py would not mix
    assert [line.split()[0] for line in given] == ['data/synthtext.py', 'compare.py', 'data/synthtext.py', 'detect.py']
    for script, *words in map(shlex.split, given):
        for flag in (word for word in words if word.startswith('--')):
            assert re.search(rf'(?<![\w-]){flag}(?![\w-])', help_of(script)), (script, flag)
    monkeypatch.setattr(demo, 'DATA', tiny_data)
    demo.draw_words({size: ROOT / f'teacher/demo/yolov5{size}.pt' for size in 'sn'}, tmp_path / 'words.jpg')
    assert cv2.imread(str(tmp_path / 'words.jpg')).std() > 5


@functools.cache
def help_of(script: str) -> str:
    result = run_here(script, '--help')
    assert result.returncode == 0, (script, result.stderr)
    return result.stdout


def test_the_demo_tells_what_it_started_to_stop(tmp_path):
    """SIGTERM goes on to the command, which gets time to end what it does; nothing is left running."""
    child = 'import pathlib, sys, time\ntry:\n    pathlib.Path(sys.argv[1]).touch(); time.sleep(60)\n'
    child += 'finally:\n    time.sleep(1); pathlib.Path(sys.argv[1]).unlink()\n'
    setup = 'import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n'
    (tmp_path / 'child.py').write_text(setup + child)
    code = 'import demo, sys; from utils.runtime.cli import run_command; run_command(lambda: demo.run(sys.argv[1]))'
    process = subprocess.Popen(
        [sys.executable, '-c', code, f'{tmp_path}/child.py {tmp_path}/on'], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / 'on').exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) and not (tmp_path / 'on').exists()


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_take_their_flags(page):
    for script, *words in commands(page):
        assert (ROOT / script).is_file(), script
        for flag in (word.split('=')[0] for word in words if re.fullmatch(r'--[a-z].*', word)):
            assert re.search(rf'(?<![\w-]){flag}(?![\w-])', help_of(script)), (script, flag)


def test_commands_are_found():
    found = {script for page in PAGES for script, *_ in commands(page)}
    assert found >= {'train.py', 'distill.py', 'val.py', 'detect.py', 'export.py', 'compare.py', 'benchmarks/run.py'}


def test_readme_is_short_and_has_the_published_command():
    readme = (ROOT / 'README.md').read_text()
    assert len(readme.splitlines()) <= 110
    assert PUBLISHED in readme
    for script in ROOT.glob('distill_*.py'):
        assert f'`{script.name}`' in readme


def project() -> dict:
    return tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def pins(file: str) -> dict[str, str]:
    """{package: version} of a requirements file."""
    return dict(re.findall(r'^([\w-]+)==([\w.]+)', (ROOT / file).read_text(), re.MULTILINE))


def test_ranges_hold_the_tested_versions():
    tested = pins('requirements.txt') | pins('requirements-export.txt') | pins('requirements-dev.txt')
    extras = project()['optional-dependencies']
    for text in [*project()['dependencies'], *extras['train'], *extras['export'], *extras['dev']]:
        range_ = Requirement(text)
        if range_.name != 'ocrdistill':
            assert range_.specifier.contains(tested[range_.name]), text
    named = {Requirement(text).name for text in [*project()['dependencies'], *extras['train']]}
    assert named == set(pins('requirements.txt')) | {'onnxruntime'}


def test_one_version():
    version = ocrdistill.__version__
    assert str(yaml.safe_load((ROOT / 'CITATION.cff').read_text())['version']) == version
    assert re.search(r'^## \[(.+?)\]', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)[1] == version
