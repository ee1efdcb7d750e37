"""The channels that a site's own configuration decides: its policy, who reads it, and the ledger."""

import os
from collections.abc import Iterator
from pathlib import Path

from med_duallora.boundary.ledger_audit import verify
from med_duallora.boundary.ledger_marker import CUT, marker_of
from med_duallora.errors import MedDualLoRAError
from med_duallora.settings.config import TRAIN, SiteConfig
from med_duallora.settings.job_limits import ANY
from med_duallora.settings.policy import SitePolicy
from med_duallora.site.budget import AnswerBudget
from med_duallora.site.places import CHANGE_ME
from med_duallora.site_kit import wanted
from med_duallora.site_kit.channel import HARDEN, Channel
from med_duallora.site_kit.kit import SiteKit, read_kit

WIDE = {
    "max_test_evaluations": 1000,
    "max_test_evaluations_per_experiment": 1000,
    "max_rounds": 100_000,
    "max_rounds_per_experiment": 100_000,
}
"""Numbers of answers above which preflight takes a limit for none."""

HEAD = {"none": "stays", "shared": "weights may leave as a low-rank pair, bias stays", "all": "may leave as a whole"}
"""What ``policy.head_leaves`` lets a job have of the head, in words."""

FEWEST_TRAINED = 5
"""With fewer training subjects, an adapter says something about each of them, whoever agreed to it."""


def site_policy(kit: SiteKit) -> Iterator[Channel]:
    """Give the channels that the site configuration opens or closes."""
    name = "what a job may ask for within the contract"
    place = _site_config_path(kit)
    if place is None:
        yield Channel(name, True, "no scope of local/privacy.json says where the site configuration is", HARDEN)
        return
    try:
        config = SiteConfig.from_file(place)
    except MedDualLoRAError as error:
        yield Channel(name, True, str(error), "correct the site configuration, as it says there")
        return
    yield from _policy_and_places(config, place)
    yield _workspace(config, kit)


def _policy_and_places(config: SiteConfig, place: Path) -> Iterator[Channel]:
    name = "what a job may ask for within the contract"
    policy = config.policy
    pinned = bool(policy.contract_sha256)
    bounded = policy.max_rank < 256 and policy.max_blocks < 64 and policy.head_leaves != "all"
    found = f"{place.name}: " + (
        "contract pinned" if pinned else f"rank <= {policy.max_rank}, blocks <= {policy.max_blocks}"
    )
    found += f", head {HEAD[policy.head_leaves]}, " + (
        f"metrics from at least {policy.min_subjects} subjects of each class" if policy.metrics_leave else "no metrics"
    )
    fix = "" if pinned or bounded else "set policy.head_leaves, max_rank and max_blocks, or pin policy.contract_sha256"
    yield Channel(name, bool(fix), found, fix)
    yield _numbers(policy, place)
    yield _answers(config, place)
    yield _scores(policy, place)
    yield _adapters(config, place)
    yield _private(place)
    yield _ledger(config)


def _numbers(policy: SitePolicy, place: Path) -> Channel:
    name = "numbers of a job that tell something by their effect, or work without an end"
    free = ANY in policy.job_limits and not policy.job_sha256
    found = "job pinned" if policy.job_sha256 else "without ranges" if free else "every number has a range"
    fix = f"take {ANY!r} out of policy.job_limits, or pin policy.job_sha256" if free else ""
    return Channel(name, free, f"{place.name}: {found}", fix)


def _answers(config: SiteConfig, place: Path) -> Channel:
    """Say how much of the policy's numbers of answers is spent, and whether they are limits at all."""
    name = "scores of more and more adapters that others choose"
    try:
        spent, policy = AnswerBudget(config).spent(), config.policy
    except MedDualLoRAError as error:
        return Channel(name, True, f"{place.name}: {error}", "put the record back, or move it aside")
    found = (
        f"{place.name}: {spent.evaluations} of {policy.max_test_evaluations} evaluations on the test split and "
        f"{spent.rounds} of {policy.max_rounds} rounds are spent"
    )
    wide = [key for key, most in WIDE.items() if getattr(policy, key) > most]
    fix = f"set policy.{', '.join(wide)} to what this site agrees to, at most {WIDE[wide[0]]}" if wide else ""
    return Channel(name, bool(fix), found, fix)


