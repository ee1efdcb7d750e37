"""The privacy boundary in a provisioned federation: what reached the server's filters, the ledgers, the logs."""

import json
from pathlib import Path

import pytest
from nvflare.fuel.utils import fobs

from med_duallora.boundary.contract import HEADERS
from med_duallora.boundary.ledger_audit import match, read_lines, verify
from med_duallora.cli import main
from med_duallora.errors import FederationError
from med_duallora.flare.local.rehearsal.admin import console
from med_duallora.flare.local.rehearsal.verdict import COMPLETED
from med_duallora.flare.site.public_context import PUBLIC_PROPERTIES
from med_duallora.flare.wire.payload import TrainReply, read_reply, rebuilt
from med_duallora.flare.wire.receipts import train_entry
from med_duallora.measures import Place
from med_duallora.site_kit import inspect_kit
from tests.integration.captured import Captured, kept_of, ledger_of, lines_of
from tests.integration.harness import SITES, RunningFederation
from tests.integration.words import LOUD, words_of

pytestmark = pytest.mark.flare

FRAMEWORK_HEADERS = {"__task_name__", "__task_id__", "__audit_event_id__", "__cookie_jar__", "__msg_root_id__"}
"""What FLARE adds after all checks: which task this answers, what the server itself sent along, and a log reference."""
SERVER_HEADERS = {"__peer_ctx__", "__peer_props__", "fl_client"}
"""What the server notes of the sender: the public context, and its own record of the site."""


def test_every_round_of_every_site_was_captured(captured: Captured) -> None:
    assert sorted(site for site, *_ in captured.results("train")) == sorted(SITES * captured.contract.n_rounds)
    assert set(SITES) == {site for site, *_ in captured.results("validate")}


def test_the_bytes_at_the_server_are_exactly_the_contract_s(captured: Captured) -> None:
    for _site, data, result in captured.results("train"):
        assert set(result) == {"__headers__", "DXO"}
        assert set(result["__headers__"]) <= {*HEADERS, *FRAMEWORK_HEADERS, *SERVER_HEADERS}
        assert set(result["DXO"]) == {"kind", "data", "meta"}
        assert set(result["DXO"]["data"]) == set(captured.contract.tensors)
        assert set(result["DXO"]["meta"]) == set(captured.contract.replies()["train"]["meta"])
        assert captured.contract.tensor_bytes < len(data) <= captured.contract.tensor_bytes + 4 * 1024
    for _site, data, result in captured.results("validate"):
        assert set(result) == {"__headers__", "DXO"}
        assert set(result["__headers__"]) <= {*HEADERS, *FRAMEWORK_HEADERS, *SERVER_HEADERS}
        assert set(result["DXO"]["data"]["initial_metrics"]) <= set(
            captured.contract.metric_names(Place.VALIDATE_REPLY)
        )
        assert len(data) < 8 * 1024


def test_a_result_is_the_contract_s_values_and_flare_s_headers_to_the_last_byte(captured: Captured) -> None:
    """Built again from what the contract reads of it, and with the headers looked at above, it is the same bytes."""
    for task in ("train", "validate"):
        for _site, data, result in captured.results(task):
            again = rebuilt(task, result, captured.contract)
            again["__headers__"] = result["__headers__"]
            assert bytes(fobs.dumps(again)) == data


def test_framework_headers_hold_names_and_numbers_of_the_framework(captured: Captured) -> None:
    for site, _data, result in captured.results("train"):
        headers = {name: value for name, value in result["__headers__"].items() if name in FRAMEWORK_HEADERS}
        assert len(json.dumps(headers, default=str)) < 1024, (site, headers)
        assert headers["__task_name__"] == "train"


def test_the_public_context_names_the_site_and_the_job(captured: Captured) -> None:
    for site, _data, result in captured.results("train"):
        public = result["__headers__"]["__peer_props__"]
        assert set(public) <= PUBLIC_PROPERTIES
        assert set(public.values()) <= {site, captured.job.job_id, True}


def test_the_ledgers_hold_every_captured_result(federation: RunningFederation, captured: Captured) -> None:
    for site in SITES:
        allowed = [line["sha256"] for line in lines_of(federation, captured, site) if line["kind"] == "tensors"]
        found = []
        for sender, _data, result in captured.results("train"):
            reply = read_reply("train", result, captured.contract)
            assert isinstance(reply, TrainReply)
            if sender == site:
                found.append(train_entry(captured.job.job_id, site, reply).sha256)
        assert sorted(found) == sorted(allowed) and len(found) == captured.contract.n_rounds


