"""How the server waits for the sites, what it lets count, and which rounds of the training a job runs."""

from dataclasses import dataclass, field

from med_duallora.errors import ConfigError
from med_duallora.settings.config import MAX_ROUNDS, JobConfig
from med_duallora.settings.limits import Limit, between, check_limits, limited
from med_duallora.settings.screening import ScreeningConfig

MAX_SITES = 10_000
LAST = "last"
ADAPTER_KINDS = ("best", LAST)
"""The adapters of a job that are evaluated: the one with the best validation score, and that of the last round."""
MONTH_S = 31 * 24 * 3600


def _stops_after_its_start(workflow: "WorkflowConfig") -> bool:
    return workflow.stop_round == 0 or workflow.stop_round > workflow.start_round


@dataclass(frozen=True)
class WorkflowConfig:
    """How the server waits for the sites.

    Args:
        min_sites: number of answers that a round needs, of sites that train.
        wait_s: seconds that slower sites get after that; a round ends earlier when all sites answered.
        round_timeout_s: seconds after which a round ends in any case; 0: no limit.
        start_round: first round of this job, counted from 0 over the whole training; above 0 where an earlier job is
            continued (``--resume-from`` sets it).
        initial_adapter: global adapter that a new training begins with, a ``.safetensors`` file at the server; empty:
            random initial values from ``train.seed`` (``--resume-from`` sets it, too).
        stop_round: round before which the job ends, counted from 0, so that another job can continue it; 0: the job
            runs to the last round.
        screening: how much a single site may move the global adapter.
    """

    min_sites: int = limited(2, between(1, MAX_SITES))
    wait_s: int = limited(600, between(0, MONTH_S))
    round_timeout_s: int = limited(0, between(0, MONTH_S))
    start_round: int = limited(0, between(0, MAX_ROUNDS))
    initial_adapter: str = limited("", Limit("empty, or a path without zero bytes", lambda value: "\0" not in value))
    stop_round: int = limited(
        0, between(0, MAX_ROUNDS).also("0, or above workflow.start_round", _stops_after_its_start)
    )
    screening: ScreeningConfig = field(default_factory=ScreeningConfig)

    def __post_init__(self) -> None:
        check_limits(self, "workflow.")

    def rounds(self, job: JobConfig) -> range:
        """Return the rounds that a job runs; ConfigError where the plan, ``train.n_rounds``, does not hold them."""
        planned = job.train.n_rounds
        limit = f"train.n_rounds = {planned}"
        if self.start_round >= planned:
            raise ConfigError.of("workflow.start_round", self.start_round, f"below {limit}")
        if self.stop_round > planned:
            raise ConfigError.of("workflow.stop_round", self.stop_round, f"at most {limit}")
        return range(self.start_round, self.stop_round or planned)
