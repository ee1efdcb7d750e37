"""Writes a report as GitHub-flavoured Markdown; pictures are files beside it."""

from collections.abc import Sequence

from med_duallora.report.document import Block, Document, Picture, Table


def to_markdown(document: Document) -> str:
    """Return the whole report."""
    parts = [f"# {document.title}", f"> **{document.banner}**", f"**{document.headline}**"]
    parts.append("\n".join(f"- {item.value}: {item.label}" for item in document.key_numbers))
    for section in document.sections:
        parts.append(f"## {section.title}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Picture):
        return f"![{block.alt}]({block.name})\n\n*{block.caption}*"
    return block.text


def _table(table: Table) -> str:
    aligns = [":--", *["--:"] * (len(table.header) - 1)] if len(table.header) > 2 else [":--"] * len(table.header)
    lines = [_row(table.header), _row(aligns)]
    for index, row in enumerate(table.rows):
        cells = [_escape(cell) for cell in row]
        lines.append(_row([f"**{cell}**" if cell else "" for cell in cells] if index in table.strong_rows else cells))
    note = f"\n\n*{table.note}*" if table.note else ""
    return f"{table.caption}:\n\n" + "\n".join(lines) + note


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
