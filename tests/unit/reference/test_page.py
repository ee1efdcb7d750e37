import re

from med_duallora.commands.config import scopes
from med_duallora.reference.entries import settings_of
from med_duallora.reference.page import page, table


def test_the_page_has_a_row_for_every_setting() -> None:
    text = page(scopes())
    rows = re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(setting.key for scope in scopes() for setting in settings_of(scope))


def test_a_table_keeps_its_columns() -> None:
    assert table([["a", "b"], ["x|y", "z"]]) == "| a | b |\n|---|---|\n| x\\|y | z |"


def test_paragraphs_are_wrapped_and_say_where_the_weights_are() -> None:
    lines = page(scopes()).splitlines()
    assert max(len(line) for line in lines if not line.startswith("|")) <= 120
    assert any("https://huggingface.co/mathpluscode/CineMA" in line for line in lines)
    assert lines[-1] == "Research software, not for diagnosis."
