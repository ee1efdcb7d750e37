from pathlib import Path

import pytest

from med_duallora.cli import main


def test_the_report_is_written_beside_the_run_and_named(server: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(server)]) == 0
    headline, place = capsys.readouterr().out.splitlines()
    assert "0.88 (95 % interval 0.60 to 0.96) with both adapters" in headline
    assert place == f"report: {server / 'report' / 'report.html'}"
    assert (server / "report" / "report.md").is_file()


def test_the_report_goes_where_it_is_reported(server: Path, tmp_path: Path) -> None:
    assert main(["report", str(server), "--out", str(tmp_path / "here")]) == 0
    assert (tmp_path / "here" / "report.html").is_file()


def test_a_folder_without_a_run_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "med-duallora report: no run below" in capsys.readouterr().err
