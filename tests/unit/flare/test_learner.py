import dataclasses
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.executors.learner_executor import LearnerExecutor
from nvflare.fuel.utils import fobs
from nvflare.widgets.info_collector import GroupInfoCollector, InfoCollector

from med_duallora.config import SITE_CONFIG_VARIABLE, JobConfig, SiteConfig
from med_duallora.egress import EgressContract
from med_duallora.errors import CheckpointError, CohortError, ConfigError, StateError, TrainingDiverged
from med_duallora.flare.egress_filter import rebuilt
from med_duallora.flare.learner import DualLoRALearner, loggable
from med_duallora.flare.payload import LINEAGE, read_metrics_reply, read_train_reply, set_lineage
from med_duallora.flare.tracking import FEDERATION_EVENT
from med_duallora.lineage import Lineage
from med_duallora.model import initial_global_state
from med_duallora.site import SiteRuntime
from tests.unit.flare.standin import Engine, answered
from tests.unit.tiny import same


class Site:
    """A site's process: FLARE's executor with our learner, as the client configuration sets it up."""

    def __init__(self, engine: Engine, job: JobConfig) -> None:
        self.engine = engine
        self.job = job
        self.learner = DualLoRALearner()
        self.executor = LearnerExecutor(learner_id="learner")
        engine.components["learner"] = self.learner
        self.signal = Signal()
        self.lineage = Lineage.begin()

    def ask(self, task: str, data: Shareable | None = None, round_index: Any = 0, **props: Any) -> Shareable:
        shareable = data or DXO(DataKind.WEIGHTS, data=initial_global_state(self.job)).to_shareable()
        set_lineage(shareable, self.lineage)
        shareable.set_header(AppConstants.CURRENT_ROUND, round_index)
        return self.executor.execute(task, shareable, self.context(**props), self.signal)

    def context(self, **props: Any) -> FLContext:
        return self.engine.context("ge", **props)

    def statistics(self) -> dict[str, Any]:
        collector = GroupInfoCollector()
        fl_ctx = self.context(**{InfoCollector.CTX_KEY_STATS_COLLECTOR: collector})
        self.learner.handle_event(InfoCollector.EVENT_TYPE_GET_STATS, fl_ctx)
        return dict(collector.info["med_duallora"])


@pytest.fixture
def configured(tiny_sites: dict[str, SiteConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The site's configuration file, named by the environment variable."""
    path = tmp_path / "site_ge.json"
    path.write_text(json.dumps(dataclasses.asdict(tiny_sites["ge"]), default=str))
    monkeypatch.setenv(SITE_CONFIG_VARIABLE, str(tmp_path / "site_{site}.json"))
    return path


@pytest.fixture
def site(engine: Engine, tiny_job: JobConfig, configured: Path) -> Site:
    return Site(engine, tiny_job)


def test_a_round_gives_what_the_site_runtime_gives(
    site: Site, contract: EgressContract, tiny_job: JobConfig, tiny_sites: dict[str, SiteConfig], tmp_path: Path
) -> None:
    found = read_train_reply(contract, rebuilt("train", site.ask("train"), contract))
    config = dataclasses.replace(tiny_sites["ge"], state_dir=tmp_path / "other")
    direct = SiteRuntime("ge", tiny_job, config)
    start = initial_global_state(tiny_job)
    assert found.initial_metrics == direct.validate(start, 0)
    update = direct.train_round(start, 0)
    assert same(found.tensors, update.tensors)
    assert found.weight == update.weight
    assert (found.round_index, set(found.metrics)) == (0, set(update.metrics))


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
    assert statistics["steps_per_second"] == pytest.approx(statistics["n_steps"] / statistics["seconds"], rel=0.5)
    assert statistics["peak_memory_mb"] > 50, "torch alone takes more"
    # LearnerExecutor adds the validation metrics to what the learner serialised
    assert 0 < len(fobs.dumps(reply)) - statistics["payload_bytes"] < 1024
    assert contract.allowed_statistics(statistics) == statistics, "nothing that the contract does not name"


def test_the_console_sees_what_the_site_is_doing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, set[str]]] = []

    def note(name: str) -> None:
        whole = getattr(SiteRuntime, name)

        def noted(*arguments: Any) -> Any:
            found = whole(*arguments)
            seen.append((site.statistics()["phase"], set(site.statistics())))
            return found

        monkeypatch.setattr(SiteRuntime, name, noted)

    for name in ("validate", "train_round", "evaluate"):
        note(name)
    site.ask("train")
    site.ask("validate")
    assert [phase for phase, _ in seen] == ["validation", "training", "evaluation"]
    assert {"train_loss", "n_steps", "steps_per_second", "peak_memory_mb"} <= seen[1][1], "while the round runs"


