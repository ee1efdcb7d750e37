"""``med-duallora predict --adapter``: a global adapter with a shared head, for scans without labels."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from med_duallora.cli import main
from med_duallora.cohorts.prepared import PreparedCohort, load_volume
from med_duallora.server.artifact import load_adapter
from med_duallora.settings.config import SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.site.features import FeatureSource
from med_duallora.site.model import network_of
from tests.conftest import write_tiny_cohort
from tests.unit.inference.received import global_adapter, job_with
from tests.unit.tiny_site import cohort_with

SHARED = "lora.head_policy=shared"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_cohort(tmp_path_factory.mktemp("cohort") / "west", "ge", 9)


@pytest.fixture
def base(cohort: Path, tiny_checkpoint: Path, tmp_path: Path) -> list[str]:
    adapter = global_adapter(tmp_path / "server", job_with(tiny_checkpoint, SHARED))
    checkpoint = ["--backbone-checkpoint", str(tiny_checkpoint), "--out", str(tmp_path / "out"), "--ungated"]
    return ["predict", "--adapter", str(adapter), *checkpoint]


def rows(tmp_path: Path) -> dict[str, float]:
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    return {row["scan"]: row["probability"] for row in found}


def test_the_probabilities_are_those_of_the_shared_head_on_features_of_these_scans(
    base: list[str], cohort: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*base, "--data", str(cohort)]) == 0
    said = capsys.readouterr().out
    assert "standardised with the statistics of these 10 scans themselves" in said
    assert "This model is not released. This model was never evaluated at this site" in said
    job = job_with(tiny_checkpoint, SHARED)
    network = network_of(job, tiny_checkpoint, "cpu")
    tensors, _ = load_adapter(Path(base[2]))
    network.load_values(network.plan.sent, tensors)
    source = FeatureSource(network, job, "0" * 64, None)
    subjects = PreparedCohort.read(cohort).subjects
    with torch.no_grad():
        trunk = source.of_volumes([load_volume(subject) for subject in subjects])
        network.head_norm.train()  # standardises by the batch, which is all of the scans
        chances = torch.softmax(network.tail(trunk), dim=1)[:, 1].numpy()
    assert np.ptp(chances) > 1e-3
    found = rows(tmp_path)
    assert [found[s.subject] for s in subjects] == pytest.approx(chances, rel=0, abs=1e-5)
    model = json.loads((tmp_path / "out" / "predictions.json").read_text())["model"]
    assert model["released"] is False
    assert "no site evaluated it here" in model["remark"]


def test_labels_are_not_looked_at_and_a_second_start_goes_on(
    base: list[str], cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [argument for s in PreparedCohort.read(cohort).subjects for argument in ("--scan", str(s.ed_path.parent))]
    assert main([*base, *scans]) == 0
    first = rows(tmp_path)
    assert main([*base, *scans]) == 0
    assert "10 predicted (10 of them earlier)" in capsys.readouterr().out
    turned = write_tiny_cohort(tmp_path / "turned", "ge", 9)
    cohort_with(turned, lambda row: {**row, "label": str(1 - int(row["label"]))})
    assert main([*base, "--data", str(turned), "--fresh"]) == 0
    assert rows(tmp_path) == first


@pytest.mark.parametrize("policy", ["shared", "global"])
def test_fewer_scans_serve_where_the_head_reads_features_as_they_are(
    base: list[str], cohort: Path, tiny_checkpoint: Path, tmp_path: Path, policy: str
) -> None:
    job = job_with(tiny_checkpoint, f"lora.head_policy={policy}", "lora.head_norm=none")
    adapter = global_adapter(tmp_path / "plain", job)
    assert main([*base, "--adapter", str(adapter), "--data", str(cohort), "--split", "test"]) == 0
    assert len(rows(tmp_path)) == 2


def refused(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, which must refuse in one sentence and write nothing; return the sentence."""
    assert main(arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("reading ")]
    assert not (tmp_path / "out").exists()
    return line


def test_too_few_scans_and_a_head_that_stayed_name_what_helps(
    base: list[str], cohort: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused([*base, "--data", str(cohort), "--split", "train"], tmp_path, capsys)
    assert "6 different scans can be read, and the head needs the statistics of at least 8" in said
    assert "med-duallora fit-head" in said
    local = global_adapter(tmp_path / "local", job_with(tiny_checkpoint, "lora.head_policy=local"))
    for arguments in ([*base, "--adapter", str(local)], [*base[:-1], "--adapter", str(local)]):
        said = refused([*arguments, "--data", str(cohort)], tmp_path, capsys)
        assert "brings no head: in its job the head stays at the sites" in said
        assert "med-duallora fit-head" in said


def test_scans_that_cannot_be_read_do_not_count(
    base: list[str], cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "damaged.nii.gz").write_bytes(b"no image")
    more = ["--scan", str(tmp_path / "damaged.nii.gz")]
    too_few = refused([*base, "--data", str(cohort), "--split", "train", *more], tmp_path, capsys)
    assert "6 different scans can be read" in too_few
    assert main([*base, "--data", str(cohort), *more]) == 2
    said = capsys.readouterr().out
    assert "statistics of these 10 scans" in said
    assert "10 predicted, 1 refused" in said


def test_a_model_that_nobody_evaluated_here_needs_the_word_for_it(
    base: list[str], cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused([*base[:-1], "--data", str(cohort)], tmp_path, capsys)
    assert "was never evaluated at this site" in said
    assert "--ungated" in said


def test_the_sites_pinned_backbone_is_asked(
    base: list[str], cohort: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = replace(SitePolicy.for_one_machine(), backbone_sha256="0" * 64)
    config = SiteConfig(cohort, tmp_path / "s", tmp_path / "c", tiny_checkpoint, device="cpu", policy=policy)
    (tmp_path / "site.json").write_text(json.dumps(asdict(config), default=str))
    said = refused([*base, "--data", str(cohort), "--site-config", str(tmp_path / "site.json")], tmp_path, capsys)
    assert "policy.backbone_sha256" in said


def test_half_an_adapter_is_refused_and_a_model_beside_an_adapter_is_bad_usage(
    base: list[str], cohort: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fedsa = global_adapter(tmp_path / "fedsa", job_with(tiny_checkpoint, "method=fedsa-lora"))
    said = refused([*base, "--adapter", str(fedsa), "--data", str(cohort)], tmp_path, capsys)
    assert "keeps a factor of each pair at the sites" in said
    feddpa = global_adapter(tmp_path / "feddpa", job_with(tiny_checkpoint, "method=feddpa"))
    said = refused([*base, "--adapter", str(feddpa), "--data", str(cohort)], tmp_path, capsys)
    assert "only together with the local one" in said
    with pytest.raises(SystemExit):
        main([*base, "--model", "x", "--data", str(cohort)])
    assert "not allowed with argument" in capsys.readouterr().err


def test_one_scan_under_eight_names_tells_nothing_of_how_scans_differ(
    base: list[str], cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its statistics would have made every feature of every scan 0, and the prediction the same for any scan."""
    subjects = PreparedCohort.read(cohort).subjects
    names = [tmp_path / f"name{n}" for n in range(8)]
    for name in names:
        name.symlink_to(subjects[0].ed_path.parent)
    scans = [argument for name in names for argument in ("--scan", str(name))]
    assert "1 different scans can be read" in refused([*base, *scans], tmp_path, capsys)
    assert main([*base, "--data", str(cohort), *scans]) == 0
    assert "statistics of these 10 scans" in capsys.readouterr().out, "it counts once"
