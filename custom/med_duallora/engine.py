"""The federation in one process: the same site and aggregation code as in FLARE, without its transport."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from med_duallora.adapter.methods import plan_of
from med_duallora.adapter.model import initial_global_state
from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.errors import ConfigError
from med_duallora.server.aggregation import AggregationResult
from med_duallora.server.resume import SavedRound
from med_duallora.server.screening import RoundRules, ScreenedResult, ScreenedRound
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.site.runtime import SiteRuntime
from med_duallora.support.devices import use_threads


@dataclass(frozen=True)
class RoundRecord:
    """What is known of one round.

    Args:
        round_index: from 0.
        seconds: wall time of the whole round.
        sites: metrics by site, and each site's ``weight``.
        residual: see ``aggregation.AggregationResult``.
        refused: site -> why its contribution was left out.
        clipped: site -> the factor, below 1, by which its update was scaled down.
        capped: site -> the weight with which it counted instead of its own.
    """

    round_index: int
    seconds: float
    sites: Mapping[str, Mapping[str, float]]
    residual: float | None
    refused: Mapping[str, str] = field(default_factory=dict)
    clipped: Mapping[str, float] = field(default_factory=dict)
    capped: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FederationResult:
    """What a federation gave.

    Args:
        global_state: the last global adapter.
        rounds: one record per round.
        evaluation: by site, the test metrics of the last global adapter with the site's own local state.
        lineage: the run that this was, and those that it continued.
    """

    global_state: dict[str, np.ndarray]
    lineage: Lineage
    rounds: list[RoundRecord] = field(default_factory=list)
    evaluation: dict[str, dict[str, float]] = field(default_factory=dict)


NOTHING_SENT = ScreenedResult(AggregationResult({}, (), 0.0, None), {}, "")


def run_federation(
    job: JobConfig,
    sites: Mapping[str, SiteConfig],
    on_round: Callable[[RoundRecord], None] = lambda _: None,
    *,
    resume_from: SavedRound | None = None,
    stop_round: int | None = None,
    rules: RoundRules | None = None,
) -> FederationResult:
    """Run all rounds and the final evaluation of a job.

    Args:
        job: the job scope.
        sites: the site scope by site name.
        on_round: called after each round.
        resume_from: go on from here, with the sites' local states; None: begin anew.
        stop_round: end before this round; None: after the last one.
        rules: which contributions count; None: the same as in FLARE by default.

    Raises:
        ConfigError: no site is given.
        ArtifactError: the job cannot go on from that adapter.
        MedDualLoRAError: what ``SiteRuntime`` raises.
    """
    if not sites:
        raise ConfigError("a federation needs at least one site")
    first, state, lineage = _beginning(job, resume_from)
    use_threads([config.n_threads for config in sites.values()][-1])  # a process has one number: the last site's
    runtimes = {site: SiteRuntime(site, job, config) for site, config in sites.items()}
    for runtime in runtimes.values():
        runtime.model.follow(lineage)
    contract, rule = EgressContract.for_job(job), plan_of(job).aggregation
    rounds = []
    for round_index in range(first, job.train.n_rounds if stop_round is None else stop_round):
        started = time.monotonic()
        collected = ScreenedRound(contract, round_index, rules, rule, job.weighting)
        reports = {}
        for site, runtime in runtimes.items():
            validation = runtime.validate(state, round_index)
            update = runtime.train_round(state, round_index)
            n_subjects = update.metrics.get("n_subjects")
            if contract.tensors:  # a method for one site alone sends nothing
                collected.add(site, round_index, update.weight, update.tensors, n_subjects)
            reports[site] = {**validation, **update.metrics, "weight": update.weight}
        screened = collected.result(state) if contract.tensors else NOTHING_SENT
        state = screened.aggregation.tensors
        seconds = time.monotonic() - started
        said = (screened.aggregation.residual, screened.refused, screened.clipped, screened.capped)
        rounds.append(RoundRecord(round_index, seconds, reports, *said))
        on_round(rounds[-1])
    evaluation = {site: runtime.evaluate(state) for site, runtime in runtimes.items()}
    return FederationResult(state, lineage, rounds, evaluation)


def _beginning(job: JobConfig, saved: SavedRound | None) -> tuple[int, dict[str, np.ndarray], Lineage]:
    """Return the first round, the global state that it starts from and the run's lineage."""
    if saved is None:
        return 0, initial_global_state(job), Lineage.begin()
    saved.check(job)
    return saved.next_round, dict(saved.tensors), saved.lineage.continued(saved.next_round)
