"""Closing a startup kit: complete, repeatable, and nothing half-written when the kit is not understood."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from med_duallora.errors import KitError
from med_duallora.settings.config import SiteConfig
from med_duallora.site_kit import SITE_CLASSES, harden
from med_duallora.site_kit.wanted import SHELL_COMMANDS, authorization, open_rights, strict_policy

REPOSITORY = Path(__file__).resolve().parents[3]


def read(kit: Path, name: str) -> dict[str, Any]:
    return json.loads((kit / "local" / name).read_text())


def change(kit: Path, name: str, edit) -> None:
    values = read(kit, name)
    edit(values)
    (kit / "local" / name).write_text(json.dumps(values))


def snapshot(kit: Path) -> dict[str, bytes]:
    return {str(path.relative_to(kit)): path.read_bytes() for path in sorted(kit.rglob("*")) if path.is_file()}


def test_a_closed_kit_holds_all_that_flare_needs_and_nothing_that_sends(site_kit: Path):
    before = read(site_kit, "resources.json.default")
    harden(site_kit)
    after = read(site_kit, "resources.json")
    assert set(after) == set(before), "resources.json replaces the default as a whole"
    assert after["client"] == before["client"]
    assert after["allow_log_streaming"] is False
    assert after["class_list_enforcement_mode"] == "enforce"
    assert after["class_allow_list"] == list(SITE_CLASSES)
    ids = [item["id"] for item in after["components"]]
    guards = ["console_guard", "literal_guard", "message_gate"]
    assert ids == ["resource_manager", "resource_consumer", "process_launcher", *guards]


def test_privacy_json_filters_every_job_and_guards_last(site_kit: Path):
    harden(site_kit)
    privacy = read(site_kit, "privacy.json")
    (scope,) = privacy["scopes"]
    assert scope["task_result_filters"] == [{"path": "med_duallora.flare.site.egress_filter.EgressFilter", "args": {}}]
    assert privacy["default_scope"] == scope["name"]
    assert privacy["components"][-1]["path"] == "med_duallora.flare.site.egress_guard.EgressGuard"
    assert scope["properties"]["med_duallora_site_config"] == str(site_kit / "local" / "med_duallora_site.json")


def test_nobody_brings_code_or_reads_files(site_kit: Path):
    harden(site_kit)
    permissions = read(site_kit, "authorization.json")["permissions"]
    assert set(permissions) == {"project_admin", "org_admin", "lead", "member"}
    for role, rights in permissions.items():
        assert rights["byoc"] == rights["shell_commands"] == "none", role
    assert permissions["project_admin"]["operate"] == "any"
    assert permissions["lead"]["submit_job"] == "any", "a lead's jobs without code go on to run"


def test_flare_itself_reads_the_rights_as_closed(site_kit: Path):
    from nvflare.fuel.sec.authz import AuthzContext, Person
    from nvflare.security.security import COMMAND_CATEGORIES, FLAuthorizer

    def may(kit_file: str, role: str, right: str) -> bool:
        person = Person("user", "clinic_a", role)
        return FLAuthorizer("clinic_a", read(site_kit, kit_file)).authorize(AuthzContext(right, person, person))[0]

    assert may("authorization.json.default", "project_admin", "cat")
    assert may("authorization.json.default", "lead", "byoc")
    harden(site_kit)
    for role in ("project_admin", "org_admin", "lead", "member"):
        for right in ("byoc", *(name for name, kind in COMMAND_CATEGORIES.items() if kind == "shell_commands")):
            assert not may("authorization.json", role, right), (role, right)
    assert may("authorization.json", "project_admin", "show_stats")


@pytest.mark.parametrize("right", ["cat", "tail", " BYOC ", "Shell_Commands", "ls"])
def test_a_single_right_does_not_win_over_its_category(right: str):
    before: dict[str, Any] = {
        "format_version": "1.0",
        "permissions": {"lead": {"shell_commands": "none", right: "any", "view": "any"}},
    }
    (rights,) = authorization(before)["permissions"].values()
    assert open_rights(rights) == [] and rights["view"] == "any"
    assert open_rights(before["permissions"]["lead"]) == [right]
    assert set(SHELL_COMMANDS) & set(rights) == set()


def test_the_list_of_classes_is_what_the_job_names(site_kit: Path):
    """A class that the canonical job names at a site, but that the kit does not list, would stop every job."""
    config = json.loads((REPOSITORY / "app" / "config" / "config_fed_client.json").read_text())
    named = {item["executor"]["path"] for item in config["executors"]} | {item["path"] for item in config["components"]}
    for chain in (*config["task_result_filters"], *config["task_data_filters"]):
        named |= {item["path"] for item in chain["filters"]}
    assert named == set(SITE_CLASSES)


def test_listed_paths_are_classes_not_functions():
    """FLARE calls what a listed path leads to; a function could be called with a job's arguments."""
    from nvflare.fuel.utils.class_loader import load_class

    for path in SITE_CLASSES:
        assert isinstance(load_class(path), type), path


