"""The downloader of teachers, against an HTTP server on this machine and a Google Drive listing made here."""

import hashlib
import io
import json
import re
import socket
import subprocess
import sys
import threading
import types
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
import yaml

from models.errors import UserError
from teacher import download
from tests.support import ROOT, run_here

PUBLIC = ROOT.parent / 'shared/weights/yolov5n.pt'


CHUNK = download.CHUNK


def torch_file(seed: int, size: int = 300_000) -> bytes:
    """A zip laid out as torch.save lays it out; incompressible, so that a cut lies inside an entry."""
    noise = b''.join(hashlib.sha256(f'{seed},{i}'.encode()).digest() for i in range(size // 32))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        archive.writestr('best/data.pkl', b'\x80\x02}.')
        archive.writestr('best/data/0', noise)
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        site = self.server.site
        site.requests.append(self.headers.get('Range'))
        start, body = 0, site.content
        asked = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', ''))
        if asked and site.ranges:
            start = int(asked[1])
            if start >= len(body):
                self.send_error(416)
                return
        self.send_response(site.status if site.status != 200 else 206 if start else 200)
        if site.announce:
            self.send_header('Content-Length', str(len(body) - start))
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(body) - 1}/{len(body)}')
        self.send_header('Content-Type', site.kind)
        if site.etag:
            self.send_header('ETag', site.etag)
        self.end_headers()
        stop = len(body) if site.cut is None else start + site.cut
        self.wfile.write(body[start:stop])


class Site:
    """What the server answers, and the Range headers that it was asked with."""

    def __init__(self, url: str):
        self.url, self.content, self.etag, self.cut = url, torch_file(1), '"one"', None
        self.kind, self.status, self.ranges, self.announce = 'application/octet-stream', 200, True, True
        self.requests = []


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.site = Site(f'http://127.0.0.1:{server.server_port}/best.pt')
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.site
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Call the command with options; its manifest's entry 'one' takes the fields given by keyword."""

    monkeypatch.setattr(download, 'ROOT', tmp_path)

    def call(*options, **fields) -> Path:
        target = tmp_path / 'x/weights/best.pt'
        entry = {'licence': 'free', 'target': 'x/weights/best.pt'} | fields
        manifest = tmp_path / 'manifest.yaml'
        manifest.write_text(yaml.safe_dump({'one': entry}))
        monkeypatch.setattr(sys, 'argv', ['download.py', 'one', '--manifest', str(manifest), *map(str, options)])
        download.main()
        return target

    return call


def left_over(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.rglob('*') if path.is_file() and path.name != 'manifest.yaml')


def test_full_download(site, run, tmp_path):
    digest = hashlib.sha256(site.content).hexdigest()
    target = run(url=site.url, size=len(site.content), sha256=digest)
    assert target.read_bytes() == site.content
    assert site.requests == [None]
    assert left_over(tmp_path) == ['best.pt']


def test_existing_file_is_kept_without_force(site, run, capsys):
    target = run(url=site.url)
    target.write_bytes(b'my own')
    run(url=site.url)
    assert 'already there' in capsys.readouterr().out
    assert target.read_bytes() == b'my own'
    assert len(site.requests) == 1
    run('--force', url=site.url)
    assert target.read_bytes() == site.content


def test_failed_force_keeps_the_old_file(site, run):
    target = run(url=site.url)
    site.status = 503
    with pytest.raises(UserError, match='503'):
        run('--force', url=site.url)
    assert target.read_bytes() == site.content


@pytest.mark.parametrize('etag', ['"one"', None])
def test_cut_download_is_resumed(site, run, tmp_path, etag):
    site.cut, site.etag = 2 * CHUNK, etag
    with pytest.raises(UserError, match=f'cut after {2 * CHUNK} of {len(site.content)} bytes; run the command again'):
        run(url=site.url)
    assert left_over(tmp_path) == ['best.pt.part', 'best.pt.part.json']
    with pytest.raises(UserError, match=f'cut after {4 * CHUNK}'):
        run(url=site.url)
    site.cut = None
    assert run(url=site.url).read_bytes() == site.content
    assert site.requests == [None, f'bytes={2 * CHUNK}-', f'bytes={4 * CHUNK}-']
    assert left_over(tmp_path) == ['best.pt']


@pytest.mark.parametrize('change', ['etag', 'size', 'no ranges', 'url', 'shorter'])
def test_changed_file_starts_anew(site, run, change):
    site.cut = 2 * CHUNK
    with pytest.raises(UserError, match='cut after'):
        run(url=site.url)
    site.cut, site.content = None, torch_file(2, 310_000 if change == 'size' else 300_000)
    site.ranges = change != 'no ranges'
    if change == 'etag':
        site.etag = '"two"'
    if change == 'shorter':
        site.content = torch_file(2, 50_000)  # answered with 416
    url = site.url + ('?mirror' if change == 'url' else '')
    assert run(url=url).read_bytes() == site.content


def test_file_changed_unnoticed_is_refused(site, run, tmp_path):
    """Same size, no ETag: only the checksums inside tell that the halves do not belong together."""
    site.cut, site.etag = 2 * CHUNK, None
    with pytest.raises(UserError, match='cut after'):
        run(url=site.url)
    site.cut, site.content = None, torch_file(2)
    with pytest.raises(UserError, match='removed: it is damaged'):
        run(url=site.url)
    assert left_over(tmp_path) == []
    assert run(url=site.url).read_bytes() == site.content


def test_cut_without_announced_size_is_no_success(site, run, tmp_path):
    site.announce, site.cut = False, 2 * CHUNK
    with pytest.raises(UserError, match='damaged'):
        run(url=site.url)
    assert left_over(tmp_path) == []


def test_cut_at_once(site, run):
    site.cut = 10
    with pytest.raises(UserError, match=r'127\.0\.0\.1:\d+ cut the connection'):
        run(url=site.url)
    site.cut = None
    assert run(url=site.url).read_bytes() == site.content


def test_cut_chunked_answer(run, monkeypatch):
    """A cut that the HTTP library reports, of an answer whose size nobody knows."""

    class Answer(requests.Response):
        def iter_content(self, _size):
            yield b'PK\x03\x04 the start'
            raise requests.exceptions.ChunkedEncodingError('cut')

        def close(self):
            pass

    answer = Answer()
    answer.status_code = 200
    monkeypatch.setattr(download.requests, 'get', lambda *_, **__: answer)
    with pytest.raises(UserError, match=r'cut after 14 of \? bytes'):
        run(url='http://127.0.0.1/best.pt')


def test_wrong_hash_or_size(site, run, tmp_path):
    with pytest.raises(UserError, match=r'its sha256 is [0-9a-f]{64}, expected 0{64}'):
        run(url=site.url, sha256='0' * 64)
    with pytest.raises(UserError, match=f'it has {len(site.content)} bytes, expected 5'):
        run(url=site.url, size=5)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize('kind', ['text/html; charset=utf-8', 'application/octet-stream'])
def test_web_page(site, run, tmp_path, kind):
    site.content, site.kind = b'\n<!DOCTYPE html><html>Quota exceeded</html>', kind
    with pytest.raises(UserError, match='a web page, not weights'):
        run(url=site.url)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize('content', [b'', b'{"error": 1}', b'PK\x03\x04 cut zip'])
def test_what_is_no_pytorch_file(site, run, tmp_path, content):
    site.content = content
    with pytest.raises(UserError, match='no PyTorch file|damaged'):
        run(url=site.url)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize('change', ['name', 'offset'])
def test_a_damaged_directory_of_a_zip(site, run, tmp_path, change):
    content = bytearray(torch_file(1))
    directory = content.rindex(b'PK\x01\x02')
    if change == 'name':  # the flag says UTF-8, and the name is none
        content[directory + 9] |= 8
        content[directory + 46] = 0xFF
    else:
        content[directory + 42 : directory + 46] = b'\xff\xff\xff\x7f'
    site.content = bytes(content)
    with pytest.raises(UserError, match='removed: it is damaged'):
        run(url=site.url)
    assert left_over(tmp_path) == []


def test_zip_without_a_pickle(site, run):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        archive.writestr('readme.txt', 'hello')
    site.content = buffer.getvalue()
    with pytest.raises(UserError, match='a zip, but no PyTorch file'):
        run(url=site.url)


def test_no_network_says_what_to_do_by_hand(run, tmp_path, monkeypatch):
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))  # bound, but nobody listens
        url = f'http://127.0.0.1:{closed.getsockname()[1]}/best.pt'
        with pytest.raises(UserError) as caught:
            run(url=url)
    target = tmp_path / 'x/weights/best.pt'
    assert 'no connection to 127.0.0.1' in str(caught.value)
    assert f'By hand: open {url} in a browser and save it as {target}' in str(caught.value)
    assert left_over(tmp_path) == []


