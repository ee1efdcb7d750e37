"""A running federation for tests: real processes, mutual TLS, closed site kits, the tiny backbone."""

import contextlib
import itertools
import json
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from med_duallora.errors import ArtifactError, FederationError
from med_duallora.flare.jobs.export import JOBS, JobSpec, export_job
from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.admin import Console, console
from med_duallora.flare.local.rehearsal.following import fetch, follow
from med_duallora.flare.local.rehearsal.progress import JobProgress
from med_duallora.flare.local.rehearsal.record import Federation
from med_duallora.flare.local.rehearsal.registration import wait_for_sites
from med_duallora.flare.local.rehearsal.rehearsal import start_one
from med_duallora.server.artifact import load_adapter
from med_duallora.server.rundir import ROUNDS_FILE
from med_duallora.site.state import LOCK_FILE

SITES = ("siemens", "philips")
SETTINGS = (
    "experiment=test",
    "backbone=cinema-tiny",
    "train.n_rounds=3",
    "train.local_epochs=1",
    "train.batch_size=4",
    "train.n_views=1",
    "train.compare_alone=false",
)
SITE_SETTINGS = (
    "device=cpu",
    "policy.min_subjects=1",
    "policy.min_train_subjects=6",
    "policy.metric_decimals=6",
    'policy.job_limits=["1 <= train.local_epochs <= 1000", "1 <= train.n_rounds <= 10000"]',
    "policy.max_test_evaluations=1000",
    "policy.max_test_evaluations_per_experiment=1000",
)
"""The tiny cohorts have six training and two validation subjects, too few for the floors of the site kit."""
PATIENCE_S = 420.0
MEET_S = 8.0
"""More than the sites of a round begin its training apart."""
LOOK_S = 0.01
"""Between two looks at something that lasts less than a second."""


@dataclass
class FinishedJob:
    """A job that ended, and every different moment that was seen of it."""

    job_id: str
    status: str
    moments: list[JobProgress] = field(default_factory=list)


@dataclass
class Ended:
    """A job that ended, and its downloaded result."""

    job: FinishedJob
    result: Path

    @property
    def server(self) -> Path:
        return self.result / "workspace" / "app_server"

    @property
    def adapter(self) -> Path:
        return self.server / "adapter_last.safetensors"

    @property
    def rounds(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.server / ROUNDS_FILE).read_text().splitlines()]


def abort_waiting(person: Console, job_id: str) -> None:
    """Abort a job that cannot start; again where FLARE's scheduler wrote the record that it had read before."""

    def aborted() -> bool:
        person.abort(job_id)
        return bool(person.job(job_id)["status"] == "FINISHED:ABORTED")

    processes.wait_until("aborting", aborted, PATIENCE_S)


