"""MATLAB's files of version 5, as far as Total-Text needs them: cells of numbers and texts.

Read here, in Python, because SciPy's reader is compiled and can be made to crash the process.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

MAX_UNPACKED = 1 << 20  # bytes of a compressed variable; Total-Text's have some KiB
NUMBERS = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8'}
ENCODINGS = {1: 'latin-1', 2: 'latin-1', 4: 'utf-16', 16: 'utf-8', 17: 'utf-16'}
MATRIX, COMPRESSED = 14, 15  # kinds of elements
CELL, CHAR = 1, 4  # kinds of matrices
ORDERS = {b'IM': '<', b'MI': '>'}


def read_mat(content: bytes, name: str) -> np.ndarray:
    """A variable of a .mat file: numbers, an array with one text, or an object array of these.

    Raises:
        Exception: of any kind, where the file is damaged or of another version.
    """
    order = ORDERS[content[126:128]]
    for kind, part in _elements(content[128:], order):
        if kind == COMPRESSED:
            kind, part = next(_elements(zlib.decompressobj().decompress(part, MAX_UNPACKED), order))  # noqa: PLW2901
        if kind == MATRIX:
            found, value = _matrix(part, order)
            if found == name:
                return value
    raise ValueError(f'no variable {name}')


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(kind, content) of what stands one after the other."""
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(f'{order}II', content, at)
        begin = at + 8
        if kind >> 16:  # up to four bytes, in the place of the size
            kind, size, begin = kind & 0xFFFF, kind >> 16, at + 4
        if begin + size > len(content):
            raise ValueError('cut short')
        yield kind, content[begin : begin + size]
        at = begin + size if kind == COMPRESSED else -(-(begin + size) // 8) * 8


def _matrix(content: bytes, order: str) -> tuple[str, np.ndarray]:
    """(name, value) of a matrix."""
    (_, flags), (_, shape), (_, name), *data = _elements(content, order)
    kind = struct.unpack_from(f'{order}I', flags)[0] & 0xFF
    if kind == CHAR:
        return name.decode(), np.array([''.join(_text(*part, order) for part in data)])
    if kind == CELL:
        values = np.empty(len(data), object)
        for number, (_, part) in enumerate(data):
            values[number] = _matrix(part, order)[1]
    else:
        values = np.frombuffer(data[0][1], order + NUMBERS[data[0][0]])
    return name.decode(), values.reshape(np.frombuffer(shape, f'{order}i4'), order='F')


def _text(kind: int, content: bytes, order: str) -> str:
    suffix = {'<': '-le', '>': '-be'}[order] if ENCODINGS[kind] == 'utf-16' else ''
    return content.decode(ENCODINGS[kind] + suffix, errors='replace')
