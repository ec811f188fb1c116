"""The order in which people read words that lie in an image: lines top to bottom, words left to right.

1. A page that is tilted is levelled first, by the median slope from a word to its neighbour, where there are enough
   neighbours that it is no chance.
2. Two words are on one line if they share at least half of the lower one's height and neither is over three times as
   high as the other. A line grows from word to word: the pairs of neighbours that are nearest to each other are linked
   first, and a step up or down counts more than a gap. So a line may climb or fall, as long as neighbours overlap.
3. A box that lies across two words, one above the other, is no word of either line: it stands alone, after the upper.
4. A line comes before another if more of its words stand above the other's words, counting pairs that overlap
   sideways. Of the lines that nothing stands above any more the one that begins highest is next.
5. A gap of at least two line heights that has two or more lines, or parts of lines, on each side is a gutter between
   columns: all that is left of it is read first. A wide gap in one line alone means nothing.

The rules know boxes alone. They are meant for horizontal text that runs from left to right, tilted by a few degrees at
most. A table of short cells with wide gaps looks like columns, and is read column by column.
"""

import numpy as np

SHARED_HEIGHT = 0.5  # of the lower word, in words of one line
HEIGHT_RATIO = 3.0  # of the words of one line at most
STEP_COST = 3.0  # how many pixels of gap a pixel up or down is worth, where two words could follow
GUTTER = 2.0  # line heights: the narrowest gap between columns, and the greatest between a column's lines
MIN_SLOPES = 5  # a page is levelled by so many or more
MIN_SLOPE, MAX_SLOPE = 0.01, 0.2  # what is less is level, what is more is no page's tilt
MIN_LEVELLED = 0.4  # of a box's height: what levelling leaves of it at least

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
    boxes = _level(_level(boxes[canonical]))  # neighbours, and so the slope, are surer the second time
    astride = _find_astride(boxes)  # {box: the upper of the two words that it lies across}
    words = np.array([word for word in range(len(boxes)) if word not in astride], int)
    lines = _split_columns(_sort_lines(_chain_words(boxes[words]), boxes[words]), boxes[words])
    result: list[Line] = []
    alone = sorted(astride)
    for line in lines:
        line = words[line].tolist()  # noqa: PLW2901
        result += [line, *([box] for box in alone if astride[box] in line)]
    return [canonical[line].tolist() for line in result]


def _level(boxes: np.ndarray) -> np.ndarray:
    """Rule 1: the boxes (n, 4) turned back by the tilt of their page about the page's corner, as upright boxes."""
    links = _link(boxes, once=True)
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    slopes = [np.divide(*(centre[right] - centre[left])[::-1]) for left, right in links.items()]
    if len(slopes) < MIN_SLOPES:
        return boxes
    low, slope, high = np.percentile(slopes, (25, 50, 75))
    chance = 2 * (high - low) / np.sqrt(len(slopes))  # some two standard errors of the median
    if not max(MIN_SLOPE, chance) <= abs(slope) <= MAX_SLOPE:
        return boxes
    cos, sin = 1 / np.hypot(1, slope), slope / np.hypot(1, slope)
    centre = (centre - boxes.min(0)[:2]) @ np.array([[cos, -sin], [sin, cos]])
    # A box w x h turned by a has the upright box w cos a + h sin a, w sin a + h cos a.
    level = (size * cos - size[:, ::-1] * abs(sin)) / (cos * cos - sin * sin)
    half = np.maximum(level, MIN_LEVELLED * size) / 2
    return np.concatenate((centre - half, centre + half), 1)


def _on_line(boxes: np.ndarray) -> np.ndarray:
    """(n, n) bool: which words could be on one line, by their heights."""
    _, y1, _, y2 = boxes.T
    height = y2 - y1
    shared = np.minimum.outer(y2, y2) - np.maximum.outer(y1, y1)
    low, high = np.minimum.outer(height, height), np.maximum.outer(height, height)
    return (shared >= SHARED_HEIGHT * low) & (high <= HEIGHT_RATIO * low)


def _find_astride(boxes: np.ndarray) -> dict[int, int]:
    """Rule 3: {box: the upper of two words that it lies across}, highest boxes first."""
    x1, y1, x2, y2 = boxes.T
    height, middle = y2 - y1, (y1 + y2) / 2
    shared = np.minimum.outer(y2, y2) - np.maximum.outer(y1, y1)
    beside = np.minimum.outer(x2, x2) > np.maximum.outer(x1, x1)
    apart = ~_on_line(boxes) & beside & np.less.outer(middle, middle)  # row above column
    # A box that holds half the height of each of two words that stand one above the other.
    holds = beside & (shared >= SHARED_HEIGHT * height) & (height[:, None] <= HEIGHT_RATIO * height)
    np.fill_diagonal(holds, False)
    found = {}
    for box in np.argsort(-height, kind='stable').tolist():
        inside = np.array([word for word in np.flatnonzero(holds[box]) if word not in found], int)
        pairs = np.argwhere(apart[np.ix_(inside, inside)])
        if len(pairs):
            found[box] = int(inside[pairs[0, 0]])
    for box, upper in found.items():
        while upper in found:  # which was found to be no word later
            upper = found[upper]  # noqa: PLW2901
        found[box] = upper
    return found