def test_a_site_that_lets_no_number_out_shows_none(site: Site, configured: Path) -> None:
    values = json.loads(configured.read_text())
    configured.write_text(json.dumps({**values, "policy": {**values["policy"], "metrics_leave": False}}))
    assert answered(site.ask("train")) == ReturnCode.OK
    assert site.statistics() == {"phase": "waiting", "device": "cpu", "round": 0}
    assert site.engine.fired(FEDERATION_EVENT) == []


def test_after_training_the_test_split_is_scored(site: Site, contract: EgressContract) -> None:
    site.ask("train")
    scores = read_metrics_reply(contract, rebuilt("validate", site.ask("validate"), contract))
    assert {"backbone.auroc", "global.auroc", "local.auroc", "both.auroc", "n_subjects"} <= set(scores)


def test_the_configuration_is_found_through_the_privacy_scope(
    engine: Engine, tiny_job: JobConfig, configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SITE_CONFIG_VARIABLE)
    properties = {FLContextKey.SCOPE_PROPERTIES: {"med_duallora_site_config": str(configured)}}
    assert answered(Site(engine, tiny_job).ask("train", **properties)) == ReturnCode.OK


def no_file(path: Path) -> None:
    path.unlink()


def no_json(path: Path) -> None:
    path.write_text("{")


def empty_cohort(path: Path) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "data_dir": str(path.parent / "patient007")}))


BROKEN = [("the file is missing", no_file), ("it is no JSON", no_json), ("the cohort is missing", empty_cohort)]


@pytest.mark.parametrize(("reason", "breaks"), BROKEN, ids=[row[0] for row in BROKEN])
def test_a_failed_initialisation_answers_every_task_with_an_error(
    reason: str, breaks: Callable[[Path], None], site: Site, configured: Path, caplog: pytest.LogCaptureFixture
) -> None:
    breaks(configured)
    with caplog.at_level(logging.INFO):
        for task in ("train", "validate", "train"):
            assert site.ask(task) == {"__headers__": {"__rc__": ReturnCode.EXECUTION_EXCEPTION}}
    assert "initialisation failed: " in caplog.text
    assert str(configured.parent) not in caplog.text
    assert "patient007" not in caplog.text
    assert site.statistics()["phase"] == "not initialised"


