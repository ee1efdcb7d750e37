"""A run directory as the server leaves it, with round numbers that a reader can check in the head."""

import json
from pathlib import Path

import numpy as np
import pytest

from med_duallora.report import plots
from med_duallora.server.artifact import save_adapter

SITES = ("siemens", "philips")


def round_record(index: int, **changes: object) -> dict[str, object]:
    sites = {
        site: {
            "metrics": {
                "train_loss": 0.7 - 0.1 * index,
                "val_balanced_accuracy": 0.5 + 0.1 * index,
                "seconds": 3.0 + n,
            },
            "payload_bytes": 2048 + 512 * n,
            "weight": 12.0,
        }
        for n, site in enumerate(SITES)
    }
    record = {"round": index, "seconds": 6.0, "sites": sites, "residual": 0.1, "tensor_bytes": 2048, "refused": []}
    record["ended"] = f"2026-01-31T23:0{index}:00.000Z"
    return {**record, **changes}


def scores(sensitivity: float, specificity: float, auroc: float) -> dict[str, float]:
    return {
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "auroc": auroc,
    }


def site_evaluation(counts: tuple[int, int], **variants: dict[str, float]) -> dict[str, float]:
    """Flatten ``variant={metric: value}`` as a site sends it; counts are (diseased, normal)."""
    flat = {f"{variant}.{name}": value for variant, values in variants.items() for name, value in values.items()}
    return {**flat, "n_positive": counts[0], "n_negative": counts[1], "n_test_subjects": sum(counts)}


def evaluation() -> dict[str, object]:
    worse, better = scores(0.5, 0.5, 0.6), scores(1.0, 0.5, 0.9)
    siemens = site_evaluation((4, 2), backbone=worse, **{"global": worse}, local=better, both=scores(1.0, 1.0, 1.0))
    philips = site_evaluation((2, 4), backbone=worse, **{"global": better}, local=worse, both=better)
    origin = {"phantoms": "all", "datasets": []}
    return {
        "model": "best",
        "origin": origin,
        "ended": "2026-01-31T23:02:30.000Z",
        "sites": {"siemens": siemens, "philips": philips},
    }


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of a report's time goes into drawing fine pictures."""
    monkeypatch.setattr(plots, "DPI", 40)


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Return the server's folder inside a simulator-like workspace."""
    return finished_run(tmp_path)


def finished_run(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace" / "server" / "simulate_job" / "app_server"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"experiment": "demo", "train": {"n_rounds": 3}}))
    (folder / "round_metrics.jsonl").write_text("".join(json.dumps(round_record(i)) + "\n" for i in range(3)))
    (folder / "evaluation.json").write_text(json.dumps(evaluation()))
    manifest = {"manifest_version": "1", "backbone_sha256": "f" * 64, "versions": {"python": "3.11"}, "lora": {"n": 1}}
    save_adapter(folder, "adapter_best", {"a": np.zeros((2, 2), dtype=np.float32)}, manifest)
    return folder


def rewrite(path: Path, **changes: object) -> None:
    """Change top-level entries of a JSON file; None removes one."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))
