"""What detect.py draws, by the runtime's own drawing."""

import numpy as np

from ocrdistill.drawing import PALETTE, draw_words, score_colour
from ocrdistill.rows import corners_of


def annotate(image: np.ndarray, rows: np.ndarray, names: dict[int, str], options) -> np.ndarray:
    """A copy of an image (H, W, 3) RGB with its rows (n, 6) or (n, 14): coloured by score or, of several classes, by
    class and named; with scores where options.show_conf asks for them."""
    several = len(names) > 1
    texts, colours = [], []
    for confidence, category in rows[:, 4:6]:
        name = names[int(category)] if several and not options.hide_labels else ''
        texts.append(' '.join(filter(None, (name, f'{confidence:.2f}' if options.show_conf else ''))))
        colours.append(PALETTE[int(category) % len(PALETTE)] if several else score_colour(confidence))
    return draw_words(image, corners_of(rows), colours, texts, options.line_thickness)
