import dataclasses
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import Shareable

from med_duallora.adapter.model import initial_global_state
from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import ALONE, Lineage
from med_duallora.errors import CohortError, TrainingDiverged
from med_duallora.flare.site.egress_filter import rebuilt
from med_duallora.flare.wire.payload import LINEAGE, read_metrics_reply, read_train_reply
from med_duallora.settings.config import SITE_CONFIG_VARIABLE, JobConfig, SiteConfig
from med_duallora.site.runtime import SiteRuntime
from tests.unit.flare.learning import Site
from tests.unit.flare.standin import Engine, answered
from tests.unit.tiny import same


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


def test_after_training_the_test_split_is_scored(site: Site, contract: EgressContract) -> None:
    site.ask("train")
    scores = read_metrics_reply(contract, rebuilt("validate", site.ask("validate"), contract))
    assert {"backbone.auroc", "global.auroc", "local.auroc", "both.auroc", "n_test_subjects"} <= set(scores)


def test_the_configuration_is_found_through_the_privacy_scope(
    engine: Engine, tiny_job: JobConfig, configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SITE_CONFIG_VARIABLE)
    properties = {FLContextKey.SCOPE_PROPERTIES: {"med_duallora_site_config": str(configured)}}
    assert answered(Site(engine, tiny_job).ask("train", **properties)) == ReturnCode.OK


def test_the_learner_decides_how_many_threads_its_process_has(
    site: Site, configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", used.append)
    configured.write_text(json.dumps({**json.loads(configured.read_text()), "n_threads": 3}))
    assert answered(site.ask("train")) == ReturnCode.OK
    assert used == [3]


def no_file(path: Path) -> None:
    path.unlink()


def no_json(path: Path) -> None:
    path.write_text("{")


def empty_cohort(path: Path) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "data_dir": str(path.parent / "patient007")}))


BROKEN = [("the file is missing", no_file), ("it is not JSON", no_json), ("the cohort is missing", empty_cohort)]


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


def test_an_unusable_place_is_reported_with_file_and_setting_but_without_paths(
    site: Site, configured: Path, caplog: pytest.LogCaptureFixture
) -> None:
    empty_cohort(configured)
    with caplog.at_level(logging.INFO):
        site.ask("train")
    expected = "UnfitError: site configuration site_ge.json in <path>: data_dir = '<path>', but there is no such folder"
    assert expected in caplog.text


def test_a_device_that_is_not_there_is_reported_with_file_setting_and_fix(
    site: Site, configured: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    configured.write_text(json.dumps({**json.loads(configured.read_text()), "device": "cuda"}))
    with caplog.at_level(logging.INFO):
        assert answered(site.ask("train")) == ReturnCode.EXECUTION_EXCEPTION
    expected = (
        "UnfitError: site configuration site_ge.json in <path>: device = 'cuda', but this machine has no usable CUDA "
        "device: use cpu or auto"
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
    monkeypatch.setattr("tests.unit.flare.learning.set_lineage", lambda task, _: task.set_header(LINEAGE, lineage))
    for task in ("train", "validate"):
        assert answered(site.ask(task)) == ReturnCode.BAD_TASK_DATA
    assert not list(configured.parent.rglob("state.safetensors"))


def test_a_task_s_run_decides_which_state_is_continued(site: Site) -> None:
    def kept_in(lineage: Lineage, task: str) -> dict[str, np.ndarray]:
        job = Site(site.engine, site.job)
        job.lineage = lineage
        assert answered(job.ask(task)) == ReturnCode.OK
        assert job.learner.runtime is not None
        assert job.learner.runtime.model.directory.name == lineage.run_id
        return job.learner.runtime.kept_state()

    first = Lineage.begin()
    kept = kept_in(first, "train")
    assert not same(kept_in(Lineage.begin(), "validate"), kept), "another run"
    assert same(kept_in(first.continued(1), "validate"), kept), "a run that continues the first one"


def test_a_job_has_one_run(site: Site) -> None:
    assert answered(site.ask("train")) == ReturnCode.OK
    first = site.lineage
    for lineage in (Lineage.begin(), first.continued(1), ALONE):
        site.lineage = lineage
        for task in ("train", "validate"):
            assert answered(site.ask(task)) == ReturnCode.BAD_TASK_DATA
    site.lineage = first
    assert answered(site.ask("validate")) == ReturnCode.OK


@pytest.mark.parametrize("kind", ["third", "", "LAST"])
def test_an_evaluation_of_an_unknown_kind_is_refused(kind: str, site: Site) -> None:
    site.kind = kind
    assert answered(site.ask("validate")) == ReturnCode.BAD_TASK_DATA


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
    site.job = site.job.with_overrides(["train.local_epochs=20"])
    site.engine.components["job"].settings = site.job
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


def test_a_site_that_evaluates_only_leaves_training_to_others(
    site: Site, configured: Path, contract: EgressContract, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    values = json.loads(configured.read_text())
    configured.write_text(json.dumps({**values, "role": "predict"}))
    reply = site.ask("train")
    assert answered(reply) == ReturnCode.TASK_UNSUPPORTED
    assert set(reply) == {"__headers__"}, "not one number"
    assert "training left to others: this site evaluates only" in caplog.text
    assert not list(tmp_path.rglob("state.safetensors"))
    scores = read_metrics_reply(contract, rebuilt("validate", site.ask("validate"), contract))
    assert {"backbone.auroc", "global.auroc", "n_test_subjects"} <= set(scores)
    assert not any(name.startswith(("local.", "both.")) for name in scores)
