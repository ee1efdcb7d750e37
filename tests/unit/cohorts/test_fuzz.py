"""Hundreds of damaged files: each is prepared or refused with a reason, and nothing else happens."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from med_duallora.cohorts.prepared import PreparedCohort, load_volume
from med_duallora.cohorts.subject import REASONS
from tests.unit.cohorts.fuzz import BOMBS

REPOSITORY = Path(__file__).resolve().parents[3]
N_SUBJECTS = 640  # one damaged file each, but for every tenth
MAX_BYTES = 2 * 10**9
SECONDS = 300  # far more than it takes, so that only a hang meets it


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One run of prepare over all of them, in a process of its own, whose memory can be measured."""
    folder = tmp_path_factory.mktemp("fuzz")
    command = [sys.executable, "-m", "tests.unit.cohorts.fuzz", str(folder), str(N_SUBJECTS)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_every_subject_is_prepared_or_refused_with_a_known_reason(run: tuple[Path, dict[str, Any]]) -> None:
    outcome = run[1]["outcome"]
    assert len(outcome) == N_SUBJECTS
    reasons = Counter(reason for reason, _ in outcome.values())
    n_damaged = sum(number % 10 > 0 for number in range(N_SUBJECTS))
    assert n_damaged >= 500
    assert set(reasons) <= {"", *REASONS}
    # Errors that nobody thought of are caught, but none is known.
    assert [detail for reason, detail in outcome.values() if reason == "unexpected-error"] == []
    assert len(reasons) >= 8, "else the damage is too much alike to say anything"
    assert all(detail for reason, detail in outcome.values() if reason)


def test_whole_subjects_among_them_are_prepared(run: tuple[Path, dict[str, Any]]) -> None:
    whole = [f"s{number:03d}" for number in range(10, N_SUBJECTS, 10)]
    assert {run[1]["outcome"][name][0] for name in whole} == {""}


def test_bombs_do_not_burst(run: tuple[Path, dict[str, Any]]) -> None:
    outcome, peak = run[1]["outcome"], run[1]["peak_bytes"]
    assert [outcome[f"s{number:03d}"][0] for number in range(len(BOMBS))] == list(BOMBS.values())
    assert peak < MAX_BYTES


def test_nothing_is_half_written(run: tuple[Path, dict[str, Any]]) -> None:
    folder, report = run
    prepared = {name for name, (reason, _) in report["outcome"].items() if not reason}
    cohort = PreparedCohort.read(folder / "out" / "ge")
    assert {subject.subject for subject in cohort.subjects} == prepared
    assert {path.name for path in (folder / "out" / "ge").iterdir() if path.is_dir()} == prepared
    assert not list((folder / "out").rglob(".*"))
    for subject in cohort.subjects:
        assert load_volume(subject).any(axis=(1, 2, 3)).all()
