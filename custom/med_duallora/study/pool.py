"""All runs of a study, in processes: what is done stays done, whatever ends the study."""

from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool

from med_duallora.errors import MedDualLoRAError
from med_duallora.study.plan import RunSpec
from med_duallora.study.running import run_one
from med_duallora.support.progress import track
from med_duallora.support.workers import workers


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
    with workers(min(n_processes, len(specs))) as pool:
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
