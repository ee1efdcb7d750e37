"""Ctrl-C and the like: every polite signal interrupts, what stops processes is not broken off, and none is lost."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""By which people and systems ask a program to end."""
REPEATED_S = 5.0
"""People press Ctrl-C more than once."""


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C inside the block, so that they are cleaned up after too.

    A second signal soon after does nothing: it must not break off what the first one has set off, before that can
    shield itself with ``not_interrupted``. A later one interrupts again, in case the first was lost or something hangs.
    SIGINT itself is named because a shell lets its background jobs ignore it.
    """
    last = -REPEATED_S

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < REPEATED_S:
            _say_wait(number, frame)
            return
        last = now
        raise KeyboardInterrupt

    with _handlers(interrupt):
        yield


@contextlib.contextmanager
def none_lost() -> Iterator[None]:
    """Let an interruption inside the block end it, whoever catches it there.

    FLARE's network code catches everything in places (2.9: ``core_cell.py``, ``grpc_driver.py``, ``waiter_utils.py``),
    and takes a Ctrl-C for a connection that failed: the question is asked again, and the program goes on.

    Raises:
        KeyboardInterrupt: a signal raised it inside the block.
    """
    heard = False
    usual = {int(number): signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        handler = usual[number]
        try:
            if callable(handler):  # the others are not replaced
                handler(number, frame)
        except KeyboardInterrupt:
            heard = True
            raise

    try:
        with _handlers(note, [number for number in SIGNALS if callable(usual[number])]):
            yield
    finally:
        if heard:
            raise KeyboardInterrupt


@contextlib.contextmanager
def not_interrupted() -> Iterator[None]:
    """Let nothing but SIGKILL break off the block: it stops processes, and a Ctrl-C must not leave some."""
    with _handlers(_say_wait):
        yield


def _say_wait(_number: int, _frame: FrameType | None) -> None:
    # nobody may listen any more, or this very program may be in the middle of a line
    with contextlib.suppress(OSError, RuntimeError):
        print("still stopping processes; please wait", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _handlers(
    handler: Callable[[int, FrameType | None], object], numbers: Iterable[signal.Signals] = SIGNALS
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
