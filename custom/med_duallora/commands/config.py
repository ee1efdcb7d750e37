"""``med-duallora config show|explain|check``: the reference of every setting."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from med_duallora.commands.options import add_recipe_argument
from med_duallora.errors import InputError

if TYPE_CHECKING:
    from med_duallora.reference.entries import Scope

SCOPES = ("job", "workflow", "site")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "config",
        help="every setting: what it means, its default, its limits, and how to choose it",
        description="The reference of every setting of a job (--set), of the server's workflow (--set workflow.KEY) "
        "and of a site (--site-set, or its JSON file). docs/settings.md holds the same.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser(
        "show",
        help="list all settings",
        description="List all settings with default, limits and meaning; with --job or --recipe, a job's values.",
    )
    show.add_argument("--scope", choices=SCOPES, help="only these settings (default: all)")
    show.add_argument("--job", metavar="JOB", help="show the values of this job: a known job or a job folder")
    add_recipe_argument(show)
    show.add_argument("--markdown", action="store_true", help="print docs/settings.md, with guidance, instead")
    show.set_defaults(run=_show)
    explain = actions.add_parser(
        "explain",
        help="explain one setting",
        description="Explain one setting: what it means, its type, default and limits, and how to choose it.",
    )
    explain.add_argument(
        "key", metavar="KEY", help="for example train.n_rounds; the last part is enough if it is unique"
    )
    explain.set_defaults(run=_explain)
    check = actions.add_parser(
        "check",
        help="compare docs/settings.md with the code",
        description="Compare docs/settings.md of a checkout with the settings of this package; exit code 1 on drift.",
    )
    check.add_argument("--checkout", type=Path, default=Path(), metavar="DIR", help="the checkout (default: here)")
    check.add_argument("--write", action="store_true", help="bring the page up to date instead")
    check.set_defaults(run=_check)


def scopes() -> "list[Scope]":
    """Return all scopes."""
    from med_duallora.reference.entries import JOB, SITE, WORKFLOW

    return [JOB, WORKFLOW, SITE]


def _show(options: argparse.Namespace) -> int:
    from med_duallora.reference.page import page
    from med_duallora.reference.terminal import listed

    if options.markdown:
        if options.scope or options.job or options.recipe:
            raise InputError("--markdown prints the whole page; leave out --scope, --job and --recipe")
        print(page(scopes()), end="")
        return 0
    is_of_a_job = bool(options.job or options.recipe)
    if is_of_a_job and options.scope == "site":
        option = "--job" if options.job else "--recipe"
        raise InputError(f"{option} has no site settings: a site's configuration never travels with a job")
    wanted = [scope for scope in scopes() if options.scope in (None, scope.name)]
    if is_of_a_job:
        wanted = [scope for scope in wanted if scope.name != "site"]
    print("\n".join(listed(wanted, _values(options.job, options.recipe) if is_of_a_job else None)))
    return 0


def _values(job: str | None, recipe: str | None) -> dict[str, str]:
    """Return the settings of a known job or a job folder (None: the default job), key -> JSON text."""
    import dataclasses

    from med_duallora.flare.jobs.export import CANONICAL, JOBS, read_spec
    from med_duallora.reference.entries import values_of
    from med_duallora.settings.recipes import with_recipe

    if job is None:
        spec = CANONICAL
    elif job in JOBS:
        spec = JOBS[job]
    elif Path(job).is_dir():
        spec = read_spec(Path(job), with_code=False)
    else:
        raise InputError(f"--job {job}: no job folder, and no known job; known are {', '.join(JOBS)}")
    spec = spec.with_overrides(with_recipe(recipe, ()))
    return values_of(spec.job.to_dict()) | values_of(dataclasses.asdict(spec.workflow), "workflow.")


def _explain(options: argparse.Namespace) -> int:
    from med_duallora.reference.entries import find_setting, settings_of
    from med_duallora.reference.terminal import explained

    settings = [setting for scope in scopes() for setting in settings_of(scope)]
    print("\n".join(explained(find_setting(options.key, settings))))
    return 0


def _check(options: argparse.Namespace) -> int:
    from med_duallora.reference.page import PATH, page
    from med_duallora.support.files import write_text

    place = options.checkout.resolve() / PATH
    if not place.parent.is_dir():
        raise InputError(f"{options.checkout} is not a checkout of this project: it has no folder docs")
    text = page(scopes())
    if options.write:
        write_text(place, text)
    if not place.is_file() or place.read_text(encoding="utf-8") != text:
        print(f"{PATH} differs from the code; run `med-duallora config check --write`", file=sys.stderr)
        return 1
    print(f"{PATH} is as the code gives it")
    return 0
