"""Every method and every rule of aggregation: in the FLARE simulator and in one process, and what it sends.

The cases hold the entries of both tables, so a new entry is tested without a new line here. A run of the simulator
costs many seconds, so each takes a method and a rule that nobody had yet, where they go together.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from med_duallora.adapter.aggregations import AGGREGATIONS
from med_duallora.adapter.methods import METHODS, plan_of
from med_duallora.adapter.model import skeleton
from med_duallora.boundary.contract import EgressContract
from med_duallora.engine import run_federation
from med_duallora.report.collect import read_run
from med_duallora.server.artifact import load_adapter
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from tests.integration.programs import med_duallora, output_of, repeated

pytestmark = pytest.mark.flare

SITES = ("canon", "ge")
SETTINGS = ("backbone=cinema-tiny", "train.n_rounds=2", "train.local_epochs=1", "train.batch_size=4", "train.n_views=1")
USUAL = JobConfig()


def cases() -> Iterator[tuple[str, ...]]:
    """Give the settings of the runs."""
    methods = [name for name in METHODS if name != USUAL.method]
    rules = [name for name in AGGREGATIONS if name not in {method.aggregation for method in METHODS.values()}]
    for name in methods:
        whole = bool(EgressContract.for_job(JobConfig(method=name)).pairs)
        rule = [f"aggregation={rules.pop()}"] if rules and whole else []
        yield (f"method={name}", *rule)
    yield from ((f"aggregation={name}",) for name in rules)


@pytest.mark.parametrize("case", list(cases()), ids=" ".join)
def test_the_simulator_and_one_process_give_the_same_adapter(
    case: tuple[str, ...], tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    job = USUAL.with_overrides((*SETTINGS, *case))
    policy = SitePolicy.for_one_machine()
    sites = {
        site: SiteConfig(tiny_cohorts[site], tmp_path / site, tmp_path / "cache", tiny_checkpoint, policy=policy)
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
        np.testing.assert_allclose(value, alone.global_state[name], rtol=0, atol=1e-6)
    run = read_run(tmp_path / "run/flare")
    for site, scores in alone.evaluation.items():
        assert run.evaluation.sites[site] == pytest.approx(scores, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_contract_is_what_the_plan_sends(method: str) -> None:
    job = JobConfig(method=method, backbone="cinema-tiny")
    contract, bones = EgressContract.for_job(job), skeleton(job)
    assert set(contract.tensors) == set(bones.of_roles(plan_of(job).sent))
    assert all(set(pair) <= set(contract.tensors) for pair in contract.pairs)


def test_every_method_has_a_contract_of_its_own() -> None:
    assert len({EgressContract.for_job(JobConfig(method=name)).sha256 for name in METHODS}) == len(METHODS)
