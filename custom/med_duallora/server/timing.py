"""Where the time of a round goes beside the computing of the slowest site."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from med_duallora.support.files import canonical_json

TIMES_FILE = "round_times.jsonl"
PARTS = {
    "waiting": "waiting for work",
    "transfer": "transfer and filters",
    "server": "aggregation and writing",
}
"""Of a round's time beside computing -> what a reader is told."""


@dataclass
class RoundClock:
    """Moments of one round, all by the server's clock, in seconds.

    Args:
        round_index: from 0.
        started: when the round was opened.
        given: site -> when it was given the round's task.
        received: site -> when its answer had passed the server's filters.
    """

    round_index: int
    started: float
    given: dict[str, float] = field(default_factory=dict)
    received: dict[str, float] = field(default_factory=dict)

    def times(self, ended: float, computing: Mapping[str, float]) -> dict[str, Any]:
        """Return what the way of the last answer took, which is what the round waited for.

        Args:
            ended: when the next global adapter was written.
            computing: seconds that each counted site says it computed; a site's policy may keep them.

        Returns:
            ``seconds`` of the round, and of them, for the site that answered last: ``waiting`` until it had its task,
            ``computing``, ``transfer`` of task and answer with the filters of both sides, ``server`` for aggregation
            and writing. Where the site does not tell its computing, that is None and a part of ``transfer``.
        """
        found: dict[str, Any] = {"round": self.round_index, "seconds": ended - self.started}
        whole = [site for site in self.received if site in self.given]
        if not whole:
            return found
        last = max(whole, key=self.received.__getitem__)
        busy, told = self.received[last] - self.given[last], computing.get(last)
        return found | {
            "site": last,
            "waiting": self.given[last] - self.started,
            "computing": told,
            "transfer": busy - (told or 0.0),
            "server": ended - self.received[last],
        }


def add_times(directory: Path, times: Mapping[str, Any]) -> None:
    """Write the times of a finished round below those that are there."""
    with (directory / TIMES_FILE).open("a", encoding="utf-8") as stream:
        stream.write(canonical_json(times) + "\n")
