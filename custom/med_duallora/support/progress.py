"""Progress of long work: a bar on a terminal, plain lines elsewhere (logs, CI)."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

PLAIN_INTERVAL_S = 10.0


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` while showing how far the work is on standard error.

    Args:
        items: what is worked through.
        label: a few words that say what is being done.
        total: number of items, where ``items`` has no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, total=total, file=sys.stderr, dynamic_ncols=True, leave=True)
        return
    yield from _plain(items, label, total)


def _plain(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    started = last = time.monotonic()
    n_done = 0
    for item in items:
        yield item
        n_done += 1
        now = time.monotonic()
        if now - last >= PLAIN_INTERVAL_S:
            last = now
            print(f"{label}: {n_done}/{total or '?'}", file=sys.stderr, flush=True)
    print(f"{label}: {n_done} done in {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
