import re
from dataclasses import replace
from pathlib import Path

import pytest

from med_duallora.settings.config import SiteConfig
from med_duallora.site.places import place_problems


def problems_of(config: SiteConfig) -> list[str]:
    return list(map(str, place_problems(config)))


@pytest.fixture
def config(tiny_sites: dict[str, SiteConfig]) -> SiteConfig:
    return tiny_sites["ge"]


def test_usable_places_are_left_alone(config: SiteConfig) -> None:
    assert problems_of(config) == []
    ledger = config.state_dir / "deep" / "ledger.jsonl"
    assert problems_of(replace(config, ledger=ledger, backbone_checkpoint=None)) == []
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
def test_an_unusable_place_names_key_value_and_fix(
    key: str, value: str, message: str, config: SiteConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (problem,) = problems_of(replace(config, **{key: tmp_path / value}))
    assert re.match(rf"{key} = '{tmp_path / value}', but .*{message}", problem)


def test_the_folder_above_the_cohorts_is_recognised(config: SiteConfig) -> None:
    (problem,) = place_problems(replace(config, data_dir=config.data_dir.parent))
    assert "philips" not in problem.in_log()
    assert str(problem).endswith("it holds several cohorts, of which this site needs one (canon, ge, philips, siemens)")


def test_a_relative_path_is_refused(config: SiteConfig) -> None:
    (problem,) = problems_of(replace(config, state_dir=Path("state")))
    assert list(place_problems(replace(config, state_dir=Path("state")), in_flare=False)) == []
    assert problem.startswith("state_dir = 'state', but it is not an absolute path")


def test_every_problem_is_reported_at_once(config: SiteConfig) -> None:
    template = replace(config, data_dir=Path("/CHANGE-ME/data"), cache_dir=Path("/CHANGE-ME/cache"))
    assert [problem.key for problem in place_problems(template)] == ["data_dir", "cache_dir"]
    assert all("still the one of the template" in problem for problem in problems_of(template))


@pytest.mark.parametrize("key", ["data_dir", "state_dir", "cache_dir"])
def test_rights_are_looked_at(key: str, config: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config.state_dir.mkdir(parents=True)
    config.cache_dir.mkdir(parents=True)
    denied = str(getattr(config, key))
    monkeypatch.setattr("med_duallora.site.places.os.access", lambda path, _mode: str(path) != denied)
    (problem,) = problems_of(config)
    assert problem.startswith(key) and "this account may not" in problem
