"""The federation as a campaign sees it through an admin startup kit; logged in again after every loss."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvflare.apis.fl_exception import FLCommunicationError
from nvflare.fuel.flare_api.api_spec import (
    AuthenticationError,
    AuthorizationError,
    JobNotFound,
    NoConnection,
    SessionClosed,
    SubmitTokenConflict,
)
from nvflare.fuel.flare_api.flare_api import Session

from med_duallora.campaign.look import JobSeen, Look
from med_duallora.errors import FederationError, InputError
from med_duallora.flare.local.interruptions import none_lost
from med_duallora.flare.local.rehearsal.admin import ANSWERS, Console, logged_in
from med_duallora.flare.wire.running_adapter import AFTER, TOPIC, RunningAdapter, unpacked
from med_duallora.support.files import read_object

LOGIN_S = 5.0
COMMAND_S = 4.0
"""How long the server waits for the sites' answers."""
ASK_S = 2.0
"""Between two questions to the sites."""
LOST: tuple[type[BaseException], ...] = (
    NoConnection,
    FLCommunicationError,
    SessionClosed,
    AuthenticationError,
    ConnectionError,
    TimeoutError,
)
"""How FLARE's session says that there is no server behind it, or another one than before."""
REFUSED: tuple[type[BaseException], ...] = (RuntimeError, *ANSWERS)
"""Every other way in which it says that a question was not answered."""
UNAVAILABLE: tuple[type[BaseException], ...] = (FederationError, *REFUSED)
IDLE = ("no_jobs",)
SILENT = ("no_reply", "error")


class Gate:
    """One person's console, opened when it is needed.

    Args:
        kit: admin startup kit.
        name_prefix: how the names of the campaign's jobs begin.

    Raises:
        InputError: it is not an admin's kit.
    """

    def __init__(self, kit: Path, name_prefix: str) -> None:
        self.person = person_of(kit)
        self.may_copy = True
        self._kit = kit.resolve()
        self._name_prefix = name_prefix
        self._session: Session | None = None
        self._sites: dict[str, frozenset[str]] = {}
        self._asked = 0.0
        self._silent_since: dict[str, float] = {}

    def close(self) -> None:
        """Log out, where the server still hears it."""
        session, self._session = self._session, None
        self._sites, self._silent_since = {}, {}
        if session is not None:
            with contextlib.suppress(Exception):
                session.close()

    def check(self) -> None:
        """Log in for the first time.

        Raises:
            FederationError: the server does not accept the person; that it does not answer is no error.
        """
        try:
            self._open()
        except AuthenticationError as error:
            raise FederationError(
                f"the server does not accept {self.person}: {error}; is {self._kit} the kit?"
            ) from error
        except LOST:
            self.close()

    def look(self, job_id: str) -> Look:
        """Return the federation at this moment."""
        try:
            with none_lost():
                return self._look(self._open(), job_id)
        except LOST:
            self.close()
        except REFUSED:  # what a server says that is starting or ending
            self.close()
        return Look(answers=False)

    def submit(self, folder: Path, token: str) -> str:
        """Submit a job folder; return its id, the same for the same token; empty where the connection was lost.

        Raises:
            FederationError: the server refused it.
        """
        try:
            return Console(self._open(), self.person).submit(folder, token)
        except SubmitTokenConflict as known:  # the folder was written anew since the first try
            return str(known.existing_job_id or "")
        except LOST:
            self.close()
            return ""
        except REFUSED as error:
            raise FederationError(f"the server refused the job from {self.person}: {error}") from error

    def abort(self, job_id: str) -> str:
        """Ask for the end of a job; return why that cannot be, empty where it can."""
        try:
            return Console(self._open(), self.person).abort_if_possible(job_id)
        except LOST as error:
            self.close()
            return str(error)

    def download(self, job_id: str, into: Path) -> Path | None:
        """Download what a job left; None where there is nothing (yet)."""
        try:
            place = Console(self._open(), self.person).download(job_id, into)
        except LOST:
            self.close()
            return None
        except UNAVAILABLE:
            return None
        return place if any(place.glob("workspace/app_*")) else None

    def adapter(self, job_id: str, after: int) -> RunningAdapter | None:
        """Return the last adapter of a running job, if it is of a later round than ``after``.

        Raises:
            ArtifactError: the answer is not one.
        """
        if not self.may_copy:
            return None
        try:
            with none_lost():
                return unpacked(self._open().do_app_command(job_id, TOPIC, {AFTER: after}))
        except AuthorizationError:
            self.may_copy = False
        except LOST:
            self.close()
        except REFUSED:  # not running yet or any more, or its server has an older package
            pass
        return None

    def _open(self) -> Session:
        if self._session is None:
            self._session = logged_in(self.person, self._kit, LOGIN_S)
            self._session.set_timeout(COMMAND_S)
        return self._session

    def _look(self, session: Session, job_id: str) -> Look:
        info = session.get_system_info()
        running = {job.job_id for job in info.job_info}
        contacts = {client.name: float(client.last_connect_time) for client in info.client_info}
        listed = session.list_jobs(detailed=True, name_prefix=self._name_prefix)
        seen = {str(job["job_id"]): JobSeen(str(job.get("status", "")), job["job_id"] in running) for job in listed}
        present = seen.pop(job_id, None) or self._alone(session, job_id, running)
        others = {name: job for name, job in seen.items() if not job.ended}
        self._ask_sites(session, contacts)
        return Look(True, float(info.server_info.start_time), present, others, dict(self._sites))

    def _alone(self, session: Session, job_id: str, running: set[str]) -> JobSeen:
        """Return the present job by its id, where it has another name than the campaign's."""
        if not job_id:
            return JobSeen()
        try:
            return JobSeen(str(session.get_job_meta(job_id).get("status", "")), job_id in running)
        except JobNotFound:
            return JobSeen()

    def _ask_sites(self, session: Session, contacts: Mapping[str, float]) -> None:
        """Ask the sites what they run; one that was silent is asked again once the server has heard from it."""
        now = time.monotonic()
        if now - self._asked < ASK_S:
            return
        wanted = [site for site, heard in contacts.items() if self._silent_since.get(site) != heard]
        rows = self._rows(session, wanted) if wanted else []
        answered: dict[str, set[str]] = {}
        for row in rows:
            site, status = str(row.get("client_name")), str(row.get("status"))
            if status not in SILENT:
                jobs = answered.setdefault(site, set())
                jobs |= set() if status in IDLE else {str(row.get("job_id"))}
        self._silent_since = {site: contacts[site] for site in contacts if site not in answered}
        self._sites = {site: frozenset(jobs) for site, jobs in answered.items()}
        self._asked = time.monotonic()

    @staticmethod
    def _rows(session: Session, sites: list[str]) -> list[dict[str, Any]]:
        try:
            return list(session.get_client_job_status(sites) or [])
        except NoConnection:
            # The server waits for a silent site as long as FLARE's session waits for the server: asked alone, such a
            # site is the only one that is not heard.
            session.get_system_info()  # raises where it is the server that is silent
            return [row for site in sites for row in Gate._rows(session, [site])] if len(sites) > 1 else []
        except LOST:
            raise
        except REFUSED:  # one of them was forgotten between the two questions
            return []


def person_of(kit: Path) -> str:
    """Return whose admin startup kit a folder is.

    Raises:
        InputError: it is none.
    """
    path = kit / "startup" / "fed_admin.json"
    try:
        return str(read_object(path)["admin"]["username"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--admin-kit {kit} is not the startup kit of a person (of a lead, say): {path} cannot be read ({error}); "
            "the kits of a rehearsal lie below WORKSPACE/provision"
        ) from error
