"""The command line ``med-duallora``: one sub-command per file in ``med_duallora.commands``."""

import argparse
import importlib
import io
import os
import select
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from med_duallora import __version__
from med_duallora.errors import MedDualLoRAError
from med_duallora.support.files import sentence

COMMANDS = (
    "demo",
    "phantom",
    "prepare",
    "doctor",
    "montage",
    "pretrain",
    "simulate",
    "jobs",
    "config",
    "report",
    "fit-head",
    "study",
    "predict",
    "export",
    "federation",
    "campaign",
    "server-kit",
    "site-kit",
    "preflight",
    "ledger",
)
INTERRUPTED = 130
"""Exit code after Ctrl-C: what a shell shows of a program that SIGINT ended."""
READER_LEFT = 141
"""Exit code where the reader of the output went away: what a shell shows of a program that SIGPIPE ended."""


class _Parser(argparse.ArgumentParser):
    """Refuses, here and in sub-commands, what it would have to guess: half an option's name, and an empty path."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **options})
        self.register("type", Path, _path)


def _path(text: str) -> Path:
    """Return a path; an empty one is a shell's unset variable, and would be the folder that the command runs in."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; is a variable of the shell unset?")
    return Path(text)


def build_parser() -> argparse.ArgumentParser:
    """Return the complete parser; each command's module adds its own arguments and imports heavy things late."""
    parser = _Parser(
        prog="med-duallora",
        description="Federated dual low-rank adaptation of a cine-cardiac-MRI model with NVIDIA FLARE.",
        epilog="Research software, not for diagnosis. Exit codes: 0 done, 1 failed, 2 bad usage or bad input, "
        f"{INTERRUPTED} interrupted, {READER_LEFT} the reader of the output (| head) went away.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"med_duallora.commands.{name.replace('-', '_')}").add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; expected errors become one line on standard error."""
    try:
        try:
            return _main(arguments)
        finally:
            _flush()
    except BrokenPipeError:
        if not _reader_left():  # another pipe or socket broke, which is not a reason to be silent
            raise
        _mute()
        return READER_LEFT


def _flush() -> None:
    """Write what was printed; where that fails, as on a full disk, end with a sentence and exit code 1."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _mute()
        print(f"med-duallora: {sentence(error)}", file=sys.stderr)
        raise SystemExit(MedDualLoRAError.exit_code) from None


def _mute() -> None:
    """Throw away what is still to be printed: Python would complain once more when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reader_left() -> bool:
    """Return whether whoever read our output, such as ``head``, has had enough."""
    poller = select.poll()
    poller.register(sys.stdout, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poller.poll(0))


def _is_of_a_place(error: OSError) -> bool:
    """Return whether an error is the operating system's word about a file or folder, which a sentence can say."""
    return isinstance(error, shutil.Error) or (error.errno is not None and not isinstance(error, ConnectionError))


def _print_any_name() -> None:
    """Show what the terminal's encoding cannot in escapes: a file's name may hold any byte."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _main(arguments: Sequence[str] | None) -> int:
    _print_any_name()
    options = build_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (MedDualLoRAError, OSError) as error:
        if isinstance(error, OSError) and not _is_of_a_place(error):
            raise  # a pipe, see main; or no word of the operating system, so that only a traceback says where
        if options.debug:
            traceback.print_exc()
        text = sentence(error) if isinstance(error, OSError) else str(error)
        print(f"med-duallora {options.command}: {text}", file=sys.stderr)
        return getattr(error, "exit_code", MedDualLoRAError.exit_code)
    except KeyboardInterrupt:
        print(f"med-duallora {options.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
