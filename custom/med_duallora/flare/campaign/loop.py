"""A campaign at work: look, decide, carry out, write down; until all rounds are done or it gives up."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from med_duallora.campaign.hooks import LAST_S, Hooks, Messenger
from med_duallora.campaign.journal import RESULTS, Journal
from med_duallora.campaign.look import Abort, Collect, Look, Order, Submit
from med_duallora.campaign.machine import Machine
from med_duallora.campaign.rules import Rules
from med_duallora.campaign.state import Campaign, Phase
from med_duallora.errors import ArtifactError
from med_duallora.flare.campaign.gate import Gate
from med_duallora.flare.campaign.wanted import Wanted
from med_duallora.server.rundir import EVALUATION_FILE, read_rounds
from med_duallora.support.files import write_json

POLL_S = 0.5
Say = Callable[[str], None]


class Loop:
    """One program's part of a campaign.

    Args:
        campaign: its state; changed, and written at every change.
        rules: what it was asked for.
        wanted: its job.
        gate: the federation.
        journal: its folder, which this program holds.
        hooks: who else is told.
        say: takes one line per event.
    """

    def __init__(
        self,
        campaign: Campaign,
        rules: Rules,
        *,
        wanted: Wanted,
        gate: Gate,
        journal: Journal,
        hooks: Hooks,
        say: Say,
    ) -> None:
        self._campaign, self._wanted, self._gate, self._journal = campaign, wanted, gate, journal
        self._messenger, self._say = Messenger(hooks), say
        self._machine = Machine(campaign, rules, self._tell)
        self._written: dict[str, Any] = {}

    def run(self) -> bool:
        """Go on until nothing is left to do; return whether all rounds are done."""
        patience = 0.0  # of somebody who interrupts it
        try:
            self._begin()
            while not self._machine.over:
                self._step()
                time.sleep(POLL_S)
            self._end()
            patience = LAST_S
        finally:
            self._note_failures(self._messenger.finish(patience))
        return self._campaign.phase is Phase.DONE

    def _step(self) -> None:
        look = self._gate.look(self._campaign.job_id)
        self._copy(look)
        order = self._machine.step(look, time.monotonic())
        self._write()
        if order is not None:
            self._carry_out(order, look)
            self._write()
        self._note_failures(self._messenger.failures())

    def _begin(self) -> None:
        """Say where it goes on from; what lies on the disk counts more than what the state says of it."""
        found = self._journal.adapter()
        kept = found[0] if found else -1
        if kept < self._campaign.round_index:
            broken = self._campaign.round_index + 1
            self._tell("damaged", f"the adapter of round {broken} is not whole any more: back to round {kept + 1}")
            self._campaign.round_index = kept
        self._campaign.round_index = max(kept, self._campaign.round_index)
        if self._campaign.phase is Phase.GAVE_UP:  # whoever starts it again wants another try
            self._campaign.phase = Phase.COLLECTING if self._campaign.job_id else Phase.GATHERING
            self._campaign.n_fruitless = 0
        known = bool(self._campaign.token)
        self._tell("continued" if known else "started", f"{'goes on' if known else 'begins'} after round {kept + 1}")
        self._write()

    def _copy(self, look: Look) -> None:
        """Take the adapter of a round that has ended since the last look."""
        if not (look.job.runs and self._campaign.job_id):
            return
        could = self._gate.may_copy
        with contextlib.suppress(ArtifactError):  # it was being replaced; the next look is soon
            found = self._gate.adapter(self._campaign.job_id, self._campaign.round_index)
            if found is not None:
                self._keep(found.tensors, found.manifest, found.rounds)
        if could and not self._gate.may_copy:
            self._tell(
                "no-copies",
                f"the server's policy lets {self._gate.person} take no adapter from a running job: a server that dies "
                "costs every round of its job; `med-duallora server-kit` gives the right",
            )

    def _keep(self, tensors: bytes, manifest: bytes, rounds: Iterable[Mapping[str, Any]]) -> None:
        saved = self._journal.keep(tensors, manifest)
        self._journal.add_rounds(record for record in rounds if record["round"] <= saved.round_index)
        self._machine.kept(saved.round_index, saved.sites, sha256=hashlib.sha256(tensors).hexdigest())

    def _carry_out(self, order: Order, look: Look) -> None:
        if isinstance(order, Submit):
            self._submit(order.token)
        elif isinstance(order, Abort):
            refused = self._gate.abort(order.job_id)
            if refused:
                self._tell("abort-refused", f"job {order.job_id} is not aborted: {refused}", job=order.job_id)
        elif isinstance(order, Collect):
            self._collect(order.job_id, look)

    def _submit(self, token: str) -> None:
        found = self._journal.adapter()
        name = f"{name_prefix(self._campaign)}{self._campaign.n_submitted + 1}"
        folder = self._wanted.folder(self._journal.folder / "jobs", name, found[1] if found else None)
        job_id = self._gate.submit(folder, token)
        if job_id:
            self._machine.submitted(job_id)

    def _collect(self, job_id: str, look: Look) -> None:
        place = self._gate.download(job_id, self._journal.folder / RESULTS)
        for server in sorted(place.glob("workspace/app_*")) if place else ():
            adapter = server / "adapter_last.safetensors"
            # a job that ended before its first round has none, and a file of one that died may be damaged
            with contextlib.suppress(OSError, ValueError, ArtifactError):
                self._keep(adapter.read_bytes(), adapter.with_suffix(".json").read_bytes(), read_rounds(server))
        left = self._journal.left_by([job_id]) if place else None
        if left is not None:  # else it is tried again
            self._machine.collected(look, (left / EVALUATION_FILE).is_file())

    def _tell(self, kind: str, text: str, **facts: object) -> None:
        event = {"time": _now(), "campaign": self._campaign.identity, "event": kind, "text": text, **facts}
        event.setdefault("job", self._campaign.job_id)
        self._journal.note(event)
        self._say(f"{datetime.now():%H:%M:%S}  {kind:<13} {text}")
        self._messenger.tell(event)

    def _note_failures(self, failures: Iterable[str]) -> None:
        """Write down what the hooks failed at; nobody else is told of it."""
        for failure in failures:
            self._journal.note({"time": _now(), "campaign": self._campaign.identity, "event": "hook", "text": failure})
            self._say(f"{datetime.now():%H:%M:%S}  {'hook':<13} {failure}")

    def _write(self) -> None:
        values = self._campaign.to_dict()
        if values != self._written:
            self._journal.write(self._campaign)
            self._written = values

    def _end(self) -> None:
        self._journal.finish([job.job_id for job in self._campaign.jobs])
        write_json(self._journal.folder / "summary.json", summary(self._campaign))
        if self._campaign.phase is Phase.DONE:
            scores = "" if self._campaign.evaluated else "; the last job ended before the evaluation"
            self._tell("done", f"all {self._campaign.round_index + 1} rounds are done{scores}")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def name_prefix(campaign: Campaign) -> str:
    """Return how the names of a campaign's jobs begin on FLARE's console."""
    return f"campaign-{campaign.identity}-"


def summary(campaign: Campaign) -> Mapping[str, Any]:
    """Return what came of a campaign, as plain JSON values."""
    return {
        "campaign": campaign.identity,
        "phase": campaign.phase.value,
        "rounds": campaign.round_index + 1,
        "evaluated": campaign.evaluated,
        "reason": campaign.reason if campaign.phase is Phase.GAVE_UP else "",
        "away": sorted(campaign.away),
        "jobs": [asdict(job) for job in campaign.jobs],
    }
