"""All runs of a study, in processes: what is done stays done, whatever ends the study."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from med_duallora.errors import MedDualLoRAError
from med_duallora.study.plan import RunSpec
from med_duallora.study.running import run_one
from med_duallora.support.progress import track

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_all(specs: Sequence[RunSpec], n_processes: int) -> int:
    """Do every run that has no record yet, and return how many these were.

    Args:
        specs: all runs, in the order in which they begin.
        n_processes: how many at the same time, each with one thread; 1: in this process.

    Raises:
        MedDualLoRAError: a run failed, or a process died; the records of the others stay.
        KeyboardInterrupt: likewise.
    """
    missing = [spec for spec in specs if not spec.path.exists()]
    if missing:
        for _ in track(_done(missing, n_processes), "runs", len(missing)):
            pass
    return len(missing)


def _done(specs: Sequence[RunSpec], n_processes: int) -> Iterator[object]:
    """Do runs, and yield whenever one is done."""
    if n_processes == 1 or len(specs) == 1:
        yield from map(run_one, specs)
        return
    # Spawned, not forked: the caller may hold threads (torch) that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with (
        _one_thread_per_process(),
        ProcessPoolExecutor(min(n_processes, len(specs)), context, _leave_interrupts_to_parent) as pool,
    ):
        futures = [pool.submit(run_one, spec) for spec in specs]
        try:
            for future in as_completed(futures):
                future.result()
                yield future
        except BrokenProcessPool as error:
            raise MedDualLoRAError(
                "a process died, perhaps for lack of memory; try fewer --processes. The same command goes on"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    """Let a process finish its run on Ctrl-C; the parent gives it no further one."""
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
