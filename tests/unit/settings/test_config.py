import dataclasses
import json
from pathlib import Path

import pytest

from med_duallora.adapter.methods import METHODS
from med_duallora.backbone.config import PRESETS
from med_duallora.errors import ConfigError
from med_duallora.server.screening import RoundRules
from med_duallora.settings.config import (
    SITE_CONFIG_VARIABLE,
    AugmentConfig,
    JobConfig,
    LoRAConfig,
    SiteConfig,
    TrainConfig,
)
from med_duallora.settings.kinds import is_group, kinds_of
from med_duallora.settings.limits import limit_of
from med_duallora.settings.policy import SitePolicy
from med_duallora.settings.screening import ScreeningConfig
from med_duallora.settings.workflow import WorkflowConfig
from tests.unit.refused import refused

BY_RANK = "between 0 and 256; above 0 if lora.rank_local is 0"
TARGETS = "one or more of q, kv, proj, fc1, fc2, without repetition"
NAME = "1 to 64 letters, digits, '-' or '_'"
STOP = "between 0 and 10000; 0, or above workflow.start_round"
ADAPTER = "empty, or a path without zero bytes"
DEVICE = "auto, cpu, cuda or cuda:N"
SITE = {"data_dir": "~/data", "state_dir": "state", "cache_dir": "cache"}
POLICY = dataclasses.asdict(SitePolicy())
PATHS = {name: Path(place) for name, place in SITE.items()}


def test_a_job_comes_back_from_its_json() -> None:
    job = JobConfig(lora=LoRAConfig(targets=("q", "fc1")), train=TrainConfig(lr=1e-4))
    assert JobConfig.from_dict(json.loads(json.dumps(job.to_dict()))) == job


def test_defaults_may_be_left_out() -> None:
    assert JobConfig.from_dict({"train": {"n_rounds": 3}}) == JobConfig(train=TrainConfig(n_rounds=3))


def test_whole_numbers_serve_as_floats() -> None:
    job = JobConfig.from_dict({"lora": {"alpha_global": 8}})
    assert isinstance(job.lora.alpha_global, float)


