import json
import math
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import ConfigError, EgressViolation
from med_duallora.measures import MEASURES
from med_duallora.settings.config import JobConfig
from tests.unit.tiny import random_payload, same

TINY_JOB = JobConfig(backbone="cinema-tiny")
CONTRACT = EgressContract.for_job(TINY_JOB)
NAME = "classifier.encoder.blocks.1.attn.q.global_a"
SECRET = 1234.5678


def job_with(*assignments: str) -> JobConfig:
    return TINY_JOB.with_overrides(assignments)


class Sneaky(np.ndarray):
    """An array that can carry anything beside its numbers."""


class Text(str):
    """Text that can carry anything beside its letters."""


# ---- what the contract is


@pytest.mark.parametrize(
    ("job", "n_parameters", "reason"),
    [
        (
            JobConfig(backbone="cinema-base").with_overrides(["lora.head_policy=local"]),
            61440,
            "2 blocks x (8 x 768 + 768 x 8 + 8 x 768 + 1536 x 8)",
        ),
        (
            JobConfig(backbone="cinema-base").with_overrides(["lora.head_policy=global"]),
            61440 + 2 * (768 * 2 + 2),
            "both heads are sent as well",
        ),
        (
            JobConfig(backbone="cinema-base"),
            61440 + 2 * (768 + 2),
            "the default: both heads have one contrast of two classes as well",
        ),
        (
            JobConfig(backbone="cinema-base").with_overrides(
                ['lora.targets=["q","kv","proj","fc1","fc2"]', "lora.head_policy=local"]
            ),
            2 * 8 * (768 * 2 + (768 + 1536) + 768 * 2 + 2 * (768 + 3072)),
            "every target: 816 KiB in the notes' arithmetic",
        ),
        (JobConfig(backbone="cinema-tiny"), 2 * 8 * (24 + 24 + 24 + 48) + 2 * (24 + 2), "the tiny backbone"),
        (
            JobConfig(backbone="cinema-tiny", method="fedavg-lora"),
            2 * 8 * (24 + 24 + 24 + 48) + 2 * (24 * 2 + 2),
            "FedIT sends its head",
        ),
        (
            JobConfig(method="fedavg-full"),
            2 * (12 * 192**2 + (1 + 2 + 1 + 4 + 1) * 192 + 2 * 2 * 192) + 2 * (192 * 2 + 2),
            "two blocks with weights, biases and norms, and the head",
        ),
    ],
)
def test_number_of_parameters_is_known_before_anything_is_trained(job, n_parameters, reason):
    contract = EgressContract.for_job(job)
    assert contract.n_parameters == n_parameters, reason
    assert contract.tensor_bytes == 4 * n_parameters


def test_exactly_these_tensors_leave():
    contract = EgressContract.for_job(job_with("lora.n_blocks=1", "lora.rank_global=2", "lora.head_policy=local"))
    block = "classifier.encoder.blocks.2.attn"
    assert contract.to_dict()["tensors"] == {
        f"{block}.q.global_a": {"shape": [2, 24], "dtype": "float32"},
        f"{block}.q.global_b": {"shape": [24, 2], "dtype": "float32"},
        f"{block}.kv.global_a": {"shape": [2, 24], "dtype": "float32"},
        f"{block}.kv.global_b": {"shape": [48, 2], "dtype": "float32"},
    }
    assert contract.pairs == (
        (f"{block}.q.global_b", f"{block}.q.global_a"),
        (f"{block}.kv.global_b", f"{block}.kv.global_a"),
    )


def test_a_shared_head_leaves_as_a_pair_of_factors_without_its_bias():
    whole, plain = (EgressContract.for_job(job_with(f"lora.head_policy={policy}")) for policy in ("shared", "local"))
    added = {n: v for n, v in whole.to_dict()["tensors"].items() if n not in plain.to_dict()["tensors"]}
    assert added == {
        f"classifier.pred_head_dict.{head}.global_{factor}": {"shape": shape, "dtype": "float32"}
        for head in ("sax", "cls")
        for factor, shape in (("a", [1, 24]), ("b", [2, 1]))
    }


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("lora.rank_global=4", "shapes"),
        ('lora.targets=["q"]', "fewer tensors"),
        ('lora.targets=["q","proj"]', "other tensors"),
        ("lora.n_blocks=1", "fewer blocks"),
        ("lora.head_policy=global", "the head"),
        ("lora.head_policy=local", "without the head's weights"),
        ("backbone=cinema-mini", "another backbone"),
        ("method=fedavg-lora", "another method"),
        ("method=fedavg-full", "whole weights"),
        ("train.n_rounds=13", "more rounds than were agreed"),
    ],
)
def test_hash_changes_with_what_may_leave(assignment, reason):
    assert EgressContract.for_job(job_with(assignment)).sha256 != CONTRACT.sha256, reason


