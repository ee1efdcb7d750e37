"""Deals a cohort's subjects out anew for every seed, and writes cohorts that point at the same volumes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from med_duallora.cohorts.classes import MIN_PER_CLASS, NAMES
from med_duallora.cohorts.csvfile import read_rows, table_text
from med_duallora.cohorts.prepared import COHORT_TABLE, COLUMNS, OPTIONAL_COLUMNS, REQUIRED_COLUMNS
from med_duallora.errors import CohortError
from med_duallora.support.files import write_text
from med_duallora.support.private import PRIVATE_FILE, private_folder
from med_duallora.support.seeds import generator

Row = dict[str, str]
FRAMES = ("ed", "es")


@dataclass(frozen=True)
class Dealt:
    """One site's subjects in one seed, as rows of a prepared cohort's table with their split.

    Args:
        folder: of the prepared cohort.
        rows: of training and test subjects; who is neither is left out.
    """

    folder: Path
    rows: tuple[Row, ...]

    def named(self, split: str) -> tuple[str, ...]:
        """Return the subjects of a split."""
        return tuple(row["subject"] for row in self.rows if row["split"] == split)


def rows_of(folder: Path) -> list[Row]:
    """Return the rows of a prepared cohort's table (CohortError: see ``read_rows``)."""
    rows = read_rows(folder / COHORT_TABLE, REQUIRED_COLUMNS, OPTIONAL_COLUMNS, hint="`med-duallora prepare` writes it")
    return [dict(row) for _, row in rows]


def n_trained(n_members: int, n_subjects: int, n_train: int) -> int:
    """Return how many of a class's ``n_members`` are trained on where ``n_train`` of all ``n_subjects`` are."""
    return max(round(n_train * (n_members / n_subjects)), MIN_PER_CLASS)


def deal(folder: Path, site: str, n_train: int, n_test: int | None, seed: int) -> Dealt:
    """Return a stratified split of a site's subjects: the same seed gives the same, whatever the table's order.

    Args:
        folder: the site's prepared cohort; its own splits do not matter.
        site: its name.
        n_train: training subjects, give or take one for each class.
        n_test: likewise test subjects; None: all others.
        seed: of the draw.

    Raises:
        CohortError: a class is too small for ``MIN_PER_CLASS`` training subjects and a test subject.
    """
    rows = rows_of(folder)
    splits: dict[str, str] = {}
    for label, name in enumerate(NAMES):
        members = sorted(row["subject"] for row in rows if row["label"] == str(label))
        share = len(members) / len(rows)
        n = n_trained(len(members), len(rows), n_train)
        if n >= len(members):
            raise CohortError(
                f"{folder}: of {len(members)} {name} subjects, {n} would be trained on and none tested; lower --n-train"
            )
        order = generator(seed, "split", site, label).permutation(len(members))
        mixed = [members[place] for place in order]
        n_tested = len(members) - n if n_test is None else max(1, round(n_test * share))
        splits |= dict.fromkeys(mixed[:n], "train") | dict.fromkeys(mixed[n : n + n_tested], "test")
    return Dealt(folder, tuple({**row, "split": splits[row["subject"]]} for row in rows if row["subject"] in splits))


def permuted(dealt: Dealt, site: str, seed: int) -> Dealt:
    """Return the same subjects with the diagnoses of the training subjects dealt out among them at random.

    Other subjects are dealt another order: tables are sorted by name, names often follow the diagnosis, and one order
    for all federations that are cut from the same subjects would agree with the truth equally often in each.
    """
    train = [row for row in dealt.rows if row["split"] == "train"]
    order = generator(seed, "permuted", site, *(row["subject"] for row in train)).permutation(len(train))
    said = {row["subject"]: train[place] for row, place in zip(train, order, strict=True)}
    rows = [
        {**row, "pathology": said[row["subject"]]["pathology"], "label": said[row["subject"]]["label"]}
        if row["subject"] in said
        else row
        for row in dealt.rows
    ]
    return Dealt(dealt.folder, tuple(rows))


def write(dealt: Sequence[Dealt], target: Path, name_of: Callable[[Dealt, str], str] = lambda _, name: name) -> Path:
    """Write a cohort of one or several sites' subjects that points at their volumes, and return its folder.

    Args:
        dealt: the subjects.
        target: a new folder.
        name_of: what a subject is called there; two of one name would be one.
    """
    rows = []
    for part in dealt:
        for row in part.rows:
            name = name_of(part, row["subject"])
            _link(part.folder / row["subject"], row["subject"], target / name, name)
            rows.append({**row, "subject": name})
    write_text(target / COHORT_TABLE, table_text(COLUMNS, rows), PRIVATE_FILE)
    return target


def names_in_one_place(dealt: Mapping[str, Dealt]) -> dict[tuple[str, str], str]:
    """Return a name for every (site, subject) of several sites in one cohort: its own, unless two sites have it."""
    own = [row["subject"] for part in dealt.values() for row in part.rows]
    twice = {name for name in own if own.count(name) > 1}
    return {
        (site, row["subject"]): f"{site}.{row['subject']}" if row["subject"] in twice else row["subject"]
        for site, part in dealt.items()
        for row in part.rows
    }


def _link(folder: Path, name: str, target: Path, new_name: str) -> None:
    private_folder(target)
    for frame in FRAMES:
        (target / f"{new_name}_sax_{frame}.nii.gz").symlink_to((folder / f"{name}_sax_{frame}.nii.gz").resolve())
