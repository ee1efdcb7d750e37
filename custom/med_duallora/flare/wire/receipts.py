"""Ledger entries of what passes between a site and the server; both sides make them from what they read themselves."""

from collections.abc import Mapping

import numpy as np

from med_duallora.boundary.ledger_entry import ALLOWED, BLOCKED, Entry, described
from med_duallora.flare.wire.payload import ROUND, TrainReply
from med_duallora.support.digest import content_digest

TRAIN, VALIDATE = "train", "validate"
MAX_DESCRIBED = 64
"""A blocked payload may hold any number of tensors; this many are described."""
MAX_ROUND = 10**6
"""A blocked payload may claim any round; larger ones are not written down."""


def train_entry(job_id: str, site: str, reply: TrainReply, verdict: str = ALLOWED, reason: str = "") -> Entry:
    """Return the entry of a train reply.

    Args:
        job_id: FLARE's job id.
        site: who sent it.
        reply: as it was read, by the contract.
        verdict: of the one who writes the entry.
        reason: of a refusal.
    """
    facts = {
        "round": reply.round_index,
        "weight": reply.weight,
        "metrics": reply.metrics,
        "initial_metrics": reply.initial_metrics,
    }
    digest = content_digest(reply.tensors, facts)
    n_bytes = sum(value.nbytes for value in reply.tensors.values())
    shapes = described(reply.tensors)
    return Entry(job_id, site, TRAIN, "tensors", verdict, reason, reply.round_index, shapes, n_bytes, digest)


def metrics_entry(job_id: str, site: str, metrics: Mapping[str, float], verdict: str = ALLOWED) -> Entry:
    """Return the entry of a validate reply."""
    return Entry(job_id, site, VALIDATE, "metrics", verdict, sha256=content_digest({}, dict(metrics)))


def event_entry(job_id: str, site: str, tag: str, value: float, *, step: object) -> Entry:
    """Return the entry of one scalar that left or arrived as a fed event."""
    digest = content_digest({}, {"tag": tag, "value": value, "step": step})
    round_index = step if isinstance(step, int) else None
    return Entry(job_id, site, tag, "event", ALLOWED, round_index=round_index, sha256=digest)


def statistics_entry(job_id: str, site: str, numbers: Mapping[str, float]) -> Entry:
    """Return the entry of numbers that leave as an answer to show_stats; its remark says which."""
    digest = content_digest({}, dict(numbers))
    return Entry(job_id, site, "show_stats", "statistics", ALLOWED, ", ".join(sorted(numbers)), sha256=digest)


def error_entry(job_id: str, site: str, task: str, code: str) -> Entry:
    """Return the entry of a reply that holds a return code and nothing else."""
    return Entry(job_id, site, task, "error", ALLOWED, code)


def blocked_entry(job_id: str, site: str, task: str, reason: str, payload: object, *, kind: str = "tensors") -> Entry:
    """Return the entry of something that did not leave, with as much of its outline as can be told safely."""
    tensors = dict(_arrays(payload))
    n_bytes = sum(value.nbytes for value in tensors.values())
    digest = content_digest(tensors, {}) if tensors else ""
    return Entry(job_id, site, task, kind, BLOCKED, reason, _round(payload), described(tensors), n_bytes, digest)


def _inside(payload: object, name: str) -> object:
    """Return a part of a DXO-like payload; nothing of the payload is called."""
    content = dict.get(payload, "DXO") if isinstance(payload, dict) else None
    return dict.get(content, name) if isinstance(content, dict) else None


def _round(payload: object) -> int | None:
    meta = _inside(payload, "meta")
    found = dict.get(meta, ROUND) if isinstance(meta, dict) else None
    return found if type(found) is int and 0 <= found < MAX_ROUND else None


def _arrays(payload: object) -> list[tuple[str, np.ndarray]]:
    """Return the plain numeric arrays of a DXO-like payload, bytes as such; nothing of the payload is called."""
    data = _inside(payload, "data")
    if not isinstance(data, dict):
        return []
    plain = [
        (str.__str__(name)[:120], np.frombuffer(value, np.uint8) if type(value) is bytes else value)
        for name, value in dict.items(data)
        if type(name) is str and type(value) in (np.ndarray, bytes)
    ]
    return [(name, value) for name, value in plain if value.dtype.kind in "fiub"][:MAX_DESCRIBED]
