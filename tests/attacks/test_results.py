"""Attacks on task results. Each row: the channel, the trick, the expected refusal (as the ledger records it)."""

import pickle
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable
from nvflare.fuel.utils import fobs

from med_duallora.boundary.ledger_audit import verify
from med_duallora.flare.wire.payload import metrics_reply, read_train_reply
from med_duallora.site.offer import Offer
from tests.attacks import tricks
from tests.attacks.tricks import PIXELS, SECRETS, SUBJECT, Trick

BLOCKED: list[tuple[str, str, Trick, str]] = [
    # --- beside and inside the DXO
    ("extra key", "text beside the DXO", tricks.beside(note=SUBJECT), "entry outside the contract: 'note'"),
    ("extra key", "pixels beside the DXO", tricks.beside(pixels=PIXELS.tobytes()), "outside the contract: 'pixels'"),
    ("extra key", "a second DXO", tricks.beside(DXO2={"data": PIXELS}), "outside the contract: 'DXO2'"),
    ("extra key", "a number as key", lambda r: _with(r.to_shareable(), {7: SUBJECT}), "outside the contract: '7'"),
    ("extra key", "text inside the DXO", tricks.changed(note=SUBJECT), "outside the contract: 'note'"),
    ("meta", "an extra entry", tricks.meta(note=SUBJECT), "meta entry outside the contract: 'note'"),
    ("meta", "a tensor in the meta", tricks.meta(pixels=PIXELS), "meta entry outside the contract: 'pixels'"),
    ("meta", "nested entries", tricks.meta(a={"b": {"c": SUBJECT}}), "outside the contract: 'a'"),
    ("meta", "meta that contains itself", tricks.changed(meta=tricks.self_reference), "outside the contract: 'more'"),
    ("meta", "a list instead of the meta", tricks.changed(meta=[SUBJECT]), "not a data exchange object"),
    ("meta", "no meta", tricks.changed(meta=None), "is missing"),
    ("meta", "FLARE's filter history", tricks.meta(filter_history=[SUBJECT]), "outside the contract: 'filter_history'"),
    # --- metrics
    ("metrics", "an unknown name", tricks.metrics(age=61.0), "a metric outside the contract"),
    ("metrics", "a name that is the secret", tricks.metrics(**{SUBJECT: 1.0}), "a metric outside the contract"),
    ("metrics", "text as value", tricks.metrics(train_loss=SUBJECT), "train_loss is a str"),
    ("metrics", "pixels as value", tricks.metrics(train_loss=PIXELS), "train_loss is a ndarray"),
    ("metrics", "a numpy number", tricks.metrics(train_loss=np.float64(0.5)), "train_loss is a float64"),
    ("metrics", "a list as value", tricks.metrics(train_loss=[0.1, 0.2]), "train_loss is a list"),
    ("metrics", "a truth value", tricks.metrics(train_loss=True), "train_loss is a bool"),
    ("metrics", "not a number", tricks.metrics(train_loss=float("nan")), "train_loss is out of range"),
    ("metrics", "a number that is far too large", tricks.metrics(seconds=7e300), "seconds is out of range"),
    ("metrics", "an integer of a million digits", tricks.metrics(n_steps=10**4000), "n_steps is out of range"),
    (
        "metrics",
        "digits behind the policy's",
        tricks.metrics(train_loss=0.123456789),
        "train_loss is not what this site",
    ),
    ("metrics", "another number than computed", tricks.metrics(n_steps=7007.0), "n_steps is not what this site"),
    ("metrics", "a score among the training metrics", tricks.metrics(val_loss=0.5), "a metric outside the contract"),
    ("metrics", "test scores in a train reply", tricks.metrics(**{"both.auroc": 0.5}), "a metric outside the contract"),
    (
        "metrics",
        "training metrics as initial ones",
        tricks.metrics("initial_metrics", train_loss=0.5),
        "a metric outside the contract",
    ),
    ("metrics", "a forged validation score", tricks.metrics("initial_metrics", val_loss=0.007), "val_loss is not what"),
    ("metrics", "a list of metrics", tricks.meta(metrics=[("train_loss", SUBJECT)]), "metrics come as list"),
    ("metrics", "a dict with attributes", tricks.meta(metrics=tricks.Marked()), "metrics come as Marked"),
    ("metrics", "a name of a megabyte", tricks.metrics(**{"x" * 10**6: 1.0}), "a metric outside the contract"),
    (
        "metrics",
        "a thousand names",
        tricks.metrics(**{f"{SUBJECT}.{index}": 1.0 for index in range(1000)}),
        "a metric outside the contract",
    ),
    # --- tensors
    (
        "tensors",
        "a tensor more",
        tricks.tensors(lambda data, _: data.update(pixels=PIXELS)),
        "a tensor outside the contract: 'pixels'",
    ),
    ("tensors", "a tensor less", tricks.tensors(tricks.one_less), "is missing"),
    ("tensors", "pixels under a global name", tricks.tensor(tricks.pixels_like), "not this site's current global"),
    ("tensors", "one bit changed", tricks.tensor(tricks.one_bit), "is not this site's current global adapter"),
    ("tensors", "noise added", tricks.tensor(lambda v: v + np.float32(1e-4)), "not this site's current global"),
    ("tensors", "zeros", tricks.tensor(np.zeros_like), "is not this site's current global adapter"),
    ("tensors", "sign changed", tricks.tensor(np.negative), "is not this site's current global adapter"),
    ("tensors", "bits in a number that is not one", tricks.tensor(tricks.nan_bits), "holds a value that is not finite"),
    ("tensors", "infinity", tricks.tensor(lambda v: np.full_like(v, np.inf)), "holds a value that is not finite"),
    ("tensors", "more bits: float64", tricks.tensor(lambda v: v.astype(np.float64)), "has dtype float64"),
    ("tensors", "more bits: complex", tricks.tensor(lambda v: v.astype(np.complex64)), "has dtype complex64"),
    ("tensors", "other byte order", tricks.tensor(lambda v: v.astype(">f4")), "has dtype >f4"),
    ("tensors", "bits as integers", tricks.tensor(lambda v: v.view(np.int32)), "has dtype int32"),
    ("tensors", "half precision", tricks.tensor(lambda v: v.astype(np.float16)), "has dtype float16"),
    ("tensors", "Python objects", tricks.tensor(tricks.objects), "has dtype object"),
    ("tensors", "a hidden field", tricks.tensor(tricks.structured), "has dtype [("),
    ("tensors", "text", tricks.tensor(lambda v: np.full(v.shape, SUBJECT)), "has dtype <U10"),
    ("tensors", "a subclass with attributes", tricks.tensor(tricks.matrix), "is a Noted, expected a plain numpy array"),
    ("tensors", "a masked array", tricks.tensor(np.ma.masked_array), "is a MaskedArray"),
    ("tensors", "a torch tensor", tricks.tensor(tricks.as_torch), "is a Tensor, expected a plain numpy array"),
    ("tensors", "a pickle", tricks.tensor(lambda _: pickle.dumps({"note": SUBJECT})), "bytes, expected"),
    ("tensors", "memory without a type", tricks.tensor(lambda v: v.view("V4")), "has dtype |V4"),
    ("tensors", "a byte beside raw bytes", tricks.tensor(lambda v: v.tobytes() + b"7"), "bytes, expected"),
    (
        "tensors",
        "pixels as raw bytes",
        tricks.tensor(lambda v: np.resize(PIXELS, v.shape).tobytes()),
        "not this site's current",
    ),
    ("tensors", "raw bytes that change", tricks.tensor(lambda v: bytearray(v.tobytes())), "is a bytearray"),
    ("tensors", "a list", tricks.tensor(lambda v: v.tolist()), "is a list"),
    ("tensors", "another shape", tricks.tensor(lambda v: v.T), "has shape"),
    ("tensors", "an extra dimension", tricks.tensor(lambda v: v[None]), "has shape"),
    ("tensors", "a longer one", tricks.tensor(lambda v: np.concatenate([v, v])), "has shape"),
    ("tensors", "a name with attributes", tricks.tensors(tricks.renamed), "a tensor name is not text"),
    ("tensors", "a number as name", tricks.tensors(lambda d, n: d.__setitem__(7, d.pop(n))), "name is not text"),
    ("tensors", "a name of a megabyte", tricks.tensors(lambda d, _: d.update({"x" * 10**6: PIXELS})), "outside the"),
    (
        "tensors",
        "a file's name as a tensor's",
        tricks.tensors(lambda d, _: d.update({f"/data/{SUBJECT}/ed.nii.gz": PIXELS})),
        "a tensor outside the contract: '/data",
    ),
    ("tensors", "a dict with attributes", tricks.tensors(lambda d, _: tricks.Marked(d)), "tensors come as Marked"),
    ("tensors", "a list of tensors", tricks.tensors(lambda d, _: list(d.values())), "not a data exchange object"),
    ("tensors", "nothing", tricks.tensors(lambda _d, _n: {}), "is missing"),
    # --- rounds and weights
    ("rounds", "an older round", tricks.meta(current_round=0), "not that of this site's last training"),
    ("rounds", "a later round", tricks.meta(current_round=2), "not that of this site's last training"),
    ("rounds", "a round after the last", tricks.meta(current_round=3), "not an integer between 0 and 2"),
    ("rounds", "a round as text", tricks.meta(current_round=SUBJECT), "not an integer between 0 and 2"),
    ("rounds", "a truth value as round", tricks.meta(current_round=True), "not an integer between 0 and 2"),
    ("weights", "a larger weight", tricks.meta(NUM_STEPS_CURRENT_ROUND=700.0), "not that of this site's last training"),
    ("weights", "a weight with a message", tricks.meta(NUM_STEPS_CURRENT_ROUND=6.0070007), "not that of this site's"),
    ("weights", "a negative weight", tricks.meta(NUM_STEPS_CURRENT_ROUND=-6.0), "the weight is not a number above 0"),
    ("weights", "no number", tricks.meta(NUM_STEPS_CURRENT_ROUND=float("nan")), "the weight is not a number above 0"),
    ("weights", "text", tricks.meta(NUM_STEPS_CURRENT_ROUND=SUBJECT), "the weight is not a number above 0"),
    # --- kinds of payloads
    ("kinds", "differences", tricks.changed(kind=DataKind.WEIGHT_DIFF), "is not of kind WEIGHTS"),
    ("kinds", "whatever the app defines", tricks.changed(kind=DataKind.APP_DEFINED), "is not of kind WEIGHTS"),
    ("kinds", "statistics", tricks.changed(kind=DataKind.STATISTICS), "is not of kind WEIGHTS"),
    ("kinds", "a kind that is text", tricks.changed(kind=SUBJECT), "is not of kind WEIGHTS"),
    ("kinds", "a collection", tricks.collection, "is not of kind WEIGHTS"),
    ("kinds", "scores instead of tensors", lambda _: metrics_reply({}), "is not of kind WEIGHTS"),
    ("kinds", "no DXO", lambda _: _with(Shareable(), {"pixels": PIXELS}), "not a data exchange object"),
    ("kinds", "an empty reply", lambda _: Shareable(), "not a data exchange object"),
    ("kinds", "another content type", tricks.headers(__content_type__=SUBJECT), "not a data exchange object"),
    ("kinds", "a class of one's own", tricks.as_subclass, "the payload is a Subclass"),
    ("headers", "headers with attributes", tricks.as_headers(tricks.Marked()), "the headers come as Marked"),
]


