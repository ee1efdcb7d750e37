"""The folders of prepared subjects below one output folder: found, moved to another cohort, removed."""

import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from med_duallora.cohorts.prepare_one import RECORD
from med_duallora.cohorts.prepared import COHORT_TABLE
from med_duallora.support.private import private_folder

# Lies beside a cohort's table, and at the top: how all of it came about.
SUMMARY = "preparation.json"


def subject_folders(out: Path) -> list[Path]:
    """Return the folders of all subjects that are prepared below ``out``, whatever their cohorts are called."""
    return [record.parent for record in sorted(out.glob(f"*/*/{RECORD}")) if _holds_volumes(record.parent)]


def _holds_volumes(folder: Path) -> bool:
    """Tell a subject's folder from a cohort's, whose record has the same name: ``out`` may hold another output."""
    return any(folder.glob(f"{folder.name}_sax_*.nii.gz"))


def move_to_places(out: Path, places: Mapping[str, Path]) -> None:
    """Move subjects that an earlier run put into another cohort, so that they need not be prepared again.

    Args:
        out: where the cohorts are.
        places: the folder where each subject belongs now, by its name.
    """
    for folder in subject_folders(out):
        place = places.get(folder.name, folder)
        if place != folder and not place.exists():
            _remove_tables(folder.parent)  # from now on they are wrong, also if this run is killed
            private_folder(place.parent)
            folder.rename(place)
            _remove_if_empty(folder.parent)


def remove_stale(out: Path, kept: Collection[Path], cohorts: Collection[str]) -> None:
    """Remove the subjects and cohorts of earlier runs that are no longer among those of this one.

    Args:
        out: where the cohorts are.
        kept: folders of this run's subjects.
        cohorts: names of this run's cohorts.
    """
    for folder in subject_folders(out):
        if folder not in kept:
            shutil.rmtree(folder)
            _remove_if_empty(folder.parent)
    for cohort in list(_cohort_folders(out)):
        if cohort.name not in cohorts:
            _remove_tables(cohort)
            _remove_if_empty(cohort)


def _cohort_folders(out: Path) -> Iterator[Path]:
    """Yield the folders of cohorts that `prepare` wrote: another program's table has no summary beside it."""
    for table in out.glob(f"*/{COHORT_TABLE}"):
        if (table.parent / SUMMARY).is_file():
            yield table.parent


def _remove_tables(cohort: Path) -> None:
    # The table first: it is what others look for.
    for name in (COHORT_TABLE, SUMMARY):
        (cohort / name).unlink(missing_ok=True)


def _remove_if_empty(cohort: Path) -> None:
    if not any(cohort.iterdir()):
        cohort.rmdir()
