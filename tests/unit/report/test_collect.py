import json
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from med_duallora.cohorts.origin import Origin
from med_duallora.errors import ArtifactError
from med_duallora.report.collect import find_server_directory, read_run
from med_duallora.server.artifact import save_adapter
from tests.unit.report.conftest import evaluation, rewrite, round_record


def test_a_whole_run_is_read(server: Path) -> None:
    run = read_run(server)
    assert run.sites == ("siemens", "philips")
    assert [item.index for item in run.rounds] == [0, 1, 2]
    assert run.rounds[1].sites["philips"].payload_bytes == 2560
    assert run.rounds[1].sites["philips"].metrics["train_loss"] == pytest.approx(0.6)
    assert run.evaluation.model == "best"
    assert run.evaluation.sites["siemens"]["both.auroc"] == 1.0
    assert run.job.train.n_rounds == 3
    assert run.manifest["backbone_sha256"] == "f" * 64
    assert run.origin == Origin("all")
    assert run.started == datetime(2026, 1, 31, 22, 59, 54, tzinfo=timezone.utc)
    assert run.ended == datetime(2026, 1, 31, 23, 2, 30, tzinfo=timezone.utc)


@pytest.mark.parametrize("n_above", [0, 1, 3])
def test_a_run_is_found_from_every_folder_above_it(server: Path, n_above: int) -> None:
    start = server
    for _ in range(n_above):
        start = start.parent
    assert find_server_directory(start) == server


def test_two_runs_in_one_folder_are_not_mixed(server: Path) -> None:
    twin = server.parent / "second_job"
    twin.mkdir()
    for name in ("job.json", "round_metrics.jsonl"):
        (twin / name).write_bytes((server / name).read_bytes())
    with pytest.raises(ArtifactError, match=r"2 runs below .*choose one: .*app_server, .*second_job"):
        read_run(server.parent)


def test_the_origin_of_the_subjects_is_not_guessed(server: Path) -> None:
    rewrite(server / "evaluation.json", origin=None)
    assert read_run(server).origin is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("origin", {"phantoms": "perhaps", "datasets": []}, "does not say where the subjects come from"),
        ("origin", {"phantoms": "none"}, "does not say where the subjects come from"),
        ("origin", {"phantoms": "none", "datasets": ["nobody's"]}, "does not say where the subjects come from"),
        ("ended", "yesterday", "expected a time as ISO 8601"),
        ("ended", "2026-01-31T23:00:00", "has no time zone"),
    ],
)
def test_a_damaged_origin_or_time_is_named(server: Path, name: str, value: object, message: str) -> None:
    rewrite(server / "evaluation.json", **{name: value})
    with pytest.raises(ArtifactError, match=message):
        read_run(server)


