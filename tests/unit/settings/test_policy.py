"""The site's privacy floor: the job cannot ask for more, and what is too small or not agreed does not leave."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from med_duallora.boundary.contract import EgressContract, demands_of, job_sha256
from med_duallora.cohorts.prepared import SPLITS, PreparedCohort
from med_duallora.errors import ConfigError, UnfitError
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.docstrings import described
from med_duallora.settings.job_limits import ANY, JOB_LIMITS, TEXT, are_limits, numbers_of
from med_duallora.settings.policy import HEAD_PARTS, SitePolicy
from med_duallora.site.runtime import SiteRuntime
from med_duallora.site_kit.wanted import site_config_template
from med_duallora.support.files import sha256_of_file
from tests.unit.refused import refused

A, B = "a" * 64, "b" * 64
WHOLE = dataclasses.asdict(SitePolicy())


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("min_subjects", -1, "between 0 and 1000000"),
        ("min_train_subjects", 0, "between 1 and 1000000"),
        ("min_subjects", True, "a whole number"),
        ("metric_decimals", 7, "between 0 and 6"),
        ("metric_decimals", -1, "between 0 and 6"),
        ("max_rank", 0, "between 1 and 4096"),
        ("max_rank", 4097, "between 1 and 4096"),
        ("max_blocks", 0, "between 1 and 64"),
        ("backbone_sha256", "abc", "empty, or 64 lower-case hexadecimal digits"),
        ("backbone_sha256", "A" * 64, "empty, or 64 lower-case hexadecimal digits"),
        ("contract_sha256", (A, "x"), "a list of hashes, each of 64 lower-case hexadecimal digits"),
        ("job_sha256", (B, ""), "a list of hashes, each of 64 lower-case hexadecimal digits"),
        ("job_limits", ("train.lr < 1",), TEXT),
        ("job_limits", ("2 <= train.lr <= 1",), TEXT),
        ("job_limits", ("0 <= train.lr <= 1e999",), TEXT),
        ("job_limits", ("0 <= train.lr <= 1", "0 <= train.lr <= 2"), TEXT),
        ("metrics_leave", "no", "true or false"),
        ("metrics_leave", 0, "true or false"),
        ("everything", True, ""),
    ],
)
def test_a_bad_policy_names_its_key(name: str, value: Any, limit: str):
    paths = {"data_dir": "d", "state_dir": "s", "cache_dir": "c"}
    with refused(f"policy.{name}", value, limit):
        SiteConfig.from_dict({**paths, "policy": {name: value}})


def test_a_site_configuration_file_carries_its_policy(tmp_path):
    path = tmp_path / "site.json"
    paths = {"data_dir": "d", "state_dir": "s", "cache_dir": "c"}
    path.write_text(json.dumps({**paths, "policy": {**WHOLE, "contract_sha256": [A]}}))
    assert SiteConfig.from_file(path).policy == SitePolicy(contract_sha256=(A,))
    path.write_text(json.dumps({**paths, "policy": {**WHOLE, "max_rank": 0}}))
    with pytest.raises(ConfigError, match=r"site\.json in .*: policy\.max_rank = 0, but it must be between 1 and 4096"):
        SiteConfig.from_file(path)


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_leaves_a_key_out_is_refused(name: str, tmp_path: Path):
    """What nobody wrote down, nobody decided; before, the widest value counted."""
    path = tmp_path / "site.json"
    paths = {"data_dir": "d", "state_dir": "s", "cache_dir": "c"}
    path.write_text(json.dumps({**paths, "policy": {key: value for key, value in WHOLE.items() if key != name}}))
    with refused(f"policy.{name}") as caught:
        SiteConfig.from_file(path)
    said = str(caught.value)
    assert f"'policy.{name}' is missing; policy.{name}: {described(SitePolicy)[name]}" in said
    assert "`med-duallora site-kit --startup-kit KIT` writes what is missing with its strict value" in said


@pytest.mark.parametrize("policy", [{}, {"policy": {}}])
def test_a_file_without_a_policy_is_told_of_every_key(policy: dict, tmp_path: Path):
    path = tmp_path / "site.json"
    path.write_text(json.dumps({"data_dir": "d", "state_dir": "s", "cache_dir": "c", **policy}))
    with pytest.raises(ConfigError) as caught:
        SiteConfig.from_file(path)
    assert all(f"policy.{name}" in str(caught.value) for name in WHOLE)


def test_what_nobody_decided_is_strict_and_one_machine_is_free():
    kit = SiteConfig.from_dict(site_config_template(Path("kit"))).policy
    assert replace(kit, job_limits=()) == SitePolicy(), "ranges that are not written are those of the kit"
    assert kit.job_limits == JOB_LIMITS
    free = SitePolicy.for_one_machine()
    assert free.allowed_metrics({"both.auroc": 0.123456}, {"test": (0, 1)}) == {"both.auroc": 0.123456}
    assert free.short_of((1, 1)) == ""


@pytest.mark.parametrize(
    ("train", "key"),
    [((5, 5), ""), ((99, 5), ""), ((4, 99), "min_subjects"), ((99, 4), "min_subjects"), ((0, 0), "min_subjects")],
)
def test_an_adapter_leaves_from_enough_subjects_of_each_class(train: tuple[int, int], key: str):
    assert SitePolicy().short_of(train) == key
    assert SitePolicy(min_subjects=1).short_of((5, 4)) == "min_train_subjects"


MODEST: dict[str, Any] = {
    "rank": 8,
    "n_blocks": 2,
    "head": "none",
    "contract_sha256": A,
    "job_sha256": A,
    "numbers": numbers_of(JobConfig().to_dict()),
}
STRICT = SitePolicy(
    metrics_leave=True,
    min_subjects=5,
    metric_decimals=3,
    head_leaves="none",
    max_rank=8,
    max_blocks=2,
    contract_sha256=(A,),
    job_sha256=(A,),
)


def test_a_modest_job_is_taken():
    STRICT.check_job(**MODEST)
    most = {"rank": 256, "n_blocks": 64, "head": "all", "contract_sha256": B, "job_sha256": B}
    SitePolicy.for_one_machine().check_job(**{**MODEST, **most})
    with pytest.raises(ConfigError):
        SitePolicy().check_job(**{**MODEST, **most})


@pytest.mark.parametrize(
    ("asks", "key", "limit"),
    [
        ({"rank": 9}, "policy.max_rank", "at least 9"),
        ({"n_blocks": 3}, "policy.max_blocks", "at least 3"),
        ({"head": "shared"}, "policy.head_leaves", "'shared'"),
        ({"head": "all"}, "policy.head_leaves", "'all'"),
        ({"contract_sha256": B}, "policy.contract_sha256", f"empty, or hold {B}"),
        ({"job_sha256": B}, "policy.job_sha256", f"empty, or hold {B}"),
        ({"numbers": {**MODEST["numbers"], "train.n_rounds": (201,)}}, "policy.job_limits", "wider"),
        ({"numbers": {**MODEST["numbers"], "train.betas": (0.9, 0.99999)}}, "policy.job_limits", "wider"),
        ({"numbers": {}}, "policy.job_limits", "wider"),
    ],
)
def test_a_job_that_asks_for_more_is_refused_by_key(asks: dict[str, Any], key: str, limit: str):
    with refused(key, getattr(STRICT, key.removeprefix("policy.")), limit) as caught:
        STRICT.check_job(**{**MODEST, **asks})
    assert "Change the job, or" in str(caught.value)


@pytest.mark.parametrize(
    ("allowed", "taken"), [("none", {"none"}), ("shared", {"none", "shared"}), ("all", set(HEAD_PARTS))]
)
def test_how_much_of_the_head_leaves_is_one_setting(allowed: str, taken: set[str]):
    policy = replace(STRICT, head_leaves=allowed)
    for head in HEAD_PARTS:
        if head in taken:
            policy.check_job(**{**MODEST, "head": head})
            continue
        with refused("policy.head_leaves", allowed, repr(head)) as caught:
            policy.check_job(**{**MODEST, "head": head})
        assert "lora.head_policy" in str(caught.value), "and what of the job to change"


def test_the_default_job_is_one_that_the_strict_policy_takes():
    """No setting of the default may need a policy that the kit does not give."""
    job = JobConfig()
    demands = demands_of(job, EgressContract.for_job(job))
    assert demands["head"] == "shared"
    SitePolicy().check_job(**demands)
    SiteConfig.from_dict(site_config_template(Path("kit"))).policy.check_job(**demands)


@pytest.mark.parametrize(("value", "now"), [(False, "none"), (True, "all")])
def test_a_policy_of_an_earlier_version_is_refused_in_one_sentence(value: bool, now: str, tmp_path: Path):
    path = tmp_path / "site.json"
    paths = {"data_dir": "d", "state_dir": "s", "cache_dir": "c"}
    path.write_text(json.dumps({**paths, "policy": {**WHOLE, "head_leaves": value}}))
    with refused("policy.head_leaves", value, "one of none, shared, all") as caught:
        SiteConfig.from_file(path)
    assert "run `med-duallora site-kit --startup-kit KIT` again" in str(caught.value)
    assert f"writes {now!r} in its place" in str(caught.value)


def test_every_number_of_a_job_has_a_range_unless_a_site_says_otherwise():
    ranged = {text.split(" <= ")[1] for text in JOB_LIMITS}
    assert ranged == set(MODEST["numbers"])
    assert are_limits(JOB_LIMITS)
    long = {**MODEST, "numbers": {**MODEST["numbers"], "train.n_rounds": (201,)}}
    with refused("policy.job_limits"):
        SitePolicy().check_job(**long)
    with refused("policy.job_limits"):
        SitePolicy(job_limits=("1 <= train.lr <= 1",)).check_job(**long)
    SitePolicy(job_limits=("1 <= train.n_rounds <= 201",)).check_job(**long)
    SitePolicy(job_limits=(ANY,)).check_job(**long)


def test_a_refused_number_is_told_with_its_range():
    policy = SitePolicy(job_limits=("1 <= train.local_epochs <= 3",))
    policy.check_job(**MODEST)
    with pytest.raises(ConfigError, match=r"is '1 <= train.local_epochs <= 3', but the job has 11"):
        policy.check_job(**{**MODEST, "numbers": {**MODEST["numbers"], "train.local_epochs": (11,)}})


@pytest.mark.parametrize("setting", ["train.local_epochs=3", "train.lr=0.004", "train.seed=1", "augment.scale=0.2"])
def test_what_does_not_change_the_contract_changes_the_hash_of_the_job(setting: str):
    job, other = JobConfig(), JobConfig().with_overrides([setting])
    assert EgressContract.for_job(job).sha256 == EgressContract.for_job(other).sha256
    assert job_sha256(job) != job_sha256(other)


def test_another_backbone_is_refused():
    SitePolicy().check_backbone(B)
    SitePolicy(backbone_sha256=A).check_backbone(A)
    with refused("policy.backbone_sha256", A, f"empty, or {B}"):
        SitePolicy(backbone_sha256=A).check_backbone(B)


FOUND = {
    "train_loss": 0.123456,
    "val_loss": 0.65,
    "val_balanced_accuracy": 0.7777,
    "both.auroc": 0.98765,
    "n_positive": 3.0,
    "n_test_subjects": 5.0,
    "n_subjects": 14.0,
    "seconds": 1.23456,
}


@pytest.mark.parametrize(
    ("policy", "n", "names", "reason"),
    [
        (SitePolicy(min_subjects=1), dict.fromkeys(SPLITS, (1, 1)), set(FOUND), "one of each class"),
        (SitePolicy(min_subjects=0), {}, set(FOUND), "no floor"),
        (SitePolicy(metrics_leave=False), dict.fromkeys(SPLITS, (99, 99)), set(), "no metric leaves"),
        (
            SitePolicy(min_subjects=5),
            {"train": (7, 7), "val": (9, 4), "test": (5, 5)},
            set(FOUND) - {"val_loss", "val_balanced_accuracy"},
            "too few diseased in val",
        ),
        (
            SitePolicy(min_subjects=5),
            {"train": (7, 7), "val": (5, 5), "test": (4, 9)},
            set(FOUND) - {"both.auroc", "n_positive", "n_test_subjects"},
            "too few normal in test",
        ),
        (
            SitePolicy(min_subjects=5),
            {"train": (0, 9), "val": (5, 5), "test": (5, 5)},
            set(FOUND) - {"train_loss"},
            "none normal in train",
        ),
        (SitePolicy(min_subjects=2), {}, {"n_subjects", "seconds"}, "unknown splits count as empty"),
    ],
)
def test_the_floor_keeps_scores_of_too_few_subjects(policy: SitePolicy, n: dict, names: set, reason: str):
    assert set(policy.allowed_metrics(FOUND, n)) == names, reason


def test_scores_are_rounded_and_counts_are_not():
    n = dict.fromkeys(SPLITS, (9, 9))
    found = SitePolicy(metric_decimals=2).allowed_metrics({**FOUND, "n_subjects": 14.25}, n)
    assert found["both.auroc"] == 0.99 and found["train_loss"] == 0.12 and found["seconds"] == 1.23
    assert found["n_subjects"] == 14.25
    assert SitePolicy(metric_decimals=2).allowed_metrics(found, n) == found


def strict(config: SiteConfig, **changes: Any) -> SiteConfig:
    return replace(config, policy=replace(config.policy, **changes))


def test_a_site_refuses_before_it_reads_anything(tiny_job: JobConfig, tiny_sites, tmp_path, monkeypatch):
    config = replace(strict(tiny_sites["ge"], contract_sha256=(A,)), data_dir=tmp_path / "not there")
    with pytest.raises(UnfitError, match=r"policy\.contract_sha256"):
        SiteRuntime("ge", tiny_job, config)
    monkeypatch.setattr(PreparedCohort, "read", lambda _: pytest.fail("the cohort was read"))
    with pytest.raises(UnfitError, match=r"policy\.contract_sha256"):
        SiteRuntime("ge", tiny_job, replace(config, data_dir=tiny_sites["ge"].data_dir))


def test_a_site_trains_with_the_pinned_backbone_and_contract_only(tiny_job: JobConfig, tiny_sites, tiny_checkpoint):
    pinned = {
        "backbone_sha256": sha256_of_file(tiny_checkpoint),
        "contract_sha256": (EgressContract.for_job(tiny_job).sha256,),
    }
    assert (
        SiteRuntime("ge", tiny_job, strict(tiny_sites["ge"], **pinned)).model.backbone_sha256
        == pinned["backbone_sha256"]
    )
    with pytest.raises(UnfitError, match=r"policy\.backbone_sha256"):
        SiteRuntime("ge", tiny_job, strict(tiny_sites["ge"], backbone_sha256=A))
    longer = tiny_job.with_overrides(["train.n_rounds=3"])
    with pytest.raises(UnfitError, match=r"policy\.contract_sha256"):
        SiteRuntime("ge", longer, strict(tiny_sites["ge"], **pinned))


@pytest.mark.parametrize(
    ("settings", "head", "rank"),
    [
        ([], "shared", 8),
        (["lora.head_policy=local"], "none", 8),
        (["lora.head_policy=global"], "all", 8),
        (["method=fedavg-lora", "lora.rank_global=4"], "all", 4),
        (["method=fedsa-lora"], "none", 8),
        pytest.param(["method=fedavg-full"], "all", 24, id="whole weights are of the tokens' width, whatever the rank"),
    ],
)
def test_what_a_job_asks_for(tiny_job: JobConfig, settings: list, head: str, rank: int):
    job = tiny_job.with_overrides(settings)
    asked = demands_of(job, EgressContract.for_job(job))
    assert (asked["head"], asked["rank"], asked["n_blocks"]) == (head, rank, job.lora.n_blocks)
    assert demands_of(job, EgressContract.for_job(job), trains=False)["head"] == "none", "who evaluates sends none"


def test_what_a_site_reports_obeys_its_policy(tiny_job: JobConfig, tiny_sites):
    from med_duallora.adapter.model import initial_global_state

    runtime = SiteRuntime("ge", tiny_job, strict(tiny_sites["ge"], min_subjects=3, metric_decimals=1))
    state = initial_global_state(tiny_job)
    assert runtime.validate(state, 0) == {}, "the tiny cohort validates on two subjects"
    update = runtime.train_round(state, 0)
    assert update.metrics["train_loss"] == round(update.metrics["train_loss"], 1)
    assert runtime.evaluate(update.tensors) == {}, "and it is tested on two"
