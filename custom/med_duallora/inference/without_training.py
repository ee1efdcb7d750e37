"""Models of a site that did not train: the global adapter of a federation, with a head from elsewhere.

``fitted`` fits one to labelled subjects of the site.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from med_duallora.backbone import checkpoint_sha256
from med_duallora.cohorts.classes import lacking_class
from med_duallora.cohorts.prepared import COHORT_TABLE, PreparedCohort, PreparedSubject
from med_duallora.cohorts.provenance import is_synthetic
from med_duallora.errors import CohortError
from med_duallora.inference.saved import SavedModel
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site.calibration import calibrate
from med_duallora.site.features import FeatureSource
from med_duallora.site.head import few, fit_head, summaries_of
from med_duallora.site.kept_calibration import KeptCalibration, KeptCounts
from med_duallora.site.prediction import predict, trunk_summaries
from med_duallora.site.received import ReceivedAdapter
from med_duallora.site.reference import fit_reference
from med_duallora.site.state import SiteState
from med_duallora.support.files import sha256_of_file
from med_duallora.support.progress import track


def fitted(
    received: ReceivedAdapter,
    site: str,
    cohort: PreparedCohort,
    checkpoint: Path,
    *,
    k: int | None = None,
    device: str = "auto",
    floors: ReleaseFloors | None = None,
) -> SavedModel:
    """Return a model with a head that was fitted to the cohort's training split.

    As after a federation's evaluation, temperature and threshold are fitted to the validation subjects and the test
    subjects are counted at that threshold, so that the model has a release gate.

    Args:
        received: the global adapter; the local one stays at its start, where its product is zero.
        site: whose model it will be.
        cohort: of the site.
        checkpoint: the backbone.
        k: how many training subjects are used; None: all.
        device: where to compute.
        floors: of the site's release gate; None: none.

    Raises:
        CohortError: the training split lacks a class, or has too few subjects; or a volume is unusable.
        CheckpointError: the backbone is unusable, or another one than the sites trained with.
        ConfigError: the device is not there.
    """
    chosen = _chosen(cohort, k, received.job.train.seed)
    network, settings = received.network(checkpoint, device), received.job.train
    sha256 = checkpoint_sha256(checkpoint)
    source = FeatureSource(network, received.job, sha256, None)
    steps = [(view, subject) for view in range(settings.n_views + 1) for subject in chosen]
    rows = [
        summaries_of(network, source, [subject], view, settings.precision)
        for view, subject in track(steps, "reading training subjects", len(steps))
    ]
    n = len(chosen)
    views = [np.concatenate(rows[view * n : (view + 1) * n]) for view in range(settings.n_views + 1)]
    fit_head(network, views, [subject.label for subject in chosen])
    others = [*cohort.split("val"), *cohort.split("test")]
    chances = {
        subject.subject: predict(network, source, [subject], settings)[0]
        for subject in track(others, "reading validation and test subjects", len(others))
    }
    state = SiteState(
        round_index=received.round_index,
        kept=network.values(network.plan.kept),
        moments={},
        cohort=sha256_of_file(cohort.directory / COHORT_TABLE),
        sent=network.values(network.plan.sent),
        statistics=network.head_norm.statistics(),
        reference=fit_reference(trunk_summaries(network, source, chosen, settings), chosen),
    )
    evaluation = _evaluated(site, received.job.experiment, cohort, chances, floors or ReleaseFloors())
    return SavedModel(site, received.job, sha256, received.lineage, state, evaluation=evaluation, is_evaluated=True)


def _chosen(cohort: PreparedCohort, k: int | None, seed: int) -> tuple[PreparedSubject, ...]:
    if lack := lacking_class(cohort):
        raise CohortError(f"{cohort.directory}: a head needs both classes, and {lack}")
    try:
        return few(cohort.split("train"), k, seed)
    except CohortError as error:
        raise CohortError(f"{cohort.directory}: of its train split, {error}; prepare more subjects") from error


def _evaluated(
    site: str, experiment: str, cohort: PreparedCohort, chances: dict[str, float], floors: ReleaseFloors
) -> KeptCalibration:
    def of(split: str) -> tuple[list[int], list[float]]:
        subjects: Sequence[PreparedSubject] = cohort.split(split)
        return [subject.label for subject in subjects], [chances[subject.subject] for subject in subjects]

    calibration = calibrate(*of("val"), floors)
    counts = KeptCounts(**vars(calibration.counts(*of("test"))))
    return KeptCalibration(site, experiment, is_synthetic(cohort.directory), "", calibration, floors, counts)
