"""A global adapter as a federation's server leaves it, and a labelled cohort of a site that had no part in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from med_duallora.backbone import checkpoint_sha256
from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.server.artifact import adapter_manifest, save_adapter
from med_duallora.settings.config import JobConfig
from tests.unit.tiny import random_payload
from tests.unit.tiny_site import JOB


def job_with(checkpoint: Path, *assignments: str) -> JobConfig:
    """Return the tiny job that pins the tiny backbone, as one about a shipped backbone does by itself."""
    return JOB.with_overrides([f"backbone_sha256={checkpoint_sha256(checkpoint)}", *assignments])


def global_adapter(folder: Path, job: JobConfig, tensors: Mapping[str, np.ndarray] | None = None, **facts: Any) -> Path:
    """Write the global adapter of a job's second round; return the path of its tensors."""
    contract = EgressContract.for_job(job)
    given = {"lineage": Lineage.begin().to_list(), "round": 1, "sites": ["ge", "philips"], **facts}
    manifest = adapter_manifest(job, contract)
    folder.mkdir(exist_ok=True)
    return save_adapter(folder, "adapter_last", tensors or random_payload(contract, scale=0.3), {**manifest, **given})