@pytest.mark.parametrize(
    ("cls", "values", "key", "limit"),
    [
        (LoRAConfig, {"rank_global": -1}, "lora.rank_global", BY_RANK),
        (LoRAConfig, {"rank_local": 257}, "lora.rank_local", "between 0 and 256"),
        (LoRAConfig, {"rank_global": 0, "rank_local": 0}, "lora.rank_global", BY_RANK),
        (LoRAConfig, {"alpha_global": 0.0}, "lora.alpha_global", "above 0 and at most 1024"),
        (LoRAConfig, {"alpha_local": 2000.0}, "lora.alpha_local", "above 0 and at most 1024"),
        (LoRAConfig, {"targets": ()}, "lora.targets", TARGETS),
        (LoRAConfig, {"targets": ("q", "v")}, "lora.targets", TARGETS),
        (LoRAConfig, {"targets": ("q", "q")}, "lora.targets", TARGETS),
        (LoRAConfig, {"n_blocks": 0}, "lora.n_blocks", "between 1 and 64"),
        (LoRAConfig, {"n_blocks": 65}, "lora.n_blocks", "between 1 and 64"),
        (LoRAConfig, {"head_policy": "private"}, "lora.head_policy", "one of shared, local, global"),
        (LoRAConfig, {"head_norm": "all"}, "lora.head_norm", "one of site, none"),
        (TrainConfig, {"n_rounds": 0}, "train.n_rounds", "between 1 and 10000"),
        (TrainConfig, {"n_rounds": 10_001}, "train.n_rounds", "between 1 and 10000"),
        (TrainConfig, {"local_epochs": 0}, "train.local_epochs", "between 1 and 1000"),
        (TrainConfig, {"batch_size": 0}, "train.batch_size", "between 1 and 4096"),
        (TrainConfig, {"batch_size": 10**6}, "train.batch_size", "between 1 and 4096"),
        (TrainConfig, {"lr": 0.0}, "train.lr", "above 0 and at most 1"),
        (TrainConfig, {"lr": 1e9}, "train.lr", "above 0 and at most 1"),
        (TrainConfig, {"local_lr_factor": 1.5}, "train.local_lr_factor", "between 0 and 1"),
        (TrainConfig, {"lr": 1e-4, "min_lr": 1e-3}, "train.min_lr", "between 0 and train.lr"),
        (TrainConfig, {"min_lr": -1e-3}, "train.min_lr", "between 0 and train.lr"),
        (TrainConfig, {"warmup_fraction": 1.0}, "train.warmup_fraction", "at least 0 and below 1"),
        (TrainConfig, {"betas": (0.9,)}, "train.betas", "two numbers, each at least 0 and below 1"),
        (TrainConfig, {"betas": (0.9, 1.0)}, "train.betas", "two numbers, each at least 0 and below 1"),
        (TrainConfig, {"weight_decay": -0.1}, "train.weight_decay", "between 0 and 10"),
        (TrainConfig, {"clip_norm": 0.0}, "train.clip_norm", "above 0 and at most 1e+06"),
        (TrainConfig, {"label_smoothing": 1.0}, "train.label_smoothing", "at least 0 and below 1"),
        (TrainConfig, {"class_weight_threshold": 0.5}, "train.class_weight_threshold", "between 1 and 1e+06"),
        (TrainConfig, {"n_views": -1}, "train.n_views", "between 0 and 256"),
        (TrainConfig, {"precision": "fp8"}, "train.precision", "one of auto, fp32, bf16, fp16"),
        (TrainConfig, {"feature_dtype": "bf16"}, "train.feature_dtype", "one of float32, float16"),
        (TrainConfig, {"drop_path": 1.0}, "train.drop_path", "at least 0 and below 1"),
        (TrainConfig, {"seed": 2**31}, "train.seed", "between 0 and 2**31 - 1"),
        (AugmentConfig, {"probability": 1.1}, "augment.probability", "between 0 and 1"),
        (AugmentConfig, {"gamma": (1.5, 0.5)}, "augment.gamma", "two increasing positive numbers of at most 100"),
        (AugmentConfig, {"rotation_degrees": 181.0}, "augment.rotation_degrees", "between 0 and 180"),
        (AugmentConfig, {"shift_mm": 97.0}, "augment.shift_mm", "between 0 and 96"),
        (AugmentConfig, {"scale": 1.0}, "augment.scale", "at least 0 and below 1"),
        (JobConfig, {"experiment": "a/b"}, "experiment", NAME),
        (JobConfig, {"experiment": ""}, "experiment", NAME),
        (JobConfig, {"experiment": "é"}, "experiment", NAME),
        (JobConfig, {"weighting": "size"}, "weighting", "one of subjects, uniform"),
        (JobConfig, {"backbone_sha256": "0F" * 32}, "backbone_sha256", "empty, or 64 lower-case hexadecimal digits"),
        (WorkflowConfig, {"min_sites": 0}, "workflow.min_sites", "between 1 and 10000"),
        (WorkflowConfig, {"wait_s": -1}, "workflow.wait_s", "between 0 and 2678400"),
        (WorkflowConfig, {"round_timeout_s": -1}, "workflow.round_timeout_s", "between 0 and 2678400"),
        (WorkflowConfig, {"start_round": -1}, "workflow.start_round", "between 0 and 10000"),
        (WorkflowConfig, {"stop_round": 2, "start_round": 2}, "workflow.stop_round", STOP),
        (WorkflowConfig, {"stop_round": -1}, "workflow.stop_round", STOP),
        (
            WorkflowConfig,
            {"initial_adapter": "a\0b"},
            "workflow.initial_adapter",
            "empty, or a path without zero bytes",
        ),
    ],
    ids=str,
)
def test_a_constructor_refuses_what_is_out_of_its_limit(
    cls: type, values: dict[str, object], key: str, limit: str
) -> None:
    with refused(key, values[key.rpartition(".")[2]], limit):
        cls(**values)


