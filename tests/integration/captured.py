"""A job in a provisioned federation whose server keeps everything that reaches it, as bytes.

The job captures with code of its own that runs at the server only; the sites are closed, and take no code.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.shareable import Shareable
from nvflare.fuel.utils import fobs
from safetensors.numpy import load_file

from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.ledger_audit import read_lines
from med_duallora.boundary.lineage import Lineage
from med_duallora.server.artifact import load_adapter
from tests.integration import capture_filter, capture_wire
from tests.integration.harness import SITES, FinishedJob, RunningFederation


@dataclass(frozen=True)
class Blob:
    """One message of a site as it came off the wire, put together again from the pieces that FLARE streams.

    Args:
        site: whose job process sent it.
        channel: FLARE's name of the channel, e.g. ``server_command``.
        topic: FLARE's name of the message, e.g. ``submit_update``.
        data: its payload before FLARE decodes it.
    """

    site: str
    channel: str
    topic: str
    data: bytes


@dataclass
class Captured:
    """A finished job, every task result as the server's filters saw it, and every message as it came off the wire."""

    job: FinishedJob
    contract: EgressContract
    result: Path
    folder: Path

    def results(self, task: str) -> Iterator[tuple[str, bytes, Shareable]]:
        """Site, bytes and content of every result of a task."""
        for path in sorted((self.folder / "results").iterdir()):
            site, name, _ = path.name.split(".")
            if name == task:
                yield site, path.read_bytes(), fobs.loads(path.read_bytes())

    def raw(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Headers and payload of every message from a site's job process, in the order of arrival."""
        for path in sorted((self.folder / "wire").glob("*.json")):
            headers = json.loads(path.read_text())
            if headers["cn__origin"].split(".")[0] in SITES:
                yield headers, path.with_suffix(".payload").read_bytes()

    def blobs(self) -> list[Blob]:
        """The messages of the sites' job processes. Acknowledgements of pieces are left out: they have no payload."""
        pieces: dict[tuple[str, int], list[tuple[int, bytes]]] = {}
        first: dict[tuple[str, int], Mapping[str, Any]] = {}
        for headers, payload in self.raw():
            if headers["cn__topic"] != "sm__DATA":
                assert payload == b"", headers
                continue
            stream = (headers["cn__origin"].split(".")[0], headers["sm__id"])
            pieces.setdefault(stream, []).append((headers["sm__sq"], payload))
            first.setdefault(stream, headers)
        return [
            Blob(stream[0], str(first[stream]["sm__ch"]), str(first[stream]["sm__tp"]), b"".join(p for _, p in parts))
            for stream, parts in ((stream, sorted(parts)) for stream, parts in pieces.items())
        ]


def with_capture(folder: Path, captures: Path) -> Path:
    """Split a job into a server's and a sites' part, and let the server's part keep what reaches it."""
    meta = json.loads((folder / "meta.json").read_text())
    app, server = folder / "app", folder / "app_server"
    shutil.copytree(app, server)
    (server / "config" / "config_fed_client.json").unlink()
    (app / "config" / "config_fed_server.json").unlink()
    (server / "custom").mkdir()
    for module in (capture_filter, capture_wire):
        shutil.copy(str(module.__file__), server / "custom")
    config = json.loads((server / "config" / "config_fed_server.json").read_text())
    results, wire = ({"args": {"folder": str(captures / name)}} for name in ("results", "wire"))
    config["task_result_filters"] = [
        {"tasks": ["train", "validate"], "filters": [{"path": "capture_filter.CaptureFilter", **results}]}
    ]
    config["components"].append({"id": "wire", "path": "capture_wire.WireCapture", **wire})
    for name in ("results", "wire"):
        (captures / name).mkdir()
    (server / "config" / "config_fed_server.json").write_text(json.dumps(config))
    meta["deploy_map"] = {"app_server": ["server"], "app": list(SITES)}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def ledger_of(federation: RunningFederation, site: str) -> Path:
    """The ledger of a site."""
    return federation.directory / "sites" / site / "egress_ledger.jsonl"


def lines_of(federation: RunningFederation, captured: Captured, site: str) -> list[Mapping[str, Any]]:
    """What the ledger of a site says of the captured job."""
    return [line for line in read_lines(ledger_of(federation, site)) if line["job"] == captured.job.job_id]


def kept_of(federation: RunningFederation, captured: Captured, site: str) -> dict[str, np.ndarray]:
    """Every tensor that stays at a site, as the captured job left it; those that are all zero are left out."""
    _, manifest = load_adapter(captured.result / "workspace" / "app_server" / "adapter_last.safetensors")
    run_id = Lineage.from_list(manifest["lineage"]).run_id
    state = load_file(federation.directory / "sites" / site / "state" / "test" / run_id / "state.safetensors")
    return {name: np.asarray(value) for name, value in state.items() if name.startswith("kept/") and value.any()}
