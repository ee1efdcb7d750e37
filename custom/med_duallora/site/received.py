"""A global adapter as a site receives it that has no state of its own: what it must be to be used all the same.

The local adapter starts with a zero product, so that a network with this adapter alone is what the job began with at
every site, moved by what the sites learnt together. The head is another matter, see ``head``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from med_duallora.adapter.methods import plan_of
from med_duallora.adapter.model import DualLoRAModel
from med_duallora.adapter.plan import WHOLE
from med_duallora.adapter.roles import GLOBAL
from med_duallora.backbone import agreed_sha256, checkpoint_sha256
from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.errors import ArtifactError, CheckpointError, ConfigError, EgressViolation
from med_duallora.settings.config import JobConfig
from med_duallora.site.model import network_of


@dataclass(frozen=True)
class ReceivedAdapter:
    """A global adapter with what its manifest says of it.

    Args:
        name: of its file, for messages.
        job: the settings that it was trained with.
        tensors: by the names of the job's contract.
        round_index: the round that gave it, from 0.
        lineage: the runs that led to it.
        backbone_sha256: of the checkpoint that every site trained with; None where the job left it open.
    """

    name: str
    job: JobConfig
    tensors: Mapping[str, np.ndarray]
    round_index: int
    lineage: Lineage
    backbone_sha256: str | None

    @classmethod
    def of(cls, path: Path, tensors: Mapping[str, np.ndarray], manifest: Mapping[str, Any]) -> "ReceivedAdapter":
        """Check what ``server.artifact.load_adapter`` read.

        What counts of the egress contract are its tensors: a version with other metrics can use the adapter as well.

        Raises:
            ArtifactError: the manifest does not say which job, run and round the adapter belongs to; it holds other
                tensors than the contract of its job; or a part of it stayed at the sites.
        """
        try:
            job, lineage = JobConfig.from_dict(manifest["job"]), Lineage.from_list(manifest["lineage"])
            contract = EgressContract.for_job(job)
            round_index = contract.check_round(manifest["round"])
        except (KeyError, ValueError, TypeError, ConfigError, EgressViolation) as error:
            raise ArtifactError(
                f"the manifest of adapter {path} does not say which job, run and round it belongs to ({error}): give "
                "adapter_best.safetensors or adapter_last.safetensors of a finished job, its .json beside it"
            ) from error
        if plan_of(job).kept & GLOBAL:
            raise ArtifactError(
                f"adapter {path} is not whole: its method, {job.method}, keeps a factor of each pair at the sites that "
                "trained, so that a site without training has nothing to complete it with. Train with another method, "
                "such as med-duallora"
            )
        if plan_of(job).mix != WHOLE:
            raise ArtifactError(
                f"adapter {path}: its method, {job.method}, predicts with a global adapter only together with the "
                "local one of a site that trained. Use that site's own model, or train with another method, such as "
                "med-duallora"
            )
        try:
            checked = contract.check_tensors(dict(tensors))
        except EgressViolation as violation:
            raise ArtifactError(
                f"adapter {path} does not hold the tensors of its job's egress contract: {violation}. Use the version "
                "of med-duallora that its manifest names under versions, or get both files again"
            ) from violation
        agreed = manifest.get("backbone_sha256") or agreed_sha256(job.backbone, job.backbone_sha256)
        return cls(path.name, job, checked, round_index, lineage, agreed)

    @property
    def head_policy(self) -> str:
        """Return what the job's method did with the head, one of ``HEAD_POLICIES``."""
        return plan_of(self.job).lora.head_policy

    def network(self, checkpoint: Path, device: str) -> DualLoRAModel:
        """Return the job's network with this adapter, without a local one, its head as the adapter brings it.

        Raises:
            CheckpointError: the backbone is unusable, or another one than the sites trained with.
            ConfigError: the device is not there.
        """
        found = checkpoint_sha256(checkpoint)
        if self.backbone_sha256 not in (None, found):
            raise CheckpointError(
                f"adapter {self.name} was trained on the backbone checkpoint with the SHA-256 {self.backbone_sha256}, "
                f"but {checkpoint} has {found}: give the former one"
            )
        network = network_of(self.job, checkpoint, device)
        network.load_values(network.plan.sent, self.tensors)
        return network
