"""The job as a component: every other component of a FLARE process asks it for the configuration."""

from functools import cached_property
from typing import Any

from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext

from med_duallora.boundary.contract import EgressContract, check_federated
from med_duallora.errors import ConfigError
from med_duallora.settings.config import JobConfig

JOB_COMPONENT = "job"
"""Component id under which the job's settings are found at the server and at the sites."""


class FederatedJob(FLComponent):
    """The job scope of the configuration, and the egress contract that follows from it.

    Args:
        config: nested plain values of ``JobConfig``; defaults may be left out.

    Raises:
        ConfigError: a setting is unknown, of the wrong type or out of range, or the method sends nothing.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        check_federated(JobConfig.from_dict(config))

    @cached_property
    def settings(self) -> JobConfig:
        """Return the checked configuration."""
        return JobConfig.from_dict(self.config)

    @cached_property
    def contract(self) -> EgressContract:
        """Return what may leave a site in this job."""
        return EgressContract.for_job(self.settings)


def job_of(fl_ctx: FLContext) -> FederatedJob:
    """Return the job of the running process.

    Raises:
        ConfigError: the job's configuration file has no component with the id ``job``, or one of another class.
    """
    found = fl_ctx.get_engine().get_component(JOB_COMPONENT)
    if not isinstance(found, FederatedJob):
        raise ConfigError(f"the job has no component {JOB_COMPONENT!r} of class {FederatedJob.__qualname__}")
    return found