def test_a_run_without_times_has_none(server: Path) -> None:
    lines = [json.loads(line) for line in (server / "round_metrics.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**line, "ended": None}) + "\n" for line in lines)
    (server / "round_metrics.jsonl").write_text(text)
    rewrite(server / "evaluation.json", ended=None)
    run = read_run(server)
    assert (run.started, run.ended) == (None, None)


def test_other_evaluated_adapters_are_kept_apart(server: Path) -> None:
    sites = evaluation()["sites"]
    models = {name: {"round": n, "sites": sites, "failed": {"ge": "gone"}} for n, name in enumerate(("best", "last"))}
    rewrite(server / "evaluation.json", models=models)
    (other,) = read_run(server).other_evaluations
    assert (other.model, other.round_index, other.failed) == ("last", 1, {"ge": "gone"})


def test_what_counted_for_less_is_read_and_may_be_missing(server: Path) -> None:
    assert read_run(server).rounds[0].clipped == {}, "as earlier versions wrote it"
    records = [round_record(0, clipped={"ge": 0.5}, capped={"ge": 14.0}), round_record(1)]
    (server / "round_metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    first = read_run(server).rounds[0]
    assert (first.clipped, first.capped) == ({"ge": 0.5}, {"ge": 14.0})


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere is not a directory"):
        read_run(tmp_path / "nowhere")


def test_a_folder_without_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no folder there holds both job\.json and round_metrics\.jsonl"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("evaluation.json", r"evaluation\.json: No such file.*has the run finished"),
        ("adapter_best.json", r"adapter_best\.json is missing"),
        ("adapter_best.safetensors", r"adapter_best\.safetensors.*is missing"),
    ],
)
def test_a_missing_file_is_named(server: Path, name: str, message: str) -> None:
    (server / name).unlink()
    with pytest.raises(ArtifactError, match=message):
        read_run(server)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param("evaluation.json", '{"model": ', r"evaluation\.json is damaged", id="cut off"),
        pytest.param("evaluation.json", "[]", "must hold one JSON object, not list", id="another kind of JSON"),
        pytest.param(
            "evaluation.json", '{"model": "worst"}', "model = 'worst', expected best or last", id="no adapter"
        ),
        pytest.param("evaluation.json", '{"model": "best"}', "sites must be an object", id="no sites"),
        pytest.param("evaluation.json", '{"model": "best", "sites": {}}', "nobody evaluated", id="empty sites"),
        pytest.param(
            "evaluation.json",
            '{"model": "best", "sites": {"ge": {"both.auroc": NaN}}}',
            r"ge: both\.auroc = nan, expected a finite number",
            id="not finite",
        ),
        pytest.param("job.json", '{"experimemt": "x"}', "unknown setting 'experimemt'", id="another job format"),
        pytest.param("round_metrics.jsonl", "", "holds no round", id="ended before the first round"),
        pytest.param("round_metrics.jsonl", '{"round": 0', "line 1 is damaged", id="cut off line"),
        pytest.param("round_metrics.jsonl", "\udcff", r"round_metrics\.jsonl is damaged", id="not text"),
    ],
)
def test_a_damaged_file_is_named(server: Path, name: str, text: str, message: str) -> None:
    (server / name).write_text(text, errors="surrogateescape")
    with pytest.raises(ArtifactError, match=message):
        read_run(server)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        pytest.param([round_record(0), round_record(0)], "line 2: round 0 follows round 0", id="two runs in one file"),
        pytest.param([round_record(0, seconds="9")], "line 1: seconds = '9', expected a finite", id="text as number"),
        pytest.param([round_record(0, seconds=True)], "seconds = True", id="a truth value is not a number"),
        pytest.param([round_record(0, tensor_bytes=0)], "tensor_bytes = 0", id="a ratio needs the tensors' size"),
        pytest.param([round_record(0, sites=[])], "sites must be an object", id="list of sites"),
        pytest.param([round_record(0, sites={"ge": 3})], "ge: metrics must be an object", id="site without metrics"),
        pytest.param(
            [round_record(0, refused=["ge"])], "refused must be a list of objects", id="refusal without cause"
        ),
        pytest.param([round_record(0, clipped=["ge"])], "clipped must be an object", id="shortened without a factor"),
        pytest.param([round_record(0, capped={"ge": "9"})], "ge = '9', expected a finite", id="weight as text"),
        pytest.param([round_record(0, refused=None)], "refused must be a list", id="refusals left out"),
    ],
)
def test_a_wrong_round_is_named(server: Path, records: list[object], message: str) -> None:
    (server / "round_metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(ArtifactError, match=message):
        read_run(server)


def test_a_manifest_of_another_adapter_is_refused(server: Path) -> None:
    save_adapter(server, "other", {"a": np.ones((2, 2), dtype=np.float32)}, {})
    (server / "other.json").replace(server / "adapter_best.json")
    with pytest.raises(ArtifactError, match="sha256 differs"):
        read_run(server)


def test_a_round_without_contributions_has_no_residual(server: Path) -> None:
    refused = [{"site": "ge", "reason": "a tensor outside the contract"}]
    record = round_record(0, sites={}, residual=None, refused=refused)
    (server / "round_metrics.jsonl").write_text(json.dumps(record))
    (item,) = read_run(server).rounds
    assert item.residual is None
    assert item.refused == ("ge: a tensor outside the contract",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_positive": -1}, r"siemens: n_positive = -1, expected 0 to 1e\+09"),
        ({"n_positive": 2.5}, r"siemens: n_positive = 2\.5, expected a whole number"),
        ({"n_negative": 1e300}, r"siemens: n_negative = 1e\+300, expected 0 to"),
        ({"both.sensitivity": 1.5}, r"siemens: both\.sensitivity = 1\.5, expected 0 to 1"),
        ({"backbone.specificity": -0.1}, r"siemens: backbone\.specificity = -0\.1, expected 0 to 1"),
        ({"both.balanced_accuracy": 7}, r"siemens: both\.balanced_accuracy = 7, expected 0 to 1"),
    ],
)
def test_a_score_that_no_site_can_have_sent_is_named(server: Path, changes: dict[str, float], message: str) -> None:
    sites = json.loads((server / "evaluation.json").read_text())["sites"]
    rewrite(server / "evaluation.json", sites={**sites, "siemens": {**sites["siemens"], **changes}})
    with pytest.raises(ArtifactError, match=message):
        read_run(server)


def test_the_run_folder_of_a_site_that_only_evaluates_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "predictions.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"predictions\.json alone makes no page: scores of a site that only eval"):
        read_run(tmp_path)
