"""Every way of a run, on two tiny sites."""

import math
import stat

import pytest

from med_duallora.adapter.methods import METHODS
from med_duallora.study.arms import arms
from med_duallora.study.running import run_one
from med_duallora.study.ways import BOTH, shot_name
from med_duallora.support.files import read_object

N_TEST = 4
ARMS = sorted({"med-duallora", "local-lora"} | (arms().keys() - METHODS.keys()))
"""Of the federated methods one is as good as another one here: what each of them does is tested with the engine."""


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_says_something_of_every_test_subject(done, name):
    record = read_object(done(name))
    assert set(record["sites"]) == {"ge", "canon"}
    for site in record["sites"].values():
        assert len(site["subjects"]) == len(set(site["subjects"])) == len(site["labels"]) == N_TEST
        assert site["n_train"] == 6
        assert sorted(site["labels"]) == [0, 0, 1, 1]
        assert (BOTH in site["chances"]) == (name != "new-site")
        assert all(0 <= chance <= 1 for said in site["chances"].values() for chance in said)
        assert all(len(said) == N_TEST for said in site["chances"].values())
    assert record["not_for_diagnosis"] is True
    assert record["synthetic"] is True
    assert record["code"]["version"]
    assert stat.S_IMODE(done(name).stat().st_mode) == 0o600


def test_a_seed_repeats_bit_for_bit_also_with_an_empty_cache(spec_of, done, tmp_path):
    first = read_object(done("med-duallora"))
    again = read_object(run_one(spec_of("med-duallora", out=tmp_path)))
    assert again["sites"] == first["sites"]
    assert again["key"] == first["key"]
    assert read_object(run_one(spec_of("med-duallora", seed=1)))["sites"] != first["sites"]


def test_the_frozen_backbone_of_a_method_is_the_arm_own_head(done):
    ours, own = (read_object(done(name))["sites"] for name in ("med-duallora", "own-head"))
    for site in ours:
        assert ours[site]["subjects"] == own[site]["subjects"]
        assert ours[site]["chances"]["backbone"] == own[site]["chances"][BOTH]


def test_a_new_site_has_a_model_before_and_after_its_first_labels(done):
    for site in read_object(done("new-site"))["sites"].values():
        assert set(site["chances"]) == {shot_name(0), shot_name(4), shot_name(4, frozen=True)}, "8 need four a class"


def test_adapters_are_measured(done):
    for site in read_object(done("med-duallora"))["sites"].values():
        found = site["attribution"]
        assert found["norm_global"] > 0
        assert found["norm_local"] > 0
        assert 0 < found["angle"] <= 90 and math.isfinite(found["angle"])


def test_the_ceiling_is_what_the_true_values_tell(done):
    """They tell the label of these subjects outright, which no image of theirs does."""
    for site in read_object(done("latent-ceiling"))["sites"].values():
        assert [chance > 0.5 for chance in site["chances"][BOTH]] == [label == 1 for label in site["labels"]]


def test_only_what_is_sent_is_counted(done):
    assert read_object(done("local-lora"))["tensor_bytes"] == 0
    assert read_object(done("med-duallora"))["tensor_bytes"] > 0
