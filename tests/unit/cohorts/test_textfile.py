import codecs
from pathlib import Path

import pytest

from med_duallora.cohorts import textfile
from med_duallora.cohorts.textfile import read_text
from med_duallora.errors import CohortError

TEXT = "centre\nMünchen – Süd\n"


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (TEXT.encode(), "utf-8"),
        (codecs.BOM_UTF8 + TEXT.encode(), "utf-8-sig"),
        (TEXT.encode("utf-16"), "utf-16"),  # Excel's 'Unicode text'
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "utf-16"),
        (TEXT.encode("utf-16-le"), "utf-16-le"),  # the mark was lost
        (TEXT.encode("utf-16-be"), "utf-16-be"),
        (TEXT.encode("cp1252"), "cp1252"),  # Excel's 'CSV' in Western Europe
        (TEXT.replace("\n", "\r\n").encode(), "utf-8"),
        (TEXT.replace("\n", "\r").encode(), "utf-8"),
    ],
)
def test_text_is_read_in_the_encodings_that_people_save(tmp_path: Path, content: bytes, encoding: str) -> None:
    (tmp_path / "t").write_bytes(content)
    assert read_text(tmp_path / "t") == (TEXT, encoding)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"PK\x03\x04" + bytes(50), "save it as CSV"),  # .xlsx, .ods
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "save it as CSV"),  # .xls
        (b"a,b\n\x81\xff,2\n", "not cp1252 text; save the file as UTF-8"),
        (codecs.BOM_UTF16_LE + b"a\0b", "not utf-16 text"),  # cut in the middle of a letter
        (b"a,b\n1,\0\n", "zero bytes"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, named: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(CohortError, match=named) as error:
        read_text(tmp_path / "t.csv")
    assert str(tmp_path / "t.csv") in str(error.value)


def test_a_huge_file_or_a_folder_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CohortError, match="cannot be read"):
        read_text(tmp_path)
    monkeypatch.setattr(textfile, "MAX_BYTES", 5)
    (tmp_path / "t").write_bytes(bytes(6))
    with pytest.raises(CohortError, match="larger than"):
        read_text(tmp_path / "t")


def test_an_absent_file_is_the_callers_matter(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "absent")
