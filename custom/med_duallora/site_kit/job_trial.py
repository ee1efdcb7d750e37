"""Whether a job can run here with a cohort: asked of the code that runs it, up to one training step."""

import dataclasses
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import psutil
import torch

from med_duallora.adapter.model import skeleton
from med_duallora.backbone import BackboneConfig
from med_duallora.cohorts.examination import ERROR, NOTE, WARNING, Finding
from med_duallora.cohorts.prepared import PreparedCohort, PreparedSubject, load_volume
from med_duallora.errors import CohortError, MedDualLoRAError
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.site.runtime import SiteRuntime
from med_duallora.site.training import train_round
from med_duallora.support.devices import use_threads
from med_duallora.support.usage import peak_memory_mb

FEWEST_IN_A_STEP = 4
"""Subjects of a step below which the head's standardisation has hardly any statistics; one alone has none."""
COPIES = 2
"""Of the backbone's weights in memory while they are loaded: the file's and the model's."""


def try_job(folder: Path, name: str, job: JobConfig, site: SiteConfig) -> Iterator[Finding]:
    """Start a job as a site starts it, and train one step; states and features of the trial are nobody's.

    Args:
        folder: the prepared cohort.
        name: of the job, as the user calls it.
        job: its settings.
        site: configuration of the site; its folders are left alone.
    """
    try:
        _check_room(job)
        with tempfile.TemporaryDirectory(prefix="doctor-") as scratch:
            result = _one_step(folder, job, site, Path(scratch))
    except (MemoryError, torch.OutOfMemoryError) as error:
        text = (
            f"there is not enough memory ({error or 'for one step'}); take another device or a smaller train.batch_size"
        )
        yield Finding(ERROR, f"the job {name} cannot run here: {text}")
        return
    except (MedDualLoRAError, OSError) as error:
        yield Finding(ERROR, f"the job {name} cannot run here: {error}")
        return
    yield Finding(NOTE, f"the job {name} can run here: {result}")
    cohort = PreparedCohort.read(folder)
    yield from _steps(job, len(cohort.split("train")))
    yield from _sizes(job, cohort.subjects)


def _check_room(job: JobConfig) -> None:
    """Raise MemoryError where not even the weights fit: the system ends a process that tries all the same."""
    needed = COPIES * 4 * sum(parameter.numel() for parameter in skeleton(job).parameters()) / 2**20
    free = psutil.virtual_memory().available / 2**20
    if needed > free:
        raise MemoryError(f"loading the backbone takes {needed:.0f} MiB, and {free:.0f} MiB are free")


def _one_step(folder: Path, job: JobConfig, site: SiteConfig, scratch: Path) -> str:
    """Train one batch and say what it took."""
    state, cache = scratch / "state", scratch / "cache"
    config = dataclasses.replace(site, data_dir=folder, state_dir=state, cache_dir=cache, ledger=None)
    use_threads(config.n_threads)
    runtime = SiteRuntime("doctor", job, config)
    # as many subjects as a step has, but never one of a class only
    chosen = _in_turn(runtime.train_subjects)[: max(2, job.train.batch_size)]
    settings = dataclasses.replace(job.train, local_epochs=1, n_views=0, batch_size=len(chosen))
    one_step = dataclasses.replace(job, train=settings)
    started = time.monotonic()
    model = runtime.model
    train_round(model.network, model.source, chosen, job=one_step, site="doctor", round_index=0, moments={})
    seconds, device = time.monotonic() - started, model.source.device
    return (
        f"the site's privacy floor agrees, and a step with {len(chosen)} subjects, their trunk features included, took "
        f"{seconds:.1f} s on {device} and at most {peak_memory_mb(device):.0f} MiB of memory"
    )


def _in_turn(subjects: Sequence[PreparedSubject]) -> list[PreparedSubject]:
    """Return the subjects, a normal and a diseased one in turn as long as there are both."""
    by_class = ([item for item in subjects if item.label == label] for label in (0, 1))
    return [item for item in chain.from_iterable(zip_longest(*by_class)) if item is not None]


def _steps(job: JobConfig, n_train: int) -> Iterator[Finding]:
    """Compare the training split with the batch size; the batches of an epoch are of one size, give or take one."""
    size = job.train.batch_size
    smallest = n_train // math.ceil(n_train / size)
    if job.lora.head_norm == "site" and smallest < FEWEST_IN_A_STEP:
        text = (
            f"{n_train} training subjects in batches of at most {size} make steps of {smallest}, but the head's "
            f"standardisation (lora.head_norm = site) needs {FEWEST_IN_A_STEP} or more"
        )
        yield Finding(
            ERROR if smallest < 2 else WARNING, f"{text}: use another train.batch_size, or lora.head_norm=none"
        )
    elif n_train < size:
        yield Finding(NOTE, f"one step takes all {n_train} training subjects: train.batch_size is {size}")


def _sizes(job: JobConfig, subjects: Sequence[PreparedSubject]) -> Iterator[Finding]:
    """Compare the prepared volumes with what the backbone reads."""
    backbone = BackboneConfig.preset(job.backbone)
    n_slices = backbone.image_size[2]
    tall = tuple(item.subject for item in subjects if item.n_slices > n_slices)
    if tall:
        text = (
            f"{len(tall)} subject(s) have more slices than {job.backbone} reads ({n_slices}): the outer ones are lost"
        )
        yield Finding(WARNING, text, tall)
    seen = [int(size * backbone.in_plane_mm) for size in backbone.image_size[:2]]
    small = tuple(item.subject for item in subjects if any(n < mm for n, mm in zip(_plane(item), seen, strict=True)))
    if small:
        text = (
            f"{len(small)} subject(s) are smaller in plane than the {seen[0]} x {seen[1]} mm that {job.backbone} sees"
        )
        yield Finding(NOTE, f"{text}: the rest is filled with black", small)


def _plane(subject: PreparedSubject) -> tuple[int, int]:
    """Return the prepared volume's size in plane, in voxels of 1 mm; what cannot be opened is a finding elsewhere."""
    try:
        volume = load_volume(subject)
    except CohortError:
        return (10**6, 10**6)
    return volume.shape[1], volume.shape[2]