def test_missing_file_and_bad_url(site, run):
    site.status = 404
    with pytest.raises(UserError, match='404'):
        run(url=site.url)
    with pytest.raises(UserError, match='Invalid URL'):
        run(url='nonsense')


def test_out_and_url(site, run, tmp_path):
    run('--url', site.url, '--out', tmp_path / 'mine.pt', url='http://nowhere.invalid/best.pt')
    assert (tmp_path / 'mine.pt').read_bytes() == site.content
    assert not (tmp_path / 'x').exists()
    with pytest.raises(UserError, match='is a folder'):
        run('--out', tmp_path, url=site.url)
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(UserError, match='cannot write'):
        run('--out', tmp_path / 'file/best.pt', url=site.url)


def test_licence_is_asked_for(site, run, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'stdin', types.SimpleNamespace(isatty=lambda: True))
    for answer in ('y', ''):
        monkeypatch.setattr('builtins.input', lambda _, answer=answer: answer)
        with pytest.raises(UserError, match='not accepted'):
            run(url=site.url, licence='AGPL-3.0', accept=True)
    assert capsys.readouterr().out.count('AGPL-3.0') == 2
    assert site.requests == []
    monkeypatch.setattr('builtins.input', lambda _: 'Yes')
    assert run(url=site.url, licence='AGPL-3.0', accept=True).exists()


