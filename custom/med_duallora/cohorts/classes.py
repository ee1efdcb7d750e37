"""Whether a cohort has both classes where both are needed, and what helps where it has not."""

from collections.abc import Sequence

from med_duallora.cohorts.prepared import PreparedCohort, PreparedSubject
from med_duallora.errors import UnfitError
from med_duallora.settings.policy import SitePolicy

NAMES = ("normal (NOR)", "diseased")
NEEDS_BOTH = "training needs both classes"
MIN_PER_CLASS = 3
"""Subjects of each class below which no head is fitted: with two, the spread of a class is that of a single pair."""


def class_sizes(subjects: Sequence[PreparedSubject]) -> tuple[int, int]:
    """Return the number of normal and of diseased subjects."""
    n_diseased = sum(subject.label for subject in subjects)
    return len(subjects) - n_diseased, n_diseased


def untrainable(cohort: PreparedCohort) -> str:
    """Return why a cohort cannot be trained on, and after the first colon what would help; empty where it can be."""
    lack = lacking_class(cohort)
    return f"{NEEDS_BOTH}, and {lack}" if lack else ""


def unfit_to_evaluate(cohort: PreparedCohort) -> str:
    """Return why an adapter cannot be evaluated on a cohort, and after the first colon what helps; empty: it can.

    A head is fitted to the train split, and the test split is scored.
    """
    if lack := lacking_class(cohort):
        return f"an evaluation needs both classes, to fit a head, and {lack}"
    if min(class_sizes(cohort.split("train"))) < MIN_PER_CLASS:
        return (
            f"its train split has fewer than {MIN_PER_CLASS} subjects of a class, and an evaluation fits a head to as "
            "many of each: prepare a cohort with more subjects"
        )
    if not cohort.split("test"):
        return "its test split has no subject to evaluate on: write test into the column split of cohort.csv for some"
    return ""


def too_few(cohort: PreparedCohort, policy: SitePolicy) -> str:
    """Return which floor of a site its training split does not reach, and after the first colon what would help."""
    n_normal, n_diseased = class_sizes(cohort.split("train"))
    key = policy.short_of((n_normal, n_diseased))
    if not key:
        return ""
    each = {"min_subjects": "of each class", "min_train_subjects": "in all"}[key]
    return (
        f"its train split has {n_normal} {NAMES[0]} and {n_diseased} {NAMES[1]} subjects, and an adapter leaves this "
        f"site only from {getattr(policy, key)} {each} on (policy.{key}): prepare a cohort with more training "
        f"subjects, or lower policy.{key} where this site agrees to it"
    )


def check_trainable(labels: Sequence[int]) -> None:
    """Refuse labels that are all of one class, for whoever trains without a cohort (UnfitError)."""
    counts = " and ".join(f"{list(labels).count(label)} {name}" for label, name in enumerate(NAMES))
    if not {0, 1} <= set(labels):
        raise UnfitError(f"{NEEDS_BOTH}, and there are {counts} subjects", NEEDS_BOTH)


def lacking_class(cohort: PreparedCohort, split: str = "train") -> str:
    """Return what a split lacks of the two classes, and what would help; empty where it has both.

    The text names no subject. Another seed is only advised where the split was drawn by ``prepare`` from subjects of
    both classes: it cannot make a class that the cohort does not have, and moves no subject between splits that were
    given.
    """
    in_split, in_all = ([item.label for item in items] for items in (cohort.split(split), cohort.subjects))
    missing = [name for label, name in enumerate(NAMES) if label not in in_split]
    if not missing:
        return ""
    counts = " and ".join(f"{in_split.count(label)} {name}" for label, name in enumerate(NAMES))
    found = f"its {split} split has {counts} subjects"
    absent = [name for label, name in enumerate(NAMES) if label not in in_all]
    if absent:
        return (
            f"{found}, and the whole cohort has no {absent[0]} one: prepare it again with {absent[0]} subjects from "
            "the same scanners, or let the site take no part"
        )
    others = ", ".join(
        f"{other} {sum(item.label == NAMES.index(missing[0]) for item in cohort.split(other))}"
        for other in ("train", "val", "test")
    )
    return (
        f"{found}; the {missing[0]} ones lie elsewhere ({others}): write {split} into the column split of cohort.csv "
        "for some of them, or prepare the cohort again without --official-splits and without splits in a table"
    )
