import argparse
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from med_duallora import __version__, cli
from med_duallora.cli import COMMANDS, build_parser, main
from med_duallora.commands import report
from med_duallora.errors import InputError, MedDualLoRAError
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("command", [[], *[[name] for name in COMMANDS]], ids=lambda item: item[0] if item else "all")
def test_help_is_there_for_every_command(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert "usage: med-duallora" in capsys.readouterr().out


def test_help_and_readme_name_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for text in (capsys.readouterr().out, readme):
        (listed,) = re.findall(r"Exit codes: (.*?)\.\s", text, re.DOTALL)
        codes = {int(number) for number in re.findall(r"\b\d+\b", listed)}
        assert codes == {0, MedDualLoRAError.exit_code, InputError.exit_code, cli.INTERRUPTED, cli.READER_LEFT}


def test_every_argument_is_explained() -> None:
    for parser in _all_parsers(build_parser()):
        for action in parser._actions:
            is_choice_of_command = isinstance(action, argparse._SubParsersAction)
            assert action.help or is_choice_of_command, f"{parser.prog}: {action.dest} has no help"


OTHER_SPELLINGS = [
    ("simulate", "--clients", "--sites"),
    ("simulate", "--threads", "--parallel-sites"),
    ("simulate", "--dir", "--workspace"),
    ("simulate", "--checkpoint", "--backbone-checkpoint"),
    ("simulate", "--resume", "--resume-from"),
    ("jobs export", "--name", "--job"),
    ("jobs check", "--root", "--checkout"),
    ("prepare", "--jobs", "--processes"),
    ("phantom", "--jobs", "--processes"),
    ("montage", "--n", "--n-per-vendor"),
    ("pretrain", "--preset", "--backbone"),
    *((f"federation {action}", "--dir", "--workspace") for action in ("up", "status", "submit", "down", "run")),
    ("federation up", "--clients", "--sites"),
    ("federation up", "--site", "--sites"),
    ("federation up", "--work", "--workspace"),
    ("ledger show", "--job", "--job-id"),
    ("ledger match", "--job", "--job-id"),
]


@pytest.mark.parametrize(("command", "other", "name"), OTHER_SPELLINGS)
def test_an_option_has_one_spelling(command: str, other: str, name: str) -> None:
    (parser,) = (parser for parser in _all_parsers(build_parser()) if parser.prog == f"med-duallora {command}")
    (action,) = (action for action in parser._actions if name in action.option_strings)
    assert action.option_strings == [name]
    assert parser._get_option_tuples(other) == [], "nor may a part of an option stand for it"
    assert other not in parser._option_string_actions


def test_an_option_means_the_same_in_every_command() -> None:
    found: dict[str, dict[str, list[str]]] = {}
    for parser in _all_parsers(build_parser()):
        for action in parser._actions:
            for option in action.option_strings:
                kind = str(action.metavar or ("" if action.nargs == 0 else action.choices))
                found.setdefault(option, {}).setdefault(kind, []).append(parser.prog)
    assert {option: kinds for option, kinds in found.items() if len(kinds) > 1 and option != "--out"} == {}
    assert set(found["--out"]) == {"DIR", "FILE"}


def test_an_empty_path_is_not_the_folder_that_one_is_in() -> None:
    of_paths = [
        (parser, action)
        for parser in _all_parsers(build_parser())
        for action in parser._actions
        if action.type is Path or action.metavar in ("DIR", "FILE", "CSV", "KIT", "PATH")
    ]
    assert len(of_paths) > 60
    for parser, action in of_paths:
        with pytest.raises(argparse.ArgumentError, match="the path is empty; is a variable of the shell unset"):
            parser._get_value(action, "")
        assert parser._get_value(action, "a/b") == Path("a/b")


def _all_parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                found += _all_parsers(child)
    return found


def test_help_is_quick_because_heavy_modules_wait() -> None:
    heavy = {"torch", "nvflare", "monai", "matplotlib", "nibabel", "sklearn", "scipy"}
    code = f"import sys; from med_duallora.cli import build_parser; build_parser(); print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == f"med-duallora {__version__}"


@pytest.mark.parametrize("arguments", [[], ["fly"], ["report"]], ids=["no command", "unknown", "missing argument"])
def test_bad_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: med-duallora" in capsys.readouterr().err


def test_an_expected_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "nowhere"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("med-duallora report: nowhere is not a directory")


def test_a_word_of_the_operating_system_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(_: argparse.Namespace) -> int:
        raise OSError(28, "No space left on device", "/srv/report.html")

    monkeypatch.setattr(report, "run", refused)
    assert main(["report", "run"]) == 1
    expected = (
        "med-duallora report: /srv/report.html: No space left on device; make room there, or choose another place\n"
    )
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    "error", [OSError("no number"), ConnectionResetError(104, "reset")], ids=["ours", "a network's"]
)
def test_another_error_keeps_its_traceback(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(report, "run", broken)
    with pytest.raises(type(error)):
        main(["report", "run"])


def test_an_output_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    program = [sys.executable, "-m", "med_duallora", "jobs", "check", "--checkout", str(REPOSITORY)]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        found = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr.endswith(
        "a file or the output: No space left on device; make room there, or choose another place\n"
    )


def test_names_of_any_bytes_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(_: argparse.Namespace) -> int:
        print("odd \udcff")
        return 0

    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(report, "run", named)
    assert main(["report", "run"]) == 0
    assert output.buffer.getvalue() == b"odd \\udcff\n"


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "report", "nowhere"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"), [(MedDualLoRAError("could not"), 1), (KeyboardInterrupt(), 130)], ids=["failed", "interrupted"]
)
def test_other_ends_have_their_codes(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(report, "run", fail)
    assert main(["report", "x"]) == code


def test_a_bug_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(report, "run", fail)
    with pytest.raises(ZeroDivisionError):
        main(["report", "x"])


@pytest.mark.parametrize("arguments", [["--help"], ["federation", "--help"], ["jobs", "check"]], ids=" ".join)
def test_a_reader_that_has_enough_is_no_error(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-m", "med_duallora", *arguments]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        program, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=REPOSITORY, env=buffered
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (cli.READER_LEFT, "")


def test_another_broken_pipe_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise BrokenPipeError("a socket")

    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "w") as listened_to:
        monkeypatch.setattr(sys, "stdout", listened_to)
        monkeypatch.setattr(report, "run", fail)
        with pytest.raises(BrokenPipeError, match="a socket"):
            main(["report", "x"])


def test_the_module_is_the_same_program() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "med_duallora", "--version"], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip().endswith(__version__)
    assert cli.build_parser().prog == "med-duallora"
