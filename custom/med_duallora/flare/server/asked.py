"""What a running job answers to its lead on FLARE's console, besides statistics: the adapter of its last round."""

import contextlib
from typing import Any

from nvflare.apis.fl_context import FLContext

from med_duallora.flare.server.directory import server_directory
from med_duallora.flare.wire.running_adapter import AFTER, TOPIC, packed
from med_duallora.server.rundir import ADAPTERS, read_rounds


def answer_for_adapter(fl_ctx: FLContext) -> None:
    """Let the job answer ``app_command JOB_ID med_duallora.adapter``; FLARE asks its authorization policy first."""
    with contextlib.suppress(RuntimeError):  # FLARE's register is the process's: a job before this one was there
        fl_ctx.get_engine().register_app_command(TOPIC, _answer)


def _answer(_topic: str, data: Any, fl_ctx: FLContext) -> dict[str, Any]:
    after = data.get(AFTER) if isinstance(data, dict) else None
    path = server_directory(fl_ctx) / f"{ADAPTERS['last']}.safetensors"
    return packed(path, after if type(after) is int else -1, read_rounds(path.parent))
