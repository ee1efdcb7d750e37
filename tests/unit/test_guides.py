"""The guides in poc/: every command in them exists, with these arguments, and every link leads somewhere."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from nvflare.cli import parse_args

from med_duallora.cli import build_parser
from tests.conftest import REPOSITORY

GUIDES = sorted((REPOSITORY / "poc").rglob("*.md"))
FENCED = re.compile(r"```sh\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`((?:med-duallora|nvflare) [^`]+)`")
LINKS = re.compile(r"\]\(([^)#]+)(#[^)]+)?\)")
NOT_WHOLE = {"nvflare poc", "med-duallora federation", "med-duallora preflight --job"}
"""Commands that a sentence names without their arguments."""


def commands() -> Iterator[tuple[str, str]]:
    for guide in GUIDES:
        text = guide.read_text(encoding="utf-8")
        lines = [line for block in FENCED.findall(text) for line in block.splitlines()]
        for line in [*lines, *(found.replace("\n", " ") for found in INLINE.findall(text))]:
            if line.startswith(("med-duallora ", "nvflare ")) and line not in NOT_WHOLE:
                yield guide.name, line


def test_the_guides_hold_commands() -> None:
    assert len({name for name, _ in commands()}) == len(GUIDES) == 4


@pytest.mark.parametrize(("guide", "command"), sorted(set(commands())))
def test_a_command_in_a_guide_is_understood(guide: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *arguments = shlex.split(command)
    if arguments in (["--version"], ["--help"]) or arguments[-1:] == ["--help"]:
        with pytest.raises(SystemExit) as stopped:
            build_parser().parse_args(arguments)
        assert stopped.value.code == 0
        return
    if program == "med-duallora":
        build_parser().parse_args(arguments)
        return
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    parse_args(program)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_link_of_a_guide_leads_somewhere(guide: Path) -> None:
    text = guide.read_text(encoding="utf-8")
    for target, anchor in LINKS.findall(text):
        place = (guide.parent / target).resolve()
        assert place.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
