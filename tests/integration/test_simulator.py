"""The job in FLARE's simulator: real processes, the exported job, the command line."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.fl_constant import ServerCommandKey
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.fuel.utils import fobs
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from med_duallora.boundary.contract import EgressContract
from med_duallora.engine import FederationResult, run_federation
from med_duallora.flare.jobs.export import JobSpec, export_job
from med_duallora.flare.jobs.recipe import MedDualLoRARecipe
from med_duallora.flare.local.simulation import Simulation
from med_duallora.report import read_run
from med_duallora.server.artifact import load_adapter
from med_duallora.server.timing import PARTS
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.settings.workflow import WorkflowConfig
from tests.conftest import write_tiny_cohort
from tests.integration.capture_filter import CaptureFilter
from tests.integration.programs import med_duallora, output_of, repeated
from tests.integration.words import LOUD, words_of
from tests.unit.tiny import same

pytestmark = pytest.mark.flare

SETTINGS = ("backbone=cinema-tiny", "train.n_rounds=2", "train.local_epochs=1", "train.batch_size=4", "train.n_views=1")
JOB = JobConfig().with_overrides(SETTINGS)
SITE_SETTINGS = ("device=cpu", "n_threads=1")
"""Equal bits need an equal number of threads, which by default follows the machine."""
SITES = ("canon", "ge")
FRAMEWORK_HEADERS = {
    ReservedHeaderKey.CONTENT_TYPE,
    ReservedHeaderKey.COOKIE_JAR,
    ReservedHeaderKey.TASK_NAME,
    ReservedHeaderKey.TASK_ID,
    ReservedHeaderKey.AUDIT_EVENT_ID,
    ReservedHeaderKey.MSG_ROOT_ID,
    ReservedHeaderKey.PEER_PROPS,
    ReservedHeaderKey.PEER_CTX,
    ServerCommandKey.FL_CLIENT,
}
"""Headers that FLARE sets after the site's filters or at the server; none of them comes from the learner."""


@dataclass(frozen=True)
class Finished:
    """A run of the simulator: its workspace, exit code and printed text."""

    workspace: Path
    code: int
    text: str

    @property
    def server(self) -> Path:
        return self.workspace / "flare" / "server" / "simulate_job" / "app_server"

    @property
    def adapter(self) -> dict[str, np.ndarray]:
        return load_adapter(self.server / "adapter_last.safetensors")[0]


@pytest.fixture(scope="module")
def captured(
    tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Finished, Path]:
    """All sites at the same time, with a filter at the server that keeps what arrives."""
    workspace = tmp_path_factory.mktemp("captured")
    received = workspace / "received"
    received.mkdir()
    spec = JobSpec("captured", "", JOB, WorkflowConfig(min_sites=len(SITES)), with_code=True)
    sites = {site: tiny_cohorts[site] for site in SITES}
    simulation = Simulation(workspace, spec, sites, len(SITES), "cpu", tiny_checkpoint, site_settings=SITE_SETTINGS)
    code = export_job(spec, workspace / "plain") / "app" / "custom"
    recipe = MedDualLoRARecipe(spec.name, spec.job, spec.workflow, str(code))
    recipe.add_server_input_filter(CaptureFilter(str(received)), tasks=["train", "validate"])
    recipe.export(str(simulation.job_folder.parent))
    return simulated(simulation), received


def simulated(simulation: Simulation) -> Finished:
    """Run the simulator on a job folder by its literal command."""
    for site in simulation.sites:
        path = simulation.workspace / "site_config" / f"{site}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(vars(simulation.site_config(site)), default=plain))
    return Finished(simulation.workspace, *output_of(simulation.command(), simulation.environment()))


def plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else vars(value)


def command_line(workspace: Path, data: Path, checkpoint: Path, *more: str) -> Finished:
    """Run ``med-duallora simulate``."""
    places = ["--data", str(data), "--workspace", str(workspace), "--backbone-checkpoint", str(checkpoint)]
    settings = [*repeated("--set", SETTINGS), *repeated("--site-set", SITE_SETTINGS)]
    return Finished(workspace, *output_of(med_duallora("simulate", *places, *settings, *more)))


