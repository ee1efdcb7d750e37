"""``med-duallora preflight``: which ways out of a site are open."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "preflight",
        help="list every way by which data could leave a site, and whether it is closed",
        description="Inspect a site's FLARE 2.9 startup kit without changing it. Lists every channel with its state "
        "and the evidence. Exit code 1 when one is open, 2 when the kit is not understood.",
    )
    parser.add_argument(
        "--startup-kit", type=Path, required=True, metavar="DIR", help="the site's kit: holds startup/ and local/"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the channels and tell by the exit code whether one is open."""
    import dataclasses
    import json

    from med_duallora.site_kit import inspect_kit

    channels = inspect_kit(options.startup_kit)
    n_open = sum(channel.is_open for channel in channels)
    if options.json:
        print(json.dumps([dataclasses.asdict(channel) for channel in channels], indent=2))
        return 1 if n_open else 0
    for channel in channels:
        print(f"{'OPEN  ' if channel.is_open else 'closed'}  {channel.name}\n        {channel.evidence}")
        if channel.fix:
            print(f"        to close it: {channel.fix}")
    print(
        f"{options.startup_kit}: {n_open} of {len(channels)} channels open"
        if n_open
        else f"{options.startup_kit}: all {len(channels)} channels closed"
    )
    return 1 if n_open else 0