def test_the_ledgers_are_intact_and_agree_with_the_server(
    federation: RunningFederation, captured: Captured, capsys: pytest.CaptureFixture[str]
) -> None:
    record = captured.result / "workspace" / "app_server" / "received.jsonl"
    assert verify(record).problems == ()
    for site in SITES:
        assert verify(ledger_of(federation, site)).problems == ()
        found = match(read_lines(ledger_of(federation, site)), read_lines(record), site)
        assert found.only_server == ()
        assert [line for line in found.only_site if line["kind"] != "event"] == []
        assert main(["ledger", "verify", str(ledger_of(federation, site))]) == 0
        assert main(["ledger", "match", str(ledger_of(federation, site)), str(record), "--site", site]) == 0
    assert "entries agree, 0 only at the site, 0 only at the server" in capsys.readouterr().out


def test_nothing_was_blocked_in_an_honest_run(federation: RunningFederation, captured: Captured) -> None:
    for site in SITES:
        assert [line for line in lines_of(federation, captured, site) if line["verdict"] != "allowed"] == []


def test_no_tensor_that_stays_is_among_the_bytes(federation: RunningFederation, captured: Captured) -> None:
    everything = b"".join(path.read_bytes() for path in (captured.folder / "results").iterdir())
    n_compared = 0
    for site in SITES:
        for name, value in kept_of(federation, captured, site).items():
            assert value.tobytes() not in everything, name
            n_compared += 1
    assert n_compared >= 2 * len(SITES)


def log_files(federation: RunningFederation) -> list[Path]:
    """Whatever any process of the federation wrote down, except what each site keeps for itself."""
    own = (federation.directory / "sites", federation.scratch)
    found = []
    for path in federation.directory.rglob("*"):
        is_text = path.suffix in (".txt", ".log", ".json", ".jsonl") or path.name.startswith("audit")
        is_own = any(folder in path.parents for folder in own) or path.parent.name in ("local", "startup")
        if path.is_file() and is_text and not is_own:
            found.append(path)
    return found


def test_no_log_names_a_subject_a_file_a_path_or_a_value(
    federation: RunningFederation, captured: Captured, tiny_cohorts: dict[str, Path], tiny_checkpoint: Path
) -> None:
    files = log_files(federation)
    assert len([path for path in files if path.name == "log.txt"]) >= 3, "the server's and both sites' logs"
    folders = {site: tiny_cohorts[site] for site in SITES}
    states = [str(federation.directory / "sites" / site) for site in SITES]
    words = [*words_of(folders), *states, str(tiny_checkpoint)]
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        found = [word for word in words if word in text]
        assert not found, f"{path.relative_to(federation.directory)} holds {found[0]}"
        loud = LOUD.search(text) if "log" in path.name else None
        assert not loud, f"{path.relative_to(federation.directory)} holds {loud.group() if loud else ''}"


def test_preflight_finds_nothing_open_but_what_the_tests_opened(federation: RunningFederation) -> None:
    for site in SITES:
        found = [channel.name for channel in inspect_kit(federation.federation.kit(site)) if channel.is_open]
        assert found == ["scores of single subjects"], "the tiny cohorts are too small for the site kit's own floor"


@pytest.mark.parametrize("role", ["lead", "org_admin", "project_admin"])
@pytest.mark.parametrize("command", ["cat", "head", "tail", "ls"])
def test_nobody_reads_a_site_s_files_through_the_console(
    role: str, command: str, federation: RunningFederation, captured: Captured
) -> None:
    with console(federation.federation, role) as person:
        try:
            shown = str(person._session.do_command(f"{command} {SITES[0]} local/med_duallora_site.json"))
        except Exception as error:  # FLARE raises errors of several kinds
            shown = str(error)
    assert "data_dir" not in shown and "med_duallora_site.json\n" not in shown
    assert "cohort" not in shown


def test_a_job_that_asks_for_more_is_refused_before_any_training(federation: RunningFederation) -> None:
    """The sites' own configuration allows rank 16 at most. The first refusal ends the job, for the others as well."""
    job = federation.run(federation.job("experiment=greedy", "lora.rank_global=32", name="greedy"))
    assert job.status != COMPLETED
    refusals = []
    for site in SITES:
        ledger = ledger_of(federation, site)
        lines = [line for line in read_lines(ledger) if line["job"] == job.job_id] if ledger.exists() else []
        assert {line["kind"] for line in lines} <= {"error"}, "codes only"
        assert not (federation.directory / "sites" / site / "state" / "greedy").exists(), "nothing was trained"
        refusals += [path.read_text() for path in (federation.federation.kit(site) / job.job_id).rglob("log.txt")]
    assert any("this site refuses the job: policy.max_rank" in text for text in refusals)


def test_code_for_the_sites_stops_the_job(federation: RunningFederation) -> None:
    folder = federation.job(name="with-code")
    (folder / "app" / "custom").mkdir()
    (folder / "app" / "custom" / "evil.py").write_text("print('hello')\n")
    try:
        status = federation.run(folder).status
    except FederationError as error:
        status = str(error)
    assert status != COMPLETED
    for site in SITES:
        assert not list(federation.federation.kit(site).rglob("evil.py")), "nothing of it stays at a site"
