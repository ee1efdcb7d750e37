"""A campaign on disk: its state, its events, the adapter of every round that was kept; one program per folder.

Folder:
    campaign.json     the state, replaced at every change
    events.jsonl      one line per event
    adapters/         round-00003/adapter_last.safetensors with .json: the last two rounds that are kept
    results/          downloaded results, one folder per job
    jobs/             the job folder that was submitted last
    result/           of the whole training, once it is over: for `med-duallora report`
"""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from med_duallora.campaign.state import Campaign
from med_duallora.errors import ArtifactError, FederationError, InputError
from med_duallora.server.resume import SavedRound
from med_duallora.server.rundir import ADAPTERS, JOB_FILE, ROUNDS_FILE, add_round, read_rounds
from med_duallora.support.files import PARTIAL, canonical_json, parsed_object, read_object, write_json
from med_duallora.support.folders import check_writable, replace_folder
from med_duallora.support.locks import locked

STATE, EVENTS, LOCK, RESULTS = "campaign.json", "events.jsonl", ".lock", "results"
LAST = f"{ADAPTERS['last']}.safetensors"
ROUND = re.compile(r"round-(\d+)")
N_KEPT = 2
"""Rounds: what a site keeps, too."""


class Journal:
    """The folder of a campaign.

    Args:
        folder: made where there is none.

    Raises:
        OSError: nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        check_writable(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder for this program; FederationError where another one is at work in it."""
        busy = FederationError(f"another program runs the campaign in {self.folder}; look at {self.folder / EVENTS}")
        with locked(self.folder / LOCK, busy):
            yield

    def read(self) -> Campaign | None:
        """Return the state; None where none was written (InputError: it is damaged)."""
        path = self.folder / STATE
        try:
            return Campaign.from_dict(read_object(path))
        except FileNotFoundError:
            return None
        except (ValueError, InputError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error

    def write(self, campaign: Campaign) -> None:
        """Write the state."""
        write_json(self.folder / STATE, campaign.to_dict(), mode=0o600)

    def note(self, event: Mapping[str, Any]) -> None:
        """Add an event to the log, on a line of its own whatever a killed program left there."""
        with (self.folder / EVENTS).open("a+b") as stream:
            stream.seek(max(stream.tell() - 1, 0))
            broken = stream.read(1) not in (b"", b"\n")
            stream.write(b"\n" * broken + canonical_json(dict(event)).encode() + b"\n")

    def events(self) -> list[dict[str, Any]]:
        """Return all events so far; a line that a killed program left half-written is not one."""
        path = self.folder / EVENTS
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                found.append(parsed_object(line))
        return found

    def keep(self, tensors: bytes, manifest: bytes) -> SavedRound:
        """Keep an adapter if it is whole; return what it is.

        Raises:
            ArtifactError: it is not whole; what was there stays.
        """
        adapters = self.folder / "adapters"
        adapters.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=adapters) as scratch:
            fresh = Path(scratch) / "fresh"
            fresh.mkdir()
            (fresh / LAST).write_bytes(tensors)
            (fresh / LAST).with_suffix(".json").write_bytes(manifest)
            saved = SavedRound.read(fresh / LAST)
            replace_folder(fresh, adapters / f"round-{saved.round_index:05d}")
        for _, folder in self._kept()[N_KEPT:]:
            shutil.rmtree(folder, ignore_errors=True)
        return saved

    def adapter(self) -> tuple[int, Path] | None:
        """Return the newest round that is whole here, and its adapter; None where there is none."""
        for index, folder in self._kept():
            with contextlib.suppress(ArtifactError):
                SavedRound.read(folder / LAST)
                return index, folder / LAST
        return None

    def add_rounds(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add the records of rounds that are not here yet."""
        result = self.folder / "result"
        result.mkdir(exist_ok=True)
        known = {int(record["round"]) for record in read_rounds(result)}
        for record in records:
            if record["round"] not in known:
                add_round(result, record)

    def left_by(self, job_ids: Iterable[str]) -> Path | None:
        """Return what the server of the last of some jobs left, of those that were downloaded; None where none was."""
        places = (place for job_id in job_ids for place in (self.folder / RESULTS / job_id).glob("workspace/app_*"))
        found = [place for place in places if place.is_dir()]
        return found[-1] if found else None

    def finish(self, job_ids: Sequence[str]) -> Path:
        """Put the result of the whole training together from what is in this folder.

        What the last downloaded job left is the ground; all rounds, the last adapter and the settings that trained it
        are the campaign's own. So a job that died with its server, of which nothing can be downloaded, takes no more
        along than its scores.

        Args:
            job_ids: of the campaign's jobs, in order.
        """
        result, server, found = self.folder / "result", self.left_by(job_ids), self.adapter()
        result.mkdir(exist_ok=True)
        for path in server.iterdir() if server else ():
            if path.is_file() and path.name != ROUNDS_FILE:
                shutil.copy2(path, result / path.name)
        for path in found[1].parent.iterdir() if found else ():
            shutil.copy2(path, result / path.name)
        if found:
            write_json(result / JOB_FILE, SavedRound.read(found[1]).job.to_dict())
        return result

    def _kept(self) -> list[tuple[int, Path]]:
        """Return the kept rounds, newest first."""
        folders = [(ROUND.fullmatch(path.name), path) for path in (self.folder / "adapters").glob("round-*")]
        return sorted(((int(name[1]), path) for name, path in folders if name), reverse=True)
