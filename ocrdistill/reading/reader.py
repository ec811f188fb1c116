"""Words of pictures with what they say: TextReader."""

from dataclasses import replace
from typing import Any

import numpy as np

from ocrdistill.detector import TextDetector, Word
from ocrdistill.errors import UserError
from ocrdistill.reading.recognisers import make_recogniser
from ocrdistill.reading_order import reading_order
from ocrdistill.rows import levelled_boxes


class TextReader:
    """Finds the words of images and reads them. May be called from several threads at once.

    Args:
        recogniser: 'rapidocr' or 'tesseract'; or any callable that takes a list of crops (h, w, 3) uint8 RGB and
            returns (text, score 0..1) of each.
        language: of tesseract, such as 'eng' or 'deu+fra'; rapidocr has one network for all of its languages.
        detector: options of TextDetector. With `rotate` every word is read upside down, too, and the surer text tells
            where it begins.

    Raises:
        UserError: a value that is none of these, or what the recogniser needs is not installed; in a call: what a
            recogniser of your own returns is something else.
    """

    def __init__(self, recogniser: Any = 'rapidocr', *, language: str | None = None, **detector: Any):
        self.detector = TextDetector(**detector)
        self.both_ways = bool(detector.get('rotate'))
        threads = detector.get('threads')
        if callable(recogniser) and language is not None:
            raise UserError(f'language {language!r} is for tesseract; a recogniser of your own knows its own')
        self.recognise = recogniser if callable(recogniser) else make_recogniser(recogniser, language, threads)

    def __call__(self, images: Any) -> Any:
        """The words of an image, or of each of a list of them, in reading order, with `text` and `text_score`.

        Args:
            images: what TextDetector takes.

        Returns:
            A list of Word; of a list a list of such lists. The text of a word that cannot be read is ''.

        Raises:
            UserError: it is no image.
        """
        if isinstance(images, (list, tuple)):
            return [self(image) for image in images]
        return self.read(self.detector(images))

    def read(self, words: list[Word]) -> list[Word]:
        """Words that were found, read."""
        crops = [word.crop() for word in words]
        read = self._read(crops)
        if not self.both_ways:
            return [_with_text(word, *text) for word, text in zip(words, read, strict=True)]
        turned = self._read([np.ascontiguousarray(np.rot90(crop, 2)) for crop in crops])
        found = [
            _with_text(word, *text) if text[1] >= other[1] else _with_text(_turned(word), *other)
            for word, text, other in zip(words, read, turned, strict=True)
        ]
        lines = reading_order(levelled_boxes(np.array([word.quad for word in found]).reshape(-1, 4, 2)))
        return [replace(found[word], line=number) for number, line in enumerate(lines) for word in line]

    def _read(self, crops: list[np.ndarray]) -> list[tuple[str, float]]:
        """Text and score of each crop. Raises UserError: the recogniser returns something else."""
        texts = list(self.recognise(crops)) if crops else []
        try:
            pairs = [(text, float(score)) for text, score in texts]
            good = len(pairs) == len(crops) and all(isinstance(text, str) and -0.001 < s < 1.001 for text, s in pairs)
        except (TypeError, ValueError):
            good = False
        if not good:
            what = f'(text, score 0..1) of each of {len(crops)} crops'
            raise UserError(f'the recogniser must return {what}, not {repr(texts):.200}')
        return [(text, min(max(score, 0.0), 1.0)) for text, score in pairs]  # a sum of float32 may be 1.0000001


def _with_text(word: Word, text: str, score: float) -> Word:
    return replace(word, text=text, text_score=round(score, 5))


def _turned(word: Word) -> Word:
    """A word that begins at its other end."""
    return replace(word, quad=np.roll(word.quad, 2, 0))
