"""Fetch a teacher, or public weights to start one from.

    python teacher/download.py --list
    python teacher/download.py icdar-l                     -> teacher/l/weights/best.pt
    python teacher/download.py coco-n --accept-licence     -> teacher/coco/yolov5n.pt

What can be fetched stands in teacher/weights.yaml. A download that was cut goes on where it stopped; a file gets its
final name only when it is whole and has been checked.
"""

import argparse
import json
import os
import re
import sys
import zipfile
import zlib
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.errors import UserError
from models.yamls import read_yaml
from utils.loading.files import file_sha256
from utils.runtime.cli import run_command
from utils.runtime.hyp import check_keys

ROOT = Path(__file__).resolve().parents[1]
KEYS = ('licence', 'accept', 'folder', 'model', 'url', 'size', 'sha256', 'target')
KINDS = {int: 'a whole number', bool: 'true or false', str: 'text'}
TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of an answer
CHUNK = 1 << 16  # bytes; what came of a chunk is lost when the connection is cut within it


class FetchFailed(Exception):
    """The file could not be had; the message says why."""


def load_manifest(file: Path) -> dict[str, dict]:
    """Return {name: entry} of a manifest. Raises UserError for unknown keys and for entries without a source."""
    manifest = read_yaml(file)
    for name, entry in manifest.items():
        if not isinstance(entry, dict) or not isinstance(name, str):
            raise UserError(f'{file}: {name} is {entry!r}, expected licence, target and url or folder')
        check_keys(entry, KEYS, f'{file}, {name}')
        if not entry.get('target') or not entry.get('licence') or not (entry.get('url') or entry.get('folder')):
            raise UserError(f'{file}: {name} needs a licence, a target and a url or folder')
        for key, value in entry.items():
            kind = {'size': int, 'accept': bool}.get(key, str)
            if value is not None and type(value) is not kind:
                raise UserError(f'{file}: {key} of {name} is {value!r}, expected {KINDS[kind]}')
        target = PurePosixPath(entry['target'])
        if target.is_absolute() or '..' in target.parts or '\0' in str(target):
            raise UserError(f'{file}: the target of {name} is {target}, expected a place in this folder')
        if entry.get('folder') and not entry.get('model'):
            raise UserError(f'{file}: {name} has a folder, but no model to look for in it')
    return manifest


def describe(manifest: dict[str, dict]) -> str:
    """Return the table that --list prints."""
    lines = []
    for name, entry in manifest.items():
        size = f'{entry["size"] / 1e6:.1f} MB' if entry.get('size') else 'size not known'
        there = ', there' if (ROOT / entry['target']).is_file() else ''
        lines.append(f'{name:8} -> {entry["target"]} ({size}{there}); licence: {entry["licence"]}')
    return '\n'.join(lines)


def confirm_licence(name: str, licence: str, accepted: bool) -> None:
    """Show the licence and ask for a yes, unless --accept-licence said so. Raises UserError without one."""
    print(f'{name} is published under this licence: {licence}')
    if accepted:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise UserError(f'{name}: read the licence and pass --accept-licence to agree to it')
    try:
        answer = input('Do you accept it? Type yes to go on: ')
    except EOFError:
        answer = ''
    if answer.strip().lower() != 'yes':
        raise UserError(f'{name}: the licence was not accepted, nothing was downloaded')


def check_weights(path: Path, size: int | None, sha256: str | None) -> None:
    """Raise FetchFailed unless the file is a whole PyTorch file, of this size and hash where given. Runs none of it."""
    with path.open('rb') as stream:
        head = stream.read(512)
    if head.lstrip(b'\xef\xbb\xbf \t\r\n').startswith(b'<'):
        raise FetchFailed('it is a web page, not weights (a login or quota page?)')
    if size and path.stat().st_size != size:
        raise FetchFailed(f'it has {path.stat().st_size} bytes, expected {size}')
    if head.startswith(b'PK\x03\x04'):
        try:
            with zipfile.ZipFile(path) as archive:
                # Checksums of all entries: what was put together from two versions of a file shows here.
                damaged = archive.testzip()
                pickled = any(PurePosixPath(entry).name == 'data.pkl' for entry in archive.namelist())
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError) as error:
            raise FetchFailed(f'it is damaged ({error})') from error
        if damaged or not pickled:
            raise FetchFailed(f'it is damaged ({damaged})' if damaged else 'it is a zip, but no PyTorch file')
    elif not re.match(rb'\x80[\x02-\x05]', head):  # a pickle, as PyTorch before 1.6 wrote
        raise FetchFailed('it is no PyTorch file')
    if sha256 and (found := file_sha256(path)) != sha256.lower():
        raise FetchFailed(f'its sha256 is {found}, expected {sha256}')


