"""The admin console's commands from Python, as a person with a role; FLARE's session API does the talking."""

import contextlib
import io
import logging
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from nvflare.apis.fl_exception import FLCommunicationError
from nvflare.fuel.flare_api import api_spec
from nvflare.fuel.flare_api.api_spec import (
    AuthenticationError,
    AuthorizationError,
    InternalError,
    InvalidJobDefinition,
    JobNotFound,
    JobNotRunning,
    NoConnection,
    TargetType,
)
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from med_duallora.errors import FederationError
from med_duallora.flare.local.interruptions import none_lost
from med_duallora.flare.local.rehearsal.record import Federation
from med_duallora.flare.local.rehearsal.verdict import explained, submission_refused
from med_duallora.support.files import PARTIAL, named
from med_duallora.support.folders import replace_folder

T = TypeVar("T")

CONNECT_S = 10.0
ANSWERS = tuple(item for item in vars(api_spec).values() if isinstance(item, type) and issubclass(item, Exception))
"""Every way in which FLARE's session says that a command was not carried out; they have no common base."""
N_TRIES = 5
RETRY_S = 1.0
N_LOGINS = 3
BROKEN_OFF = "error receiving file"
"""What FLARE says of a download that ended before the file did, and that another try may bring."""
STATISTICS_S = 10.0
"""How long everybody's answer about a job is waited for. A site waits five seconds for a job process that does not
answer, as long as FLARE's session waits for the server, which would leave nobody's."""


class Console:
    """A logged-in person.

    Args:
        session: FLARE's session.
        person: who is logged in.
    """

    def __init__(self, session: Session, person: str) -> None:
        self._session = session
        self.person = person

    def last_contacts(self) -> dict[str, float]:
        """Return when the server last heard from each site that it lists, in seconds since the epoch by its clock.

        It goes on listing a site that died for ten minutes.
        """
        listed = _patiently(self._session.get_system_info).client_info
        return {client.name: float(client.last_connect_time) for client in listed}

    def server_start(self) -> float:
        """Return when the server's process was started, in seconds since the epoch by its clock."""
        return float(_patiently(self._session.get_system_info).server_info.start_time)

    def submit(self, folder: Path, token: str = "") -> str:
        """Submit a job folder and return the job's id.

        FLARE writes the submitter's signature and certificate into the folder, so this must be a copy. A token lets
        FLARE recognise a second try of the same submission; without one, only the tries of this call are.

        Raises:
            FederationError: refused; says FLARE's reason and what it means.
        """
        token = token or secrets.token_hex(16)
        try:
            return str(_patiently(lambda: self._session.submit_job(str(folder), token)))
        except (AuthorizationError, InvalidJobDefinition) as error:
            raise FederationError(submission_refused(str(error), self.person)) from error

    def jobs(self) -> list[dict[str, Any]]:
        """Return id, name, status and times of every job, oldest first."""
        jobs = _patiently(lambda: self._session.list_jobs(detailed=True))
        return sorted(jobs, key=lambda job: str(job.get("submit_time", "")))

    def has_processes(self, job_id: str) -> bool:
        """Return whether a job has a process at the server, whatever its status says."""
        return job_id in {job.job_id for job in _patiently(self._session.get_system_info).job_info}

    def running_jobs(self) -> list[str]:
        """Return the ids of the jobs that have processes at the sites, or are about to."""
        return [str(job["job_id"]) for job in self.jobs() if job.get("status") in ("DISPATCHED", "RUNNING")]

    def job(self, job_id: str) -> dict[str, Any]:
        """Return FLARE's record of a job.

        Raises:
            FederationError: there is no such job.
        """
        try:
            return dict(_patiently(lambda: self._session.get_job_meta(job_id)))
        except JobNotFound as error:
            raise FederationError(f"the server knows no job {job_id}") from error

    def statistics(self, job_id: str) -> dict[str, Any]:
        """Return what the server and the sites say about a running job.

        The server alone where a site is silent for longer than FLARE waits; empty where the job does not run (yet, any
        more), or nobody answers.
        """
        self._session.set_timeout(STATISTICS_S)
        try:
            for whom in (TargetType.ALL, TargetType.SERVER):
                with contextlib.suppress(NoConnection), none_lost():
                    return dict(self._session.show_stats(job_id, whom))
        except (JobNotFound, JobNotRunning):
            pass
        finally:
            self._session.unset_timeout()
        return {}

    def abort(self, job_id: str) -> None:
        """Ask for the end of a job; see ``following.abort_job``."""
        _patiently(lambda: self._session.abort_job(job_id))

    def abort_if_possible(self, job_id: str) -> str:
        """Abort a job; return FLARE's reason where it cannot, empty where it does.

        FLARE lists the jobs of a server that was killed as running forever, and aborts none of them.
        """
        try:
            self.abort(job_id)
        except NoConnection:
            raise
        except ANSWERS as error:
            return str(error)
        return ""

    def download(self, job_id: str, into: Path) -> Path:
        """Download a finished job's result; it replaces an older download.

        Returns:
            ``into/<job id>``.

        Raises:
            FederationError: nothing came.
        """

        def transferred() -> str:
            try:
                return str(self._session.download_job_result(job_id, scratch) or "")
            except RuntimeError as error:
                kind = NoConnection if BROKEN_OFF in str(error) else FederationError
                raise kind(str(error)) from error

        into.mkdir(parents=True, exist_ok=True)
        with named(into / job_id), tempfile.TemporaryDirectory(prefix=PARTIAL, dir=into) as scratch:
            try:
                place = _patiently(transferred)
            except (NoConnection, FederationError) as error:
                raise FederationError(f"the result of job {job_id} was not downloaded: {error}") from error
            if not place or not Path(place).is_dir():
                raise FederationError(f"the result of job {job_id} was not downloaded; is there room in {into}?")
            return replace_folder(Path(place), into / job_id)

    def shut_down(self, *sites: str) -> None:
        """Ask some sites, or the server and all sites, to end, which takes some seconds; for project admins."""
        self._session.shutdown(TargetType.CLIENT if sites else TargetType.ALL, list(sites), wait=False)


