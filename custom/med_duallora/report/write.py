"""Writes a report's files."""

from pathlib import Path

from med_duallora.report.content import build, shows_patients
from med_duallora.report.document import Document
from med_duallora.report.finished import Run
from med_duallora.report.html import to_html
from med_duallora.report.markdown import to_markdown
from med_duallora.settings.release import ReleaseFloors
from med_duallora.support.files import atomic_path, write_text

HTML, MARKDOWN = "report.html", "report.md"


def write_report(run: Run, out: Path, floors: ReleaseFloors | None = None) -> Path:
    """Write the report of a run, see ``write_document``; floors add the section of the release gate.

    With images of patients in it, it is readable by this account alone.
    """
    return write_document(build(run, floors), out, 0o600 if shows_patients(run) else 0o644)


def write_document(document: Document, out: Path, mode: int = 0o644) -> Path:
    """Write ``report.html`` (self-contained), ``report.md`` and its pictures into ``out``; return the HTML's path."""
    for picture in document.pictures:
        with atomic_path(out / picture.name, mode) as partial:
            partial.write_bytes(picture.content)
    write_text(out / MARKDOWN, to_markdown(document), mode)
    write_text(out / HTML, to_html(document), mode)
    return out / HTML
