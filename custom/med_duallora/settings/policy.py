"""The site's privacy floor: what no job can ask for, whatever its author writes into it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from med_duallora.errors import ConfigError
from med_duallora.measures import MEASURES, Kind, Subjects
from med_duallora.settings.docstrings import described
from med_duallora.settings.job_limits import ANY, TEXT, Numbers, are_limits, beyond
from med_duallora.settings.limits import SHA256, Limit, between, check_limits, limited, one_of, sha256_or_empty

MAX_ANSWERS = 1_000_000
MAX_RANK = 4096
"""Above the width of any backbone, which is the rank of a job that sends whole weights."""
HEAD_PARTS = ("none", "shared", "all")
"""What may leave of the classification head, each more than the one before."""
OF_A_BOOL = {False: "none", True: "all"}
"""What ``head_leaves`` means where it is true or false, as it was before it had three values."""

ClassSizes = tuple[int, int]
"""Number of normal and of diseased subjects."""


def _are_hashes(values: tuple[str, ...]) -> bool:
    return all(SHA256.fullmatch(value) for value in values)


@dataclass(frozen=True)
class SitePolicy:
    """The privacy floor of a site, part of its own configuration and never of a job.

    The defaults are the strict ones that the site kit writes (see docs/privacy.md), so that what nobody decided opens
    nothing. What runs on one machine takes ``for_one_machine``.

    Args:
        metrics_leave: whether any metric leaves at all, counts and scores alike.
        min_subjects: a score, a loss or a count of a split leaves only where each of the two classes has at least this
            many subjects in it; the adapter only where both have that many training subjects. 0: no floor.
        min_train_subjects: the adapter leaves only where it was trained on at least this many subjects.
        metric_decimals: scores, losses and times are rounded to this many decimals.
        model_leaves: whether ``med-duallora export`` may write this site's own model without being told each time that
            the file stays here; it holds the local adapter and the head.
        head_leaves: what of the classification head a job may ask for. ``none``: nothing; ``shared``: its weights as
            one more low-rank pair of the global adapter, without the bias; ``all``: the whole head alongside it.
        max_rank: highest rank of the global adapter that a job may ask for. A job that sends whole weights
            (``fedavg-full``) asks for the width of the backbone's tokens.
        max_blocks: largest number of adapted blocks that a job may ask for.
        backbone_sha256: hash of the only backbone checkpoint that this site trains with; empty: any.
        contract_sha256: hashes of the egress contracts that this site agreed to; empty: any within the limits above.
        job_sha256: hashes of the whole settings of the jobs that this site agreed to; empty: any within these limits.
        job_limits: ranges of numbers of a job that this site accepts, in place of the strict ones that hold for every
            number without a text here.
        max_test_evaluations: adapters that this site scores on its test split, in all jobs and experiments together.
        max_test_evaluations_per_experiment: adapters that this site scores on its test split in one experiment.
        max_rounds: rounds that this site answers (scores and training), in all jobs and experiments together.
        max_rounds_per_experiment: rounds that this site answers in all jobs of one experiment.

    Raises:
        ConfigError: a value is out of range; quotes the value and the limit.
    """

    metrics_leave: bool = True
    min_subjects: int = limited(5, between(0, 1_000_000))
    min_train_subjects: int = limited(10, between(1, 1_000_000))
    metric_decimals: int = limited(3, between(0, 6))
    model_leaves: bool = False
    head_leaves: str = limited("shared", one_of(*HEAD_PARTS))
    max_rank: int = limited(16, between(1, MAX_RANK))
    max_blocks: int = limited(4, between(1, 64))
    backbone_sha256: str = limited("", sha256_or_empty())
    contract_sha256: tuple[str, ...] = limited(
        (), Limit("a list of hashes, each of 64 lower-case hexadecimal digits", _are_hashes)
    )

    job_sha256: tuple[str, ...] = limited(
        (), Limit("a list of hashes, each of 64 lower-case hexadecimal digits", _are_hashes)
    )
    job_limits: tuple[str, ...] = limited((), Limit(TEXT, are_limits))
    max_test_evaluations: int = limited(50, between(0, MAX_ANSWERS))
    max_test_evaluations_per_experiment: int = limited(20, between(0, MAX_ANSWERS))
    max_rounds: int = limited(5000, between(0, MAX_ANSWERS))
    max_rounds_per_experiment: int = limited(1000, between(0, MAX_ANSWERS))

    def __post_init__(self) -> None:
        if isinstance(self.head_leaves, bool):
            raise self._of_earlier_version(self.head_leaves)
        check_limits(self, "policy.")

    @classmethod
    def for_one_machine(cls) -> "SitePolicy":
        """Return the policy of a study on one machine: nothing leaves it, and one person chooses job and policy."""
        return cls(
            min_subjects=0,
            min_train_subjects=1,
            metric_decimals=6,
            head_leaves="all",
            max_rank=MAX_RANK,
            max_blocks=64,
            job_limits=(ANY,),
            max_test_evaluations=MAX_ANSWERS,
            max_test_evaluations_per_experiment=MAX_ANSWERS,
            max_rounds=MAX_ANSWERS,
            max_rounds_per_experiment=MAX_ANSWERS,
        )

    def check_job(
        self, *, rank: int, n_blocks: int, head: str, contract_sha256: str, job_sha256: str, numbers: Numbers
    ) -> None:
        """Refuse a job that asks for more than this site gives; called before anything is loaded or trained.

        Args:
            rank: the highest that a layer's update can have.
            n_blocks: number of adapted blocks.
            head: what the job sends of the classification head, as ``head_leaves`` names it.
            contract_sha256: of the egress contract that follows from the job.
            job_sha256: of the job's whole settings.
            numbers: every number of the job's settings, by its name.

        Raises:
            ConfigError: names the setting of this site's configuration that refuses, and what would change it.
        """
        if rank > self.max_rank:
            raise self._refusal("max_rank", f"{self.max_rank}, but the job asks for rank {rank}", f"at least {rank}")
        if n_blocks > self.max_blocks:
            why = f"{self.max_blocks}, but the job adapts {n_blocks} blocks"
            raise self._refusal("max_blocks", why, f"at least {n_blocks}")
        if HEAD_PARTS.index(head) > HEAD_PARTS.index(self.head_leaves):
            how = "all of the classification head, by lora.head_policy or by its method"
            if head == "shared":
                how = "the classification head's weights (with lora.head_policy = local it would not)"
            raise self._refusal("head_leaves", f"{self.head_leaves!r}, but the job sends {how}", f"{head!r}")
        if self.contract_sha256 and contract_sha256 not in self.contract_sha256:
            why = f"pinned, but the job's egress contract is {contract_sha256}"
            raise self._refusal("contract_sha256", why, f"empty, or hold {contract_sha256}")
        if self.job_sha256 and job_sha256 not in self.job_sha256:
            why = f"pinned, but the job's settings have the hash {job_sha256}"
            raise self._refusal("job_sha256", why, f"empty, or hold {job_sha256}")
        if found := beyond(self.job_limits, numbers):
            text, given = found
            why = f"{text!r}, but the job has {', '.join(map(str, given)) or 'no such number'}"
            raise self._refusal("job_limits", why, "wider")

    def check_backbone(self, sha256: str) -> None:
        """Refuse another backbone than the pinned one (ConfigError)."""
        if self.backbone_sha256 and sha256 != self.backbone_sha256:
            why = f"pinned, but the job's backbone checkpoint is {sha256}"
            raise self._refusal("backbone_sha256", why, f"empty, or {sha256}")

    def short_of(self, train: ClassSizes) -> str:
        """Return the key of the floor that a training split does not reach; empty where its adapter may leave."""
        if min(train) < self.min_subjects:
            return "min_subjects"
        return "min_train_subjects" if sum(train) < self.min_train_subjects else ""

    def allowed_metrics(self, metrics: Mapping[str, float], n_subjects: Mapping[str, ClassSizes]) -> dict[str, float]:
        """Return what of a site's metrics may leave it; applying it twice gives the same.

        What the table of measures has no entry for does not leave, whoever lists it.

        Args:
            metrics: by name.
            n_subjects: number of subjects of each class by split: train, val, test.
        """
        if not self.metrics_leave:
            return {}
        floor = self.min_subjects
        enough = {split for split in Subjects if min(n_subjects.get(split.value, (0, 0))) >= floor} | {Subjects.NONE}
        return {
            name: round(value, self.metric_decimals) if measure.kind is Kind.SCORE else value
            for name, value in metrics.items()
            if (measure := MEASURES.get(name)) and measure.leaves and measure.subjects in enough
        }

    @staticmethod
    def _of_earlier_version(value: bool) -> ConfigError:
        key, now = "policy.head_leaves", OF_A_BOOL[value]
        written = str(value).lower()
        return ConfigError(
            f"{key} = {written} is of an earlier version: run `med-duallora site-kit --startup-kit KIT` again, which "
            f"writes {now!r} in its place, or write one of {', '.join(HEAD_PARTS)} yourself",
            key=key,
            value=value,
            limit=f"one of {', '.join(HEAD_PARTS)}",
        )

    def _refusal(self, name: str, why: str, limit: str) -> ConfigError:
        key = f"policy.{name}"
        return ConfigError(
            f"this site refuses the job: {key} of the site configuration is {why}. "
            f"Change the job, or {key} where this site agrees to it",
            key=key,
            value=getattr(self, name),
            limit=limit,
        )


def check_complete(values: Mapping[str, Any]) -> None:
    """Refuse a policy that leaves a key out: what a site lets out is written down by the site, every key of it.

    Args:
        values: the policy as a site's file has it; its other mistakes are found elsewhere.

    Raises:
        ConfigError: names the keys, the meaning of the first one and how it is added.
    """
    missing = [field for field in dataclasses.fields(SitePolicy) if field.name not in values]
    if not missing:
        return
    first, *others = missing
    key, meaning = f"policy.{first.name}", described(SitePolicy)[first.name].rstrip(".")
    also = f", as {'are' if len(others) > 1 else 'is'} " + ", ".join(f"policy.{field.name}" for field in others)
    raise ConfigError(
        f"setting {key!r} is missing{also if others else ''}; {key}: {meaning}. Add it: `med-duallora site-kit "
        "--startup-kit KIT` writes what is missing with its strict value",
        key=key,
    )
