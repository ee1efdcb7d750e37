"""What a site uses of all that it could: chosen by its validation subjects, and how likely joining helped it.

Functions of labels and probabilities alone. What is defined here is explained in docs/release.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from med_duallora.measures import CHOICES, FEDERATED, VARIANTS
from med_duallora.site.calibration import MIN_PER_CLASS, Chances, Labels, Values
from med_duallora.site.scores import THRESHOLD

OWN = ("alone", "backbone")
"""What a site has without joining."""
_CERTAIN = 1e-7
"""See ``calibration``."""
_DRAWS = 20_000
"""Of the posterior: the probability is then off by less than 0.01."""
_PRIOR = 0.5
"""Jeffreys' prior of a share, for each of the cells that paired answers fall into."""


@dataclass(frozen=True)
class Choice:
    """What a site uses.

    Args:
        variant: one of ``measures.CHOICES``.
        own: the better one of what the site has without joining, by the same subjects.
        why: a sentence for people.
    """

    variant: str
    own: str
    why: str

    @property
    def federated(self) -> str:
        """Return what the site would use of the federation: what it chose, or both adapters where it chose its own."""
        return FEDERATED if self.variant in OWN else self.variant


def choose(labels: Labels, chances: Mapping[str, Chances], floor: int = 0) -> Choice:
    """Choose a model by validation subjects.

    The federated model stays unless another one's balanced log loss is lower by more than the standard error of the
    difference, taken over the same subjects; of several such the one with the lowest loss is used. With a dozen
    subjects the lowest loss alone would pick noise, and the federated model has the other sites' subjects behind it.

    Args:
        labels: (n_subjects,) 0 or 1.
        chances: by variant, (n_subjects,) probability of disease; ``both`` and at least one of ``OWN`` are there.
        floor: subjects of each class that are needed at least, where that is more than ``MIN_PER_CLASS``.
    """
    truth = np.asarray(labels, dtype=int)
    known = {name: chances[name] for name in CHOICES if name in chances}
    sizes, least = (int((truth == 0).sum()), int((truth == 1).sum())), max(MIN_PER_CLASS, floor)
    if min(sizes) < least:
        why = (
            f"{sizes[0]} normal and {sizes[1]} diseased validation subjects are too few to choose by (at least {least} "
            f"of each class are needed): the federated model, {_heading(FEDERATED)}, stays."
        )
        return Choice(FEDERATED, next(name for name in OWN if name in known), why)
    losses = {name: log_losses(truth, values) for name, values in known.items()}
    means = {name: _balanced(truth, values) for name, values in losses.items()}
    better = [name for name in known if _is_better(truth, losses[FEDERATED] - losses[name])]
    variant = min(better, key=means.__getitem__, default=FEDERATED)
    own = min((name for name in OWN if name in known), key=means.__getitem__)
    return Choice(variant, own, _why(variant, means, len(truth)))


def joining_helped(labels: Labels, federated: Chances, own: Chances) -> float | None:
    """Return the probability that the federated model's balanced accuracy is above that of what a site has alone.

    Each class's subjects fall into three cells: only the federated model is right, only the other one, or both alike.
    The shares of the cells have a Dirichlet posterior under Jeffreys' prior, and the gain is the mean over the classes
    of the first share minus the second. Nothing that differs gives one half: the subjects do not tell.

    Args:
        labels: (n_subjects,) 0 or 1.
        federated: (n_subjects,) probability of disease.
        own: likewise.

    Returns:
        None where a class has no subject.
    """
    truth = np.asarray(labels, dtype=int)
    right = [(np.asarray(values) >= THRESHOLD) == (truth == 1) for values in (federated, own)]
    stream, gains = np.random.default_rng(0), []
    for label in (0, 1):
        ours, theirs = (values[truth == label] for values in right)
        if not len(ours):
            return None
        cells = np.array([(ours & ~theirs).sum(), (theirs & ~ours).sum(), (ours == theirs).sum()], dtype=np.float64)
        shares = stream.dirichlet(cells + _PRIOR, _DRAWS)
        gains.append(shares[:, 0] - shares[:, 1])
    return float(np.mean(gains[0] + gains[1] > 0))


def log_losses(labels: Labels, chances: Chances) -> Values:
    """Return each subject's log loss (n_subjects,); a certain answer that is wrong costs much, but not without end."""
    values = np.clip(np.nan_to_num(np.asarray(chances, dtype=np.float64), nan=0.5), _CERTAIN, 1 - _CERTAIN)
    return -np.log(np.where(np.asarray(labels) == 1, values, 1 - values))


def _balanced(truth: np.ndarray, values: Values) -> float:
    return float(np.mean([values[truth == label].mean() for label in (0, 1)]))


def _is_better(truth: np.ndarray, gains: Values) -> bool:
    """Return whether the balanced mean of gains (n_subjects,) is above its standard error."""
    parts = [gains[truth == label] for label in (0, 1)]
    error = 0.5 * np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts))
    return bool(_balanced(truth, gains) > error)


def _why(variant: str, means: Mapping[str, float], n: int) -> str:
    others = ", ".join(f"{_heading(name)} {mean:.2f}" for name, mean in means.items())
    told = f"balanced log loss on {n} validation subjects: {others}"
    if variant == FEDERATED:
        return f"The federated model, {_heading(variant)}, stays: none is better beyond the standard error ({told})."
    return f"The site uses: {_heading(variant)}. It is better than both adapters beyond the standard error ({told})."


def _heading(variant: str) -> str:
    return VARIANTS[variant].heading
