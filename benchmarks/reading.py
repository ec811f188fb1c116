"""Reading words in photographs, end to end: ours with PP-OCRv6's recogniser beside RapidOCR whole and EasyOCR whole.

    python benchmarks/reading.py --data data/ICDAR.yaml --task test --programs ocrdistill rapidocr easyocr

The protocol is ICDAR2015's task 4.4, generic: a word counts where a detection overlaps it with IoU over 0.5, as in task
4.1, and says the same, in whatever case; a sign at the truth's begin and end may be missing. '###' are left out. A line
that a program reads is cut into words at its spaces. All programs read the same pictures in one process, one after the
other; the time is the wall's, of a picture with decoding, after a warm-up. RapidOCR and EasyOCR are installed by their
user, without their dependencies, which would replace this project's OpenCV: pip install --no-deps --target others
rapidocr==3.10.0 omegaconf antlr4-python3-runtime==4.9.3 colorlog six easyocr==1.7.2 scikit-image imageio lazy-loader
tifffile packaging pyclipper python-bidi, and PYTHONPATH=others. EasyOCR fetches its weights itself; without a network
they are craft_mlt_25k.pth and english_g2.pth of teacher/easyocr (docs/labelling.md) in MODULES/model, and
EASYOCR_MODULE_PATH=MODULES.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.errors import UserError
from utils.runtime.cli import positive, run_command

SIGNS = '\'!?.:,*"()·[]/'  # that may be missing at a truth's begin and end


class Reading(NamedTuple):
    """What a program read in one picture: quads (n, 4, 2) in pixels, texts, scores; in any order."""

    quads: np.ndarray
    texts: list[str]
    scores: np.ndarray


class Counts(NamedTuple):
    """correct: words found and read; read: those that count of what was read; words: those that count of the truth."""

    correct: int = 0
    read: int = 0
    words: int = 0

    def __add__(self, other: tuple) -> 'Counts':  # type: ignore[override]
        return Counts(*(mine + its for mine, its in zip(self, other, strict=True)))

    def scores(self) -> dict[str, float]:
        """Precision, recall, hmean, 0..1."""
        precision, recall = self.correct / max(self.read, 1), self.correct / max(self.words, 1)
        hmean = 2 * precision * recall / (precision + recall) if self.correct else 0.0
        return {'precision': precision, 'recall': recall, 'hmean': hmean}


def says_the_same(truth: str, read: str) -> bool:
    """Whether a text is the truth's, in whatever case; one sign at the truth's begin and one at its end may be
    missing."""
    truth, read = truth.upper(), read.upper()
    begins, ends = truth[:1] in SIGNS and bool(truth), truth[-1:] in SIGNS and bool(truth)
    forms = {truth}
    if begins:
        forms.add(truth[1:])
    if ends:
        forms.add(truth[:-1])
    if begins and ends:
        forms.add(truth[1:-1])
    return read in forms


def count(reading: Reading, quads: np.ndarray, words: list[str]) -> Counts:
    """One picture by the protocol.

    Args:
        reading: what was read.
        quads: (m, 4, 2) of the truth.
        words: m words of the truth, '###' of those that do not count.
    """
    from utils.evaluation.icdar import match_words
    from utils.loading.rows import DONT_CARE

    order = np.argsort(-reading.scores, kind='stable')
    found = np.rint(np.asarray(reading.quads, float).reshape(-1, 4, 2)[order]).astype(np.int64)
    dont_care = np.array([word == DONT_CARE for word in words], bool)
    answers, counts = match_words(found, quads, dont_care)
    texts = [reading.texts[number] for number in order]
    correct = sum(says_the_same(words[word], texts[answer]) for word, answer in enumerate(answers) if answer >= 0)
    return Counts(correct, int(counts.sum()), int((~dont_care).sum()))


def ocrdistill(size: str, model: str, recogniser: str) -> Callable[[Path], Reading]:
    from ocrdistill import TextReader

    reader = TextReader(recogniser, size=size, model=model)

    def read(file: Path) -> Reading:
        words = [word for word in reader(file) if word.text]
        scores = np.array([word.score * (word.text_score or 0) for word in words])
        return Reading(np.array([word.quad for word in words]).reshape(-1, 4, 2), [w.text or '' for w in words], scores)

    return read


def installed(package: str) -> Any:
    """A package that is compared with ours. Raises UserError where it is missing."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(f'{error}: pip install {package}') from None


def rapidocr() -> Callable[[Path], Reading]:
    """RapidOCR as its package has it."""
    from ocrdistill.network import import_onnxruntime

    import_onnxruntime()
    engine = installed('rapidocr').RapidOCR(params={'Global.log_level': 'critical'})

    def read(file: Path) -> Reading:
        found = engine(str(file))
        if found.txts is None:
            return Reading(np.zeros((0, 4, 2)), [], np.zeros(0))
        return Reading(np.array(found.boxes).reshape(-1, 4, 2), list(found.txts), np.array(found.scores))

    return read