def explain(error: Exception, host: str) -> str:
    """Return a network error in a few words."""
    if isinstance(error, requests.exceptions.SSLError):
        return f'no safe connection to {host} ({error})'
    if isinstance(error, requests.Timeout):
        return f'{host} does not answer'
    if isinstance(error, requests.ConnectionError):
        return f'no connection to {host}'
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f'{host} cut the connection'
    return str(error)


def identify(response: requests.Response, url: str) -> dict:
    """Return what tells one version of a remote file from another: url, ETag, Last-Modified and the whole size."""
    if response.status_code == requests.codes.partial_content:
        total = response.headers.get('Content-Range', '').rpartition('/')[2]
    else:
        total = response.headers.get('Content-Length', '')
    return {
        'url': url,
        'etag': response.headers.get('ETag'),
        'modified': response.headers.get('Last-Modified'),
        'size': int(total) if total.isdecimal() else None,
    }


def ask(url: str, start: int = 0) -> requests.Response:
    """Send one GET for the bytes from `start` on, and return the answer with its body unread."""
    headers = {'Accept-Encoding': 'identity'}  # byte offsets must be those of the file
    if start:
        headers['Range'] = f'bytes={start}-'
    return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)


def open_rest(url: str, part: Path, note: Path) -> tuple[requests.Response, int]:
    """Ask for what `part` lacks: (answer, number of bytes of `part` to keep).

    0 to keep where nothing is there, or where the server has another version by now or knows no ranges.
    """
    try:
        known, kept = json.loads(note.read_text(encoding='utf-8')), part.stat().st_size
    except (OSError, ValueError):
        known, kept = {}, 0
    if kept and known.get('url') == url and known.get('size'):
        response = ask(url, kept)
        starts_there = response.headers.get('Content-Range', '').startswith(f'bytes {kept}-')
        if response.status_code == requests.codes.partial_content:
            if starts_there and identify(response, url) == known:
                return response, kept
        elif response.status_code == requests.codes.ok:
            return response, 0
        response.close()
    return ask(url), 0


def fetch_http(url: str, part: Path) -> None:
    """Download `url` to `part`, going on where an earlier call was cut. Raises FetchFailed; what came is kept."""
    note = part.with_name(f'{part.name}.json')  # which version of the file the bytes in `part` belong to
    done, size, cut = 0, None, False
    try:
        response, done = open_rest(url, part, note)
        with response:
            if response.status_code not in (requests.codes.ok, requests.codes.partial_content):
                raise FetchFailed(f'the server answered {response.status_code} {response.reason}')
            if response.headers.get('Content-Type', '').startswith('text/html'):
                raise FetchFailed('the server sent a web page, not weights (a login or quota page?)')
            version = identify(response, url)
            size = version['size']
            with (
                part.open('ab' if done else 'wb') as stream,
                tqdm(total=size, initial=done, unit='B', unit_scale=True, desc=part.stem, disable=None) as bar,
            ):
                note.write_text(json.dumps(version), encoding='utf-8')
                for chunk in response.iter_content(CHUNK):
                    stream.write(chunk)
                    done += len(chunk)
                    bar.update(len(chunk))
    except requests.RequestException as error:
        if not done:
            raise FetchFailed(explain(error, urlsplit(url).netloc)) from error
        cut = True
    if cut or size not in (None, done):
        raise FetchFailed(f'cut after {done} of {size or "?"} bytes; run the command again to go on')


def drive_package():
    """Import gdown, which knows Google Drive's pages. Raises UserError where it is not installed."""
    try:
        import gdown
        import gdown.exceptions
    except ImportError as error:
        raise UserError('Google Drive needs the package gdown: pip install -r requirements.txt') from error
    return gdown


def list_drive(folder: str) -> dict[str, str]:
    """Return {path below the folder: file id} of a public Google Drive folder. Raises FetchFailed."""
    gdown = drive_package()
    try:
        files = gdown.download_folder(url=folder, skip_download=True, quiet=True, use_cookies=False, timeout=TIMEOUT)
    except (requests.RequestException, gdown.exceptions.DownloadError) as error:
        raise FetchFailed(f'the folder cannot be listed: {explain(error, "Google Drive")}') from error
    return {file.path.replace('\\', '/'): file.id for file in files}


