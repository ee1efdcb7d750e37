"""``med-duallora ledger verify|show|match``: the record of everything that left a site."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from med_duallora.errors import LedgerError

if TYPE_CHECKING:
    from med_duallora.boundary.ledger_audit import Line


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command and its three actions."""
    parser = commands.add_parser(
        "ledger",
        help="verify, show or match the record of what left a site",
        description="Every payload of a site, allowed or blocked, is one line of a hash-chained ledger at the site.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    one = actions.add_parser(
        "verify",
        help="check that no line was edited, removed or reordered",
        description="Check the chain, line by line, and the end of a ledger. Exit code 1 where anything is wrong.",
    )
    _add_ledger(one)
    one.add_argument(
        "--noted",
        default="",
        metavar="SHA256",
        help="hash that an earlier verify printed; it must still be in the chain (finds a ledger rewritten as a whole)",
    )
    one.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="the site's state_dir: its marker tells whether the ledger was replaced or cut as a whole",
    )
    one.set_defaults(run=_verify)
    show = actions.add_parser(
        "show", help="print the entries", description="Print one line per entry; nothing is checked."
    )
    _add_ledger(show)
    show.add_argument("--job-id", default="", metavar="JOB_ID", help="only entries of this FLARE job id")
    show.add_argument("--blocked", action="store_true", help="only what was kept from leaving")
    show.add_argument("--tensors", action="store_true", help="list the tensors of every entry as well")
    show.set_defaults(run=_show)
    both = actions.add_parser(
        "match",
        help="prove that a site's ledger and the server's record agree",
        description="Check both chains, and compare what left the site with what the server recorded. Exit code 1 "
        "where a chain is broken or the two differ.",
    )
    _add_ledger(both)
    both.add_argument(
        "record", type=Path, metavar="RECORD", help="received.jsonl of the server's run, its .head file beside it"
    )
    both.add_argument("--site", required=True, metavar="NAME", help="name of the site whose ledger this is")
    both.add_argument(
        "--job-id", default="", metavar="JOB_ID", help="only this FLARE job id; default: every job in RECORD"
    )
    both.set_defaults(run=_match)


def _add_ledger(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ledger", type=Path, metavar="LEDGER", help="the site's ledger (egress_ledger.jsonl)")


def _verify(options: argparse.Namespace) -> int:
    from med_duallora.boundary.ledger_audit import verify, written_by_others
    from med_duallora.boundary.ledger_marker import CUT, marker_of

    marker = marker_of(options.ledger, options.state_dir or options.ledger.parent)
    if options.state_dir and not options.ledger.exists() and marker.exists():
        raise LedgerError(f"{CUT}: {options.ledger} is missing, but {marker} remembers it; keep it for the audit")
    # without the option, a marker counts only where the ledger is in the state directory itself
    found = verify(options.ledger, options.noted, marker if options.state_dir or marker.exists() else None)
    problems = [text for text in (*map(str, found.problems), written_by_others(options.ledger)) if text]
    for problem in problems:
        print(f"{options.ledger}: {problem}", file=sys.stderr)
    if problems:
        print(f"{options.ledger}: {len(problems)} problem(s) in {found.n_lines} lines", file=sys.stderr)
        return 1
    compared = "as the marker remembers it" if marker.exists() else "not compared with the site's marker (--state-dir)"
    print(
        f"{options.ledger}: intact, {found.n_lines} lines, {compared}; note this hash of the last one: {found.sha256}"
    )
    return 0


def _show(options: argparse.Namespace) -> int:
    from med_duallora.boundary.ledger_audit import read_lines
    from med_duallora.boundary.ledger_entry import BLOCKED

    for line in read_lines(options.ledger):
        if (options.job_id and line.get("job") != options.job_id) or (
            options.blocked and line.get("verdict") != BLOCKED
        ):
            continue
        print(_text(line))
        if options.tensors:
            for name, (shape, dtype) in sorted(line.get("tensors", {}).items()):
                print(f"        {name}  {dtype} {'x'.join(map(str, shape))}")
    return 0


def _match(options: argparse.Namespace) -> int:
    from med_duallora.boundary.ledger_audit import match, read_lines, verify

    broken = [f"{path}: {problem}" for path in (options.ledger, options.record) for problem in verify(path).problems]
    for text in broken:
        print(text, file=sys.stderr)
    found = match(read_lines(options.ledger), read_lines(options.record), options.site, options.job_id)
    _list("left the site, but the server did not record it (lost, late or refused before it was read)", found.only_site)
    _list("THE SERVER RECORDED IT, BUT ACCORDING TO THE SITE'S LEDGER IT NEVER LEFT", found.only_server)
    print(
        f"{options.site}: {found.n_matched} entries agree, {len(found.only_site)} only at the site, "
        f"{len(found.only_server)} only at the server"
    )
    return 0 if found.agrees and not broken else 1


def _list(title: str, lines: "Iterable[Line]") -> None:
    for line in lines:
        print(f"{title}: {_text(line)}", file=sys.stderr)


def _text(line: "Line") -> str:
    where = "" if line.get("round_index") is None else f" round {line['round_index']}"
    content = f"{len(line.get('tensors', {}))} tensors, {line.get('n_bytes')} bytes" if line.get("n_bytes") else ""
    parts = [
        str(line.get("n")),
        str(line.get("time")),
        str(line.get("verdict")),
        f"{line.get('site')} {line.get('task')}{where}",
        str(line.get("kind")),
        content,
        str(line.get("sha256", ""))[:12],
        str(line.get("reason", "")),
    ]
    return "  ".join(part for part in parts if part)
