"""Tables of true values, as `med-duallora phantom` writes them."""

from collections.abc import Sequence
from pathlib import Path

from med_duallora.cohorts.phantom.truth import TARGETS


def truth_table(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    """Write a table with a row of name and values per subject, and return its path."""
    header = ["subject", *TARGETS]
    path.write_text("\n".join([",".join(header), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path
