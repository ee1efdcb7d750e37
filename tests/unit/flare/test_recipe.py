import json
from pathlib import Path
from typing import Any

import pytest
from nvflare.app_common.workflows.scatter_and_gather import ScatterAndGather
from nvflare.fuel.utils.class_utils import instantiate_class
from nvflare.recipe.spec import Recipe

from med_duallora.config import JobConfig
from med_duallora.errors import ConfigError
from med_duallora.flare.recipe import MedDualLoRARecipe
from med_duallora.flare.workflow import WorkflowConfig


@pytest.fixture
def exported(tiny_job: JobConfig, tmp_path: Path) -> dict[str, Any]:
    workflow = WorkflowConfig(min_sites=3, wait_s=5, round_timeout_s=60, start_round=1, initial_adapter="a.safetensors")
    MedDualLoRARecipe("a-job", tiny_job, workflow).export(str(tmp_path))
    folder = tmp_path / "a-job"
    names = ("meta.json", "app/config/config_fed_server.json", "app/config/config_fed_client.json")
    meta, server, site = (json.loads((folder / name).read_text()) for name in names)
    return {"meta": meta, "server": server, "site": site, "folder": folder}


def by_id(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["id"]: item for item in items}


def test_it_is_a_flare_recipe(tiny_job: JobConfig) -> None:
    assert isinstance(MedDualLoRARecipe("a-job", tiny_job), Recipe)


def test_no_code_travels_unless_it_is_asked_for(exported: dict[str, Any]) -> None:
    files = [path for path in exported["folder"].rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["config_fed_client.json", "config_fed_server.json", "meta.json"]


def test_every_result_passes_the_filter(exported: dict[str, Any]) -> None:
    (entry,) = exported["site"]["task_result_filters"]
    assert set(entry["tasks"]) == {"train", "validate", "submit_model"}, "a filter for * would never run"
    assert [item["path"] for item in entry["filters"]] == ["med_duallora.flare.egress_filter.EgressFilter"]
    assert exported["site"]["executors"][0]["tasks"] == ["train", "validate"]


def test_the_workflow_runs_the_job_s_rounds(exported: dict[str, Any]) -> None:
    workflows = by_id(exported["server"]["workflows"])
    assert list(workflows) == ["rounds", "evaluation"]
    rounds = workflows["rounds"]["args"]
    assert (rounds["start_round"], rounds["num_rounds"]) == (1, 1)
    assert (rounds["min_clients"], rounds["wait_time_after_min_received"], rounds["train_timeout"]) == (3, 5, 60)
    evaluation = {"models": ["best", "last"], "min_sites": 3, "wait_s": 5, "timeout_s": 60}
    assert workflows["evaluation"]["args"] == evaluation
    assert exported["meta"]["min_clients"] == 3


def test_server_and_sites_have_the_same_settings(exported: dict[str, Any], tiny_job: JobConfig) -> None:
    server, site = (by_id(exported[side]["components"])["job"]["args"]["config"] for side in ("server", "site"))
    assert server == site == tiny_job.to_dict()


def test_every_component_can_be_built_from_its_configuration(exported: dict[str, Any]) -> None:
    parts = [*exported["server"]["workflows"], *exported["server"]["components"], *exported["site"]["components"]]
    parts += [exported["site"]["executors"][0]["executor"], *exported["site"]["task_result_filters"][0]["filters"]]
    built = [instantiate_class(part["path"], part["args"]) for part in parts]
    assert sum(isinstance(part, ScatterAndGather) for part in built) == 1


def test_a_start_after_the_last_round_is_refused(tiny_job: JobConfig) -> None:
    with pytest.raises(ConfigError, match=r"start_round = 2, but train\.n_rounds = 2"):
        MedDualLoRARecipe("a-job", tiny_job, WorkflowConfig(start_round=2))


@pytest.mark.parametrize(
    "arguments", [{"min_sites": 0}, {"wait_s": -1}, {"round_timeout_s": -1}, {"start_round": -1}], ids=str
)
def test_waiting_times_are_checked(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        WorkflowConfig(**arguments)
