"""A tiny site that was trained and evaluated once, and raw scans that it has never seen."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from med_duallora.boundary.lineage import Lineage
from med_duallora.cohorts.nifti import write_nifti
from med_duallora.cohorts.prepared import PreparedCohort, PreparedSubject
from med_duallora.settings.config import SiteConfig
from med_duallora.settings.policy import SitePolicy
from tests.unit.cohorts.dicomfiles import SPACING, cine
from tests.unit.inference.received import global_adapter, job_with
from tests.unit.tiny import random_payload
from tests.unit.tiny_site import runtime_of


@dataclass(frozen=True)
class Trained:
    """What a job left at a site.

    Args:
        experiment: folder of its runs.
        run: folder of the run.
        checkpoint: the backbone.
        adapter: the global adapter that the server kept of the job.
        shared: that of a job whose sites share the head.
        said: the evaluation's probabilities by test subject.
        subjects: of the test split.
        config: of the site.
    """

    experiment: Path
    run: Path
    checkpoint: Path
    adapter: Path
    shared: Path
    said: dict[str, float]
    subjects: tuple[PreparedSubject, ...]
    config: SiteConfig


@pytest.fixture(scope="session")
def trained(tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    place = tmp_path_factory.mktemp("trained")
    config = SiteConfig(
        tiny_cohorts["siemens"],
        place / "state",
        place / "cache",
        tiny_checkpoint,
        device="cpu",
        policy=SitePolicy.for_one_machine(),
    )
    runtime = runtime_of(config)
    runtime.model.follow(Lineage.begin())
    start = random_payload(runtime.contract, scale=0.3)
    runtime.train_round(start, 0)
    runtime.evaluate(random_payload(runtime.contract, seed=1, scale=0.3))
    run = runtime.model.directory
    rows = json.loads((run / "predictions.json").read_text())["predictions"]
    nowhere = replace(config, data_dir=place / "nowhere")
    said = {row["subject"]: row["both"] for row in rows}
    adapter = global_adapter(place / "server", job_with(tiny_checkpoint))
    shared = global_adapter(place / "shared", job_with(tiny_checkpoint, "lora.head_policy=shared"))
    subjects = runtime.cohort.split("test")
    return Trained(run.parent, run, tiny_checkpoint, adapter, shared, said, subjects, nowhere)


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A beating disc as a cine, its ED and ES as two files, and files that cannot be predicted."""
    folder = tmp_path_factory.mktemp("scans")
    affine, frames = np.diag([*SPACING, 1.0]), cine()
    write_nifti(folder / "cine.nii.gz", frames, affine)
    write_nifti(folder / "ed.nii.gz", frames[..., 2], affine)
    write_nifti(folder / "es.nii.gz", frames[..., 7], affine)
    write_nifti(folder / "long_axis.nii.gz", frames[:, :, 2:3], affine)
    write_nifti(folder / "empty.nii.gz", np.zeros_like(frames[..., 0]), affine)
    write_nifti(folder / "still.nii.gz", frames[..., [2, 2, 2]], affine)
    (folder / "damaged.nii.gz").write_bytes((folder / "ed.nii.gz").read_bytes()[:2000])
    return folder


@pytest.fixture(scope="session")
def prepared(trained: Trained) -> PreparedCohort:
    return PreparedCohort.read(trained.subjects[0].ed_path.parents[1])
