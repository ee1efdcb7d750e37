"""What FLARE's answers to a job mean, and what to do about them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from med_duallora.flare.local.rehearsal.record import Federation

COMPLETED = "FINISHED:COMPLETED"
MEANINGS = (
    (
        r"not authorized for 'submit_job'",
        "the person's role may not submit jobs: submit as a lead or project_admin (roles are part of a person's "
        "certificate, so a new role needs a new kit)",
    ),
    (
        r"connected sites \(\d+\) < min_sites",
        "the job waits for more sites than are connected: start the missing sites, or submit it again with "
        "--set workflow.min_sites=N; an unknown name in the deploy map of meta.json counts as missing",
    ),
    (
        r"BYOC not permitted",
        "the job carries code, which this site accepts from nobody: submit the job production, which uses the package "
        "that is installed at the sites",
    ),
    (
        r"ComponentNotAuthorized|UNSAFE_COMPONENT",
        "the job names a class that this site's administrator has not allowed: med_duallora must be listed in "
        "class_allow_list of the site's local/resources.json (`med-duallora site-kit` writes it), and the site "
        "must be restarted after that",
    ),
    (
        r"infrastructure error",
        "the site's job process ended before it could work; most often the site does not allow a class that the "
        "job names (ComponentNotAuthorized in the site's own log), or the package is not installed there",
    ),
    (
        r"reported failure from \S+: exception",
        "the site's job process ended before its time (killed, or out of memory), so FLARE gave the whole job up; the "
        "adapter of the last finished round is in the job's result: download it, and resume with --resume-from",
    ),
    (
        r"Alive clients \d+ < required min|All clients are dead",
        "fewer sites than min_sites were left, and the others were silent for eleven minutes; start them, and "
        "resume from the adapter of the last finished round with --resume-from",
    ),
    (
        r"terminal outcome unavailable",
        "the site vanished or was restarted while the job ran; the other sites' work is in the job's result: download "
        "it, and resume with --resume-from if rounds are missing",
    ),
    (
        r"config is missing|meta\.\[json\|conf\|yml\] not existing|invalid job definition",
        "the folder is not a complete FLARE job: take one from `med-duallora jobs export`",
    ),
    (
        r"Result from \S+ is bad|EXECUTION_EXCEPTION",
        "a site answered a task with an error; the reason is only in that site's own log, because texts of "
        "exceptions never leave a site",
    ),
    (
        r"initialisation failed",
        "the site could not load its configuration, cohort, backbone or state: its administrator looks at the site's "
        "log, at level DEBUG for the full text, and at the files named in the site configuration",
    ),
)
"""Pattern in FLARE's own words -> what it means here."""
NOISE = re.compile(r"blob_cb|blob_streamer|byte_receiver|target_unreachable")
"""Errors that FLARE logs when somebody asks for statistics while a job is starting or ending."""
N_LINES = 4


def meaning(text: str) -> str:
    """Return what a text of FLARE's means here; empty where nothing is known about it."""
    found = [says for pattern, says in MEANINGS if re.search(pattern, text)]
    return found[0] if found else ""


def explained(text: str) -> str:
    """Return a text of FLARE's followed by what it means here."""
    says = meaning(text)
    return f"{text}\n  meaning: {says}" if says else text


def submission_refused(answer: str, person: str) -> str:
    """Return what to tell a person whose job the server did not take."""
    return explained(f"the server refused the job from {person}: {answer}")


def waits_because(job: Mapping[str, Any]) -> str:
    """Return why a submitted job was not started at the last attempt; empty where nothing held it up."""
    history = job.get("schedule_history") or []
    last = str(history[-1]) if job.get("status") == "SUBMITTED" and history else ""
    return last.partition(": ")[2]


def job_failed(federation: Federation, job: Mapping[str, Any]) -> str:
    """Return what to tell a person whose job did not complete: FLARE's own words from all logs, and their meaning.

    In production nobody can read all logs; here the rehearsal's directory holds them.
    """
    job_id = str(job.get("job_id"))
    lines = [f"job {job_id} ended as {job.get('status')}"]
    deployed = [str(item) for item in job.get("job_deploy_detail") or []]
    lines += [f"  deployment, {item}" for item in deployed if not item.endswith(": OK")]
    for name in federation.participants():
        for text in logged(federation.kits / name, job_id):
            lines.append(f"  {name}: {text}")
    # the status alone can mean several things
    known = [says for says in map(meaning, lines[1:]) if says] or [says for says in [meaning(lines[0])] if says]
    lines += [f"  meaning: {says}" for says in dict.fromkeys(known)]
    logs = [str(federation.kits / name / job_id / "log.txt") for name in federation.participants()]
    return "\n".join([*lines, "  logs: " + ", ".join(logs)])


def logged(kit: Path, job_id: str) -> list[str]:
    """Return what the logs of a kit say about the failure of a job, without time stamps and FLARE's noise."""
    found = []
    for line in _lines(kit / "log.txt"):
        if f"Failing job {job_id}" in line:
            found.append(line.rpartition(" - ")[2])
    for line in _lines(kit / job_id / "error_log.txt"):
        if " - ERROR - " in line and not NOISE.search(line):
            found.append(re.sub(r"^\[identity=.*?\](:| -) ", "", line.partition(" - ERROR - ")[2]))
    return list(dict.fromkeys(found))[:N_LINES]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