def _scores(policy: SitePolicy, place: Path) -> Channel:
    small = policy.metrics_leave and policy.min_subjects < 2
    found = f"{place.name}: a score, loss or count leaves from {policy.min_subjects} subjects of each class on"
    found = found if policy.metrics_leave else f"{place.name}: no metric leaves"
    return Channel("scores of single subjects", small, found, "set policy.min_subjects to 5 or more" if small else "")


def _adapters(config: SiteConfig, place: Path) -> Channel:
    """Without a floor, training on two subjects and sending what became of the adapter would be allowed."""
    name, policy = "adapters trained on a few subjects", config.policy
    if config.role != TRAIN:
        found = f"{place.name}: role is {config.role}: this site only evaluates, no adapter leaves it"
        return Channel(name, False, found)
    found = f"{place.name}: an adapter leaves from {policy.min_train_subjects} training subjects on"
    found += f", {policy.min_subjects} of each class"
    few = policy.min_train_subjects < FEWEST_TRAINED
    return Channel(name, few, found, "set policy.min_train_subjects to 10 or more" if few else "")


def _workspace(config: SiteConfig, kit: SiteKit) -> Channel:
    """The gate keeps FLARE's commands from the kit; what lies elsewhere cannot be reached by them at all."""
    name = "the ledger or the states in FLARE's own workspace"
    places = {"ledger": config.ledger_path, "state_dir": config.state_dir}
    inside = [key for key, path in places.items() if path.absolute().is_relative_to(kit.directory)]
    found = f"{' and '.join(inside)} lie in {kit.directory}" if inside else "both lie outside it"
    return Channel(name, bool(inside), found, f"move {' and '.join(inside)} out of the kit" if inside else "")


def _private(place: Path) -> Channel:
    mode = place.stat().st_mode & 0o077
    found = f"{place} has mode {place.stat().st_mode & 0o777:o}"
    return Channel(
        "the site configuration read by others on this machine", bool(mode), found, "chmod 600" if mode else ""
    )


def _ledger(config: SiteConfig) -> Channel:
    name = "something that left without a record"
    path, marker = config.ledger_path, marker_of(config.ledger_path, config.state_dir)
    if CHANGE_ME in str(path) or CHANGE_ME in str(config.data_dir):
        return Channel(name, True, "the site configuration is still the template", "fill in its paths")
    if path.is_symlink():
        return Channel(name, True, f"{path} is a symbolic link", "put the ledger itself there, or name its own place")
    if not path.exists() and marker.exists():
        return Channel(
            name, True, f"{CUT}: {path} is missing, but {marker} remembers it", "keep the marker for the audit"
        )
    if not path.exists():
        parent = next(parent for parent in path.parents if parent.exists())
        good = os.access(parent, os.W_OK)
        return Channel(
            name,
            not good,
            f"no ledger yet; {parent} is{'' if good else ' not'} writable",
            "" if good else "make it writable for the FLARE process",
        )
    found = verify(path, marker=marker)
    if found.problems:
        return Channel(
            name, True, f"{path}: {found.problems[0]}", "keep it and its marker for the audit, move both aside"
        )
    return Channel(name, False, f"{path}: intact, {found.n_lines} lines")


def _site_config_path(kit: SiteKit) -> Path | None:
    scopes = (kit.privacy or {}).get("scopes") or []
    for scope in scopes:
        place = (scope.get("properties") or {}).get(wanted.SITE_CONFIG_PROPERTY) if isinstance(scope, dict) else None
        if isinstance(place, str):
            return Path(place.replace("{site}", kit.site))
    return None


def site_config_of(startup_kit: Path) -> SiteConfig | None:
    """Return the site configuration that a kit names; None where it names none that is valid."""
    try:
        place = site_config_file(startup_kit)
        return SiteConfig.from_file(place) if place else None
    except MedDualLoRAError:
        return None


def site_config_file(startup_kit: Path) -> Path | None:
    """Return where the kit's privacy scope says that the site configuration is; None where it says nothing.

    Raises:
        KitError: the kit is not understood.
    """
    return _site_config_path(read_kit(startup_kit.absolute()))
