from dataclasses import replace
from pathlib import Path

import pytest

from med_duallora.errors import ConfigError
from med_duallora.settings.config import SiteConfig
from med_duallora.site_kit.places import check_places, place_problems

SOURCE = Path("/etc/site/med_duallora_site.json")


@pytest.fixture
def config(tiny_sites: dict[str, SiteConfig]) -> SiteConfig:
    return tiny_sites["ge"]


def test_usable_places_are_left_alone(config: SiteConfig) -> None:
    check_places(config, SOURCE)
    check_places(replace(config, ledger=config.state_dir / "deep" / "ledger.jsonl", backbone_checkpoint=None), SOURCE)
    assert not config.state_dir.exists(), "a check makes nothing"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data_dir", "nowhere", r"there is no such folder: .*med-duallora prepare"),
        ("data_dir", "file", "there is no such folder"),
        ("data_dir", "empty", r"it has no cohort\.csv: write another"),
        ("data_dir", "..", r"it has no cohort\.csv"),
        ("state_dir", "file", "is not a folder"),
        ("cache_dir", "file/below", "is not a folder"),
        ("ledger", "file/ledger.jsonl", "is not a folder"),
        ("backbone_checkpoint", "nowhere", "it is not a readable file: .* null for the shipped one"),
        ("backbone_checkpoint", "empty", "it is not a readable file"),
    ],
)
def test_an_unusable_place_names_file_key_value_and_fix(
    key: str, value: str, message: str, config: SiteConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    expected = (
        rf"^site configuration med_duallora_site\.json in /etc/site: {key} = '{tmp_path / value}', but .*{message}"
    )
    with pytest.raises(ConfigError, match=expected):
        check_places(replace(config, **{key: tmp_path / value}), SOURCE)


def test_the_folder_above_the_cohorts_is_recognised(config: SiteConfig) -> None:
    (problem,) = place_problems(replace(config, data_dir=config.data_dir.parent))
    assert problem.endswith("it holds several cohorts, of which this site needs one (canon, ge, philips, siemens)")


def test_a_relative_path_is_refused(config: SiteConfig) -> None:
    (problem,) = place_problems(replace(config, state_dir=Path("state")))
    assert problem.startswith("state_dir = 'state', but it is not an absolute path")


def test_every_problem_is_reported_at_once(config: SiteConfig) -> None:
    template = replace(config, data_dir=Path("/CHANGE-ME/data"), cache_dir=Path("/CHANGE-ME/cache"))
    assert [problem.split(" = ")[0] for problem in place_problems(template)] == ["data_dir", "cache_dir"]
    assert all("still the one of the template" in problem for problem in place_problems(template))


@pytest.mark.parametrize("key", ["data_dir", "state_dir", "cache_dir"])
def test_rights_are_looked_at(key: str, config: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config.state_dir.mkdir(parents=True)
    config.cache_dir.mkdir(parents=True)
    denied = str(getattr(config, key))
    monkeypatch.setattr("med_duallora.site_kit.places.os.access", lambda path, _mode: str(path) != denied)
    (problem,) = place_problems(config)
    assert problem.startswith(key) and "this account may not" in problem
