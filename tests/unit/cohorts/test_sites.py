from pathlib import Path

import pytest

from med_duallora.cohorts.sites import find_sites
from med_duallora.errors import ConfigError


def test_every_prepared_cohort_is_a_site(tiny_cohorts: dict[str, Path]) -> None:
    data = tiny_cohorts["ge"].parent
    assert list(find_sites(data)) == ["canon", "ge", "philips", "siemens"]
    assert find_sites(data, ["siemens", " ge"]) == {"siemens": tiny_cohorts["siemens"], "ge": tiny_cohorts["ge"]}


def test_a_folder_that_a_killed_run_left_is_no_site(tmp_path: Path) -> None:
    for name in ("ge", ".partial-ge"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cohort.csv").touch()
    assert list(find_sites(tmp_path)) == ["ge"]


def test_missing_cohorts_are_named(tiny_cohorts: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no prepared cohort below"):
        find_sites(tmp_path)
    with pytest.raises(ConfigError, match=r"toshiba; there are canon, ge"):
        find_sites(tiny_cohorts["ge"].parent, ["ge", "toshiba"])
    with pytest.raises(ConfigError, match="site ge is named twice"):
        find_sites(tiny_cohorts["ge"].parent, ["ge", "ge"])


def test_a_level_too_deep_or_too_high_is_said(tiny_cohorts: dict[str, Path], tmp_path: Path) -> None:
    data = tiny_cohorts["ge"].parent
    with pytest.raises(ConfigError, match=rf"is itself a prepared cohort, .*: --data {data}$"):
        find_sites(data / "ge")
    with pytest.raises(ConfigError, match=r"cohort\.csv is a file; give the folder"):
        find_sites(data / "ge" / "cohort.csv")
    (tmp_path / "prepared").symlink_to(data)
    with pytest.raises(ConfigError, match=rf"--data {tmp_path / 'prepared'} has some"):
        find_sites(tmp_path)
    with pytest.raises(ConfigError, match="there is no such folder"):
        find_sites(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["centre 1", "klinik-süd", "a,b", "a.b", "-a", "server", "a'b", "x" * 65])
def test_a_name_that_flare_does_not_take_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "cohort.csv").touch()
    with pytest.raises(ConfigError, match="cannot be the name of a site: FLARE takes up to 64"):
        find_sites(tmp_path)
    (tmp_path / "ge").mkdir()
    (tmp_path / "ge" / "cohort.csv").touch()
    assert list(find_sites(tmp_path, ["ge"])) == ["ge"], "where it takes no part, its name does not matter"
