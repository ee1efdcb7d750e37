"""What attackers put into a payload; every trick gets the honest reply and returns what it would send instead.

The secret is the identifier of a subject, or pixels: a pattern of numbers that would be found again in any bytes.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.shareable import Shareable, make_reply

from med_duallora.flare.wire.payload import TrainReply

SUBJECT = "patient007"
PIXELS = np.full(64, 7.00700744e-07, np.float32)
SECRETS = (SUBJECT.encode(), PIXELS[:4].tobytes(), PIXELS[:4].astype(np.float64).tobytes())

Trick = Callable[[TrainReply], Any]


class Subclass(Shareable):
    """A Shareable whose methods an attacker controls."""


class Named(str):
    """Text that carries attributes."""

    __slots__ = ("note",)
    note: str


class Marked(OrderedDict):
    """A dict that carries attributes."""


def dxo(reply: TrainReply) -> dict[str, Any]:
    """The inside of an honest reply."""
    return reply.to_shareable()["DXO"]


def changed(**parts: Any) -> Trick:
    """Replace parts of the DXO: kind, data, meta."""

    def make(reply: TrainReply) -> Shareable:
        shareable = reply.to_shareable()
        shareable["DXO"].update({name: part(reply) if callable(part) else part for name, part in parts.items()})
        return shareable

    return make


def meta(**entries: Any) -> Trick:
    """Add or replace entries of the DXO's meta."""
    return changed(meta=lambda reply: {**dxo(reply)["meta"], **entries})


def metrics(group: str = "metrics", **entries: Any) -> Trick:
    """Add or replace metrics of a train reply."""
    return changed(meta=lambda reply: {**dxo(reply)["meta"], group: {**dxo(reply)["meta"][group], **entries}})


def tensors(change: Callable[[dict[Any, Any], str], Any]) -> Trick:
    """Change the tensors; ``change`` gets a copy of them and the name of the first one."""

    def make(reply: TrainReply) -> Shareable:
        data: dict[Any, Any] = dict(reply.tensors)
        replacement = change(data, next(iter(data)))
        shareable = reply.to_shareable()
        shareable["DXO"]["data"] = data if replacement is None else replacement
        return shareable

    return make


def tensor(change: Callable[[np.ndarray], Any]) -> Trick:
    """Replace the first tensor."""

    def replace(data: dict[str, Any], name: str) -> None:
        data[name] = change(data[name])

    return tensors(replace)


def beside(**entries: Any) -> Trick:
    """Put something beside the DXO."""

    def make(reply: TrainReply) -> Shareable:
        shareable = reply.to_shareable()
        shareable.update(entries)
        return shareable

    return make


def headers(**entries: Any) -> Trick:
    """Set headers."""

    def make(reply: TrainReply) -> Shareable:
        shareable = reply.to_shareable()
        for name, value in entries.items():
            shareable.set_header(name, value)
        return shareable

    return make


def as_headers(value: Any) -> Trick:
    """Replace all headers by one object."""

    def make(reply: TrainReply) -> Shareable:
        shareable = reply.to_shareable()
        dict.update(shareable, {"__headers__": value})
        return shareable

    return make


def pixels_like(value: np.ndarray) -> np.ndarray:
    """Pixels in the shape of a tensor."""
    return np.resize(PIXELS, value.shape)


def one_bit(value: np.ndarray) -> np.ndarray:
    """Flip the lowest bit of one number."""
    bits = value.copy().view(np.uint32)
    bits.flat[0] ^= 1
    return bits.view(np.float32)


def nan_bits(value: np.ndarray) -> np.ndarray:
    """Hide 22 bits in a number that is not one."""
    bits = value.copy().view(np.uint32)
    bits.flat[0] = 0x7FC00707
    return bits.view(np.float32)


def objects(value: np.ndarray) -> np.ndarray:
    """An array of Python objects of the right shape."""
    found = np.empty(value.shape, object)
    found.fill(SUBJECT)
    return found


def structured(value: np.ndarray) -> np.ndarray:
    """The right values with a hidden field beside each."""
    found = np.zeros(value.shape, [("value", "f4"), ("note", "S10")])
    found["value"], found["note"] = value, SUBJECT.encode()
    return found


def window(value: np.ndarray) -> np.ndarray:
    """The right values as a view into a larger array that holds pixels as well."""
    store = np.concatenate([value.ravel(), PIXELS])
    return store[: value.size].reshape(value.shape)


def annotated(value: np.ndarray) -> np.ndarray:
    """The right values with text in the dtype's metadata."""
    return value.astype(np.dtype(np.float32, metadata={"note": SUBJECT}))


def matrix(value: np.ndarray) -> np.ndarray:
    """A subclass of ndarray with an attribute."""
    found = value.view(type("Noted", (np.ndarray,), {}))
    found.note = SUBJECT  # type: ignore[attr-defined]
    return found


def renamed(data: dict[Any, Any], name: str) -> None:
    """A tensor name that carries an attribute."""
    key = Named(name)
    key.note = SUBJECT
    data[key] = data.pop(name)


def one_less(data: dict[Any, Any], name: str) -> None:
    """A missing tensor."""
    del data[name]


def collection(reply: TrainReply) -> Shareable:
    """A DXO of DXOs."""
    inner = DXO(DataKind.WEIGHTS, data={"pixels": PIXELS})
    return DXO(DataKind.COLLECTION, data={"a": inner, "b": DXO(DataKind.WEIGHTS, data=reply.tensors)}).to_shareable()


def as_subclass(reply: TrainReply) -> Subclass:
    """The honest content in an object of another class."""
    found = Subclass()
    found.update(reply.to_shareable())
    found.note = SUBJECT
    return found


def failure(code: Any = "EXECUTION_EXCEPTION", **entries: Any) -> Trick:
    """An error reply that carries something."""

    def make(reply: TrainReply) -> Shareable:
        shareable = make_reply(code)
        shareable.update(entries)
        return shareable

    return make


def failure_with_headers(**entries: Any) -> Trick:
    """An error reply with headers."""

    def make(reply: TrainReply) -> Shareable:
        return make_reply("EXECUTION_EXCEPTION", entries)

    return make


def self_reference(reply: TrainReply) -> dict[str, Any]:
    """Meta that contains itself."""
    found = dict(dxo(reply)["meta"])
    found["more"] = found
    return found


def as_torch(value: np.ndarray) -> torch.Tensor:
    """The right values as a torch tensor."""
    return torch.from_numpy(value.copy())
