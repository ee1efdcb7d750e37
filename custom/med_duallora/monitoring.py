"""What a run shows while it goes on: the server's summary of a round, TensorBoard's tags, the configuration as text."""

from collections.abc import Iterator, Mapping
from typing import Any

from med_duallora.config import JobConfig
from med_duallora.egress import EgressContract

TAGS = {
    "train_loss": "train/loss",
    "n_subjects": "train/subjects",
    "n_steps": "train/steps",
    "val_loss": "validation/loss",
    "val_balanced_accuracy": "validation/balanced_accuracy",
    "seconds": "round/seconds",
    "cache_hits": "cache/hits",
    "cache_misses": "cache/misses",
    "n_contributions": "round/contributions",
    "n_refused": "round/refusals",
    "payload_bytes_max": "round/payload_bytes_max",
    "residual": "round/aggregation_residual",
}
"""Our name of a number -> the tag under which TensorBoard draws it; the part before the slash groups the curves."""
AVERAGED = ("train_loss", "val_loss", "val_balanced_accuracy")
"""Metrics of which the server shows the mean over the sites that gave them."""


def tag_of(name: str) -> str:
    """Return TensorBoard's tag of a number; ``<variant>.<metric>`` of the evaluation stands in the group test."""
    return TAGS.get(name) or "test/" + name.replace(".", "/")


def round_summary(record: Mapping[str, Any]) -> dict[str, float]:
    """Return what the server itself says about a finished round.

    Args:
        record: a line of ``round_metrics.jsonl``.
    """
    sites = record["sites"].values()
    found = {"n_contributions": len(sites), "n_refused": len(record["refused"]), "seconds": record["seconds"]}
    if sites:
        found |= {"payload_bytes_max": max(site["payload_bytes"] for site in sites), "residual": record["residual"]}
    for name in AVERAGED:
        values = [site["metrics"][name] for site in sites if name in site["metrics"]]
        if values:
            found[name] = sum(values) / len(values)
    return found


def configuration_text(job: JobConfig, contract: EgressContract, **facts: str) -> str:
    """Return the job's settings as a Markdown table, named as ``--set`` takes them.

    Args:
        job: the job scope.
        contract: that follows from it.
        facts: more rows, such as the job's id.
    """
    rows = {
        **facts,
        "egress contract": f"{contract.sha256}: {len(contract.tensors)} tensors, {contract.tensor_bytes} bytes a round",
        **dict(_flat(job.to_dict())),
    }
    lines = [f"| {name} | {_cell(text)} |" for name, text in rows.items()]
    return "\n".join(["Research use only, not for diagnosis.", "", "| setting | value |", "|---|---|", *lines])


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ") or "-"
