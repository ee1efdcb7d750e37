"""The site state store: what a site keeps between rounds, and never sends.

One safetensors file holds the local adapter, the head with its statistics, the global adapter that these belong to,
statistics of the training subjects and the optimizer's moments, together with the round and a checksum: enough to train
on, and to predict without a subject at hand. A crash can never leave half of it, and a flipped byte is noticed. The
file before it is kept as well: it serves when the last one is damaged, and when a round has to be repeated. No
generator state is stored, because every random stream is derived from the seed, the site and the round (see ``seeds``).

Every run has a folder of its own, see ``lineage``.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from med_duallora.boundary.lineage import Lineage
from med_duallora.errors import StateError
from med_duallora.support.digest import content_digest
from med_duallora.support.files import atomic_path, write_json
from med_duallora.support.folders import unused
from med_duallora.support.locks import locked
from med_duallora.support.private import open_own
from med_duallora.support.private import private_folder as make_private
from med_duallora.support.tensors import read_tensors

logger = logging.getLogger(__name__)

FORMAT = "3"
LOCK_FILE = ".lock"
STATE_FILE, PREVIOUS_FILE = "state.safetensors", "state.previous.safetensors"
MODEL_FILE = "model.json"
"""Says what the states beside it belong to: site, job settings, backbone and lineage."""
PARTS = ("kept", "moments", "sent", "statistics", "reference")
"""Tensors of a state, each under its part's name in the file."""


@dataclass(frozen=True)
class SiteState:
    """What a site keeps after a round.

    Args:
        round_index: the last finished round.
        kept: local adapter and, by default, the head, by parameter name.
        moments: optimizer state, see ``training.RoundResult``.
        cohort: hash of the cohort's table that the round was trained on.
        sent: the global adapter that a prediction uses: as the site trained it, and once a global adapter was
            evaluated here, that one.
        statistics: of the head with this global adapter, see ``HeadNorm``.
        reference: of the training subjects, see ``site.reference``; empty in states written before there was one.
    """

    round_index: int
    kept: Mapping[str, np.ndarray]
    moments: Mapping[str, np.ndarray]
    cohort: str = ""
    sent: Mapping[str, np.ndarray] = field(default_factory=dict)
    statistics: Mapping[str, np.ndarray] = field(default_factory=dict)
    reference: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Owner:
    """What a state must agree with to be continued.

    Args:
        identity: hash of the site's name and the job's settings, but for the number of rounds.
        backbone: hash of the backbone checkpoint.
    """

    identity: str
    backbone: str


class _OtherBackboneError(StateError):
    """A whole state of this training that another backbone was trained with."""


class SiteStateStore:
    """The states of one run at one site.

    Args:
        directory: of this run; created with mode 0700 when something is stored.
        owner: whose states can be continued.
    """

    def __init__(self, directory: Path, owner: Owner) -> None:
        self.directory = directory
        self.owner = owner
        self._current = directory / STATE_FILE
        self._previous = directory / PREVIOUS_FILE

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the run's state for this process inside the block; also shows that the directory can be written.

        Raises:
            StateError: another process is at work with it, or nothing can be written there.
        """
        self._make_folder()
        busy = StateError(
            "another process at this site trains with the local state of the same run; stop one of the two jobs, "
            "or wait until the other one has ended"
        )
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.directory / LOCK_FILE, busy))
            except OSError as error:  # a file system without locks, for example
                raise _not_writable(error) from error
            yield

    def save(self, state: SiteState) -> None:
        """Store a state atomically, mode 0600; the newest one of an earlier round stays readable.

        A repeated round replaces its first attempt, never the state that it started from, so that it can be repeated
        again. What the run left of this or later rounds goes.

        Raises:
            StateError: it cannot be written; what was stored before is intact.
        """
        # safetensors writes an array's memory as it lies, so it must lie in C order
        parts = {part: getattr(state, part) for part in PARTS}
        tensors = {f"{part}/{n}": np.array(v, order="C") for part, values in parts.items() for n, v in values.items()}
        facts = {"format": FORMAT, **vars(self.owner), "round": str(state.round_index), "cohort": state.cohort}
        facts["checksum"] = content_digest(tensors, facts)
        self._make_folder()
        try:
            with atomic_path(self._current, mode=0o600) as partial:
                save_file(tensors, partial, metadata=facts)
                if self._precedes(self._current, state):
                    self._current.replace(self._previous)
                elif not self._precedes(self._previous, state):
                    self._previous.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            raise _not_writable(error) from error

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Write what the run's states belong to beside them, mode 0600: whoever predicts later reads it.

        Raises:
            StateError: it cannot be written.
        """
        private_folder(self.directory)
        try:
            write_json(self.directory / MODEL_FILE, facts, 0o600)
        except OSError as error:
            raise _not_writable(error) from error

    def latest(self, before_round: int | None = None) -> SiteState | None:
        """Return the newest state, or the newest that finished before a round; None where there is none.

        A damaged state, or one of another configuration, is set aside under a new name, said in the log, and the one
        before it is used.

        Raises:
            StateError: the state was trained with another backbone. It is left where it is: going on without it would
                train a global adapter for a backbone that the other sites do not have. Or a damaged one cannot be set
                aside, because nothing can be written there. Or the run's or the experiment's folder is a link.
        """
        _refuse_links(self.directory.parent, self.directory)
        for path in (self._current, self._previous):
            try:
                state = self._read(path)
            except FileNotFoundError:
                continue
            except _OtherBackboneError:
                raise
            except StateError as error:
                kept_as = self._set_aside(path)
                logger.warning("a saved state was set aside as %s: %s", kept_as.name, error)
                continue
            if before_round is None or state.round_index < before_round:
                return state
        return None

    def _make_folder(self) -> None:
        private_folder(self.directory.parent, self.directory)

    def _precedes(self, path: Path, state: SiteState) -> bool:
        """Tell whether the state in a file can still be used and is of an earlier round than ``state``."""
        try:
            return self._read(path).round_index < state.round_index
        except (FileNotFoundError, StateError):
            return False

    def _read(self, path: Path) -> SiteState:
        facts, state = read_state(path)
        if facts.identity != self.owner.identity:
            raise StateError("it belongs to another site, method or configuration")
        if facts.backbone != self.owner.backbone:
            raise _OtherBackboneError(
                "this site's local state was trained with another backbone checkpoint "
                f"(sha256 {facts.backbone[:12]}, not {self.owner.backbone[:12]}); "
                "put the former one back, or start a new experiment"
            )
        return state

    def _set_aside(self, path: Path) -> Path:
        try:
            return path.rename(unused(path, "set-aside"))
        except OSError as error:
            raise _not_writable(error) from error


