"""Train, validation and test splits inside one site: stratified, seeded, the same on every machine."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from med_duallora.cohorts.prepared import SPLITS
from med_duallora.cohorts.subject import RawSubject
from med_duallora.errors import CohortError

FRACTIONS = {"train": 0.6, "val": 0.2, "test": 0.2}

# Where a cohort's makers gave no validation split, it is drawn from their training split in this proportion.
OFFICIAL_FRACTIONS = {"train": 0.75, "val": 0.25, "test": 0.0}


def stratified_splits(
    subjects: Iterable[RawSubject], seed: int, fractions: Mapping[str, float] = FRACTIONS
) -> dict[str, str]:
    """Assign each subject of one site to a split.

    Each class (NOR, disease) is divided by ``fractions``; inside a class the pathologies are spread
    evenly over the splits as far as whole subjects allow. A class of three or more has a subject in every
    split that has a fraction; of two, one trains and one tests; a single one trains.

    Args:
        subjects: of one site, in any order.
        seed: draws another assignment; the order comes from a hash of seed and name, so it depends neither
            on a library's generator nor on which other subjects there are.
        fractions: of train, val and test, summing to 1.

    Returns:
        Split by subject name.
    """
    by_class: dict[int, list[RawSubject]] = {}
    for subject in subjects:
        by_class.setdefault(subject.label, []).append(subject)
    splits: dict[str, str] = {}
    for members in by_class.values():
        members.sort(key=_shuffled(seed))
        quota = _quota(len(members), fractions)
        splits |= {member.subject: split for member, split in zip(members, _spread(quota, len(members)), strict=True)}
    return splits


def fractions_of(text: str) -> dict[str, float]:
    """Read ``TRAIN/VAL/TEST``, whole percent such as 60/20/20.

    Raises:
        ValueError: it is something else, they do not sum to 100, or nobody would train.
    """
    parts = text.split("/")
    if len(parts) != len(SPLITS) or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"{text!r}, expected TRAIN/VAL/TEST in whole percent, such as 60/20/20")
    percent = dict(zip(SPLITS, map(int, parts), strict=True))
    if sum(percent.values()) != 100 or not percent["train"]:
        raise ValueError(f"{text!r}, expected three whole percent that sum to 100, the first above 0")
    return {split: value / 100 for split, value in percent.items()}


def official_splits(subjects: Iterable[RawSubject], seed: int) -> dict[str, str]:
    """Return the splits that the cohorts' makers gave to the subjects of one site.

    A dataset that comes without a validation split (ACDC) gives a stratified quarter of its training
    split; its test split is never touched.

    Raises:
        CohortError: a subject has no official split.
    """
    by_dataset: dict[str, list[RawSubject]] = {}
    for subject in subjects:
        if subject.official_split is None:
            raise CohortError(
                f"{subject.dataset} gives no official split for {subject.subject}; "
                "add a column 'split' to the table, or leave out --official-splits"
            )
        by_dataset.setdefault(subject.dataset, []).append(subject)
    splits: dict[str, str] = {}
    for members in by_dataset.values():
        splits |= {member.subject: str(member.official_split) for member in members}
        if not any(member.official_split == "val" for member in members):
            training = [member for member in members if member.official_split == "train"]
            splits |= stratified_splits(training, seed, OFFICIAL_FRACTIONS)
    return splits


def split_notes(site: str, subjects: Iterable[RawSubject], splits: Mapping[str, str]) -> list[str]:
    """Say which split of a site is empty or lacks a class, in words for a summary."""
    counts = Counter((splits[subject.subject], subject.label) for subject in subjects)
    notes = []
    for split in SPLITS:
        lacking = [name for label, name in enumerate(("NOR", "disease")) if not counts[split, label]]
        if len(lacking) == 2:
            notes.append(f"{site}: {split} is empty")
        elif lacking:
            notes.append(f"{site}: {split} has no {lacking[0]} subject")
    return notes


def _shuffled(seed: int) -> Callable[[RawSubject], tuple[str, str]]:
    """Order by pathology, and inside a pathology as if shuffled."""

    def key(subject: RawSubject) -> tuple[str, str]:
        return subject.pathology, hashlib.sha256(f"{seed}:{subject.vendor}:{subject.subject}".encode()).hexdigest()

    return key


def _quota(n: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Return how many of ``n`` subjects of a class go to each split."""
    held_out = {split: int(n * fractions[split] + 0.5) for split in ("val", "test")}
    if n >= 3:
        held_out = {split: max(count, int(fractions[split] > 0)) for split, count in held_out.items()}
    elif n == 2:
        # Two subjects cannot serve three splits; a result without a test would be none.
        last = "test" if fractions["test"] else "val"
        held_out = {split: int(split == last and fractions[split] > 0) for split in held_out}
    else:
        held_out = dict.fromkeys(held_out, 0)
    return {"train": n - sum(held_out.values()), **held_out}


def _spread(quota: Mapping[str, int], n: int) -> list[str]:
    """Return ``n`` splits in an order in which every stretch holds them in about the proportion of ``quota``."""
    given = dict.fromkeys(quota, 0)
    order = []
    for rank in range(1, n + 1):
        # The split that is furthest behind its share of the first `rank` subjects; ties go to the first named.
        behind = {split: quota[split] * rank / n - given[split] for split in quota if given[split] < quota[split]}
        split = max(behind, key=lambda name: behind[name])
        given[split] += 1
        order.append(split)
    return order
