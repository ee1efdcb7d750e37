"""The attack table: every attack that a test makes, with its channel, the trick, and the refusal that the test expects.

``python -m tests.attacks.table`` prints it as docs/attacks.md.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.attacks import configurations
from tests.attacks import test_after_filters as after
from tests.attacks import test_connections as connections
from tests.attacks import test_doors as doors
from tests.attacks import test_events as events
from tests.attacks import test_file_modes as modes
from tests.attacks import test_files as files
from tests.attacks import test_floor as floor
from tests.attacks import test_floors_of_classes as floors
from tests.attacks import test_links as links
from tests.attacks import test_messages as messages
from tests.attacks import test_poisoning as poisoning
from tests.attacks import test_results as results
from tests.attacks import test_scores as scores
from tests.attacks import test_shared_head as shared_head
from tests.attacks import test_side_channels as side
from tests.attacks.single_attacks import EMPTY, SINGLE
from tests.unit.boundary import test_ledger_audit as ledger
from tests.unit.boundary import test_ledger_marker as marker
from tests.unit.flare.server import test_forged_contributions as server

HEAD = """# The attack table

Every row is one attack that `make test` makes; the last column is what its test expects. The rows are collected from
the tests themselves (`tests/attacks/table.py`), and a test compares this file with them. Where a site would send
something, the tests also look in its bytes and in the site's log for the secret that the attacker put in.

