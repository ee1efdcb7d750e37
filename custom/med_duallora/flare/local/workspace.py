"""The folder of a simulator run, whatever the run: who is at work in it, what it holds, and how it is moved aside.

A run's results may have cost hours, so nothing here deletes them: a workspace that holds some is renamed as a whole,
and only the feature cache, which any run can use, is taken back from it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from med_duallora.errors import InputError
from med_duallora.server.rundir import EVALUATION_FILE, ROUNDS_FILE
from med_duallora.site.secret import SECRET_FILE, write_secret
from med_duallora.support.files import read_object
from med_duallora.support.folders import unused
from med_duallora.support.locks import locked

RUN_FILE = "run.json"
LOG_FILE = "simulator.log"
LOCK_FILE = ".lock"
CACHE, STATE = "cache", "state"
SERVER = Path("flare") / "server" / "simulate_job" / "app_server"
"""Where the simulated server writes its results."""


@contextmanager
def held(workspace: Path) -> Iterator[None]:
    """Keep the workspace for this process inside the block.

    Raises:
        InputError: another simulation is at work there.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    busy = InputError(f"another simulation is at work in {workspace}; choose another workspace")
    with locked(workspace / LOCK_FILE, busy):
        yield


def read_record(workspace: Path) -> dict[str, Any] | None:
    """Return the workspace's run record; None in a new workspace.

    Raises:
        InputError: the record is damaged, or the workspace holds something else than a run.
    """
    path = workspace / RUN_FILE
    try:
        return read_object(path)
    except FileNotFoundError:
        if workspace.exists() and not _only_taken_back(workspace):
            raise InputError(
                f"{workspace} is not empty and holds no run ({RUN_FILE}); choose another workspace"
            ) from None
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; remove the workspace or choose another one") from error


def _only_taken_back(workspace: Path) -> bool:
    """Return whether a workspace holds no more than what is left where moving a run aside was broken off."""
    others = [place for place in workspace.iterdir() if place.name not in (LOCK_FILE, CACHE, STATE)]
    states = [place for place in (workspace / STATE).rglob("*") if place.is_file() and place.name != SECRET_FILE]
    return not (others or states)


def results_in(workspace: Path) -> str:
    """Return in a few words what a run left that would be lost with it; empty where no round was finished."""
    server = workspace / SERVER
    rounds = server / ROUNDS_FILE
    n_rounds = len(rounds.read_bytes().splitlines()) if rounds.is_file() else 0
    plural = "" if n_rounds == 1 else "s"
    if (server / EVALUATION_FILE).is_file():
        return f"the results of {n_rounds} round{plural}"
    return f"{n_rounds} finished round{plural}" if n_rounds else ""


def set_aside(workspace: Path) -> Path:
    """Move a workspace to ``WORKSPACE.previous-N`` by one rename, and take the feature cache back; return the place.

    The sites' secrets are copied, because the cache is sealed with them. A crash leaves either the old run where it
    was, or the whole of it in the new place. The caller holds the lock, which moves along: it has to be taken anew.

    Raises:
        OSError: it cannot be moved, because it is a mount point for example; it is as it was.
    """
    previous = workspace.rename(unused(workspace, "previous", first=1))
    workspace.mkdir()
    if (previous / CACHE).is_dir():
        (previous / CACHE).rename(workspace / CACHE)
    put_secrets(workspace, secrets_of(previous))
    return previous


def secrets_of(workspace: Path) -> dict[str, bytes]:
    """Return the secret of every site that has one, by the site's name."""
    places = (workspace / STATE).glob(f"*/{SECRET_FILE}")
    return {place.parent.name: place.read_bytes() for place in places if not place.is_symlink()}


def put_secrets(workspace: Path, secrets: Mapping[str, bytes]) -> None:
    """Give the sites of a run the secrets of an earlier one, whose feature cache they share."""
    for site, secret in secrets.items():
        write_secret(workspace / STATE / site / SECRET_FILE, secret)
