"""Text files of rows: every reader of labels, ground truth, lists and annotations takes them apart here."""

import codecs
import re
from pathlib import Path

from models.errors import UserError

# Far more than one image needs; they keep a file that is no such file from taking all memory.
MAX_BYTES, MAX_ROWS = 4 << 20, 10_000
DONT_CARE = '###'  # stands for a word that nobody can read, in ICDAR's ground truth and all that follow it
LINE_END = re.compile(r'\r\n|\n|\r')  # of Unix, Windows and old Macs; a word may hold what else breaks lines
UTF_32, UTF_16 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode_text(content: bytes) -> str:
    """UTF-8, with a byte order mark or not, UTF-16 (also without a mark) and UTF-32; what is none is replaced."""
    if content.startswith(UTF_32):
        encoding = 'utf-32'
    elif content.startswith(UTF_16):
        encoding = 'utf-16'
    elif b'\0' in content[:1000]:  # plain text holds none: every other byte of UTF-16
        encoding = 'utf-16-le' if content[1:1000:2].count(0) >= content[:1000:2].count(0) else 'utf-16-be'
    else:
        encoding = 'utf-8-sig'
    return content.decode(encoding, errors='replace')


def split_rows(content: bytes | str) -> list[str]:
    """The rows of a text, whatever its encoding and line ends; blank ones stay, so that numbers of rows are right."""
    return LINE_END.split(content if isinstance(content, str) else decode_text(content))


def read_rows(file: Path, what: str) -> list[str]:
    """The rows of a text file of one image. Raises UserError if it cannot be read or is too large; `what` it is."""
    try:
        with open(file, 'rb') as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f'{file}: {what} cannot be read ({error.strerror})') from None
    rows = split_rows(content)
    if len(content) > MAX_BYTES or len(rows) > MAX_ROWS:
        raise UserError(f'{file}: more than {MAX_BYTES >> 20} MiB or {MAX_ROWS} rows, too much for one picture')
    return rows


def read_list(file: Path) -> list[str]:
    """The rows of a list file that hold something, without the space around them. Raises UserError."""
    try:
        rows = map(str.strip, split_rows(file.read_bytes()))
    except OSError as error:
        raise UserError(f'{file}: the list cannot be read ({error.strerror})') from None
    return [row for row in rows if row]


def unquoted(word: str) -> str:
    """A word without the space around it and one pair of quotes, which some tools write around words."""
    word = word.strip()
    return word[1:-1] if len(word) >= 2 and word[0] == word[-1] == '"' else word
