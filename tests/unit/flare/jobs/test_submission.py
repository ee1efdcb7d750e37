import json
from pathlib import Path

import pytest

from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.errors import ArtifactError, ConfigError
from med_duallora.flare.jobs.export import JobSpec, export_job, read_job
from med_duallora.flare.jobs.submission import prepare_submission
from med_duallora.server.artifact import adapter_manifest, save_adapter
from med_duallora.settings.config import JobConfig
from tests.conftest import REPOSITORY
from tests.unit.refused import refused
from tests.unit.tiny import random_payload


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return export_job(JobSpec("mine", "").with_overrides(["train.n_rounds=5"]), tmp_path / "mine")


def test_a_known_job_waits_for_every_site(tmp_path: Path) -> None:
    place = prepare_submission("production", [], 3, tmp_path)
    assert read_job(place)[1].min_sites == 3
    assert place.parent == tmp_path


def test_settings_come_last(tmp_path: Path) -> None:
    place = prepare_submission("production", ["workflow.min_sites=2", "train.n_rounds=4"], 3, tmp_path)
    settings, workflow = read_job(place)
    assert (workflow.min_sites, settings.train.n_rounds) == (2, 4)


def test_a_known_job_is_about_the_checkpoint_that_the_sites_have(tmp_path: Path) -> None:
    def pinned(assignments: list[str], **sites: str) -> str:
        return read_job(prepare_submission("production", assignments, 3, tmp_path, **sites))[0].backbone_sha256

    assert pinned([], backbone_sha256="a" * 64) == "a" * 64
    assert pinned(["backbone_sha256=" + "b" * 64], backbone_sha256="a" * 64) == "b" * 64
    assert pinned([]) == ""


def test_a_folder_is_copied_as_it_is(folder: Path, tmp_path: Path) -> None:
    (folder / ".__nvfl_sig.json").write_text("left by an earlier submission")
    place = prepare_submission(str(folder), [], 3, tmp_path / "out")
    names = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert names == {"meta.json", "app/config/config_fed_server.json", "app/config/config_fed_client.json"}
    assert json.loads((place / "meta.json").read_text()) == json.loads((folder / "meta.json").read_text())


def test_a_copy_replaces_an_older_one(folder: Path, tmp_path: Path) -> None:
    place = prepare_submission(str(folder), [], 3, tmp_path / "out")
    (place / "old.txt").touch()
    assert not (prepare_submission(str(folder), [], 3, tmp_path / "out") / "old.txt").exists()


def test_a_folder_s_settings_can_be_changed(folder: Path, tmp_path: Path) -> None:
    place = prepare_submission(str(folder), ["train.n_rounds=7"], 3, tmp_path / "out")
    assert read_job(place)[0].train.n_rounds == 7
    assert read_job(folder)[0].train.n_rounds == 5, "the original is left alone"


def test_changing_a_job_with_code_keeps_the_code(folder: Path, tmp_path: Path) -> None:
    (folder / "app" / "custom").mkdir()
    place = prepare_submission(str(folder), ["train.n_rounds=7"], 3, tmp_path / "out")
    assert (place / "app" / "custom" / "med_duallora" / "__init__.py").is_file()


@pytest.mark.parametrize(
    ("job", "message"),
    [
        pytest.param("productoin", "known are .*production", id="a misspelt name"),
        pytest.param(str(REPOSITORY / "tests"), "no job folder", id="a folder without meta.json"),
        pytest.param(str(REPOSITORY), "FLARE would pack all of it", id="the whole repository"),
    ],
)
def test_what_is_no_job_is_refused(job: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_submission(job, [], 2, tmp_path)


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    with refused("train.rounds", "4", ""):
        prepare_submission("production", ["train.rounds=4"], 2, tmp_path)


@pytest.mark.parametrize("known", [True, False])
def test_a_job_can_go_on_from_an_adapter(known: bool, folder: Path, tmp_path: Path) -> None:
    settings, _ = read_job(folder)
    contract = EgressContract.for_job(settings)
    manifest = adapter_manifest(settings, contract, round=2, lineage=Lineage.begin().to_list())
    adapter = save_adapter(tmp_path / "run", "adapter_last", random_payload(contract), manifest)
    place = prepare_submission("production" if known else str(folder), [], 3, tmp_path / "out", resume_from=adapter)
    assert read_job(place)[0] == settings
    assert read_job(place)[1].start_round == 3
    assert (place / "app" / "config" / "resume_from.safetensors").read_bytes() == adapter.read_bytes()
    later = save_adapter(tmp_path / "run", "adapter_last", random_payload(contract), {**manifest, "round": 3})
    again = prepare_submission(str(place), [], 3, tmp_path / "again", resume_from=later)
    assert read_job(again)[1].start_round == 4, "a resumed job can be resumed"


@pytest.mark.parametrize(
    ("trained_with", "sites_have", "taken"),
    [("", "", True), ("a", "a", True), ("a", "", True), ("", "a", False), ("a", "b", False)],
    ids=["the shipped one", "the same", "only the adapter names one", "not the shipped one", "another"],
)
def test_a_resumed_job_is_about_the_checkpoint_that_trained_the_adapter(
    trained_with: str, sites_have: str, taken: bool, tmp_path: Path
) -> None:
    settings = JobConfig(backbone_sha256=trained_with * 64)
    contract = EgressContract.for_job(settings)
    manifest = adapter_manifest(settings, contract, round=2, lineage=Lineage.begin().to_list())
    adapter = save_adapter(tmp_path / "run", "adapter_last", random_payload(contract), manifest)
    places = {"backbone_sha256": sites_have * 64, "resume_from": adapter}
    if taken:
        assert read_job(prepare_submission("production", [], 3, tmp_path / "out", **places))[0] == settings
        return
    with pytest.raises(
        ArtifactError,
        match=f"belongs to another job: backbone_sha256 was '.*', but is '{places['backbone_sha256']}' here",
    ):
        prepare_submission("production", [], 3, tmp_path / "out", **places)
