import pytest

from med_duallora.adapter.methods import METHODS
from med_duallora.commands.config import scopes
from med_duallora.errors import InputError
from med_duallora.reference.entries import REQUIRED, Setting, find_setting, settings_of, values_of
from med_duallora.settings.config import JobConfig

SETTINGS = [setting for scope in scopes() for setting in settings_of(scope)]


def test_no_two_scopes_share_a_key() -> None:
    keys = [setting.key for setting in SETTINGS]
    assert len(keys) == len(set(keys)) > 50


def test_the_entries_are_the_settings_of_a_job_with_their_defaults() -> None:
    entries = {setting.key: setting.default for setting in SETTINGS if setting.scope.name == "job"}
    assert entries == values_of(JobConfig().to_dict())


@pytest.mark.parametrize(
    ("key", "kind", "default", "limit"),
    [
        ("lora.rank_global", "whole number", "8", "between 0 and 256; above 0 if lora.rank_local is 0"),
        ("lora.targets", "list of texts", '["q", "kv"]', "one or more of q, kv, proj, fc1, fc2, without repetition"),
        ("train.min_lr", "number", "1e-05", "between 0 and train.lr"),
        ("method", "text", '"med-duallora"', f"one of {', '.join(METHODS)}"),
        ("workflow.min_sites", "whole number", "2", "between 1 and 10000"),
        ("data_dir", "path", REQUIRED, ""),
        ("backbone_checkpoint", "path or null", "null", ""),
        ("policy.metrics_leave", "true or false", "true", ""),
    ],
)
def test_an_entry_is_what_the_code_says(key: str, kind: str, default: str, limit: str) -> None:
    setting = find_setting(key, SETTINGS)
    assert (setting.kind, setting.default, setting.limit) == (kind, default, limit)


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.scope.name == "job" and s.default != '""'], ids=str)
def test_the_example_of_a_job_setting_sets_it(setting: Setting) -> None:
    option, _, assignment = setting.example.partition(" ")
    assert option == "--set"
    assert JobConfig().with_overrides([assignment]) == JobConfig()


@pytest.mark.parametrize(
    ("key", "found"),
    [("train.lr", "train.lr"), ("rank_global", "lora.rank_global"), ("min_sites", "workflow.min_sites")],
)
def test_a_unique_last_part_is_enough(key: str, found: str) -> None:
    assert find_setting(key, SETTINGS).key == found


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("train.n_round", "did you mean train.n_rounds?"),
        ("rank_globl", "did you mean lora.rank_global?"),
        ("lora.n_rounds", "did you mean train.n_rounds?"),
        ("qqq", "`med-duallora config show` lists all settings"),
    ],
)
def test_a_wrong_key_names_the_one_that_was_meant(key: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        find_setting(key, SETTINGS)
    assert f"unknown setting {key!r}" in str(refused.value) and message in str(refused.value)


def test_values_are_flat_json() -> None:
    assert values_of({"a": 1, "b": {"c": [0.5], "d": {"e": "x"}}}) == {
        "a": "1",
        "b.c": "[0.5]",
        "b.d.e": '"x"',
    }
