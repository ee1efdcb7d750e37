"""The last global adapter of a job that still runs, as FLARE's console carries it: what a dead server would take along.

FLARE archives a job's result when the job ends, and nothing of it where the server dies. So whoever may download the
result may ask the running job for the adapter of its last finished round; see ``site_kit.rights`` for who that is.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from med_duallora.errors import ArtifactError
from med_duallora.support.files import parsed_object

TOPIC = "med_duallora.adapter"
"""Of the command: ``app_command JOB_ID TOPIC`` on FLARE's console."""
AFTER = "after"
"""Key of the question: the round that the asker has already, from 0; -1 for none."""
MAX_BYTES = 2**28
"""A larger adapter is not sent over the console."""


@dataclass(frozen=True)
class RunningAdapter:
    """What a running job answered.

    Args:
        tensors: bytes of the adapter's file.
        manifest: bytes of its manifest.
        rounds: the server's records of the rounds that the asker had not.
    """

    tensors: bytes
    manifest: bytes
    rounds: Sequence[Mapping[str, Any]] = ()


def packed(path: Path, after: int, rounds: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return what a job answers: its last adapter where it is of a later round than ``after``; else nothing.

    The two files may be replaced while they are read; the reader finds that out by the hash in the manifest, and asks
    again.

    Args:
        path: the adapter's ``.safetensors`` file; its manifest lies beside it.
        after: see ``AFTER``.
        rounds: the server's records of the job's rounds.
    """
    try:
        manifest = path.with_suffix(".json").read_text(encoding="utf-8")
        round_index = parsed_object(manifest).get("round")
        if type(round_index) is not int or round_index <= after or path.stat().st_size > MAX_BYTES:
            return {}
        tensors = base64.b64encode(path.read_bytes()).decode()
        # a round's record is written before its adapter, so there may be one more
        new = [dict(record) for record in rounds if after < record["round"] <= round_index]
        return {"manifest": manifest, "tensors": tensors, "rounds": new}
    except (OSError, ValueError):  # none yet, or just being replaced
        return {}


def unpacked(answer: Mapping[str, Any]) -> RunningAdapter | None:
    """Return what ``packed`` gave; None where that was nothing.

    Raises:
        ArtifactError: the answer is something else.
    """
    if not answer:
        return None
    try:
        tensors = base64.b64decode(answer["tensors"], validate=True)
        rounds = [dict(record) for record in answer["rounds"] if type(record["round"]) is int]
        return RunningAdapter(tensors, str(answer["manifest"]).encode(), rounds)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ArtifactError(f"the job's answer holds no adapter ({error!r})") from error
