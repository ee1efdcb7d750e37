"""Which messages a site takes: from whom, on which channel, which command, and what right it needs.

FLARE 2.9 delivers every member's messages to a site's processes and lets the sender say whether a command must be
authorised. The server's guard of connections binds the origin of a member's message to its certificate (FLARE by itself
does not, see ``flare/wire/connections.py``), so the origin can be believed as long as the message came over the
connection to the server, or over that of one of the site's own processes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nvflare.apis.fl_constant import AdminCommandNames
from nvflare.apis.job_def import JobMetaKey
from nvflare.fuel.f3.cellnet.defs import CellChannel
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.sec.authz import AuthorizationService, AuthzContext, Person
from nvflare.private.admin_defs import Message
from nvflare.private.defs import InfoCollectorTopic, RequestHeader, TrainingTopic

SERVER = str(FQCN.ROOT_SERVER)
NETWORK_AGENT = "_net_manager"
"""FLARE's channel that stops cells, changes their settings and reports on the process."""
JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)
"""What FLARE's server gives to a job; everything else could be the name of another folder of the kit."""


@dataclass(frozen=True)
class Rule:
    """What a command of the server needs.

    Args:
        right: that its user must have at this site; empty: the server sends it for no user, to plan or end a job.
        names_job: whether it must name a job.
    """

    right: str = ""
    names_job: bool = True


TOPICS: Mapping[str, Rule] = {
    TrainingTopic.CHECK_STATUS: Rule(AdminCommandNames.CHECK_STATUS, names_job=False),
    TrainingTopic.SHUTDOWN: Rule(AdminCommandNames.SHUTDOWN, names_job=False),
    TrainingTopic.RESTART: Rule(AdminCommandNames.RESTART, names_job=False),
    TrainingTopic.DEPLOY: Rule(AdminCommandNames.SUBMIT_JOB),
    TrainingTopic.START_JOB: Rule(AdminCommandNames.SUBMIT_JOB),
    TrainingTopic.CHECK_RESOURCE: Rule(),
    TrainingTopic.CANCEL_RESOURCE: Rule(names_job=False),
    TrainingTopic.ABORT: Rule(),
    InfoCollectorTopic.SHOW_STATS: Rule(AdminCommandNames.SHOW_STATS),
    InfoCollectorTopic.SHOW_ERRORS: Rule(AdminCommandNames.SHOW_ERRORS),
    InfoCollectorTopic.RESET_ERRORS: Rule(AdminCommandNames.RESET_ERRORS),
}
"""The server's commands that this site takes: those of the guides, and those by which FLARE runs a job."""


@dataclass(frozen=True)
class Envelope:
    """The outside of a message, as far as this process can believe it.

    Args:
        origin: the cell that it says it comes from.
        neighbour: the cell at the other end of the connection that it came over; empty where FLARE does not tell.
        channel: of a streamed message that of its content.
        topic: likewise.
    """

    origin: str
    neighbour: str
    channel: str
    topic: str


def is_job_id(value: object) -> bool:
    """Return whether this is a job id of FLARE's own form."""
    return isinstance(value, str) and JOB_ID.fullmatch(value) is not None


def is_within(cell: str, ancestor: str) -> bool:
    """Return whether a cell is another one or one of its children."""
    return cell == ancestor or cell.startswith(f"{ancestor}.")


def envelope_problem(envelope: Envelope, own: str) -> str:
    """Return why a message to this process is refused, whatever it holds; empty where it is not.

    Args:
        envelope: its outside.
        own: the cell of this process: ``SITE`` in the parent process, ``SITE.JOB_ID`` in that of a job.
    """
    site = _site_of(own)
    if not _is_from(envelope, site):
        return "it comes neither from the server nor from a process of this site"
    if is_within(envelope.origin, site):
        is_notice = envelope.topic == TrainingTopic.NOTIFY_JOB_STATUS
        bad = envelope.channel == CellChannel.CLIENT_MAIN and not is_notice
        return "a job of this site commands the site" if bad else ""
    if envelope.channel in (NETWORK_AGENT, CellChannel.CLIENT_COMMAND):
        return "this site takes nothing on this channel"
    return ""


def answer_problem(envelope: Envelope, own: str) -> str:
    """Return why an answer to this process is refused; see ``envelope_problem``. Nobody else was asked anything."""
    return "" if _is_from(envelope, _site_of(own)) else "it answers, but is neither the server nor of this site"


def _site_of(own: str) -> str:
    """Return the cell of the site's parent process, from the one of this process."""
    parent, _, last = own.rpartition(".")
    return parent if is_job_id(last) else own


def _is_from(envelope: Envelope, site: str) -> bool:
    """Return whether origin and connection fit: nobody but the server speaks over the connection to it."""
    if is_within(envelope.neighbour, site):
        return is_within(envelope.origin, site) or is_within(envelope.origin, SERVER)
    is_on_the_way = bool(envelope.neighbour) and is_within(site, envelope.neighbour)
    return (is_on_the_way or is_within(envelope.neighbour, SERVER)) and is_within(envelope.origin, SERVER)


def command_problem(request: Message, origin: str, site: str) -> str:
    """Return why a command to the site's parent process is refused; empty where it is not.

    The right is looked up by the command itself and asked always: neither the sender's flag nor the name of the command
    that the sender gives decides.
    """
    topic, job_id = request.topic, request.get_header(RequestHeader.JOB_ID)
    if topic == TrainingTopic.NOTIFY_JOB_STATUS:
        good = is_job_id(job_id) and origin == f"{site}.{job_id}"
        return "" if good else "only a job's own process tells its state"
    if origin != SERVER:
        return "commands are taken from the server only"
    rule = TOPICS.get(topic) if isinstance(topic, str) else None
    if rule is None:
        return "this site does not take this command"
    if rule.names_job and not is_job_id(job_id):
        return "the job id is not one of FLARE's own"
    if rule.right and not _may(request, rule.right):
        return "its user has no right to it here"
    return ""


def _may(request: Message, right: str) -> bool:
    header = request.get_header
    user = _person(header(RequestHeader.USER_NAME), header(RequestHeader.USER_ORG), header(RequestHeader.USER_ROLE))
    submitter = _person(
        header(RequestHeader.SUBMITTER_NAME), header(RequestHeader.SUBMITTER_ORG), header(RequestHeader.SUBMITTER_ROLE)
    )
    meta = header(RequestHeader.JOB_META)
    if not user.role and isinstance(meta, dict):
        keys = (JobMetaKey.SUBMITTER_NAME, JobMetaKey.SUBMITTER_ORG, JobMetaKey.SUBMITTER_ROLE)
        user = submitter = _person(*(meta.get(key.value) for key in keys))
    if not user.role:
        return False
    allowed, error = AuthorizationService.authorize(AuthzContext(right, user, submitter))
    return bool(allowed) and not error


def _person(*values: object) -> Person:
    return Person(*(value if isinstance(value, str) else "" for value in values))
