"""2 + 2 rounds are 4 rounds, and nothing goes on from an adapter that does not belong to it."""

import json
from contextlib import nullcontext
from dataclasses import replace

import pytest

from med_duallora.backbone import agreed_sha256
from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import MAX_RUNS, Lineage
from med_duallora.engine import run_federation
from med_duallora.errors import ArtifactError
from med_duallora.server.artifact import adapter_manifest, save_adapter
from med_duallora.server.resume import SavedRound
from med_duallora.support.files import sha256_of_file
from tests.unit.tiny import random_payload, same

SITES = ("siemens", "philips")
SHIPPED = agreed_sha256("cinema-mini", "")


@pytest.fixture
def job(tiny_job):
    return tiny_job.with_overrides(["train.n_rounds=4"])


def moved(sites, folder):
    """Two sites with states and caches of their own."""
    return {
        site: replace(sites[site], state_dir=folder / site / "state", cache_dir=folder / site / "cache")
        for site in SITES
    }


def saved(folder, job, tensors, **facts) -> SavedRound:
    """An adapter that was written to a disk and read again."""
    return SavedRound.read(written(folder, job, tensors, **facts))


def written(folder, job, tensors, **facts):
    manifest = adapter_manifest(job, EgressContract.for_job(job), **facts)
    return save_adapter(folder, "adapter_last", tensors, manifest)


@pytest.mark.parametrize("method", ["med-duallora", "fedavg-lora"])
def test_two_and_two_rounds_are_four_bit_for_bit(job, tiny_sites, tmp_path, method):
    job = job.with_overrides([f"method={method}"])
    whole = run_federation(job, moved(tiny_sites, tmp_path / "whole"))
    sites = moved(tiny_sites, tmp_path / "parts")
    first = run_federation(job, sites, stop_round=2)
    assert [record.round_index for record in first.rounds] == [0, 1]
    adapter = saved(tmp_path, job, first.global_state, round=1, lineage=first.lineage.to_list())
    second = run_federation(job, sites, resume_from=adapter)
    assert [record.round_index for record in second.rounds] == [2, 3]
    assert same(second.global_state, whole.global_state)
    assert second.evaluation == whole.evaluation, "the local adapters are the same as well"
    again = run_federation(job, sites, resume_from=adapter)
    assert same(again.global_state, whole.global_state), "also the second time, whatever came in between"


def test_an_interruption_in_every_round_changes_nothing(job, tiny_sites, tmp_path):
    whole = run_federation(job, moved(tiny_sites, tmp_path / "whole"))
    sites, adapter = moved(tiny_sites, tmp_path / "parts"), None
    for round_index in range(4):
        part = run_federation(job, sites, resume_from=adapter, stop_round=round_index + 1)
        if round_index < 3:
            facts = {"round": round_index, "lineage": part.lineage.to_list()}
            adapter = saved(tmp_path, job, part.global_state, **facts)
    assert same(part.global_state, whole.global_state)
    assert part.evaluation == whole.evaluation