def _with(shareable: Shareable, entries: dict[Any, Any]) -> Shareable:
    shareable.update(entries)
    return shareable


def test_the_table_is_long_enough():
    assert len(BLOCKED) >= 60
    assert len({(channel, trick) for channel, trick, *_ in BLOCKED}) == len(BLOCKED)


@pytest.mark.parametrize("row", BLOCKED, ids=[f"{row[0]}: {row[1]}" for row in BLOCKED])
def test_a_train_reply_is_blocked(row: tuple[str, str, Trick, str], process, trained, site_files):
    _channel, _trick, make, refusal = row
    site = process()
    leaving = site.answer("train", make(trained[1]))
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert_nothing_left(leaving)
    line = site.ledger(site_files[1])[-1]
    assert line["verdict"] == "blocked" and refusal in line["reason"], line["reason"]
    assert verify(site_files[1]).problems == ()


CLEANED: list[tuple[str, str, Trick]] = [
    ("headers", "text in a header", tricks.headers(subject=SUBJECT)),
    ("headers", "pixels in a header", tricks.headers(pixels=PIXELS.tobytes())),
    ("headers", "a cookie of the learner's own", tricks.headers(__cookie_jar__={"note": SUBJECT})),
    ("headers", "properties of a peer", tricks.headers(__peer_props__={"note": SUBJECT})),
    ("headers", "a topic", tricks.headers(__topic__=SUBJECT)),
    ("headers", "FLARE's own task name", tricks.headers(__task_name__=SUBJECT, __task_id__=SUBJECT)),
    ("headers", "an audit event", tricks.headers(__audit_event_id__=SUBJECT)),
    ("tensors", "pixels in the memory behind a view", tricks.tensor(tricks.window)),
    ("tensors", "text in the dtype's metadata", tricks.tensor(tricks.annotated)),
    ("tensors", "another memory order", tricks.tensor(np.asfortranarray)),
]