def _patiently(question: Callable[[], T]) -> T:
    """Ask again when the server, busy with other work, did not answer in FLARE's few seconds."""
    for _ in range(N_TRIES - 1):
        try:
            return _asked(question)
        except NoConnection:
            time.sleep(RETRY_S)
    return _asked(question)


def _asked(question: Callable[[], T]) -> T:
    with none_lost():
        return question()


def logged_in(person: str, kit: Path, timeout_s: float) -> Session:
    """Return FLARE's session of a person with their startup kit; its own errors where there is none to be had.

    Raises:
        NoConnection: also where the server ended, or was not ready yet, after it took the connection and before it
            answered the login; FLARE calls that an internal error.
        FLCommunicationError: a server that can be reached did not answer in FLARE's few seconds, several times.
    """
    # without a handler of its own, FLARE's library prints every lost connection to the terminal
    logging.getLogger("nvflare").addHandler(logging.NullHandler())
    for _ in range(N_LOGINS - 1):
        with contextlib.suppress(FLCommunicationError):
            return _login(person, kit, timeout_s)
    return _login(person, kit, timeout_s)


def _login(person: str, kit: Path, timeout_s: float) -> Session:
    unheard = io.StringIO()  # FLARE also prints the traceback of a question that is asked again
    try:
        with contextlib.redirect_stdout(unheard), contextlib.redirect_stderr(unheard), none_lost():
            return new_secure_session(person, str(kit), timeout=timeout_s, auto_login_max_tries=N_TRIES)
    except InternalError as error:
        raise NoConnection(str(error)) from error


@contextlib.contextmanager
def console(federation: Federation, role: str = "lead", timeout_s: float = CONNECT_S) -> Iterator[Console]:
    """Log in as somebody with a role, and log out again.

    Raises:
        FederationError: nobody has the role, the server does not answer, or it does not accept the person.
    """
    person = federation.person(role)
    kit = federation.kit(person)
    try:
        session = logged_in(person, kit, timeout_s)
    except (NoConnection, FLCommunicationError) as error:
        raise FederationError(
            f"no answer from the server at localhost:{federation.port}: {error}; "
            f"`med-duallora federation status --workspace {federation.directory}` shows what runs, the server's log is "
            f"{federation.log(federation.server)}"
        ) from error
    except AuthenticationError as error:
        raise FederationError(f"the server does not accept {person}: {error}; was the kit {kit} replaced?") from error
    try:
        yield Console(session, person)
    except NoConnection as error:
        raise FederationError(
            f"the connection to the server was lost ({error}); its log is {federation.log(federation.server)}"
        ) from error
    except ANSWERS as error:
        raise FederationError(explained(f"the server refused: {error}")) from error
    finally:
        with contextlib.suppress(Exception):  # the server may be gone
            session.close()
