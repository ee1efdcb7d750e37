"""What a learner tells while it works: to TensorBoard, to the console and in the site's log."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.fl_constant import ReturnCode
from nvflare.fuel.utils import fobs

from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import CheckpointError, CohortError, ConfigError, StateError
from med_duallora.flare.site.learner import loggable
from med_duallora.flare.wire.payload import read_train_reply
from med_duallora.flare.wire.tracking import FEDERATION_EVENT
from med_duallora.measures import Place, standing_in
from med_duallora.settings.config import JobConfig
from med_duallora.settings.policy import ClassSizes, SitePolicy
from med_duallora.site.runtime import SiteRuntime
from tests.unit.flare.learning import Site
from tests.unit.flare.standin import Engine, answered


def test_a_round_reports_to_tensorboard(site: Site, contract: EgressContract) -> None:
    reply = read_train_reply(contract, site.ask("train"))
    events = [event["DXO"]["data"] for event in site.engine.fired(FEDERATION_EVENT)]
    sent = {event["track_key"]: event["track_value"] for event in events}
    assert sent == {**reply.metrics, **(reply.initial_metrics or {})}
    assert "val_balanced_accuracy" in sent
    assert {event["global_step"] for event in events} == {0}


def test_a_round_reports_to_the_console(site: Site, contract: EgressContract) -> None:
    assert site.statistics() == {"phase": "starting"}
    reply = site.ask("train")
    metrics = read_train_reply(contract, reply)
    statistics = site.statistics()
    assert (statistics["phase"], statistics["device"], statistics["round"]) == ("waiting", "cpu", 0)
    expected = {**metrics.metrics, **(metrics.initial_metrics or {})}
    assert {name: statistics[name] for name in expected} == expected
    assert statistics["steps_per_second"] > 0
    assert statistics["peak_memory_mb"] > 50, "torch alone takes more"
    # LearnerExecutor adds the validation metrics to what the learner serialised
    assert 0 < len(fobs.dumps(metrics.to_shareable(pack=True))) - statistics["payload_bytes"] < 1024
    assert contract.allowed_statistics(statistics) == statistics, "nothing that the contract does not name"


@pytest.mark.usefixtures("configured")
def test_every_number_that_the_learner_tells_has_an_entry(
    tiny_job: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job.with_overrides(["train.compare_alone=true"])
    site = Site(Engine(job, tmp_path), job)
    computed: set[str] = set()
    whole = SitePolicy.allowed_metrics

    def noted(policy: SitePolicy, metrics: Mapping[str, float], sizes: Mapping[str, ClassSizes]) -> dict[str, float]:
        computed.update(metrics)
        return whole(policy, metrics, sizes)

    monkeypatch.setattr(SitePolicy, "allowed_metrics", noted)
    site.ask("train")
    site.ask("validate")
    told = standing_in(Place.CONSOLE)
    assert computed <= set(told), "the policy drops what has none"
    assert set(told) - computed == {"round"}, "an entry of a number that nobody computes"


def test_the_console_sees_what_the_site_is_doing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, set[str]]] = []

    def note(name: str) -> None:
        whole = getattr(SiteRuntime, name)

        def noted(*arguments: Any, **options: Any) -> Any:
            found = whole(*arguments, **options)
            seen.append((site.statistics()["phase"], set(site.statistics())))
            return found

        monkeypatch.setattr(SiteRuntime, name, noted)

    for name in ("validate", "train_round", "evaluate"):
        note(name)
    site.ask("train")
    site.ask("validate")
    assert [phase for phase, _ in seen] == ["validation", "training", "evaluation"]
    assert {"n_steps", "steps_per_second", "peak_memory_mb"} <= seen[1][1], "while the round runs"
    assert "train_loss" not in seen[1][1], "the loss of a step is not told"


def test_a_site_that_lets_no_number_out_shows_none(site: Site, configured: Path) -> None:
    values = json.loads(configured.read_text())
    configured.write_text(json.dumps({**values, "policy": {**values["policy"], "metrics_leave": False}}))
    assert answered(site.ask("train")) == ReturnCode.OK
    assert site.statistics() == {"phase": "waiting", "device": "cpu", "round": 0}
    assert site.engine.fired(FEDERATION_EVENT) == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ConfigError("site configuration /a/b c.json: device = 'gpu'"),
            "ConfigError: site configuration <path>: device = 'gpu' (set this site's log level",
        ),
        (CheckpointError("~/weights/x.safetensors lacks k"), "CheckpointError: <path> (set this site's log level"),
        (ConfigError(r"C:\data\site.json is not a file"), "ConfigError: <path> (set this site's log level"),
        (CohortError("patient007"), "CohortError (set this site's log level"),
        (OSError("/data/patient007"), "OSError (set this site's log level"),
        (StateError("the file is damaged"), "StateError: the file is damaged"),
    ],
)
def test_what_a_log_may_say(error: Exception, expected: str) -> None:
    assert loggable(error).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("checkpoint /data/Jane Doe/b.safetensors cannot be read: No such file", "checkpoint <path>: No such file"),
        ("site configuration /srv/Jane Doe: Is a directory", "site configuration <path>: Is a directory"),
        ("data_dir = ['/data/Jane Doe'], but it must be text", "data_dir = ['<path>'], but it must be text"),
        (r"data_dir = 'C:\\data\\Jane Doe' is not there", "data_dir = '<path>' is not there"),
        ("Jane/Doe, John/Roe", "<path>"),
        ("/data/Doe, Jane", "<path>"),
        ("prepared/Jane Doe\nand more", "<path>"),
        ("policy.max_rank is 8, but the job asks for rank 9", "policy.max_rank is 8, but the job asks for rank 9"),
    ],
)
def test_a_path_with_blanks_is_left_out_as_a_whole(text: str, expected: str) -> None:
    found = loggable(ConfigError(text))
    assert found.removesuffix(" (set this site's log level to DEBUG to see it whole)") == f"ConfigError: {expected}"