def test_every_change_is_reported_with_its_reason(site_kit: Path):
    changes = harden(site_kit)
    told = {(change.file, change.setting) for change in changes}
    assert ("local/resources.json", "allow_log_streaming") in told
    assert ("local/resources.json", "class_allow_list") in told
    assert ("local/privacy.json", "scopes") in told
    assert all(change.why and change.before != change.after for change in changes)
    assert str(changes[0]).startswith("local/")


def test_a_second_run_changes_nothing(site_kit: Path):
    harden(site_kit)
    before = snapshot(site_kit)
    assert harden(site_kit) == []
    assert snapshot(site_kit) == before


def test_a_dry_run_writes_nothing(site_kit: Path):
    before = snapshot(site_kit)
    planned = harden(site_kit, dry_run=True)
    assert snapshot(site_kit) == before
    assert planned == harden(site_kit)


def test_the_startup_folder_stays_as_provisioned(site_kit: Path):
    before = {name: data for name, data in snapshot(site_kit).items() if name.startswith("startup")}
    harden(site_kit)
    assert {name: data for name, data in snapshot(site_kit).items() if name.startswith("startup")} == before


def test_the_template_is_a_site_configuration_with_a_strict_floor(site_kit: Path):
    harden(site_kit)
    path = site_kit / "local" / "med_duallora_site.json"
    config = SiteConfig.from_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert config.policy.min_subjects >= 5 and config.policy.head_leaves == "shared"
    assert not config.ledger_path.is_relative_to(site_kit), "FLARE's commands reach its workspace, the kit"


def test_a_filled_in_template_is_never_overwritten(site_kit: Path):
    harden(site_kit)
    path = site_kit / "local" / "med_duallora_site.json"
    path.write_text("filled in by the administrator")
    harden(site_kit)
    assert path.read_text() == "filled in by the administrator"


def test_a_given_site_configuration_is_named_and_no_template_is_made(site_kit: Path, tmp_path: Path):
    place = tmp_path / "site.json"
    harden(site_kit, _touched(place))
    assert read(site_kit, "privacy.json")["scopes"][0]["properties"]["med_duallora_site_config"] == str(place)
    assert not (site_kit / "local" / "med_duallora_site.json").exists()
    (moved,) = harden(site_kit, _touched(tmp_path / "other.json"))
    assert moved.file == "local/privacy.json" and moved.setting == "scopes"


def _touched(path: Path) -> Path:
    path.write_text(json.dumps({"policy": strict_policy()}))
    return path


OLDER = [{"min_subjects": 9, "max_rank": 8}, {}, {"head_leaves": "all", "max_blocks": 12}]


