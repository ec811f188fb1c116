"""What a person reads of a training while it runs."""

import math

import numpy as np


def epoch_line(rows: list[dict], epochs: int) -> str:
    """The last of the rows of results.csv in a line: weighted terms, scores, and how long it will take still."""
    row = rows[-1]
    left = (epochs - row['epoch'] - 1) * np.median([r['seconds'] for r in rows])
    terms = ' '.join(f'{k[9:]} {v:.4f}' for k, v in row.items() if k.startswith('weighted/'))
    scores = f'mAP50 {row["val/map50"]:.4f} mAP50-95 {row["val/map50_95"]:.4f}'
    if math.isnan(row['val/map50']):
        scores = 'not validated'
    pace = f'{row["seconds"]:.0f} s an epoch, {duration(left)} left'
    return f'epoch {row["epoch"] + 1}/{epochs}: {terms} | {scores} | {pace}'


def duration(seconds: float) -> str:
    """3725 -> '1 h 2 min', 59 -> '59 s'."""
    if seconds < 120:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 60 else f'{minutes // 60} h {minutes % 60} min'
