"""``med-duallora server-kit``: prepare the FLARE server's startup kit."""

import argparse
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "server-kit",
        help="prepare the startup kit of the FLARE server",
        description="Write local/resources.json of the server's FLARE 2.9 startup kit: jobs may use this package at "
        "the server, and the job store lies where --storage says instead of in a temporary folder that all servers "
        "of a machine share. Write local/authorization.json: whoever may download a job's result may ask the running "
        "job for its last adapter, which `med-duallora campaign` keeps. Other accounts of the machine lose the right "
        "to change the kit. What else an administrator wrote there stays; a second run changes nothing. A kit that is "
        "not understood is left as it is (exit code 2).",
    )
    parser.add_argument(
        "--startup-kit", type=Path, required=True, metavar="DIR", help="the server's kit: holds startup/ and local/"
    )
    parser.add_argument("--storage", type=Path, required=True, metavar="DIR", help="folder for jobs and their results")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the files and say where they are."""
    from med_duallora.site_kit.install import install_server
    from med_duallora.site_kit.modes import wide_modes

    wide = wide_modes(options.startup_kit)
    places = [options.startup_kit / "local" / name for name in ("resources.json", "authorization.json")]
    before = [place.read_bytes() if place.is_file() else b"" for place in places]
    install_server(options.startup_kit, options.storage.resolve())
    for found in wide:
        print(f"{found.path}: mode {found.before:o} -> {found.after:o}")
    changed = [place for place, old in zip(places, before, strict=True) if place.read_bytes() != old]
    for place in changed:
        print(f"written: {place}")
    if not (changed or wide):
        print(f"{options.startup_kit}: nothing to do")
    return 0
