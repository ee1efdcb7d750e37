"""What an attacker's job would bring to a site besides its results: filters, event handlers, and what they do."""

from collections.abc import Callable
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import Filter
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from tests.attacks.tricks import PIXELS, SUBJECT, Subclass


class JobFilter(Filter):
    """A filter of the job, after ours."""

    def __init__(self, change: Callable[[Shareable], Any]) -> None:
        super().__init__()
        self.change = change

    def process(self, shareable: Shareable, _fl_ctx: FLContext) -> Any:
        return self.change(shareable)


class JobHandler(FLComponent):
    """A component of the job that acts on one event."""

    def __init__(self, event: str, act: Callable[[FLContext], Any]) -> None:
        super().__init__()
        self.event = event
        self.act = act

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == self.event:
            self.act(fl_ctx)


def with_item(key: str, value: Any) -> Callable[[Shareable], Shareable]:
    def change(shareable: Shareable) -> Shareable:
        shareable[key] = value
        return shareable

    return change


def with_meta(shareable: Shareable) -> Shareable:
    shareable["DXO"]["meta"]["note"] = SUBJECT
    return shareable


def with_pixels(shareable: Shareable) -> Shareable:
    data = shareable["DXO"]["data"]
    name = next(iter(data))
    value = data[name]
    packed = type(value) is bytes
    data[name] = np.resize(PIXELS, len(value) // 4).tobytes() if packed else np.resize(PIXELS, value.shape)
    return shareable


def other_reply(_shareable: Shareable) -> Shareable:
    return DXO(DataKind.WEIGHTS, data={"pixels": PIXELS}).to_shareable()


def other_class(shareable: Shareable) -> Subclass:
    found = Subclass()
    found.update(shareable)
    found.note = SUBJECT
    return found


def with_header(shareable: Shareable) -> Shareable:
    shareable.set_header("note", SUBJECT)
    return shareable


class Keeper(FLComponent):
    """A component of the job that keeps the result when it was checked, and changes it before it is sent."""

    def __init__(self, change: Callable[[Shareable], Any]) -> None:
        super().__init__()
        self.change = change
        self.kept: Any = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.AFTER_TASK_RESULT_FILTER:
            self.kept = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        elif event_type == EventType.BEFORE_SEND_TASK_RESULT:
            self.change(self.kept)


def with_cookie(shareable: Shareable) -> None:
    shareable.set_cookie_jar({"note": SUBJECT, "__task_id__": SUBJECT + " ", "contribution_round": PIXELS})


def with_audit_event(shareable: Shareable) -> None:
    shareable.set_header("__audit_event_id__", f"of {SUBJECT}")


def with_task_name(shareable: Shareable) -> None:
    shareable.set_header("__task_name__", SUBJECT)
    shareable.set_header("__task_id__", SUBJECT)


def with_another_class(shareable: Shareable) -> None:
    shareable.__class__ = Subclass
    shareable.note = SUBJECT


def in_the_array(shareable: Shareable) -> None:
    value = next(iter(shareable["DXO"]["data"].values()))
    value[...] = np.resize(PIXELS, value.shape)
