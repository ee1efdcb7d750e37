"""Preflight: what is open on an untouched kit, nothing on ours, and every way to open one again is seen."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from med_duallora.boundary.ledger import Ledger, site_ledger
from med_duallora.boundary.ledger_entry import ALLOWED, Entry
from med_duallora.cli import main
from med_duallora.site.budget import AnswerBudget, Question
from med_duallora.site_kit import Channel, harden, inspect_kit
from med_duallora.site_kit.policy_channels import WIDE, site_config_of
from tests.conftest import REPOSITORY
from tests.unit.site_kit.conftest import places
from tests.unit.site_kit.test_hardening import change, snapshot


def open_ones(kit: Path) -> list[str]:
    return [channel.name for channel in inspect_kit(kit) if channel.is_open]


@pytest.fixture
def closed_kit(site_kit: Path, tmp_path: Path) -> Path:
    """A kit after site-kit, with its site configuration filled in."""
    harden(site_kit)

    def fill_in(values: dict[str, Any]) -> None:
        values.update(data_dir=str(tmp_path / "data"), state_dir=str(tmp_path / "state"), cache_dir=str(tmp_path / "c"))

    change(site_kit, "med_duallora_site.json", fill_in)
    return site_kit


def test_an_untouched_kit_reports_its_open_channels(site_kit: Path):
    found = set(open_ones(site_kit))
    assert {
        "task results (train, validate, submit_model)",
        "what a job's own filters add to a task result",
        "fed events (analytics, converted log events)",
        "answers to show_stats and show_errors",
        "live streaming of a job's logs",
        "streaming of error_log.txt",
        "classes that send data by their own means, named by a job",
        "files, paths and environment variables of the site, read by references in a job's configuration",
        "job configurations in other formats than JSON, which include files and addresses",
        "code brought by a job (byoc)",
        "files read through the console",
    } <= found


def test_our_kit_reports_none(closed_kit: Path):
    assert open_ones(closed_kit) == []


def test_looking_changes_nothing(site_kit: Path):
    before = snapshot(site_kit)
    inspect_kit(site_kit)
    assert snapshot(site_kit) == before


def test_every_channel_has_evidence_and_every_open_one_a_fix(site_kit: Path):
    for channel in inspect_kit(site_kit):
        assert isinstance(channel, Channel) and channel.evidence
        assert bool(channel.fix) == channel.is_open, channel


def test_the_template_itself_is_not_ready(site_kit: Path):
    harden(site_kit)
    assert open_ones(site_kit) == ["something that left without a record"]


Edit = Callable[[dict[str, Any]], Any]


def without(component: str) -> Edit:
    """Take a component out of the resources."""

    def edit(values: dict[str, Any]) -> None:
        values["components"] = [item for item in values["components"] if item["id"] != component]

    return edit


def switched_off(component: str) -> Edit:
    """Disable a component of the resources."""

    def edit(values: dict[str, Any]) -> None:
        (found,) = (item for item in values["components"] if item["id"] == component)
        found["disabled"] = True

    return edit


OPENED: list[tuple[str, str, Edit, str]] = [
    ("filter removed", "privacy.json", lambda v: v["scopes"][0].pop("task_result_filters"), "task results"),
    (
        "filter not last",
        "privacy.json",
        lambda v: v["scopes"][0]["task_result_filters"].append({"path": "x.Y"}),
        "task results",
    ),
    ("second scope without filter", "privacy.json", lambda v: v["scopes"].append({"name": "b"}), "task results"),
    ("no default scope", "privacy.json", lambda v: v.pop("default_scope"), "task results"),
    ("default scope unknown", "privacy.json", lambda v: v.update(default_scope="x"), "task results"),
    ("no scopes: FLARE loads no component then", "privacy.json", lambda v: v.update(scopes=[]), "fed events"),
    ("guard removed", "privacy.json", lambda v: v.update(components=[]), "fed events"),
    ("guard removed", "privacy.json", lambda v: v.update(components=[]), "own filters"),
    ("guard removed", "privacy.json", lambda v: v.update(components=[]), "show_stats"),
    ("log streaming on", "resources.json", lambda v: v.update(allow_log_streaming=True), "live streaming"),
    ("log streaming not said", "resources.json", lambda v: v.pop("allow_log_streaming"), "live streaming"),
    (
        "log streamer back",
        "resources.json",
        lambda v: v["components"].append(
            {"id": "s", "path": "nvflare.app_common.logging.site_log_streamer.SiteLogStreamer"}
        ),
        "error_log",
    ),
    ("a class more", "resources.json", lambda v: v["class_allow_list"].append("nvflare.app_common."), "classes"),
    ("our whole package", "resources.json", lambda v: v.update(class_allow_list=["med_duallora."]), "classes"),
    ("every class", "resources.json", lambda v: v.update(class_allow_list=["*"]), "classes"),
    ("no list: FLARE's own counts", "resources.json", lambda v: v.pop("class_allow_list"), "classes"),
    ("only warnings", "resources.json", lambda v: v.update(class_list_enforcement_mode="warn"), "classes"),
    ("console guard removed", "resources.json", without("console_guard"), "skips or forges"),
    ("console guard removed", "resources.json", without("console_guard"), "exceptions"),
    ("literal guard removed", "resources.json", without("literal_guard"), "references in a job"),
    ("literal guard removed", "resources.json", without("literal_guard"), "formats than JSON"),
    ("literal guard off", "resources.json", switched_off("literal_guard"), "references in a job"),
    *[
        ("a kit closed before there was a gate", "resources.json", without("message_gate"), channel)
        for channel in (
            "messages of other members",
            "authorised, or that name no job",
            "short list",
            "events and tasks",
        )
    ],
    ("a key for the server", "resources.json", lambda v: v.update(data="/mnt/cohort"), "tells the server"),
    ("byoc", "authorization.json", lambda v: v["permissions"]["lead"].update(byoc="o:site"), "byoc"),
    ("all rights", "authorization.json", lambda v: v["permissions"].update(project_admin="any"), "byoc"),
    ("shell", "authorization.json", lambda v: v["permissions"]["lead"].update(shell_commands="o:site"), "console"),
    ("one command", "authorization.json", lambda v: v["permissions"]["member"].update(cat="any"), "console"),
    ("whole head", "med_duallora_site.json", lambda v: v["policy"].update(head_leaves="all"), "may ask for"),
    ("no limits", "med_duallora_site.json", lambda v: v["policy"].update(max_rank=256), "may ask for"),
    ("single subjects", "med_duallora_site.json", lambda v: v["policy"].update(min_subjects=1), "single subjects"),
    ("no floor", "med_duallora_site.json", lambda v: v["policy"].update(min_subjects=0), "single subjects"),
    ("few trained", "med_duallora_site.json", lambda v: v["policy"].update(min_train_subjects=4), "trained on a few"),
    ("an older kit", "med_duallora_site.json", lambda v: v["policy"].pop("min_train_subjects"), "may ask for"),
    ("no policy", "med_duallora_site.json", lambda v: v.pop("policy"), "may ask for"),
    ("misspelt", "med_duallora_site.json", lambda v: v["policy"].update(min_subject=5), "may ask for"),
    ("free numbers", "med_duallora_site.json", lambda v: v["policy"].update(job_limits=["any"]), "numbers of a job"),
    *[
        (
            "no limit of answers",
            "med_duallora_site.json",
            lambda v, k=key: v["policy"].update({k: 10**6}),
            "more adapters",
        )
        for key in WIDE
    ],
    *[
        ("a kit from before the limit", "med_duallora_site.json", lambda v, k=key: v["policy"].pop(k), "may ask for")
        for key in WIDE
    ],
    ("bad policy", "med_duallora_site.json", lambda v: v["policy"].update(max_rank=0), "may ask for"),
]


@pytest.mark.parametrize(("case", "name", "edit", "channel"), OPENED, ids=[f"{r[0]} ({r[3]})" for r in OPENED])
def test_a_channel_that_is_opened_again_is_seen(closed_kit: Path, case: str, name: str, edit: Edit, channel: str):
    change(closed_kit, name, edit)
    assert any(channel in found for found in open_ones(closed_kit)), case


def test_what_is_spent_of_the_budget_is_printed(closed_kit: Path):
    config = site_config_of(closed_kit)
    assert config is not None
    for asked in (0, 1, "last"):
        AnswerBudget(config).claim(Question("demo", "a" * 32, asked), "b" * 64)
    (channel,) = [found for found in inspect_kit(closed_kit) if "more adapters" in found.name]
    assert "1 of 50 evaluations on the test split and 2 of 5000 rounds are spent" in channel.evidence


def test_a_damaged_record_of_answers_is_seen(closed_kit: Path, tmp_path: Path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "answers.json").write_text("{")
    assert [name for name in open_ones(closed_kit) if "more adapters" in name]


def test_a_pinned_contract_bounds_the_job_as_well(closed_kit: Path):
    policy = {"max_rank": 256, "head_leaves": "all", "contract_sha256": ["a" * 64]}
    change(closed_kit, "med_duallora_site.json", lambda v: v["policy"].update(policy))
    assert open_ones(closed_kit) == []


def test_the_startup_folder_is_inspected_as_well(closed_kit: Path):
    path = closed_kit / "startup" / "fed_client.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "require_signed_jobs": False}))
    assert open_ones(closed_kit) == ["jobs that nobody signed, or that were changed on the way"]
    path.write_text(json.dumps({**values, "client": {**values["client"], "connection_security": "clear"}}))
    assert open_ones(closed_kit) == ["listeners on the network"]
    path.write_text(json.dumps(values))
    (closed_kit / "startup" / "rootCA.pem").unlink()
    assert open_ones(closed_kit) == ["jobs that nobody signed, or that were changed on the way"]


def test_a_site_that_authorises_nothing_is_seen(closed_kit: Path):
    path = closed_kit / "startup" / "sub_start.sh"
    path.write_text(path.read_text().replace("secure_train=true", "secure_train=false"))
    assert open_ones(closed_kit) == ["commands that nobody authorises"]


def test_log_records_over_the_network_are_seen(closed_kit: Path):
    path = closed_kit / "local" / "log_config.json"
    values = json.loads(path.with_name("log_config.json.default").read_text())
    values["handlers"]["remote"] = {"class": "logging.handlers.SysLogHandler"}
    path.write_text(json.dumps(values))
    assert open_ones(closed_kit) == ["log records sent over the network"]
    path.write_text('{"handlers": []}')
    assert open_ones(closed_kit) == ["log records sent over the network"]


def test_a_site_configuration_that_others_can_read_is_seen(closed_kit: Path):
    (closed_kit / "local" / "med_duallora_site.json").chmod(0o644)
    assert open_ones(closed_kit) == ["the site configuration read by others on this machine"]


def test_a_floor_is_said_for_each_class(closed_kit: Path):
    said = {channel.name: channel.evidence for channel in inspect_kit(closed_kit)}
    assert said["scores of single subjects"].endswith("a score, loss or count leaves from 5 subjects of each class on")
    assert said["adapters trained on a few subjects"].endswith("from 10 training subjects on, 5 of each class")


def test_a_site_that_only_evaluates_is_said(closed_kit: Path):
    change(closed_kit, "med_duallora_site.json", lambda values: values.update(role="predict"))
    said = {channel.name: channel.evidence for channel in inspect_kit(closed_kit)}
    evidence = said["adapters trained on a few subjects"]
    assert evidence.endswith("role is predict: this site only evaluates, no adapter leaves it")
    assert open_ones(closed_kit) == []


def test_a_key_that_an_older_kit_lacks_is_named_with_what_to_do(closed_kit: Path):
    change(closed_kit, "med_duallora_site.json", lambda v: v["policy"].pop("min_train_subjects"))
    (found,) = [channel for channel in inspect_kit(closed_kit) if channel.is_open]
    assert "setting 'policy.min_train_subjects' is missing" in found.evidence and "site-kit" in found.evidence
    harden(closed_kit)
    assert open_ones(closed_kit) == []


@pytest.fixture
def ledger(closed_kit: Path) -> Ledger:
    """The ledger of a closed kit after its first line."""
    config = site_config_of(closed_kit)
    assert config is not None
    ledger = site_ledger(config)
    ledger.append(Entry("j", "siemens", "train", "error", ALLOWED))
    return ledger


def test_a_damaged_ledger_is_seen_and_an_intact_one_is_counted(closed_kit: Path, ledger: Ledger):
    assert any("intact, 1 lines" in channel.evidence for channel in inspect_kit(closed_kit))
    ledger.path.write_text(ledger.path.read_text().replace("train", "trein"))
    assert open_ones(closed_kit) == ["something that left without a record"]


def test_a_ledger_that_was_deleted_or_replaced_is_seen(closed_kit: Path, ledger: Ledger):
    for path in (ledger.path, ledger.head_path):
        path.unlink()
    assert open_ones(closed_kit) == ["something that left without a record"]
    Ledger(ledger.path).append(Entry("j", "siemens", "validate", "error", ALLOWED))
    (found,) = [channel.evidence for channel in inspect_kit(closed_kit) if channel.is_open]
    assert "the ledger was replaced or cut" in found


@pytest.mark.parametrize("key", ["ledger", "state_dir"])
def test_a_ledger_in_the_workspace_is_seen(closed_kit: Path, key: str):
    """As kits had it that were closed before."""
    change(closed_kit, "med_duallora_site.json", lambda v: v.update({key: str(closed_kit / "local" / "x")}))
    assert open_ones(closed_kit) == ["the ledger or the states in FLARE's own workspace"]


def test_a_ledger_that_could_not_be_written_is_seen(closed_kit: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("med_duallora.site_kit.policy_channels.os.access", lambda _path, _mode: False)
    assert open_ones(closed_kit) == ["something that left without a record"]


@pytest.mark.parametrize(("version", "is_open"), [("2.9.3", False), ("2.10.0", True), ("2.8.1", True), (None, True)])
def test_another_version_of_flare_is_not_judged(
    closed_kit: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, is_open: bool
):
    import importlib.metadata

    def installed(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", installed)
    assert bool(open_ones(closed_kit)) == is_open


def test_the_commands_exit_codes_and_words(site_kit: Path, tmp_path: Path, capsys):
    assert main(["preflight", "--startup-kit", str(site_kit)]) == 1
    said = capsys.readouterr().out
    assert "OPEN      live streaming of a job's logs" in said and "to close it: run med-duallora site-kit" in said
    assert main(["site-kit", "--startup-kit", str(site_kit), "--dry-run"]) == 0
    assert "settings would change" in capsys.readouterr().out
    assert main(["site-kit", "--startup-kit", str(site_kit)]) == 0
    assert "check it now" in capsys.readouterr().out
    assert main(["site-kit", "--startup-kit", str(site_kit)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["preflight", "--startup-kit", str(site_kit)]) == 1, "the template's places are nowhere"
    assert "site configuration: data_dir = '/CHANGE-ME" in capsys.readouterr().err
    change(site_kit, "med_duallora_site.json", lambda v: v.update(places(tmp_path)))
    assert main(["preflight", "--startup-kit", str(site_kit), "--json"]) == 0
    assert all(not channel["is_open"] for channel in json.loads(capsys.readouterr().out))
    assert main(["preflight", "--startup-kit", str(site_kit)]) == 0
    assert "channels closed" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["preflight", "site-kit"])
def test_what_is_no_kit_is_bad_input(command: str, tmp_path: Path, capsys):
    assert main([command, "--startup-kit", str(tmp_path)]) == 2
    assert "startup kit of a FLARE site" in capsys.readouterr().err


def test_the_document_says_how_many_are_open(closed_kit: Path, provisioned: Path, tmp_path: Path):
    untouched = Path(shutil.copytree(provisioned / "siemens", tmp_path / "untouched"))
    before, after = inspect_kit(untouched), inspect_kit(closed_kit)
    text = " ".join((REPOSITORY / "docs" / "privacy.md").read_text(encoding="utf-8").split())
    n_open = sum(channel.is_open for channel in before)
    n_before, n_after = (sum(not channel.is_reported for channel in found) for found in (before, after))
    assert f"{n_open} of {n_before} channels are open" in text, (n_open, n_before)
    assert f"none of {n_after}" in text, n_after


def test_what_flare_tells_in_any_case_is_neither_open_nor_closed(
    site_kit: Path, closed_kit: Path, tmp_path: Path, capsys
):
    for kit in (site_kit, closed_kit):
        assert [channel.state for channel in inspect_kit(kit) if channel.is_reported] == ["reported"]
    change(closed_kit, "med_duallora_site.json", lambda v: v.update(places(tmp_path)))
    assert main(["preflight", "--startup-kit", str(closed_kit)]) == 0
    said = capsys.readouterr().out
    assert "reported  facts about the site" in said and "all 39 channels closed" in said


@pytest.fixture
def usable_kit(closed_kit: Path, tmp_path: Path) -> Path:
    """A closed kit of a site where jobs can run."""
    change(closed_kit, "med_duallora_site.json", lambda v: v.update(places(tmp_path)))
    return closed_kit


NO_JOB_CAN_RUN = [
    ({"data_dir": "/nowhere/prepared"}, "data_dir = '/nowhere/prepared', but there is no such folder"),
    ({"device": "cuda:99"}, "device"),
    ({"backbone_checkpoint": str(REPOSITORY / "README.md")}, "is not a safetensors file or is cut off"),
    ({"state_dir": str(REPOSITORY / "README.md" / "state")}, "README.md is not a folder"),
]


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(("changes", "message"), NO_JOB_CAN_RUN, ids=[next(iter(row[0])) for row in NO_JOB_CAN_RUN])
def test_a_site_where_no_job_can_run_fails(
    changes: dict[str, str], message: str, more: list[str], usable_kit: Path, capsys
):
    change(usable_kit, "med_duallora_site.json", lambda v: v.update(changes))
    assert main(["preflight", "--startup-kit", str(usable_kit), *more]) == 1
    said = capsys.readouterr()
    assert message in said.err
    assert not more or json.loads(said.out), "the list stays JSON"


@pytest.mark.parametrize("name", ["my kit", "a'b", "a#b", "{site}"])
def test_a_kit_that_flare_cannot_start_jobs_from_is_refused(
    name: str, provisioned: Path, tmp_path: Path, usable_kit: Path, capsys
):
    kit = Path(shutil.copytree(provisioned / "siemens", tmp_path / name))
    before = snapshot(kit)
    assert main(["site-kit", "--startup-kit", str(kit)]) == 2
    assert "which FLARE does not pass on" in capsys.readouterr().err
    assert snapshot(kit) == before
    moved = usable_kit.rename(tmp_path / f"{name} closed")
    assert main(["preflight", "--startup-kit", str(moved)]) == 1
    assert "which FLARE does not pass on to the processes of its jobs: move it" in capsys.readouterr().err
