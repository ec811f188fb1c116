"""Reading the sizes and the labels of all images of a split before any is loaded."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from ocrdistill.images import pages
from utils.loading.images import probe_image
from utils.loading.labels import Annotations, find_companion, read_label_file
from utils.runtime.cores import usual_workers
from utils.runtime.words import counted

NAMED = 5  # messages of a kind that a summary shows
THREADS = usual_workers()


@dataclass
class Scanned:
    """What is known of an image before it is loaded.

    Attributes:
        size: (width, height), None if it cannot be read.
        problem: why it is left out, '' if it is not.
        annotations: targets and don't-care regions, 0..1.
        bad_rows: messages for label rows that were skipped.
        notes: messages for what was read, but may not be what was meant.
        labelled: it has a label file.
    """

    size: tuple[int, int] | None = None
    problem: str = ''
    annotations: Annotations = field(default_factory=lambda: Annotations.build([], []))
    bad_rows: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    labelled: bool = False


def measure(file: Path) -> Scanned:
    """The size of an image, or what is wrong with it."""
    try:
        if not os.path.exists(file):
            return Scanned(problem=f'{file}: missing')
        scanned = Scanned(probe_image(file))
        if (count := len(pages(file))) > 1:
            scanned.notes = [f'{file}: the first of its {count} pages is used']
        return scanned
    except Exception as error:  # noqa: BLE001  decoders raise anything from SyntaxError to struct.error
        return Scanned(problem=f'{file}: broken ({error})')


def examine(image: Path, nc: int, dont_care: str) -> Scanned:
    """The size of an image and its annotations. A label file with rows of which none can be used is a problem: without
    it the image would count as one without text."""
    scanned = measure(image)
    parts = [scanned.annotations]
    for kind in ('labels', 'ignore') if scanned.size else ():
        file = find_companion(image, kind)
        if file is None:
            continue
        labels = read_label_file(file, nc, dont_care=kind == 'ignore' and dont_care == 'ignore')
        if labels.problem:
            return Scanned(scanned.size, f'{file}: {labels.problem}', labelled=True)
        parts.append(labels.annotations)
        scanned.bad_rows += labels.skipped
        scanned.notes += labels.notes
        scanned.labelled |= kind == 'labels' or dont_care == 'text'
    scanned.annotations = Annotations.concatenate(parts)
    return scanned


def map_threaded(function: Callable, items: Sequence, title: str) -> list:
    """What a function gives for each item, several at once, with a progress bar."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(tqdm(pool.map(function, items), title, len(items), leave=False, delay=2))


def describe(found: list[Scanned]) -> list[str]:
    """What was skipped and what is worth a look, a line for each kind, with counts and the first messages."""
    usable = [scanned for scanned in found if not scanned.problem]
    kinds = {
        ('skipped ', 'broken or missing picture', ''): [each.problem for each in found if each.size is None],
        ('skipped ', 'picture', ' whose labels cannot be read'): [
            each.problem for each in found if each.problem and each.size
        ],
        ('skipped ', 'bad label row', ''): [message for each in usable for message in each.bad_rows],
        ('', 'remark', ''): [message for each in usable for message in each.notes],
    }
    lines = []
    for (before, noun, after), messages in kinds.items():
        more = [f'... and {len(messages) - NAMED} more'] if len(messages) > NAMED else []
        if messages:
            title = f'{before}{counted(len(messages), noun)}{after}'
            lines.append(f'{title}: ' + '; '.join(messages[:NAMED] + more))
    return lines