def test_licence_without_a_terminal(site, run, monkeypatch):
    monkeypatch.setattr(sys, 'stdin', types.SimpleNamespace(isatty=lambda: False))
    with pytest.raises(UserError, match='--accept-licence'):
        run(url=site.url, accept=True)
    assert site.requests == []
    assert run('--accept-licence', url=site.url, accept=True).exists()


@pytest.mark.parametrize(
    ('paths', 'chosen'),
    [
        (['n.pt', 's.pt', 'l.pt', 'x.pt'], 'l.pt'),
        (['yolov5n/best.pt', 'yolov5l/best.pt'], 'yolov5l/best.pt'),
        (
            ['teacher/L/weights/best.pt', 'teacher/L/weights/last.pt', 'teacher/L/results.csv'],
            'teacher/L/weights/best.pt',
        ),
        (['icdar_5l_best.pt', 'icdar_5x_best.pt'], 'icdar_5l_best.pt'),
        (['ln_maskdiff/best.pt', 'xl.pt', 'l.yaml', 'YOLOv5L_icdar.pt'], 'YOLOv5L_icdar.pt'),
    ],
)
def test_choice_in_a_folder(paths, chosen):
    assert download.choose_file(paths, 'l') == chosen


@pytest.mark.parametrize('paths', [[], ['n.pt', 'l.txt'], ['l/a.pt', 'l/b.pt'], ['l/best.pt', 'old/l/best.pt']])
def test_doubtful_choice_lists_what_is_there(paths):
    with pytest.raises(download.FetchFailed) as caught:
        download.choose_file(paths, 'l')
    assert all(path in str(caught.value) for path in paths)
    assert '--url' in str(caught.value)


@pytest.fixture
def drive(monkeypatch):
    """Stand in for Google's answers below gdown's public calls."""
    import gdown

    files = {'id_n': ('n/best.pt', torch_file(3)), 'id_l': ('l/best.pt', torch_file(4))}
    entry = gdown.download.__globals__['GoogleDriveFileToDownload']

    def listing(url, skip_download, **_):
        assert url == 'https://drive.google.com/drive/folders/abc'
        assert skip_download
        return [entry(key, path, f'/anywhere/{path}') for key, (path, _) in files.items()]

    def one_file(url, output, **_):
        Path(output).write_bytes(files[url.rpartition('=')[2]][1])
        return output

    monkeypatch.setattr(gdown, 'download_folder', listing)
    monkeypatch.setattr(gdown, 'download', one_file)
    return files


def test_drive_folder(run, tmp_path, drive):
    folder = 'https://drive.google.com/drive/folders/abc'
    target = run(folder=folder, model='l')
    assert target.read_bytes() == drive['id_l'][1]
    assert left_over(tmp_path) == ['best.pt']
    with pytest.raises(
        UserError, match=r'no file there names the model x \(there are: l/best.pt, n/best.pt\).*By hand'
    ):
        run('--force', folder=folder, model='x')
    run('--force', '--url', 'https://drive.google.com/uc?id=id_n', folder=folder, model='x')
    assert target.read_bytes() == drive['id_n'][1]
    drive['id_l'] = ('l/best.pt', b'<html>quota</html>')
    with pytest.raises(UserError, match=f'a web page.*open {folder} in a browser and save the file of model l as'):
        run('--force', folder=folder, model='l')
    assert target.read_bytes() == drive['id_n'][1]


