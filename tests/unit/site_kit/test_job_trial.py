import csv
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest

from med_duallora.cohorts.examination import ERROR, NOTE, WARNING, Finding
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.site_kit.job_trial import try_job
from tests.conftest import write_tiny_cohort


@pytest.fixture
def site(tmp_path: Path, tiny_checkpoint: Path) -> SiteConfig:
    """A site whose folders do not exist: the trial must need none of them."""
    cohort = write_tiny_cohort(tmp_path / "cohort", "ge", seed=3, n_subjects=12, n_by_split=(8, 2, 2))
    nowhere = tmp_path / "nowhere"
    policy = SitePolicy.for_one_machine()
    return SiteConfig(cohort, nowhere / "state", nowhere / "cache", tiny_checkpoint, "cpu", policy=policy)


def tried(site: SiteConfig, job: JobConfig, *settings: str) -> list[Finding]:
    return list(try_job(site.data_dir, "mine", job.with_overrides(settings), site))


def test_a_job_that_can_run_is_tried_for_one_step_and_leaves_nothing(site: SiteConfig, tiny_job: JobConfig) -> None:
    before = sorted(site.data_dir.rglob("*"))
    (found,) = tried(site, tiny_job)
    assert found.severity == NOTE
    assert found.text.startswith(
        "the job mine can run here: the site's privacy floor agrees, and a step with 4 subjects"
    )
    assert "MiB of memory" in found.text
    assert sorted(site.data_dir.rglob("*")) == before
    assert not site.state_dir.parent.exists()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("lora.n_blocks=9", "lora.n_blocks = 9, but the backbone has 3 blocks"),
        ("backbone_sha256=" + "0" * 64, "the job pins the checkpoint 0000"),
    ],
)
def test_what_would_stop_the_job_is_an_error(site: SiteConfig, tiny_job: JobConfig, setting: str, says: str) -> None:
    (found,) = tried(site, tiny_job, setting)
    assert found.severity == ERROR
    assert found.text.startswith("the job mine cannot run here: ")
    assert says in found.text


def test_the_sites_own_floor_is_asked(site: SiteConfig, tiny_job: JobConfig) -> None:
    (found,) = tried(replace(site, policy=SitePolicy(max_rank=1)), tiny_job)
    assert found.severity == ERROR
    assert "policy.max_rank" in found.text


def test_a_damaged_volume_stops_the_trial_with_its_name(site: SiteConfig, tiny_job: JobConfig) -> None:
    (site.data_dir / "ge001" / "ge001_sax_es.nii.gz").write_bytes(b"damaged")
    (found,) = tried(site, tiny_job)
    assert found.severity == ERROR
    assert "ge001_sax_es.nii.gz" in found.text


def test_weights_that_cannot_fit_are_not_loaded(
    site: SiteConfig, tiny_job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        available = 1000

    monkeypatch.setattr(psutil, "virtual_memory", Full)
    (found,) = tried(site, tiny_job)
    assert found.severity == ERROR
    assert "MiB, and 0 MiB are free" in found.text


@pytest.mark.parametrize(
    ("settings", "severity", "says"),
    [
        (["train.batch_size=1"], ERROR, "8 training subjects in batches of at most 1 make steps of 1"),
        (["train.batch_size=3"], WARNING, "make steps of 2"),
        (["train.batch_size=16"], NOTE, "one step takes all 8 training subjects: train.batch_size is 16"),
    ],
)
def test_steps_are_compared_with_the_training_split(
    site: SiteConfig, tiny_job: JobConfig, settings: list[str], severity: str, says: str
) -> None:
    _, found = tried(site, tiny_job, *settings)
    assert found.severity == severity
    assert says in found.text
    without = tried(site, tiny_job, *settings, "lora.head_norm=none")
    assert [item.severity for item in without[1:]] == ([NOTE] if severity == NOTE else [])


def test_volumes_are_compared_with_what_the_backbone_reads(site: SiteConfig, tiny_job: JobConfig) -> None:
    for phase in ("ed", "es"):
        path = site.data_dir / "ge002" / f"ge002_sax_{phase}.nii.gz"
        voxels = np.random.default_rng(ord(phase[1])).integers(0, 255, (150, 192, 7)).astype(np.uint8)
        nib.save(nib.Nifti1Image(voxels, np.diag([1, 1, 10, 1])), path)
    table = site.data_dir / "cohort.csv"
    rows = list(csv.DictReader(table.open(newline="")))
    rows[2]["n_slices"] = "7"
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    _, tall, small = tried(site, tiny_job)
    assert (tall.severity, tall.subjects) == (WARNING, ("ge002",))
    assert "more slices than cinema-tiny reads (4)" in tall.text
    assert (small.severity, small.subjects) == (NOTE, ("ge002",))
    assert "smaller in plane than the 192 x 192 mm that cinema-tiny sees" in small.text
