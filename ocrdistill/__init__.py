"""Words in pictures, with ONNX Runtime alone: `TextDetector()('photo.jpg')`. Nothing here needs PyTorch or OpenCV."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocrdistill.detector import TextDetector, Word
    from ocrdistill.errors import Unreadable, UserError
    from ocrdistill.reading.reader import TextReader

__version__ = '1.0.0'
__all__ = ['TextDetector', 'TextReader', 'Unreadable', 'UserError', 'Word']
WHERE = {
    'TextDetector': 'ocrdistill.detector',
    'Word': 'ocrdistill.detector',
    'TextReader': 'ocrdistill.reading.reader',
    'Unreadable': 'ocrdistill.errors',
    'UserError': 'ocrdistill.errors',
}


def __getattr__(name: str) -> Any:
    """Imported when first asked for: `ocrdistill --help` is answered at once."""
    import importlib

    if name not in WHERE:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(WHERE[name]), name)