def test_drive_out_of_reach(run, monkeypatch):
    import gdown

    def refuse(**_):
        raise requests.ConnectionError('no route')

    monkeypatch.setattr(gdown, 'download_folder', refuse)
    with pytest.raises(UserError, match='cannot be listed: no connection to Google Drive. By hand: open https'):
        run(folder='https://drive.google.com/drive/folders/abc', model='l')


def test_gdown_is_called_with_options_it_has(monkeypatch, tmp_path):
    """The stand-ins above take any option: bind ours to the real signatures."""
    import inspect

    import gdown

    called = []
    for name in ('download', 'download_folder'):
        signature = inspect.signature(getattr(gdown, name))

        def check(*args, _signature=signature, **options):
            called.append(_signature.bind(*args, **options))
            return []

        monkeypatch.setattr(gdown, name, check)
    assert download.list_drive('https://drive.google.com/drive/folders/abc') == {}
    download.fetch_drive('https://drive.google.com/uc?id=abc', tmp_path / 'best.pt.drive')
    assert [bound.arguments['use_cookies'] for bound in called] == [False, False]


def test_real_manifest():
    manifest = download.load_manifest(ROOT / 'teacher/weights.yaml')
    assert list(manifest) == [f'{kind}-{model}' for kind in ('icdar', 'coco') for model in 'nsmlx']
    for name, entry in manifest.items():
        kind, model = name.split('-')
        if kind == 'icdar':
            assert (entry['model'], entry['target']) == (model, f'teacher/{model}/weights/best.pt')
            assert not entry.get('accept')
        else:
            assert entry['url'].endswith(f'/v7.0/yolov5{model}.pt')
            assert entry['target'] == f'teacher/coco/yolov5{model}.pt'
            assert entry['accept'] is True
            assert (entry['sha256'] is not None) == (model == 'n')
    table = download.describe(manifest)
    assert table.count('AGPL-3.0') == 5
    assert 'teacher/x/weights/best.pt' in table


@pytest.mark.skipif(not PUBLIC.is_file(), reason='the public yolov5n.pt is not here')
def test_public_weights_pass_the_check():
    entry = download.load_manifest(ROOT / 'teacher/weights.yaml')['coco-n']
    download.check_weights(PUBLIC, entry['size'], entry['sha256'])


def test_file_of_the_old_format_passes(tmp_path):
    import torch

    torch.save({'a': torch.zeros(3)}, tmp_path / 'old.pt', _use_new_zipfile_serialization=False)
    torch.save({'a': torch.zeros(3)}, tmp_path / 'new.pt')
    download.check_weights(tmp_path / 'old.pt', None, None)
    download.check_weights(tmp_path / 'new.pt', None, None)


def test_bad_manifests(tmp_path):
    file = tmp_path / 'manifest.yaml'
    good = {'licence': 'free', 'target': 'a.pt', 'url': 'http://127.0.0.1/a.pt'}
    for entry, message in (
        (good | {'sha265': None}, "did you mean 'sha256'"),
        ({key: good[key] for key in ('licence', 'target')}, 'needs a licence'),
        (good | {'folder': 'https://drive.google.com/x'}, 'no model'),
        ('a.pt', 'expected licence'),
    ):
        file.write_text(json.dumps({'one': entry}))
        with pytest.raises(UserError, match=message):
            download.load_manifest(file)


def download_here(*args) -> subprocess.CompletedProcess:
    return run_here('teacher/download.py', *args)


def test_command_line(tmp_path, site):
    assert download_here().returncode == 2
    assert download_here('coco-n', '--list').returncode == 2
    listed = download_here('--list')
    assert listed.returncode == 0
    assert 'coco-x' in listed.stdout
    wrong = download_here('coco-z')
    assert (wrong.returncode, wrong.stderr.count('\n')) == (1, 1)
    assert 'did you mean coco-' in wrong.stderr
    out = tmp_path / 'best.pt'
    refused = download_here(
        'coco-n', '--accept-licence', '--url', site.url, '--out', out
    )  # not the file of the manifest
    assert refused.returncode == 1
    assert 'expected 4062133' in refused.stderr
    assert refused.stderr.count('\n') == 1
    taken = download_here('icdar-l', '--url', site.url, '--out', out)
    assert taken.returncode == 0, taken.stderr
    assert out.read_bytes() == site.content