@pytest.fixture(scope="module")
def undisturbed(
    tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> FederationResult:
    """The same training in one process."""
    folder, policy = tmp_path_factory.mktemp("undisturbed"), SitePolicy.for_one_machine()
    places = {site: (tiny_cohorts[site], folder / site, folder / "cache", tiny_checkpoint) for site in SITES}
    return run_federation(
        JOB, {site: SiteConfig(*place, device="cpu", policy=policy) for site, place in places.items()}
    )


@dataclass(frozen=True)
class Interrupted:
    """A training of two rounds: its first one in one run, the second in another that goes on from its adapter."""

    first: Finished
    second: Finished


@pytest.fixture(scope="module")
def interrupted(
    tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Interrupted:
    """Two sites, in the first run one at a time: FLARE gives every site a new process for every task.

    FLARE loses blanks, quotes, ``#`` and ``{site}`` of a path on the way to these processes; a workspace may have them.
    """
    folder, data = tmp_path_factory.mktemp("interrupted") / "run 1 'a' #b {site}", tiny_cohorts["ge"].parent
    two, swapped = ("--sites", ",".join(SITES)), ("--parallel-sites", "1")
    first = command_line(folder / "first", data, tiny_checkpoint, *two, *swapped, "--set", "workflow.stop_round=1")
    assert first.code == 0, first.text[-3000:]
    adapter = str(first.server / "adapter_last.safetensors")
    return Interrupted(first, command_line(folder / "second", data, tiny_checkpoint, *two, "--resume-from", adapter))


@pytest.fixture(scope="module")
def with_a_broken_site(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A good site, and one whose training split has one class only."""
    folder = tmp_path_factory.mktemp("broken")
    for seed, site in enumerate(SITES):
        write_tiny_cohort(folder / "prepared" / site, site, seed)
    table = folder / "prepared" / "ge" / "cohort.csv"
    table.write_text(re.sub(r",DCM,1,", ",NOR,0,", table.read_text()))
    return command_line(folder / "run", folder / "prepared", tiny_checkpoint, "--set", "workflow.min_sites=1")


@pytest.fixture(scope="module")
def contract() -> EgressContract:
    nvflare_fobs_initialize()
    return EgressContract.for_job(JOB)


def arrays(value: Any) -> Iterator[np.ndarray]:
    """Every array anywhere in a received object; raw bytes count as one."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, bytes | bytearray | memoryview):
        yield np.frombuffer(value, np.uint8)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from arrays(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from arrays(item)


def of_task(received: Path, task: str) -> list[bytes]:
    return [path.read_bytes() for path in received.glob(f"*.{task}.*")]


def test_the_literal_command_runs_the_exported_job(captured: tuple[Finished, Path]) -> None:
    finished, _ = captured
    assert finished.code == 0, finished.text[-3000:]
    run = read_run(finished.workspace / "flare")
    assert [item.index for item in run.rounds] == [0, 1]
    assert set(run.evaluation.sites) == set(SITES)
    assert [other.model for other in run.other_evaluations] == ["best"]
    assert run.job == JOB
    assert [times["round"] for times in run.times] == [0, 1]
    assert all(times[part] > 0 for times in run.times for part in PARTS)


def test_the_server_receives_the_contract_s_tensors_and_no_other(
    captured: tuple[Finished, Path], contract: EgressContract
) -> None:
    replies = [fobs.loads(blob) for blob in of_task(captured[1], "train")]
    assert len(replies) == 2 * len(SITES)
    for reply in replies:
        assert type(reply) is Shareable
        assert set(reply) == {ReservedHeaderKey.HEADERS, "DXO"}
        assert set(reply["DXO"]["data"]) == set(contract.tensors)
        assert sum(value.nbytes for value in arrays(reply)) == contract.tensor_bytes
        assert set(reply[ReservedHeaderKey.HEADERS]) <= FRAMEWORK_HEADERS


def test_the_server_receives_scores_and_no_tensor(captured: tuple[Finished, Path], contract: EgressContract) -> None:
    replies = [fobs.loads(blob) for blob in of_task(captured[1], "validate")]
    assert len(replies) == 2 * len(SITES), "the best and the last adapter"
    for reply in replies:
        assert list(arrays(reply)) == []
        contract.check_metrics(reply["DXO"]["data"]["initial_metrics"])


def test_a_payload_is_little_more_than_its_numbers(captured: tuple[Finished, Path], contract: EgressContract) -> None:
    limit = 1.05 * contract.tensor_bytes + 8 * 1024
    sizes = [len(blob) for blob in of_task(captured[1], "train")]
    assert contract.tensor_bytes < min(sizes) <= max(sizes) <= limit
    run = read_run(captured[0].workspace / "flare")
    recorded = [site.payload_bytes for item in run.rounds for site in item.sites.values()]
    assert sorted(recorded) == sorted(sizes)


def test_no_log_names_a_subject_a_file_a_folder_or_a_value(
    captured: tuple[Finished, Path], tiny_cohorts: dict[str, Path]
) -> None:
    """The logs of all sites and of the server, whatever FLARE calls them, and what the simulator printed."""
    logs = [path for path in (captured[0].workspace / "flare").rglob("*log*") if path.is_file()]
    assert {site for site in SITES for path in logs if site in path.parts} == set(SITES)
    assert any("server" in path.parts for path in logs)
    texts = {str(path): path.read_text(encoding="utf-8", errors="replace") for path in logs}
    words = words_of(tiny_cohorts)
    for name, text in {**texts, "what was printed": captured[0].text}.items():
        assert not [word for word in words if word in text], name
        assert not LOUD.search(text), name
    assert sum(len(text) for text in texts.values()) > 10_000, "there was something to look at"


def test_tensorboard_has_one_run_per_site_and_one_for_the_server(captured: tuple[Finished, Path]) -> None:
    runs = {path.name: path for path in (captured[0].server / "tb_events").iterdir()}
    assert set(runs) == {*SITES, "server"}
    for name, path in runs.items():
        found = EventAccumulator(str(path)).Reload()
        tags = set(found.Tags()["scalars"])
        assert {"train/loss", "validation/balanced_accuracy"} <= tags
        assert ("cache/hits" if name in SITES else "round/aggregation_residual") in tags
        assert [event.step for event in found.Scalars("round/seconds")] == [0, 1]
        assert bool(found.Tags()["tensors"]) == (name == "server"), "the server's run holds the configuration"


def test_neither_swapped_processes_nor_an_interruption_changes_a_bit(
    interrupted: Interrupted, undisturbed: FederationResult
) -> None:
    resumed = interrupted.second
    assert resumed.code == 0, resumed.text[-3000:]
    assert same(resumed.adapter, undisturbed.global_state)
    run = read_run(resumed.workspace / "flare")
    assert [item.index for item in run.rounds] == [1]
    assert run.evaluation.sites == undisturbed.evaluation, "the local adapters are the same as well"


def test_the_command_line_says_what_it_does(interrupted: Interrupted) -> None:
    for run, round_index in ((interrupted.first, 1), (interrupted.second, 2)):
        for expected in ("nvflare simulator ", f"round {round_index}/2 ", " finished in "):
            assert expected in run.text
        assert json.loads((run.workspace / "run.json").read_text())["status"] == "finished"


def test_the_simulator_and_one_process_give_the_same_adapter(
    captured: tuple[Finished, Path], undisturbed: FederationResult
) -> None:
    for name, value in captured[0].adapter.items():
        np.testing.assert_allclose(value, undisturbed.global_state[name], rtol=0, atol=1e-6)
    run = read_run(captured[0].workspace / "flare")
    for site, scores in undisturbed.evaluation.items():
        assert run.evaluation.sites[site] == pytest.approx(scores, abs=1e-6)


def test_a_site_that_cannot_start_does_not_stop_the_others(with_a_broken_site: Finished) -> None:
    records = [json.loads(line) for line in (with_a_broken_site.server / "round_metrics.jsonl").open()]
    assert len(records) == 2
    for record in records:
        assert sorted(record["sites"]) == ["canon"]
        assert record["refused"] == [{"site": "ge", "reason": "the site answered EXECUTION_EXCEPTION"}]


def test_the_command_line_says_which_site_failed_and_why(with_a_broken_site: Finished) -> None:
    assert with_a_broken_site.code == 1
    assert "no evaluation from ge" in with_a_broken_site.text
    found = "its train split has 6 normal (NOR) and 0 diseased subjects"
    assert f"training needs both classes, and {found}" in with_a_broken_site.text
    assert json.loads((with_a_broken_site.workspace / "run.json").read_text())["status"] == "failed"