@pytest.mark.parametrize(
    ("cls", "values", "key", "limit"),
    [
        (TrainConfig, {"lr": float("nan")}, "train.lr", "a finite number"),
        (TrainConfig, {"lr": 10**400}, "train.lr", "a finite number"),
        (TrainConfig, {"n_rounds": "3"}, "train.n_rounds", "a whole number"),
        (TrainConfig, {"n_rounds": True}, "train.n_rounds", "a whole number"),
        (TrainConfig, {"betas": [0.9, 0.95]}, "train.betas", "a list of finite numbers"),
        (LoRAConfig, {"targets": "q"}, "lora.targets", "a list of texts"),
        (JobConfig, {"train": {"n_rounds": 3}}, "train", "a group of settings, written as {...}"),
        (JobConfig, {"method": None}, "method", "a text"),
        (SiteConfig, {**PATHS, "ledger": "ledger.jsonl"}, "ledger", "a path or null"),
        (SiteConfig, {**PATHS, "data_dir": None}, "data_dir", "a path"),
        (SiteConfig, {**PATHS, "data_dir": Path("a\0b")}, "data_dir", "a path"),
        (SitePolicy, {"head_leaves": "no"}, "policy.head_leaves", "one of none, shared, all"),
        (WorkflowConfig, {"wait_s": 1.5}, "workflow.wait_s", "a whole number"),
    ],
    ids=lambda item: item if isinstance(item, str) else None,
)
def test_a_constructor_refuses_what_is_of_another_type(
    cls: type, values: dict[str, object], key: str, limit: str
) -> None:
    with refused(key, limit=limit):
        cls(**values)


