"""What FLARE may add to what leaves: names of its own, and nothing that only looks like them."""

import uuid
from typing import Any

import pytest
from nvflare.apis.fl_context import FLContext, FLContextManager, M, V
from nvflare.apis.shareable import Shareable

from med_duallora.flare.site.public_context import framework_headers, hide_foreign_properties

EVENT = str(uuid.uuid4())
OWN = {"__task_name__": "train", "__task_id__": "t-1"}


def result(**headers: Any) -> Shareable:
    found = Shareable()
    for name, value in headers.items():
        found.set_header(name, value)
    return found


@pytest.mark.parametrize(
    ("headers", "expected", "reason"),
    [
        ({}, {}, "nothing was added"),
        ({"__audit_event_id__": EVENT}, {"__audit_event_id__": EVENT}, "FLARE's audit event"),
        ({"__audit_event_id__": "of patient 7"}, {}, "a sentence is not an identifier"),
        ({"__audit_event_id__": "x" * 65}, {}, "too long"),
        ({"__audit_event_id__": b"x"}, {}, "no text"),
        ({"note": "x", "__rc__": "OK", "__peer_props__": {"a": 1}}, {}, "headers that others set"),
        ({"__task_name__": "other"}, {}, "the task is known"),
        ({"__cookie_jar__": {"contribution_round": 3}}, {"__cookie_jar__": {"contribution_round": 3}}, "the round"),
        (
            {"__cookie_jar__": {"note": "x", "__task_id__": "t-1"}},
            {"__cookie_jar__": {"__task_id__": "t-1"}},
            "a cookie",
        ),
        ({"__cookie_jar__": {"__workflow__": "a b"}}, {"__cookie_jar__": {}}, "no name"),
        ({"__cookie_jar__": {"contribution_round": [3]}}, {"__cookie_jar__": {}}, "no number"),
        ({"__cookie_jar__": ["note"]}, {}, "no jar"),
    ],
)
def test_headers_of_the_framework(headers: dict[str, Any], expected: dict[str, Any], reason: str) -> None:
    assert framework_headers(result(**headers), "train", "t-1") == {**OWN, **expected}, reason


def test_headers_that_are_no_dict_give_the_task_only() -> None:
    shareable = Shareable()
    dict.update(shareable, {"__headers__": ["note"]})
    assert framework_headers(shareable, "train", "t-1") == OWN


def context() -> FLContext:
    return FLContextManager(None, "ge", "job-1").new_context()


def test_what_flare_made_public_stays() -> None:
    fl_ctx = context()
    before = fl_ctx.get_all_public_props()
    assert before["__identity_name__"] == "ge"
    assert hide_foreign_properties(fl_ctx) == 0
    assert fl_ctx.get_all_public_props() == before


@pytest.mark.parametrize(
    ("key", "value"), [("note", "x"), ("n", 7), ("__identity_name__", "x" * 129), ("__client_name__", ["x"])]
)
def test_what_somebody_else_made_public_is_hidden_for_good(key: str, value: Any) -> None:
    fl_ctx = context()
    fl_ctx.set_prop(key, value, private=False, sticky=True)
    if fl_ctx.get_prop(key) != value:
        fl_ctx.props[key] = {V: value, M: 0}
    assert hide_foreign_properties(fl_ctx) == 1
    assert key not in fl_ctx.get_all_public_props()
    assert hide_foreign_properties(fl_ctx) == 0