def _link(boxes: np.ndarray, once: bool = False) -> dict[int, int]:
    """Rule 2: {word: the next word on its line}; with `once` only pairs that are nearest to each other."""
    x1, y1, x2, y2 = boxes.T
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    cost = np.maximum(x1[None] - x2[:, None], 0) + STEP_COST * np.abs(np.subtract.outer(y, y))  # from row to column
    cost[~(_on_line(boxes) & np.less.outer(x, x))] = np.inf
    follower: dict[int, int] = {}
    while len(boxes):
        right, left = cost.argmin(1), cost.argmin(0)
        new = [word for word in range(len(boxes)) if left[right[word]] == word and np.isfinite(cost[word, right[word]])]
        follower.update((word, int(right[word])) for word in new)
        if once or not new:
            break
        cost[new] = np.inf
        cost[:, right[new]] = np.inf
    return follower


def _chain_words(boxes: np.ndarray) -> list[Line]:
    """Rule 2: lines in any order."""
    follower = _link(boxes)
    lines = []
    for word in sorted(set(range(len(boxes))) - set(follower.values())):  # those that begin a line
        line = [word]
        while line[-1] in follower:
            line.append(follower[line[-1]])
        lines.append(line)
    return lines


def _sort_lines(lines: list[Line], boxes: np.ndarray) -> list[Line]:
    """Rule 4: lines from top to bottom."""
    x1, y1, x2, y2 = boxes.T
    middle = (y1 + y2) / 2
    beside = np.minimum.outer(x2, x2) > np.maximum.outer(x1, x1)
    above = (beside & np.less.outer(middle, middle)).astype(np.float32)  # (n, n): the row's word is above the column's
    member = np.zeros((len(lines), len(boxes)), np.float32)  # as `above`, of floats: they are multiplied far sooner
    for number, line in enumerate(lines):
        member[number, line] = 1
    pairs = member @ above @ member.T  # (lines, lines)
    before = pairs > pairs.T
    top = [y1[line].mean() for line in lines]

    result, left, above_it = [], set(range(len(lines))), before.sum(0)
    while left:
        free = [line for line in left if not above_it[line]] or left  # all: they go round in a circle
        highest = min(free, key=lambda line: (top[line], x1[lines[line][0]], line))
        result.append(lines[highest])
        left.remove(highest)
        above_it = above_it - before[highest]
    return result


def _split_columns(lines: list[Line], boxes: np.ndarray) -> list[Line]:
    """Rule 5: sorted lines, those that lie along gutters cut there and read column by column."""
    result, start = [], 0
    while start < len(lines):
        rest = lines[start:]
        first, *following = rest
        gaps = _wide_gaps([first], boxes)
        if not gaps and following and boxes[following[0], 1].min() < boxes[first, 3].max():
            gaps = _wide_gaps(rest[:2], boxes)  # of columns whose lines are not level with each other
        count, gutter = max((_follow_gutter(rest, gap, boxes) for gap in gaps), default=(1, None))
        if gutter is None:
            result.append(first)
        else:
            centre = boxes[:, [0, 2]].mean(1)
            for side in (centre < gutter, centre >= gutter):
                parts = [[word for word in line if side[word]] for line in rest[:count]]
                result += _split_columns([part for part in parts if part], boxes)
        start += count
    return result


def _line_height(line: Line, boxes: np.ndarray) -> float:
    return float(np.median(boxes[line, 3] - boxes[line, 1]))


def _wide_gaps(lines: list[Line], boxes: np.ndarray) -> list[tuple[float, float]]:
    """(left, right) of the gaps that lines leave free and that could be gutters."""
    spans = boxes[sum(lines, [])][:, [0, 2]]
    spans = spans[np.argsort(spans[:, 0], kind='stable')]
    ends, starts = np.maximum.accumulate(spans[:-1, 1]), spans[1:, 0]
    wide = starts - ends >= GUTTER * max(_line_height(line, boxes) for line in lines)
    return list(zip(ends[wide].tolist(), starts[wide].tolist(), strict=True))


def _follow_gutter(lines: list[Line], gap: tuple[float, float], boxes: np.ndarray) -> tuple[int, float | None]:
    """How many lines from the first on leave its gap free, and the middle of what stays free.

    The middle is None, and the count 1, unless two lines or parts of lines lie on each side.
    """
    left, right = gap
    usual, bottom = _line_height(lines[0], boxes), boxes[lines[0], 3].max()
    count = on_left = on_right = 0
    for line in lines:
        height, middle = _line_height(line, boxes), (left + right) / 2
        before = boxes[line, 0] + boxes[line, 2] < 2 * middle
        end = max([left, *boxes[line, 2][before]])
        start = min([right, *boxes[line, 0][~before]])
        both = before.any() and not before.all()
        # A tall word in one of the columns makes the gap beside it no narrower.
        too_narrow = start - end < GUTTER * (height if both else usual)
        if count and (too_narrow or boxes[line, 1].min() - bottom > GUTTER * height):
            break
        left, right, bottom = end, start, max(bottom, boxes[line, 3].max())
        count += 1
        on_left += bool(before.any())
        on_right += not before.all()
    return (count, float((left + right) / 2)) if min(on_left, on_right) > 1 else (1, None)
