"""The choice of what a site uses, over many drawn sites and in a federation that teaches the opposite."""

from pathlib import Path

import pytest
from benchmarks.choice import WORLDS, outcome
from benchmarks.poisoned_site import poisoned

from med_duallora.settings.config import JobConfig
from tests.conftest import write_tiny_cohort

TOLERANCE = {6: 0.08, 12: 0.03}
"""What the choice itself may cost, by validation subjects of each class."""


@pytest.mark.parametrize("n_per_class", TOLERANCE)
@pytest.mark.parametrize("world", WORLDS)
def test_a_sites_expected_loss_is_not_above_that_of_what_it_has_alone(world: str, n_per_class: int) -> None:
    found = outcome(WORLDS[world], n_per_class, n_sites=150, seed=3)
    assert found.regret <= TOLERANCE[n_per_class]
    if world == "joining helps":
        assert found.losses["chosen"] <= found.losses["both"] + 0.02, "the federation's gain is not given away"
        assert found.stays > 0.8
    if world == "the others poison the site":
        assert found.stays == 0


def test_the_lowest_loss_would_leave_the_federation_by_chance() -> None:
    found = outcome(WORLDS["nothing differs"], 6, n_sites=150, seed=4)
    assert found.stays_by_lowest < 0.35
    assert found.stays > 0.5, "four models that are equally good"


def test_a_site_whose_others_teach_the_opposite_uses_what_it_has(
    tmp_path: Path, tiny_checkpoint: Path, tiny_job: JobConfig
) -> None:
    cohorts = {
        site: write_tiny_cohort(tmp_path / site, site, seed, n_subjects=32, n_by_split=(8, 12, 12))
        for seed, site in enumerate(("siemens", "philips", "ge"))
    }
    job = tiny_job.with_overrides(["train.local_epochs=3", "train.n_rounds=4", "train.compare_alone=true"])
    found = poisoned(job, cohorts, "siemens", tmp_path / "work", tiny_checkpoint)
    assert found.choice.variant in ("alone", "backbone"), found.losses
    assert found.losses["both"] > found.losses["backbone"] + 0.2, "it was harmed, as far as the federation goes"
    assert found.losses["chosen"] <= found.losses["backbone"] + 0.15, "up to what 24 subjects cannot tell apart"
    assert found.joining_helped is not None and found.joining_helped < 0.2
