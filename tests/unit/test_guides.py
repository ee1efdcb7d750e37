"""README.md, docs/ and the guides in poc/: every command exists, with these arguments; every link leads somewhere.

A command is looked for where people copy it from: code blocks, and code within a sentence. A sentence may also just
name a command, without any argument; then that command must exist.
"""

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nvflare.cli import parse_args

from med_duallora.cli import build_parser
from med_duallora.settings.config import SiteConfig
from tests.conftest import REPOSITORY

GUIDES = sorted((REPOSITORY / "poc").rglob("*.md"))
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")), *GUIDES]
WITH_COMMANDS = {
    "README.md",
    *(f"docs/{name}.md" for name in ("architecture", "dicom", "export", "operations", "prediction", "preparation")),
    *(f"docs/{name}.md" for name in ("performance", "pretraining", "privacy", "recipes", "release", "settings")),
    *(f"docs/{name}.md" for name in ("results", "study", "vocabulary", "your-own-data")),
}
"""Documents besides the guides that hold commands; the others explain."""
FENCED = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
INDENTED = re.compile(r"(?:^(?: {4}.*)?\n)+", re.MULTILINE)
INLINE = re.compile(r"`((?:med-duallora|nvflare) [^`]+)`")
SETTINGS = re.compile(r"(?:[A-Z_]+=(?:\"[^\"]*\"|\S*) +)+(?=med-duallora |nvflare )")
"""Environment variables that a line sets for its command."""
LINKS = re.compile(r"\]\(([^)#]+)(#[^)]+)?\)")


def commands() -> Iterator[tuple[str, str, bool]]:
    """Yield (document, command line, whether a sentence holds it)."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        lines = [line for block in blocks(text) for line in block.replace("\\\n", " ").splitlines()]
        inline = [found.replace("\n", " ") for found in INLINE.findall(FENCED.sub("", text))]
        for line, in_sentence in [*((line, False) for line in lines), *((line, True) for line in inline)]:
            command = SETTINGS.sub("", line.strip())
            if command.startswith(("med-duallora ", "nvflare ")):
                yield str(document.relative_to(REPOSITORY)), command, in_sentence


def blocks(text: str) -> Iterator[str]:
    """Yield the code blocks of a document, those of Python and JSON excepted."""
    yield from (block for language, block in FENCED.findall(text) if language in ("", "sh"))
    yield from INDENTED.findall(FENCED.sub("", text))


def parser_of(program: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], object]:
    """Return what reads the arguments of a program; it raises SystemExit where it does not understand them."""
    if program == "med-duallora":
        return build_parser().parse_args

    def flare(arguments: list[str]) -> object:
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        return parse_args(program)

    return flare


def test_the_documents_hold_commands() -> None:
    guides = {str(guide.relative_to(REPOSITORY)) for guide in GUIDES}
    assert len(guides) == 4
    assert {document for document, *_ in commands()} == guides | WITH_COMMANDS


@pytest.mark.parametrize(("document", "command", "in_sentence"), sorted(set(commands())))
def test_a_command_is_understood(
    document: str, command: str, in_sentence: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *arguments = shlex.split(command, comments=True)
    parse = parser_of(program, monkeypatch)
    if in_sentence and all(re.fullmatch(r"[a-z][a-z-]*", word) for word in arguments):
        arguments.append("--help")  # it is only named
    if arguments[-1] not in ("--help", "--version"):
        parse(arguments)
        return
    with pytest.raises(SystemExit) as stopped:
        parse(arguments)
    assert stopped.value.code == 0


SAYING_BIT_FOR_BIT = [*DOCUMENTS, REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "custom").rglob("*.py"))]


def test_bit_for_bit_is_never_said_without_the_machine() -> None:
    """Another processor or number of threads rounds otherwise; docs/operations.md says so at length."""
    said = [
        (document.name, paragraph)
        for document in SAYING_BIT_FOR_BIT
        for paragraph in re.split(r"\n\s*\n|\n(?=- )", document.read_text(encoding="utf-8"))
        if re.search(r"bit[ -]for[ -]bit|bitwise|bit-identical", re.sub(r"[\s\"]+", " ", paragraph), re.IGNORECASE)
    ]
    assert len(said) >= 5
    assert [place for place in said if "machine" not in place[1] and not place[1].startswith("## ")] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target, anchor in LINKS.findall(text):
        if target.startswith("https://"):
            continue
        place = (document.parent / target).resolve()
        assert place.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


NAMED = [*DOCUMENTS, REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "SECURITY.md"]


@pytest.mark.parametrize("document", NAMED, ids=lambda path: path.name)
def test_every_python_file_that_is_named_exists(document: Path) -> None:
    """A name may leave out the first folders, such as those of the package."""
    places = [path for top in ("custom", "tests", "benchmarks") for path in (REPOSITORY / top).rglob("*.py")]
    known = [f"/{path.relative_to(REPOSITORY)}" for path in places]
    named = re.findall(r"[\w/]+\.py\b", document.read_text(encoding="utf-8"))
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in known)] == []


def test_every_site_configuration_that_a_document_shows_is_complete(tmp_path: Path) -> None:
    """It is what somebody copies: with a key of the policy missing, no job would start there."""
    shown = [
        block
        for document in DOCUMENTS
        for language, block in FENCED.findall(document.read_text(encoding="utf-8"))
        if language == "json" and '"data_dir"' in block
    ]
    assert shown
    for block in shown:
        (tmp_path / "site.json").write_text(block)
        SiteConfig.from_file(tmp_path / "site.json")
