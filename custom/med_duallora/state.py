"""The site state store: what a site keeps between rounds, and never sends.

One safetensors file holds the local adapter, the head and the optimizer's moments together with the round they
belong to, so that a crash can never leave half of them. The file before it is kept as well: it serves when the last
one is damaged, and when a round has to be repeated. No generator state is stored, because every random stream is
derived from the seed, the site and the round (see ``seeds``).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from med_duallora.errors import StateError
from med_duallora.files import atomic_path

logger = logging.getLogger(__name__)

FORMAT = "1"


@dataclass(frozen=True)
class SiteState:
    """What a site keeps after a round.

    Args:
        round_index: the last finished round.
        kept: local adapter and, by default, the head, by parameter name.
        moments: optimizer state, see ``training.RoundResult``.
    """

    round_index: int
    kept: Mapping[str, np.ndarray]
    moments: Mapping[str, np.ndarray]


class SiteStateStore:
    """The states of one experiment at one site.

    Args:
        directory: of this experiment; created with mode 0700 when missing.
        identity: hash of everything that a state must agree with to be continued (method, shapes, backbone, seed).
    """

    def __init__(self, directory: Path, identity: str) -> None:
        self.directory = directory
        self.identity = identity
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._current = directory / "state.safetensors"
        self._previous = directory / "state.previous.safetensors"

    def save(self, state: SiteState) -> None:
        """Store a state atomically, mode 0600; the newest one of an earlier round stays readable.

        A repeated round replaces its first attempt, never the state that it started from, so that it can be repeated
        again. What an older run left of this or later rounds goes.
        """
        # safetensors writes an array's memory as it lies, so it must lie in C order
        tensors = {f"kept/{name}": np.array(value, order="C") for name, value in state.kept.items()}
        tensors |= {f"moments/{name}": np.array(value, order="C") for name, value in state.moments.items()}
        facts = {"format": FORMAT, "identity": self.identity, "round": str(state.round_index)}
        with atomic_path(self._current, mode=0o600) as partial:
            save_file(tensors, partial, metadata=facts)
            if self._precedes(self._current, state):
                self._current.replace(self._previous)
            elif not self._precedes(self._previous, state):
                self._previous.unlink(missing_ok=True)

    def latest(self, before_round: int | None = None) -> SiteState | None:
        """Return the newest state, or the newest that finished before a round; None where there is none.

        A damaged state, or one of another configuration, is set aside under a new name, said in the log, and the one
        before it is used.
        """
        for path in (self._current, self._previous):
            try:
                state = self._read(path)
            except FileNotFoundError:
                continue
            except StateError as error:
                kept_as = self._set_aside(path)
                logger.warning("a saved state was set aside as %s: %s", kept_as.name, error)
                continue
            if before_round is None or state.round_index < before_round:
                return state
        return None

    def _precedes(self, path: Path, state: SiteState) -> bool:
        """Tell whether the state in a file can still be used and is of an earlier round than ``state``."""
        try:
            return self._read(path).round_index < state.round_index
        except (FileNotFoundError, StateError):
            return False

    def _read(self, path: Path) -> SiteState:
        if not path.exists():
            raise FileNotFoundError(path)
        try:
            with safe_open(path, framework="numpy") as stream:
                facts = stream.metadata() or {}
                tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise StateError("the file is damaged") from error
        if facts.get("format") != FORMAT or not facts.get("round", "").isdigit():
            raise StateError("it was not written by this version of med-duallora")
        if facts.get("identity") != self.identity:
            raise StateError("it belongs to another configuration, backbone or method")
        return SiteState(int(facts["round"]), _under("kept/", tensors), _under("moments/", tensors))

    def _set_aside(self, path: Path) -> Path:
        number = 0
        while (target := path.with_name(f"{path.name}.set-aside-{number}")).exists():
            number += 1
        path.rename(target)
        return target


def _under(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
