"""Kits and jobs of an earlier layout of the package: one sentence says what to run again, and running it helps."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContextManager
from nvflare.apis.workspace import Workspace

from med_duallora.cli import main
from med_duallora.errors import KitError
from med_duallora.flare.jobs.submission import prepare_submission
from med_duallora.flare.site.site_check import say_whether_usable
from med_duallora.site_kit import SERVER_CLASSES, harden, inspect_kit
from med_duallora.site_kit.job_check import job_settings
from med_duallora.site_kit.layout import check_server_layout
from tests.unit.site_kit.conftest import places
from tests.unit.site_kit.test_hardening import REPOSITORY, change, snapshot

ROOMS = ("site", "wire", "server", "jobs")


def in_the_former_layout(path: Path) -> None:
    """Write the class paths of a file as they were before the package had rooms: all in flare/ itself."""
    text = path.read_text()
    for room in ROOMS:
        text = text.replace(f"med_duallora.flare.{room}.", "med_duallora.flare.")
    path.write_text(text)


@pytest.fixture
def former_kit(site_kit: Path, tmp_path: Path) -> Path:
    """A kit that was closed before the package had rooms, of a site where jobs can run."""
    harden(site_kit)
    change(site_kit, "med_duallora_site.json", lambda values: values.update(places(tmp_path)))
    for name in ("resources.json", "privacy.json"):
        in_the_former_layout(site_kit / "local" / name)
    assert "med_duallora.flare.learner.DualLoRALearner" in (site_kit / "local" / "resources.json").read_text()
    return site_kit


def test_preflight_refuses_a_kit_of_a_former_layout_in_one_sentence(former_kit: Path, capsys) -> None:
    before = snapshot(former_kit)
    assert main(["preflight", "--startup-kit", str(former_kit)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.strip().splitlines()
    assert f"run again `med-duallora site-kit --startup-kit {former_kit}`" in line
    assert "med_duallora.flare." in line
    assert snapshot(former_kit) == before


@pytest.mark.parametrize("name", ["resources.json", "privacy.json"])
def test_one_file_of_a_former_layout_is_enough(name: str, site_kit: Path) -> None:
    harden(site_kit)
    inspect_kit(site_kit)
    in_the_former_layout(site_kit / "local" / name)
    with pytest.raises(KitError, match=f"{name} names med_duallora.flare.*which is gone.*run again"):
        inspect_kit(site_kit)


def test_site_kit_brings_a_kit_of_a_former_layout_up_to_date(former_kit: Path) -> None:
    place = former_kit / "local" / "med_duallora_site.json"
    configuration = place.read_bytes()
    harden(former_kit)
    assert not any(channel.is_open for channel in inspect_kit(former_kit))
    assert place.read_bytes() == configuration, "what the administrator filled in stays"
    closed = json.loads((former_kit / "local" / "resources.json").read_text())
    assert [item["id"] for item in closed["components"]].count("console_guard") == 1
    assert harden(former_kit) == []


def test_a_site_of_a_former_layout_is_told_at_its_start(former_kit: Path, caplog: pytest.LogCaptureFixture) -> None:
    fl_ctx = FLContextManager(None, "siemens").new_context()
    fl_ctx.set_prop(FLContextKey.WORKSPACE_OBJECT, Workspace(str(former_kit), "siemens"), private=True)
    with caplog.at_level(logging.INFO):
        say_whether_usable(FLComponent(), fl_ctx)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "was prepared for an earlier layout of med-duallora" in record.getMessage()
    assert "run again `med-duallora site-kit --startup-kit <path>" in record.getMessage()
    assert str(former_kit.parent) not in record.getMessage()


def test_a_server_kit_of_a_former_layout_is_told_apart(provisioned: Path, tmp_path: Path, capsys) -> None:
    kit = Path(shutil.copytree(provisioned / "localhost", tmp_path / "server"))
    check_server_layout(kit)
    command = ["server-kit", "--startup-kit", str(kit), "--storage", str(tmp_path / "store")]
    assert main(command) == 0
    check_server_layout(kit)
    in_the_former_layout(kit / "local" / "resources.json")
    capsys.readouterr()
    assert main(["preflight", "--startup-kit", str(kit)]) == 2
    assert f"run again `med-duallora server-kit --startup-kit {kit} --storage DIR`" in capsys.readouterr().err
    assert main(command) == 0
    check_server_layout(kit)
    assert set(SERVER_CLASSES) <= set(json.loads((kit / "local" / "resources.json").read_text())["class_allow_list"])


@pytest.fixture
def former_job(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(REPOSITORY / "jobs" / "production", tmp_path / "job"))
    for path in folder.glob("app/config/*.json"):
        in_the_former_layout(path)
    return folder


def test_a_job_of_a_former_layout_is_refused_where_it_is_judged_and_submitted(former_job: Path, tmp_path: Path) -> None:
    for refuses in (job_settings, lambda folder: prepare_submission(str(folder), [], 2, tmp_path / "out")):
        with pytest.raises(
            KitError, match=r"med_duallora\.flare.* which is gone\): export it again, `med-duallora jobs"
        ):
            refuses(former_job)
    assert not (tmp_path / "out").exists()


def test_a_job_of_a_former_layout_that_is_exported_again_is_taken(former_job: Path, tmp_path: Path) -> None:
    again = prepare_submission(str(former_job), ["train.n_rounds=3"], 2, tmp_path / "out")
    assert job_settings(again).train.n_rounds == 3


def test_a_job_that_brings_its_own_code_names_the_classes_of_that(former_job: Path, tmp_path: Path) -> None:
    (former_job / "app" / "custom" / "med_duallora").mkdir(parents=True)
    assert prepare_submission(str(former_job), [], 2, tmp_path / "out").is_dir()