@pytest.mark.parametrize(("key", "table"), [("method", METHODS), ("backbone", PRESETS)])
def test_a_constructor_refuses_names_that_are_in_no_table(
    key: str, table: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in table:
        assert getattr(JobConfig(**{key: name}), key) == name
    with refused(key, "unheard-of", f"one of {', '.join(table)}"):
        JobConfig(**{key: "unheard-of"})
    monkeypatch.setitem(table, "unheard-of", None)
    assert getattr(JobConfig(**{key: "unheard-of"}), key) == "unheard-of", "an entry of the table is all it needs"


@pytest.mark.parametrize(
    "cls",
    [
        *(AugmentConfig, JobConfig, LoRAConfig, RoundRules, ScreeningConfig),
        *(SiteConfig, SitePolicy, TrainConfig, WorkflowConfig),
    ],
)
def test_every_setting_has_a_limit_but_those_whose_type_is_one(cls: type) -> None:
    kinds = kinds_of(cls)
    free = {field.name for field in dataclasses.fields(cls) if limit_of(field) is None}
    assert [name for name in free if not (kinds[name] in (bool, Path, Path | None) or is_group(kinds[name]))] == []


def test_the_sentence_names_the_setting_its_value_and_its_limit() -> None:
    with pytest.raises(ConfigError) as caught:
        LoRAConfig(rank_global=-1)
    assert str(caught.value) == f"lora.rank_global = -1, but it must be {BY_RANK}"


@pytest.mark.parametrize(
    ("values", "key", "limit"),
    [
        pytest.param({"train": 3}, "train", "a group of settings, written as {...}", id="group is not a group"),
        pytest.param({"train": {"n_rounds": "3"}}, "train.n_rounds", "a whole number", id="text"),
        pytest.param({"train": {"n_rounds": 3.0}}, "train.n_rounds", "a whole number", id="float where int is meant"),
        pytest.param({"train": {"n_rounds": True}}, "train.n_rounds", "a whole number", id="a truth value"),
        pytest.param({"train": {"lr": float("inf")}}, "train.lr", "a finite number", id="infinity is not a setting"),
        pytest.param({"train": {"clip_norm": float("nan")}}, "train.clip_norm", "a finite number", id="nor is NaN"),
        pytest.param({"train": {"lr": True}}, "train.lr", "a finite number", id="truth value is not a float"),
        pytest.param({"lora": {"targets": "q"}}, "lora.targets", "a list", id="text is not a list"),
        pytest.param({"lora": {"targets": [1]}}, "lora.targets", "a list of texts", id="number in a list of texts"),
        pytest.param({"lora": {"targets": [["q"]]}}, "lora.targets", "a list of texts", id="list in a list of texts"),
        pytest.param({"method": None}, "method", "a text", id="nothing"),
    ],
)
def test_wrong_types_are_refused(values: dict[str, object], key: str, limit: str) -> None:
    with refused(key, limit=limit):
        JobConfig.from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"rounds": 3}, "unknown setting 'rounds'; did you mean train.n_rounds?", id="unknown setting"),
        pytest.param({"train": {"rounds": 3}}, "unknown setting 'train.rounds'; did you mean train.n_rounds?", id="in"),
    ],
)
def test_unknown_names_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        JobConfig.from_dict(values)
    assert (str(caught.value), caught.value.limit) == (message, "")


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("train.n_rounds=4", lambda job: job.train.n_rounds == 4),
        ("train.lr = 0.5", lambda job: job.train.lr == 0.5),
        ('lora.targets=["q","fc1"]', lambda job: job.lora.targets == ("q", "fc1")),
        ("experiment=2024", lambda job: job.experiment == "2024"),
        (f"backbone_sha256={'1' * 64}", lambda job: job.backbone_sha256 == "1" * 64),
        ("method=fedavg-lora", lambda job: job.method == "fedavg-lora"),
        ('experiment="a-1"', lambda job: job.experiment == "a-1"),
    ],
)
def test_settings_can_be_overridden(assignment: str, read: object) -> None:
    assert read(JobConfig().with_overrides([assignment]))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.n_rounds", "is not an assignment; write key=value"),
        ("train.rounds=3", r"unknown setting 'train\.rounds'; did you mean train\.n_rounds\?"),
        ("train.qqq=3", r"unknown setting 'train\.qqq'; there are experiment, "),
        ("n_rounds=3", r"unknown setting 'n_rounds'; did you mean train\.n_rounds\?"),
        ("n_round=3", r"unknown setting 'n_round'; did you mean train\.n_rounds\?"),
        ("lora.n_rounds=3", r"did you mean train\.n_rounds\?"),
        ("trains.n_rounds=3", r"did you mean train\.n_rounds\?"),
        ("method.name=x", "unknown setting 'method.name'"),
        ("lora=8", "'lora' is a group of settings; write one of them: lora.rank_global, "),
        ("lora.targets=q,k", r"write 'lora.targets=\[\"q\",\"k\"\]'; it must be one or more of q, kv, proj, fc1, fc2"),
        ("train.betas=0.9", r"must be a list: write 'train.betas=\[0.9,0.95\]'"),
        (f"train.n_rounds={'9' * 5000}", r"train\.n_rounds = '9{59}\.\.\., but it must be a whole number"),
    ],
)
def test_a_wrong_override_says_what_is_known(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JobConfig().with_overrides([assignment])


@pytest.mark.parametrize(
    ("assignment", "value", "limit"),
    [
        ("backbone_sha256=123", "123", "empty, or 64 lower-case hexadecimal digits"),
        ("backbone_sha256=cinema", "cinema", "empty, or 64 lower-case hexadecimal digits"),
        (f"train.lr={'9' * 400}", int("9" * 400), "a finite number"),
        ("train.n_rounds=three", "three", "a whole number"),
        ("train.n_rounds=0", 0, "between 1 and 10000"),
        ("method=fedsgd", "fedsgd", f"one of {', '.join(METHODS)}"),
        ("backbone=resnet", "resnet", f"one of {', '.join(PRESETS)}"),
    ],
)
def test_an_override_out_of_its_limit_is_refused(assignment: str, value: object, limit: str) -> None:
    with refused(assignment.partition("=")[0], value, limit):
        JobConfig().with_overrides([assignment])


def test_a_site_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "site.json").write_text(
        json.dumps({**SITE, "policy": POLICY, "backbone_checkpoint": None, "device": "cuda:1"})
    )
    config = SiteConfig.from_file(tmp_path / "site.json")
    assert config.data_dir == Path.home() / "data"
    assert config.backbone_checkpoint is None
    assert config.device == "cuda:1"


