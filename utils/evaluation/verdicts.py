"""Which detections of a picture are right and which are wrong, and which words were missed: for drawing them."""

from dataclasses import dataclass, field

import numpy as np

from ocrdistill.points import UNSCALED
from ocrdistill.rows import corners_of
from utils.evaluation.evaluate import ImageResult
from utils.evaluation.icdar import match_words

RIGHT, WRONG, MISSED, DONT_CARE = 'right', 'wrong', 'missed', "don't care"


@dataclass
class Verdict:
    """What was found in a picture, and what was not.

    Attributes:
        marks: (RIGHT, WRONG, MISSED, or DONT_CARE for detections that count neither way; quads (n, 4, 2) in the
            picture's pixels; class, None where the truth has none).
        regions: (k, 4, 2) don't-care.
    """

    marks: list[tuple[str, np.ndarray, int | None]] = field(default_factory=list)
    regions: np.ndarray = field(default_factory=lambda: np.zeros((0, 4, 2)))

    def counts(self) -> dict[str, int]:
        """How many words are right, wrong, missed; how many regions are don't-care."""
        counts = {
            kind: sum(len(quads) for name, quads, _ in self.marks if name == kind) for kind in (RIGHT, WRONG, MISSED)
        }
        return {**counts, DONT_CARE: len(self.regions)}


def judge_image(
    image: ImageResult,
    threshold: float,
    scale: tuple[float, float] = UNSCALED,
    truth: tuple[np.ndarray, np.ndarray] | None = None,
) -> Verdict:
    """Judge the words of a picture by the rules of ICDAR2015: IoU over 0.5, each word found once.

    Args:
        image: what evaluate() found in it.
        threshold: the confidence from which a detection counts.
        scale: of boxes, as hmean takes them.
        truth: the official quads (m, 4, 2) and their don't-care flags (m,), by which hmean is computed; None: the
            labels are the truth, each class for itself, and boxes are compared with boxes, quads with quads.
    """
    words = image.words.numpy()
    over = np.flatnonzero(words[:, 4] >= np.float32(threshold))
    over = over[np.argsort(-words[over, 4], kind='stable')]
    if truth is not None:
        quads, dont_care = truth
        marks = _judge(image.icdar_quads(scale)[over], quads[~dont_care], quads[dont_care])
        return Verdict([(kind, marked, None) for kind, marked in marks.items()], quads[dont_care])
    verdict = Verdict(regions=corners_of(image.ignore.numpy()))
    labels, found = corners_of(image.labels[:, 1:].numpy()), image.icdar_quads()
    if image.word_quads is not None and image.label_quads is not None:
        labels = image.label_quads.numpy()
    for category in np.union1d(words[over, 5], image.labels[:, 0]).astype(int).tolist():
        of_class = over[words[over, 5] == category]
        marks = _judge(found[of_class], labels[image.labels[:, 0].numpy() == category], verdict.regions)
        verdict.marks += [(kind, marked, category) for kind, marked in marks.items()]
    return verdict


def _judge(found: np.ndarray, words: np.ndarray, regions: np.ndarray) -> dict[str, np.ndarray]:
    """The quads of one class by verdict; what is drawn later covers what was drawn before."""
    dont_care = np.arange(len(words) + len(regions)) >= len(words)
    answers, counts = match_words(found, np.concatenate((words, regions)).round().astype(int), dont_care)
    right = np.zeros(len(found), bool)
    right[answers[answers >= 0]] = True
    missed = words[answers[: len(words)] < 0]
    return {DONT_CARE: found[~counts], MISSED: missed, WRONG: found[counts & ~right], RIGHT: found[right]}
