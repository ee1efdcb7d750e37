"""A report as plain data: sections of paragraphs, tables, pictures; two writers turn it into text."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Paragraph:
    """One paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table of ready cells; the first column names the row.

    Args:
        caption: what the numbers are, with their unit.
        header: one text per column.
        rows: one text per cell, as many as ``header``.
        note: a line below the table.
        strong_rows: rows that the reader should find first.
        prose: whether the cells hold sentences, which may be broken, rather than numbers.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    strong_rows: Sequence[int] = ()
    prose: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"{self.caption}: a row of {len(row)} cells under {len(self.header)} headings")


@dataclass(frozen=True)
class Picture:
    """A picture as a file's content.

    Args:
        name: file name, ending in ``.png`` or ``.svg``.
        content: the file's bytes.
        alt: what it shows, for those who cannot see it.
        caption: a line below it.
        width: on the page, in CSS pixels.
    """

    name: str
    content: bytes
    alt: str
    caption: str
    width: int


Block = Paragraph | Table | Picture


@dataclass(frozen=True)
class Section:
    """A titled part of the report."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class KeyNumber:
    """One of the few numbers at the top of the report.

    Args:
        value: the number with its unit.
        label: what it is.
    """

    value: str
    label: str


@dataclass(frozen=True)
class Document:
    """The whole report.

    Args:
        title: its name.
        banner: what the reader must know before any number.
        headline: the result in one or two sentences.
        key_numbers: the few numbers at the top.
        sections: in reading order.
    """

    title: str
    banner: str
    headline: str
    key_numbers: Sequence[KeyNumber]
    sections: Sequence[Section]

    @property
    def pictures(self) -> list[Picture]:
        """Return every picture in reading order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]
