"""The layouts of raw cohorts that ``prepare`` and ``montage`` read; a new one is a module here and one more entry.

Only names and help texts stand here: a reader's module is imported when a cohort is read.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from med_duallora.cohorts.subject import RawSubject, Refusal
    from med_duallora.cohorts.vocabulary import Vocabulary


@dataclass(frozen=True)
class Layout:
    """One layout of raw cohorts.

    Args:
        name: of the option of ``prepare`` and of the module beside this one whose ``read(place, words)`` reads it.
        place: what is given, DIR or CSV.
        help: of the option.
    """

    name: str
    place: str
    help: str

    def read(self, place: Path, words: "Vocabulary") -> "tuple[list[RawSubject], list[Refusal]]":
        """Return what a cohort holds, without opening an image (CohortError: it does not have this layout)."""
        module = importlib.import_module(f"med_duallora.cohorts.{self.name}")
        return cast("tuple[list[RawSubject], list[Refusal]]", module.read(place, words))


LAYOUTS = (
    Layout("acdc", "DIR", "raw ACDC: the folder 'database' or the one holding it"),
    Layout("mnms", "DIR", "raw M&Ms: the folder 'OpenDataset' or the one holding it"),
    Layout("mnms2", "DIR", "raw M&Ms-2: the folder 'MnM2' or the one holding it"),
    Layout("table", "CSV", "any other cohort, described by a table (see below)"),
)
