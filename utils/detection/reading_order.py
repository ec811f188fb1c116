"""The order in which people read words that lie in a picture: lines top to bottom, words left to right.

1. Two words are on one line if they share at least half of the lower one's height and neither is over three times as
   high as the other. A line grows from word to word: each is linked with its nearest neighbour to the right that is on
   its line, if it is that one's nearest to the left. So a line may climb or fall, as long as neighbours still overlap.
2. A line comes before another if more of its words stand above the other's words, counting pairs that overlap
   sideways. Of the lines that nothing stands above any more the one that begins highest is next.
3. A gap of at least two line heights that runs past two or more lines with words on both sides is a gutter between
   columns: all that is left of it is read first. A wide gap in one line alone means nothing.

The rule knows boxes alone. It is meant for horizontal text that runs from left to right, tilted by a few degrees at
most. A table of short cells with wide gaps looks like columns, and is read column by column.
"""

import numpy as np

SHARED_HEIGHT = 0.5  # of the lower word, in words of one line
HEIGHT_RATIO = 3.0  # of the words of one line at most
GUTTER = 2.0  # line heights: the narrowest gap between columns, and the greatest between a column's lines

Line = list[int]  # rows of the boxes, left to right


def reading_order(boxes: np.ndarray) -> list[list[int]]:
    """Put words into lines, and the lines in the order in which they are read.

    Args:
        boxes: (n, 4) x1, y1, x2, y2 in any unit, y downwards.

    Returns:
        The lines, each the indices of its words from left to right; every index is there once. The order in which
        the boxes came does not matter, nor do their unit and origin.
    """
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    canonical = np.lexsort(boxes.T[::-1])  # ties are settled by the boxes, never by the order in which they came
    boxes = boxes[canonical]
    lines = _split_columns(_sort_lines(_chain_words(boxes), boxes), boxes)
    return [canonical[line].tolist() for line in lines]


def _chain_words(boxes: np.ndarray) -> list[Line]:
    """Rule 1: lines in any order."""
    x1, y1, x2, y2 = boxes.T
    height, centre = y2 - y1, (x1 + x2) / 2
    shared = np.minimum.outer(y2, y2) - np.maximum.outer(y1, y1)  # (n, n)
    low, high = np.minimum.outer(height, height), np.maximum.outer(height, height)
    on_line = (shared >= SHARED_HEIGHT * low) & (high <= HEIGHT_RATIO * low)
    gap = np.where(on_line & np.less.outer(centre, centre), x1[None] - x2[:, None], np.inf)  # from row to column

    follower = {}
    for word in range(len(boxes)):
        right = int(gap[word].argmin())
        if np.isfinite(gap[word, right]) and gap[:, right].argmin() == word:
            follower[word] = right
    lines = []
    for word in sorted(set(range(len(boxes))) - set(follower.values())):  # those that begin a line
        line = [word]
        while line[-1] in follower:
            line.append(follower[line[-1]])
        lines.append(line)
    return lines


def _sort_lines(lines: list[Line], boxes: np.ndarray) -> list[Line]:
    """Rule 2: lines from top to bottom."""
    x1, y1, x2, y2 = boxes.T
    middle = (y1 + y2) / 2
    beside = np.minimum.outer(x2, x2) > np.maximum.outer(x1, x1)
    above = (beside & np.less.outer(middle, middle)).astype(int)  # (n, n): the row's word is above the column's
    member = np.zeros((len(lines), len(boxes)), int)
    for number, line in enumerate(lines):
        member[number, line] = 1
    pairs = member @ above @ member.T  # (lines, lines)
    before = pairs > pairs.T
    top = [y1[line].mean() for line in lines]

    result, left = [], list(range(len(lines)))
    while left:
        free = [line for line in left if not before[left, line].any()] or left  # all: they go round in a circle
        highest = min(free, key=lambda line: (top[line], x1[lines[line][0]]))
        result.append(lines[highest])
        left.remove(highest)
    return result


def _split_columns(lines: list[Line], boxes: np.ndarray) -> list[Line]:
    """Rule 3: sorted lines, those that run through gutters cut there and read column by column."""
    result, start = [], 0
    while start < len(lines):
        rest = lines[start:]
        count, gutter = max((_follow_gutter(rest, gap, boxes) for gap in _wide_gaps(rest[0], boxes)), default=(1, None))
        if gutter is None:
            result.append(rest[0])
        else:
            centre = boxes[:, [0, 2]].mean(1)
            for side in (centre < gutter, centre >= gutter):
                parts = [[word for word in line if side[word]] for line in rest[:count]]
                result += _split_columns([part for part in parts if part], boxes)
        start += count
    return result


def _line_height(line: Line, boxes: np.ndarray) -> float:
    return float(np.median(boxes[line, 3] - boxes[line, 1]))


def _wide_gaps(line: Line, boxes: np.ndarray) -> list[tuple[float, float]]:
    """(left, right) of the gaps in a line that could be gutters."""
    ends = np.maximum.accumulate(boxes[line, 2])[:-1]
    starts = boxes[line, 0][1:]
    wide = starts - ends >= GUTTER * _line_height(line, boxes)
    return list(zip(ends[wide].tolist(), starts[wide].tolist(), strict=True))


def _follow_gutter(lines: list[Line], gap: tuple[float, float], boxes: np.ndarray) -> tuple[int, float | None]:
    """How many lines from the first on leave its gap free, and the middle of what stays free.

    The middle is None, and the count 1, unless two of the lines have words on both sides.
    """
    left, right = gap
    bottom, count, two_sided = boxes[lines[0], 3].max(), 1, 1
    for line in lines[1:]:
        height, middle = _line_height(line, boxes), (left + right) / 2
        before = boxes[line, 0] + boxes[line, 2] < 2 * middle
        end = max([left, *boxes[line, 2][before]])
        start = min([right, *boxes[line, 0][~before]])
        if start - end < GUTTER * height or boxes[line, 1].min() - bottom > GUTTER * height:
            break
        left, right, bottom = end, start, max(bottom, boxes[line, 3].max())
        count += 1
        two_sided += bool(before.any() and (~before).any())
    return (count, float((left + right) / 2)) if two_sided > 1 else (1, None)
