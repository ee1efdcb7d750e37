"""Prepare whole cohorts: every subject read, prepared or refused with its reason, one cohort per site."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from med_duallora.cohorts.identity import shared_with_earlier
from med_duallora.cohorts.prepare_folders import move_to_places, subject_folders
from med_duallora.cohorts.prepare_one import Prepared, prepare_one
from med_duallora.cohorts.prepare_tables import Preparation, PrepareOptions, cohort_row, write_tables
from med_duallora.cohorts.provenance import is_synthetic
from med_duallora.cohorts.site_names import in_order, site_values, sites_of
from med_duallora.cohorts.split import official_splits, split_notes, stratified_splits
from med_duallora.cohorts.subject import RawSubject, Refusal
from med_duallora.errors import CohortError, MedDualLoRAError
from med_duallora.support.files import sentence
from med_duallora.support.locks import locked
from med_duallora.support.private import private_folder
from med_duallora.support.progress import track
from med_duallora.support.workers import workers

# Below this, starting processes takes longer than the work.
MIN_SUBJECTS_FOR_PROCESSES = 5


def prepare_cohorts(
    out: Path,
    subjects: Sequence[RawSubject],
    refused: Sequence[Refusal],
    options: PrepareOptions,
    notes: Sequence[str] = (),
) -> Preparation:
    """Prepare ``subjects`` into one cohort per site below ``out``.

    Writes ``<site>/cohort.csv`` and ``<site>/<subject>/``, ``refused.csv`` and ``preparation.json``. A
    subject whose source bytes and options are those of its last preparation is left as it is, or moved where
    it belongs to another site now. Whatever stops the run, no file and no subject folder is ever half-written.

    Args:
        out: where the cohorts go; while one run writes there, another one fails.
        subjects: as the readers found them.
        refused: what the readers could not use.
        options: how to prepare.
        notes: what the readers noticed that is of no one subject; they are recorded and shown with the splits'.

    Raises:
        CohortError: ``out`` cannot be written, is in use, or holds prepared subjects that are not among
            these; ``official_splits`` finds a subject without one; or ``site_names.sites_of`` finds no sites.
        MedDualLoRAError: writing failed, or a process died.
    """
    if options.official_splits:
        official_splits(subjects, options.seed)  # fails before the work where a subject has none
    unique, repeated = _without_repeated_names(subjects)
    sites = sites_of(unique, options.sites, options.seed)
    n_read = Counter([item.dataset for item in subjects] + [item.dataset for item in refused])
    result = Preparation(dict(n_read), notes=list(notes))
    try:
        with _locked(out):
            _check_known(out, {item.subject for item in subjects} | {item.subject for item in refused})
            places = {name: out / site / name for name, site in sites.items()}
            move_to_places(out, places)
            prepared = _prepare_into(result, unique, places, options)
            result.refused = [_in_users_words(item, subjects) for item in (*refused, *repeated, *result.refused)]
            _assign(result, [item for item in unique if item.subject in prepared], sites, prepared, options)
            write_tables(out, result, options)
    except OSError as error:
        raise MedDualLoRAError(f"cannot write below {out}: {sentence(error)}") from error
    return result


def _prepare_into(
    result: Preparation, subjects: Sequence[RawSubject], places: Mapping[str, Path], options: PrepareOptions
) -> dict[str, Prepared]:
    outcomes = _prepare_all(subjects, places, options)
    prepared, copies = _without_copies(
        subjects, {item.subject: item for item in outcomes if isinstance(item, Prepared)}
    )
    result.refused = [*(item for item in outcomes if isinstance(item, Refusal)), *copies]
    result.n_reused = sum(item.reused for item in prepared.values())
    return prepared


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Create ``out`` and hold it, so that two runs cannot mix; clear what a killed run left."""
    busy = CohortError(f"another run of prepare is writing to {out}; wait for it or choose another --out")
    with ExitStack() as stack:
        try:
            private_folder(out)
            stack.enter_context(locked(out, busy))
        except OSError as error:
            raise CohortError(f"--out {out} cannot be used: {error.strerror or error}") from error
        for leftover in [*out.glob(".partial-*"), *out.glob("*/.partial-*")]:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        yield


