"""Reading the sizes and the labels of all images of a split before any is loaded."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from utils.loading.images import probe_image
from utils.loading.labels import Annotations, companion_file, read_labels

NAMED = 5  # skipped files and rows that a summary names
THREADS = min(8, os.cpu_count() or 1)


def measure(file: Path) -> tuple[tuple[int, int] | None, str]:
    """((width, height), '') of a picture, or None and what is wrong with it."""
    try:
        return probe_image(file), ''
    except FileNotFoundError:
        return None, f'{file}: missing'
    except Exception as error:  # noqa: BLE001  decoders raise anything from SyntaxError to struct.error
        return None, f'{file}: broken ({error})'


def map_files(examine: Callable, files: list[Path], title: str) -> list:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(tqdm(pool.map(examine, files), title, len(files), leave=False, delay=2))


def skipped_lines(what: str, messages: list[str]) -> list[str]:
    """A line that says what was skipped, if anything was."""
    if not messages:
        return []
    more = [f'... and {len(messages) - NAMED} more'] if len(messages) > NAMED else []
    return [f'skipped {len(messages)} {what}: ' + '; '.join(messages[:NAMED] + more)]


def read_annotations(image: Path, nc: int, dont_care: str) -> tuple[Annotations, list[str], bool]:
    """Targets and don't-care regions (0..1) of a picture, messages of skipped rows, whether it has a label file."""
    parts, skipped, labelled = [Annotations.build([], [])], [], False
    for kind in ('labels', 'ignore'):
        file = companion_file(image, kind)
        if file is None or not file.is_file():
            continue
        annotations, messages = read_labels(file, nc, dont_care=kind == 'ignore' and dont_care == 'ignore')
        parts.append(annotations)
        skipped += messages
        labelled |= kind == 'labels' or dont_care == 'text'
    return Annotations.concatenate(parts), skipped, labelled