def easyocr() -> Callable[[Path], Reading]:
    """EasyOCR as its package has it, for English."""
    engine = installed('easyocr').Reader(['en'], gpu=False, verbose=False)

    def read(file: Path) -> Reading:
        found = engine.readtext(str(file))
        quads = np.array([quad for quad, _, _ in found], float).reshape(-1, 4, 2)
        return Reading(quads, [text for _, text, _ in found], np.array([score for _, _, score in found]))

    return read


def split_by_spaces(reading: Reading) -> Reading:
    """Readings of several words cut into words: each takes the share of the quad that its letters have of the text.

    The truth has words; programs that find lines would have none of them right.
    """
    quads, texts, scores = [], [], []
    for quad, text, score in zip(reading.quads, reading.texts, reading.scores, strict=True):
        start = 0
        for part in text.split(' '):
            if part:
                low, high = start / len(text), (start + len(part)) / len(text)
                upper, lower = quad[1] - quad[0], quad[2] - quad[3]
                top = [quad[0] + share * upper for share in (low, high)]
                bottom = [quad[3] + share * lower for share in (high, low)]
                quads.append([*top, *bottom])
                texts.append(part)
                scores.append(score)
            start += len(part) + 1
    return Reading(np.array(quads).reshape(-1, 4, 2), texts, np.array(scores))


def timed(
    program: Callable[[Path], Any],
    files: list[Path],
    name: str,
    count: int | None = None,
    quick: Callable[[Path], Any] | None = None,
) -> Iterator[tuple[Any, Path, float]]:
    """What a program gives for each picture, the picture's ground truth file, and the seconds, after a warm-up.

    Args:
        count: pictures to time (default: all); of the others the seconds are NaN.
        quick: gives the same for the others by a shorter way.
    """
    from tqdm import tqdm

    from utils.loading.labels import companion_file

    program(files[0])  # loads what is loaded late
    for number, file in enumerate(tqdm(files, name, unit='picture', disable=None)):
        truth = companion_file(file, 'gt')
        if truth is None or not truth.is_file():
            raise UserError(f'there is no ICDAR ground truth of {file}')
        if count is not None and number >= count:
            yield (quick or program)(file), truth, float('nan')
            continue
        start = time.perf_counter()
        answer = program(file)
        yield answer, truth, time.perf_counter() - start


def measure(read: Callable[[Path], Reading], files: list[Path], name: str) -> dict[str, float]:
    """Scores over the pictures, and milliseconds a picture (median)."""
    from utils.evaluation.icdar import read_words

    total, times = Counts(), []
    for reading, truth, seconds in timed(read, files, name):
        times.append(seconds)
        total += count(split_by_spaces(reading), *read_words(truth))
    return total.scores() | {'milliseconds': 1000 * float(np.median(times)), **total._asdict()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='data/ICDAR.yaml', help='data yaml (default data/ICDAR.yaml)')
    parser.add_argument('--task', choices=('val', 'test'), default='val', help='(default val)')
    parser.add_argument('--programs', nargs='+', choices=('ocrdistill', 'rapidocr', 'easyocr'), default=['ocrdistill'])
    parser.add_argument('--size', default='balanced', help='of ocrdistill: fast, balanced or best (default balanced)')
    parser.add_argument('--model', default='n', help='of ocrdistill: n, s or a .onnx file (default n)')
    parser.add_argument(
        '--recogniser', choices=('rapidocr', 'tesseract'), default='rapidocr', help='of ocrdistill (default rapidocr)'
    )
    parser.add_argument('--limit', type=positive, metavar='N', help='read the first N pictures only')
    parser.add_argument('--out', type=Path, metavar='FILE', help='write the figures there, as JSON')
    options = parser.parse_args()

    from utils.loading.config import load_data_config
    from utils.loading.listing import list_images
    from utils.runtime.run_folder import make_folder, write_json

    files = list_images(load_data_config(options.data), options.task)[: options.limit]
    makers = {
        'ocrdistill': lambda: ocrdistill(options.size, options.model, options.recogniser),
        'rapidocr': rapidocr,
        'easyocr': easyocr,
    }
    if options.out:
        make_folder(options.out.parent)
    results = {}
    print('| program | precision | recall | hmean | ms a picture |\n|---|---|---|---|---|')
    for name in options.programs:  # a row when it is known: EasyOCR takes seconds a picture
        row = results[name] = measure(makers[name](), files, name)
        scores = ' | '.join(f'{row[key]:.3f}' for key in ('precision', 'recall', 'hmean'))
        print(f'| {name} | {scores} | {row["milliseconds"]:.0f} |', flush=True)
        if options.out:
            write_json(options.out, results)


if __name__ == '__main__':
    run_command(main)
