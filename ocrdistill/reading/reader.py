"""Words of pictures with what they say: TextReader."""

from dataclasses import replace
from typing import Any

from ocrdistill.detector import TextDetector, Word
from ocrdistill.reading.recognisers import make_recogniser


class TextReader:
    """Finds the words of images and reads them. May be called from several threads at once.

    Args:
        recogniser: 'rapidocr' or 'tesseract'; or any callable that takes a list of crops (h, w, 3) uint8 RGB and
            returns (text, score) of each.
        language: of tesseract, such as 'eng' or 'deu+fra'; rapidocr has one network for all of its languages.
        detector: options of TextDetector.

    Raises:
        UserError: a value that is none of these, or what the recogniser needs is not installed.
    """

    def __init__(self, recogniser: Any = 'rapidocr', *, language: str | None = None, **detector: Any):
        self.detector = TextDetector(**detector)
        threads = detector.get('threads')
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
        texts = self.recognise([word.crop() for word in words]) if words else []
        return [
            replace(word, text=text, text_score=round(float(score), 5))
            for word, (text, score) in zip(words, texts, strict=True)
        ]
