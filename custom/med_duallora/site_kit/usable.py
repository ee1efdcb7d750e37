"""Whether jobs can run at a site as it is configured: what would stop every one of them, found before one comes."""

from collections.abc import Iterator
from pathlib import Path

from med_duallora.cohorts.classes import lacking_class
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.errors import CheckpointError, CohortError, ConfigError
from med_duallora.settings.config import SiteConfig
from med_duallora.site_kit.places import place_problems

ALWAYS_THERE = ("auto", "cpu")
"""Devices that need no look at the machine: importing torch for one takes seconds."""


def check_usable(config: SiteConfig, source: Path) -> None:
    """Refuse a site configuration with which every job would fail.

    Args:
        config: the site scope.
        source: the file it was read from, for the message.

    Raises:
        ConfigError: names the file, and every setting that cannot be used with its value and what to write instead.
    """
    found = list(problems(config))
    if found:
        raise ConfigError(f"site configuration {source.name} in {source.parent}: {'; '.join(found)}")


def problems(config: SiteConfig) -> Iterator[str]:
    """Give one text per setting with which every job would fail: the key, its value, the reason and the fix."""
    yield from place_problems(config)
    yield from _device(config.device)
    yield from _classes(config.data_dir)
    yield from _checkpoint(config.backbone_checkpoint)


def _device(name: str) -> Iterator[str]:
    if name in ALWAYS_THERE:
        return
    from med_duallora.support.devices import resolve_device

    try:
        resolve_device(name)
    except ConfigError as error:
        yield str(error)


def _classes(cohort: Path) -> Iterator[str]:
    try:
        lack = lacking_class(PreparedCohort.read(cohort))
    except CohortError:
        return  # what is wrong with a row may name a subject: a job says it, in its own log at level DEBUG
    if lack:
        yield f"data_dir = {str(cohort)!r}, but training needs both classes, and {lack}"


def _checkpoint(path: Path | None) -> Iterator[str]:
    if path is None or not path.is_file():
        return
    from med_duallora.backbone import check_checkpoint

    try:
        check_checkpoint(path)
    except CheckpointError as error:
        yield str(error)
