"""Federated methods as data: what trains, what is sent, what stays. Adding a peer is adding an entry.

The training loop, the aggregation and the FLARE components read a ``Method``; none of them knows a name.
"""

from dataclasses import dataclass, replace

from med_duallora.adapter.roles import Role
from med_duallora.errors import ConfigError
from med_duallora.settings.config import METHOD_NAMES, JobConfig, LoRAConfig


@dataclass(frozen=True)
class Method:
    """One federated method.

    Args:
        name: as in the job configuration.
        summary: one line for help texts and reports.
        has_local_adapter: whether a site keeps an adapter of its own.
        always_sends_head: the method averages the head whatever the job's head policy says.
    """

    name: str
    summary: str
    has_local_adapter: bool
    always_sends_head: bool

    def lora(self, lora: LoRAConfig) -> LoRAConfig:
        """Return the adapter configuration as this method uses it."""
        if not self.has_local_adapter:
            lora = replace(lora, rank_local=0)
        return replace(lora, head_policy="global") if self.always_sends_head else lora

    def sent_roles(self, lora: LoRAConfig) -> frozenset[Role]:
        """Return the roles whose parameters leave the site."""
        sends_head = self.lora(lora).head_policy == "global"
        return frozenset({Role.GLOBAL, Role.HEAD}) if sends_head else frozenset({Role.GLOBAL})

    def kept_roles(self, lora: LoRAConfig) -> frozenset[Role]:
        """Return the roles that are trained and stay at the site."""
        return frozenset({Role.GLOBAL, Role.LOCAL, Role.HEAD}) - self.sent_roles(lora)


METHODS = {
    method.name: method
    for method in (
        Method("med-duallora", "global adapter sent and averaged, local adapter (and head) stay", True, False),
        Method("fedavg-lora", "one adapter and the head, both sent and averaged (FedIT)", False, True),
    )
}
METHOD_NAMES.stand_in(METHODS)


def method_of(job: JobConfig) -> Method:
    """Return the job's method.

    Raises:
        ConfigError: the method is unknown, or needs an adapter that the job gives rank 0.
    """
    if job.method not in METHODS:
        raise ConfigError.of("method", job.method, METHOD_NAMES.text)
    if job.lora.rank_global == 0:
        limit = f"above 0 for method {job.method}, which sends a global adapter"
        raise ConfigError.of("lora.rank_global", 0, limit)
    return METHODS[job.method]
