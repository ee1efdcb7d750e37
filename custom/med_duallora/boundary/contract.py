"""The egress contract: exactly what a payload may hold. A pure check; FLARE's filters carry it.

Anything that is not named here is refused, and a check builds fresh objects from the contract instead of
removing what it knows to be bad.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from med_duallora.adapter.methods import plan_of
from med_duallora.adapter.model import skeleton
from med_duallora.errors import ConfigError, EgressViolation
from med_duallora.measures import MEASURES, REPLIES, STATEMENTS, Place, may_stand, standing_in
from med_duallora.settings.config import JobConfig
from med_duallora.settings.job_limits import numbers_of
from med_duallora.support.files import sha256_of_json

MAX_WEIGHT = 1e9
"""Far above any number of subjects, and low enough that a weighted sum cannot overflow."""
HEADERS = ("__content_type__", "__rc__")
"""Headers of a reply that come from a site; FLARE adds its own (task, cookie, audit event) after all checks."""


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of one allowed tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def n_elements(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class EgressContract:
    """What may leave a site in one payload.

    Args:
        tensors: the allowed tensors by exact name; all of them are required.
        pairs: the factors among them that belong together, as (B, A).
        metrics: the allowed metrics by exact name with their ranges; none is required.
        n_rounds: the last allowed round is ``n_rounds - 1``.
    """

    tensors: Mapping[str, TensorSpec]
    pairs: tuple[tuple[str, str], ...]
    metrics: Mapping[str, tuple[float, float]]
    n_rounds: int

    @classmethod
    def for_job(cls, job: JobConfig) -> "EgressContract":
        """Derive the contract from the job configuration alone, the same at every site and at the server."""
        metrics = {name: measure.limits for name, measure in standing_in(*REPLIES).items()}
        tensors, pairs, _ = _derived(job)
        return cls(tensors, pairs, metrics, job.train.n_rounds)

    @property
    def n_parameters(self) -> int:
        """Return the number of values in one payload."""
        return sum(spec.n_elements for spec in self.tensors.values())

    @property
    def tensor_bytes(self) -> int:
        """Return the bytes that the values alone need."""
        return sum(spec.n_elements * np.dtype(spec.dtype).itemsize for spec in self.tensors.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the contract as plain JSON values."""
        return {
            "tensors": {name: {"shape": list(spec.shape), "dtype": spec.dtype} for name, spec in self.tensors.items()},
            "pairs": [list(pair) for pair in self.pairs],
            "metrics": {name: list(limits) for name, limits in self.metrics.items()},
            "n_rounds": self.n_rounds,
            "headers": list(HEADERS),
            "replies": self.replies(),
            "statistics": {
                name: list(measure.limits)
                for name, measure in standing_in(Place.CONSOLE).items()
                if not measure.is_replied
            },
            "statistic_texts": {name: list(statement.texts) for name, statement in STATEMENTS.items()},
        }

    def replies(self) -> dict[str, Any]:
        """Return what a site may answer by task; a task that is not here may only be answered with an error code."""
        train = {
            "NUM_STEPS_CURRENT_ROUND": ["number", 0, MAX_WEIGHT],
            "current_round": ["integer", 0, self.n_rounds - 1],
            "metrics": ["metrics", *self.metric_names(Place.TRAIN_REPLY)],
            "initial_metrics": ["metrics", *self.metric_names(Place.INITIAL)],
        }
        return {
            "train": {"kind": "WEIGHTS", "data": "tensors", "meta": train},
            "validate": {"kind": "METRICS", "data": ["metrics", *self.metric_names(Place.VALIDATE_REPLY)], "meta": {}},
        }

    def metric_names(self, *places: Place) -> list[str]:
        """Return the metrics that may stand in any of these places; what the table of measures lacks is in none."""
        return [name for name in self.metrics if may_stand(name, frozenset(places))]

    @cached_property
    def sha256(self) -> str:
        """Return the hash that a site can pin."""
        return sha256_of_json(self.to_dict())

    def check_tensors(self, tensors: object) -> dict[str, np.ndarray]:
        """Return fresh copies of exactly the contract's tensors.

        Raises:
            EgressViolation: the first offence: no mapping; a name extra or missing; not a plain array; another dtype
                or shape; a value that is not finite. The message never holds a value.
        """
        if type(tensors) is not dict:
            raise EgressViolation(f"tensors come as {type(tensors).__name__}, expected a plain dict")
        if not all(type(name) is str for name in tensors):
            raise EgressViolation("a tensor name is not text")
        for name in tensors:
            if name not in self.tensors:
                raise EgressViolation(f"a tensor outside the contract: {name[:120]!r}")
        return {name: _checked_tensor(name, spec, tensors) for name, spec in self.tensors.items()}

    def check_metrics(self, metrics: object, place: Place | None = None) -> dict[str, float]:
        """Return fresh floats of the given metrics, all of them inside the contract.

        Args:
            metrics: name -> value.
            place: in which reply, or which part of it, they stand; None: in any.

        Raises:
            EgressViolation: no mapping; an unknown name; not a plain number; not finite; out of range.
        """
        if type(metrics) is not dict:
            raise EgressViolation(f"metrics come as {type(metrics).__name__}, expected a plain dict")
        names = self.metric_names(*(REPLIES if place is None else (place,)))
        checked = {}
        for name, value in metrics.items():
            limits = self.metrics.get(name) if type(name) is str and name in names else None
            if limits is None:
                raise EgressViolation("a metric outside the contract")
            if type(value) not in (int, float):
                raise EgressViolation(f"metric {name} is a {type(value).__name__}, expected a number")
            if not limits[0] <= value <= limits[1]:
                raise EgressViolation(f"metric {name} is out of range [{limits[0]:g}, {limits[1]:g}] or not finite")
            checked[name] = float(value)
        return checked

    def allowed_statistics(self, statistics: Mapping[object, object]) -> dict[str, float | str]:
        """Return what of a site's statistics the console may see; whatever else is there is left out."""
        found: dict[str, float | str] = {}
        for name, value in statistics.items():
            if type(name) is not str:
                continue
            limits = self._statistic_limits(name)
            if limits and type(value) in (int, float) and limits[0] <= value <= limits[1]:  # type: ignore[operator]
                found[name] = float(value)  # type: ignore[arg-type]
            elif type(value) is str and name in STATEMENTS and value in STATEMENTS[name].texts:
                found[name] = value
        return found

    def _statistic_limits(self, name: str) -> tuple[float, float] | None:
        """Return the range of a number that may be told at the console; None where it may not."""
        measure = MEASURES.get(name)
        if measure is None or Place.CONSOLE not in measure.places:
            return None
        return self.metrics.get(name) if measure.is_replied else measure.limits

    def check_weight(self, weight: object) -> float:
        """Return a contribution's weight, a number above 0 and at most ``MAX_WEIGHT`` (else EgressViolation)."""
        if type(weight) not in (int, float) or not 0 < weight <= MAX_WEIGHT:  # type: ignore[operator]
            raise EgressViolation(f"the weight is not a number above 0 and at most {MAX_WEIGHT:g}")
        return float(weight)  # type: ignore[arg-type]

    def check_round(self, round_index: object) -> int:
        """Return the round of a payload, an integer from 0 to ``n_rounds - 1`` (else EgressViolation)."""
        if type(round_index) is not int or not 0 <= round_index < self.n_rounds:
            raise EgressViolation(f"the round is not an integer between 0 and {self.n_rounds - 1}")
        return round_index