def state_checksum(path: Path) -> str:
    """Return the checksum in a state's file, which says what state it is; empty where none can be read."""
    try:
        with open_own(path) as stream:
            facts, _ = read_tensors(stream, "numpy")
    except (SafetensorError, OSError, ValueError):
        return ""
    return facts.get("checksum", "")


def read_state(path: Path) -> tuple[Owner, SiteState]:
    """Return whose state a file holds, and the state; nothing is set aside or changed.

    Raises:
        FileNotFoundError: there is none.
        StateError: it is damaged, or of another version.
    """
    try:
        with open_own(path) as stream:
            facts, tensors = read_tensors(stream, "numpy")
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise StateError("it is a symbolic link" if path.is_symlink() else "the file is damaged") from error
    if facts.get("format") != FORMAT or not facts.get("round", "").isdigit():
        raise StateError("it was not written by this version of med-duallora")
    if facts.pop("checksum", "") != content_digest(tensors, facts):
        raise StateError("its bytes are not those that were written (the checksum differs)")
    parts = {part: _under(f"{part}/", tensors) for part in PARTS}
    state = SiteState(round_index=int(facts["round"]), cohort=facts.get("cohort", ""), **parts)
    return Owner(facts.get("identity", ""), facts.get("backbone", "")), state


def newest_state(experiment: Path, owner: Owner, lineage: Lineage, before_round: int | None) -> SiteState | None:
    """Return a site's newest state from before a round, in the running run or in those that it continues.

    Args:
        experiment: folder that holds a folder per run.
        owner: whose states can be continued.
        lineage: of the running run.
        before_round: None: the newest of all.

    Raises:
        StateError: see ``SiteStateStore.latest``.
    """
    for run_id, limit in lineage.places(before_round):
        state = SiteStateStore(experiment / run_id, owner).latest(limit)
        if state:
            return state
    return None


def private_folder(*folders: Path) -> None:
    """Make folders below ``state_dir``, mode 0700 (StateError where that cannot be done, or where one is a link)."""
    _refuse_links(*folders)
    try:
        for folder in folders:
            make_private(folder)
    except OSError as error:
        raise _not_writable(error) from error


def _refuse_links(*folders: Path) -> None:
    for folder in folders:
        if folder.is_symlink():
            raise StateError(
                "a folder below state_dir is a symbolic link, by which the site's local state would lie elsewhere: put "
                "the folder itself there (state_dir may be a link)"
            )


def _not_writable(error: OSError | SafetensorError) -> StateError:
    reason = getattr(error, "strerror", None) or str(error).partition(" at path ")[0]
    return StateError(
        f"the site's local state cannot be written ({reason}); the state of the last finished round is intact. Make "
        "room or fix the permissions of state_dir of the site configuration, then resume from the last global adapter"
    )


def _under(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
