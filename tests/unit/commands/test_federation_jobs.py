import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from med_duallora.commands.federation_jobs import kept_of_failed, submitted
from med_duallora.errors import FederationError, UnfitError
from med_duallora.flare.local.rehearsal.admin import Console
from med_duallora.flare.local.rehearsal.record import Federation
from med_duallora.site_kit.install import SITE_CONFIG_PLACE
from med_duallora.site_kit.wanted import site_config_template
from med_duallora.support.files import write_json


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path, "", "p", 1, tmp_path / "kits", "server", ("siemens",), {})


def downloading(*files: str) -> Console:
    """A person who downloads these files of a job's result."""

    def download(job_id: str, into: Path) -> Path:
        for name in files:
            path = into / job_id / "workspace" / "app_server" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return into / job_id

    return cast(Console, SimpleNamespace(download=download))


def test_how_to_go_on_from_a_failed_job_is_said(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    kept_of_failed(federation, downloading("adapter_last.safetensors", "adapter_best.safetensors"), "7")
    place = federation.directory / "results" / "7"
    adapter = place / "workspace" / "app_server" / "adapter_last.safetensors"
    assert capsys.readouterr().out.splitlines() == [
        f"result, as far as the job got: {place}",
        f"to resume from its last finished round: the same command with --resume-from {adapter}",
    ]


def test_a_job_without_a_finished_round_leaves_nothing_to_go_on_from(
    federation: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    kept_of_failed(federation, downloading("log.txt"), "7")
    assert "--resume-from" not in capsys.readouterr().out


def test_a_result_that_does_not_come_hides_no_reason(
    federation: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(*_arguments: object) -> Path:
        raise FederationError("is there room?")

    kept_of_failed(federation, cast(Console, SimpleNamespace(download=nothing)), "7")
    assert capsys.readouterr().err == "nothing was downloaded of job 7: is there room?\n"


@pytest.fixture
def three_kits(federation: Federation) -> Federation:
    sites = ("siemens", "philips", "ge")
    for site in sites:
        kit = federation.kits / site
        (kit / "startup").mkdir(parents=True)
        write_json(kit / SITE_CONFIG_PLACE, site_config_template(kit))
    return replace(federation, sites=sites)


def agreeing_to(federation: Federation, site: str, **policy: object) -> None:
    place = federation.kit(site) / SITE_CONFIG_PLACE
    values = json.loads(place.read_text())
    values["policy"].update(policy)
    write_json(place, values)


def options(min_sites: int, *assignments: str) -> Namespace:
    settings = [f"workflow.min_sites={min_sites}", *assignments]
    return Namespace(job="production", recipe=None, assignments=settings, resume_from=None)


def submitting(found: list[Path]) -> Console:
    """A person who notes what is submitted."""
    return cast(Console, SimpleNamespace(person="lead", submit=lambda folder: found.append(folder) or "7"))


def test_the_default_job_is_taken_by_kits_as_they_are(
    three_kits: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[Path] = []
    assert submitted(three_kits, submitting(found), options(3)) == "7"
    assert len(found) == 1 and capsys.readouterr().err == ""


@pytest.mark.parametrize("setting", ["lora.head_policy=global", "method=fedavg-lora"])
def test_a_job_that_no_kit_takes_is_not_submitted(three_kits: Federation, setting: str) -> None:
    """Before, every site was asked to start, and the job failed after the better part of a minute."""
    found: list[Path] = []
    with pytest.raises(UnfitError, match=r"3 of 3 sites would refuse.*siemens: .*policy\.head_leaves"):
        submitted(three_kits, submitting(found), options(2, setting))
    assert found == []


def test_a_job_goes_without_a_site_that_keeps_its_head(
    three_kits: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    agreeing_to(three_kits, "philips", head_leaves="none")
    found: list[Path] = []
    assert submitted(three_kits, submitting(found), options(2)) == "7"
    assert "philips will refuse this job: " in capsys.readouterr().err
    with pytest.raises(UnfitError, match="1 of 3 sites would refuse this job, which waits for 3"):
        submitted(three_kits, submitting(found), options(3))
    assert submitted(three_kits, submitting(found), options(3, "lora.head_policy=local")) == "7"
