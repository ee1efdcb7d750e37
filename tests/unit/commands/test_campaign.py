"""The command's part of a campaign: what is refused before a server is asked, exit codes, what is printed."""

from pathlib import Path

import pytest

from med_duallora.campaign.journal import Journal
from med_duallora.campaign.state import Campaign, Phase
from med_duallora.cli import INTERRUPTED, main
from med_duallora.flare.campaign import gate, loop
from med_duallora.flare.campaign.wanted import Wanted
from tests.unit.flare.local.conftest import kits, project

__all__ = ["kits", "project"]

SETTINGS = ("backbone=cinema-tiny", "train.n_rounds=3", "workflow.min_sites=1")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate.Gate, "check", lambda _: None)
    monkeypatch.setattr(loop.Loop, "run", lambda _: pytest.fail("it was to begin"))


@pytest.fixture
def command(kits: Path, tmp_path: Path) -> list[str]:
    words = ["campaign", "--admin-kit", str(kits / "lead@research.example.org"), "--out", str(tmp_path / "out")]
    return words + [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.mark.parametrize(("evaluated", "says"), [(True, "report: med-duallora report"), (False, "no report: ")])
def test_all_rounds_done_is_exit_code_0(
    evaluated: bool,
    says: str,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A report needs the test scores, which the last job may not have lived to give."""

    def run(self: loop.Loop) -> bool:
        self._campaign.round_index, self._campaign.evaluated = 2, evaluated
        return True

    monkeypatch.setattr(loop.Loop, "run", run)
    assert main(command) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "3 of 3 rounds in 0 jobs" in first
    assert second.startswith(says)


def test_given_up_is_exit_code_3(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.Loop, "run", lambda _: False)
    assert main(command) == 3


def test_an_interruption_says_that_the_job_goes_on(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: loop.Loop) -> bool:
        self._campaign.job_id = "1234"
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.Loop, "run", run)
    assert main(command) == INTERRUPTED
    assert "job 1234 goes on without being followed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--set", "train.n_rounds=0"], "train.n_rounds"),
        (["--set", "no.such=1"], "no.such"),
        (["--job", "nothing"], "no job folder, and no known job"),
        (["--admin-kit", "/nowhere"], "not the startup kit of a person"),
        (["--webhook", "ftp://example.org"], "--webhook"),
        (["--on-event", "'"], "--on-event"),
    ],
)
def test_bad_input_is_refused_before_a_server_is_asked(
    more: list[str], says: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *more]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--patience", "0"], ["--patience", "nan"], ["--max-attempts", "0"]])
def test_a_wait_without_sense_is_bad_usage(more: list[str], command: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, *more])
    assert stopped.value.code == 2


def test_the_kit_of_a_site_is_not_a_persons(command: list[str], kits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--admin-kit", str(kits / "ge")]) == 2
    assert "not the startup kit of a person" in capsys.readouterr().err


def test_other_settings_do_not_go_on_with_a_campaign(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Journal(tmp_path / "out").write(Campaign("abc", "another digest"))
    assert main(command) == 2
    assert "holds a campaign with other settings" in capsys.readouterr().err


def test_the_same_command_goes_on_with_a_campaign(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Campaign("abc", Wanted("production", SETTINGS).plan(tmp_path).command, Phase.RUNNING, job_id="1234")
    Journal(tmp_path / "out").write(before)
    seen: list[Campaign] = []
    monkeypatch.setattr(loop.Loop, "run", lambda self: seen.append(self._campaign) is None)
    assert main(command) == 0
    assert seen == [before]


def test_two_programs_never_run_one_campaign(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Journal(tmp_path / "out").held():
        assert main(command) == 1
    assert "another program runs the campaign" in capsys.readouterr().err


def test_sites_to_wait_for_are_known_from_the_start(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    monkeypatch.setattr(loop.Loop, "run", lambda self: seen.append(self._campaign.known) is None)
    assert main([*command, "--sites", "ge,philips"]) == 0
    assert seen == [{"ge", "philips"}]


def test_the_plan_of_a_job_says_rounds_and_sites(tmp_path: Path) -> None:
    planned = Wanted("production", (*SETTINGS, "workflow.stop_round=2")).plan(tmp_path)
    assert (planned.n_rounds, planned.min_sites) == (2, 1)
    whole, again = (Wanted("production", SETTINGS).plan(tmp_path) for _ in range(2))
    assert whole == again
    assert whole.command != planned.command
    assert list(tmp_path.iterdir()) == []
