"""What comes off the wire at the server's job process: every message of the sites, whatever channel FLARE uses.

The server's parent process also hears of a site's registration and of its heartbeats; docs/privacy.md names them.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nvflare.apis.dxo import DataKind
from nvflare.apis.shareable import Shareable
from nvflare.fuel.utils import fobs

from med_duallora.flare.site.public_context import PUBLIC_PROPERTIES
from med_duallora.flare.wire.payload import read_scalar
from med_duallora.flare.wire.receipts import event_entry
from tests.integration.captured import Blob, Captured, kept_of, lines_of
from tests.integration.harness import SITES, RunningFederation
from tests.integration.words import words_of

pytestmark = pytest.mark.flare

RESULT, SCALAR = ("server_command", "submit_update"), ("aux_communication", "fed.event")
ASKED = ("server_command", "get_task")
QUESTIONS = {
    ASKED,
    ("aux_communication", "__sync_runner__"),
    ("aux_communication", "__job_heartbeat__"),
    ("aux_communication", "__task_check__"),
}
"""Messages that ask for a task, or say that the site is there."""
TRANSPORT = {
    (
        "download_service__",
        "download_service__download",
    ),  # a site fetches the arrays of a task; the server, none
    ("return_only", "aux_communication:__end_run__"),
}


def of(captured: Captured, *kinds: tuple[str, str]) -> list[Blob]:
    return [blob for blob in captured.blobs() if (blob.channel, blob.topic) in kinds]


def test_every_message_is_of_a_known_kind(captured: Captured) -> None:
    kinds = {(blob.channel, blob.topic) for blob in captured.blobs()}
    assert {RESULT, SCALAR, ASKED} <= kinds, "the others come when they come"
    assert kinds <= {RESULT, SCALAR, *QUESTIONS, *TRANSPORT}


def test_questions_hold_the_public_context_and_nothing_else(captured: Captured) -> None:
    known = {"__peer_props__", "__peer_ctx__", "__topic__", "__task_id__", "last_task_id"}
    for blob in of(captured, *QUESTIONS):
        content = fobs.loads(blob.data)
        assert type(content) is Shareable and set(content) == {"__headers__"}
        headers = content["__headers__"]
        assert set(headers) <= known, (blob.topic, set(headers) - known)
        context = headers["__peer_ctx__"].get_all_public_props() if "__peer_ctx__" in headers else {}
        public = {**headers.get("__peer_props__", {}), **context}
        assert set(public) <= PUBLIC_PROPERTIES
        assert set(public.values()) <= {blob.site, captured.job.job_id, True}
        assert len(blob.data) < 1024


def test_what_fetches_arrays_names_a_reference(captured: Captured) -> None:
    for blob in of(captured, *TRANSPORT):
        assert len(blob.data) < 512, blob.topic


@pytest.mark.parametrize("site", SITES)
def test_the_tensors_that_arrive_are_the_contract_s_byte_for_byte(site: str, captured: Captured) -> None:
    arrived = [fobs.loads(blob.data) for blob in of(captured, RESULT) if blob.site == site]
    trained = [result["DXO"]["data"] for result in arrived if result["DXO"]["kind"] == DataKind.WEIGHTS]
    expected = [result["DXO"]["data"] for sender, _data, result in captured.results("train") if sender == site]
    assert len(expected) == captured.contract.n_rounds
    assert all(type(value) is bytes for data in expected for value in data.values())
    assert sorted(map(repr, trained)) == sorted(map(repr, expected))


def test_a_result_beside_its_tensors_is_names_and_numbers(captured: Captured) -> None:
    results = of(captured, RESULT)
    n_expected = len(list(captured.results("train"))) + len(list(captured.results("validate")))
    assert len(results) == n_expected
    longest = sum(len(name) + 128 for name in [*captured.contract.tensors, *captured.contract.metrics]) + 2048
    for blob in results:
        assert len(blob.data) < captured.contract.tensor_bytes + longest


@pytest.mark.parametrize("site", SITES)
def test_every_streamed_scalar_has_its_line_in_the_ledger(
    site: str, federation: RunningFederation, captured: Captured
) -> None:
    arrived: Counter[str] = Counter()
    for blob in of(captured, SCALAR):
        if blob.site == site:
            content = fobs.loads(blob.data)
            tag, value, step = read_scalar(content)
            assert set(content["__headers__"]["__peer_props__"]) <= PUBLIC_PROPERTIES
            arrived[event_entry(captured.job.job_id, site, str(tag), as_float(value), step=step).sha256] += 1
    lines = lines_of(federation, captured, site)
    left = Counter(line["sha256"] for line in lines if line["kind"] == "event")
    assert arrived and arrived <= left, "a scalar may be lost, but none may arrive without a line"


def as_float(value: Any) -> float:
    assert type(value) is float
    return value


def test_nothing_that_stays_is_in_any_message(
    federation: RunningFederation, captured: Captured, tiny_cohorts: dict[str, Path]
) -> None:
    """Looked for in the raw bytes of all messages, headers of the transport included."""
    everything = b"".join(str(headers).encode() + payload for headers, payload in captured.raw())
    everything += b"".join(blob.data for blob in captured.blobs())
    folders = {site: tiny_cohorts[site] for site in SITES}
    for word in [*words_of(folders), str(federation.directory)]:
        assert word.encode() not in everything, word
    n_kept = 0
    for site, folder in folders.items():
        for name, value in kept_of(federation, captured, site).items():
            assert value.tobytes()[:64] not in everything, name
            n_kept += 1
        for path in folder.rglob("*.nii.gz"):
            voxels = np.asarray(nib.load(path).dataobj)[60:132, 96, 0]
            assert voxels.astype(np.uint8).tobytes() not in everything
            assert voxels.astype(np.float32).tobytes() not in everything
    assert n_kept >= 2 * len(SITES)