@pytest.mark.parametrize("policy", OLDER, ids=["stricter", "empty", "wider, as agreed"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_an_older_policy_lacks_is_added_strict(
    site_kit: Path, tmp_path: Path, policy: dict[str, Any], elsewhere: bool
):
    """A key that the administrator wrote is never changed, whether it is stricter or wider."""
    place = tmp_path / "site.json" if elsewhere else site_kit / "local" / "med_duallora_site.json"
    given = place if elsewhere else None
    place.write_text(json.dumps({"data_dir": "/data", "policy": policy}))
    planned = harden(site_kit, given, dry_run=True)
    assert json.loads(place.read_text())["policy"] == policy, "a dry run writes nothing"
    changes = harden(site_kit, given)
    assert changes == planned
    added = {change.setting: change.after for change in changes if change.file == place.name}
    strict = {key: value for key, value in strict_policy().items() if key not in policy}
    assert added == {f"policy.{key}": json.dumps(value) for key, value in strict.items()}
    assert json.loads(place.read_text()) == {"data_dir": "/data", "policy": {**policy, **strict}}
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert harden(site_kit, given) == []


@pytest.mark.parametrize(("value", "now"), [(False, "none"), (True, "all")])
def test_what_an_earlier_version_said_of_the_head_is_said_in_todays_words(site_kit: Path, value: bool, now: str):
    """Nothing that a site refused is allowed by an update, and it hears what the default job needs."""
    harden(site_kit)
    change(site_kit, "med_duallora_site.json", lambda values: values["policy"].update(head_leaves=value))
    (only,) = harden(site_kit)
    assert (only.setting, only.before, only.after) == ("policy.head_leaves", json.dumps(value), json.dumps(now))
    assert "the default job needs 'shared'" in only.why
    assert read(site_kit, "med_duallora_site.json")["policy"]["head_leaves"] == now
    assert harden(site_kit) == []


@pytest.mark.parametrize("text", ['{"policy": 3}', '{"policy": {}, "policy": {}}', "[]", "{"])
def test_a_site_configuration_that_is_not_understood_is_left_to_its_administrator(site_kit: Path, text: str):
    harden(site_kit)
    path = site_kit / "local" / "med_duallora_site.json"
    path.write_text(text)
    assert harden(site_kit) == []
    assert path.read_text() == text


def test_an_administrators_settings_survive(site_kit: Path):
    harden(site_kit)
    change(site_kit, "resources.json", lambda values: values["components"][0]["args"].update(num_of_gpus=2))
    change(site_kit, "resources.json", lambda values: values.update(allow_log_streaming=True))
    (only,) = harden(site_kit)
    assert only.setting == "allow_log_streaming"
    assert read(site_kit, "resources.json")["components"][0]["args"]["num_of_gpus"] == 2


def _older(values: dict) -> None:
    del values["class_allow_list"]


UNKNOWN = [
    ("another format", "resources.json.default", lambda v: v.update(format_version=3), "format_version is 3"),
    ("an older FLARE", "resources.json.default", _older, "has no class_allow_list"),
    (
        "a key that FLARE tells the server",
        "resources.json.default",
        lambda v: v.update(ward="B2"),
        "unknown key 'ward'",
    ),
    (
        "an own site_config",
        "resources.json.default",
        lambda v: v["client"].update(site_config={}),
        "client.site_config",
    ),
    (
        "a component of somebody else",
        "resources.json.default",
        lambda v: v["components"].append({"id": "x", "path": "hospital.Exporter"}),
        "hospital.Exporter",
    ),
    (
        "components of a wrong type",
        "resources.json.default",
        lambda v: v.update(components={}),
        "components is not a list",
    ),
    ("no permissions", "authorization.json.default", lambda v: v.pop("permissions"), "no permissions"),
    (
        "odd permissions",
        "authorization.json.default",
        lambda v: v["permissions"].update(lead=[]),
        "of 'lead' are a list",
    ),
]


@pytest.mark.parametrize(("case", "name", "edit", "message"), UNKNOWN, ids=[row[0] for row in UNKNOWN])
def test_a_kit_that_is_not_understood_is_left_alone(site_kit: Path, case: str, name: str, edit, message: str):
    change(site_kit, name, edit)
    before = snapshot(site_kit)
    with pytest.raises(KitError, match=message.replace(".", r"\.")):
        harden(site_kit)
    assert snapshot(site_kit) == before


def test_a_privacy_policy_of_somebody_else_is_not_lost(site_kit: Path):
    (site_kit / "local" / "privacy.json").write_text((site_kit / "local" / "privacy.json.sample").read_text())
    before = snapshot(site_kit)
    with pytest.raises(KitError, match="another privacy policy"):
        harden(site_kit)
    assert snapshot(site_kit) == before


def test_a_further_resource_file_is_not_overlooked(site_kit: Path):
    (site_kit / "local" / "job__j_resources.json").write_text("{}")
    with pytest.raises(KitError, match=r"further resource file job__j_resources\.json"):
        harden(site_kit)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is not JSON"), ("[]", "must hold one JSON object"), ('{"a": 1}', "not written by FLARE")],
)
def test_a_damaged_kit_is_left_alone(site_kit: Path, content: str, message: str):
    (site_kit / "local" / "resources.json.default").write_text(content)
    before = snapshot(site_kit)
    with pytest.raises(KitError, match=message):
        harden(site_kit)
    assert snapshot(site_kit) == before


def test_other_kinds_of_folders_are_refused(provisioned: Path, tmp_path: Path):
    with pytest.raises(KitError, match="the server's startup kit"):
        harden(provisioned / "localhost")
    with pytest.raises(KitError, match=r"fed_client\.json: No such file"):
        harden(provisioned / "lead@centre.org")
    with pytest.raises(KitError, match="startup kit of a FLARE site"):
        harden(tmp_path)


def test_a_missing_site_configuration_is_said_before_anything_is_written(site_kit: Path, tmp_path: Path):
    before = snapshot(site_kit)
    with pytest.raises(KitError, match="is not there"):
        harden(site_kit, tmp_path / "none.json")
    assert snapshot(site_kit) == before


def test_a_write_that_fails_leaves_the_kit_as_it_was(site_kit: Path, monkeypatch: pytest.MonkeyPatch):
    from med_duallora.support.files import write_text

    def full_disk(path: Path, text: str, mode: int) -> None:
        if path.name == "privacy.json":
            raise OSError(28, "No space left on device")
        write_text(path, text, mode)

    before = snapshot(site_kit)
    monkeypatch.setattr("med_duallora.site_kit.hardening.write_text", full_disk)
    with pytest.raises(KitError, match="No space left on device; nothing changed"):
        harden(site_kit)
    assert snapshot(site_kit) == before
