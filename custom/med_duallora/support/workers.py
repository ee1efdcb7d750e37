"""A pool of processes for work of one thread each; Ctrl-C lets them finish what they have begun."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
KEPT_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""Lets glibc keep what an array of a volume's size leaves for the next one: the kernel would clear its pages anew."""


@contextmanager
def workers(n_processes: int) -> Iterator[ProcessPoolExecutor]:
    """Give processes that use one BLAS thread each; several times more threads than cores only wait.

    They are spawned, not forked: the caller may hold threads (torch, FLARE) that do not survive a fork.
    """
    context = multiprocessing.get_context("spawn")
    variables = dict.fromkeys(ONE_THREAD, "1") | KEPT_MEMORY
    with environment(variables), ProcessPoolExecutor(n_processes, context, _begin) as pool:
        yield pool


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, even killed: a pool's processes would wait for ever.

    Nobody takes what it still computes, so that it ends where it is; files that it has not finished are temporary ones.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def _begin() -> None:
    """Let a process finish its task on Ctrl-C; the parent gives it no further one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment inside the block: processes that are started there have them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
