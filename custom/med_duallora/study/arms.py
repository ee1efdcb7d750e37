"""What a study compares: every federated method, and what each of them must be held against. One entry each."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from med_duallora.adapter.methods import METHODS
from med_duallora.errors import ConfigError


class Way(Enum):
    """How the training subjects of the sites come together."""

    FEDERATED = "every site trains, the server averages"
    POOLED = "all sites' training subjects in one place, which no federation may have"
    OWN_HEAD = "no adapter; each site fits a head to frozen features of its own subjects"
    SHARED_HEAD = "no adapter; one head fitted in one place to frozen features of all sites, standardised by site"
    TRUTH = "no image; a forest on the true values of all sites' training phantoms"
    NEW_SITE = "every site in turn takes no part in the training, and then has a few labelled subjects"

    @property
    def in_one_place(self) -> bool:
        """Return whether the sites' subjects come together, so that "nothing is sent" would be untrue."""
        return self in (Way.POOLED, Way.SHARED_HEAD, Way.TRUTH)


@dataclass(frozen=True)
class Arm:
    """One thing that is compared.

    Args:
        name: as given to ``--methods``.
        about: one line for help texts and pages.
        way: see ``Way``.
        method: the entry of ``METHODS`` that trains; empty: nothing trains.
        permuted: whether the training subjects' labels are dealt out anew within each site, so that nothing can be
            learnt; the test labels stay.
        random_weights: whether the backbone has random weights instead of pre-trained ones.
        few_seeds: whether some of the seeds are enough: a control that is far from the rest, or one that costs several
            runs.
    """

    name: str
    about: str
    way: Way
    method: str = ""
    permuted: bool = False
    random_weights: bool = False
    few_seeds: bool = False

    @property
    def how(self) -> str:
        """Return how the subjects come together, in words."""
        return "every site trains by itself" if self.method == ALONE else self.way.value


REFERENCE = "med-duallora"
"""What the others are compared with, where it is there."""
ALONE = "local-lora"
"""What joining is compared with."""
NEW_SITE = "new-site"
"""What a site gets that joins later; it has variants by labelled subjects instead of one result."""
_REFERENCES = (
    Arm("central-lora", "one adapter, trained on all sites' subjects in one place", Way.POOLED, "fedavg-lora"),
    Arm("central-full", "whole weights, trained on all sites' subjects in one place", Way.POOLED, "fedavg-full"),
    Arm("own-head", "frozen backbone, each site's own head", Way.OWN_HEAD),
    Arm("shared-head", "frozen backbone, one head of all sites", Way.SHARED_HEAD),
    Arm("latent-ceiling", "control: what the phantoms' true volumes and walls tell; needs --truth", Way.TRUTH),
    Arm("permuted-labels", "control: nothing can be learnt", Way.FEDERATED, REFERENCE, permuted=True, few_seeds=True),
    Arm("random-weights", "control: no pre-training", Way.FEDERATED, REFERENCE, random_weights=True, few_seeds=True),
    Arm(NEW_SITE, "each site in turn joins after the training", Way.NEW_SITE, REFERENCE, few_seeds=True),
)


def arms() -> Mapping[str, Arm]:
    """Return everything that can be compared, by name: the federated methods, then the study's own."""
    federated = {name: Arm(name, method.summary, Way.FEDERATED, name) for name, method in METHODS.items()}
    return federated | {arm.name: arm for arm in _REFERENCES}


def chosen(names: str | None, *, truth: bool = False) -> list[Arm]:
    """Return the arms of a comma-separated list, or all of them that can be run.

    Args:
        names: the list; None: all.
        truth: whether the true values of the subjects are known.

    Raises:
        ConfigError: a name is unknown, given twice, or needs true values that are not known.
    """
    known = arms()
    if names is None:
        return [arm for arm in known.values() if truth or arm.way is not Way.TRUTH]
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"--methods: there is no {name!r}; there are {', '.join(known)}")
        if wanted.count(name) > 1:
            raise ConfigError(f"--methods names {name} twice")
        if known[name].way is Way.TRUTH and not truth:
            raise ConfigError(f"--methods: {name} needs --truth, the truth.csv that `med-duallora phantom` wrote")
    return [known[name] for name in wanted]
