"""Small trained models of every kind, for the tests of exports."""

import numpy as np

from med_duallora.adapter.model import DualLoRAModel
from med_duallora.settings.config import JobConfig
from tests.unit.tiny import TINY, model_of, shake, tiny_images, tiny_job

JOBS = {
    "med-duallora": tiny_job(),
    "other scales": tiny_job().with_overrides(["lora.rank_global=4", "lora.alpha_global=6", "lora.alpha_local=20"]),
    "shared head": tiny_job().with_overrides(["lora.head_policy=shared"]),
    "plain head": tiny_job().with_overrides(["lora.head_norm=none"]),
    "one adapter": tiny_job(method="fedavg-lora"),
    "fixed A": tiny_job(method="ffa-lora"),
}
"""One job per way in which a model is put together as a sum of adapters."""
OTHER_JOBS = {
    "by halves": tiny_job(method="feddpa"),
    "personal": tiny_job(method="ditto-lora"),
    "no global one": tiny_job(method="local-lora"),
    "own norms": tiny_job(method="fedbn-lora"),
    "whole weights": tiny_job(method="fedavg-full"),
}
"""Likewise, of models that are more than such a sum."""


def trained_model(job: JobConfig, seed: int = 0) -> DualLoRAModel:
    """A tiny model as after training: noise in all that trains, and the head's statistics fitted to images."""
    model = model_of(job)
    shake(model, model.plan.trained, seed)
    if model.head_norm.active:
        rng = np.random.default_rng(seed)
        summaries = model.summaries(model.trunk(tiny_images(8, seed))).detach()
        noise = rng.normal(0, 0.1, tuple(summaries.shape)).astype(np.float32)
        model.head_norm.fit(summaries + summaries.new_tensor(noise))
    return model


__all__ = ["JOBS", "OTHER_JOBS", "TINY", "tiny_images", "trained_model"]
