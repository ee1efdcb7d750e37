"""The checks of an examination: one function each, from what was read to what is to be said."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from med_duallora.cohorts.classes import NAMES, class_sizes, too_few, untrainable
from med_duallora.cohorts.examination.measures import MEASURES, SubjectMeasures, odd_ones
from med_duallora.cohorts.identity import SharedImages
from med_duallora.cohorts.prepared import SPLITS, PreparedCohort, PreparedSubject
from med_duallora.cohorts.vocabulary import NORMAL, PATHOLOGIES
from med_duallora.settings.policy import SitePolicy

ERROR, WARNING, NOTE = "error", "warning", "note"
"""It cannot join so; it can, but somebody should look; good to know."""

FAR = 5.0
"""Robust standard deviations from the cohort's median, beyond which a subject is shown to somebody."""
LEAST = {"n_slices": 0.15, "spacing_x": 0.15, "spacing_z": 0.15, "lv_ed_ml": 0.4, "lv_ejection": 0.2}
"""What counts as one standard deviation at the least, as a part of the value; 0.1 for the other measures."""
LOW_CONFIDENCE = 0.5
FEW_OF_A_CLASS = 5
PLACES: Mapping[str, Callable[[PreparedSubject], str]] = {
    "centre": lambda item: item.centre,
    "vendor": lambda item: item.vendor,
    "data set": lambda item: item.dataset,
}
"""Where somebody was scanned, by what it is called in a sentence."""


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Args:
        severity: ``error``, ``warning`` or ``note``.
        text: what, where and what to do, in a sentence or two.
        subjects: whom it concerns; empty: the cohort as a whole.
    """

    severity: str
    text: str
    subjects: tuple[str, ...] = ()


def classes(cohort: PreparedCohort) -> Iterator[Finding]:
    """Check that every split has what its use needs: both classes to train on, and to be judged by."""
    for split in SPLITS:
        labels = [subject.label for subject in cohort.split(split)]
        n_normal, n_disease = labels.count(0), labels.count(1)
        counted = f"the {split} split has {n_normal} normal (NOR) and {n_disease} diseased subjects"
        if split == "train" and not (n_normal and n_disease):
            yield Finding(ERROR, untrainable(cohort))
        elif not (n_normal and n_disease):
            use = "the best round cannot be chosen" if split == "val" else "balanced accuracy and AUROC are not defined"
            yield Finding(WARNING, f"{counted}: without both classes {use} at this site")
        elif split == "test" and min(n_normal, n_disease) < FEW_OF_A_CLASS:
            step = 1 / min(n_normal, n_disease)
            moved = "specificity" if n_normal <= n_disease else "sensitivity"
            yield Finding(
                NOTE, f"{counted}: one subject moves {moved} by {step:.2f}, so scores of this site are coarse"
            )


def privacy(cohort: PreparedCohort, policy: SitePolicy, named: str) -> Iterator[Finding]:
    """Check what the site's privacy floor will keep back because too few subjects of a class are behind it."""
    if not untrainable(cohort) and (lack := too_few(cohort, policy)):
        yield Finding(ERROR, f"no job can run with the policy of {named}: {lack}")
    if not policy.metrics_leave:
        yield Finding(NOTE, f"{named} lets no metric leave (policy.metrics_leave is false), whatever the cohort's size")
        return
    for split in SPLITS:
        n_normal, n_diseased = class_sizes(cohort.split(split))
        if min(n_normal, n_diseased) < policy.min_subjects:
            yield Finding(
                WARNING,
                f"the {split} split has {n_normal} {NAMES[0]} and {n_diseased} {NAMES[1]} subject(s), but {named} lets "
                f"numbers leave only from {policy.min_subjects} of each class on (policy.min_subjects): the federation "
                f"sees no {split} score of this site",
            )


def sharing(shared: Sequence[SharedImages], where: Mapping[str, str]) -> Iterator[Finding]:
    """Check that no scan is there twice: one that is trained on must not be tested on, here or at another site.

    Args:
        shared: pairs of subjects with an image in common.
        where: the cohort of each subject's images, by its ED path.
    """
    for pair in shared:
        first, second = (
            f"{item.subject} ({item.split}{where[str(item.ed_path)]})" for item in (pair.first, pair.second)
        )
        images = " and ".join(f"the {one} image of one is the {other} image of the other" for one, other in pair.images)
        use = "one is judged by what was learned from the other" if pair.leaks else "it counts twice"
        text = f"{first} and {second} are one scan: {images}; {use}. Keep one of them and prepare again"
        yield Finding(ERROR, text, (pair.first.subject, pair.second.subject))


