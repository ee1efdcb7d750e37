"""What a run shows while it goes on: the server's summary of a round, TensorBoard's tags, the configuration as text."""

from collections.abc import Iterator, Mapping
from typing import Any

from med_duallora.boundary.contract import EgressContract
from med_duallora.measures import MEASURES
from med_duallora.settings.config import JobConfig


def round_summary(record: Mapping[str, Any]) -> dict[str, float]:
    """Return what the server itself says about a finished round.

    Args:
        record: a line of ``round_metrics.jsonl``.
    """
    sites = record["sites"].values()
    found = {
        "n_contributions": len(sites),
        "n_refused": len(record["refused"]),
        "n_limited": len({*record.get("clipped", ()), *record.get("capped", ())}),
        "seconds": record["seconds"],
    }
    if sites:
        found["payload_bytes_max"] = max(site["payload_bytes"] for site in sites)
    if record["residual"] is not None:
        found["residual"] = record["residual"]
    for name in (name for name, measure in MEASURES.items() if measure.averaged):
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
