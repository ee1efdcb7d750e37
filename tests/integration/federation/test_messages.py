"""Messages that a closed site refuses, sent in a provisioned federation over mutual TLS."""

import json
import shutil
from pathlib import Path

import pytest

from med_duallora.boundary.ledger_audit import verify
from med_duallora.boundary.ledger_marker import marker_of
from med_duallora.flare.local.rehearsal.admin import console
from med_duallora.flare.local.rehearsal.verdict import COMPLETED
from tests.integration import send_messages
from tests.integration.captured import ledger_of
from tests.integration.harness import SITES, RunningFederation

pytestmark = pytest.mark.flare


def with_sender(folder: Path, answers: Path) -> Path:
    """Let the server's part of a job send messages to the sites."""
    meta = json.loads((folder / "meta.json").read_text())
    app, server = folder / "app", folder / "app_server"
    shutil.copytree(app, server)
    (server / "config" / "config_fed_client.json").unlink()
    (app / "config" / "config_fed_server.json").unlink()
    (server / "custom").mkdir()
    shutil.copy(str(send_messages.__file__), server / "custom")
    path = server / "config" / "config_fed_server.json"
    config = json.loads(path.read_text())
    arguments = {"answers": str(answers), "sites": list(SITES)}
    config["components"].append({"id": "sender", "path": "send_messages.Sender", "args": arguments})
    path.write_text(json.dumps(config))
    meta["deploy_map"] = {"app_server": ["server"], "app": list(SITES)}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def refusals(federation: RunningFederation, site: str) -> list[str]:
    lines = [json.loads(text) for text in ledger_of(federation, site).read_text().splitlines()]
    return [f"{line['task']}: {line['reason']}" for line in lines if line["kind"] == "message"]


def test_commands_and_events_of_the_server_s_job_process_are_refused(
    federation: RunningFederation, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    job = federation.run(with_sender(federation.job("experiment=messages", name="messages"), answers))
    assert job.status == COMPLETED, "the job itself goes on"
    assert set(json.loads(answers.read_text())) == set(SITES)
    for site, said in json.loads(answers.read_text()).items():
        assert said == "refused by the site: commands are taken from the server only"
        assert (federation.federation.kit(site) / "local" / "privacy.json").exists()
        found = "\n".join(refusals(federation, site))
        assert "train.delete_run: commands are taken from the server only" in found
        assert "client_command/show_errors: this site takes nothing on this channel" in found
        assert "fed.event: this site takes no events and no tasks of others" in found
        ledger = ledger_of(federation, site)
        assert verify(ledger, marker=marker_of(ledger, federation.directory / "sites" / site / "state")).problems == ()


@pytest.mark.parametrize(
    "command", ["sys_info client {site}", "configure_site_log {site} DEBUG", "report_resources {site}"]
)
def test_commands_beyond_the_list_are_refused_to_the_project_administrator(
    command: str, federation: RunningFederation
) -> None:
    with console(federation.federation, "project_admin") as person:
        try:
            said = str(person._session.do_command(command.format(site=SITES[0])))
        except Exception as error:  # FLARE raises errors of several kinds
            said = str(error)
    assert "total" not in said and "successfully configured" not in said
    assert any("this site does not take this command" in text for text in refusals(federation, SITES[0]))
