import json
from pathlib import Path

import pytest

from med_duallora.config import (
    SITE_CONFIG_VARIABLE,
    AugmentConfig,
    JobConfig,
    LoRAConfig,
    SiteConfig,
    TrainConfig,
)
from med_duallora.errors import ConfigError


def test_a_job_comes_back_from_its_json() -> None:
    job = JobConfig(lora=LoRAConfig(targets=("q", "fc1")), train=TrainConfig(lr=1e-4))
    assert JobConfig.from_dict(json.loads(json.dumps(job.to_dict()))) == job


def test_defaults_may_be_left_out() -> None:
    assert JobConfig.from_dict({"train": {"n_rounds": 3}}) == JobConfig(train=TrainConfig(n_rounds=3))


def test_whole_numbers_serve_as_floats() -> None:
    job = JobConfig.from_dict({"lora": {"alpha_global": 8}})
    assert isinstance(job.lora.alpha_global, float)


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (LoRAConfig, {"rank_global": -1}, r"lora\.rank_global = -1, but it must be between 0 and 256"),
        (LoRAConfig, {"rank_local": 257}, r"lora\.rank_local = 257"),
        (LoRAConfig, {"rank_global": 0, "rank_local": 0}, "above 0 if lora.rank_local is 0"),
        (LoRAConfig, {"alpha_global": 0.0}, r"lora\.alpha_global = 0\.0"),
        (LoRAConfig, {"alpha_local": 2000.0}, "above 0 and at most 1024"),
        (LoRAConfig, {"targets": ()}, "one or more of q, kv, proj, fc1, fc2"),
        (LoRAConfig, {"targets": ("q", "v")}, "one or more of"),
        (LoRAConfig, {"targets": ("q", "q")}, "without repetition"),
        (LoRAConfig, {"n_blocks": 0}, r"lora\.n_blocks = 0"),
        (LoRAConfig, {"head_policy": "private"}, "one of local, shared, global"),
        (TrainConfig, {"n_rounds": 0}, r"train\.n_rounds = 0, but it must be between 1 and 10000"),
        (TrainConfig, {"n_rounds": 10_001}, "between 1 and 10000"),
        (TrainConfig, {"lr": 1e9}, "above 0 and at most 1"),
        (TrainConfig, {"batch_size": 10**6}, "between 1 and 4096"),
        (LoRAConfig, {"n_blocks": 65}, "between 1 and 64"),
        (TrainConfig, {"local_epochs": 0}, "local_epochs"),
        (TrainConfig, {"batch_size": 0}, "batch_size"),
        (TrainConfig, {"lr": 0.0}, "above 0"),
        (TrainConfig, {"lr": 1e-4, "min_lr": 1e-3}, "between 0 and train.lr"),
        (TrainConfig, {"warmup_fraction": 1.0}, "warmup_fraction"),
        (TrainConfig, {"betas": (0.9,)}, "two numbers"),
        (TrainConfig, {"betas": (0.9, 1.0)}, "two numbers"),
        (TrainConfig, {"weight_decay": -0.1}, "weight_decay"),
        (TrainConfig, {"clip_norm": 0.0}, "clip_norm"),
        (TrainConfig, {"label_smoothing": 1.0}, "label_smoothing"),
        (TrainConfig, {"class_weight_threshold": 0.5}, "class_weight_threshold"),
        (TrainConfig, {"n_views": -1}, "n_views"),
        (TrainConfig, {"precision": "fp8"}, "one of auto, fp32, bf16, fp16"),
        (TrainConfig, {"drop_path": 1.0}, "drop_path"),
        (TrainConfig, {"seed": 2**31}, "seed"),
        (TrainConfig, {"lr": float("nan")}, r"train\.lr = nan"),
        (AugmentConfig, {"probability": 1.1}, "probability"),
        (AugmentConfig, {"gamma": (1.5, 0.5)}, "two increasing positive numbers"),
        (AugmentConfig, {"rotation_degrees": 181.0}, "rotation_degrees"),
        (AugmentConfig, {"shift_mm": 97.0}, "shift_mm"),
        (AugmentConfig, {"scale": 1.0}, "scale"),
        (JobConfig, {"experiment": "a/b"}, "1 to 64 letters"),
        (JobConfig, {"experiment": ""}, "1 to 64 letters"),
        (JobConfig, {"experiment": "é"}, "1 to 64 letters"),
        (JobConfig, {"weighting": "size"}, "one of subjects, uniform"),
    ],
)
def test_every_limit_is_checked_and_quoted(cls: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"rounds": 3}, "unknown setting 'rounds'; did you mean train.n_rounds", id="unknown setting"),
        pytest.param({"train": {"rounds": 3}}, r"unknown setting 'train\.rounds'", id="unknown nested setting"),
        pytest.param({"train": 3}, r"train\. must be an object, not int", id="group is not a group"),
        pytest.param({"train": {"n_rounds": "3"}}, r"train\.n_rounds = '3', but it must be a whole number", id="text"),
        pytest.param({"train": {"n_rounds": 3.0}}, "must be a whole number", id="float where int is meant"),
        pytest.param({"train": {"n_rounds": True}}, "must be a whole number", id="truth value is not a number"),
        pytest.param({"train": {"lr": float("inf")}}, "must be a finite number", id="infinity is no setting"),
        pytest.param({"train": {"clip_norm": float("nan")}}, "must be a finite number", id="nor is NaN"),
        pytest.param({"train": {"lr": True}}, "must be a finite number", id="truth value is not a float"),
        pytest.param({"lora": {"targets": "q"}}, "must be a list", id="text is not a list"),
        pytest.param({"lora": {"targets": [1]}}, "must be a text", id="number in a list of texts"),
        pytest.param({"method": None}, "must be a text", id="nothing"),
    ],
)
def test_unknown_names_and_wrong_types_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JobConfig.from_dict(values)


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
        ("lora=8", "'lora' is a group of settings; write one of them: lora.rank_global, "),
        ("lora.targets=q,k", r"write 'lora.targets=\[\"q\",\"k\"\]'; it must be one or more of q, kv, proj, fc1, fc2"),
        ("train.betas=0.9", r"must be a list: write 'train.betas=\[0.9,0.95\]'"),
        ("backbone_sha256=123", "empty, or 64 lower-case hexadecimal digits"),
        (f"train.lr={'9' * 400}", "must be a finite number"),
        (f"train.n_rounds={'9' * 5000}", r"train\.n_rounds = '9{59}\.\.\., but it must be a whole number"),
        ("backbone_sha256=cinema", "empty, or 64 lower-case hexadecimal digits"),
        ("trains.n_rounds=3", r"did you mean train\.n_rounds\?"),
        ("method.name=x", "unknown setting 'method.name'"),
        ("train.n_rounds=three", "must be a whole number"),
        ("train.n_rounds=0", "between 1 and 10000"),
    ],
)
def test_a_wrong_override_says_what_is_known(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JobConfig().with_overrides([assignment])


SITE = {"data_dir": "~/data", "state_dir": "state", "cache_dir": "cache"}


def test_a_site_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "site.json").write_text(json.dumps({**SITE, "backbone_checkpoint": None, "device": "cuda:1"}))
    config = SiteConfig.from_file(tmp_path / "site.json")
    assert config.data_dir == Path.home() / "data"
    assert config.backbone_checkpoint is None
    assert config.device == "cuda:1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"device": "gpu"}, "auto, cpu, cuda or cuda:N", id="unknown device"),
        pytest.param({"device": "7"}, "auto, cpu, cuda or cuda:N", id="number without cuda"),
        pytest.param({"device": "cuda:"}, "auto, cpu, cuda or cuda:N", id="device without number"),
        pytest.param({"n_threads": 0}, "n_threads = 0", id="no thread"),
        pytest.param({"cache_budget_mb": 0}, "cache_budget_mb = 0", id="no cache"),
        pytest.param({"data_dir": ""}, "data_dir = ''", id="empty path"),
        pytest.param({"data_dir": 3}, "data_dir = 3", id="number as path"),
        pytest.param({"state_dirs": "x"}, "unknown setting 'state_dirs'", id="misspelt"),
        pytest.param({"devise": "cpu"}, "did you mean device", id="nearly right"),
        pytest.param(
            {"policy": {"min_subject": 3}}, r"'policy\.min_subject'; did you mean policy\.min_subjects", id="inside"
        ),
        pytest.param({"n_threads": "2"}, "n_threads = '2', but it must be a whole number", id="text as number"),
    ],
)
def test_a_wrong_site_file_names_the_file_and_the_setting(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "site.json"
    path.write_text(json.dumps({**SITE, **changes}))
    with pytest.raises(ConfigError, match=rf"site configuration site\.json in {tmp_path}: .*{message}"):
        SiteConfig.from_file(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[]", "must hold one JSON object"), ('{"data_dir": "x"}', "'state_dir' is missing")],
    ids=["cut off", "a list", "too little"],
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
        (tmp_path / f"{site}.json").write_text(json.dumps({**SITE, "data_dir": f"data/{site}"}))
    monkeypatch.setenv(SITE_CONFIG_VARIABLE, str(tmp_path / "{site}.json"))
    assert SiteConfig.find("ge").data_dir == Path("data/ge")
    assert SiteConfig.find("canon").data_dir == Path("data/canon")


def test_the_privacy_scope_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scope.json").write_text(json.dumps(SITE))
    monkeypatch.setenv(SITE_CONFIG_VARIABLE, str(tmp_path / "nowhere.json"))
    assert SiteConfig.find("ge", {"med_duallora_site_config": str(tmp_path / "scope.json")}).n_threads == 1


def test_a_site_without_configuration_is_reported_where_to_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SITE_CONFIG_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=f"site ge has no configuration: .*{SITE_CONFIG_VARIABLE}.*med_duallora_site"):
        SiteConfig.find("ge")


@pytest.mark.parametrize("text", ["", "/a\0b", "/data/\ud800"])
def test_a_path_that_no_file_can_have_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"data_dir = .* must be a path"):
        SiteConfig.from_dict({"data_dir": text, "state_dir": "/s", "cache_dir": "/c", "ledger": "/l"})
