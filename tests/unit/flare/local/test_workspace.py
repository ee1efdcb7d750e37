from pathlib import Path

import pytest

from med_duallora.errors import InputError
from med_duallora.flare.local import workspace as workspaces
from med_duallora.flare.local.workspace import held, read_record, results_in, set_aside
from med_duallora.site.secret import site_secret


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A run of one round, with a cache."""
    folder = tmp_path / "run"
    for name in ("run.json", "state/ge/state.safetensors", "report/report.html", "cache/ge/00/features"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    (folder / workspaces.SERVER).mkdir(parents=True)
    (folder / workspaces.SERVER / "round_metrics.jsonl").write_text("{}\n")
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_moved_aside_whole_but_for_its_cache(workspace: Path) -> None:
    before = files(workspace)
    previous = set_aside(workspace)
    assert previous == workspace.with_name("run.previous-1")
    assert files(workspace) == {"cache/ge/00/features"}
    assert files(previous) == before - {"cache/ge/00/features"}


def test_the_cache_stays_readable_because_the_secrets_are_copied(workspace: Path) -> None:
    before = site_secret(workspace / "state" / "ge")
    previous = set_aside(workspace)
    assert site_secret(workspace / "state" / "ge") == before == site_secret(previous / "state" / "ge")
    assert read_record(workspace) is None, "with secrets and a cache alone it is a new workspace"
    (workspace / "state" / "ge" / "state.safetensors").touch()
    with pytest.raises(InputError, match="holds no run"):
        read_record(workspace)


def test_no_earlier_run_is_overwritten(workspace: Path) -> None:
    workspace.with_name("run.previous-1").mkdir()
    assert set_aside(workspace) == workspace.with_name("run.previous-2")


def test_a_move_that_was_broken_off_can_be_started_over(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = files(workspace)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "mkdir", killed)
        set_aside(workspace)
    assert files(workspace.with_name("run.previous-1")) == before, "it is whole in the new place"
    assert read_record(workspace) is None, "and the workspace is new"
    (workspace / "cache").mkdir(parents=True)
    with held(workspace):
        assert read_record(workspace) is None, "so it is with the lock and a cache in it"


def test_a_move_that_cannot_be_made_changes_nothing(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link", "run")

    before = files(workspace)
    with monkeypatch.context() as patched, pytest.raises(OSError, match="cross-device"):
        patched.setattr(Path, "rename", refused)
        set_aside(workspace)
    assert files(workspace) == before


def test_what_would_be_lost_is_said_in_a_few_words(workspace: Path) -> None:
    assert results_in(workspace) == "1 finished round"
    (workspace / workspaces.SERVER / "evaluation.json").write_text("{}")
    assert results_in(workspace) == "the results of 1 round"
    (workspace / workspaces.SERVER / "round_metrics.jsonl").write_text("")
    (workspace / workspaces.SERVER / "evaluation.json").unlink()
    assert results_in(workspace) == ""
    assert results_in(workspace / "nowhere") == ""


@pytest.mark.parametrize("text", ["{", "[" * 2000, "\udcff"], ids=["cut off", "deep", "no text"])
def test_a_damaged_record_is_an_error_that_names_it(text: str, workspace: Path) -> None:
    (workspace / "run.json").write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=r"run\.json cannot be read"):
        read_record(workspace)
