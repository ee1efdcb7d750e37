"""The naming contract: which parameter is a global or local factor, a head or frozen, and how it starts.

Layers that hold adapters declare this of each of their own parameters; nothing here or elsewhere looks at how a
parameter is called. Whatever nobody declared is frozen, so a forgotten declaration can never leak.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Role(str, Enum):
    """What a parameter is to the federation; what a method does with it stands in the method's plan."""

    GLOBAL_A = "A of the global adapter"
    GLOBAL_B = "B of the global adapter"
    LOCAL_A = "A of the local adapter"
    LOCAL_B = "B of the local adapter"
    HEAD = "classification head"
    WEIGHTS = "weights of the adapted blocks"
    """Of their linear layers, as they are instead of as factors."""
    NORM = "norms of the adapted blocks"
    FROZEN = "backbone"
    """Neither trained nor sent, by any method."""


GLOBAL = frozenset({Role.GLOBAL_A, Role.GLOBAL_B})
LOCAL = frozenset({Role.LOCAL_A, Role.LOCAL_B})
BESIDE = {Role.LOCAL_A: Role.GLOBAL_A, Role.LOCAL_B: Role.GLOBAL_B}


class Start(str, Enum):
    """How a parameter starts, the same at every site."""

    ZERO = "zero"
    RANDOM = "random"
    """Uniform within +-1/sqrt(fan-in), the bound of LoRA's A (Kaiming-uniform with a = sqrt(5))."""
    CONTRASTS = "contrasts"
    """Every class but the last against the last one: columns that sum to zero."""

    def first_value(self, shape: tuple[int, ...], generator: "torch.Generator") -> "Tensor":
        """Return a first value; ``generator`` is drawn from only where the start is random."""
        import torch  # only here: what methods there are can be listed without it

        if self is Start.RANDOM:
            bound = shape[-1] ** -0.5
            return torch.empty(shape).uniform_(-bound, bound, generator=generator)
        if self is Start.CONTRASTS:
            # a table that is filled in: on the meta device, torch.eye and torch.cat make torch load its compiler
            table = torch.zeros(shape[1] + 1, shape[1]).fill_diagonal_(1)
            table[-1] = -1
            return table
        return torch.zeros(shape)


@dataclass(frozen=True)
class Declared:
    """What a layer says of one of its parameters."""

    role: Role
    start: Start


FROZEN = Declared(Role.FROZEN, Start.ZERO)
"""What is said of a parameter that nobody declared; its values are the backbone's."""


@runtime_checkable
class DeclaresRoles(Protocol):
    """A module that knows the role of some of its parameters."""

    def declared(self) -> dict[str, Declared]:
        """Return role and start by parameter name, relative to this module."""


def declarations(model: "nn.Module") -> dict[str, Declared]:
    """Return what is declared of every parameter of ``model`` by its full name, in the model's order.

    Raises:
        ValueError: a module declares a parameter that does not exist, or two modules declare the same one.
    """
    found = {name: FROZEN for name, _ in model.named_parameters()}
    seen: set[str] = set()
    for prefix, module in model.named_modules():
        if not isinstance(module, DeclaresRoles):
            continue
        for name, declared in module.declared().items():
            full_name = f"{prefix}.{name}" if prefix else name
            if full_name not in found:
                raise ValueError(f"module {prefix!r} declares a role for {full_name!r}, which is not a parameter")
            if full_name in seen:
                raise ValueError(f"parameter {full_name!r} is declared twice")
            seen.add(full_name)
            found[full_name] = declared
    return found


def twins(model: "nn.Module") -> dict[str, str]:
    """Return the name of the global factor that lies beside each local one, where one module declares both."""
    found: dict[str, str] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, DeclaresRoles):
            names = {declared.role: f"{prefix}.{name}" for name, declared in module.declared().items()}
            both = [(local, role) for local, role in BESIDE.items() if {local, role} <= set(names)]
            found |= {names[local]: names[role] for local, role in both}
    return found


def pairs(model: "nn.Module") -> Iterator[tuple[str, str]]:
    """Yield the names of the global factors that belong together, as (B, A): those that one module declares."""
    for prefix, module in model.named_modules():
        if isinstance(module, DeclaresRoles):
            names = {declared.role: f"{prefix}.{name}" for name, declared in module.declared().items()}
            if set(names) >= GLOBAL:
                yield names[Role.GLOBAL_B], names[Role.GLOBAL_A]