@pytest.mark.parametrize(
    ("changes", "key", "limit"),
    [
        pytest.param({"device": "gpu"}, "device", DEVICE, id="unknown device"),
        pytest.param({"device": "7"}, "device", DEVICE, id="number without cuda"),
        pytest.param({"device": "cuda:"}, "device", DEVICE, id="device without number"),
        pytest.param({"n_threads": 0}, "n_threads", "between 1 and 1024", id="no thread"),
        pytest.param({"n_threads": "2"}, "n_threads", "a whole number", id="text as number"),
        pytest.param({"cache_budget_mb": 0}, "cache_budget_mb", "between 1 and 1073741824", id="no cache"),
        pytest.param({"data_dir": ""}, "data_dir", "a path", id="empty path"),
        pytest.param({"data_dir": "a\0b"}, "data_dir", "a path", id="zero byte"),
        pytest.param({"data_dir": "/data/\ud800"}, "data_dir", "a path", id="half of a surrogate pair"),
        pytest.param({"data_dir": "~\ud800/data"}, "data_dir", "a path", id="half of a surrogate pair in an account"),
        pytest.param({"data_dir": 3}, "data_dir", "a path", id="number as path"),
        pytest.param({"ledger": 3}, "ledger", "a path or null", id="number as path or null"),
        pytest.param({"state_dirs": "x"}, "state_dirs", "", id="misspelt"),
        pytest.param({"policy": {"max_rank": 0}}, "policy.max_rank", "between 1 and 4096", id="inside"),
    ],
)
def test_a_wrong_site_file_names_the_file_and_the_setting(
    changes: dict[str, object], key: str, limit: str, tmp_path: Path
) -> None:
    path = tmp_path / "site.json"
    path.write_text(json.dumps({**SITE, **changes}))
    with refused(key, limit=limit) as caught:
        SiteConfig.from_file(path)
    assert str(caught.value).startswith(f"site configuration site.json in {tmp_path}: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devise": "cpu"}, "unknown setting 'devise'; did you mean device?"),
        (
            {"policy": {"min_subject": 3}},
            "unknown setting 'policy.min_subject'; did you mean policy.min_subjects?",
        ),
    ],
    ids=["nearly right", "inside"],
)
def test_a_site_file_with_an_unknown_setting_says_which_was_meant(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SiteConfig.from_dict({**SITE, **changes})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold one JSON object"),
        ('{"data_dir": "x"}', "'state_dir' is missing"),
        ('{"policy": {"max_rank": 8, "max_rank": 256}}', "the key 'max_rank' stands twice in one object"),
    ],
    ids=["cut off", "a list", "too little", "a key twice"],
)
def test_a_broken_site_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "site.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        SiteConfig.from_file(tmp_path / "site.json")


def test_a_missing_site_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"site configuration nowhere\.json in .*: No such file"):
        SiteConfig.from_file(tmp_path / "nowhere.json")


def test_one_variable_serves_every_site_of_a_simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for site in ("ge", "canon"):
        (tmp_path / f"{site}.json").write_text(json.dumps({**SITE, "policy": POLICY, "data_dir": f"data/{site}"}))
    monkeypatch.setenv(SITE_CONFIG_VARIABLE, str(tmp_path / "{site}.json"))
    assert SiteConfig.find("ge").data_dir == Path("data/ge")
    assert SiteConfig.find("canon").data_dir == Path("data/canon")


def test_the_privacy_scope_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scope.json").write_text(json.dumps({**SITE, "policy": POLICY}))
    monkeypatch.setenv(SITE_CONFIG_VARIABLE, str(tmp_path / "nowhere.json"))
    assert SiteConfig.find("ge", {"med_duallora_site_config": str(tmp_path / "scope.json")}).n_threads == 1


def test_a_site_without_configuration_is_reported_where_to_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SITE_CONFIG_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=f"site ge has no configuration: .*{SITE_CONFIG_VARIABLE}.*med_duallora_site"):
        SiteConfig.find("ge")
