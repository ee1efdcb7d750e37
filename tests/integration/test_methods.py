"""Methods and rules of aggregation in the FLARE simulator and in one process.

A run of the simulator costs many seconds, so each takes a method and a rule that nobody had yet; the methods stand for
what is new to FLARE in a payload. ``tests/unit/test_every_method.py`` asks every entry in one process.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from med_duallora.adapter.aggregations import AGGREGATIONS
from med_duallora.adapter.methods import METHODS
from med_duallora.boundary.contract import EgressContract
from med_duallora.engine import run_federation
from med_duallora.report.collect import read_run
from med_duallora.server.artifact import load_adapter
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from tests.integration.programs import med_duallora, output_of, repeated

pytestmark = pytest.mark.flare

SITES = ("canon", "ge")
SETTINGS = (
    "backbone=cinema-tiny",
    "train.n_rounds=2",
    "train.local_epochs=2",
    "train.batch_size=4",
    "train.n_views=1",
    "train.compare_alone=false",
)
USUAL = JobConfig()


METHODS_IN_FLARE = {
    "fedbn-lora": "head sent beside the pairs; norms stay",
    "fedavg-full": "whole weights and norms, no factor at all",
    "fedsa-lora": "one factor of each pair sent",
    "ditto-lora": "two phases, of which one acts without what is sent",
    "feddpa": "two phases, and a mix in predictions",
}


def cases() -> Iterator[tuple[str, ...]]:
    """Give the settings of the runs."""
    rules = [name for name in AGGREGATIONS if name not in {method.aggregation for method in METHODS.values()}]
    for name in METHODS_IN_FLARE:
        whole = bool(EgressContract.for_job(JobConfig(method=name)).pairs)
        rule = [f"aggregation={rules.pop()}"] if rules and whole else []
        half = ["payload_dtype=float16"] if name == "fedsa-lora" else []
        yield (f"method={name}", *rule, *half)
    yield from ((f"aggregation={name}",) for name in rules)


@pytest.mark.parametrize("case", list(cases()), ids=" ".join)
def test_the_simulator_and_one_process_give_the_same_adapter(
    case: tuple[str, ...], tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    job = USUAL.with_overrides((*SETTINGS, *case))
    policy = SitePolicy.for_one_machine()
    sites = {
        site: SiteConfig(
            tiny_cohorts[site], tmp_path / site, tmp_path / "cache", tiny_checkpoint, device="cpu", policy=policy
        )
        for site in SITES
    }
    alone = run_federation(job, sites)
    places = ["--data", str(tiny_cohorts["ge"].parent), "--workspace", str(tmp_path / "run")]
    places += ["--backbone-checkpoint", str(tiny_checkpoint), "--sites", ",".join(SITES), "--device", "cpu"]
    settings = [*repeated("--set", (*SETTINGS, *case)), *repeated("--site-set", ["n_threads=1"])]
    code, text = output_of(med_duallora("simulate", *places, *settings))
    assert code == 0, text[-3000:]
    adapter, _ = load_adapter(tmp_path / "run/flare/server/simulate_job/app_server/adapter_last.safetensors")
    assert set(adapter) == set(EgressContract.for_job(job).tensors)
    for name, value in adapter.items():
        bound = 1e-6 if value.dtype == np.float32 else 2e-3  # a last bit that differs may be rounded the other way
        np.testing.assert_allclose(value, alone.global_state[name], rtol=0, atol=bound)
    run = read_run(tmp_path / "run/flare")
    for site, scores in alone.evaluation.items():
        assert run.evaluation.sites[site] == pytest.approx(scores, abs=1e-6)


def test_methods_share_a_contract_where_they_send_the_same_and_nowhere_else() -> None:
    hashes: dict[frozenset[str], set[str]] = {}
    for name in METHODS:
        contract = EgressContract.for_job(JobConfig(method=name))
        hashes.setdefault(frozenset(contract.tensors), set()).add(contract.sha256)
    assert all(len(found) == 1 for found in hashes.values())
    assert len(set.union(*hashes.values())) == len(hashes)