@pytest.mark.parametrize("row", CLEANED, ids=[f"{row[0]}: {row[1]}" for row in CLEANED])
def test_a_train_reply_leaves_without_what_was_hidden(row: tuple[str, str, Trick], process, trained, contract):
    leaving = process().answer("train", row[2](trained[1]))
    assert leaving.result.get_return_code() == ReturnCode.OK
    assert_nothing_left(leaving)
    arrived = read_train_reply(contract, fobs.loads(leaving.data))
    for name, value in trained[1].tensors.items():
        np.testing.assert_array_equal(arrived.tensors[name], value)


FAILURES: list[tuple[str, str, Trick, str]] = [
    ("errors", "text beside the code", tricks.failure(note=SUBJECT), ReturnCode.EXECUTION_EXCEPTION),
    ("errors", "a DXO beside the code", tricks.failure(DXO={"data": PIXELS}), ReturnCode.EXECUTION_EXCEPTION),
    ("errors", "an exception's text", tricks.failure_with_headers(__error__=SUBJECT), ReturnCode.EXECUTION_EXCEPTION),
    ("errors", "a path in a header", tricks.failure_with_headers(file=SUBJECT), ReturnCode.EXECUTION_EXCEPTION),
    ("errors", "text as code", tricks.failure(SUBJECT), ReturnCode.ERROR),
    ("errors", "bytes as code", tricks.failure(PIXELS.tobytes()), ReturnCode.ERROR),
    ("errors", "a list as code", tricks.failure([SUBJECT]), ReturnCode.ERROR),
]