@lru_cache(maxsize=32)
def _derived(job: JobConfig) -> tuple[dict[str, TensorSpec], tuple[tuple[str, str], ...], int]:
    """Return the tensors, pairs and rank of a job; building the model's skeleton takes a moment."""
    model = skeleton(job)
    sent = model.of_roles(model.plan.sent)
    tensors = {name: TensorSpec(tuple(value.shape), job.payload_dtype) for name, value in sent.items()}
    return tensors, model.sent_pairs(), model.sent_rank()


def _checked_tensor(name: str, spec: TensorSpec, tensors: Mapping[str, object]) -> np.ndarray:
    value = tensors.get(name)
    if value is None:
        raise EgressViolation(f"tensor {name} is missing")
    if type(value) is not np.ndarray:
        raise EgressViolation(f"tensor {name} is a {type(value).__name__}, expected a plain numpy array")
    if value.dtype != np.dtype(spec.dtype):
        raise EgressViolation(f"tensor {name} has dtype {value.dtype}, expected {spec.dtype}")
    if value.shape != spec.shape:
        raise EgressViolation(f"tensor {name} has shape {value.shape}, expected {spec.shape}")
    if not np.isfinite(value).all():
        raise EgressViolation(f"tensor {name} holds a value that is not finite")
    # not np.array(copy=True): a copy would keep a dtype's metadata, which can be anything
    fresh = np.empty(spec.shape, np.dtype(spec.dtype))
    fresh[...] = value
    return fresh


def demands_of(job: JobConfig, contract: EgressContract, trains: bool = True) -> dict[str, Any]:
    """Return what a job asks of a site, as ``SitePolicy.check_job`` takes it.

    Args:
        job: its settings.
        contract: that follows from them.
        trains: whether the site trains; one that evaluates only sends nothing of its head.
    """
    lora = plan_of(job).lora
    head = {"local": "none", "shared": "shared", "global": "all"}[lora.head_policy]
    return {
        "rank": _derived(job)[2],
        "n_blocks": lora.n_blocks,
        "head": head if trains else "none",
        "contract_sha256": contract.sha256,
        "job_sha256": job_sha256(job),
        "numbers": numbers_of(job.to_dict()),
    }


def check_federated(job: JobConfig) -> None:
    """Refuse a job in which nothing leaves a site, so that there is nothing to federate.

    Raises:
        ConfigError: its method sends nothing, or see ``plan_of``.
    """
    if not plan_of(job).sent:
        limit = (
            "a method that sends something, because this one needs no federation: it runs in one process, by "
            "med_duallora.engine.run_federation"
        )
        raise ConfigError.of("method", job.method, limit)


def job_sha256(job: JobConfig) -> str:
    """Return the hash of everything that a job's settings say, defaults included."""
    return sha256_of_json(job.to_dict())
