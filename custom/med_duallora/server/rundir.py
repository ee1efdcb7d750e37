"""Where the server writes what a run leaves behind; ``report`` and ``simulate`` read these names."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from med_duallora.support.files import parsed_json

ROUNDS_FILE = "round_metrics.jsonl"
EVALUATION_FILE = "evaluation.json"
JOB_FILE = "job.json"
ADAPTERS = {"best": "adapter_best", "last": "adapter_last"}
"""Global adapters that are kept -> the name of their two files, without suffix."""
RECEIVED_FILE = "received.jsonl"
FLARE_MANIFEST_FILE = "artifact_manifest.json"
TENSORBOARD_FOLDER = "tb_events"


def round_record(directory: Path, round_index: int) -> dict[str, Any]:
    """Return the record of a round from the rounds file, or an empty one where the round has none."""
    found = [record for record in _records(directory) if record["round"] == round_index]
    return dict(found[-1]) if found else {}


def contributions(directory: Path, last_round: int, before: Mapping[str, int]) -> dict[str, int]:
    """Return in how many rounds of the training, up to ``last_round``, each site's adapter was averaged.

    Args:
        directory: the server's application directory, which knows the rounds of this job.
        last_round: the last round that counts.
        before: the same of the jobs that this one continues.
    """
    sites = [site for record in _records(directory) if record["round"] <= last_round for site in record["sites"]]
    return dict(sorted((Counter(before) + Counter(sites)).items()))


def _records(directory: Path) -> list[dict[str, Any]]:
    path = directory / ROUNDS_FILE
    return [parsed_json(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
