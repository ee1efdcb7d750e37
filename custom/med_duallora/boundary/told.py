"""Which numbers of a running job its site's ledger has a line of, and which of them the console may hear.

A score or a loss is told at the console once it left with an answer, never before: else, whoever asks often enough
would hear of steps and adapters that were not answered. What speaks of work, time and memory is told while it goes on,
renewed every few seconds: each new set of numbers is a line of the ledger, and nobody shall fill a disk by asking.
"""

import time
from collections.abc import Callable, Mapping
from threading import Lock

from med_duallora.measures import MEASURES, Subjects

RENEWED_AFTER_S = 10.0
"""At most six lines a minute, for as long as somebody watches a job."""


class ToldNumbers:
    """The numbers of one job that left its site; used by several threads.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._left: dict[str, float] = {}
        self._renewed: float | None = None

    def note(self, numbers: Mapping[str, float]) -> None:
        """Remember numbers that the ledger has a line of; a newer value takes the place of the older one."""
        with self._lock:
            self._left |= numbers

    def to_tell(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return what the console may hear of a site's present numbers.

        Args:
            numbers: by name, as the policy lets them out.

        Returns:
            What speaks of subjects, as it last left with an answer; and the work, as it was a few seconds ago at most.
        """
        with self._lock:
            work = {name: value for name, value in numbers.items() if _is_of_work(name)}
            new = {name: value for name, value in work.items() if name not in self._left}
            if not self._is_renewed() and work.items() - self._left.items() - new.items():
                self._renewed = self._clock()
                new = work
            return {name: self._left[name] for name in numbers if name in self._left} | new

    def _is_renewed(self) -> bool:
        return self._renewed is not None and self._clock() - self._renewed < RENEWED_AFTER_S

    def without_line(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return those numbers that the ledger has no line of yet."""
        with self._lock:
            return {name: value for name, value in numbers.items() if self._left.get(name) != value}


def _is_of_work(name: str) -> bool:
    measure = MEASURES.get(name)
    return measure is not None and measure.subjects is Subjects.NONE
