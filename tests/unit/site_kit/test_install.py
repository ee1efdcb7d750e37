import json
import shutil
from pathlib import Path

import pytest
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST

from med_duallora.errors import ConfigError, KitError
from med_duallora.settings.config import SiteConfig
from med_duallora.site_kit import SERVER_CLASSES, inspect_kit
from med_duallora.site_kit.install import SITE_CONFIG_PLACE, install_server, install_site
from med_duallora.site_kit.wanted import CONNECTION_GUARD, LITERAL_GUARD


@pytest.fixture
def server_kit(provisioned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(provisioned / "localhost", tmp_path / "localhost"))


def places(tmp_path: Path) -> dict[str, str | None]:
    return {name: str(tmp_path / name) for name in ("data_dir", "state_dir", "cache_dir")}


def test_the_server_allows_our_classes_and_flare_s(server_kit: Path, tmp_path: Path) -> None:
    written = json.loads(install_server(server_kit, tmp_path / "store").read_text())
    assert set(written["class_allow_list"]) == {*DEFAULT_CLASS_ALLOW_LIST, *SERVER_CLASSES}
    assert written["class_list_enforcement_mode"] == "enforce"


def test_the_server_builds_literal_jobs_only(server_kit: Path, tmp_path: Path) -> None:
    written = json.loads(install_server(server_kit, tmp_path / "store").read_text())
    assert LITERAL_GUARD in written["components"] and CONNECTION_GUARD in written["components"]


def test_the_server_keeps_its_jobs_to_itself(server_kit: Path, tmp_path: Path) -> None:
    before = (server_kit / "local" / "resources.json.default").read_text()
    assert "/tmp" in before, "FLARE's default, which all servers of a machine share"
    text = install_server(server_kit, tmp_path / "store").read_text()
    assert text.count(str(tmp_path / "store")) == 2


def test_installing_the_server_twice_gives_the_same(server_kit: Path, tmp_path: Path) -> None:
    first = install_server(server_kit, tmp_path / "store").read_text()
    assert install_server(server_kit, tmp_path / "store").read_text() == first


def test_what_the_server_s_administrator_edited_stays(server_kit: Path, tmp_path: Path) -> None:
    """Keys of others, a narrower list of classes, another component: only what this package needs is set again."""
    place = install_server(server_kit, tmp_path / "store")
    edited = json.loads(place.read_text())
    edited["max_jobs"] = 7
    edited["class_allow_list"] = ["hospital.OwnClass", *edited["class_allow_list"][3:-1]]
    edited["components"].append({"id": "own", "path": "hospital.Own", "args": {}})
    edited["snapshot_persistor"]["args"]["uri_root"] = "/edited"
    place.write_text(json.dumps(edited))
    again = json.loads(install_server(server_kit, tmp_path / "other store").read_text())
    assert set(again.pop("class_allow_list")) == {*edited.pop("class_allow_list"), *SERVER_CLASSES}
    assert again == json.loads(json.dumps(edited).replace(str(tmp_path / "store"), str(tmp_path / "other store")))


def test_a_file_of_the_server_with_nothing_to_do_is_not_touched(server_kit: Path, tmp_path: Path) -> None:
    place = install_server(server_kit, tmp_path / "store")
    place.write_text(json.dumps(json.loads(place.read_text()), indent=7))
    before = (place.read_bytes(), place.stat().st_ino)
    install_server(server_kit, tmp_path / "store")
    assert (place.read_bytes(), place.stat().st_ino) == before


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_edited_resources_that_are_not_understood_are_left_alone(text: str, server_kit: Path, tmp_path: Path) -> None:
    place = server_kit / "local" / "resources.json"
    place.write_text(text)
    with pytest.raises(KitError, match=r"resources\.json"):
        install_server(server_kit, tmp_path / "store")
    assert place.read_text() == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            None,
            r"resources\.json\.default: No such file or directory; is .* the startup kit of a FLARE server",
            id="no file",
        ),
        pytest.param("{", "it is not JSON", id="no JSON"),
        pytest.param("[]", "must hold one JSON object", id="no object"),
        pytest.param("{}", "not a server kit of FLARE 2.9", id="another version"),
    ],
)
def test_a_server_kit_that_is_not_understood_is_left_alone(
    text: str | None, message: str, server_kit: Path, tmp_path: Path
) -> None:
    default = server_kit / "local" / "resources.json.default"
    default.unlink() if text is None else default.write_text(text)
    with pytest.raises(KitError, match=message):
        install_server(server_kit, tmp_path / "store")
    assert not (server_kit / "local" / "resources.json").exists()


