"""A job from its submission to its result, as a person at the console follows it."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from med_duallora.errors import FederationError
from med_duallora.flare.local.rehearsal.admin import Console
from med_duallora.flare.local.rehearsal.progress import JobProgress, read_progress
from med_duallora.flare.local.rehearsal.record import Federation
from med_duallora.server.rundir import EVALUATION_FILE, note_origin

FOLLOW_S = 1.0
QUIET_START_S = 6.0
"""FLARE logs an error in every process for each question about a job whose processes are still starting."""
NOT_STARTED = ("SUBMITTED", "APPROVED", "DISPATCHED")
LASTING_S = 12.0
"""How long the end of a job that had not started must last to be believed: FLARE gives the sites ten seconds to take a
job, and writes then that it was sent to them, whatever its status has become."""
ABORT_S = 60.0


def follow(
    person: Console, job_id: str, show: Callable[[JobProgress], None], timeout_s: float | None = None
) -> JobProgress:
    """Watch a job until it is finished.

    Raises:
        FederationError: it took longer than ``timeout_s``, and the job goes on; or it ended with a server that was
            killed, and FLARE still lists it as running.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    known: dict[str, Any] | None = None
    ask_from = None
    while True:
        job = person.job(job_id)
        if job.get("status") == "RUNNING" and ask_from is None:
            ask_from = time.monotonic() + QUIET_START_S - _seconds_since_start(job)
        if ask_from is not None and time.monotonic() > ask_from:
            said = person.statistics(job_id)
            if not said:
                _check_server(person, job)
            known = said if said.get("server") else known or {}  # processes that start or end say nothing
        progress = read_progress(job, known)
        show(progress)
        if progress.finished:
            return progress
        if deadline is not None and time.monotonic() > deadline:
            raise FederationError(f"job {job_id} is still {progress.status} after {timeout_s:.0f} s: {progress.stage}")
        time.sleep(FOLLOW_S)


def abort_job(person: Console, job_id: str) -> None:
    """Abort a job, so that it stays aborted.

    While FLARE's server sends a job to the sites and starts it, it answers an abort with "before running it", goes on,
    overwrites the status, and the job runs.

    Raises:
        FederationError: a job that had not started could not be kept from it.
    """
    started = person.job(job_id).get("status") not in NOT_STARTED
    person.abort(job_id)
    began, ended = time.monotonic(), None
    while not started and (ended is None or time.monotonic() - ended < LASTING_S):
        time.sleep(FOLLOW_S)
        seen = read_progress(person.job(job_id), None)
        if seen.finished and not person.has_processes(job_id):
            ended = ended or time.monotonic()
            continue
        if time.monotonic() - began > ABORT_S:
            raise FederationError(
                f"job {job_id} was aborted again and again, and FLARE calls it {seen.status}, but the server may still "
                "start it or has a process of it; `med-duallora federation down` ends everything"
            )
        ended, started = None, seen.status == "RUNNING"  # the abort of a job that runs is not lost
        person.abort(job_id)


def _seconds_since_start(job: Mapping[str, Any]) -> float:
    """Return how long a job has been running; server and console have the same clock here. 0 where FLARE tells none."""
    started = _start_of(job)
    return 0.0 if started is None else max(0.0, time.time() - started)


def _start_of(job: Mapping[str, Any]) -> float | None:
    """Return when a job started, in seconds since the epoch; None where FLARE's record does not tell."""
    try:
        return datetime.fromisoformat(str(job.get("start_time"))).timestamp()
    except ValueError:
        return None


def _check_server(person: Console, job: Mapping[str, Any]) -> None:
    """Find out whether a job that does not answer, although it is listed as running, ended with its server.

    A job that has just ended does not answer either, while the server archives it; so the server's age decides.

    Raises:
        FederationError: the server was started again after the job.
    """
    started = _start_of(job)
    if job.get("status") == "RUNNING" and started is not None and person.server_start() > started:
        raise FederationError(
            f"job {job['job_id']} does not run: it ended when the server did, and the server was started again later. "
            "FLARE lists it as RUNNING forever, and archives nothing of it; the adapter of its last finished round is "
            f"in {job['job_id']}/app_server of the server's kit: resume from it with submit --resume-from"
        )


def fetch(federation: Federation, person: Console, job_id: str) -> Path:
    """Download the result of a finished job, and note in it where its subjects come from: the server never knew.

    Returns:
        The folder of the result, ready for ``report``.

    Raises:
        FederationError: nothing came.
    """
    place = person.download(job_id, federation.directory / "results")
    for path in place.glob(f"workspace/app_*/{EVALUATION_FILE}"):
        if federation.origin:
            note_origin(path, federation.origin)
    return place
