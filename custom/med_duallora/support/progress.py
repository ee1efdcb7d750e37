"""Progress of long work: a picture that changes in place on a terminal, plain lines elsewhere (logs, CI)."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Protocol, TextIO, TypeVar

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")

QUIET_S = 15.0
"""Without a terminal, a line says that the work goes on after this many seconds of silence."""


class Show(Protocol):
    """Shows one moment of the work."""

    def __call__(
        self, now: str, *, stage: str = "", news: Sequence[str] = (), picture: RenderableType | None = None
    ) -> None:
        """Show where the work is.

        Args:
            now: in one line; without a terminal it is printed when the stage changes, and after a long silence.
            stage: what part of the work it is.
            news: lines that stay.
            picture: what a terminal shows instead of ``now``.
        """


@contextmanager
def display(stream: TextIO, stays: bool = True) -> Iterator[Show]:
    """Give what shows the moments of the work inside the block, as often as there is something to say.

    Args:
        stream: standard output or standard error.
        stays: whether a terminal keeps the last picture.
    """
    if not stream.isatty():
        yield _Lines(stream)
        return
    with Live(
        console=Console(file=stream),
        transient=not stays,
        # what others print appears above the picture; where it goes to a file, it still does
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=sys.stderr.isatty(),
    ) as live:

        def show(now: str, *, stage: str = "", news: Sequence[str] = (), picture: RenderableType | None = None) -> None:
            del stage
            for text in news:
                live.console.print(text, highlight=False, markup=False)
            live.update(Text(now) if picture is None else picture)

        yield show


class _Lines:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stage = ""
        self._said = time.monotonic()

    def __call__(
        self, now: str, *, stage: str = "", news: Sequence[str] = (), picture: RenderableType | None = None
    ) -> None:
        del picture
        is_silent = not news and time.monotonic() - self._said >= QUIET_S
        lines = [*news, *([now] if is_silent or stage != self._stage else [])]
        if lines:
            print("\n".join(lines), file=self._stream, flush=True)
            self._stage, self._said = stage, time.monotonic()


class Bar:
    """A picture of how much of the work is done.

    Args:
        total: number of steps; None: nobody knows.
    """

    def __init__(self, total: int | None) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(TextColumn("{task.description}"), *columns)
        self._task = self._progress.add_task("", total=total)

    def at(self, n_done: int, doing: str) -> RenderableType:
        """Return the picture after ``n_done`` steps."""
        self._progress.update(self._task, completed=n_done, description=doing)
        return self._progress


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` while showing how far the work is on standard error.

    Args:
        items: what is worked through.
        label: a few words that say what is being done.
        total: number of items, where ``items`` has no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    started, n_done, bar = time.monotonic(), 0, Bar(total)
    with display(sys.stderr, stays=False) as show:
        for item in items:
            yield item
            n_done += 1
            show(f"{label}: {n_done}/{total or '?'}", picture=bar.at(n_done, label))
    print(f"{label}: {n_done} done in {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
