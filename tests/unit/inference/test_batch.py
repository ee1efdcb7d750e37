"""Many scans into one folder: what is done is not done again, what is refused has its row, nothing mixes."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from med_duallora import load_model
from med_duallora.errors import InputError
from med_duallora.inference import batch
from med_duallora.inference.batch import predict_batch
from med_duallora.inference.model import TrainedModel
from med_duallora.inference.scan import ScanSource
from tests.unit.inference.conftest import Trained
from tests.unit.inference.test_model import set_threshold


@pytest.fixture(scope="module")
def model(trained: Trained) -> TrainedModel:
    return load_model(trained.run, backbone_checkpoint=trained.checkpoint, device="cpu")


def sources_of(trained: Trained) -> list[ScanSource]:
    return [ScanSource(subject.ed_path.parent, subject=subject) for subject in trained.subjects]


def read(out: Path) -> tuple[dict, list[dict[str, str]]]:
    with (out / "predictions.csv").open(newline="") as stream:
        return json.loads((out / "predictions.json").read_text()), list(csv.DictReader(stream))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the scans that were read."""
    found: list[str] = []
    original = ScanSource.read

    def read(source: ScanSource, workplace: Path | None = None) -> object:
        found.append(source.name)
        return original(source, workplace)

    monkeypatch.setattr(ScanSource, "read", read)
    return found


def test_the_files_say_what_the_evaluation_said(model: TrainedModel, trained: Trained, tmp_path: Path) -> None:
    predict_batch(model, sources_of(trained), tmp_path)
    found, rows = read(tmp_path)
    said = {row["scan"]: row["probability"] for row in found["predictions"]}
    assert said == pytest.approx(trained.said, rel=0, abs=1e-6)
    assert {row["scan"]: float(row["probability"]) for row in rows} == said
    assert found["not_for_diagnosis"] is True
    assert (found["model"]["site"], found["model"]["run"]) == ("siemens", trained.run.name)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in (batch.JSON_FILE, batch.CSV_FILE)] == [0o600] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.csv", "predictions.json"]


def test_a_second_start_does_only_what_is_new_or_changed(
    model: TrainedModel, trained: Trained, scans: Path, tmp_path: Path, reads: list[str]
) -> None:
    out, (cine, ed, es) = tmp_path / "out", (scans / f"{name}.nii.gz" for name in ("cine", "ed", "es"))
    own = Path(shutil.copy(cine, tmp_path / "own.nii.gz"))
    first = predict_batch(model, [ScanSource(own), *sources_of(trained)], out)
    reads.clear()
    pair = ScanSource(ed, es)
    second = predict_batch(model, [ScanSource(own), pair, *sources_of(trained)], out)
    assert reads == ["ed"]
    assert second.n_earlier == 3
    assert second.rows[0] == first.rows[0]
    shutil.copy(scans / "still.nii.gz", own)
    reads.clear()
    third = predict_batch(model, [ScanSource(own)], out)
    assert reads == ["own"]
    assert [row["refused"] != "" for row in third.rows] == [True]
    assert len(read(out)[1]) == 4, "what was predicted before stays"


def test_a_scan_that_is_refused_does_not_stop_the_others(model: TrainedModel, scans: Path, tmp_path: Path) -> None:
    sources = [ScanSource(scans / "damaged.nii.gz"), ScanSource(scans / "cine.nii.gz"), ScanSource(scans / "gone")]
    outcome = predict_batch(model, sources, tmp_path)
    assert [bool(row["refused"]) for row in outcome.rows] == [True, False, True]
    found, rows = read(tmp_path)
    assert [row["probability"] == "" for row in rows] == [True, False, True]
    assert "gone does not exist" in rows[2]["refused"]
    assert {frozenset(row) for row in found["predictions"]} == {frozenset(found["predictions"][0])}


def test_results_of_another_model_are_never_mixed(
    model: TrainedModel, trained: Trained, tmp_path: Path, reads: list[str]
) -> None:
    predict_batch(model, sources_of(trained), tmp_path)
    other = shutil.copytree(trained.run, tmp_path / "other")
    set_threshold(Path(other), 0.25)
    second = load_model(other, backbone_checkpoint=trained.checkpoint, device="cpu")
    before = read(tmp_path)
    with pytest.raises(InputError, match=r"predictions of another model, or of another threshold: .* --fresh"):
        predict_batch(second, sources_of(trained), tmp_path)
    assert read(tmp_path) == before
    reads.clear()
    predict_batch(second, sources_of(trained)[:1], tmp_path, fresh=True)
    assert len(reads) == 1
    assert [row["threshold"] for row in read(tmp_path)[1]] == ["0.25"]


@pytest.mark.parametrize("content", ["", "{}", '{"predictions": [1], "model": {"sha256": ""}}', "[" * 10_000])
def test_damaged_results_are_said_and_left(content: str, model: TrainedModel, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "predictions.json").write_text(content)
    with pytest.raises(InputError, match=r"not a file of results that can be gone on with.*--fresh"):
        predict_batch(model, sources_of(trained), tmp_path)
    assert (tmp_path / "predictions.json").read_text() == content


def test_what_was_done_is_kept_when_it_is_interrupted(
    model: TrainedModel, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = sources_of(trained)
    original = ScanSource.read

    def read_one(source: ScanSource, workplace: Path | None = None) -> object:
        if source.name == done[1].name:
            raise KeyboardInterrupt
        return original(source, workplace)

    monkeypatch.setattr(ScanSource, "read", read_one)
    with pytest.raises(KeyboardInterrupt):
        predict_batch(model, done, tmp_path)
    assert [row["scan"] for row in read(tmp_path)[1]] == [done[0].name]


def test_one_scan_given_twice_is_said(model: TrainedModel, trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is given more than once"):
        predict_batch(model, sources_of(trained) * 2, tmp_path)
