"""A site predicts with the model that it chose, whatever that is, and exports it where the form can hold it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from med_duallora.adapter.model import initial_global_state
from med_duallora.boundary.lineage import Lineage
from med_duallora.cohorts.prepared import load_volume
from med_duallora.errors import ArtifactError
from med_duallora.export.merged import merged_tensors
from med_duallora.export.peft import write_site
from med_duallora.inference.model import TrainedModel
from med_duallora.inference.saved import read_saved, save_model
from med_duallora.report.site_run import read_site_run
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.site.choice import Choice
from med_duallora.site.deployed import CHOSEN_FOLDER
from med_duallora.site.kept_calibration import read_kept
from med_duallora.site.runtime import SiteRuntime
from tests.unit.tiny import random_payload, same
from tests.unit.tiny_site import JOB, runtime_of

COMPARED = JOB.with_overrides(["train.compare_alone=true"])


def evaluated(config: SiteConfig, job: JobConfig, variant: str, monkeypatch: pytest.MonkeyPatch) -> SiteRuntime:
    """Return a site that chose a variant, whatever its two validation subjects say."""
    found = Choice(variant, "backbone", f"by test: {variant}.")
    monkeypatch.setattr("med_duallora.site.evaluated.choose", lambda *_: found)
    runtime = runtime_of(config, job)
    runtime.model.follow(Lineage.begin())
    runtime.train_round(initial_global_state(job), 0)
    runtime.evaluate(random_payload(runtime.contract, scale=0.3))
    return runtime


def said(runtime: SiteRuntime) -> dict[str, Mapping[str, float]]:
    rows = json.loads((runtime.model.directory / "predictions.json").read_text())["predictions"]
    return {row["subject"]: row for row in rows}


def predicted(model: TrainedModel, runtime: SiteRuntime) -> dict[str, float]:
    subjects = runtime.cohort.split("test")
    chances = [model.chances([load_volume(subject)])[0] for subject in subjects]
    return {subject.subject: float(chance) for subject, chance in zip(subjects, chances, strict=True)}


@pytest.fixture
def config(tiny_sites: dict[str, SiteConfig]) -> SiteConfig:
    return tiny_sites["siemens"]


@pytest.mark.parametrize("variant", ["both", "global", "alone", "backbone"])
@pytest.mark.parametrize(
    "changes", [["lora.head_policy=shared"], ["lora.head_policy=local", "lora.head_norm=none"], ["method=feddpa"]]
)
def test_what_was_chosen_predicts_as_it_was_evaluated(
    config: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, changes: list[str]
) -> None:
    runtime = evaluated(config, COMPARED.with_overrides(changes), variant, monkeypatch)
    rows = said(runtime)
    assert {row["chosen"] for row in rows.values()} == {row[variant] for row in rows.values()}
    checkpoint = config.backbone_checkpoint
    assert checkpoint is not None
    saved = read_saved(runtime.model.directory)
    assert saved.is_evaluated and saved.to_dict()["chosen"] == variant
    model = TrainedModel(saved, checkpoint, "cpu")
    expected = {name: row[variant] for name, row in rows.items()}
    assert predicted(model, runtime) == pytest.approx(expected, abs=2e-4)
    assert saved.calibration == runtime_calibration(runtime)
    again = read_saved(save_model(saved, tmp_path / "model.safetensors"))
    assert (again.sha256, again.acts, again.calibration) == (saved.sha256, saved.acts, saved.calibration)
    assert predicted(TrainedModel(again, checkpoint, "cpu"), runtime) == predicted(model, runtime)
    # the two are told apart, and the network at work still holds what the federation trained
    others = {name: row["local"] for name, row in rows.items()}
    assert predicted(model, runtime) != pytest.approx(others, abs=1e-6)
    state = runtime.model.store.latest()
    assert state is not None and same(dict(state.kept), runtime.kept_state())
    assert same(dict(state.statistics), runtime.model.statistics())


def runtime_calibration(runtime: SiteRuntime) -> Any:
    kept = read_kept(runtime.model.directory)
    assert kept is not None
    return kept.calibration


@pytest.mark.parametrize(
    ("variant", "refused"),
    [
        ("both", ""),
        ("global", "is used with an adapter switched off at this site; export the model as a checkpoint instead"),
        ("backbone", "is used with an adapter switched off at this site; export the model as a checkpoint instead"),
        ("alone", "method local-lora has no global adapter; export the model as a checkpoint instead"),
    ],
)
def test_it_is_exported_where_the_form_can_hold_it(
    config: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, refused: str
) -> None:
    runtime = evaluated(config, COMPARED, variant, monkeypatch)
    assert config.backbone_checkpoint is not None
    model = TrainedModel(read_saved(runtime.model.directory), config.backbone_checkpoint, "cpu")
    (tmp_path / "peft").mkdir()
    if refused:
        with pytest.raises(ArtifactError, match=refused):
            write_site(tmp_path / "peft", model.saved.job, model.network, "about")
        assert not list((tmp_path / "peft").iterdir())
    else:
        write_site(tmp_path / "peft", model.saved.job, model.network, "about")
    weight = merged_tensors(model.network)[_adapted(model)]
    base = _base(model)
    assert torch.equal(weight, base) == (variant == "backbone"), "a checkpoint can hold any"


def _adapted(model: TrainedModel) -> str:
    return next(name for name, _ in _layers(model)) + ".weight"


def _base(model: TrainedModel) -> torch.Tensor:
    return next(layer for _, layer in _layers(model)).base.weight.detach().float()


def _layers(model: TrainedModel) -> list[tuple[str, Any]]:
    named = model.network.classifier.named_modules()
    return [(name, module) for name, module in named if type(module).__name__ == "DualLoRALinear"]


def test_a_training_that_goes_on_uses_the_federations_model_again(
    config: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = evaluated(config, COMPARED, "alone", monkeypatch)
    assert read_saved(runtime.model.directory).job.method == "local-lora"
    runtime.train_round(random_payload(runtime.contract, scale=0.3), 1)
    found = read_saved(runtime.model.directory)
    assert (found.job.method, found.is_evaluated, found.gate.passed) == ("med-duallora", False, False)


def test_another_choice_leaves_nothing_of_the_one_before(config: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = evaluated(config, COMPARED, "backbone", monkeypatch)
    folder = runtime.model.directory / CHOSEN_FOLDER
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    monkeypatch.setattr("med_duallora.site.evaluated.choose", lambda *_: Choice("both", "backbone", "by test."))
    again = runtime_of(replace(config, policy=config.policy), COMPARED)
    again.model.follow(runtime.model.lineage)
    again.evaluate(random_payload(again.contract, seed=1, scale=0.3), kind="best")
    assert not folder.exists()
    assert read_saved(again.model.directory).job.method == "med-duallora"


def test_a_chosen_model_that_is_gone_or_changed_is_not_replaced_by_another(
    config: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = evaluated(config, COMPARED, "alone", monkeypatch)
    path = runtime.model.directory / CHOSEN_FOLDER / "state.safetensors"
    whole = path.read_bytes()
    for change in (lambda: path.write_bytes(whole[:-1]), path.unlink):
        change()
        with pytest.raises(ArtifactError, match=r"is not the model that the site chose.*evaluate the model again"):
            read_saved(runtime.model.directory)


def test_damaged_words_on_the_adapters_are_refused(config: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = evaluated(config, COMPARED, "global", monkeypatch)
    path = runtime.model.directory / CHOSEN_FOLDER / "model.json"
    facts = json.loads(path.read_text())
    for wrong in (True, [True], [1, 0], "no"):
        path.write_text(json.dumps({**facts, "acts": wrong}))
        with pytest.raises(ArtifactError, match="is damaged: acts is"):
            read_saved(runtime.model.directory)


def test_the_page_of_the_site_says_what_it_uses(config: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from med_duallora.report.markdown import to_markdown
    from med_duallora.report.site_page import build

    runtime = evaluated(config, COMPARED, "backbone", monkeypatch)
    found = read_site_run(runtime.model.directory)
    assert list(found.chances) == [row["backbone"] for row in said(runtime).values()]
    assert "by test: backbone." in to_markdown(build(found))
