from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from nvflare.fuel.utils import fobs

from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import EgressViolation
from med_duallora.flare.wire import packing
from med_duallora.flare.wire.packing import packed, unpacked
from med_duallora.flare.wire.payload import TrainReply, read_train_reply, rebuilt
from tests.unit.tiny import random_payload

METRICS = {"train_loss": 0.5, "n_subjects": 4.0}


@pytest.fixture
def reply(contract: EgressContract) -> TrainReply:
    return TrainReply(random_payload(contract), 6.0, 0, METRICS)


def test_a_reply_leaves_as_bytes_by_name_and_arrives_the_same(contract: EgressContract, reply: TrainReply) -> None:
    data = fobs.dumps(rebuilt("train", reply.to_shareable(), contract))
    received = fobs.loads(data)["DXO"]["data"]
    assert set(received) == set(contract.tensors)
    assert {name: len(value) for name, value in received.items()} == {n: v.nbytes for n, v in reply.tensors.items()}
    found = read_train_reply(contract, fobs.loads(data))
    for name, value in reply.tensors.items():
        assert np.array_equal(found.tensors[name], value) and found.tensors[name].dtype == value.dtype
    assert bytes(fobs.dumps(rebuilt("train", fobs.loads(data), contract))) == bytes(data), "packed twice is packed once"


def test_values_are_little_endian_on_every_machine() -> None:
    value = np.array([1.0, 2.0], ">f4")
    assert packed({"x": value})["x"] == np.array([1.0, 2.0], "<f4").tobytes()


def test_a_large_tensor_stays_an_array(
    contract: EgressContract, reply: TrainReply, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(value.nbytes for value in reply.tensors.values())
    monkeypatch.setattr(packing, "MAX_PACKED", largest - 1)
    kinds = {type(value) for value in packed(reply.tensors).values()}
    assert kinds == {bytes, np.ndarray}
    assert set(read_train_reply(contract, reply.to_shareable(pack=True)).tensors) == set(reply.tensors)


BAD: list[tuple[str, Callable[[dict[Any, Any], str], Any], str]] = [
    ("a byte more", lambda data, name: data.update({name: data[name] + b"\0"}), "bytes, expected"),
    ("a byte less", lambda data, name: data.update({name: data[name][:-1]}), "bytes, expected"),
    ("no bytes", lambda data, name: data.update({name: b""}), "comes as 0 bytes"),
    ("bytes that may change", lambda data, name: data.update({name: bytearray(data[name])}), "is a bytearray"),
    ("text", lambda data, name: data.update({name: "x"}), "is a str"),
    ("a name more", lambda data, name: data.update(subject=data[name]), "outside the contract"),
    ("a name less", lambda data, name: data.pop(name), "is missing"),
    ("a name that is bytes", lambda data, _name: data.update({b"x": b""}), "not text"),
    ("values that are not finite", lambda data, name: data.update({name: b"\xff" * len(data[name])}), "not finite"),
]


@pytest.mark.parametrize(("reason", "change", "message"), BAD, ids=[row[0] for row in BAD])
def test_bytes_outside_the_contract_are_refused(
    reason: str, change: Callable[[dict[Any, Any], str], Any], message: str, contract: EgressContract, reply: TrainReply
) -> None:
    shareable = reply.to_shareable(pack=True)
    change(shareable["DXO"]["data"], next(iter(reply.tensors)))
    with pytest.raises(EgressViolation, match=message):
        read_train_reply(contract, shareable)


def test_what_is_no_dict_is_left_to_the_contract(contract: EgressContract) -> None:
    assert unpacked(contract, [b"x"]) == [b"x"]


def test_half_the_bytes_of_another_dtype_are_refused(contract: EgressContract, reply: TrainReply) -> None:
    halves = {name: value.astype(np.float16) for name, value in reply.tensors.items()}
    with pytest.raises(EgressViolation, match="bytes, expected"):
        read_train_reply(contract, replace(reply, tensors=halves).to_shareable(pack=True))