def oddities(measured: Sequence[SubjectMeasures]) -> Iterator[Finding]:
    """Find subjects that somebody should look at, because a measure lies far from all others'."""
    values = {item.subject.subject: item.values for item in measured}
    for name, what in MEASURES.items():
        odd = tuple(odd_ones(measured, name, FAR, LEAST.get(name, 0.1)))
        if odd:
            listed = ", ".join(f"{subject} {values[subject][name]:.4g}" for subject in odd)
            middle = statistics.median(item.values[name] for item in measured if name in item.values)
            yield Finding(WARNING, f"{what}: far from the median of {middle:.4g}: {listed}; look at the images", odd)


def cropping(subjects: Sequence[PreparedSubject]) -> Iterator[Finding]:
    """Report hearts that were not found, or found with little confidence, and frames that nobody marked."""
    centred = tuple(item.subject for item in subjects if item.crop_centre == "image")
    if centred:
        text = f"{len(centred)} subject(s) were cropped at the image's centre: see whether the heart is in the picture"
        yield Finding(WARNING, text, centred)
    unsure = tuple(
        item.subject
        for item in subjects
        if item.crop_confidence is not None and item.crop_confidence < LOW_CONFIDENCE and item.crop_centre == "motion"
    )
    if unsure:
        yield Finding(WARNING, f"{len(unsure)} heart(s) were found by their motion with low confidence: look", unsure)
    automatic = tuple(item.subject for item in subjects if item.frames == "automatic")
    if automatic:
        text = (
            f"ED and ES of {len(automatic)} subject(s) were chosen automatically: see whether they are the right frames"
        )
        yield Finding(NOTE, text, automatic)


def remarks(subjects: Sequence[PreparedSubject]) -> Iterator[Finding]:
    """Repeat what the preparation noticed about the raw files, each kind once: details follow a colon in a remark."""
    kinds = [{text.partition(":")[0] for text in item.remarks} for item in subjects]
    for kind, n in Counter(text for texts in kinds for text in texts).most_common():
        named = tuple(item.subject for item, texts in zip(subjects, kinds, strict=True) if kind in texts)
        yield Finding(NOTE, f"remark of the preparation on {n} subject(s): {kind}; cohort.csv has the details", named)


def labels(subjects: Sequence[PreparedSubject]) -> Iterator[Finding]:
    """Check that label and pathology say the same; a table edited by hand may not. Unknown words are not judged."""
    diseases = PATHOLOGIES.keys() - {NORMAL}
    wrong = tuple(item.subject for item in subjects if item.pathology in (diseases if item.label == 0 else {NORMAL}))
    if wrong:
        text = f"label and pathology of {len(wrong)} subject(s) contradict each other: label 0 is {NORMAL}, 1 a disease"
        yield Finding(ERROR, f"{text}; correct the source and prepare again", wrong)


def unusable(measured: Sequence[SubjectMeasures]) -> Iterator[Finding]:
    """Report volumes that are whole files but show no beating heart, and label maps that cannot be read."""
    for severity, texts in (
        (ERROR, {item.subject.subject: item.problems for item in measured}),
        (WARNING, {item.subject.subject: item.doubts for item in measured}),
    ):
        for text, n in Counter(text for own in texts.values() for text in own).most_common():
            yield Finding(
                severity, f"{n} subject(s): {text}", tuple(name for name, own in texts.items() if text in own)
            )


def confounded(subjects: Sequence[PreparedSubject]) -> Iterator[Finding]:
    """Find where normal and diseased subjects were scanned at different places: a model may learn the place."""
    for what, value in PLACES.items():
        normal, diseased = ({value(item) for item in subjects if item.label == label} for label in (0, 1))
        if normal and diseased and not normal & diseased:
            text = f"no {what} has both normal (NOR) and diseased subjects: a model can learn the {what} instead"
            yield Finding(WARNING, f"{text}; add subjects, or make one site of each {what}")


def mixture(subjects: Sequence[PreparedSubject]) -> Iterator[Finding]:
    """Say where one site holds several scanners or data sets: the local adapter fits what a site has in common."""
    vendors = Counter(item.vendor for item in subjects)
    if len(vendors) > 1:
        counted = ", ".join(f"{vendor} {n}" for vendor, n in vendors.most_common())
        yield Finding(NOTE, f"scanners of {len(vendors)} vendors are one site here ({counted})")
