import stat
from pathlib import Path

import pytest

from med_duallora.cli import main
from med_duallora.site import kept_calibration
from tests.unit.report.test_site_page import STATE, site_run


def test_the_report_is_written_beside_the_run_and_named(server: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(server)]) == 0
    headline, place = capsys.readouterr().out.splitlines()
    assert headline.startswith("Gain shown over each site's own head: +0.38, 95 % interval +0.04 to +0.58")
    assert place == f"report: {server / 'report' / 'report.html'}"
    assert (server / "report" / "report.md").is_file()


def test_the_report_goes_where_it_is_reported(server: Path, tmp_path: Path) -> None:
    assert main(["report", str(server), "--out", str(tmp_path / "here")]) == 0
    assert (tmp_path / "here" / "report.html").is_file()


def test_a_folder_without_a_run_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "med-duallora report: no run below" in capsys.readouterr().err


def test_the_release_gate_decides_the_exit_code(server: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(server), "--min-specificity", "0.4"]) == 0
    assert "Release gate passed, 2 of 2 sites pass." in capsys.readouterr().out
    assert main(["report", str(server), "--min-specificity", "0.6"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("Release gate failed, 1 of 2 sites pass. Worst site: philips: specificity 0.50")
    assert "Release gate" in (server / "report" / "report.md").read_text()


@pytest.mark.parametrize("floor", ["0", "1.1", "nan", "60%"])
def test_a_floor_is_a_share(server: Path, floor: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", str(server), "--min-sensitivity", floor])
    assert ended.value.code == 2
    assert "is not a number above 0 and at most 1" in capsys.readouterr().err


def test_a_sites_folder_gets_its_own_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kept_calibration, "state_checksum", lambda _: STATE)
    folder = site_run(tmp_path / "state" / "demo" / "run")
    assert main(["report", str(folder)]) == 0
    gate, place = capsys.readouterr().out.splitlines()
    assert gate.startswith("Release gate passed: specificity 0.92")
    page = folder / "report" / "report.html"
    assert place == f"page (about this site's subjects; keep it there): {page}"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in page.parent.iterdir()}
    assert modes == {"report.html": 0o600, "report.md": 0o600, "reliability.png": 0o600}
    assert main(["report", str(folder), "--min-sensitivity", "0.95"]) == 1
    assert "Release gate failed: sensitivity 0.92" in capsys.readouterr().out
    assert main(["report", str(tmp_path)]) == 2
    assert f"give its run folder: {folder}" in capsys.readouterr().err
