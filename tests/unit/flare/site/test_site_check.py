import logging
import shutil
from pathlib import Path

import pytest
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContextManager
from nvflare.apis.workspace import Workspace

from med_duallora.flare.site.site_check import say_whether_usable
from med_duallora.site_kit.install import SITE_CONFIG_PLACE, install_site
from tests.unit.flare.local.conftest import kits, project

__all__ = ["kits", "project"]

FLOORS = ["policy.min_subjects=3", "policy.min_train_subjects=6"]
"""That the tiny cohort reaches."""


@pytest.fixture
def kit(kits: Path, tmp_path: Path, tiny_cohorts: dict[str, Path]) -> Path:
    """A closed kit whose site configuration is good."""
    copy = Path(shutil.copytree(kits / "siemens", tmp_path / "siemens"))
    places = {"data_dir": str(tiny_cohorts["siemens"]), "state_dir": str(tmp_path / "state")}
    install_site(copy, {**places, "cache_dir": str(tmp_path / "cache")}, FLOORS)
    return copy


def said(kit: Path, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and text of what a site's log says at its start."""
    fl_ctx = FLContextManager(None, "siemens").new_context()
    fl_ctx.set_prop(FLContextKey.WORKSPACE_OBJECT, Workspace(str(kit), "siemens"), private=True)
    with caplog.at_level(logging.INFO):
        say_whether_usable(FLComponent(), fl_ctx)
    return [(record.levelname, record.getMessage().partition("]: ")[2]) for record in caplog.records]


def test_a_usable_configuration_is_named(kit: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert said(kit, caplog) == [("INFO", "site configuration med_duallora_site.json is usable")]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(("state_dir", "stat_dir"), "unknown setting 'stat_dir'; did you mean state_dir?", id="misspelt"),
        pytest.param(
            ('"n_threads": 1', '"n_threads": 0'), "n_threads = 0, but it must be between 1", id="out of range"
        ),
        pytest.param(
            ('"device": "auto"', '"device": "cuda:99"'), "device = 'cuda:99', but this machine has", id="no GPU"
        ),
        pytest.param(("prepared", "nowhere"), "data_dir = '<path>', but there is no such folder", id="no cohort"),
        pytest.param(("{", ""), "is not JSON", id="no JSON"),
    ],
)
def test_a_mistake_is_reported_at_the_start(
    change: tuple[str, str], expected: str, kit: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = kit / SITE_CONFIG_PLACE
    config.write_text(config.read_text().replace(*change))
    (line,) = said(kit, caplog)
    assert line[0] == "ERROR"
    assert line[1].startswith("every job will fail at this site: site configuration med_duallora_site.json in <path>")
    assert expected in line[1]
    assert str(kit) not in line[1]


def test_an_open_kit_is_reported_what_to_do(kits: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert said(kits / "siemens", caplog) == [("ERROR", "local/privacy.json names no site configuration: run site-kit")]
