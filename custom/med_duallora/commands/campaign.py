"""``med-duallora campaign``: a training in any FLARE federation that goes on by itself until all rounds are done."""

import argparse
import functools
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from med_duallora.commands.options import above_zero, add_settings_argument, whole_number
from med_duallora.errors import InputError

if TYPE_CHECKING:
    from med_duallora.campaign.hooks import Hooks
    from med_duallora.campaign.journal import Journal
    from med_duallora.campaign.state import Campaign
    from med_duallora.flare.campaign.wanted import Planned, Wanted

GAVE_UP = 3
"""Exit code: it ended without all rounds; the same command goes on."""
MONTH_S = 31 * 24 * 3600
DAY_S = 24 * 3600.0


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "campaign",
        help="run a training to its last round in any FLARE federation, whatever fails on the way",
        description="Submit a job with an admin startup kit, follow it, keep the adapter of every round, and until all "
        "planned rounds are done, resume it after whatever ended it: a process, a site or the server that died. Sites "
        "that are missing are waited for, gone on without, and taken back. The same command goes on after an "
        f"interruption. Exit codes: 0 all rounds are done, {GAVE_UP} it gave up, and the same command tries again.",
    )
    parser.add_argument(
        "--admin-kit", type=Path, required=True, metavar="DIR", help="startup kit of a lead or project admin"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the campaign: state, events, adapters, result"
    )
    parser.add_argument(
        "--job", default="production", metavar="JOB", help="a known job or a job folder (default: production)"
    )
    add_settings_argument(parser)
    parser.add_argument(
        "--sites", metavar="A,B,...", help="sites to wait for at the start (default: whoever is there then)"
    )
    _add_waiting(parser)
    parser.add_argument(
        "--on-event", default="", metavar="COMMAND", help="program that gets every event as JSON on its standard input"
    )
    parser.add_argument("--webhook", default="", metavar="URL", help="address that gets every event as JSON by POST")
    parser.set_defaults(run=run)


def _add_waiting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--patience",
        type=above_zero(MONTH_S),
        default=300.0,
        metavar="SECONDS",
        help="how long a missing site is waited for while workflow.min_sites others are there (default: 300)",
    )
    parser.add_argument(
        "--give-up-after",
        type=above_zero(MONTH_S),
        default=DAY_S,
        metavar="SECONDS",
        help="how long the server, or enough sites, are waited for (default: 86400, a day)",
    )
    parser.add_argument(
        "--max-attempts",
        type=whole_number(1, 1000),
        default=5,
        metavar="N",
        help="give up after so many jobs in a row that left no new round (default: 5)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the campaign of a folder, or go on with it."""
    from med_duallora.campaign.hooks import Hooks
    from med_duallora.campaign.journal import Journal
    from med_duallora.flare.campaign.gate import person_of
    from med_duallora.flare.campaign.wanted import Wanted
    from med_duallora.flare.local.interruptions import signals_interrupt

    hooks = Hooks(options.on_event, options.webhook)
    person_of(options.admin_kit)
    journal = Journal(options.out)
    with journal.held(), signals_interrupt():
        wanted = Wanted(options.job, options.assignments)
        planned = wanted.plan(journal.folder)
        campaign = _campaign(journal, planned, options)
        try:
            return _run(options, journal=journal, wanted=wanted, planned=planned, campaign=campaign, hooks=hooks)
        except KeyboardInterrupt:
            if campaign.job_id:
                print(f"job {campaign.job_id} goes on without being followed; the same command takes it up again")
            raise


def _run(
    options: argparse.Namespace,
    *,
    journal: "Journal",
    wanted: "Wanted",
    planned: "Planned",
    campaign: "Campaign",
    hooks: "Hooks",
) -> int:
    from med_duallora.campaign.rules import Rules
    from med_duallora.flare.campaign.gate import Gate
    from med_duallora.flare.campaign.loop import Loop, name_prefix

    rules = Rules(planned.n_rounds, planned.min_sites, options.patience, options.max_attempts, options.give_up_after)
    gate = Gate(options.admin_kit, name_prefix(campaign))
    try:
        gate.check()
        say = functools.partial(print, flush=True)
        loop = Loop(campaign, rules, wanted=wanted, gate=gate, journal=journal, hooks=hooks, say=say)
        done = loop.run()
    finally:
        gate.close()
    print(f"{campaign.round_index + 1} of {planned.n_rounds} rounds in {len(campaign.jobs)} jobs: {journal.folder}")
    if done and campaign.evaluated:
        print(f"report: med-duallora report {journal.folder / 'result'}")
    elif done:
        print(f"no report: the last job ended before the evaluation; the adapter is in {journal.folder / 'result'}")
    return 0 if done else GAVE_UP


def _campaign(journal: "Journal", planned: "Planned", options: argparse.Namespace) -> "Campaign":
    """Return the campaign of a folder, or a new one.

    Raises:
        InputError: the folder's campaign has other settings.
    """
    from med_duallora.campaign.state import Campaign

    found = journal.read()
    if found is not None and found.command != planned.command:
        raise InputError(
            f"{journal.folder} holds a campaign with other settings; give the command that began it, or another --out"
        )
    if found is not None:
        return found
    known = set(options.sites.split(",")) if options.sites else set()
    return Campaign(secrets.token_hex(4), planned.command, known=known)
