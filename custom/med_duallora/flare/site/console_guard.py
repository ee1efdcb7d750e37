"""Takes the console's file commands away from a site's FLARE process, and rights that nobody shall have.

``report_env``, which tells a path of the site, goes with them.

FLARE 2.9 leaves it to the server to say who sends a command and whether it has to be authorised at all. A server that
skips this can read any file of a site with ``cat``. So the site itself must not know these commands.

FLARE loads this component from local/resources.json into the site's parent process and into every job process.
"""

import os

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.fuel.sec.authz import AuthorizationService, Authorizer, AuthzContext
from nvflare.private.defs import SysCommandTopic
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors
from nvflare.security.logging import SECURE_LOGGING_VAR_NAME, is_secure

from med_duallora.flare.site.site_check import say_whether_usable

CLOSED_RIGHTS = frozenset({"byoc", "server-predeployed-flwr", "cat", "grep", "head", "ls", "pwd", "tail", "report_env"})
CLOSED_TOPICS = frozenset({SysCommandTopic.SHELL, SysCommandTopic.REPORT_ENV})
"""What FLARE calls the file commands, and the one that tells where the site's folder is."""
TEST_ROLE = "super"
"""FLARE gives this role every right without asking, and takes the role from the message."""


class ClosedRights(Authorizer):
    """The site's own authorisation, without the rights that nobody has here and without FLARE's test role.

    Args:
        inner: the authorisation that FLARE loaded from the site's files.
    """

    def __init__(self, inner: Authorizer) -> None:
        super().__init__("closed")
        self.inner = inner

    def authorize(self, ctx: AuthzContext) -> tuple[bool, str]:
        """Refuse what is closed, and ask the site's authorisation for the rest."""
        if ctx and (ctx.right in CLOSED_RIGHTS or ctx.user.role == TEST_ROLE):
            return False, f"this site gives nobody the right {ctx.right!r}"
        allowed, error = self.inner.authorize(ctx)
        return bool(allowed), str(error)


class ConsoleGuard(FLComponent):
    """Removes the console's file commands and keeps exception texts out of FLARE's log lines.

    Raises:
        UnsafeComponentError: the commands are still there; FLARE then does not start the site.
    """

    def __init__(self) -> None:
        super().__init__()
        os.environ[SECURE_LOGGING_VAR_NAME] = "true"
        # in place: FLARE keeps a reference to this list from its start
        known = ClientRequestProcessors.request_processors
        known[:] = [processor for processor in known if not CLOSED_TOPICS & set(processor.get_topics())]

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Check before the site registers; an UnsafeComponentError here keeps FLARE from starting."""
        if event_type == EventType.SYSTEM_BOOTSTRAP:
            close_rights()
            check_closed()
            say_whether_usable(self, fl_ctx)


def close_rights() -> None:
    """Put ``ClosedRights`` before the site's authorisation, once."""
    found = AuthorizationService.get_authorizer()
    if isinstance(found, Authorizer) and not isinstance(found, ClosedRights):
        AuthorizationService.the_authorizer = ClosedRights(found)


def check_closed() -> None:
    """Raise UnsafeComponentError unless everything that this guard closes is closed."""
    topics = {topic for item in ClientRequestProcessors.request_processors for topic in item.get_topics()}
    if topics & CLOSED_TOPICS:
        raise UnsafeComponentError("the console's file commands could not be removed")
    if not isinstance(AuthorizationService.get_authorizer(), ClosedRights):
        raise UnsafeComponentError("the site's authorisation could not be closed")
    if not is_secure():
        raise UnsafeComponentError("FLARE's secure logging could not be switched on")
