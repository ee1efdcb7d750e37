import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from med_duallora.errors import ConfigError
from med_duallora.settings.config import SiteConfig
from med_duallora.site_kit.usable import check_usable, problems

SOURCE = Path("/etc/site/med_duallora_site.json")


@pytest.fixture
def config(tiny_sites: dict[str, SiteConfig]) -> SiteConfig:
    return tiny_sites["ge"]


def relabelled(config: SiteConfig, folder: Path, label: str) -> SiteConfig:
    """Return the configuration with a copy of the cohort whose subjects are all of one class."""
    folder.mkdir()
    for place in config.data_dir.iterdir():
        if place.is_dir():
            (folder / place.name).symlink_to(place)
    header, *rows = (config.data_dir / "cohort.csv").read_text().splitlines()
    column = header.split(",").index("label")
    changed = [[*cells[:column], label, *cells[column + 1 :]] for cells in (row.split(",") for row in rows)]
    (folder / "cohort.csv").write_text("\n".join([header, *(",".join(cells) for cells in changed)]) + "\n")
    return replace(config, data_dir=folder)


def test_a_good_configuration_is_left_alone(config: SiteConfig) -> None:
    check_usable(config, SOURCE)
    check_usable(replace(config, device="auto"), SOURCE)
    assert not config.state_dir.exists(), "a check makes nothing"


def test_a_gpu_that_is_not_there_is_found(config: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    expected = (
        "site configuration med_duallora_site.json in /etc/site: "
        "device = 'cuda', but this machine has no usable CUDA device; use cpu or auto"
    )
    with pytest.raises(ConfigError) as caught:
        check_usable(replace(config, device="cuda"), SOURCE)
    assert str(caught.value) == expected


def test_a_gpu_that_is_there_is_taken(config: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_usable(replace(config, device="cuda:0"), SOURCE)


@pytest.mark.parametrize("label", ["0", "1"])
def test_a_cohort_of_one_class_is_found(label: str, config: SiteConfig, tmp_path: Path) -> None:
    changed = relabelled(config, tmp_path / "one-class", label)
    (problem,) = problems(changed)
    assert problem.startswith(f"data_dir = '{changed.data_dir}', but training needs both classes, and its train split")


def test_everything_that_is_wrong_is_reported_at_once(
    config: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bad = replace(relabelled(config, tmp_path / "one-class", "1"), device="cuda", state_dir=Path("state"))
    assert [problem.partition(" = ")[0] for problem in problems(bad)] == ["state_dir", "device", "data_dir"]


def test_a_damaged_table_is_left_to_the_jobs(config: SiteConfig, tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("subject\nge000\n")
    assert list(problems(replace(config, data_dir=tmp_path))) == [], "its message may name a subject"


def test_torch_is_not_imported_for_a_device_that_is_always_there() -> None:
    device = "import med_duallora.site_kit.usable as usable; list(usable._device('cpu'))"
    code = f"import sys\n{device}\nsys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
