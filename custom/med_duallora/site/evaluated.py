"""What an evaluation at a site found, before any of it is kept or offered."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from med_duallora.measures import CHOICES, FEDERATED, score_name
from med_duallora.site.alone import TrainedAlone
from med_duallora.site.choice import Choice, choose, joining_helped
from med_duallora.site.scores import scores
from med_duallora.site.state import SiteState
from med_duallora.site.variants import Said, Split, Subjects


@dataclass(frozen=True)
class EvaluatedSite:
    """Probabilities by variant, and what follows from them.

    Args:
        split: the site's subjects.
        said: by variant.
        state: what the site keeps of the federation; None where it never trained.
        alone: the model behind the variant ``alone``; None: there is none.
        choice: what the site uses; None where it did not choose.
    """

    split: Split
    said: Mapping[str, Said]
    state: SiteState | None = None
    alone: TrainedAlone | None = None
    choice: Choice | None = None

    @property
    def labels(self) -> Said:
        """Return the labels of validation and test subjects."""
        return self.split.said(_labels)

    @property
    def variant(self) -> str:
        """Return which model is used."""
        return self.choice.variant if self.choice else FEDERATED

    def chosen(self, floor: int) -> "EvaluatedSite":
        """Return the same with a choice, see ``choose``; it is then a variant of its own."""
        choice = choose(self.labels.val, {name: said.val for name, said in self.said.items()}, floor)
        return replace(self, choice=choice, said={**self.said, "chosen": self.said[choice.variant]})

    def metrics(self) -> dict[str, float]:
        """Return the numbers that an evaluation gives; the site's policy says which of them leave."""
        labels = self.labels.test
        found = {"n_test_subjects": len(labels), "n_positive": labels.sum(), "n_negative": (1 - labels).sum()}
        for variant, said in self.said.items():
            found |= {score_name(variant, name): value for name, value in scores(labels, said.test).items()}
        if self.choice:
            found["choice"] = CHOICES.index(self.choice.variant)
            federated, own = self.said[self.choice.federated], self.said[self.choice.own]
            helped = joining_helped(labels, federated.test, own.test)
            found |= {} if helped is None else {"joining_helped": helped}
        return {name: float(value) for name, value in found.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return what each variant says of every test subject, as ``predictions.json`` has it."""
        return [
            {
                "subject": subject.subject,
                "label": subject.label,
                **{name: float(said.test[row]) for name, said in self.said.items()},
            }
            for row, subject in enumerate(self.split.test)
        ]


def _labels(subjects: Subjects) -> np.ndarray:
    return np.array([subject.label for subject in subjects], dtype=int)
