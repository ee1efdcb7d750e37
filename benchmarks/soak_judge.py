"""What came of a soak, and whether it is what a campaign promises."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.soak_replay import Past, Saved, pasts, replayed

from med_duallora.boundary.lineage import Lineage
from med_duallora.campaign.journal import EVENTS, Journal
from med_duallora.errors import ArtifactError
from med_duallora.report import read_run
from med_duallora.server.resume import SavedRound
from med_duallora.server.rundir import read_rounds
from med_duallora.settings.config import JobConfig, SiteConfig


def events_of(out: Path) -> list[dict[str, Any]]:
    """Return what a campaign wrote down so far."""
    return Journal(out).events() if (out / EVENTS).is_file() else []


def judged(
    out: Path, job: JobConfig, sites: Mapping[str, SiteConfig], code: int, saved: Saved | None = None
) -> dict[str, Any]:
    """Return what came of a campaign, and whether it is what was promised.

    A round that ended while the campaign did not look, such as when its own program was dead, has a record and no
    digest of its own to compare; the rounds that follow from it have one.

    Args:
        out: the campaign's folder.
        job: the job scope.
        sites: the federation's sites in this process, with empty states.
        code: the campaign's exit code.
        saved: what a ``Watcher`` saw; None: no site trained a round that went on without it.
    """
    events, records = events_of(out), read_rounds(out / "result")
    counted = [sorted(record["sites"]) for record in records]
    every_round_once = [record["round"] for record in records] == list(range(job.train.n_rounds))
    done = pasts(saved or {}, _lineage(out), counted) if every_round_once else []
    equal = compared(job, sites, done, events)
    return {
        "exit_code": code,
        "rounds_done": len(records),
        "rounds_planned": job.train.n_rounds,
        "every_round_once": every_round_once,
        "seconds": _seconds(events),
        "jobs": len({event["job"] for event in events if event["event"] == "submitted"}),
        "rounds_without_a_site": sum(set(names) != set(sites) for names in counted),
        "rounds_trained_in_vain": sum(past.trained != past.counted for past in done),
        "rounds_compared": len(equal),
        "rounds_equal": sum(equal.values()),
        "replay_equal": bool(equal) and all(equal.values()),
        "first_difference": next((index for index, same in equal.items() if not same), None),
        "can_be_reported": _can_be_reported(out),
        "rounds": [dataclasses.asdict(past) for past in done],
        "events": [f"{event['event']}: {event['text']}" for event in events if event["event"] != "round"],
    }


def compared(
    job: JobConfig, sites: Mapping[str, SiteConfig], done: Sequence[Past], events: Sequence[Mapping[str, Any]]
) -> dict[int, bool]:
    """Return, by round, whether the adapter that a campaign kept is that of the replay."""
    kept = {event["round"]: event["sha256"] for event in events if event["event"] == "round"}
    with tempfile.TemporaryDirectory() as scratch:
        digests = [digest for _, digest in replayed(job, sites, done, Path(scratch))] if done else []
    return {index: digest == kept[index] for index, digest in enumerate(digests) if index in kept}


def _lineage(out: Path) -> Lineage:
    found = Journal(out).adapter()
    return SavedRound.read(found[1]).lineage if found else Lineage.begin()


def _can_be_reported(out: Path) -> bool:
    """Return whether the result of the whole training is one run for ``med-duallora report``."""
    try:
        return bool(read_run(out / "result"))
    except ArtifactError:
        return False


def _seconds(events: Sequence[Mapping[str, Any]]) -> float:
    moments = [datetime.fromisoformat(str(event["time"])) for event in events]
    return (max(moments) - min(moments)).total_seconds() if moments else 0.0


def passed(found: Mapping[str, Any]) -> bool:
    """Return whether a soak gave what was promised."""
    done = found["exit_code"] == 0 and found["rounds_done"] == found["rounds_planned"]
    return bool(done and found["every_round_once"] and found["replay_equal"] and not found["left_running"])
