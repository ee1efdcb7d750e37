"""``med-duallora fit-head``: a model of a site that did not train."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors.torch import save_file

from med_duallora.backbone import BackboneConfig, build_classifier
from med_duallora.boundary.contract import EgressContract
from med_duallora.cli import main
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.inference.model import load_model
from med_duallora.inference.saved import read_saved
from med_duallora.settings.config import SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.settings.release import ReleaseFloors
from tests.conftest import write_tiny_cohort
from tests.unit.inference.received import global_adapter, job_with
from tests.unit.tiny import random_payload
from tests.unit.tiny_site import cohort_with


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_cohort(tmp_path_factory.mktemp("cohort") / "ge", "ge", 9, 18, (10, 2, 6))


@pytest.fixture
def base(cohort: Path, tiny_checkpoint: Path, tmp_path: Path) -> list[str]:
    adapter = global_adapter(tmp_path / "server", job_with(tiny_checkpoint, "lora.head_policy=local"))
    checkpoint = ["--backbone-checkpoint", str(tiny_checkpoint)]
    place = ["--out", str(tmp_path / "out" / "model.safetensors")]
    return ["fit-head", "--adapter", str(adapter), "--data", str(cohort), *checkpoint, *place]


def test_the_model_predicts_and_has_a_gate(
    base: list[str], cohort: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(base) == 0
    said = capsys.readouterr()
    assert "reading training subjects" in said.err, "the progress"
    assert "head fitted to 10 training subjects, global adapter of round 2" in said.out
    assert "test subjects, threshold 0.5: " in said.out
    assert " of 3 diseased found, " in said.out
    assert said.out.endswith("Research use only, not for diagnosis.\n")
    path = tmp_path / "out" / "model.safetensors"
    assert path.stat().st_mode & 0o777 == 0o600
    model = load_model(path, backbone_checkpoint=tiny_checkpoint, device="cpu")
    subjects = PreparedCohort.read(cohort).split("test")
    chances = {s.label: model.predict(s.ed_path.parent).probability for s in subjects}
    assert chances[1] > chances[0], "the discs of the two classes differ"
    assert model.saved.site == "ge"
    assert model.saved.gate.passed, "no floor is set, and it was evaluated here"
    assert model.saved.evaluation is not None
    assert model.saved.evaluation.test.n_positive == 3
    arguments = ["predict", "--model", str(path), "--backbone-checkpoint", str(tiny_checkpoint), "--out"]
    assert main([*arguments, str(tmp_path / "predicted"), "--data", str(cohort), "--split", "test"]) == 0
    assert "6 predicted, 0 refused" in capsys.readouterr().out


def test_it_holds_the_global_adapter_no_local_one_and_the_statistics_of_the_chosen(
    base: list[str], tmp_path: Path
) -> None:
    assert main([*base, "--k", "6", "--site", "west"]) == 0
    saved = read_saved(tmp_path / "out" / "model.safetensors")
    sent = load_file(base[2])
    assert saved.site == "west"
    assert {name: value.tobytes() for name, value in saved.state.sent.items()} == {
        name: value.tobytes() for name, value in sent.items()
    }
    local = {name: value for name, value in saved.state.kept.items() if name.endswith("local_b")}
    assert local
    assert not any(value.any() for value in local.values())
    assert len(saved.state.reference["distances"]) == 6


def test_a_shared_head_is_corrected_and_that_is_said(
    base: list[str], tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = global_adapter(tmp_path / "shared", job_with(tiny_checkpoint))
    assert main([*base, "--adapter", str(adapter)]) == 0
    assert "The federation shared its head; this model has it, corrected by these subjects." in capsys.readouterr().out
    sent, own = load_file(adapter), read_saved(tmp_path / "out" / "model.safetensors").state.sent
    changed = {name for name in sent if not np.array_equal(sent[name], own[name])}
    assert changed
    assert all("pred_head_dict" in name for name in changed)


def test_an_adapter_of_a_version_with_other_metrics_serves(
    base: list[str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """The hash of a contract is also of its metrics, which do not matter for using an adapter."""
    adapter = global_adapter(tmp_path / "older", job_with(tiny_checkpoint), contract_sha256="0" * 64)
    assert main([*base, "--adapter", str(adapter)]) == 0


@pytest.mark.parametrize("method", ["fedavg-lora", "ffa-lora"])
def test_other_methods_serve_too(base: list[str], tiny_checkpoint: Path, tmp_path: Path, method: str) -> None:
    adapter = global_adapter(tmp_path / method, job_with(tiny_checkpoint, f"method={method}"))
    assert main([*base, "--adapter", str(adapter)]) == 0


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], place: Path) -> str:
    """Run the command, which must refuse in one sentence and write nothing; return the sentence."""
    assert main(arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("reading ")]
    assert line.startswith("med-duallora fit-head: ")
    assert not (place / "out" / "model.safetensors").exists()
    return line


def test_an_adapter_that_is_not_whole_or_not_its_own_is_refused(
    base: list[str], tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_with(tiny_checkpoint)
    fedsa = global_adapter(tmp_path / "fedsa", job_with(tiny_checkpoint, "method=fedsa-lora"))
    silent = global_adapter(tmp_path / "silent", job, lineage=None)
    wide = job_with(tiny_checkpoint, "lora.rank_global=4")
    misfit = global_adapter(tmp_path / "misfit", job, random_payload(EgressContract.for_job(wide)))
    cut = global_adapter(tmp_path / "cut", job)
    cut.write_bytes(cut.read_bytes()[:-4] + b"\0\0\0\1")
    rounds = {f"round{n}": odd for n, odd in enumerate((-5, True, 1.7, "1", 3))}
    odd_rounds = [global_adapter(tmp_path / name, job, round=odd) for name, odd in rounds.items()]
    endless = global_adapter(tmp_path / "endless", job, round=-7).with_suffix(".json")  # Python writes no infinity
    endless.write_text(endless.read_text().replace("-7", "1e999"))
    odd_rounds.append(endless.with_suffix(".safetensors"))
    cases = {
        **dict.fromkeys(odd_rounds, "does not say which job, run and round it belongs to"),
        tmp_path: "is not an adapter; an adapter is a .safetensors file and its .json: give the former",
        cut.with_suffix(".json"): "is not an adapter; an adapter is a .safetensors file and its .json",
        fedsa: "fedsa-lora, keeps a factor of each pair at the sites that trained",
        silent: "does not say which job, run and round it belongs to",
        misfit: "does not hold the tensors of its job's egress contract: tensor",
        cut: "sha256 differs",
        tmp_path / "nowhere.safetensors": "nowhere.safetensors is missing",
    }
    for adapter, sentence in cases.items():
        assert sentence in refused([*base, "--adapter", str(adapter)], capsys, tmp_path)


def test_another_backbone_is_refused(
    base: list[str], tmp_path: Path, tiny_checkpoint: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.safetensors"
    weights = build_classifier(BackboneConfig.preset("cinema-tiny"), seed=8).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, other)
    said = refused([*base, "--backbone-checkpoint", str(other)], capsys, tmp_path)
    assert "was trained on the backbone checkpoint with the SHA-256" in said
    policy = replace(SitePolicy.for_one_machine(), backbone_sha256="0" * 64)
    config = SiteConfig(cohort, tmp_path / "s", tmp_path / "c", tiny_checkpoint, device="cpu", policy=policy)
    (tmp_path / "site.json").write_text(json.dumps(asdict(config), default=str))
    said = refused([*base, "--site-config", str(tmp_path / "site.json")], capsys, tmp_path)
    assert "policy.backbone_sha256 of the site configuration is pinned" in said


def test_a_cohort_that_is_not_enough_is_refused(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_class = write_tiny_cohort(tmp_path / "one", "ge", 1)
    cohort_with(one_class, lambda row: {**row, "label": "0", "pathology": "NOR"})
    small = write_tiny_cohort(tmp_path / "small", "ge", 1, 6, (4, 1, 1))
    cases = [
        (["--data", str(one_class)], "a head needs both classes, and its train split has 6 normal"),
        (["--data", str(small)], "2 normal (NOR) and 2 diseased subjects, and a head needs at least 3 of each class"),
        (["--k", "11"], "fewer than the 11 asked for"),
        (["--k", "4"], "4 are asked for, and a head needs at least 3 of each class"),
    ]
    for more, sentence in cases:
        assert sentence in refused([*base, *more], capsys, tmp_path)


def test_nothing_is_replaced(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_text("mine")
    assert main(base) == 2
    assert "is there already; choose a new file" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.safetensors").read_text() == "mine"


def test_the_sites_floors_are_those_of_the_gate(
    base: list[str], cohort: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release, policy = ReleaseFloors(min_sensitivity=0.5, min_specificity=0.5), SitePolicy.for_one_machine()
    config = SiteConfig(cohort, tmp_path / "s", tmp_path / "c", tiny_checkpoint, policy=policy, release=release)
    (tmp_path / "site.json").write_text(json.dumps(asdict(config), default=str))
    assert main([*base, "--site-config", str(tmp_path / "site.json")]) == 0
    assert "Release gate " in capsys.readouterr().out
    kept = read_saved(tmp_path / "out" / "model.safetensors").evaluation
    assert kept is not None
    assert kept.release == release


@pytest.mark.parametrize("name", ["../west", "a\nb", "", "(global adapter)", "server"])
def test_a_name_that_is_no_sites_is_refused(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    said = refused([*base, "--site", name], capsys, tmp_path)
    assert "cannot be the name of a site" in said
    assert "or give another name with --site" in said
