"""The naming contract: which parameter is global, local, head or frozen.

Layers that hold adapters declare the role of each of their own parameters; nothing here or elsewhere looks
at how a parameter is called. Whatever nobody declared is frozen, so a forgotten declaration can never leak.
"""

from enum import Enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import nn


class Role(str, Enum):
    """What a parameter is to the federation."""

    GLOBAL = "global"
    """Global adapter: trained, sent, aggregated."""
    LOCAL = "local"
    """Local adapter: trained, never sent."""
    HEAD = "head"
    """Classification head: trained; sent only where the job's head policy is global."""
    FROZEN = "frozen"
    """Backbone: neither trained nor sent."""


@runtime_checkable
class DeclaresRoles(Protocol):
    """A module that knows the role of some of its parameters."""

    def declared_roles(self) -> dict[str, Role]:
        """Return the role by parameter name, relative to this module."""


def parameter_roles(model: "nn.Module") -> dict[str, Role]:
    """Return the role of every parameter of ``model`` by its full name, in the model's order.

    Raises:
        ValueError: a module declares a parameter that does not exist, or two modules declare the same one.
    """
    roles = {name: Role.FROZEN for name, _ in model.named_parameters()}
    declared: set[str] = set()
    for prefix, module in model.named_modules():
        if not isinstance(module, DeclaresRoles):
            continue
        for name, role in module.declared_roles().items():
            full_name = f"{prefix}.{name}" if prefix else name
            if full_name not in roles:
                raise ValueError(f"module {prefix!r} declares a role for {full_name!r}, which is not a parameter")
            if full_name in declared:
                raise ValueError(f"parameter {full_name!r} is declared twice")
            declared.add(full_name)
            roles[full_name] = role
    return roles