def test_a_training_can_become_longer(job, tiny_sites, tmp_path):
    sites = moved(tiny_sites, tmp_path)
    first = run_federation(job.with_overrides(["train.n_rounds=1"]), sites)
    adapter = saved(tmp_path, job, first.global_state, round=0, lineage=first.lineage.to_list())
    longer = run_federation(job, sites, resume_from=adapter, stop_round=2)
    assert [record.round_index for record in longer.rounds] == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["experiment=other"], "experiment was 'test', but is 'other' here"),
        (["method=fedavg-lora"], "method was 'med-duallora', but is 'fedavg-lora' here"),
        (["backbone=cinema-mini"], "backbone was 'cinema-tiny', but is 'cinema-mini' here"),
        (["lora.rank_local=3"], "lora.rank_local was 8, but is 3 here"),
        (["train.lr=0.5"], "train.lr was 0.005, but is 0.5 here"),
        (["augment.scale=0.2"], "augment.scale was 0.1, but is 0.2 here"),
        (["train.n_rounds=2"], "is of round 2 of train.n_rounds = 2: no round is left. To train longer"),
    ],
)
def test_an_adapter_of_another_job_is_refused(job, tmp_path, change, message):
    contract = EgressContract.for_job(job)
    adapter = saved(tmp_path, job, random_payload(contract), round=1, lineage=Lineage.begin().to_list())
    adapter.check(job)
    with pytest.raises(ArtifactError) as caught:
        adapter.check(job.with_overrides(change))
    assert message in str(caught.value)
    assert "adapter adapter_last.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "pinned", "message"),
    [
        ("cinema-tiny", ("a" * 64, "a" * 64), ""),
        ("cinema-tiny", ("", "a" * 64), ""),
        ("cinema-tiny", ("a" * 64, ""), "backbone_sha256 was 'a{64}', but is '' here"),
        ("cinema-tiny", ("a" * 64, "b" * 64), "backbone_sha256 was 'a{64}', but is 'b{64}' here"),
        ("cinema-mini", (SHIPPED, ""), ""),
        ("cinema-mini", ("", SHIPPED), ""),
        ("cinema-mini", ("", "b" * 64), f"backbone_sha256 was '{SHIPPED}', but is 'b{{64}}' here"),
    ],
    ids=[
        "the same",
        "open before",
        "open now",
        "another",
        "shipped, named before",
        "shipped, named now",
        "not shipped",
    ],
)
def test_a_resumed_job_is_about_the_same_checkpoint(job, tmp_path, backbone, pinned, message):
    there, here = (replace(job, backbone=backbone, backbone_sha256=sha256) for sha256 in pinned)
    payload = random_payload(EgressContract.for_job(there))
    adapter = saved(tmp_path, there, payload, round=1, lineage=Lineage.begin().to_list())
    with pytest.raises(ArtifactError, match=message) if message else nullcontext():
        adapter.check(here)


def test_a_pinned_training_goes_on_with_the_states_of_an_open_one(job, tiny_sites, tiny_checkpoint, tmp_path):
    whole = run_federation(job, moved(tiny_sites, tmp_path / "whole"))
    sites = moved(tiny_sites, tmp_path / "parts")
    first = run_federation(job, sites, stop_round=2)
    adapter = saved(tmp_path, job, first.global_state, round=1, lineage=first.lineage.to_list())
    pinned = replace(job, backbone_sha256=sha256_of_file(tiny_checkpoint))
    second = run_federation(pinned, sites, resume_from=adapter)
    assert same(second.global_state, whole.global_state)
    assert second.evaluation == whole.evaluation, "the sites found their local adapters"


def test_an_adapter_that_does_not_fit_is_refused(job, tmp_path):
    adapter = saved(tmp_path, job, {}, round=1, lineage=Lineage.begin().to_list())
    with pytest.raises(ArtifactError, match=r"does not fit its own job: .* is missing"):
        adapter.check(job)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("job", None),
        ("job", {"experiment": "a", "colour": "red"}),
        ("lineage", None),
        ("lineage", [["x", 0]]),
        ("round", None),
        ("round", -1),
        ("round", "1"),
        ("round", True),
        ("sites", "ge"),
        ("n_rounds_by_site", ["ge"]),
        ("n_rounds_by_site", {"ge": -1}),
    ],
)
def test_a_manifest_without_a_run_cannot_be_resumed_from(job, tmp_path, name, value):
    path = written(tmp_path, job, {}, round=1, lineage=Lineage.begin().to_list())
    manifest = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**manifest, name: value}))
    with pytest.raises(ArtifactError, match="cannot be resumed from: its manifest does not say which job, run and"):
        SavedRound.read(path)


def test_a_missing_entry_is_named(job, tmp_path):
    path = written(tmp_path, job, {}, lineage=Lineage.begin().to_list())
    with pytest.raises(ArtifactError, match=r"belongs to \('round'\)"):
        SavedRound.read(path)


def test_a_long_training_is_resumed_as_often_as_it_takes_and_the_limit_is_said(job, tmp_path):
    """A fault every three rounds of five hundred is more than a hundred jobs."""
    long = job.with_overrides(["train.n_rounds=5000"])
    tensors = random_payload(EgressContract.for_job(long))
    runs = [[f"{index:032x}", index] for index in range(MAX_RUNS)]
    saved(tmp_path, long, tensors, round=2000, lineage=runs[:200]).check(long)
    with pytest.raises(ArtifactError, match="resumed 1023 times"):
        saved(tmp_path, long, tensors, round=2000, lineage=runs).check(long)