def test_the_whole_message_is_there_for_who_looks_at_the_site(
    site: Site, configured: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configured.unlink()
    with caplog.at_level(logging.DEBUG):
        site.ask("train")
    assert f"{configured.name} in {configured.parent}: No such file" in caplog.text


def test_an_unusable_place_is_told_with_file_and_setting_but_without_paths(
    site: Site, configured: Path, caplog: pytest.LogCaptureFixture
) -> None:
    empty_cohort(configured)
    with caplog.at_level(logging.INFO):
        site.ask("train")
    expected = (
        "ConfigError: site configuration site_ge.json in <path>: data_dir = '<path>', but there is no such folder"
    )
    assert expected in caplog.text


@pytest.mark.parametrize(
    ("reason", "data", "round_index"),
    [
        ("no adapter", Shareable(), 0),
        ("another kind", DXO(DataKind.METRICS, data={}).to_shareable(), 0),
        ("another adapter", DXO(DataKind.WEIGHTS, data={}).to_shareable(), 0),
        ("a round after the last", None, 2),
        ("no round", None, None),
        ("a round that is text", None, "0"),
    ],
)
def test_a_task_outside_the_contract_is_refused(reason: str, data: Any, round_index: Any, site: Site) -> None:
    assert answered(site.ask("train", data, round_index)) == ReturnCode.BAD_TASK_DATA


@pytest.mark.parametrize("lineage", [None, [], [["../x", 0]], "0" * 32])
def test_a_task_that_belongs_to_no_run_is_refused(
    lineage: Any, site: Site, monkeypatch: pytest.MonkeyPatch, configured: Path
) -> None:
    monkeypatch.setattr("tests.unit.flare.test_learner.set_lineage", lambda task, _: task.set_header(LINEAGE, lineage))
    for task in ("train", "validate"):
        assert answered(site.ask(task)) == ReturnCode.BAD_TASK_DATA
    assert not list(configured.parent.rglob("state.safetensors"))


def test_a_task_s_run_decides_which_state_is_continued(site: Site) -> None:
    site.ask("train")
    runtime = site.learner.runtime
    assert runtime is not None
    assert runtime.directory.name == site.lineage.run_id
    kept = runtime.kept_state()
    first, site.lineage = site.lineage, Lineage.begin()
    site.ask("validate")
    assert not same(runtime.kept_state(), kept), "another run"
    site.lineage = first.continued(1)
    site.ask("validate")
    assert same(runtime.kept_state(), kept), "a run that continues the first one"


def test_a_state_that_cannot_be_written_is_said_without_paths(
    site: Site, configured: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Path(json.loads(configured.read_text())["state_dir"]) / "test"
    site.ask("validate")
    place.rename(place.with_name("away"))
    place.write_text("a file where a directory should be")
    assert answered(site.ask("train")) == ReturnCode.EXECUTION_EXCEPTION
    assert "training failed: StateError: the site's local state cannot be written (" in caplog.text
    assert str(configured.parent) not in caplog.text


def test_a_model_is_never_submitted(site: Site) -> None:
    assert answered(site.ask("submit_model")) == ReturnCode.TASK_UNSUPPORTED


@pytest.mark.parametrize(
    "error", [CohortError("patient007 is torn"), TrainingDiverged("x"), RuntimeError("patient007")]
)
def test_an_error_in_training_keeps_its_text_at_home(
    error: Exception, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(SiteRuntime, "train_round", fails)
    with caplog.at_level(logging.INFO):
        reply = site.ask("train")
    assert answered(reply) == ReturnCode.EXECUTION_EXCEPTION
    assert "patient007" not in caplog.text + str(reply)
    assert type(error).__name__ in caplog.text


def test_an_abort_is_honoured_within_a_batch(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.job = site.job.with_overrides(["train.local_epochs=1000"])
    site.engine.components["job"].settings = site.job  # type: ignore[attr-defined]
    steps: list[float] = []

    def abort_in_the_second_step(progress: dict[str, float]) -> None:
        steps.append(progress["step"])
        if len(steps) == 2:
            site.signal.trigger(True)

    monkeypatch.setattr(site.learner, "_on_step", abort_in_the_second_step)
    started = time.monotonic()
    reply = site.ask("train")
    assert answered(reply) == ReturnCode.TASK_ABORTED
    assert steps == [1.0, 2.0], "the step after the abort was not finished"
    assert time.monotonic() - started < 20
    site.signal.reset()
    monkeypatch.undo()


def test_an_abort_stops_the_evaluation_too(site: Site) -> None:
    site.signal.trigger(True)
    assert answered(site.ask("validate")) == ReturnCode.TASK_ABORTED


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ConfigError("site configuration /a/b c.json: device = 'gpu'"),
            "ConfigError: site configuration <path>: device = 'gpu' (set this site's log level",
        ),
        (CheckpointError("~/weights/x.safetensors lacks k"), "CheckpointError: <path> (set this site's log level"),
        (ConfigError(r"C:\data\site.json is no file"), "ConfigError: <path> (set this site's log level"),
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
