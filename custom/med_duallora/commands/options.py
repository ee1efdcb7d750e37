"""Options that several commands share."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from med_duallora.settings.recipes import RECIPES, with_recipe

if TYPE_CHECKING:
    from med_duallora.settings.policy import SitePolicy
    from med_duallora.settings.release import ReleaseFloors
    from med_duallora.site.received import ReceivedAdapter


@dataclass(frozen=True)
class SiteWord:
    """What a site says of how a model is used there; without a configuration, that of one machine.

    Args:
        checkpoint: its backbone; None: the shipped one.
        device: where it computes.
        floors: of its release gate.
        policy: its privacy floor.
    """

    checkpoint: Path | None
    device: str
    floors: "ReleaseFloors"
    policy: "SitePolicy"

    def checkpoint_of(self, received: "ReceivedAdapter") -> Path:
        """Return the backbone for a received adapter.

        Raises:
            CheckpointError: no checkpoint is shipped for its preset, or it cannot be read.
            ConfigError: the site pinned another one.
        """
        from med_duallora.backbone import checkpoint_sha256, packaged_checkpoint

        found = self.checkpoint or packaged_checkpoint(received.job.backbone)
        self.policy.check_backbone(checkpoint_sha256(found))
        return found


def site_word(options: argparse.Namespace) -> SiteWord:
    """Return what ``--site-config`` and ``--backbone-checkpoint`` say, and use as many threads (ConfigError)."""
    from med_duallora.settings.config import SiteConfig
    from med_duallora.settings.policy import SitePolicy
    from med_duallora.settings.release import ReleaseFloors
    from med_duallora.support.devices import use_threads

    if options.site_config is None:
        return SiteWord(options.backbone_checkpoint, "auto", ReleaseFloors(), SitePolicy.for_one_machine())
    config = SiteConfig.from_file(options.site_config)
    use_threads(config.n_threads)
    checkpoint = options.backbone_checkpoint or config.backbone_checkpoint
    return SiteWord(checkpoint, config.device, config.release, config.policy)


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return what reads an option's text as a whole number between two limits, both included."""

    def read(text: str) -> int:
        plain = text.removeprefix("-")
        if not (plain.isascii() and plain.isdigit() and len(plain) <= 18 and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number between {low} and {high}")
        return int(text)

    return read


def above_zero(high: float) -> Callable[[str], float]:
    """Return what reads an option's text as a number above 0, up to a limit; NaN and infinity are none."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not 0 < value <= high:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number above 0 and at most {high:g}")
        return value

    return read


def add_floor_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--min-sensitivity``, ``--min-specificity`` and ``--min-balanced-accuracy``, see ``ReleaseFloors``."""
    for score in ("sensitivity", "specificity", "balanced accuracy"):
        parser.add_argument(
            f"--min-{score.replace(' ', '-')}",
            type=above_zero(1),
            metavar="FLOOR",
            help=f"release gate: lowest {score} that is enough, such as 0.6; a site's own floor holds as well",
        )


def floors_of(options: argparse.Namespace) -> "ReleaseFloors":
    """Return the floors of ``add_floor_arguments``; those that were not given ask for nothing."""
    from med_duallora.settings.release import ReleaseFloors

    names = ("min_sensitivity", "min_specificity", "min_balanced_accuracy")
    return ReleaseFloors(**{name: getattr(options, name) or 0.0 for name in names})


def add_resume_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--resume-from``."""
    parser.add_argument(
        "--resume-from",
        type=Path,
        metavar="ADAPTER",
        help="continue the training that this global adapter (adapter_last.safetensors with its .json) belongs to, "
        "from the round after it, with the sites' local states. A known job takes all settings from the adapter's "
        "manifest. train.n_rounds is the total of the whole training, not the rounds that are left, because the "
        "learning-rate schedule spans all of them. No other setting may be changed. With the same total, 2 + 2 rounds "
        "give bit for bit what 4 rounds give (on one machine with one thread count)",
    )


def add_settings_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--recipe`` and ``--set``; ``assignments_of`` reads both."""
    add_recipe_argument(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="assignments",
        help="change a setting of the job, e.g. train.n_rounds=20, lora.rank_global=4 or workflow.min_sites=3; "
        "repeatable; `med-duallora config show` lists them",
    )


def add_recipe_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--recipe``."""
    parser.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        help="a named set of settings (docs/recipes.md); --set counts on top of it. "
        + "; ".join(f"{name}: {recipe.summary}" for name, recipe in RECIPES.items()),
    )


def assignments_of(options: argparse.Namespace) -> list[str]:
    """Return what ``--recipe`` and ``--set`` say, as ``key=value`` texts of which the later ones count."""
    return with_recipe(options.recipe, options.assignments)


def add_site_settings_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--site-set``."""
    parser.add_argument(
        "--site-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of every site's configuration, e.g. device=cpu, n_threads=2 or policy.min_subjects=10; "
        "repeatable",
    )
