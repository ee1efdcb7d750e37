"""Every command of the command line that writes, with arguments that let it write to a place; why the others do not."""

import argparse
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from med_duallora.cli import build_parser
from tests.unit.inference.conftest import Trained

SUBJECTS = 6


@dataclass(frozen=True)
class World:
    """What the commands read.

    Args:
        data: one prepared cohort per site, and table.csv about raw images.
        run: workspace of a finished run.
        kits: of a provisioned federation.
        model: what a job left at a site.
    """

    data: Path
    run: Path
    kits: Path
    model: Trained


Arguments = Callable[[Path, World], list[object]]


def _nothing(place: Path, world: World) -> None:
    """Most commands find an empty place."""


@dataclass(frozen=True)
class Writer:
    """One command that writes.

    Args:
        arguments: let it write to a place.
        before: puts into the place what the command wants to find there; it cannot lie below a file then.
        code: exit code where the place cannot be written.
        limit: bytes that a file can have on the full disk; less than what the command writes at the last.
        leaves: files that stay on the full disk: each is whole, and lets the same command go on later.
    """

    arguments: Arguments
    before: Callable[[Path, World], None] = field(default=_nothing)
    code: int = 1
    limit: int = 2048
    leaves: tuple[str, ...] = ()


def _kit(name: str) -> Callable[[Path, World], None]:
    def before(place: Path, world: World) -> None:
        shutil.copytree(world.kits / name, place / "kit")

    return before


def _checkout(place: Path, world: World) -> None:
    for folder in ("docs", "app/config", "custom/med_duallora"):
        (place / folder).mkdir(parents=True)
    (place / "docs" / "settings.md").write_text("old\n")
    (place / "app" / "config" / "config_fed_server.json").write_text("{}\n")


def _federation(place: Path, world: World) -> None:
    from med_duallora.flare.local.rehearsal.record import Federation

    Federation(place, "mark", "p", 8002, place / "kits", "server", ("ge",), {"lead": "lead"}).write()


def _site_run(place: Path, world: World) -> None:
    from tests.unit.report.test_site_page import site_run

    site_run(place / "run")


WRITERS: dict[str, Writer] = {
    "phantom": Writer(
        lambda place, _: ["phantom", "--out", place, "--n-per-vendor", 4, "--processes", 1], leaves=("phantom.json",)
    ),
    "prepare": Writer(
        lambda place, world: ["prepare", "--table", world.data / "table.csv", "--out", place, "--processes", 1]
    ),
    "prepare --table-template": Writer(lambda place, _: ["prepare", "--table-template", place / "table.csv"], limit=16),
    "montage": Writer(lambda place, world: ["montage", world.data / "ge", "--out", place / "picture.png"]),
    "doctor": Writer(lambda place, world: ["doctor", world.data / "ge", "--out", place / "page.html"]),
    "pretrain": Writer(
        lambda place, world: [
            *("pretrain", "--data", world.data, "--backbone", "cinema-tiny", "--steps", 1, "--batch-size", 2),
            *("--out", place / "w.safetensors"),
        ]
    ),
    "simulate": Writer(
        lambda place, world: ["simulate", "--data", world.data, "--workspace", place], leaves=(".lock",)
    ),
    "demo": Writer(lambda place, _: ["demo", "--out", place, "--n-per-vendor", 4], leaves=("raw/phantom.json",)),
    "jobs export": Writer(lambda place, _: ["jobs", "export", "--out", place, "--job", "production"]),
    "jobs check": Writer(lambda place, _: ["jobs", "check", "--write", "--checkout", place], _checkout),
    "config check": Writer(lambda place, _: ["config", "check", "--write", "--checkout", place], _checkout),
    "predict": Writer(
        lambda place, world: [
            *("predict", "--model", world.model.run, "--backbone-checkpoint", world.model.checkpoint),
            *("--data", world.data / "ge", "--split", "test", "--out", place),
        ],
        limit=1024,
    ),
    "predict --adapter": Writer(
        lambda place, world: [
            *("predict", "--adapter", world.model.shared, "--backbone-checkpoint", world.model.checkpoint),
            *("--data", world.data / "ge", "--out", place, "--ungated"),
        ],
        limit=1024,
    ),
    "fit-head": Writer(
        lambda place, world: [
            *("fit-head", "--adapter", world.model.adapter, "--backbone-checkpoint", world.model.checkpoint),
            *("--data", world.data / "ge", "--out", place / "model.safetensors"),
        ]
    ),
    "study": Writer(
        lambda place, world: [
            *("study", "--data", world.data, "--backbone-checkpoint", world.model.checkpoint, "--out", place),
            *("--methods", "own-head", "--seeds", 1, "--n-train", 6, "--processes", 1, "--set", "backbone=cinema-tiny"),
        ],
        limit=1024,
        leaves=("cache/site.secret",),
    ),
    "report": Writer(lambda place, world: ["report", world.run, "--out", place]),
    "report --min-specificity": Writer(lambda place, _: ["report", place / "run", "--min-specificity", 0.5], _site_run),
    "export --card": Writer(lambda place, world: ["export", "--card", place / "card", "--run-dir", world.run]),
    "federation up": Writer(lambda place, world: ["federation", "up", "--workspace", place, "--data", world.data]),
    "federation run": Writer(lambda place, world: ["federation", "run", "--workspace", place, "--data", world.data]),
    "federation submit": Writer(lambda place, _: ["federation", "submit", "--workspace", place], _federation),
    "federation download": Writer(lambda place, _: ["federation", "download", "--workspace", place], _federation),
    "campaign": Writer(
        lambda place, world: [
            *("campaign", "--admin-kit", world.kits / "lead@research.example.org", "--out", place / "campaign"),
        ],
        limit=64,
        leaves=("campaign/.lock",),
    ),
    "server-kit": Writer(
        lambda place, _: ["server-kit", "--startup-kit", place / "kit", "--storage", place / "store"],
        _kit("fl-server.example.org"),
    ),
    "site-kit": Writer(lambda place, _: ["site-kit", "--startup-kit", place / "kit"], _kit("ge"), code=2, limit=256),
}

READERS: dict[str, str] = {
    "config show": "prints",
    "config explain": "prints",
    "federation status": "asks the server",
    "federation monitor": "asks the server",
    "federation abort": "asks the server",
    "federation down": "ends processes; kits, states and record stay as they are",
    "preflight": "inspects a kit without changing it",
    "ledger verify": "reads a ledger",
    "ledger show": "reads a ledger",
    "ledger match": "reads a ledger and a record",
}
"""Commands that write no file, each with the reason."""


def commands(parser: argparse.ArgumentParser | None = None, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield every command with its action, as the command line itself declares them."""
    parser = parser or build_parser()
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for name, child in action.choices.items():
            yield from commands(child, (*path, name))
    if not below:
        yield " ".join(path)
