"""The attack table as a whole: long enough, over all channels, and the same in docs/attacks.md."""

import pytest

from tests.attacks.table import Row, rows, text
from tests.conftest import REPOSITORY

ASKED: list[tuple[str, str, str]] = [
    ("extra keys beside the DXO", "task result: extra key", "beside the DXO"),
    ("tensors hidden in meta", "task result: meta", "a tensor in the meta"),
    ("nested collections", "task result: kinds", "a collection"),
    ("non-DXO payloads", "task result: kinds", "no DXO"),
    ("object arrays", "task result: tensors", "Python objects"),
    ("pickles", "task result: tensors", "a pickle"),
    ("wrong dtypes that carry more bits", "task result: tensors", "more bits: float64"),
    ("oversized strings", "task result: tensors", "a name of a megabyte"),
    ("header smuggling", "task result: headers", "text in a header"),
    ("local tensors under global names", "task result: tensors", "a local tensor under a global name"),
    ("tensors appended by a later job filter", "later filter of the job", "adds pixels beside the DXO"),
    ("analytics tags carrying data", "fed events", "a tag with a message"),
    ("analytics steps carrying data", "fed events", "a step with a message"),
    ("analytics values carrying data", "fed events", "a value never computed"),
    ("stats", "show_stats", "an unknown key"),
    ("exception texts", "errors", "the text of an exception"),
    ("file names", "task result: tensors", "a file's name"),
    ("submit_model replies", "task submit_model", "the global adapter"),
    ("validate replies", "task validate", "tensors"),
    ("unknown tasks", "task patient_list", "an unknown task"),
    ("NaN payload bits", "task result: tensors", "bits in a number that is not one"),
    ("endless metric names", "task result: metrics", "a thousand names"),
    ("replayed rounds", "task result: rounds", "an older round"),
    ("rounds asked for again", "task result: rounds", "the same round once more"),
    ("forged weights", "task result: weights", "a weight with a message"),
    ("wrong contract hash", "policy", "another contract"),
    ("wrong backbone", "policy", "another backbone"),
    ("public context", "public context before any task", "text"),
    ("console", "console", "cat"),
    ("error texts on the console", "show_errors", "a path"),
    ("cookies", "result kept and changed after its check", "a cookie"),
    ("classes", "class named by a job", "streams a job's log"),
    ("another member's task", "tasks of other members", "in the server's name"),
    ("the server's side", "contribution at the server", "a weight that is not a number"),
    ("poisoned weights", "poisoned contribution", "claims 10^9 subjects"),
    ("poisoned updates", "poisoned contribution", "9.5 times as long"),
    ("two sites", "poisoned contribution", "numbers of 3e38 beside one honest site"),
    ("references", "job configuration: references", "a label of a patient"),
    ("references at the server", "job configuration: references at the server", "an environment variable"),
    ("other formats", "job configuration: files", "HOCON that includes an address"),
    ("the ledger", "ledger", "a line removed"),
]
"""What must be in the table: what is asked for, and the channel and words under which it stands."""


def test_the_table_is_long_and_names_channel_trick_and_refusal() -> None:
    table = rows()
    assert len(table) >= 60
    assert all(row.channel and row.trick and row.refusal for row in table)
    assert len({(row.channel, row.trick) for row in table}) == len(table), "no attack stands there twice"


@pytest.mark.parametrize(("wanted", "channel", "words"), ASKED, ids=[row[0] for row in ASKED])
def test_every_channel_is_attacked(wanted: str, channel: str, words: str) -> None:
    assert [row for row in rows() if row.channel == channel and words in row.trick], wanted


def test_the_document_is_the_table() -> None:
    """``python -m tests.attacks.table > docs/attacks.md`` brings it up to date."""
    written = (REPOSITORY / "docs" / "attacks.md").read_text(encoding="utf-8")
    assert written == text(rows())


def test_a_cell_cannot_break_the_document() -> None:
    assert "\\|" in text([Row("a", "b", "c | d")])
