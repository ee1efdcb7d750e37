"""A MONAI bundle: MONAI itself runs it, on a prepared and on a raw scan, and checks its metadata.

MONAI takes seconds to import, and every worker collects every test: so it is imported where it is used.
"""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import med_duallora
from med_duallora.errors import InputError, ScanError
from med_duallora.export.bundle import metadata, write_bundle
from med_duallora.export.card import card_of
from med_duallora.export.monai_parts import PrepareScan
from med_duallora.inference.scan import ScanSource
from med_duallora.site.features import FeatureSource
from med_duallora.site.prediction import predict_volumes
from tests.conftest import write_tiny_cohort
from tests.unit.export.trained import JOBS, trained_model

JOB = JOBS["med-duallora"]
CARD = card_of({"job": JOB.to_dict(), "experiment": "test", "round": 0})
REQUIRED = {
    "schema": "string",
    "version": "string",
    "monai_version": "string",
    "pytorch_version": "string",
    "numpy_version": "string",
    "required_packages_version": "object",
    "task": "string",
    "description": "string",
    "authors": "string",
    "copyright": "string",
    "network_data_format": "object",
}
"""What MONAI's schema of 2024-07-25 demands, and of which type; the rest of it only gives types."""
TENSOR = ("type", "format", "num_channels", "spatial_shape", "dtype", "value_range")
"""What it demands of every tensor that goes in or out."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "test_bundle"
    write_bundle(folder, trained_model(JOB), JOB, 0.6, CARD)
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_cohort(tmp_path_factory.mktemp("data") / "cohort", "siemens", 0, 1, (1, 0, 0)) / "siemens000"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """ED and ES as two raw files: a bright disc that contracts, on other voxels than prepared ones."""
    folder, pair = tmp_path_factory.mktemp("raw"), []
    x, y = np.mgrid[:128, :128] - 64
    for phase, radius in (("ed", 22), ("es", 13)):
        plane = np.where(np.hypot(x, y) < radius, 700.0, 150.0)
        noise = np.random.default_rng(radius).normal(0, 10, (128, 128, 8))
        image = nib.Nifti1Image((plane[..., None] + noise).astype(np.int16), np.diag([1.6, 1.6, 9.0, 1.0]))
        nib.save(image, folder / f"{phase}.nii.gz")
        pair.append(folder / f"{phase}.nii.gz")
    return pair[0], pair[1]


def expected(*paths: Path) -> float:
    """The probability that the model itself gives, before anything was exported."""
    model = trained_model(JOB)
    source = FeatureSource(model, JOB, "0" * 64, None)
    return float(predict_volumes(model, source, [ScanSource(*paths).read().volume], JOB.train)[0][0])


def by_monai(bundle: Path, out: Path, **scan: str) -> dict[str, Any]:
    from monai.bundle import run

    run(
        config_file=str(bundle / "configs" / "inference.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        bundle_root=str(bundle),
        output_file=str(out),
        workflow_type="infer",
        device="$torch.device('cpu')",
        **scan,
    )
    (row,) = json.loads(out.read_text())["predictions"]
    return row


def test_monai_predicts_as_the_model_of_a_prepared_scan(bundle: Path, prepared: Path, tmp_path: Path) -> None:
    row = by_monai(bundle, tmp_path / "p.json", scan=str(prepared))
    assert row["probability"] == pytest.approx(expected(prepared), abs=1e-5)
    assert (row["scan"], row["threshold"]) == ("siemens000", 0.6)
    assert row["decision"] == ("disease" if row["probability"] >= 0.6 else "normal")
    assert stat.S_IMODE((tmp_path / "p.json").stat().st_mode) == 0o600


def test_monai_predicts_as_the_model_of_a_raw_scan(
    bundle: Path, raw: tuple[Path, Path], prepared: Path, tmp_path: Path
) -> None:
    row = by_monai(bundle, tmp_path / "p.json", scan=str(raw[0]), es=str(raw[1]))
    assert row["probability"] == pytest.approx(expected(*raw), abs=1e-5)
    assert abs(expected(*raw) - expected(prepared)) > 1e-3, "another scan is another number"


def test_the_command_runs_in_the_bundles_own_folder(bundle: Path, prepared: Path) -> None:
    """As a user types it; a fresh process has nothing of this one."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    places = [str(Path(med_duallora.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [*command, "--scan", str(prepared)],
        cwd=bundle,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((bundle / "prediction.json").read_text())["predictions"]
    assert row["probability"] == pytest.approx(expected(prepared), abs=1e-5)
    assert "not for diagnosis" in done.stdout


def test_monai_verifies_the_metadata(bundle: Path, tmp_path: Path) -> None:
    """By MONAI's own command; the schema lies where it would have been stored after a download."""
    from monai.bundle import verify_metadata

    io = {"type": "object", "additionalProperties": {"type": "object", "required": list(TENSOR)}, "minProperties": 1}
    network = {"type": "object", "required": ["inputs", "outputs"], "properties": {"inputs": io, "outputs": io}}
    types = {name: {"type": kind} for name, kind in REQUIRED.items()} | {"network_data_format": network}
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "required": list(REQUIRED), "properties": types}))
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(schema))
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({**metadata(JOB, CARD), "version": 1}))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(broken), filepath=str(schema))


def test_nothing_in_it_is_pickled_or_of_this_machine(bundle: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "own", trained_model(JOB), JOB, 0.6, CARD)
    files = {str(path.relative_to(tmp_path / "own")): path for path in (tmp_path / "own").rglob("*") if path.is_file()}
    assert sorted(files) == [
        "configs/inference.json",
        "configs/metadata.json",
        "docs/README.md",
        "docs/model_card.json",
        "models/model.safetensors",
    ]
    for name, path in files.items():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        if not name.endswith(".safetensors"):
            assert str(tmp_path) not in path.read_text()
    assert "not for diagnosis" in files["docs/README.md"].read_text().split("## ")[0]


@pytest.mark.parametrize("scan", ["", "nowhere.nii.gz"])
def test_without_a_scan_it_says_so(scan: str) -> None:
    with pytest.raises(InputError if not scan else (ScanError, InputError)) as caught:
        PrepareScan("cinema-tiny")({"scan": scan, "es": ""})
    assert (scan or "no scan was given") in str(caught.value)
