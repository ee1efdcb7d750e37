import json
from pathlib import Path

import pytest

from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.campaign.journal import EVENTS, LAST, N_KEPT, RESULTS, STATE, Journal
from med_duallora.campaign.state import Campaign
from med_duallora.errors import ArtifactError, FederationError, InputError
from med_duallora.report.collect import find_server_directory
from med_duallora.server.artifact import adapter_manifest, save_adapter
from med_duallora.server.rundir import JOB_FILE, read_rounds
from med_duallora.settings.config import JobConfig
from med_duallora.support.files import read_object
from tests.unit.tiny import random_payload


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "campaign")


def adapter_of(job: JobConfig, round_index: int, folder: Path) -> tuple[bytes, bytes]:
    """What a server sends of the last round."""
    contract = EgressContract.for_job(job)
    facts = {"round": round_index, "lineage": Lineage.begin().to_list(), "sites": ["ge", "philips"]}
    folder.mkdir(parents=True, exist_ok=True)
    path = save_adapter(folder, "sent", random_payload(contract, round_index), adapter_manifest(job, contract, **facts))
    return path.read_bytes(), path.with_suffix(".json").read_bytes()


def test_a_folder_without_a_campaign_has_no_state(journal: Journal) -> None:
    assert journal.read() is None
    assert journal.adapter() is None
    assert journal.events() == []


def test_the_state_is_read_back(journal: Journal) -> None:
    campaign = Campaign("abc", "digest", known={"ge"})
    journal.write(campaign)
    assert journal.read() == campaign
    assert (journal.folder / STATE).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"phase": "nowhere"}'])
def test_a_damaged_state_is_said(text: str, journal: Journal) -> None:
    (journal.folder / STATE).write_text(text)
    with pytest.raises(InputError, match=r"campaign\.json cannot be read"):
        journal.read()


def test_a_folder_is_held_by_one_program(journal: Journal) -> None:
    with journal.held(), pytest.raises(FederationError, match="another program runs the campaign"), journal.held():
        pass
    with journal.held():
        pass


def test_the_last_rounds_are_kept(journal: Journal, tiny_job: JobConfig, tmp_path: Path) -> None:
    for round_index in range(4):
        assert journal.keep(*adapter_of(tiny_job, round_index, tmp_path)).round_index == round_index
    found = journal.adapter()
    assert found is not None and found[0] == 3
    assert len(list((journal.folder / "adapters").iterdir())) == N_KEPT


def test_half_an_adapter_is_refused_and_the_older_one_stays(
    journal: Journal, tiny_job: JobConfig, tmp_path: Path
) -> None:
    journal.keep(*adapter_of(tiny_job, 0, tmp_path))
    tensors, manifest = adapter_of(tiny_job, 1, tmp_path)
    with pytest.raises(ArtifactError):
        journal.keep(tensors[:-8], manifest)
    found = journal.adapter()
    assert found is not None and found[0] == 0
    assert [path.name for path in (journal.folder / "adapters").iterdir()] == ["round-00000"]


def test_a_damaged_adapter_leaves_the_one_before(journal: Journal, tiny_job: JobConfig, tmp_path: Path) -> None:
    for round_index in range(2):
        journal.keep(*adapter_of(tiny_job, round_index, tmp_path))
    (journal.folder / "adapters" / "round-00001" / LAST).write_bytes(b"flipped")
    found = journal.adapter()
    assert found is not None and found[0] == 0


def test_a_line_that_a_killed_program_left_is_no_event(journal: Journal) -> None:
    journal.note({"event": "round", "round": 0})
    with (journal.folder / EVENTS).open("a") as stream:
        stream.write('{"event": "rou')
    assert journal.events() == [{"event": "round", "round": 0}]


def test_an_event_after_a_broken_line_is_read(journal: Journal) -> None:
    with (journal.folder / EVENTS).open("a") as stream:
        stream.write('{"event": "rou')
    journal.note({"event": "continued"})
    assert journal.events() == [{"event": "continued"}]


def test_records_of_all_jobs_come_together_once(journal: Journal) -> None:
    for name, rounds in (("a", [0, 1]), ("b", [1, 2, 3])):
        for _ in range(2):
            journal.add_rounds({"round": index, "sites": {name: {}}} for index in rounds)
    assert [(record["round"], *record["sites"]) for record in read_rounds(journal.folder / "result")] == [
        (0, "a"),
        (1, "a"),
        (2, "b"),
        (3, "b"),
    ]


def left_by(journal: Journal, job_id: str, **files: object) -> None:
    """Files that the server of a job left, as they are downloaded."""
    server = journal.folder / RESULTS / job_id / "workspace" / "app_server"
    server.mkdir(parents=True)
    for name, values in files.items():
        (server / f"{name}.json").write_text(json.dumps(values))


def test_the_result_holds_what_the_last_job_left(journal: Journal, tiny_job: JobConfig, tmp_path: Path) -> None:
    left_by(journal, "first", evaluation={"round": 0})
    left_by(journal, "second", evaluation={"round": 1})
    tensors, manifest = adapter_of(tiny_job, 1, tmp_path)
    journal.keep(tensors, manifest)
    result = journal.finish(["first", "second", "died with its server"])
    assert (result / LAST).read_bytes() == tensors
    assert read_object(result / "evaluation.json") == {"round": 1}


def test_the_result_names_its_job_although_no_job_could_be_downloaded(
    journal: Journal, tiny_job: JobConfig, tmp_path: Path
) -> None:
    """A server that dies archives nothing; the adapter that was copied before knows its settings."""
    journal.keep(*adapter_of(tiny_job, 1, tmp_path))
    journal.add_rounds([{"round": 0, "sites": {}}, {"round": 1, "sites": {}}])
    result = journal.finish(["died with its server"])
    assert find_server_directory(journal.folder) == result
    assert JobConfig.from_dict(read_object(result / JOB_FILE)) == tiny_job
