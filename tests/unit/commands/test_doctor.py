import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from med_duallora.cli import main
from med_duallora.settings.policy import SitePolicy
from tests.conftest import write_tiny_cohort


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    return write_tiny_cohort(tmp_path / "prepared" / "ge", "ge", seed=3, n_subjects=30, n_by_split=(10, 10, 10))


def write_job(folder: Path, **lora: object) -> Path:
    settings = {"backbone": "cinema-mini", "experiment": "trial", "lora": lora}
    component = {"path": "med_duallora.flare.wire.job.FederatedJob", "args": {"config": settings}}
    (folder / "app" / "config").mkdir(parents=True)
    (folder / "app" / "config" / "config_fed_client.json").write_text(json.dumps({"components": [component]}))
    return folder


def test_the_first_line_is_the_answer_and_the_page_holds_everything(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["doctor", str(cohort), "--out", str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ge is fit to join: 30 subjects (15 normal (NOR), 15 diseased; 10 train, 10 val, 10 test)."
    assert lines[-1] == f"page (with subjects' images; keep it at the site): {page}"
    text = page.read_text(encoding="utf-8")
    assert lines[0] in text
    assert "Research use, not for diagnosis." in text
    assert "it must not leave the site" in text
    assert text.count("data:image/png;base64,") == 2, "measures and examples"
    assert page.stat().st_mode & 0o077 == 0, "it shows patients"
    assert "://" not in text


def test_any_name_can_stand_on_the_page(cohort: Path, tmp_path: Path) -> None:
    """Cohorts that another program wrote may hold names that are markup or a formula elsewhere."""
    odd = "$^$<b>&"
    (cohort / "ge000").rename(cohort / odd)
    for phase in ("ed", "es"):
        (cohort / odd / f"ge000_sax_{phase}.nii.gz").rename(cohort / odd / f"{odd}_sax_{phase}.nii.gz")
    table = cohort / "cohort.csv"
    rows = table.read_text(encoding="utf-8").replace("ge000", odd).splitlines()
    rows[1] = rows[1].replace("segmentation", "image")
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    page = tmp_path / "page.html"
    assert main(["doctor", str(cohort), "--out", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "$^$&lt;b&gt;&amp;" in text
    assert "<b>" not in text


def test_an_error_is_exit_code_1_and_comes_first(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cohort / "ge003" / "ge003_sax_es.nii.gz").write_bytes(b"")
    assert main(["doctor", str(cohort), "--out", str(tmp_path / "page.html"), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert not found["is_fit"]
    assert found["findings"][0]["severity"] == "error"
    assert found["findings"][0]["subjects"] == ["ge003"]


@pytest.mark.parametrize(
    ("lora", "code", "says"),
    [
        ({}, 0, "/job can run here"),
        ({"head_policy": "global"}, 1, "policy.head_leaves"),
        ({"rank_global": 64}, 1, "policy.max_rank"),
    ],
)
def test_whether_a_job_can_run_here(
    cohort: Path, capsys: pytest.CaptureFixture[str], lora: dict[str, object], code: int, says: str
) -> None:
    job = write_job(cohort.parent / "job", **lora)
    assert main(["doctor", str(cohort), "--job", str(job), "--out", str(cohort.parent / "page.html")]) == code
    assert says in capsys.readouterr().out


def test_the_privacy_floor_is_that_of_the_site(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "site.json"
    places = {name: str(tmp_path / name) for name in ("data_dir", "state_dir", "cache_dir")}
    config.write_text(json.dumps({**places, "policy": dataclasses.asdict(SitePolicy(min_subjects=6))}))
    assert main(["doctor", str(cohort), "--site-config", str(config), "--out", str(tmp_path / "page.html")]) == 1
    said = capsys.readouterr().out
    assert "site.json lets numbers leave only from 6 of each class on" in said
    assert "no job can run with the policy of the site configuration site.json: its train split has 5 normal" in said
    assert f"every job would fail with this site configuration: data_dir = '{tmp_path / 'data_dir'}'" in said
    assert f"the site configuration names another cohort: data_dir is {tmp_path / 'data_dir'}" in said


def no_such_folder(cohort: Path) -> list[str]:
    return [str(cohort / "nowhere")]


def a_raw_folder(cohort: Path) -> list[str]:
    return [str(cohort / "ge001")]


def a_page_that_is_none(cohort: Path) -> list[str]:
    return [str(cohort), "--out", "page.pdf"]


def a_job_that_is_none(cohort: Path) -> list[str]:
    return [str(cohort), "--job", "nobody"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (no_such_folder, "does not exist, or is not a folder"),
        (a_raw_folder, "`med-duallora prepare` makes one"),
        (a_page_that_is_none, "must end in .html"),
        (a_job_that_is_none, "there is no such job folder, and no known job"),
    ],
)
def test_bad_input_is_said_in_a_sentence(
    cohort: Path, capsys: pytest.CaptureFixture[str], arguments: Callable[[Path], list[str]], says: str
) -> None:
    assert main(["doctor", *arguments(cohort)]) == 2
    assert says in capsys.readouterr().err
