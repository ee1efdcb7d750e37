"""A pool of processes for work of one thread each, which Ctrl-C lets finish what it has begun."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def workers(n_processes: int) -> Iterator[ProcessPoolExecutor]:
    """Give processes that use one BLAS thread each; several times more threads than cores only wait.

    They are spawned, not forked: the caller may hold threads (torch, FLARE) that do not survive a fork.
    """
    context = multiprocessing.get_context("spawn")
    with _one_thread_per_process(), ProcessPoolExecutor(n_processes, context, _leave_interrupts_to_parent) as pool:
        yield pool


def _leave_interrupts_to_parent() -> None:
    """Let a process finish its task on Ctrl-C; the parent gives it no further one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _one_thread_per_process() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
