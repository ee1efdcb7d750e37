"""Med-DualLoRA for NVIDIA FLARE: federated dual low-rank adaptation of a cine-cardiac-MRI model.

Research software, not for diagnosis. What users of the library need stands here:

    from med_duallora import JobConfig, SiteConfig, run_federation

It is imported when it is asked for, so that ``import med_duallora`` costs nothing. The core (everything outside
``med_duallora.flare``) never imports nvflare.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_PLACES = {
    "AGGREGATIONS": "adapter.aggregations",
    "METHODS": "adapter.methods",
    "MEASURES": "measures",
    "AdapterPlan": "adapter.plan",
    "BackboneConfig": "backbone.config",
    "CineMAClassifier": "backbone.classifier",
    "DualLoRAModel": "adapter.model",
    "EgressContract": "boundary.contract",
    "FederationResult": "engine",
    "JobConfig": "settings.config",
    "MedDualLoRAError": "errors",
    "MedDualLoRARecipe": "flare.jobs.recipe",
    "PreparedCohort": "cohorts.prepared",
    "SiteConfig": "settings.config",
    "SiteModel": "site.model",
    "SitePolicy": "settings.policy",
    "WorkflowConfig": "settings.workflow",
    "load_adapter": "server.artifact",
    "load_classifier": "backbone.checkpoint",
    "load_model": "inference.model",
    "prepare_cohorts": "cohorts.prepare",
    "run_federation": "engine",
    "save_model": "inference.saved",
}
"""The room of every name that this package offers to programs."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_PLACES]
