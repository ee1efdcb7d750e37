"""The workflow's settings, apart from the recipe: they can be listed and explained without importing nvflare."""

from dataclasses import dataclass

from med_duallora.config import MAX_ROUNDS, JobConfig
from med_duallora.errors import ConfigError
from med_duallora.reference.limits import between, check_limits, limited

MONTH_S = 31 * 24 * 3600


@dataclass(frozen=True)
class WorkflowConfig:
    """How the server waits for the sites.

    Args:
        min_sites: number of answers that a round needs.
        wait_s: seconds that slower sites get after that; a round ends earlier when all sites answered.
        round_timeout_s: seconds after which a round ends in any case; 0: no limit.
        start_round: first round of this job, counted from 0 over the whole training; above 0 where an earlier job is
            continued (``--resume-from`` sets it).
        initial_adapter: global adapter that a new training begins with, a ``.safetensors`` file at the server; empty:
            random initial values from ``train.seed`` (``--resume-from`` sets it, too).
        stop_round: round before which the job ends, counted from 0, so that another job can continue it; 0: the job
            runs to the last round.
    """

    min_sites: int = limited(2, between(1, 10_000))
    wait_s: int = limited(600, between(0, MONTH_S))
    round_timeout_s: int = limited(0, between(0, MONTH_S))
    start_round: int = limited(0, between(0, MAX_ROUNDS))
    initial_adapter: str = ""
    stop_round: int = limited(0, between(0, MAX_ROUNDS).also("0, or above workflow.start_round"))

    def __post_init__(self) -> None:
        check_limits(self, "workflow.")
        if 0 < self.stop_round <= self.start_round:
            raise ConfigError(f"workflow.stop_round = {self.stop_round}, but the job starts with {self.start_round}")

    def rounds(self, job: JobConfig) -> range:
        """Return the rounds that a job runs; ConfigError where the plan, ``train.n_rounds``, does not hold them."""
        planned = job.train.n_rounds
        if self.start_round >= planned:
            raise ConfigError(f"workflow.start_round = {self.start_round}, but train.n_rounds = {planned}")
        if self.stop_round > planned:
            raise ConfigError(f"workflow.stop_round = {self.stop_round}, but train.n_rounds = {planned}")
        return range(self.start_round, self.stop_round or planned)


DEFAULTS = WorkflowConfig()
