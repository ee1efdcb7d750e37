"""What a job folder would send, its hash to pin, and whether the site takes it."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from med_duallora.boundary.contract import EgressContract, job_sha256
from med_duallora.cli import main
from med_duallora.errors import ConfigError, KitError
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.site_kit import harden
from med_duallora.site_kit.job_check import job_settings, judge
from tests.unit.refused import refused
from tests.unit.site_kit.conftest import places
from tests.unit.site_kit.test_hardening import REPOSITORY, change

CONFIG = SiteConfig(Path("d"), Path("s"), Path("c"))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return Path(shutil.copytree(REPOSITORY / "jobs" / "production", tmp_path / "job"))


def test_the_settings_are_those_that_every_site_reads(job: Path):
    assert job_settings(job) == JobConfig()
    assert job_settings(job / "app") == JobConfig(), "the application's folder does as well"


def test_the_contract_follows_from_the_job_alone(job: Path):
    contract, refusal = judge(job, CONFIG)
    assert contract == EgressContract.for_job(JobConfig()) and refusal == []
    assert judge(job, None)[0].sha256 == contract.sha256


def test_a_policy_that_refuses_is_quoted(job: Path):
    strict = dataclasses.replace(CONFIG, policy=SitePolicy(max_rank=4))
    assert [problem.key for problem in judge(job, strict)[1]] == ["policy.max_rank"]


def test_a_job_that_is_not_literal_is_refused_before_it_is_submitted(job: Path):
    path = job / "app" / "config" / "config_fed_client.json"
    path.write_text(path.read_text().replace('"demo"', '"{$HOME}"'))
    with pytest.raises(ConfigError, match="is not literal"):
        judge(job, CONFIG)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a client configuration"),
        ("[]", "is not a client configuration"),
        ('{"components": []}', "has 0 components"),
        ('{"components": [{"path": "med_duallora.flare.wire.job.FederatedJob"}]}', "is not a client configuration"),
    ],
)
def test_what_is_no_job_of_ours_is_refused(job: Path, text: str, message: str):
    (job / "app" / "config" / "config_fed_client.json").write_text(text)
    with pytest.raises(KitError, match=message):
        job_settings(job)


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(KitError, match="holds 0 client configurations"):
        job_settings(tmp_path)


def test_settings_out_of_range_are_named(job: Path):
    path = job / "app" / "config" / "config_fed_client.json"
    values = json.loads(path.read_text())
    next(item for item in values["components"] if item["id"] == "job")["args"]["config"]["lora"]["rank_global"] = 999
    path.write_text(json.dumps(values))
    with refused("lora.rank_global", 999):
        job_settings(job)


def test_the_command_prints_the_hash_to_pin(site_kit: Path, job: Path, tmp_path: Path, capsys):
    harden(site_kit)
    change(site_kit, "med_duallora_site.json", lambda v: v.update(places(tmp_path) | {"state_dir": "/CHANGE-ME/state"}))
    arguments = ["preflight", "--startup-kit", str(site_kit), "--job", str(job)]
    assert main(arguments) == 1
    said, warned = capsys.readouterr()
    assert "site configuration: state_dir = '/CHANGE-ME/state', but it is still the one of the template" in warned
    sha256 = EgressContract.for_job(JobConfig()).sha256
    assert f"for policy.contract_sha256: {sha256}" in said and "the site accepts this job" in said
    assert f"for policy.job_sha256: {job_sha256(JobConfig())}" in said
    assert "blocks.5.attn.kv.global_b  float32 384x8" in said
    change(site_kit, "med_duallora_site.json", lambda v: v.update(places(tmp_path)))
    assert main(arguments) == 0
    change(site_kit, "med_duallora_site.json", lambda v: v["policy"].update(contract_sha256=[sha256]))
    assert main(arguments) == 0
    change(site_kit, "med_duallora_site.json", lambda v: v["policy"].update(contract_sha256=["0" * 64]))
    assert main(arguments) == 1
    assert "policy.contract_sha256" in capsys.readouterr().out