def choose_file(paths: list[str], model: str) -> str:
    """Return the one *.pt path that names the model, in a folder or in the file's stem: l, 5l, v5l or yolov5l.

    Of several, best.pt is taken over last.pt and the like. Raises FetchFailed listing what is there when none, or
    more than one, is left.
    """
    word = re.compile(rf'(yolo)?(v?5)?{re.escape(model)}', re.IGNORECASE)
    candidates = []
    for path in paths:
        plain = PurePosixPath(path)
        words = re.split(r'[^a-zA-Z0-9]+', str(plain.with_suffix('')))
        if plain.suffix.lower() == '.pt' and any(map(word.fullmatch, words)):
            candidates.append(path)
    best = [path for path in candidates if re.search(r'(?<![a-z])best(?![a-z])', PurePosixPath(path).stem.lower())]
    chosen = best if len(candidates) > 1 and best else candidates
    if len(chosen) != 1:
        problem = 'more than one file there names' if chosen else 'no file there names'
        raise FetchFailed(
            f'{problem} the model {model} (there are: {", ".join(sorted(paths)) or "no files"}); '
            "pass the right one's link with --url"
        )
    return chosen[0]


def fetch_drive(url: str, part: Path) -> None:
    """Download a Google Drive file to `part`; gdown resumes its own partial file beside it. Raises FetchFailed."""
    gdown = drive_package()
    try:
        gdown.download(url, output=str(part), resume=True, use_cookies=False, timeout=TIMEOUT, retries=2)
    except (requests.RequestException, gdown.exceptions.DownloadError) as error:
        raise FetchFailed(explain(error, 'Google Drive')) from error


def fetch(entry: dict, target: Path, url: str | None) -> None:
    """Download an entry of the manifest, from `url` where given, check it and give it its final name.

    Raises: FetchFailed. Nothing is left under the final name then; what fails the check is removed.
    """
    if not url:
        url = entry.get('url')
    if not url:
        files = list_drive(entry['folder'])
        chosen = choose_file(list(files), entry['model'])
        print(f'{chosen} in {entry["folder"]}')
        url = f'https://drive.google.com/uc?id={files[chosen]}'
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        host = urlsplit(url).hostname
    except ValueError as error:
        raise FetchFailed(f'{url} is no address ({error})') from None
    if host in ('drive.google.com', 'docs.google.com'):
        # Its own name: gdown takes a file that is there for a whole one.
        part, get = target.with_name(f'{target.name}.drive'), fetch_drive
    else:
        part, get = target.with_name(f'{target.name}.part'), fetch_http
    get(url, part)
    try:
        check_weights(part, entry.get('size'), entry.get('sha256'))
    except FetchFailed as error:
        part.unlink()
        raise FetchFailed(f'what came from {url} was removed: {error}') from error
    finally:
        part.with_name(f'{part.name}.json').unlink(missing_ok=True)
    os.replace(part, target)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Fetch teachers and public weights.')
    parser.add_argument('name', nargs='?', help='what to fetch, see --list')
    parser.add_argument('--list', action='store_true', help='show all names with licence and place, and end')
    parser.add_argument('--out', type=Path, help="file to write (default: the manifest's target)")
    parser.add_argument('--url', help='fetch from here instead, a mirror or a Google Drive file; checked all the same')
    parser.add_argument('--force', action='store_true', help='replace a file that is there already')
    parser.add_argument('--accept-licence', action='store_true', help='agree to the licence without being asked')
    parser.add_argument(
        '--manifest',
        type=Path,
        default=ROOT / 'teacher/weights.yaml',
        help='list of weights (default: teacher/weights.yaml)',
    )
    opt = parser.parse_args()
    if bool(opt.name) == opt.list:
        parser.error('give the name of what to fetch, or --list')
    return opt


def main() -> None:
    opt = parse_options()
    manifest = load_manifest(opt.manifest)
    if opt.list:
        print(describe(manifest))
        return
    if opt.name not in manifest:
        near = get_close_matches(opt.name, manifest, n=1)
        raise UserError(f'no weights named {opt.name}' + (f', did you mean {near[0]}?' if near else '; see --list'))
    entry = manifest[opt.name]
    target = opt.out or ROOT / entry['target']
    if target.is_dir():
        raise UserError(f'{target} is a folder: --out names the file to write')
    if target.exists() and not opt.force:
        print(f'{target} is already there (--force fetches it anew)')
        return
    if entry.get('accept'):
        confirm_licence(opt.name, entry['licence'], opt.accept_licence)
    else:
        print(f'licence of {opt.name}: {entry["licence"]}')
    try:
        fetch(entry, target, opt.url)
    except FetchFailed as error:
        page = opt.url or entry.get('url')
        wanted = 'it' if page else f'the file of model {entry["model"]}'
        by_hand = f'open {page or entry["folder"]} in a browser and save {wanted} as {target}'
        raise UserError(f'{opt.name}: {error}. By hand: {by_hand}') from error
    except OSError as error:
        raise UserError(f'cannot write {target}: {error}') from error
    print(f'{opt.name} -> {target} ({target.stat().st_size} bytes)')


if __name__ == '__main__':
    run_command(main)