def test_a_site_s_kit_is_no_server_kit(site_kit: Path, tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"not a server kit of FLARE 2\.9: its resources have no 'snapshot_persistor'"):
        install_server(site_kit, tmp_path / "store")


def test_a_site_gets_its_places_and_a_strict_floor(site_kit: Path, tmp_path: Path) -> None:
    assert install_site(site_kit, places(tmp_path))
    config = SiteConfig.from_file(site_kit / SITE_CONFIG_PLACE)
    assert config.data_dir == tmp_path / "data_dir"
    assert config.policy.min_subjects == 5
    assert config.policy.head_leaves == "shared"


def test_a_site_s_code_finds_the_configuration_through_the_privacy_scope(site_kit: Path, tmp_path: Path) -> None:
    install_site(site_kit, places(tmp_path))
    scope = json.loads((site_kit / "local" / "privacy.json").read_text())["scopes"][0]
    assert SiteConfig.find("siemens", scope["properties"]).state_dir == tmp_path / "state_dir"


def test_every_channel_of_a_site_is_closed(site_kit: Path, tmp_path: Path) -> None:
    assert [channel for channel in inspect_kit(site_kit) if channel.is_open]
    install_site(site_kit, places(tmp_path))
    assert [channel for channel in inspect_kit(site_kit) if channel.is_open] == []


def test_settings_change_every_site(site_kit: Path, tmp_path: Path) -> None:
    install_site(site_kit, places(tmp_path), ["device=cpu", "policy.min_subjects=9"])
    config = SiteConfig.from_file(site_kit / SITE_CONFIG_PLACE)
    assert (config.device, config.policy.min_subjects) == ("cpu", 9)


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param("devise=cpu", id="unknown"),
        pytest.param("device=gpu", id="out of range"),
        pytest.param("policy.colour=blue", id="unknown in a group"),
        pytest.param("device", id="no assignment"),
    ],
)
def test_a_wrong_setting_changes_nothing(setting: str, site_kit: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        install_site(site_kit, places(tmp_path), [setting])
    assert not (site_kit / SITE_CONFIG_PLACE).exists()
    assert not (site_kit / "local" / "resources.json").exists()


def rights_at(kit: Path, file: str = "authorization.json") -> dict[str, object]:
    return dict(json.loads((kit / "local" / file).read_text())["permissions"])


def test_whoever_may_download_a_result_may_ask_the_running_job(server_kit: Path, tmp_path: Path) -> None:
    install_server(server_kit, tmp_path / "store")
    before, after = rights_at(server_kit, "authorization.json.default"), rights_at(server_kit)
    assert after["lead"] == {**before["lead"], "app_command": before["lead"]["download_job"]}  # type: ignore[dict-item, index]
    assert after["member"] == before["member"], "who may only watch gets no adapter"


def test_a_right_that_the_administrator_wrote_stays(server_kit: Path, tmp_path: Path) -> None:
    install_server(server_kit, tmp_path / "store")
    place = server_kit / "local" / "authorization.json"
    edited = json.loads(place.read_text())
    edited["permissions"]["lead"]["app_command"] = "none"
    place.write_text(json.dumps(edited))
    install_server(server_kit, tmp_path / "store")
    assert json.loads(place.read_text()) == edited


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_policy_that_is_not_understood_changes_nothing(text: str, server_kit: Path, tmp_path: Path) -> None:
    place = server_kit / "local" / "authorization.json"
    place.write_text(text)
    with pytest.raises(KitError, match=r"authorization\.json"):
        install_server(server_kit, tmp_path / "store")
    assert place.read_text() == text
    assert not (server_kit / "local" / "resources.json").exists()