@dataclass
class RunningFederation:
    """A federation that is up.

    Args:
        federation: its record.
        scratch: a folder of the test session.
    """

    federation: Federation
    scratch: Path

    @property
    def directory(self) -> Path:
        return self.federation.directory

    def job(self, *settings: str, code: bool = False, name: str = "test-job", resume_from: Path | None = None) -> Path:
        """Export the production job with tiny settings, or with those of an adapter that it goes on from.

        Every job has a folder of its own: what one test submitted, another test may still read.
        """
        n_sites = len(self.federation.sites)
        spec: JobSpec = replace(JOBS["production"], name=name, with_code=code)
        tiny = () if resume_from else SETTINGS
        spec = spec.resumed(resume_from, [*tiny, f"workflow.min_sites={n_sites}", *settings])
        return export_job(spec, Path(tempfile.mkdtemp(dir=self.scratch)) / name)

    def submit(self, folder: Path, role: str = "lead") -> str:
        with console(self.federation, role) as person:
            return person.submit(folder)

    def wait(self, job_id: str) -> FinishedJob:
        """Follow a job to its end."""
        moments: list[JobProgress] = []

        def note(moment: JobProgress) -> None:
            if not moments or moment != moments[-1]:
                moments.append(moment)

        with console(self.federation) as lead:
            last = follow(lead, job_id, note, PATIENCE_S)
        return FinishedJob(job_id, last.status, moments)

    def run(self, folder: Path) -> FinishedJob:
        return self.wait(self.submit(folder))

    def fetch(self, job_id: str) -> Path:
        """Download a job's result."""
        with console(self.federation) as lead:
            return fetch(self.federation, lead, job_id)

    def end_of(self, job_id: str) -> Ended:
        """Follow a job to its end and download its result."""
        return Ended(self.wait(job_id), self.fetch(job_id))

    def copy_adapter(self, job_id: str, into: Path) -> Path:
        """Copy the last adapter of a running job at a moment when it writes none."""
        for suffix in (".json", ".safetensors"):
            shutil.copy(self.server_directory(job_id) / f"adapter_last{suffix}", into)
        return into / "adapter_last.safetensors"

    def server_directory(self, job_id: str) -> Path:
        """Return where the server writes the results of a running job."""
        return self.federation.kit(self.federation.server) / job_id / "app_server"

    def wait_for_round(self, job_id: str, round_index: int) -> None:
        """Wait until the server has finished a round and written its adapter."""

        def done() -> bool:
            try:
                _, manifest = load_adapter(self.server_directory(job_id) / "adapter_last.safetensors")
            except ArtifactError:  # not yet, or being replaced at this moment
                return False
            return int(manifest["round"]) >= round_index

        processes.wait_until(f"round {round_index} of job {job_id}", done, PATIENCE_S)

    def job_process(self, name: str, job_id: str = "") -> psutil.Process:
        """Return the process in which the server or a site works on a job; without its id, on the only one."""
        (found,) = self.working(name, job_id)
        return found

    def working(self, name: str, job_id: str = "") -> list[psutil.Process]:
        """Return the processes in which the server or a site works on a job; without its id, on any."""
        wanted = {str(self.federation.kit(name)), job_id or str(self.federation.kit(name))}
        return [process for process in self.job_processes() if wanted <= set(words_of(process))]

    def job_processes(self) -> list[psutil.Process]:
        """Return the processes that work on a job, of the server and of all sites."""
        modules = ("nvflare.private.fed.app.server.runner_process", "nvflare.private.fed.app.client.worker_process")
        members = processes.members(self.federation.identity)
        return [process for process in members if set(modules) & set(words_of(process))]

    @contextlib.contextmanager
    def held_in_training(self, *sites: str, jobs: Sequence[str] = ("",)) -> Iterator[None]:
        """Hold the sites' processes of some jobs still inside the block, each in the first steps of a round's training.

        What a test does inside the block meets every site in the middle of a round, however long it takes. A site has
        its run's lock open from before the first step of a round until its state is saved.
        """
        places = list(itertools.product(sites, jobs))
        self.until("the sites' job processes", lambda: all(self.working(*place) for place in places))
        workers = [self.job_process(*place) for place in places]

        def all_held() -> bool:
            return sum(held(worker) for worker in workers) == len(workers)

        def met() -> bool:
            """Hold every site in one round, or let all go on: one of them ended the round before another began it."""
            self.until("a pause between two rounds", lambda: not any(map(trains, workers)))
            with contextlib.suppress(FederationError):
                processes.wait_until("training", all_held, MEET_S, LOOK_S)
                if all(map(trains, workers)):  # none had ended its round between the look and the signal
                    return True
            resume(workers)
            return False

        try:
            self.until("all sites in one round's training", met)
            yield
        finally:
            resume(workers)

    def until(self, what: str, done: Callable[[], bool]) -> None:
        """Wait for something that may last less than a second."""
        processes.wait_until(what, done, PATIENCE_S, LOOK_S)

    def rounds(self, job_id: str) -> list[dict[str, Any]]:
        """Return the server's records of the finished rounds of a running job."""
        path = self.server_directory(job_id) / ROUNDS_FILE
        # a record is whole once its line is
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_for_record(self, job_id: str, wanted: Callable[[dict[str, Any]], bool], after: int = -1) -> dict[str, Any]:
        """Wait until a round later than ``after`` has ended as wanted, and return its record."""

        def found() -> list[dict[str, Any]]:
            return [record for record in self.rounds(job_id) if record["round"] > after and wanted(record)]

        self.until(f"a round of job {job_id}", lambda: bool(found()))
        return found()[0]

    def log(self, name: str, job_id: str) -> str:
        """Return what the server or a site logged about a job."""
        return (self.federation.kit(name) / job_id / "log.txt").read_text()

    def log_out(self, site: str) -> None:
        """Let a site log out from the server; its process ends some seconds later."""
        with console(self.federation, "project_admin") as admin:
            admin.shut_down(site)
            self.until(f"{site} logs out", lambda: site not in admin.last_contacts())

    def restart(self, name: str) -> None:
        """Start the server or a site again that was stopped or killed, as soon as its former process has ended."""
        (former,) = [item for item in self.federation.processes if item.name == name]
        self.until(f"{name} ends", lambda: not processes.is_running(former, self.federation.identity))
        self.federation = start_one(self.federation, name)
        wait_for_sites(self.federation, PATIENCE_S)

    def kill(self, name: str) -> None:
        """Kill the process of the server or a site, as an accident would; its job processes are left alone."""
        (process,) = [item for item in self.federation.processes if item.name == name]
        assert processes.is_running(process, self.federation.identity)
        os.kill(process.pid, signal.SIGKILL)


def round_of(adapter: Path) -> int:
    """Return the round whose result an adapter is."""
    return int(load_adapter(adapter)[1]["round"])


def limit_files(process: psutil.Process, n_bytes: int) -> None:
    """Let every write of a process beyond ``n_bytes`` of a file fail, as on a full disk."""
    process.rlimit(psutil.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def trains(worker: psutil.Process) -> bool:
    """Return whether a site's job process is training a round at this moment."""
    return any(Path(item.path).name == LOCK_FILE for item in worker.open_files())


def held(worker: psutil.Process) -> bool:
    """Hold a site's job process still if it is training; return whether it is held."""
    if worker.status() != psutil.STATUS_STOPPED and trains(worker):
        worker.suspend()
    return bool(worker.status() == psutil.STATUS_STOPPED)


def resume(workers: list[psutil.Process]) -> None:
    """Let processes that were held go on; one that has ended is not an error."""
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.resume()


def words_of(process: psutil.Process) -> list[str]:
    """Return a process's command line; empty for one that has just ended."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []
