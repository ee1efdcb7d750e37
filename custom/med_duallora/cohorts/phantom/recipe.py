"""What a phantom cohort is made from, and how a folder says so."""

from dataclasses import dataclass
from pathlib import Path

from med_duallora.cohorts.phantom.plan import LARGEST_COHORT, PRESETS
from med_duallora.cohorts.provenance import RECIPE_FILE
from med_duallora.errors import CohortError, ConfigError
from med_duallora.support.files import parsed_json, write_json

RECIPE_VERSION = 2  # raise it whenever the same seed gives other voxels


@dataclass(frozen=True)
class Recipe:
    """What a phantom cohort is made from.

    Args:
        preset: demo, study or pretrain.
        seed: at least 0.
        n_per_vendor: subjects per vendor; None takes the preset's number.

    Raises:
        ConfigError: a value is out of range.
    """

    preset: str = "demo"
    seed: int = 0
    n_per_vendor: int | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError.of("preset", self.preset, f"one of {', '.join(PRESETS)}")
        if self.seed < 0:
            raise ConfigError.of("seed", self.seed, "at least 0")
        if not 4 <= self.n <= LARGEST_COHORT:
            raise ConfigError.of("n_per_vendor", self.n, f"between 4 and {LARGEST_COHORT}")

    @property
    def n(self) -> int:
        """Subjects per vendor."""
        return PRESETS[self.preset] if self.n_per_vendor is None else self.n_per_vendor

    def to_dict(self) -> dict[str, object]:
        """Return what is recorded in the cohort."""
        return {"version": RECIPE_VERSION, "preset": self.preset, "seed": self.seed, "n_per_vendor": self.n}


def claim(out: Path, recipe: Recipe) -> None:
    """Make ``out`` the folder of the cohort of ``recipe``; it may be so already.

    Raises:
        CohortError: ``out`` holds another cohort or anything else.
    """
    path = out / RECIPE_FILE
    if path.is_file():
        found = path.read_text(encoding="utf-8", errors="replace").strip()
        if _parsed(found) != recipe.to_dict():
            raise CohortError(f"{out} holds another phantom cohort ({found}); choose another folder or remove it")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CohortError(f"{out} exists and is not a phantom cohort; choose a new folder")
    write_json(path, recipe.to_dict())


def _parsed(text: str) -> object:
    try:
        return parsed_json(text)
    except ValueError:
        return None
