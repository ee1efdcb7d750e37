"""Which runs led to a global adapter: what keeps a site's local state with the training that it belongs to.

A run is one job from its first to its last round. The server names it when it starts and sends the name along with
every task. A resumed job is a run of its own that continues an earlier one, so its lineage lists both. A site keeps
its state by run: nothing that a later job does touches the state of an earlier one, two jobs of the same experiment
never meet, and a rerun of the same configuration never continues an older training by accident.
"""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

MAX_RUNS = 1024
"""A training of weeks whose sites come and go is resumed every few rounds."""
RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Run:
    """One run of a training.

    Args:
        run_id: 32 hexadecimal digits; also the name of a folder, so nothing else is taken.
        first_round: the round it began with, from 0.

    Raises:
        ValueError: one of the two is something else.
    """

    run_id: str
    first_round: int

    def __post_init__(self) -> None:
        if type(self.run_id) is not str or not RUN_ID.fullmatch(self.run_id):
            raise ValueError("a run's id is not 32 hexadecimal digits")
        if type(self.first_round) is not int or self.first_round < 0:
            raise ValueError("a run's first round is not a whole number from 0")


@dataclass(frozen=True)
class Lineage:
    """The runs of a training, oldest first; the last one is the running one.

    Args:
        runs: at least one and at most ``MAX_RUNS``; the first begins with round 0, each other one later than the one
            before it.

    Raises:
        ValueError: the runs are not like that.
    """

    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        starts = [run.first_round for run in self.runs]
        if not 1 <= len(starts) <= MAX_RUNS or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(
                f"a lineage is not a list of 1 to {MAX_RUNS} runs, each beginning later than the one before"
            )

    @classmethod
    def begin(cls) -> "Lineage":
        """Return the lineage of a new training, under a name that no other one has."""
        return cls((Run(secrets.token_hex(16), 0),))

    def continued(self, first_round: int) -> "Lineage":
        """Return the lineage of a new run that goes on from this one with round ``first_round`` (else ValueError).

        Where ``full``, there is none.
        """
        return Lineage((*self.runs, Run(secrets.token_hex(16), first_round)))

    @property
    def full(self) -> bool:
        """Return whether no further run can be added."""
        return len(self.runs) >= MAX_RUNS

    @classmethod
    def from_list(cls, values: object) -> "Lineage":
        """Return what ``to_list`` gave; ValueError for anything else."""
        if not isinstance(values, list | tuple):
            raise ValueError("a lineage is not a list")
        if not all(isinstance(item, list | tuple) and len(item) == 2 for item in values):
            raise ValueError("a lineage is not a list of pairs")
        return cls(tuple(Run(*item) for item in values))

    def to_list(self) -> list[list[str | int]]:
        """Return plain JSON values: a pair of id and first round per run."""
        return [[run.run_id, run.first_round] for run in self.runs]

    @property
    def run_id(self) -> str:
        """Return the id of the running one."""
        return self.runs[-1].run_id

    def places(self, before_round: int | None) -> Iterator[tuple[str, int | None]]:
        """Yield where the state from before a round can be: (run id, before which round), newest run first.

        Of an earlier run only the rounds count that the next one built upon.
        """
        limit = before_round
        for run in reversed(self.runs):
            yield run.run_id, limit
            limit = run.first_round if limit is None else min(limit, run.first_round)


ALONE = Lineage((Run("0" * 32, 0),))
"""Of a site that was given no task by a federation yet, as in benchmarks."""
