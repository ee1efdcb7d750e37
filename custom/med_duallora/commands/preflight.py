"""``med-duallora preflight``: which ways out of a site are open."""

import argparse
import sys
from pathlib import Path
from typing import Any


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "preflight",
        help="list every way by which data could leave a site, and whether it is open or closed",
        description="Inspect a site's FLARE 2.9 startup kit without changing it. Lists every channel with its state "
        "and the evidence: OPEN, closed, or reported (facts about the machine that FLARE always gives). Exit code 1 "
        "when one is open or when something in the site configuration would stop every job (a folder or a GPU that is "
        "not there), 2 when the kit is not understood. Of a server's kit it judges what a job may do there, signatures "
        "and the modes of files.",
    )
    parser.add_argument(
        "--startup-kit",
        type=Path,
        required=True,
        metavar="DIR",
        help="the kit of a site or of the server: holds startup/ and local/",
    )
    parser.add_argument(
        "--job",
        type=Path,
        metavar="JOB",
        help="also print the egress contract of this job folder, its hash to pin, and whether the site would accept it",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list of the channels instead of text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the channels and tell by the exit code whether one is open."""
    import dataclasses
    import json

    from med_duallora.errors import ConfigError
    from med_duallora.site_kit import inspect_kit
    from med_duallora.site_kit.kit import is_of_server

    if options.job and is_of_server(options.startup_kit):
        raise ConfigError(f"--job asks what a site would accept, but {options.startup_kit} is the server's kit")
    channels = inspect_kit(options.startup_kit)
    n_open = sum(channel.is_open for channel in channels)
    n_unusable = _say_what_is_unusable(options.startup_kit)
    if options.json:
        print(json.dumps([dataclasses.asdict(channel) for channel in channels], indent=2))
        return 1 if n_open or n_unusable else 0
    for channel in channels:
        print(f"{channel.state:<8}  {channel.name}\n          {channel.evidence}")
        if channel.fix:
            print(f"          to close it: {channel.fix}")
    taken = _judged(options.startup_kit, options.job) if options.job else True
    n = sum(not channel.is_reported for channel in channels)
    state = f"{n_open} of {n} channels open" if n_open else f"all {n} channels closed"
    print(f"{options.startup_kit}: {state}")
    return 1 if n_open or n_unusable or not taken else 0


def _say_what_is_unusable(startup_kit: Path) -> int:
    """Say on standard error what in the site's configuration would stop every job here; return how many things."""
    from med_duallora.site.fitness import problems
    from med_duallora.site_kit.passable import not_passed_on
    from med_duallora.site_kit.policy_channels import site_config_of

    config = site_config_of(startup_kit)
    found = list(map(str, problems(config))) if config else []
    if character := not_passed_on(startup_kit.absolute()):
        found.append(
            f"the kit's path has {character} in it, which FLARE does not pass on to the processes of its jobs: move it"
        )
    for problem in found:
        print(f"site configuration: {problem}", file=sys.stderr)
    return len(found)


def _judged(startup_kit: Path, job: Path) -> bool:
    """Print what a job would send, and whether the site takes it."""
    from med_duallora.boundary.contract import job_sha256
    from med_duallora.site_kit.job_check import job_settings, judge
    from med_duallora.site_kit.policy_channels import site_config_of

    contract, refusals = judge(job, site_config_of(startup_kit))
    print(
        f"{job}: per round {len(contract.tensors)} tensors, {contract.tensor_bytes} bytes, {contract.n_rounds} rounds"
    )
    for name, spec in contract.tensors.items():
        print(f"        {name}  {spec.dtype} {'x'.join(map(str, spec.shape))}")
    print(f"        metrics: {', '.join(contract.metrics)}")
    print(f"        hash of the contract, for policy.contract_sha256: {contract.sha256}")
    print(f"        hash of the job's settings, for policy.job_sha256: {job_sha256(job_settings(job))}")
    for line in map(str, refusals):
        print(f"        {line}")
    if not refusals:
        print("        the site accepts this job")
    return not refusals