@pytest.mark.parametrize("row", FAILURES, ids=[f"{row[0]}: {row[1]}" for row in FAILURES])
@pytest.mark.parametrize("task", ["train", "validate", "submit_model", "anything"])
def test_an_error_leaves_as_its_code_alone(task: str, row: tuple[str, str, Trick, str], process, trained):
    _channel, _trick, make, code = row
    leaving = process().answer(task, make(trained[1]))
    assert leaving.result.get_return_code() == code
    assert_nothing_left(leaving)
    assert set(leaving.result) == {"__headers__"}


def trained_tensors(reply) -> Shareable:
    return DXO(DataKind.WEIGHTS, data=dict(reply.tensors)).to_shareable()


TASKS: list[tuple[str, str, Trick, str]] = [
    ("submit_model", "the global adapter", trained_tensors, "may not be answered with data"),
    ("submit_model", "an honest train reply", lambda r: r.to_shareable(), "may not be answered with data"),
    ("patient_list", "an unknown task", lambda r: r.to_shareable(), "may not be answered with data"),
    ("train/validate", "a task that looks like two", lambda r: r.to_shareable(), "may not be answered with data"),
    ("validate", "tensors", lambda r: r.to_shareable(), "is not of kind METRICS"),
    ("validate", "an unknown score", lambda _: metrics_reply({SUBJECT: 1.0}), "a metric outside the contract"),
    ("validate", "a score never computed", lambda _: metrics_reply({"both.auroc": 0.7007}), "both.auroc is not what"),
    ("validate", "a training metric", lambda _: metrics_reply({"train_loss": 0.5}), "a metric outside the contract"),
    (
        "validate",
        "predictions beside the scores",
        lambda _: DXO(DataKind.METRICS, data={"initial_metrics": {}, "predictions": PIXELS}).to_shareable(),
        "data entry outside the contract: 'predictions'",
    ),
    (
        "validate",
        "a note in the meta",
        lambda _: DXO(DataKind.METRICS, data={"initial_metrics": {}}, meta={"note": SUBJECT}).to_shareable(),
        "meta entry outside the contract: 'note'",
    ),
]