@pytest.mark.parametrize(
    "assignment",
    ["train.lr=0.01", "train.seed=5", "experiment=other", "lora.rank_local=3", "augment.scale=0.2", "train.n_views=1"],
)
def test_hash_does_not_change_with_what_stays(assignment):
    assert EgressContract.for_job(job_with(assignment)).sha256 == CONTRACT.sha256


def test_hash_and_text_are_plain_and_repeat():
    assert CONTRACT.sha256 == EgressContract.for_job(TINY_JOB).sha256
    assert len(CONTRACT.sha256) == 64
    text = json.dumps(CONTRACT.to_dict(), allow_nan=False)
    assert json.loads(text) == CONTRACT.to_dict()


def test_a_contract_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"lora\.n_blocks = 9"):
        EgressContract.for_job(job_with("lora.n_blocks=9"))


# ---- tensors


def test_accepted_tensors_are_fresh_memory():
    whole = np.zeros((4, *CONTRACT.tensors[NAME].shape), np.float32)
    payload = {**random_payload(CONTRACT), NAME: whole[1]}
    found = CONTRACT.check_tensors(payload)
    assert same(found, payload)
    for name, value in found.items():
        assert type(value) is np.ndarray
        assert value.base is None, "a view would drag the rest of its buffer along when it is serialised"
        assert value.flags.owndata
        assert value.flags.c_contiguous
        assert not np.shares_memory(value, payload[name])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (np.asfortranarray, "column order"),
        (lambda v: np.repeat(v, 2, axis=1)[:, ::2], "strided"),
        (lambda v: v.astype(np.dtype(np.float32, metadata={"note": "hidden"})), "a dtype that carries metadata"),
    ],
)
def test_accepted_tensors_are_rebuilt_plain(change, reason):
    payload = random_payload(CONTRACT)
    changed = change(payload[NAME])
    found = CONTRACT.check_tensors({**payload, NAME: changed})[NAME]
    assert np.array_equal(found, payload[NAME]), reason
    assert found.flags.c_contiguous, reason
    assert found.dtype.metadata is None, reason
    assert found.dtype.isnative, reason


SHAPE = CONTRACT.tensors[NAME].shape
DIAGONAL = np.eye(SHAPE[0], SHAPE[1])


@pytest.mark.parametrize(
    ("change", "message", "reason"),
    [
        (lambda p: {**p, "image": np.zeros(3)}, "outside the contract: 'image'", "an extra tensor"),
        (
            lambda p: {**p, NAME.replace("global", "local"): p[NAME]},
            "outside the contract: .*local_a'",
            "the local adapter",
        ),
        (lambda p: {**p, NAME + " ": p[NAME]}, "outside the contract", "a name that only looks right"),
        (lambda p: {n: v for n, v in p.items() if n != NAME}, f"{NAME} is missing", "a missing tensor"),
        (lambda _: {}, "is missing", "nothing at all"),
        (lambda p: {**p, NAME: None}, f"{NAME} is missing", "None is not a tensor"),
        (lambda p: {**p, 7: np.zeros(1)}, "a tensor name is not text", "a number as a name"),
        (lambda p: {**{n: v for n, v in p.items() if n != NAME}, Text(NAME): p[NAME]}, "not text", "a subclass of str"),
        (lambda p: {**p, NAME: p[NAME].tolist()}, "is a list", "a list"),
        (lambda p: {**p, NAME: p[NAME].tobytes()}, "is a bytes", "bytes"),
        (lambda p: {**p, NAME: p[NAME].view(Sneaky)}, "is a Sneaky", "a subclass of ndarray"),
        (lambda p: {**p, NAME: np.ma.masked_array(p[NAME])}, "is a MaskedArray", "a mask is a second tensor"),
        (lambda p: {**p, NAME: np.float32(SECRET)}, "is a float32", "a numpy scalar"),
        (lambda p: {**p, NAME: p[NAME].astype(object)}, "has dtype object", "objects can be anything"),
        (lambda p: {**p, NAME: p[NAME].astype(np.float64)}, "has dtype float64", "twice the bytes"),
        (lambda p: {**p, NAME: p[NAME].astype(np.float16)}, "has dtype float16", "another type"),
        (lambda p: {**p, NAME: p[NAME].astype(">f4")}, "has dtype >f4", "another byte order"),
        (lambda p: {**p, NAME: p[NAME].astype(complex)}, "has dtype complex128", "an imaginary part"),
        (lambda p: {**p, NAME: p[NAME].view("i4")}, "has dtype int32", "other numbers in the same bytes"),
        (lambda p: {**p, NAME: p[NAME][None]}, "has shape", "an axis more"),
        (lambda p: {**p, NAME: p[NAME].T}, "has shape", "transposed"),
        (lambda p: {**p, NAME: p[NAME][:-1]}, "has shape", "a row less"),
        (lambda p: {**p, NAME: np.full(SHAPE, np.nan, np.float32)}, "not finite", "NaN"),
        (lambda p: {**p, NAME: np.where(DIAGONAL, np.inf, 0).astype("f4")}, "not finite", "infinity"),
        (
            lambda p: {**p, NAME: np.where(np.eye(SHAPE[0], SHAPE[1]), -np.inf, 0).astype("f4")},
            "not finite",
            "minus infinity",
        ),
        (OrderedDict, "come as OrderedDict", "a subclass of dict can carry attributes"),
        (lambda p: list(p.items()), "come as list", "no dict"),
        (lambda _: None, "come as NoneType", "nothing"),
    ],
)
def test_tensors_outside_the_contract_are_refused(change, message, reason):
    payload = random_payload(CONTRACT)
    payload[NAME][0, 0] = SECRET
    with pytest.raises(EgressViolation, match=message) as caught:
        CONTRACT.check_tensors(change(payload))
    assert "1234" not in str(caught.value), f"{reason}: a message must not carry a value out"


