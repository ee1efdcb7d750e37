"""One configuration, three ways to run it: in one process, in FLARE's simulator and in a provisioned federation.

The job folder is the one that was submitted to the provisioned federation; the sites have the same cohorts and the same
backbone. FLARE only transports, so everything that is computed must come out the same.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from med_duallora.engine import FederationResult, run_federation
from med_duallora.flare.jobs.export import read_job
from med_duallora.report import Run, read_run
from med_duallora.server.artifact import load_adapter
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from tests.integration.federation.conftest import Submitted
from tests.integration.harness import SITE_SETTINGS, SITES
from tests.integration.programs import med_duallora, output_of, repeated

pytestmark = pytest.mark.flare

TOLERANCE = 1e-6
ROUND_METRICS = ("train_loss", "val_loss", "val_balanced_accuracy")
OF_ONE_RUN = {"job_id", "lineage", "sha256"}
"""What a manifest says of the run itself; everything else says what was computed, and from what."""


@dataclass(frozen=True)
class InOneProcess:
    """The reference: no FLARE at all.

    Args:
        job: the settings in the job folder.
        whole: all rounds.
        best_round: whose adapter scored best, by FLARE's rule: the first of those with the highest mean score.
        best: the run that ends with that round.
    """

    job: JobConfig
    whole: FederationResult
    best_round: int
    best: FederationResult


@pytest.fixture(scope="module")
def one_process(
    submitted: Submitted, tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> InOneProcess:
    job, _ = read_job(submitted.folder)

    def run(folder: Path, stop_round: int | None = None) -> FederationResult:
        places = {site: (tiny_cohorts[site], folder / site, folder / "cache" / site) for site in SITES}
        policy = SitePolicy.for_one_machine()
        sites = {site: SiteConfig(*place, tiny_checkpoint, "cpu", policy=policy) for site, place in places.items()}
        return run_federation(job, sites, stop_round=stop_round)

    whole = run(tmp_path_factory.mktemp("whole"))
    # the adapter that comes into a round is the result of the round before; the seeded one at the start has no say
    scores = {record.round_index - 1: mean_score(record.sites) for record in whole.rounds[1:]}
    best_round = max(scores, key=lambda index: (scores[index], -index))
    return InOneProcess(job, whole, best_round, run(tmp_path_factory.mktemp("best"), best_round + 1))


def mean_score(sites: Any) -> float:
    return float(np.mean([metrics["val_balanced_accuracy"] for metrics in sites.values()]))


@pytest.fixture(scope="module")
def simulated(
    submitted: Submitted, tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The submitted job folder in FLARE's simulator; returns the server's directory."""
    workspace = tmp_path_factory.mktemp("simulated") / "run"
    command = med_duallora("simulate", "--data", tiny_cohorts[SITES[0]].parent, "--workspace", workspace)
    command += ["--sites", ",".join(SITES), "--job", str(submitted.folder)]
    command += repeated("--site-set", (*SITE_SETTINGS, "n_threads=1"))  # as the kit of a site has it
    code, text = output_of([*command, "--backbone-checkpoint", str(tiny_checkpoint)])
    assert code == 0, text[-3000:]
    return workspace / "flare" / "server" / "simulate_job" / "app_server"


@pytest.fixture(params=["simulator", "provisioned"])
def server(request: pytest.FixtureRequest, simulated: Path, submitted: Submitted) -> Path:
    """The server's directory of a run in FLARE."""
    return simulated if request.param == "simulator" else submitted.result / "workspace" / "app_server"


@pytest.fixture
def run(server: Path) -> Run:
    return read_run(server)


def check_same(adapter: Path, expected: dict[str, np.ndarray]) -> None:
    tensors, _ = load_adapter(adapter)
    assert set(tensors) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(tensors[name], value, atol=TOLERANCE, rtol=0, err_msg=name)


def test_the_settings_are_the_same(run: Run, one_process: InOneProcess) -> None:
    assert run.job == one_process.job


def test_the_global_adapter_is_the_same(server: Path, one_process: InOneProcess) -> None:
    check_same(server / "adapter_last.safetensors", one_process.whole.global_state)


def test_the_best_adapter_is_the_same(server: Path, one_process: InOneProcess) -> None:
    check_same(server / "adapter_best.safetensors", one_process.best.global_state)
    _, manifest = load_adapter(server / "adapter_best.safetensors")
    assert manifest["round"] == one_process.best_round
    score = mean_score(one_process.whole.rounds[one_process.best_round + 1].sites)
    assert manifest["val_balanced_accuracy"] == pytest.approx(score, abs=TOLERANCE)


def test_every_round_is_the_same(run: Run, one_process: InOneProcess) -> None:
    assert len(run.rounds) == len(one_process.whole.rounds) == 3
    for found, expected in zip(run.rounds, one_process.whole.rounds, strict=True):
        assert found.index == expected.round_index
        assert found.residual == pytest.approx(expected.residual, abs=TOLERANCE)
        assert set(found.sites) == set(expected.sites)
        for site, metrics in expected.sites.items():
            assert found.sites[site].weight == metrics["weight"]
            for name in ROUND_METRICS:
                assert found.sites[site].metrics[name] == pytest.approx(metrics[name], abs=TOLERANCE), (site, name)


def test_the_scores_of_the_local_adapters_are_the_same(run: Run, one_process: InOneProcess) -> None:
    assert set(run.evaluation.sites) == set(SITES)
    for site, scores in one_process.whole.evaluation.items():
        assert run.evaluation.sites[site] == pytest.approx(scores, abs=TOLERANCE)


@pytest.mark.parametrize("name", ["adapter_last", "adapter_best"])
def test_the_manifests_agree(name: str, simulated: Path, submitted: Submitted) -> None:
    _, one = load_adapter(simulated / f"{name}.safetensors")
    _, other = load_adapter(submitted.result / "workspace" / "app_server" / f"{name}.safetensors")
    assert set(one) == set(other) >= {*OF_ONE_RUN, "round", "sites", "n_rounds_by_site", "backbone_sha256", "versions"}
    differ = [field for field in one if one[field] != other[field]]
    assert not set(differ) - OF_ONE_RUN, differ