@pytest.mark.parametrize("row", TASKS, ids=[f"{row[0]}: {row[1]}" for row in TASKS])
def test_other_tasks_give_nothing_else(row: tuple[str, str, Trick, str], process, trained, site_files):
    task, _trick, make, refusal = row
    site = process()
    leaving = site.answer(task, make(trained[1]))
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert_nothing_left(leaving)
    assert refusal in site.ledger(site_files[1])[-1]["reason"]


@pytest.mark.parametrize("payload", [{"pixels": PIXELS}, SUBJECT, None, PIXELS.tobytes()])
def test_what_is_no_shareable_never_reaches_the_wire(payload: Any, process):
    leaving = process().answer("train", payload)
    assert leaving.result.get_return_code() == ReturnCode.EXECUTION_RESULT_ERROR
    assert_nothing_left(leaving)


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, KeyError])
def test_the_text_of_an_exception_does_not_leave(kind: type, process):
    def fails(_fl_ctx: Any) -> None:
        raise kind(f"{SUBJECT} is unreadable")

    leaving = process().answer("train", fails)
    assert leaving.result.get_return_code() in (ReturnCode.EXECUTION_EXCEPTION, ReturnCode.EXECUTION_RESULT_ERROR)
    assert_nothing_left(leaving)


@pytest.mark.parametrize("which", [0, -1])
def test_a_local_tensor_under_a_global_name_is_blocked(which: int, process, trained, site_files):
    runtime, reply = trained
    stays = list(runtime.kept_state().values())
    name, value = next((n, k) for n, v in reply.tensors.items() for k in stays[:: which or 1] if k.shape == v.shape)
    leaving = process().answer("train", tricks.tensors(lambda data, _: data.update({name: value}))(reply))
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert "current global adapter" in process().ledger(site_files[1])[-1]["reason"]


def test_a_global_adapter_that_became_the_local_one_is_blocked(process, trained, site_files, monkeypatch):
    """Code that copies the local adapter into the global parameters would pass a comparison with the model alone."""
    runtime, reply = trained
    state = dict(reply.tensors)
    name, value = next(
        (n, k) for n, v in state.items() for k in runtime.kept_state().values() if k.shape == v.shape and k.any()
    )
    monkeypatch.setattr(runtime, "offered", Offer.of_round(1, reply.weight, {**state, name: value}, reply.metrics))
    leaving = process().answer("train", tricks.tensors(lambda data, _: data.update({name: value}))(reply))
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert "equals a tensor that stays at the site" in process().ledger(site_files[1])[-1]["reason"]


def assert_nothing_left(leaving) -> None:
    for secret in SECRETS:
        assert secret not in leaving.data and secret not in leaving.context
