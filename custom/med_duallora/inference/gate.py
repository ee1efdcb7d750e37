"""The release gate: whether a model reaches the floors that were set for it, and the sentence that says so.

The points are compared with the floors, not the intervals: with a few dozen test subjects no interval would lie above a
useful floor. The intervals stand beside them, so that nobody takes a pass for more than it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from med_duallora.measures import SCORES
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site.kept_calibration import KeptCalibration, read_kept
from med_duallora.site.state import STATE_FILE
from med_duallora.support.proportions import Counts, balanced_interval, wilson_interval

_LAST_DIGIT = 1e-9
"""The mean of 0.7 and 0.1 lies that little below 0.4."""
UNGATED = "it is used only with --ungated"


@dataclass(frozen=True)
class Reached:
    """One score beside its floor.

    Args:
        score: its name, see ``measures.SCORES``.
        floor: the lowest value that is enough.
        value: what the model reached; None where no test subject tells it.
        interval: 95 % interval of the value; None where the counts behind it are not known.
    """

    score: str
    floor: float
    value: float | None
    interval: tuple[float, float] | None

    @property
    def passed(self) -> bool:
        """Return whether it is enough; what nobody could tell is not."""
        return self.value is not None and self.value >= self.floor - _LAST_DIGIT

    def text(self) -> str:
        """Return value, interval and floor in a few words."""
        name = SCORES[self.score].heading
        if self.value is None:
            return f"{name} is not known, floor {self.floor:g}"
        between = f" (95 % {self.interval[0]:.2f} to {self.interval[1]:.2f})" if self.interval else ""
        return f"{name} {self.value:.2f}{between}, floor {self.floor:g}"


@dataclass(frozen=True)
class Gate:
    """Whether a model is released.

    Args:
        passed: whether it may be used without being told otherwise.
        sentence: for people, with every score beside its floor.
        reached: the scores that have a floor.
    """

    passed: bool
    sentence: str
    reached: tuple[Reached, ...] = ()


def judged(counts: Counts, floors: ReleaseFloors) -> Gate:
    """Hold the counts of test subjects against the floors."""
    intervals = {
        "sensitivity": wilson_interval(counts.hits, counts.n_positive) if counts.n_positive else None,
        "specificity": wilson_interval(counts.rejections, counts.n_negative) if counts.n_negative else None,
        "balanced_accuracy": balanced_interval(counts),
    }
    return judged_scores({score: getattr(counts, score) for score in intervals}, intervals, floors)


def judged_scores(
    scores: Mapping[str, float | None], intervals: Mapping[str, tuple[float, float] | None], floors: ReleaseFloors
) -> Gate:
    """Hold scores against the floors.

    Args:
        scores: by name; what is missing or None fails a floor that asks for it.
        intervals: of the scores, where they are known.
        floors: what is asked for.
    """
    reached = tuple(
        Reached(score, floor, scores.get(score), intervals.get(score)) for score, floor in floors.asked.items()
    )
    if not reached:
        return Gate(True, "No release floor is set: nothing was asked of this model.")
    passed = all(item.passed for item in reached)
    shown = "; ".join(item.text() for item in reached if item.passed == passed)
    return Gate(passed, f"Release gate {'passed' if passed else 'failed'}: {shown}.", reached)


def gate_of_kept(kept: KeptCalibration | None, is_of_this_state: bool) -> Gate:
    """Return the gate of what an evaluation left, see ``gate_of``.

    Args:
        kept: None where no evaluation ended.
        is_of_this_state: whether the model that is to be used is the one that was evaluated.
    """
    if kept is None:
        return Gate(False, f"This model was never evaluated at this site, so nothing says how good it is: {UNGATED}.")
    if not is_of_this_state:
        return Gate(
            False,
            "The last evaluation at this site was of another state than the one that is here now, so nothing says how "
            f"good this one is: {UNGATED}.",
        )
    gate = judged(kept.test.counts, kept.release)
    return gate if gate.passed else Gate(False, f"{gate.sentence[:-1]}: {UNGATED}.", gate.reached)


def gate_of(run_folder: Path) -> Gate:
    """Return whether the model in a site's run folder is released, by the floors of its site's configuration.

    It is held against the test subjects of the evaluation that ended the job, at the site's own threshold. A model that
    was never evaluated, or was trained on since, has not passed.

    Raises:
        ArtifactError: ``calibration.json`` there is damaged.
    """
    kept = read_kept(run_folder)
    return gate_of_kept(kept, kept is not None and kept.is_of(run_folder / STATE_FILE))
