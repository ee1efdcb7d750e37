"""What a terminal shows of a running federation: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from med_duallora.measures import KEY_MEASURE

QUIET_S = 15.0
"""Without a terminal, a line says that the work goes on after this many seconds of silence."""


class Follower(Protocol):
    """Takes the records of all rounds finished so far, several times a second, and shows what is new."""

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Show the news."""


@contextmanager
def rounds_shown(n_rounds: int, planned: range | None = None) -> Iterator[Follower]:
    """Give what shows the progress of a job inside the block.

    Args:
        n_rounds: of the whole training.
        planned: the rounds of this job; None: all of them.
    """
    n_planned = n_rounds if planned is None else len(planned)
    if not sys.stdout.isatty():
        yield _Lines(n_rounds, n_planned)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console()) as bar:
        yield _Bar(bar, n_rounds, n_planned)


def round_line(record: Mapping[str, Any], n_rounds: int) -> str:
    """Return one line on a finished round.

    For example ``round  3/12  val. balanced accuracy ge 0.71  philips 0.65  mean 0.680  2.1 s``: the score of the
    adapters that the round started from.
    """
    scores = {site: values["metrics"].get(KEY_MEASURE) for site, values in record["sites"].items()}
    known = [score for score in scores.values() if score is not None]
    texts = [f"{site} {'-' if score is None else f'{score:.2f}'}" for site, score in scores.items()]
    mean = f"  mean {sum(known) / len(known):.3f}" if known else ""
    head = f"round {record['round'] + 1:>{len(str(n_rounds))}}/{n_rounds}"
    reasons = "; ".join(f"{item['site']}: {item['reason']}" for item in record["refused"])
    refused = f"  refused: {reasons}" if reasons else ""
    return f"{head}  val. balanced accuracy {'  '.join(texts)}{mean}  {record['seconds']:.1f} s{refused}"


def _doing(n_done: int, n_planned: int) -> str:
    return "training" if n_done < n_planned else "evaluating"


class _Lines:
    def __init__(self, n_rounds: int, n_planned: int) -> None:
        self._n_rounds = n_rounds
        self._n_planned = n_planned
        self._n_shown = 0
        self._started = self._said = time.monotonic()

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> None:
        news = [round_line(record, self._n_rounds) for record in records[self._n_shown :]]
        now = time.monotonic()
        if not news and now - self._said >= QUIET_S:
            news = [f"{_doing(self._n_shown, self._n_planned)}, {now - self._started:.0f} s since the start"]
        if news:
            print("\n".join(news), flush=True)
            self._said = now
        self._n_shown = len(records)


class _Bar:
    def __init__(self, bar: Progress, n_rounds: int, n_planned: int) -> None:
        self._bar = bar
        self._n_rounds = n_rounds
        self._n_planned = n_planned
        self._n_shown = 0
        self._task = bar.add_task("starting", total=n_planned)

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> None:
        for record in records[self._n_shown :]:
            self._bar.console.print(round_line(record, self._n_rounds), highlight=False)
        self._n_shown = len(records)
        self._bar.update(self._task, completed=self._n_shown, description=_doing(self._n_shown, self._n_planned))
