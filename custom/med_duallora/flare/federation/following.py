"""A job from its submission to its result, as a person at the console follows it."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from med_duallora.errors import FederationError
from med_duallora.files import write_json
from med_duallora.flare.federation.admin import Console
from med_duallora.flare.federation.progress import JobProgress, read_progress
from med_duallora.flare.federation.record import Federation
from med_duallora.flare.rundir import EVALUATION_FILE

FOLLOW_S = 1.0
QUIET_START_S = 6.0
"""FLARE logs an error in every process for each question about a job whose processes are still starting."""


def follow(
    person: Console, job_id: str, show: Callable[[JobProgress], None], timeout_s: float | None = None
) -> JobProgress:
    """Watch a job until it is finished.

    Raises:
        FederationError: it took longer than ``timeout_s``; the job goes on.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    ask_from = None
    known: dict[str, Any] = {}
    while True:
        job = person.job(job_id)
        if job.get("status") == "RUNNING" and ask_from is None:
            ask_from = time.monotonic() + QUIET_START_S
        if ask_from is not None and time.monotonic() > ask_from:
            said = person.statistics(job_id)
            known = said if said.get("server") else known  # processes that start or end say nothing
        progress = read_progress(job, known)
        show(progress)
        if progress.finished:
            return progress
        if deadline is not None and time.monotonic() > deadline:
            raise FederationError(f"job {job_id} is still {progress.status} after {timeout_s:.0f} s: {progress.stage}")
        time.sleep(FOLLOW_S)


def fetch(federation: Federation, person: Console, job_id: str) -> Path:
    """Download the result of a finished job, and note in it whether its cohorts are synthetic: the server never knew.

    Returns:
        The folder of the result, ready for ``report``.

    Raises:
        FederationError: nothing came.
    """
    place = person.download(job_id, federation.directory / "results")
    for path in place.glob(f"workspace/app_*/{EVALUATION_FILE}"):
        evaluation = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, {**evaluation, "synthetic": federation.synthetic})
    return place
