"""Sizes and angles of words, of rendered pictures and of a prepared data set beside them."""

from pathlib import Path

import numpy as np

from data.synthesis.geometry import quad_height
from data.synthesis.legibility import Word
from data.synthesis.settings import SPLITS
from models.errors import UserError
from utils.loading.labels import read_label_file
from utils.runtime.words import counted


def measure(word: Word) -> tuple[float, float, float, bool]:
    """Width, height (pixels), angle (degrees) and legibility of a word, for the summary."""
    x, y = word.quad[1] - word.quad[0]
    return float(np.hypot(x, y)), quad_height(word.quad), float(np.degrees(np.arctan2(y, x))), word.legible


def measure_labels(folder: Path, size: tuple[int, int]) -> list[tuple[float, float, float, bool]]:
    """The measures of all words of a prepared data set's training pictures, as if they had this size in pixels."""
    measures = []
    for tree, legible in (('labels', True), ('ignore', False)):
        for file in sorted((folder / tree / SPLITS['train']).glob('*.txt')):
            regions = read_label_file(file, nc=1).annotations.polygon_list(1, 1)
            measures += [measure(Word(quad * size, '', legible)) for quad in regions if len(quad) == 4]
    return measures


def summarise(images: int, measures: list[tuple[float, float, float, bool]]) -> str:
    """Lines that say how many pictures and words there are, and how large the words."""
    legible = np.array([row[:3] for row in measures if row[3]]).reshape(-1, 3)
    unread = counted(len(measures) - len(legible), "don't-care region")
    lines = [f'{counted(images, "picture")}, {counted(len(legible), "word")}, {unread}']
    if len(legible):
        lines.append('words, percentiles      5     25     50     75     95')
        for name, values in zip(('width (pixels)', 'height (pixels)', 'angle (degrees)'), legible.T, strict=True):
            lines.append(
                f'{name:<18}' + ''.join(f'{value:7.1f}' for value in np.percentile(values, [5, 25, 50, 75, 95]))
            )
    return '\n'.join(lines)


def compare_with(folder: Path, size: tuple[int, int]) -> str:
    """The summary of a prepared data set's training pictures, as if they had this size. Raises UserError."""
    images = len(list((folder / 'labels' / SPLITS['train']).glob('*.txt')))
    if not images:
        raise UserError(f'--compare: no labels in {folder / "labels" / SPLITS["train"]}')
    return summarise(images, measure_labels(folder, size))
