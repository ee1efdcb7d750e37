"""What a disturbed training must have given: the same rounds again, in one process and without a fault.

A site may train a round that goes on without its answer, as when its network is cut: its local state is of that round
then, though nobody averaged it. So a replay needs to know of every round who trained it and who counted. The server's
records say who counted; ``Watcher`` sees the states that the sites save, and so who trained.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from med_duallora.adapter.methods import plan_of
from med_duallora.adapter.model import initial_global_state
from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.server.artifact import save_adapter
from med_duallora.server.screening import ScreenedRound
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.site.runtime import SiteRuntime
from med_duallora.support.devices import use_threads
from med_duallora.support.files import sha256_of_file

WATCH_S = 0.2
"""Between two looks; a site keeps the states of two rounds, so that a round is missed if both were shorter."""
Saved = Mapping[str, frozenset[tuple[str, int]]]
"""Site -> (run, round) of every state that it saved."""


@dataclass(frozen=True)
class Past:
    """Who did what in a round.

    Args:
        trained: sites whose local state is of this round afterwards.
        counted: those of them whose adapters were averaged.
    """

    trained: tuple[str, ...]
    counted: tuple[str, ...]


@dataclass
class Watcher:
    """Sees which states the sites of a federation save, while it runs.

    Args:
        experiments: site -> the folder below its ``state_dir`` with a folder per run.
    """

    experiments: Mapping[str, Path]
    _seen: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    _times: dict[Path, int] = field(default_factory=dict)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look again and again inside the block, in a thread."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(WATCH_S):
                self.look()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.look()

    def look(self) -> None:
        """Note the states that are there now."""
        for site, folder in self.experiments.items():
            for path in folder.glob("*/state*.safetensors"):
                with contextlib.suppress(OSError, SafetensorError, KeyError, ValueError):  # just being replaced
                    self._note(site, path)

    def _note(self, site: str, path: Path) -> None:
        written = path.stat().st_mtime_ns
        if self._times.get(path) == written:
            return
        with safe_open(path, "numpy") as file:
            round_index = int(file.metadata()["round"])
        self._seen.setdefault(site, set()).add((path.parent.name, round_index))
        self._times[path] = written

    @property
    def saved(self) -> Saved:
        """Return what was seen so far."""
        return {site: frozenset(found) for site, found in self._seen.items()}


def pasts(saved: Saved, lineage: Lineage, counted: Sequence[Sequence[str]]) -> list[Past]:
    """Return who did what in every round of a training.

    Args:
        saved: the states that the sites saved, also in rounds that were done again by a later run.
        lineage: of the training's last adapter.
        counted: by round, whose adapters were averaged.
    """
    found = []
    for round_index, names in enumerate(counted):
        run = [run for run in lineage.runs if run.first_round <= round_index][-1]
        trained = {site for site, states in saved.items() if (run.run_id, round_index) in states}
        found.append(Past(tuple(sorted(trained | set(names))), tuple(sorted(names))))
    return found


def replayed(
    job: JobConfig, sites: Mapping[str, SiteConfig], rounds: Sequence[Past], scratch: Path
) -> Iterator[tuple[dict[str, np.ndarray], str]]:
    """Yield the adapter of every round and its file's digest, done in this process without FLARE and without a fault.

    Args:
        job: the job scope.
        sites: with states of their own, which are empty.
        rounds: who did what.
        scratch: for the adapters.
    """
    use_threads([config.n_threads for config in sites.values()][-1])
    contract, rule, lineage = EgressContract.for_job(job), plan_of(job).aggregation, Lineage.begin()
    state = initial_global_state(job)
    runtimes = {site: SiteRuntime(site, job, config) for site, config in sites.items()}
    for runtime in runtimes.values():
        runtime.model.follow(lineage)
    for round_index, past in enumerate(rounds):
        collected = ScreenedRound(contract, round_index, None, rule, job.weighting)
        for site in past.trained:
            update = runtimes[site].train_round(state, round_index)
            if site in past.counted:
                collected.add(site, round_index, update.weight, update.tensors, update.metrics.get("n_subjects"))
        state = collected.result(state).aggregation.tensors
        yield state, sha256_of_file(save_adapter(scratch, f"round-{round_index}", state, {}))
