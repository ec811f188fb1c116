"""Programs that read words: RapidOCR's network, and Tesseract.

A recogniser takes a list of crops (h, w, 3) uint8 RGB, level, one word each, and returns (text, score 0..1) of each.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ocrdistill.errors import UserError
from ocrdistill.network import import_onnxruntime

Crops = list[np.ndarray]
Texts = list[tuple[str, float]]
Recogniser = Callable[[Crops], Texts]
UPRIGHT = 1.5  # times as high as wide: a word that runs up or down, or one narrow letter
BATCH = 8  # crops of similar width in RapidOCR's network at a time
LEAST = 32  # pixels of a crop's height for Tesseract, which is made for print of some 300 dots per inch


def make_recogniser(name: str, language: str | None = None, threads: int | None = None) -> Recogniser:
    """A recogniser by its name, 'rapidocr' or 'tesseract'. Raises UserError: no such one, it is not installed, or it
    takes no language."""
    if name == 'rapidocr':
        if language:
            raise UserError(f'language: {language!r} is for tesseract; rapidocr reads its scripts without being told')
        return RapidRecogniser(threads)
    if name == 'tesseract':
        return TesseractRecogniser(language or 'eng', threads)
    raise UserError(f"recogniser: {name!r}, expected 'rapidocr' or 'tesseract'")


class RapidRecogniser:
    """The recogniser in RapidOCR's package: PP-OCRv6 small, Apache-2.0, Latin and Chinese scripts and others.

    Crops that are high and narrow are read as they are and in both quarter turns, and the surest text counts.

    Args:
        threads: of the processor; None: all cores.

    Raises:
        UserError: rapidocr is not installed.
    """

    def __init__(self, threads: int | None = None) -> None:
        import_onnxruntime()  # before rapidocr does: without its count of uses
        try:
            from rapidocr import RapidOCR
        except ModuleNotFoundError as error:
            if error.name != 'rapidocr':
                raise
            raise UserError("reading needs the package rapidocr: pip install 'rapidocr>=3.10'") from None
        options = {'Global.log_level': 'critical', 'Rec.rec_batch_num': BATCH}
        if threads:
            options['EngineConfig.onnxruntime.intra_op_num_threads'] = threads
        self._engine: Any = RapidOCR(params=options)

    def __call__(self, crops: Crops) -> Texts:
        views = [view for crop in crops for view in turns(crop)]
        if not views:
            return []
        found = self._engine.recognize_txt([np.ascontiguousarray(view[..., ::-1]) for view in views])  # BGR
        return surest(crops, [(str(text), float(score)) for text, score in zip(found.txts, found.scores, strict=True)])


class TesseractRecogniser:
    """The program tesseract, for each word in a list of files.

    Args:
        language: of its trained data, such as 'eng' or 'deu+fra'.
        threads: of the processor; None: as it likes.

    Raises:
        UserError: there is no such program, or it has no data of the language.
    """

    def __init__(self, language: str = 'eng', threads: int | None = None):
        self.environment = os.environ | ({'OMP_THREAD_LIMIT': str(threads)} if threads else {})
        program = shutil.which('tesseract')
        if program is None:
            raise UserError('there is no program tesseract here: install it, or read with rapidocr')
        self.program, self.language = program, language
        known = self._run('--list-langs').split()
        missing = [name for name in language.split('+') if name not in known]
        if missing:
            raise UserError(f'tesseract has no data of the language {missing[0]}')

    def __call__(self, crops: Crops) -> Texts:
        views = [view for crop in crops for view in turns(crop)]
        if not views:
            return []
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f'{number}.png' for number in range(len(views))]
            for view, file in zip(views, files, strict=True):
                _enlarged(view).save(file)
            names = Path(folder) / 'names.txt'
            names.write_text(''.join(f'{file}\n' for file in files), encoding='utf-8')
            # One word an image (8), as a table with confidences.
            table = self._run(str(names), 'stdout', '-l', self.language, '--psm', '8', 'tsv')
        return surest(crops, parse_tsv(table, len(views)))

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.program, *arguments],
            capture_output=True,
            text=True,
            encoding='utf-8',
            check=False,
            env=self.environment,
        )
        if done.returncode:
            line = (done.stderr.strip() or f'status {done.returncode}').splitlines()[-1]
            raise UserError(f'tesseract failed: {line}')
        return done.stdout


def parse_tsv(table: str, count: int) -> Texts:
    """Text and score of each of `count` pages of Tesseract's table, ('', 0.0) of those without words."""
    words: dict[int, list[tuple[str, float]]] = {}
    header, *rows = table.splitlines() or ['']
    columns = {name: number for number, name in enumerate(header.split('\t'))}
    for row in rows:
        cells = row.split('\t')
        if len(cells) == len(columns) and float(cells[columns['conf']]) >= 0 and cells[columns['text']].strip():
            page = int(cells[columns['page_num']])
            words.setdefault(page, []).append((cells[columns['text']], float(cells[columns['conf']]) / 100))
    pages = [words.get(page, []) for page in range(1, count + 1)]
    return [(''.join(text for text, _ in page), min((score for _, score in page), default=0.0)) for page in pages]


def turns(crop: np.ndarray) -> Crops:
    """A crop; one that is high and narrow in both quarter turns, too."""
    if crop.shape[0] < UPRIGHT * crop.shape[1]:
        return [crop]
    return [crop, np.rot90(crop), np.rot90(crop, -1)]


def surest(crops: Crops, read: Texts) -> Texts:
    """Of what was read of the turns of all crops the surest for each crop."""
    views = iter(read)
    return [max((next(views) for _ in turns(crop)), key=lambda pair: pair[1]) for crop in crops]


def _enlarged(crop: np.ndarray) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(crop))
    factor = max(1.0, LEAST / image.height)
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