"""


@dataclass(frozen=True, order=True)
class Row:
    """One attack.

    Args:
        channel: by which something could leave a site, or spoil a round.
        trick: what the attacker does.
        refusal: what happens instead.
    """

    channel: str
    trick: str
    refusal: str


def rows() -> list[Row]:
    """Return the whole table."""
    return [
        *_results(),
        *_after_filters(),
        *_side_channels(),
        *_doors(),
        *_configurations(),
        *_scores(),
        *_elsewhere(),
        *_files(),
        *(Row(*single[:3]) for single in SINGLE),
    ]


def _results() -> Iterator[Row]:
    for channel, trick, _, refusal in results.BLOCKED:
        yield Row(f"task result: {channel}", trick, refusal)
    for channel, trick, _ in results.CLEANED:
        yield Row(f"task result: {channel}", trick, "sent without it")
    for channel, trick, _, code in results.FAILURES:
        yield Row(channel, trick, f"{code} leaves, alone")
    for task, trick, _, refusal in results.TASKS:
        yield Row(f"task {task}", trick, refusal)


def _after_filters() -> Iterator[Row]:
    for trick, _, is_sent in after.FILTERS:
        yield Row("later filter of the job", trick, "sent without it" if is_sent else EMPTY)
    for event in after.HANDLED:
        for trick, _ in after.CHANGES:
            yield Row(f"handler of the job at {event.strip('_')}", trick, "nothing of it leaves")
    for trick, _, is_sent in after.KEPT:
        yield Row("result kept and changed after its check", trick, "sent without it" if is_sent else EMPTY)


def _side_channels() -> Iterator[Row]:
    for trick, refusal in shared_head.LEARNED:
        yield Row("shared head", trick, refusal)
    for trick, *_ in side.PUBLIC:
        yield Row("public context of a task", trick, "hidden")
        yield Row("public context before any task", trick, "hidden")
    for trick, _, _, refusal in side.EVENTS:
        yield Row("fed events", trick, refusal)
    for trick, _ in side.STATISTICS:
        yield Row("show_stats", trick, "left out of the answer")


def _scores() -> Iterator[Row]:
    for trick, *_ in scores.SOURCES:
        yield Row("scores of the test split", trick, "policy.max_test_evaluations counts them all")
    for trick, _ in scores.LOST:
        yield Row("record of answers", f"{trick} between two jobs", "the ledger tells what was answered")
    for trick, _ in scores.CHANGED:
        yield Row("record of answers", f"{trick} while a job runs", "nothing is answered any more")
    for trick, _ in scores.KINDS:
        yield Row("scores of the test split", f"as the kind of adapter: {trick}", "BAD_TASK_DATA leaves")
    for trick, _ in scores.ROUNDS:
        yield Row("rounds", trick, "BAD_TASK_DATA leaves")
    for channel, trick, refusal, _ in scores.SINGLE:
        yield Row(channel, trick, refusal)


def _doors() -> Iterator[Row]:
    for trick, path in doors.REFUSED_CLASSES:
        yield Row("class named by a job", f"{trick}: {path}", "UnsafeComponentError")
    for trick, _, _, key in floor.DEMANDS:
        yield Row("policy", trick, key)
    for trick, _, refusal in floor.FLOOR:
        yield Row("policy", trick, refusal)
    for key in floors.LEFT_OUT:
        yield Row("policy that leaves a key out", key, EMPTY)
    for trick, _ in floors.MISREAD:
        yield Row("policy", trick, EMPTY)
    for trick, *_, name in floors.NUMBERS:
        yield Row("policy: floor of each class", trick, f"metric {name} is more than this site's policy lets out")
    for trick, _, key in floors.TRAINED_ON:
        yield Row("policy: floor of the training", trick, f"fewer training subjects than its policy.{key} demands")


def _configurations() -> Iterator[Row]:
    refusal = "refused at deployment and in the job process"
    for trick, _ in configurations.REFERENCES:
        yield Row("job configuration: references", trick, refusal)
    for trick, _ in configurations.SERVER_REFERENCES:
        yield Row("job configuration: references at the server", trick, refusal)
    for trick, _ in configurations.FILES:
        yield Row("job configuration: files", trick, refusal)


def _elsewhere() -> Iterator[Row]:
    for trick, _, refusal in server.FORGED:
        yield Row("contribution at the server", trick, refusal)
    for trick, _, what in poisoning.TURNED:
        yield Row("poisoned contribution", trick, what)
    for trick, _, _, refusal in poisoning.REFUSED:
        yield Row("poisoned contribution", trick, f"left out: {refusal}")
    for trick, _, _, what in ledger.TAMPERING:
        yield Row("ledger", trick, f"found, and located: {what}")
    for trick, _, what in marker.REPLACED:
        yield Row("ledger and its head together", trick, f"nothing leaves any more: {what}")
    for trick, *_, refusal in messages.COMMANDS:
        yield Row("command to a site", trick, f"refused and recorded: {refusal}")
    for trick in connections.FORGED:
        yield Row("message in another's name, by a member", trick, "the server neither hears it nor passes it on")
    for trick in connections.COMMANDS:
        yield Row("message to the server", f"a command by a member: {trick}", "neither heard nor passed on")
    for trick in connections.INVITATIONS:
        yield Row("message to the server", trick, "it connects to no address that a message names")
    for trick, _ in events.INJECTED:
        yield Row("event of another member", trick, "not heard, no line, nothing sent")


def _files() -> Iterator[Row]:
    for what, _ in files.WRITERS:
        yield Row("files read by other accounts", f"{what}, under the umask 000", "files 600, folders 700")
    for trick, _ in files.PLANTED:
        yield Row("feature cache", trick, "not taken, computed again, said once in the log")
    for what, _ in links.LINKS:
        yield Row("symbolic links", what, "is a symbolic link")
    for trick, *_, channel in (*modes.KIT_MODES, *modes.SITE_MODES):
        yield Row("modes at a site", trick, f"preflight: OPEN {channel}")


def text(table: Iterable[Row]) -> str:
    """Return the table as Markdown."""
    lines = [f"| {row.channel} | {row.trick} | {_escaped(row.refusal)} |" for row in sorted(table)]
    return HEAD + f"{len(lines)} attacks:\n\n| channel | trick | refusal |\n|---|---|---|\n" + "\n".join(lines) + "\n"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("[", "\\[")


if __name__ == "__main__":
    print(text(rows()), end="")
