"""What FLARE itself adds to what leaves a site: the public context, and headers that are set after all checks."""

import re
from collections.abc import Iterable
from typing import Any

from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import MASK_PRIVATE, FLContext, M, V
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.app_common.app_constant import AppConstants

PUBLIC_PROPERTIES = frozenset(
    {
        ReservedKey.RUN_NUM,
        ReservedKey.IDENTITY_NAME,
        ReservedKey.FQSN,
        ReservedKey.IS_LEAF,
        FLContextKey.CLIENT_NAME,
        FLContextKey.CLIENT_TYPE,
        FLContextKey.CURRENT_RUN,
        FLContextKey.CURRENT_JOB_ID,
    }
)
"""Properties of a context that FLARE itself makes public; they name the site and the job."""
MAX_PROPERTY_LENGTH = 128
COOKIES = frozenset({FLContextKey.TASK_ID, ReservedHeaderKey.WORKFLOW, AppConstants.CONTRIBUTION_ROUND})
"""What FLARE's server sends along with a task and wants back."""
_PLAIN_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


def hide_foreign_properties(fl_ctx: FLContext) -> int:
    """Take out of the public context what FLARE itself did not put there; return how many properties that were.

    The public context travels with every message of a site.
    """
    foreign = list(_foreign_properties(fl_ctx))
    for key in foreign:
        fl_ctx.props[key] = {V: None, M: MASK_PRIVATE}
        manager = fl_ctx._get_ctx_manager()
        if manager is not None:
            manager.public_stickers.pop(key, None)
    return len(foreign)


def framework_headers(result: Shareable, task: object, task_id: object) -> dict[str, Any]:
    """Return what FLARE has added to the headers of a checked result, and nothing that only looks like it.

    Args:
        result: about to be sent.
        task: name of the task that it answers.
        task_id: FLARE's id of the task.
    """
    found: dict[str, Any] = {ReservedHeaderKey.TASK_NAME: task, ReservedHeaderKey.TASK_ID: task_id}
    headers = dict.get(result, ReservedHeaderKey.HEADERS)
    if type(headers) is not dict:
        return found
    audit_event = headers.get(ReservedKey.AUDIT_EVENT_ID)
    if _is_name(audit_event):
        found[ReservedKey.AUDIT_EVENT_ID] = audit_event
    jar = headers.get(ReservedHeaderKey.COOKIE_JAR)
    if type(jar) is dict:
        plain = {name: value for name, value in jar.items() if type(name) is str and name in COOKIES}
        found[ReservedHeaderKey.COOKIE_JAR] = {n: v for n, v in plain.items() if type(v) is int or _is_name(v)}
    return found


def _is_name(value: object) -> bool:
    return type(value) is str and _PLAIN_NAME.fullmatch(value) is not None


def _foreign_properties(fl_ctx: FLContext) -> Iterable[str]:
    public = fl_ctx.get_all_public_props().items()
    return [key for key, value in public if key not in PUBLIC_PROPERTIES or not _is_plain(value)]


def _is_plain(value: object) -> bool:
    return type(value) in (bool, int, type(None)) or (type(value) is str and len(value) <= MAX_PROPERTY_LENGTH)
