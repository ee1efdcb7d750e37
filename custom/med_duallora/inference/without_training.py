"""Models of a site that did not train: the global adapter of a federation, with a head from elsewhere.

``fitted`` fits one to labelled subjects of the site, or corrects by them the one that the sites share; ``shared`` takes
the one that the sites learnt together, where there is one, and needs no label.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from med_duallora.backbone import checkpoint_sha256
from med_duallora.cohorts.classes import lacking_class
from med_duallora.cohorts.prepared import COHORT_TABLE, PreparedCohort, PreparedSubject
from med_duallora.cohorts.provenance import is_synthetic
from med_duallora.errors import CohortError, InputError, ScanError
from med_duallora.inference.saved import SavedModel
from med_duallora.inference.scan import ScanSource
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site.calibration import calibrate
from med_duallora.site.features import FeatureSource
from med_duallora.site.head import correct_head, few, fit_head, summaries_of
from med_duallora.site.kept_calibration import KeptCalibration, KeptCounts
from med_duallora.site.prediction import predict, summaries_of_volume, trunk_summaries
from med_duallora.site.received import ReceivedAdapter
from med_duallora.site.reference import fit_reference
from med_duallora.site.state import SiteState
from med_duallora.support.digest import content_digest
from med_duallora.support.files import sha256_of_file
from med_duallora.support.progress import track

MIN_SCANS = 8
"""Scans below which their features give no statistics for the head: each would be compared with little but itself."""
GLOBAL_ALONE = "(global adapter)"
"""Stands for a site where a model is of none; it is the name of no site in FLARE."""


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
    """Return a model with a head that was fitted to the cohort's training split, or corrected where there was one.

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
        summaries_of(network, source, [subject], view, precision=settings.precision)
        for view, subject in track(steps, "reading training subjects", len(steps))
    ]
    n = len(chosen)
    views = [np.concatenate(rows[view * n : (view + 1) * n]) for view in range(settings.n_views + 1)]
    fit = fit_head if received.head_policy == "local" else correct_head
    fit(network, views, [subject.label for subject in chosen])
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


def shared(received: ReceivedAdapter, sources: Sequence[ScanSource], checkpoint: Path, device: str) -> SavedModel:
    """Return the global adapter with the head that its sites shared, for these scans; none needs a label.

    Where the head reads standardised features, their statistics are those of the scans themselves: at a site that
    trained they would be those of its training subjects. So a prediction depends on which scans are given together.

    Args:
        received: the global adapter with the shared head.
        sources: the scans that will be predicted; what cannot be read is left out here.
        checkpoint: the backbone.
        device: where to compute.

    Raises:
        InputError: the job's head stayed at the sites, or fewer than ``MIN_SCANS`` different scans can be read.
        CheckpointError: the backbone is unusable, or another one than the sites trained with.
        ConfigError: the device is not there.
    """
    if received.head_policy == "local":
        raise InputError(
            f"adapter {received.name} brings no head: in its job the head stays at the sites (lora.head_policy = "
            "local). Fit one to a few labelled subjects with `med-duallora fit-head`"
        )
    network, sha256 = received.network(checkpoint, device), checkpoint_sha256(checkpoint)
    remark = "Global adapter with the shared head; no site evaluated it here"
    if network.head_norm.active:
        source = FeatureSource(network, received.job, sha256, None)
        precision, summaries = received.job.train.precision, {}
        for item in track(sources, "reading the scans for the head's statistics", len(sources)):
            with contextlib.suppress(ScanError):  # whoever predicts it says why
                volume = item.read().volume
                # a scan that is there twice, under other names, tells nothing of how scans differ
                summaries[content_digest({"volume": volume}, {})] = summaries_of_volume(
                    network, source, volume, precision
                )
        if len(summaries) < MIN_SCANS:
            raise InputError(
                f"{len(summaries)} different scans can be read, and the head needs the statistics of at least "
                f"{MIN_SCANS}: give more scans together, or fit a head to labelled subjects with "
                "`med-duallora fit-head`"
            )
        network.head_norm.fit(torch.cat(list(summaries.values())))
        remark += f"; features standardised with the statistics of these {len(summaries)} scans themselves"
    state = SiteState(
        round_index=received.round_index,
        kept=network.values(network.plan.kept),
        moments={},
        sent=network.values(network.plan.sent),
        statistics=network.head_norm.statistics(),
    )
    return SavedModel(GLOBAL_ALONE, received.job, sha256, received.lineage, state, remark=remark)


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
