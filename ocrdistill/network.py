"""A network in ONNX Runtime."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ocrdistill.errors import UserError, first_line
from ocrdistill.images import LOG
from ocrdistill.metadata import Metadata

Providers = Sequence[str | tuple[str, dict[str, Any]]]  # names, or names with their options
Run = Callable[[np.ndarray], np.ndarray]  # (B, 3, H, W) float32, 0..1 -> (B, M, 5 + nc [+ 4 with quads]) float32


def import_onnxruntime() -> Any:
    """ONNX Runtime, which sends no usage data and writes no device id below the home folder. Raises UserError."""
    # Read once, when it is loaded; a user who wants to be counted sets it to 0.
    os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != 'onnxruntime':
            raise
        raise UserError('this needs the package onnxruntime: pip install onnxruntime') from None
    return onnxruntime


def open_onnx(file: Path, threads: int | None = None, providers: Providers | None = None) -> tuple[dict[str, Any], Run]:
    """A file's metadata, unchecked, and its network.

    Args:
        threads: that compute one image; None: one for each of the processor's cores.
        providers: of ONNX Runtime, the first that can; None: the CPU.

    Raises:
        UserError: it cannot be read, or no such provider.
    """
    if not file.is_file():
        raise UserError(f'no such file: {file}')
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors
    wanted = [providers] if isinstance(providers, str) else list(providers or ['CPUExecutionProvider'])
    names = [_provider(name) for name in wanted]
    if unknown := set(names) - set(onnxruntime.get_available_providers()):
        there = ', '.join(onnxruntime.get_available_providers())
        raise UserError(f'ONNX Runtime has no {min(unknown)!r} here (there: {there})')
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=wanted)
        entries = session.get_modelmeta().custom_metadata_map
        metadata = {key: json.loads(value) for key, value in entries.items()} if 'format' in entries else {}
    except Exception as error:  # ONNX Runtime has many, of many lines
        why = first_line(error) if file.suffix.lower() == '.onnx' else 'export.py makes .onnx files of checkpoints'
        raise UserError(f'{file} cannot be read as an exported model: {why}') from None

    if names[0] not in session.get_providers():  # ONNX Runtime falls back, whatever is missing
        computes = session.get_providers()[0]
        LOG.warning('%s did not start, for want of its libraries or of a device: %s computes', names[0], computes)

    def run(images: np.ndarray) -> np.ndarray:
        try:
            return session.run(None, {'images': images})[0]
        except Exception as error:
            raise UserError(f'{file} cannot be computed: {first_line(error)}') from None

    return metadata, run


def _provider(entry: Any) -> str:
    """The name of an entry of `providers`. Raises UserError."""
    if isinstance(entry, str):
        return entry
    if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], dict):
        return entry[0]
    raise UserError(f'providers: {entry!r}, expected a name or a pair (name, options)')


class OnnxNetwork:
    """A .onnx file of export.py, ready to be called from several threads at once.

    Args:
        file, threads, providers: see open_onnx.

    Attributes:
        about: Metadata.

    Raises:
        UserError: it cannot be read, is not of export.py, or no such provider.
    """

    def __init__(self, file: Path, threads: int | None = None, providers: Providers | None = None):
        metadata, self._run = open_onnx(file, threads, providers)
        self.about = Metadata(file, metadata)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 -> (B, M, 5 + nc [+ 4]) float32: x, y, w, h in pixels, objectness, classes; edges."""
        inputs = np.empty((len(images), 3, *images.shape[1:3]), np.float32)
        np.divide(images.transpose(0, 3, 1, 2), np.float32(255), out=inputs)
        decoded, about = self._run(inputs), self.about
        if decoded.ndim != 3 or decoded.shape[2] != 5 + about.nc + 4 * about.quads:
            raise UserError(f'{about.file} is damaged: it gives {decoded.shape} for {about.nc} classes')
        return decoded
