"""Small text files that people made with whatever program they have: which encoding they are in."""

import codecs
from pathlib import Path

from med_duallora.errors import CohortError
from med_duallora.support.files import open_regular

# A million blank rows of a spreadsheet are about 6 MB; what is larger than this is not a table of subjects.
MAX_BYTES = 30_000_000

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods; .xls


def read_text(path: Path) -> tuple[str, str]:
    """Return a file's text, its lines ended by line feeds alone, and the name of its encoding.

    UTF-8 and UTF-16 with or without a byte order mark; what is neither is read as cp1252, which Western
    Windows programs write.

    Raises:
        FileNotFoundError: no such file.
        CohortError: a spreadsheet's own format, no text in these encodings, too large or unreadable.
    """
    try:
        with open_regular(path) as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CohortError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise CohortError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB, so it is not a table or list of facts")
    if content.startswith(_WORKBOOKS):
        raise CohortError(f"{path} is a spreadsheet's own file, not text; save it as CSV (in Excel: 'CSV UTF-8')")
    encoding = _encoding(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise CohortError(
            f"{path} cannot be read: byte {error.start} is no {encoding} text; save the file as UTF-8"
        ) from error
    if "\0" in text:
        raise CohortError(
            f"{path} cannot be read: it holds zero bytes, so it is not a text file; save it as CSV in UTF-8"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def _encoding(content: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return encoding
    # Western text in UTF-16 has a zero in every other byte; no text in UTF-8 or cp1252 has any.
    for encoding, start in (("utf-16-le", 1), ("utf-16-be", 0)):
        sample = content[start:400:2]
        if len(content) % 2 == 0 and sample.count(0) > 0.9 * len(sample) > 0:
            return encoding
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"
