"""Which of a study's cohorts were cut from the same subjects: their runs are splits of one set and belong together."""

from collections.abc import Iterable

from med_duallora.study.plan import Cohort
from med_duallora.study.splits import rows_of

SAME = ("subject", "label", "source_sha256", "remarks")
People = frozenset[tuple[str, ...]]


def families(cohorts: Iterable[Cohort]) -> list[list[str]]:
    """Return groups of two or more cohorts of exactly the same subjects, by name, in their order.

    A subject is the same where its name, its label, the hash of its source and the remarks on its images are: a heart
    in a simulated scanner, which a remark says, is another image, whose scores are not averaged with the real one's.
    Cohorts that share only some of their subjects stay apart, and so does one in which two sites use the same name.
    """
    groups: dict[People, list[str]] = {}
    for cohort in cohorts:
        people = _people(cohort)
        if people is not None:
            groups.setdefault(people, []).append(cohort.name)
    return [names for names in groups.values() if len(names) > 1]


def _people(cohort: Cohort) -> People | None:
    """Return all subjects of a cohort; None where a name is not one subject."""
    rows = [row for folder in cohort.sites.values() for row in rows_of(folder)]
    if len({row["subject"] for row in rows}) < len(rows):
        return None
    return frozenset(tuple(row.get(column) or "" for column in SAME) for row in rows)
