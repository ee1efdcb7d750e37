"""Write a whole phantom cohort: raw folders, tables, true values and notices; resumable."""

import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from med_duallora.cohorts.phantom.layouts import frame_shares, write_subject
from med_duallora.cohorts.phantom.plan import Entry, plan_cohort
from med_duallora.cohorts.phantom.recipe import Recipe, claim
from med_duallora.cohorts.phantom.subject import draw_subject, render_subject
from med_duallora.cohorts.phantom.tables import truth_row, write_tables
from med_duallora.errors import ConfigError, MedDualLoRAError
from med_duallora.support.files import sentence
from med_duallora.support.progress import track
from med_duallora.support.workers import KEPT_MEMORY, end_with_parent, environment

Truth = dict[str, object]


def write_cohort(out: Path, recipe: Recipe, n_processes: int = 1) -> int:
    """Write a cohort into ``out`` and return its number of subjects.

    A cohort that is there already with the same recipe is completed: subjects that are whole stay as they are.

    Args:
        out: a new or empty folder, or one with the same recipe.
        recipe: what to make.
        n_processes: processes, at least 1.

    Raises:
        CohortError: ``out`` holds something else.
        ConfigError: ``n_processes`` is below 1.
        MedDualLoRAError: writing failed, or a process died.
    """
    if n_processes < 1:
        raise ConfigError.of("--processes", n_processes, "at least 1")
    entries = plan_cohort(recipe.preset, recipe.seed, recipe.n)
    make = partial(_make, out, recipe.preset != "pretrain")
    try:
        claim(out, recipe)
        for leftover in out.rglob(".partial-*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        truths = list(track(_run(make, entries, n_processes), f"phantoms ({recipe.preset})", len(entries)))
        write_tables(out, recipe, entries, truths)
    except BrokenProcessPool as error:
        raise MedDualLoRAError(
            "a process died, most likely for want of memory; try again with fewer --processes"
        ) from error
    except OSError as error:
        raise MedDualLoRAError(f"cannot write below {out}: {sentence(error)}") from error
    return len(entries)


def _run(make: Callable[[Entry], Truth], entries: Sequence[Entry], n_processes: int) -> Iterator[Truth]:
    if n_processes == 1:
        yield from map(make, entries)
        return
    # Spawned, not forked: the caller may hold threads (torch, FLARE) that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    n_processes = min(n_processes, len(entries))
    with environment(KEPT_MEMORY), ProcessPoolExecutor(n_processes, context, end_with_parent) as pool:
        yield from pool.map(make, entries, chunksize=2)


def _make(out: Path, cine: bool, entry: Entry) -> Truth:
    phantom = draw_subject(entry.identity)
    folder = out / entry.layout / entry.place / entry.name
    if not folder.is_dir():
        shares = frame_shares(entry, cine)
        write_subject(folder, entry, phantom, render_subject(phantom, shares), shares)
    return truth_row(entry, phantom)