# ---- metrics


def test_accepted_metrics_are_fresh_floats():
    given_metrics = {"train_loss": 0.25, "n_subjects": 7, "both.mcc": -1.0, "val_balanced_accuracy": 1}
    found = CONTRACT.check_metrics(given_metrics)
    assert found == given_metrics
    assert found is not given_metrics
    assert {type(value) for value in found.values()} == {float}
    assert CONTRACT.check_metrics({}) == {}, "none is required"


@pytest.mark.parametrize(
    ("metrics", "message", "reason"),
    [
        ({"age": 61.0}, "a metric outside the contract", "unknown"),
        ({"both.mcc ": 0.5}, "a metric outside the contract", "a name that only looks right"),
        ({3: 0.5}, "a metric outside the contract", "a number as a name"),
        ({Text("train_loss"): 0.5}, "a metric outside the contract", "a subclass of str"),
        ({("train_loss",): 0.5}, "a metric outside the contract", "a tuple as a name"),
        ({"train_loss": True}, "train_loss is a bool", "a flag is not a number"),
        ({"train_loss": np.float64(1234.5678)}, "train_loss is a float64", "a numpy scalar is a float by inheritance"),
        ({"train_loss": np.array(0.5)}, "train_loss is a ndarray", "an array"),
        ({"train_loss": "1234.5678"}, "train_loss is a str", "text"),
        ({"train_loss": None}, "train_loss is a NoneType", "nothing"),
        ({"train_loss": [1234.5678]}, "train_loss is a list", "a list of anything"),
        ({"train_loss": math.nan}, r"out of range \[0, 10000\] or not finite", "NaN"),
        ({"train_loss": math.inf}, "out of range", "infinity"),
        ({"train_loss": -1234.5678}, "out of range", "below"),
        ({"val_balanced_accuracy": 1.0000001}, "out of range", "above"),
        ({"both.mcc": -1.1}, r"out of range \[-1, 1\]", "below"),
        ({"n_subjects": 10**400}, "out of range", "an integer can carry any number of digits"),
        (OrderedDict(train_loss=0.5), "come as OrderedDict", "a subclass of dict"),
        ([("train_loss", 0.5)], "come as list", "no dict"),
        (None, "come as NoneType", "nothing"),
    ],
)
def test_metrics_outside_the_contract_are_refused(metrics, message, reason):
    with pytest.raises(EgressViolation, match=message) as caught:
        CONTRACT.check_metrics(metrics)
    assert "1234" not in str(caught.value), f"{reason}: a message must not carry a value out"


@given(st.dictionaries(st.sampled_from([*MEASURES, "other"]), st.floats()))
def test_metrics_pass_whole_or_not_at_all(metrics):
    good = all(
        n in CONTRACT.metrics and CONTRACT.metrics[n][0] <= v <= CONTRACT.metrics[n][1] for n, v in metrics.items()
    )
    if good:
        assert CONTRACT.check_metrics(metrics) == metrics
    else:
        with pytest.raises(EgressViolation):
            CONTRACT.check_metrics(metrics)


def test_every_metric_has_a_finite_range():
    assert {"both.auroc", "backbone.mcc", "global.sensitivity", "local.specificity"} <= set(CONTRACT.metrics)
    for name, (low, high) in CONTRACT.metrics.items():
        assert math.isfinite(low), name
        assert math.isfinite(high), name
        assert low < high, name


# ---- rounds


@pytest.mark.parametrize(("round_index", "reason"), [(0, "the first"), (11, "the last of twelve")])
def test_rounds_of_the_federation_pass(round_index, reason):
    assert CONTRACT.check_round(round_index) == round_index, reason


@pytest.mark.parametrize(
    ("round_index", "reason"),
    [
        (12, "after the last"),
        (10**30, "an integer can carry any number of digits"),
        (-1, "negative"),
        (True, "a flag counts as 1 in arithmetic"),
        (1.0, "a float"),
        (np.int64(1), "a numpy scalar"),
        ("1", "text"),
        (None, "nothing"),
    ],
)
def test_other_rounds_are_refused(round_index, reason):
    with pytest.raises(EgressViolation, match="the round is not an integer between 0 and 11"):
        CONTRACT.check_round(round_index)