def _check_known(out: Path, known: set[str]) -> None:
    strangers = [folder for folder in subject_folders(out) if folder.name not in known]
    if strangers:
        raise CohortError(
            f"{out} already holds {len(strangers)} prepared subject(s) that are not among the given sources, such as "
            f"{strangers[0].relative_to(out)}: give all sources in one run, choose another --out, or delete them"
        )


def _in_users_words(refusal: Refusal, subjects: Sequence[RawSubject]) -> Refusal:
    """Name the place that the user knows instead of a temporary file."""
    source, detail = refusal.source, refusal.detail
    for item in subjects:
        if item.found_at:
            source, detail = (text.replace(str(item.ed.path), item.found_at) for text in (source, detail))
    return replace(refusal, source=source, detail=detail)


def _without_repeated_names(subjects: Sequence[RawSubject]) -> tuple[list[RawSubject], list[Refusal]]:
    """Keep the first of each name. Two of a name could be one person in two splits, so no second name is made up."""
    first: dict[str, RawSubject] = {}
    refused = []
    for item in subjects:
        if item.subject in first:
            detail = f"{item.ed.path} has the same name as {first[item.subject].ed.path}"
            refused.append(Refusal(item.subject, item.dataset, str(item.ed.path), "duplicate-subject", detail))
        first.setdefault(item.subject, item)
    return list(first.values()), refused


def _without_copies(
    subjects: Sequence[RawSubject], prepared: Mapping[str, Prepared]
) -> tuple[dict[str, Prepared], list[Refusal]]:
    """Keep the first of subjects that share an image: one person under two names could be in two splits."""
    in_order = [prepared[raw.subject] for raw in subjects if raw.subject in prepared]
    shared = shared_with_earlier((item.subject, item.ed_voxels_sha256, item.es_voxels_sha256) for item in in_order)
    refused = [
        Refusal(raw.subject, raw.dataset, str(raw.ed.path), "duplicate-subject", shared[raw.subject])
        for raw in subjects
        if raw.subject in shared
    ]
    return {item.subject: item for item in in_order if item.subject not in shared}, refused


def _prepare_all(
    subjects: Sequence[RawSubject], places: Mapping[str, Path], options: PrepareOptions
) -> list[Prepared | Refusal]:
    """Prepare every subject, in processes where that pays; the result is in the order of ``subjects``."""
    tasks = [(item, places[item.subject], options.rotated_origin_shift) for item in subjects]
    if options.n_processes == 1 or len(tasks) < MIN_SUBJECTS_FOR_PROCESSES:
        return [prepare_one(*task) for task in track(tasks, "preparing")]
    with workers(min(options.n_processes, len(tasks))) as pool:
        futures = {pool.submit(prepare_one, *task): index for index, task in enumerate(tasks)}
        try:
            done = {
                futures[future]: future.result() for future in track(as_completed(futures), "preparing", len(tasks))
            }
        except BrokenProcessPool as error:
            raise MedDualLoRAError("a process died, perhaps for lack of memory; try fewer --processes") from error
        finally:
            pool.shutdown(cancel_futures=True)
    return [done[index] for index in range(len(tasks))]


def _assign(
    result: Preparation,
    subjects: Sequence[RawSubject],
    sites: Mapping[str, str],
    prepared: Mapping[str, Prepared],
    options: PrepareOptions,
) -> None:
    """Split each site's subjects and fill in the rows of its table."""
    for site in in_order(sites[item.subject] for item in subjects):
        members = sorted((item for item in subjects if sites[item.subject] == site), key=lambda item: item.subject)
        if options.official_splits:
            splits = official_splits(members, options.seed)
        else:
            splits = stratified_splits(members, options.seed, options.fractions)
        result.notes += split_notes(site, members, splits)
        if any(is_synthetic(item.ed.path) for item in members):
            result.synthetic.add(site)
        values = site_values(members[0], options.sites)
        result.told_by[site] = dict(zip(options.sites.columns, values, strict=True))
        result.cohorts[site] = [cohort_row(item, splits[item.subject], prepared[item.subject]) for item in members]
