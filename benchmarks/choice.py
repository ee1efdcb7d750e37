"""How much a site loses by choosing with few validation subjects what it uses: many drawn sites, the truth known.

    python benchmarks/choice.py

Every model says log odds around plus or minus its skill, with noise; sites draw validation subjects, choose by the rule
of ``site.choice``, and are scored on many others. No network and no image has a part in it. Beside it stands what a
site would lose that always takes the lowest validation loss. Research use only, not for diagnosis.
"""

import argparse
from dataclasses import dataclass

import numpy as np

from med_duallora.measures import CHOICES, FEDERATED
from med_duallora.site.choice import OWN, choose, log_losses

NOISE = 1.2
"""Of a model's log odds."""
N_FRESH = 400
"""Subjects of each class that a choice is scored on."""
WORLDS = {
    "joining helps": {"both": 1.5, "global": 1.2, "alone": 0.8, "backbone": 0.9},
    "nothing differs": {"both": 0.9, "global": 0.9, "alone": 0.9, "backbone": 0.9},
    "the others poison the site": {"both": -1.5, "global": -1.0, "alone": 0.8, "backbone": 0.9},
    "the site is simply different": {"both": 0.2, "global": 0.1, "alone": 1.3, "backbone": 0.7},
}
"""Skill of every model a site could use."""


@dataclass(frozen=True)
class Outcome:
    """Means over the drawn sites.

    Args:
        losses: log loss on fresh subjects by what is always used; ``chosen`` and ``lowest`` are the two rules.
        stays: share of the sites that use the federated model.
        stays_by_lowest: likewise, by the lowest validation loss.
    """

    losses: dict[str, float]
    stays: float
    stays_by_lowest: float

    @property
    def regret(self) -> float:
        """Return the loss of what was chosen minus that of the better one of what a site has alone."""
        return self.losses["chosen"] - min(self.losses[name] for name in OWN)


def said(stream: np.random.Generator, labels: np.ndarray, skill: float) -> np.ndarray:
    """Return a model's probabilities of disease (n,) of subjects with these labels."""
    odds = np.where(labels, skill, -skill) + stream.normal(0, NOISE, len(labels))
    return np.asarray(1 / (1 + np.exp(-odds)))


def outcome(skills: dict[str, float], n_per_class: int, n_sites: int, seed: int = 0) -> Outcome:
    """Draw sites of one world and let each of them choose.

    Args:
        skills: by model.
        n_per_class: validation subjects of each class.
        n_sites: how many.
        seed: of all draws.
    """
    stream = np.random.default_rng(seed)
    labels, fresh = np.repeat([0, 1], n_per_class), np.repeat([0, 1], N_FRESH)
    rows, kept, lowest = [], [], []
    for _ in range(n_sites):
        seen = {name: said(stream, labels, skills[name]) for name in CHOICES}
        true = {name: float(log_losses(fresh, said(stream, fresh, skills[name])).mean()) for name in CHOICES}
        used = choose(labels, seen).variant
        plain = min(seen, key=lambda name: float(log_losses(labels, seen[name]).mean()))
        rows.append([*true.values(), true[used], true[plain]])
        kept.append(used == FEDERATED)
        lowest.append(plain == FEDERATED)
    means = dict(zip((*CHOICES, "chosen", "lowest"), np.mean(rows, axis=0).tolist(), strict=True))
    return Outcome(means, float(np.mean(kept)), float(np.mean(lowest)))


def main() -> None:
    """Print a table, a row per world and number of validation subjects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=2000, help="drawn per row (default: 2000)")
    parser.add_argument("--per-class", type=int, nargs="+", default=[6, 12, 24], metavar="N")
    options = parser.parse_args()
    names = ("both", "alone", "backbone", "chosen", "lowest")
    print(f"| site | per class | {' | '.join(names)} | uses both | uses both, lowest |\n|---|{'--:|' * 8}")
    for world, skills in WORLDS.items():
        for n in options.per_class:
            found = outcome(skills, n, options.sites)
            cells = [f"{found.losses[name]:.3f}" for name in names]
            shares = [f"{100 * share:.0f} %" for share in (found.stays, found.stays_by_lowest)]
            print(f"| {world} | {n} | {' | '.join([*cells, *shares])} |")


if __name__ == "__main__":
    main()
