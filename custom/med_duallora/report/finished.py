"""A finished run as the report reads it: rounds, evaluations, where it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from med_duallora.cohorts.origin import Origin
from med_duallora.settings.config import JobConfig


@dataclass(frozen=True)
class SiteRound:
    """One site's part of a round.

    Args:
        metrics: the agreed metrics that the site sent, e.g. ``train_loss``, ``seconds``.
        payload_bytes: serialised size of what the site sent.
        weight: its weight in the aggregation.
    """

    metrics: Mapping[str, float]
    payload_bytes: int
    weight: float


@dataclass(frozen=True)
class Round:
    """One round as the server saw it.

    Args:
        index: from 0, as FLARE counts; people are shown ``number``.
        seconds: from sending the tasks to the aggregated adapter.
        sites: who contributed.
        residual: relative norm of what averaging the factors lost; None where nobody contributed.
        tensor_bytes: number of sent values times the size of one.
        refused: what the server did not take, one text each.
        ended: when the adapter was aggregated, UTC; None where the file does not say.
        clipped: site -> the factor, below 1, by which its update was scaled down.
        capped: site -> the weight with which it counted instead of the one that it claimed.
    """

    index: int
    seconds: float
    sites: Mapping[str, SiteRound]
    residual: float | None
    tensor_bytes: int
    refused: tuple[str, ...]
    ended: datetime | None = None
    clipped: Mapping[str, float] = field(default_factory=dict)
    capped: Mapping[str, float] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Return the round counted from 1."""
        return self.index + 1


@dataclass(frozen=True)
class Evaluation:
    """The sites' test scores of one global adapter.

    Args:
        model: which one: ``best`` or ``last``.
        round_index: the round whose aggregation gave it; None where the file does not say.
        sites: by site, then ``<variant>.<metric>`` or a count.
        failed: sites that could not evaluate it, with the reason.
        ended: when the last site had answered, UTC; None where the file does not say.
    """

    model: str
    round_index: int | None
    sites: Mapping[str, Mapping[str, float]]
    failed: Mapping[str, str]
    ended: datetime | None = None


@dataclass(frozen=True)
class SitePredictions:
    """What a site's models said of its test subjects; known only where the site's state is at hand.

    Args:
        labels: (n_test,) 0 or 1.
        right: by variant, whether each subject was classified correctly.
        subjects: (n_test,) their names; no report shows them.
        chances: (n_test,) probability of disease with both adapters; empty where the run has no such variant.
    """

    labels: tuple[int, ...]
    right: Mapping[str, tuple[bool, ...]]
    subjects: tuple[str, ...] = ()
    chances: tuple[float, ...] = ()


@dataclass(frozen=True)
class Example:
    """A test subject of a site, as the report shows it.

    Args:
        label: 0 or 1.
        chance: probability of disease with both adapters.
        slices: uint8 (2, X, Y), the middle slice at ED and ES.
    """

    label: int
    chance: float
    slices: npt.NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True)
class Run:
    """Everything a report shows.

    Args:
        directory: where the server's files lie.
        job: the job configuration.
        job_sha256: hash of ``job.json``.
        rounds: in order.
        evaluation: of the adapter that the report is about.
        other_evaluations: of other adapters of the same run.
        manifest: what the evaluated adapter's manifest says.
        origin: where the subjects come from; None where nobody noted it: the server alone never knows.
        predictions: by site; of a simulation on this machine. A server never sees any.
        examples: by site, a few test subjects; of a simulation on this machine, where they may be shown.
        times: what the server's clock says of every round, see ``server.timing``; empty where it did not write any.
    """

    directory: Path
    job: JobConfig
    job_sha256: str
    rounds: tuple[Round, ...]
    evaluation: Evaluation
    other_evaluations: tuple[Evaluation, ...]
    manifest: Mapping[str, Any]
    origin: Origin | None
    predictions: Mapping[str, SitePredictions] = field(default_factory=dict)
    times: tuple[Mapping[str, float], ...] = ()
    examples: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)

    @property
    def started(self) -> datetime | None:
        """Return when the first round began, UTC."""
        first = self.rounds[0]
        return None if first.ended is None else first.ended - timedelta(seconds=first.seconds)

    @property
    def ended(self) -> datetime | None:
        """Return when the evaluation was done, UTC; where it does not say, when the last round was."""
        return self.evaluation.ended or self.rounds[-1].ended

    @property
    def sites(self) -> tuple[str, ...]:
        """Return every site that was evaluated or contributed, evaluated ones first."""
        contributed = {site for item in self.rounds for site in item.sites}
        return (*self.evaluation.sites, *sorted(contributed - set(self.evaluation.sites)))
