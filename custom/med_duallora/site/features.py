"""Trunk features, computed once per subject and view: the trunk is frozen, so repeating it in every step is waste.

They are kept under the hash of everything that decides their content, so a changed volume, backbone, cut or
augmentation can never meet an old entry, and two jobs may share one cache, see ``feature_cache``.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from med_duallora.adapter.model import DualLoRAModel, TrunkFeatures
from med_duallora.backbone import BackboneConfig
from med_duallora.backbone.inputs import INPUTS_VERSION, augment, to_input
from med_duallora.cohorts.prepared import PreparedSubject
from med_duallora.errors import ConfigError, TrainingAborted
from med_duallora.settings.config import JobConfig
from med_duallora.site.feature_cache import FeatureCache
from med_duallora.site.volumes import Volumes
from med_duallora.support.files import sha256_of_json
from med_duallora.support.seeds import generator

FEATURES = ("tokens", "fusion_term")


class FeatureSource:
    """Trunk features of a site's subjects and views.

    View 0 is the unaugmented image; view v > 0 is a random change of it that depends on the experiment's seed, the
    subject and v alone.

    Args:
        model: whose trunk is used; its device decides where the trunk runs.
        job: augmentation, seed, feature dtype.
        backbone_sha256: hash of the checkpoint behind the trunk.
        cache: where features are kept, or None to compute them each time.
        volumes: of the subjects, shared with other sources of the same process; None: of its own.
    """

    def __init__(
        self,
        model: DualLoRAModel,
        job: JobConfig,
        backbone_sha256: str,
        cache: FeatureCache | None,
        volumes: Volumes | None = None,
    ) -> None:
        self.model = model
        self.job = job
        self.cache = cache
        self.backbone = BackboneConfig.preset(job.backbone)
        self.dtype: torch.dtype = getattr(torch, job.train.feature_dtype)
        self._common = {
            "inputs": INPUTS_VERSION,
            "backbone": backbone_sha256,
            "preset": self.backbone.to_dict(),
            "cut": model.cut,
            "dtype": job.train.feature_dtype,
        }
        self.volumes = volumes or Volumes()

    @property
    def device(self) -> torch.device:
        """Return where the model is."""
        return next(self.model.parameters()).device

    def batch(
        self, subjects: Sequence[PreparedSubject], views: Sequence[int], should_stop: Callable[[], bool] = lambda: False
    ) -> TrunkFeatures:
        """Return the features of a batch on the model's device, float32.

        Raises:
            TrainingAborted: ``should_stop`` said so between two subjects.
            ConfigError: the features cannot be held in the job's ``feature_dtype``.
            CohortError: a volume is unusable, or changed while the job runs.
        """
        parts = []
        for subject, view in zip(subjects, views, strict=True):
            if should_stop():
                raise TrainingAborted("stopped while trunk features were computed")
            parts.append(self._one(subject, view))
        return self._joined(parts)

    def summary(
        self, subject: PreparedSubject, view: int, tail: str, should_stop: Callable[[], bool] = lambda: False
    ) -> Tensor:
        """Return what the heads read of a subject with the adapters that are on (1, 2 * dim), on the model's device.

        It is kept beside the features, so that a comparison with the frozen backbone costs its time once.

        Args:
            subject: whose scan it is.
            view: of it.
            tail: hash of everything behind the trunk that acts; under another one nothing is found.
            should_stop: asked before it is computed.

        Raises:
            TrainingAborted: ``should_stop`` said so.
            ConfigError: see ``batch``.
            CohortError: likewise.
        """
        if self.cache is None:
            return self.model.summaries(self.batch([subject], [view], should_stop))
        if should_stop():
            raise TrainingAborted("stopped while features were computed")
        key = self._key(subject, view, tail=tail)
        found = self.cache.load(key)
        if found is not None:
            return found["summary"].to(self.device)
        summary = self.model.summaries(self.batch([subject], [view], should_stop))
        self.cache.store(key, {"summary": summary.detach().to("cpu", torch.float32).contiguous()})
        return summary

    def of_volumes(self, volumes: Sequence[np.ndarray]) -> TrunkFeatures:
        """Return the features of view 0 of prepared volumes at hand, as ``batch`` does; the cache has no part in it."""
        return self._joined([self._compute(to_input(volume, self.backbone)) for volume in volumes])

    def _joined(self, parts: Sequence[dict[str, Tensor]]) -> TrunkFeatures:
        tokens, fusion_term = (
            torch.cat([part[name] for part in parts]).to(self.device, torch.float32) for name in FEATURES
        )
        return TrunkFeatures(tokens, fusion_term)

    def _one(self, subject: PreparedSubject, view: int) -> dict[str, Tensor]:
        if self.cache is None:
            return self._compute(self._input(subject, view))
        key = self._key(subject, view)
        found = self.cache.load(key)
        if found is None:
            found = self._compute(self._input(subject, view))
            self.cache.store(key, found)
        return found

    def _key(self, subject: PreparedSubject, view: int, **more: str) -> str:
        changed = None
        if view:
            # the subject's name picks the random stream, so it is part of an augmented view's content
            changed = [subject.subject, view, self.job.train.seed, asdict(self.job.augment)]
        return sha256_of_json({**self._common, "volume": self.volumes.sha256(subject), "view": changed, **more})

    def _input(self, subject: PreparedSubject, view: int) -> np.ndarray:
        volume = self.volumes.of(subject)
        if view:
            stream = generator(self.job.train.seed, "view", subject.subject, view)
            volume = augment(volume, self.job.augment, stream)
        return to_input(volume, self.backbone)

    def _compute(self, image: np.ndarray) -> dict[str, Tensor]:
        x = torch.from_numpy(image)[None].to(self.device)
        # an entry must not depend on who asked for it first: the trunk runs in full precision whatever the caller does
        with torch.autocast(self.device.type, enabled=False):
            trunk = self.model.trunk(x)
        found = {name: getattr(trunk, name).to("cpu", self.dtype).contiguous() for name in FEATURES}
        if not all(torch.isfinite(value).all() for value in found.values()):
            raise ConfigError(
                f"trunk features are not finite in {self.job.train.feature_dtype}: check the backbone checkpoint, or "
                "set train.feature_dtype to float32",
                key="train.feature_dtype",
                value=self.job.train.feature_dtype,
                limit="float32",
            )
        return found
