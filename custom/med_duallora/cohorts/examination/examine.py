"""An examination of one or several prepared cohorts, from their folders to one sentence."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from med_duallora.cohorts.examination import findings as checks
from med_duallora.cohorts.examination.findings import ERROR, NOTE, WARNING, Finding
from med_duallora.cohorts.examination.measures import SubjectMeasures, measure
from med_duallora.cohorts.identity import shared_images
from med_duallora.cohorts.prepared import COHORT_TABLE, SPLITS, PreparedCohort, PreparedSubject, read_each
from med_duallora.cohorts.provenance import is_synthetic
from med_duallora.errors import CohortError, InputError
from med_duallora.settings.policy import SitePolicy
from med_duallora.support.progress import track

REFUSED_TABLE = "refused.csv"
SEVERITIES = (ERROR, WARNING, NOTE)


@dataclass(frozen=True)
class Examination:
    """What was found about one prepared cohort.

    Args:
        cohort: as its table says; without subjects where the table could not be read.
        measured: every subject whose volumes could be opened.
        findings: errors first.
        synthetic: whether it holds phantoms.
    """

    cohort: PreparedCohort
    measured: tuple[SubjectMeasures, ...]
    findings: tuple[Finding, ...]
    synthetic: bool

    @property
    def is_fit(self) -> bool:
        """Return whether nothing was found that keeps the cohort from joining."""
        return not self.n(ERROR)

    def n(self, severity: str) -> int:
        """Return how many findings are of this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def sentence(self) -> str:
        """Say whether the cohort can join, and on how many subjects that rests."""
        subjects = self.cohort.subjects
        labels = [subject.label for subject in subjects]
        splits = ", ".join(f"{len(self.cohort.split(split))} {split}" for split in SPLITS)
        size = f"{len(subjects)} subjects ({labels.count(0)} normal (NOR), {labels.count(1)} diseased; {splits})"
        name = self.cohort.directory.name
        if not self.is_fit:
            first = next(finding.text for finding in self.findings if finding.severity == ERROR)
            more = self.n(ERROR) - 1
            rest = f" And {more} more error(s)." if more else ""
            return f"{name} cannot join yet: {first}.{rest}"
        look = f"; {self.n(WARNING)} warning(s) to look at" if self.n(WARNING) else ""
        return f"{name} is fit to join: {size}{look}."


def cohorts_at(places: Sequence[Path]) -> list[Path]:
    """Return the prepared cohorts that are, or lie directly below, these folders; each once.

    Raises:
        InputError: a folder is not there, or holds no prepared cohort.
    """
    found: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            raise InputError(f"{place} does not exist, or is not a folder; give a prepared cohort")
        here = (
            [place] if (place / COHORT_TABLE).is_file() else sorted(t.parent for t in place.glob(f"*/{COHORT_TABLE}"))
        )
        if not here:
            raise InputError(
                f"{place} holds no prepared cohort (no {COHORT_TABLE} in it or directly below it); "
                "`med-duallora prepare` makes one from your files"
            )
        found.update(dict.fromkeys(folder.resolve() for folder in here))
    return list(found)


def examine(
    folders: Sequence[Path],
    policy: SitePolicy,
    policy_named: str,
    further: Callable[[Path], Iterator[Finding]] = lambda _: iter(()),
) -> list[Examination]:
    """Examine cohorts one by one, and against each other.

    Args:
        folders: prepared cohorts, see ``cohorts_at``.
        policy: the privacy floor of the site that would hold them.
        policy_named: what that floor is called in a sentence.
        further: more checks of a cohort's folder, which need what this room does not have.

    Returns:
        One examination per folder, in their order.
    """
    read = {folder: _read(folder) for folder in folders}
    measured = {folder: _measured(cohort) for folder, (cohort, _) in read.items()}
    # A scan is looked for among those that can be opened; the others are errors already.
    shared = _sharing([PreparedCohort(folder, _subjects(there)) for folder, (there, _) in measured.items()])
    found = []
    for folder, (cohort, unreadable) in read.items():
        there, damaged = measured[folder]
        all_findings = [*unreadable, *damaged]
        if cohort.subjects:
            all_findings += [*checks.classes(cohort), *checks.privacy(cohort, policy, policy_named)]
            all_findings += [*checks.labels(cohort.subjects), *checks.unusable(there), *shared.get(folder, [])]
            all_findings += [*checks.cropping(cohort.subjects), *checks.oddities(there), *further(folder)]
            all_findings += [*checks.confounded(cohort.subjects), *checks.mixture(cohort.subjects)]
            all_findings += [*checks.remarks(cohort.subjects), *_refused(folder)]
        all_findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
        found.append(Examination(cohort, tuple(there), tuple(all_findings), is_synthetic(folder)))
    return found


def _subjects(measured: Sequence[SubjectMeasures]) -> tuple[PreparedSubject, ...]:
    return tuple(item.subject for item in measured)


def _read(folder: Path) -> tuple[PreparedCohort, list[Finding]]:
    """Return the rows of a cohort that can be used, and what is wrong with the others."""
    try:
        rows = read_each(folder)
    except CohortError as error:
        return PreparedCohort(folder, ()), [Finding(ERROR, str(error))]
    good = tuple(row for _, row in rows if not isinstance(row, CohortError))
    bad = [Finding(ERROR, str(row), (name,)) for name, row in rows if isinstance(row, CohortError)]
    return PreparedCohort(folder, good), bad


def _measured(cohort: PreparedCohort) -> tuple[list[SubjectMeasures], list[Finding]]:
    there, damaged = [], []
    for subject in track(cohort.subjects, f"examining {cohort.directory.name}", len(cohort.subjects)):
        try:
            there.append(measure(subject))
        except CohortError as error:
            damaged.append(Finding(ERROR, f"{error}: prepare {subject.subject} again", (subject.subject,)))
    return there, damaged


def _sharing(cohorts: Sequence[PreparedCohort]) -> Mapping[Path, list[Finding]]:
    """Return, by cohort, the scans that it shares within itself or with another one."""
    several = len(cohorts) > 1
    where = {
        str(subject.ed_path): f", {cohort.directory.name}" if several else ""
        for cohort in cohorts
        for subject in cohort.subjects
    }
    homes = {str(subject.ed_path): cohort.directory for cohort in cohorts for subject in cohort.subjects}
    result: dict[Path, list[Finding]] = {}
    for pair in shared_images(cohorts):
        finding = next(checks.sharing([pair], where))
        for home in {homes[str(pair.first.ed_path)], homes[str(pair.second.ed_path)]}:
            result.setdefault(home, []).append(finding)
    return result


def _refused(folder: Path) -> Iterator[Finding]:
    """Report how many raw subjects the preparation refused, where its table lies beside the cohorts."""
    path = folder.parent / REFUSED_TABLE
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            n = sum(1 for _ in csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error):
        return
    if n:
        yield Finding(NOTE, f"the preparation refused {n} subject(s) of all its sources; {path} says why")
