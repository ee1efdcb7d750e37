"""A site's own model is written only where the site says so, and the ledger has a line either way."""

from dataclasses import replace
from pathlib import Path

import pytest

from med_duallora.boundary.ledger_audit import read_lines, verify
from med_duallora.errors import LedgerError
from med_duallora.export.permission import permit
from med_duallora.settings.config import SiteConfig
from med_duallora.settings.policy import SitePolicy
from tests.unit.export.trained import JOBS, trained_model
from tests.unit.refused import refused

FORM = "merged checkpoint"


@pytest.fixture
def config(tmp_path: Path) -> SiteConfig:
    return SiteConfig(data_dir=tmp_path / "data", state_dir=tmp_path / "state", cache_dir=tmp_path / "cache")


def test_nothing_is_written_of_a_sites_model_unasked(config: SiteConfig) -> None:
    with refused("policy.model_leaves", False) as caught:
        permit("siemens", config, trained_model(JOBS["med-duallora"]), FORM, stays_at_site=False)
    assert "--stays-at-site" in str(caught.value)
    (line,) = read_lines(config.ledger_path)
    assert (line["kind"], line["verdict"], line["site"], line["task"]) == ("export", "blocked", "siemens", "export")


@pytest.mark.parametrize(
    ("flag", "policy", "reason"),
    [
        (True, SitePolicy(), "merged checkpoint: --stays-at-site"),
        (False, SitePolicy(model_leaves=True), "merged checkpoint: policy.model_leaves is true"),
    ],
)
def test_what_is_allowed_is_in_the_ledger(config: SiteConfig, flag: bool, policy: SitePolicy, reason: str) -> None:
    model = trained_model(JOBS["med-duallora"])
    permit("siemens", replace(config, policy=policy), model, FORM, stays_at_site=flag)
    (line,) = read_lines(config.ledger_path)
    assert (line["verdict"], line["reason"]) == ("allowed", reason)
    kept = model.values(model.plan.kept)
    assert set(line["tensors"]) == {*kept, "mean", "scale"}
    assert line["n_bytes"] == sum(value.nbytes for value in kept.values()) + 2 * 4 * model.head_norm.mean.numel()
    assert verify(config.ledger_path).problems == ()


def test_two_models_have_two_hashes(config: SiteConfig) -> None:
    for seed in (0, 1):
        permit("siemens", config, trained_model(JOBS["med-duallora"], seed), FORM, stays_at_site=True)
    one, other = read_lines(config.ledger_path)
    assert one["sha256"] != other["sha256"]


def test_without_its_ledger_a_site_exports_nothing(config: SiteConfig) -> None:
    model = trained_model(JOBS["med-duallora"])
    permit("siemens", config, model, FORM, stays_at_site=True)
    config.ledger_path.unlink()
    with pytest.raises(LedgerError, match="replaced or cut"):
        permit("siemens", config, model, FORM, stays_at_site=True)
