"""Who may ask a running job for its last global adapter: whoever may download the job's result when it ends."""

import copy
from pathlib import Path
from typing import Any

from med_duallora.errors import KitError
from med_duallora.site_kit.kit import read_part

POLICY = "authorization.json"
RESULT, RUNNING = "download_job", "app_command"
"""Rights in FLARE's authorization policy; no role of the default policy but project_admin has the second one."""


def with_running_adapter(kit: Path) -> dict[str, Any] | None:
    """Return a server's policy in which every role that may download results may ask running jobs, alike.

    What an administrator wrote about that right stays. A job answers nothing else under it, see
    ``flare.wire.running_adapter``.

    Returns:
        What ``local/authorization.json`` is to hold; None where there is nothing to do.

    Raises:
        KitError: the kit has no authorization policy, or none that this function understands.
    """
    written = kit / "local" / POLICY
    source = written if written.exists() else written.with_name(f"{POLICY}.default")
    before = read_part(source, f"is {kit} the startup kit of a FLARE server?")
    values = copy.deepcopy(before)
    permissions = values.get("permissions")
    if not isinstance(permissions, dict):
        raise KitError(f"{source} has no permissions")
    for rights in permissions.values():
        if isinstance(rights, dict) and RESULT in rights:
            rights.setdefault(RUNNING, rights[RESULT])
    return None if values == before else values
