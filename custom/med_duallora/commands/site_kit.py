"""``med-duallora site-kit``: close the channels of a site's FLARE startup kit."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "site-kit",
        help="harden a site's startup kit: close the ways by which data could leave the site",
        description="Write local/resources.json, authorization.json and privacy.json of a site's FLARE 2.9 startup "
        "kit, and a template of the site configuration where none is given. Prints every change and its reason; a "
        "second run changes nothing. A kit that is not understood is left as it is (exit code 2).",
    )
    parser.add_argument(
        "--startup-kit", type=Path, required=True, metavar="DIR", help="the site's kit: holds startup/ and local/"
    )
    parser.add_argument(
        "--site-config",
        type=Path,
        metavar="FILE",
        help="the site's configuration (JSON); default: local/med_duallora_site.json in the kit, made as a template",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would change, and write nothing")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Close the kit and say what changed."""
    from med_duallora.site_kit import harden

    changes = harden(options.startup_kit, options.site_config, options.dry_run)
    for change in changes:
        print(change)
    verb = "would change" if options.dry_run else "changed"
    print(
        f"{options.startup_kit}: {len(changes)} settings {verb}" if changes else f"{options.startup_kit}: nothing to do"
    )
    if changes and not options.dry_run:
        print("check it now: med-duallora preflight --startup-kit", options.startup_kit)
    return 0
