"""Writes a report's files."""

from pathlib import Path

from med_duallora.report.content import build
from med_duallora.report.finished import Run
from med_duallora.report.html import to_html
from med_duallora.report.markdown import to_markdown
from med_duallora.support.files import atomic_path, write_text

HTML, MARKDOWN = "report.html", "report.md"


def write_report(run: Run, out: Path) -> Path:
    """Write ``report.html`` (self-contained), ``report.md`` and its pictures into ``out``; return the HTML's path."""
    document = build(run)
    for picture in document.pictures:
        with atomic_path(out / picture.name) as partial:
            partial.write_bytes(picture.content)
    write_text(out / MARKDOWN, to_markdown(document))
    write_text(out / HTML, to_html(document))
    return out / HTML
