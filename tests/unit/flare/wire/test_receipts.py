"""What the ledger says of something that was kept back: its outline, and nothing that it could do harm with."""

from typing import Any

import numpy as np
import pytest
from nvflare.apis.shareable import Shareable

from med_duallora.boundary.ledger_entry import BLOCKED
from med_duallora.flare.wire.payload import TrainReply
from med_duallora.flare.wire.receipts import MAX_DESCRIBED, blocked_entry


def entry(payload: object) -> Any:
    return blocked_entry("job-1", "ge", "train", "why", payload)


def test_a_blocked_reply_is_outlined(reply: TrainReply) -> None:
    found = entry(reply.to_shareable())
    assert (found.verdict, found.round_index, found.reason) == (BLOCKED, 0, "why")
    assert set(found.tensors) == set(reply.tensors)
    assert found.n_bytes == sum(value.nbytes for value in reply.tensors.values())
    assert len(found.sha256) == 64


@pytest.mark.parametrize("claimed", [-1, 10**6, 10**400, True, 1.0, "1", None, np.int64(1)])
def test_a_round_that_is_none_is_not_written_down(claimed: Any, reply: TrainReply) -> None:
    shareable = reply.to_shareable()
    shareable["DXO"]["meta"]["current_round"] = claimed
    assert entry(shareable).round_index is None


@pytest.mark.parametrize("payload", [None, "text", [], {}, Shareable(), {"DXO": 7}, {"DXO": {"data": 7, "meta": 7}}])
def test_something_else_has_no_outline(payload: object) -> None:
    found = entry(payload)
    assert (found.round_index, dict(found.tensors), found.n_bytes, found.sha256) == (None, {}, 0, "")


def test_any_number_of_tensors_gives_a_line_of_bounded_length(reply: TrainReply) -> None:
    shareable = reply.to_shareable()
    shareable["DXO"]["data"] = {f"{index}" + "x" * 1000: np.zeros(1) for index in range(1000)}
    found = entry(shareable)
    assert len(found.tensors) == MAX_DESCRIBED and all(len(name) <= 120 for name in found.tensors)


def test_objects_are_not_described(reply: TrainReply) -> None:
    shareable = reply.to_shareable()
    shareable["DXO"]["data"] = {"x": np.array([object()]), "y": np.zeros(2), 7: np.zeros(2)}
    assert set(entry(shareable).tensors) == {"y"}
