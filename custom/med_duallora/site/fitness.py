"""Can this site run this job? The one answer, for every command and process that asks.

They ask before a simulation, when a kit is looked at, when a site's process starts, and when a job comes.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from med_duallora.cohorts.classes import too_few, unfit_to_evaluate, untrainable
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.errors import CheckpointError, CohortError, ConfigError, UnfitError
from med_duallora.settings.config import TRAIN, JobConfig, SiteConfig
from med_duallora.site.places import place_problems, without_paths
from med_duallora.site.problem import Problem

ALWAYS_THERE = ("auto", "cpu")
"""Devices that need no look at the machine: importing torch for one takes seconds."""
OTHER_CHECKPOINT = "write the path of another one, or null for the shipped one"


def problems(config: SiteConfig, job: JobConfig | None = None, *, in_flare: bool = True) -> list[Problem]:
    """Return everything that keeps a site from running a job; what keeps it from running any job comes first.

    Where the site's policy or rank limit refuses the job, nothing of the site is read for it.

    Args:
        config: the site scope.
        job: the job scope; None: any job.
        in_flare: whether FLARE's processes use the configuration, which start in folders of their own.

    Raises:
        ConfigError: no site at all could run this job.
    """
    found = [*place_problems(config, in_flare), *_device(config.device)]
    refused = [*_demands(config, job), *_rank(config, job)] if job else []
    if not refused:
        found += [*_subjects(config), *_checkpoint(config.backbone_checkpoint)]
        found += _backbone(config, job) if job else []
    found += refused
    first: dict[str, Problem] = {}
    for problem in found:  # what is not there has no content either, and no fit
        first.setdefault(problem.key, problem)
    return list(first.values())


def job_problems(config: SiteConfig, job: JobConfig) -> list[Problem]:
    """Return what of a job does not fit the site: its demands by policy and rank limit, and its backbone."""
    return [*_demands(config, job), *_rank(config, job)] or list(_backbone(config, job))


def check(config: SiteConfig, job: JobConfig | None = None, *, source: Path | None = None) -> None:
    """Refuse a site that cannot run a job, see ``problems``.

    Args:
        config: the site scope.
        job: the job scope; None: any job.
        source: the file that the configuration was read from, for the message; None: FLARE has no part in it.

    Raises:
        UnfitError: says every reason, each with what to do.
    """
    where = f"site configuration {source.name} in {source.parent}: " if source else ""
    refuse(problems(config, job, in_flare=source is not None), where)


def refuse(found: Iterable[Problem], where: str = "") -> None:
    """Raise an UnfitError of problems, if there are any."""
    found = list(found)
    if found:
        told = [problem.in_log() for problem in found]
        raise UnfitError(where + "; ".join(map(str, found)), without_paths(where + "; ".join(told)))


def _device(name: str) -> Iterator[Problem]:
    if name in ALWAYS_THERE:
        return
    from med_duallora.support.devices import resolve_device

    try:
        resolve_device(name)
    except ConfigError as error:
        yield Problem("device", str(error).partition("; ")[0], "use cpu or auto")


def _subjects(config: SiteConfig) -> Iterator[Problem]:
    """Look for both classes, and for as many training subjects as the policy demands of a site that trains."""
    start = f"data_dir = {str(config.data_dir)!r}, but"
    try:
        cohort = PreparedCohort.read(config.data_dir)
    except CohortError as error:
        yield Problem("data_dir", f"{start} {error}", "prepare the cohort again", is_private=True)
        return
    trains = config.role == TRAIN
    lack = (untrainable(cohort) or too_few(cohort, config.policy)) if trains else unfit_to_evaluate(cohort)
    if lack:
        what, _, todo = lack.partition(": ")
        yield Problem("data_dir", f"{start} {what}", todo, is_private=True)


def _checkpoint(path: Path | None) -> Iterator[Problem]:
    if path is None or not path.is_file():
        return
    from med_duallora.backbone import check_checkpoint

    try:
        check_checkpoint(path)
    except CheckpointError as error:
        yield Problem("backbone_checkpoint", str(error), OTHER_CHECKPOINT)


def _demands(config: SiteConfig, job: JobConfig) -> list[Problem]:
    from med_duallora.boundary.contract import EgressContract, demands_of

    demands = demands_of(job, EgressContract.for_job(job), config.role == TRAIN)
    return list(_refused(lambda: config.policy.check_job(**demands)))


def _rank(config: SiteConfig, job: JobConfig) -> Iterator[Problem]:
    """Look whether a site can train a part of the job's components, where it wants to train a part only.

    Only a rule that is built from products puts the strongest components first; the first ones of averaged factors are
    any. A personal adapter that is pulled towards the global one (Ditto) is pulled towards all of its components.
    """
    from med_duallora.adapter.aggregations import AGGREGATIONS
    from med_duallora.adapter.methods import plan_of
    from med_duallora.adapter.roles import Role

    plan, limit = plan_of(job), config.rank_limit
    if config.role != TRAIN or not 0 < limit < plan.lora.rank_global:
        return
    start = f"rank_limit = {limit}, below the job's rank of {plan.lora.rank_global}, but"
    if not {Role.GLOBAL_A, Role.GLOBAL_B} <= plan.sent:
        what = f"{start} method {job.method} does not send both factors of an adapter"
        yield Problem("rank_limit", what, "set rank_limit to 0, or train with another method, such as med-duallora")
    elif any(treatment.as_twin for treatment in plan.treatments.values()):
        what = f"{start} method {job.method} pulls a second adapter towards the whole global one"
        yield Problem("rank_limit", what, "set rank_limit to 0, or train with another method, such as med-duallora")
    elif not plan.aggregation.of_products:
        rules = " or ".join(name for name, rule in AGGREGATIONS.items() if rule.of_products)
        what = f"{start} aggregation {plan.aggregation.name} does not put the strongest components first"
        yield Problem("rank_limit", what, f"set rank_limit to 0, or have the job say aggregation={rules}")


def _backbone(config: SiteConfig, job: JobConfig) -> Iterator[Problem]:
    """Compare the site's checkpoint with the job's, with the site's own pin and with the architecture."""
    from med_duallora.backbone import check_agreed, check_checkpoint, checkpoint_sha256, packaged_checkpoint

    try:
        checkpoint = config.backbone_checkpoint or packaged_checkpoint(job.backbone)
        sha256 = checkpoint_sha256(checkpoint)
        check_agreed(job.backbone, job.backbone_sha256, sha256)
        check_checkpoint(checkpoint, job.backbone)
    except CheckpointError as error:
        what, _, todo = str(error).rpartition(": ")
        yield Problem("backbone_checkpoint", *((what, todo) if what else (todo, OTHER_CHECKPOINT)))
        return
    yield from _refused(lambda: config.policy.check_backbone(sha256))


def _refused(asks: Callable[[], None]) -> Iterator[Problem]:
    try:
        asks()
    except ConfigError as error:
        what, _, todo = str(error).partition(". ")
        yield Problem(error.key, what, todo[:1].lower() + todo[1:])
