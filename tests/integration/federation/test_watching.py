"""A long job, and who watches it: FLARE's own commands, and ours, which Ctrl-C ends without ending the job."""

import contextlib
import io
import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from med_duallora.cli import main
from med_duallora.flare.local.rehearsal.admin import console
from med_duallora.flare.local.rehearsal.following import abort_job
from med_duallora.flare.local.rehearsal.progress import GROUP
from med_duallora.measures import MEASURES
from tests.integration.harness import PATIENCE_S, SITES, RunningFederation
from tests.integration.programs import N_TRIES, answered, med_duallora, nvflare, read_until, running

pytestmark = pytest.mark.flare

STILL_RUNNING = "still running"
METRICS = ("val_balanced_accuracy", "residual", "best_round")


@dataclass
class Watched:
    """What was seen of the job.

    Args:
        shown: metrics of one line of FLARE's monitor.
        asked: FLARE's stats.
        refused: how an org_admin's wish to stop a site ended.
        monitor: what our monitor printed until it was interrupted, and its exit code.
        abort: likewise of our abort.
        last: line of FLARE's monitor, which was not interrupted.
    """

    job_id: str
    shown: dict[str, float]
    asked: dict[str, Any]
    refused: subprocess.CompletedProcess[str]
    monitor: tuple[str, int]
    abort: tuple[str, int]
    last: dict[str, Any]


@pytest.fixture(scope="module")
def watched(federation: RunningFederation) -> Watched:
    kit = ["--startup-kit", str(federation.federation.kit(federation.federation.person("lead")))]
    job_id = federation.submit(federation.job("train.n_rounds=1000", name="long"))
    metrics = [item for name in METRICS for item in ("--metric", name)]
    watch = nvflare("job", "monitor", job_id, "--interval", "1", "--format", "jsonl", *metrics, *kit)
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watching:
        events = events_of(watching)
        awaited = {"residual", "best_round"}  # the latter is known from the second round on
        shown = next(event["metrics"] for event in events if awaited <= set(event.get("metrics", {})))
        stats = everybody_s(nvflare("job", "stats", job_id, "--format", "json", *kit))
        refused = answered(stop_a_site(federation), STILL_RUNNING)
        monitor = interrupted(med_duallora("federation", "monitor", "--workspace", federation.directory))
        abort = given("abort", "--workspace", str(federation.directory))
        last = list(events)[-1]
    return Watched(job_id, shown, stats, refused, monitor, abort, last)


def everybody_s(question: list[str]) -> dict[str, Any]:
    """Return what server and sites say of a job: FLARE drops the answers after one that took a site too long."""
    for _ in range(N_TRIES):
        stats: dict[str, Any] = json.loads(answered(question).stdout)["data"]["stats"]
        if all(GROUP in stats.get(name, {}) for name in ("server", *SITES)):
            break
    return stats


def events_of(watching: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert watching.stdout is not None
    return (json.loads(line) for line in watching.stdout if line.startswith("{"))


def interrupted(command: list[str]) -> tuple[str, int]:
    """Return what a program said that got a Ctrl-C as soon as it showed a round, and its exit code."""
    with running(command) as program:
        said = read_until(program, " of 1000")
        program.send_signal(signal.SIGINT)
        said += program.communicate(timeout=PATIENCE_S)[0]
        return said, program.returncode


def given(action: str, *arguments: str) -> tuple[str, int]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(["federation", action, *arguments])
    return said.getvalue(), code


def stop_a_site(federation: RunningFederation) -> list[str]:
    kit = federation.federation.kit(f"admin@{SITES[0]}.example.org")
    return nvflare("system", "shutdown", "client", SITES[0], "--force", "--startup-kit", str(kit))


def test_flare_s_own_commands_show_a_running_job(watched: Watched) -> None:
    assert {"round", "loss", "val_balanced_accuracy"} <= set(watched.shown)
    assert 0 <= watched.shown["best_round"] < watched.shown["round"]
    assert set(watched.asked) == {"server", *SITES}
    for site in SITES:
        said = watched.asked[site][GROUP]
        assert {"phase", "round", "train_loss", "val_balanced_accuracy", "cache_hits", "payload_bytes"} <= set(said)
        assert {"steps_per_second", "peak_memory_mb", "seconds"} <= set(said)
        assert (said["n_subjects"], said["device"]) == (6, "cpu")
    said = watched.asked["server"][GROUP]
    assert {"n_contributions", "n_refused", "n_refused_in_all", "residual", "val_balanced_accuracy"} <= set(said)
    assert said["n_refused_in_all"] == 0


def test_an_org_admin_stops_the_site_only_while_no_job_runs(watched: Watched) -> None:
    assert watched.refused.returncode != 0
    assert STILL_RUNNING in watched.refused.stdout + watched.refused.stderr


def test_monitor_tells_the_round_of_a_running_job_at_once(watched: Watched) -> None:
    text, _ = watched.monitor
    assert "starting at the sites" not in text
    assert "RUNNING: round " in text
    for said in (*SITES, MEASURES["train_loss"].column):
        assert said in text, "what our console reads of FLARE's answer"


def test_an_interrupted_monitor_only_stops_watching(watched: Watched, federation: RunningFederation) -> None:
    text, code = watched.monitor
    assert code == 130
    command = f"med-duallora federation abort --workspace {federation.directory} {watched.job_id}"
    assert f"job {watched.job_id} continues; to stop it: {command}\n" in text
    assert watched.last["job_status"] == "FINISHED:ABORTED", "it went on until it was aborted"


def test_abort_ends_the_latest_job(watched: Watched) -> None:
    assert watched.abort == (f"job {watched.job_id}: abort requested\n", 0)
    assert watched.last["terminal"] is True


def is_sent(federation: RunningFederation, job_id: str) -> bool:
    said = federation.federation.log(federation.federation.server).read_text().splitlines()
    return any("to be deployed to the clients" in line and job_id in line for line in said)


def test_a_job_that_is_aborted_as_it_starts_stays_aborted(federation: RunningFederation) -> None:
    """FLARE answers an abort while it sends the job to the sites, and may start it all the same."""
    job_id = federation.submit(federation.job("train.n_rounds=1000", name="regretted"))
    with console(federation.federation) as lead:
        federation.until("the sending", lambda: is_sent(federation, job_id))
        abort_job(lead, job_id)
    names = federation.federation.participants()
    federation.until("the end of its processes", lambda: not any(federation.working(name, job_id) for name in names))
    assert federation.wait(job_id).status == "FINISHED:ABORTED"
