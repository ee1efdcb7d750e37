"""Where the server writes what a run leaves behind; ``report`` and ``simulate`` read these names."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from med_duallora.settings.workflow import ADAPTER_KINDS
from med_duallora.support.files import canonical_json, parsed_object, read_object, write_json

ROUNDS_FILE = "round_metrics.jsonl"
EVALUATION_FILE = "evaluation.json"
JOB_FILE = "job.json"
ADAPTERS = {kind: f"adapter_{kind}" for kind in ADAPTER_KINDS}
"""Global adapters that are kept -> the name of their two files, without suffix."""
RECEIVED_FILE = "received.jsonl"
FLARE_MANIFEST_FILE = "artifact_manifest.json"
TENSORBOARD_FOLDER = "tb_events"
STATES, SITE_CONFIGS = "state", "site_config"
"""Folders of a simulation's workspace: a folder of local states per site, and each site's configuration."""


def round_record(directory: Path, round_index: int) -> dict[str, Any]:
    """Return the record of a round from the rounds file, or an empty one where the round has none."""
    found = [record for record in read_rounds(directory) if record["round"] == round_index]
    return dict(found[-1]) if found else {}


def contributions(directory: Path, last_round: int, before: Mapping[str, int]) -> dict[str, int]:
    """Return in how many rounds of the training, up to ``last_round``, each site's adapter was averaged.

    Args:
        directory: the server's application directory, which knows the rounds of this job.
        last_round: the last round that counts.
        before: the same of the jobs that this one continues.
    """
    sites = [site for record in read_rounds(directory) if record["round"] <= last_round for site in record["sites"]]
    return dict(sorted((Counter(before) + Counter(sites)).items()))


def add_round(directory: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a finished round below those that are there."""
    with (directory / ROUNDS_FILE).open("a", encoding="utf-8") as stream:
        stream.write(canonical_json(record) + "\n")


def read_rounds(directory: Path) -> list[dict[str, Any]]:
    """Return the records of the rounds finished so far; a line that is still being written is left for later.

    Raises:
        ValueError: the file is damaged.
    """
    path = directory / ROUNDS_FILE
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [parsed_object(line) for line in lines if line.endswith("\n")]


def note_origin(evaluation: Path, origin: Mapping[str, Any]) -> None:
    """Add to an evaluation's scores where the cohorts come from, which the server never knew; reports say it."""
    write_json(evaluation, {**read_object(evaluation), "origin": dict(origin)})
