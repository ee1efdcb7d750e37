"""What ``med-duallora federation`` does with jobs: submit one, follow, fetch or abort it; each returns an exit code."""

import argparse
import shlex
import sys

from med_duallora.commands.options import assignments_of
from med_duallora.errors import FederationError, MedDualLoRAError
from med_duallora.flare.jobs.submission import prepare_submission
from med_duallora.flare.local.rehearsal.acceptance import check_taken
from med_duallora.flare.local.rehearsal.admin import Console, console
from med_duallora.flare.local.rehearsal.following import abort_job, fetch, follow
from med_duallora.flare.local.rehearsal.progress import shown
from med_duallora.flare.local.rehearsal.record import Federation
from med_duallora.flare.local.rehearsal.verdict import COMPLETED, job_failed
from med_duallora.report import read_run, write_report
from med_duallora.report.headline import headline
from med_duallora.server.rundir import ADAPTERS


def submit(federation: Federation, options: argparse.Namespace) -> int:
    """Submit a job; with ``--wait`` follow it, fetch its result and report on it."""
    with console(federation) as lead:
        job_id = submitted(federation, lead, options)
        if not options.wait:
            print(
                f"follow it: med-duallora federation monitor --workspace {shlex.quote(str(options.workspace))} {job_id}"
            )
            return 0
        return _watched(federation, lead, job_id, options) or fetched(federation, lead, job_id)


def monitor(federation: Federation, options: argparse.Namespace) -> int:
    """Follow a job to its end."""
    with console(federation) as lead:
        return _watched(federation, lead, options.job_id or _latest(lead), options)


def download(federation: Federation, options: argparse.Namespace) -> int:
    """Fetch a job's result and report on it."""
    with console(federation) as lead:
        return fetched(federation, lead, options.job_id or _latest(lead))


def abort(federation: Federation, options: argparse.Namespace) -> int:
    """Abort a job; one that has not started is watched until that lasts."""
    with console(federation) as lead:
        job_id = options.job_id or _latest(lead)
        abort_job(lead, job_id)
    print(f"job {job_id}: abort requested")
    return 0


def _latest(lead: Console) -> str:
    jobs = lead.jobs()
    if not jobs:
        raise FederationError("no job was submitted to this federation")
    return str(jobs[-1]["job_id"])


def submitted(federation: Federation, lead: Console, options: argparse.Namespace) -> str:
    """Submit the job that the options describe, and return its id."""
    folder = prepare_submission(
        options.job,
        assignments_of(options),
        len(federation.sites),
        federation.directory / "jobs",
        backbone_sha256=federation.backbone_sha256,
        resume_from=options.resume_from,
    )
    for site, refusal in check_taken(federation, folder).items():
        print(f"{site} will refuse this job: {refusal}", file=sys.stderr)
    job_id = lead.submit(folder)
    print(f"job {job_id} submitted by {lead.person} from {folder}", flush=True)
    return job_id


def followed(federation: Federation, lead: Console, job_id: str) -> int:
    """Watch a job to its end; 1 and FLARE's reasons on standard error where it failed."""
    with shown() as show:
        progress = follow(lead, job_id, show)
    if progress.status == COMPLETED:
        return 0
    print(job_failed(federation, lead.job(job_id)), file=sys.stderr)
    return 1


def _watched(federation: Federation, lead: Console, job_id: str, options: argparse.Namespace) -> int:
    """Watch a job that goes on when the watching is interrupted."""
    try:
        return followed(federation, lead, job_id)
    except KeyboardInterrupt:
        where = shlex.quote(str(options.workspace))
        print(
            f"job {job_id} continues; to stop it: med-duallora federation abort --workspace {where} {job_id}",
            file=sys.stderr,
        )
        raise


def kept_of_failed(federation: Federation, lead: Console, job_id: str) -> None:
    """Download what a job left that did not complete, while its server still runs, and say how to go on from it."""
    try:
        place = fetch(federation, lead, job_id)
    except FederationError as error:
        print(f"nothing was downloaded of job {job_id}: {error}", file=sys.stderr)
        return
    print(f"result, as far as the job got: {place}")
    for adapter in place.glob(f"workspace/app_*/{ADAPTERS['last']}.safetensors"):
        print(
            f"to resume from its last finished round: the same command with --resume-from {shlex.quote(str(adapter))}"
        )


def fetched(federation: Federation, lead: Console, job_id: str) -> int:
    """Download a job's result, report on it and say where both are."""
    place = fetch(federation, lead, job_id)
    print(f"result: {place}")
    try:
        found = read_run(place)
        page = write_report(found, place / "report")
    except MedDualLoRAError as error:
        raise FederationError(f"no report on job {job_id}: {error}") from error
    print(headline(found))
    print(f"report: {page}")
    return 0
