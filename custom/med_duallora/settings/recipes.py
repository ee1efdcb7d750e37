"""Named sets of a job's settings, as ``--recipe`` takes them; docs/recipes.md says when to take which."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Settings that belong together.

    Args:
        summary: one line for help texts.
        settings: ``key=value`` texts, see ``reading.assigned``. Every recipe sets the same keys, so that it means the
            same on top of any job.
    """

    summary: str
    settings: tuple[str, ...]


RECIPES = {
    "default": Recipe(
        "the sites learn the head's weights together, and what stays learns slowly",
        ("lora.head_policy=shared", "train.local_lr_factor=0.1"),
    ),
    "paper": Recipe(
        "as Med-DualLoRA describes it: the whole head stays, and everything learns at one rate",
        ("lora.head_policy=local", "train.local_lr_factor=1.0"),
    ),
}
"""By name. What a job has without ``--recipe`` are the defaults of ``JobConfig``, which are those of ``default``."""


def with_recipe(name: str | None, assignments: Iterable[str]) -> list[str]:
    """Return a recipe's settings with others on top, which count where both set something.

    Args:
        name: of the recipe, one of ``RECIPES``; None: no recipe.
        assignments: ``key=value`` texts.
    """
    return [*(RECIPES[name].settings if name else ()), *assignments]
