"""AdamW that does not load torch's compiler, which nothing here uses."""

from collections.abc import Callable
from typing import Any

import torch


def _bare(method: Any) -> Any:
    """Return what torch wrapped, or the method itself where it is not wrapped."""
    return getattr(method, "__wrapped__", method)


class AdamW(torch.optim.AdamW):
    """``torch.optim.AdamW``, step by step and bit by bit, more than a second of processor time earlier.

    torch 2.13 marks these methods as not to be compiled, and the first call of a marked method imports the compiler
    (``torch._dynamo``, with sympy): in every process of every site, for a mark that matters to ``torch.compile`` only.
    """

    zero_grad = _bare(torch.optim.AdamW.zero_grad)
    add_param_group = _bare(torch.optim.AdamW.add_param_group)
    state_dict = _bare(torch.optim.AdamW.state_dict)
    load_state_dict = _bare(torch.optim.AdamW.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Do one step in place; see ``torch.optim.AdamW.step``, whose wrapper does this with gradients off, too."""
        loss: float | None = _bare(torch.optim.AdamW.step)(self, closure)
        return loss
