import hashlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import med_duallora
from med_duallora.adapter.methods import METHODS, plan_of
from med_duallora.adapter.model import skeleton
from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.errors import ArtifactError, ConfigError, InputError
from med_duallora.flare.jobs.export import (
    BASELINES,
    CANONICAL,
    JOBS,
    JobSpec,
    committed_differences,
    committed_jobs,
    export_job,
    read_job,
    read_spec,
    write_committed,
)
from med_duallora.server.artifact import adapter_manifest, save_adapter
from med_duallora.settings.config import JobConfig
from med_duallora.settings.workflow import WorkflowConfig
from tests.conftest import REPOSITORY
from tests.unit.refused import refused
from tests.unit.tiny import random_payload

PACKAGE = Path(med_duallora.__file__).parent


@pytest.fixture(scope="module")
def self_contained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_job(JobSpec("a-job", "", with_code=True), tmp_path_factory.mktemp("jobs") / "here")


def test_the_committed_jobs_are_what_the_recipe_gives() -> None:
    assert committed_differences(REPOSITORY) == [], "run `med-duallora jobs check --write`"


def test_every_federated_method_has_a_job_with_its_contract() -> None:
    found = {name.partition("/")[2]: spec.job for name, spec in JOBS.items() if name.startswith(BASELINES)}
    assert set(found) == {name for name in METHODS if name not in ("med-duallora", "local-lora")}
    for name, job in found.items():
        exported, _ = read_job(REPOSITORY / "jobs" / BASELINES / name)
        assert (exported, job.method) == (job, name)
        sent = skeleton(job).of_roles(plan_of(job).sent)
        assert set(EgressContract.for_job(exported).tensors) == set(sent)
        assert (job.train.local_lr_factor, job.train.local_weight_decay_factor) == (1, 1), "no part trains slower"


def test_no_committed_job_holds_code() -> None:
    for folder in committed_jobs(REPOSITORY):
        assert not (folder / "app" / "custom").exists()


def test_drift_is_found_and_repaired(tmp_path: Path) -> None:
    (tmp_path / "custom" / "med_duallora").mkdir(parents=True)
    assert len(committed_differences(tmp_path)) == 3 * (1 + len(JOBS))
    write_committed(tmp_path)
    assert committed_differences(tmp_path) == []
    (tmp_path / "meta.json").write_text("{}")
    assert committed_differences(tmp_path) == ["meta.json differs from the recipe"]


def test_only_a_checkout_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a checkout"):
        committed_differences(tmp_path)


def test_a_self_contained_job_holds_the_whole_package(self_contained: Path) -> None:
    def files(root: Path) -> set[str]:
        found = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
        return {str(path.relative_to(root)) for path in found if not path.name.startswith(".")}

    copy = self_contained / "app" / "custom" / "med_duallora"
    assert files(copy) == files(PACKAGE)
    assert not list(copy.rglob("__pycache__"))


def test_a_self_contained_job_runs_where_the_package_is_not_installed(self_contained: Path) -> None:
    code = self_contained / "app" / "custom"
    program = f"""
import sys
import warnings
sys.path = [{str(code)!r}] + [path for path in sys.path if path != {str(PACKAGE.parent)!r}]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import json, pathlib
from nvflare.fuel.utils.class_utils import instantiate_class
for name in ("server", "client"):
    config = json.loads(pathlib.Path({str(self_contained)!r}, f"app/config/config_fed_{{name}}.json").read_text())
    for part in config["components"]:
        instantiate_class(part["path"], part["args"])
import med_duallora
print(med_duallora.__file__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(str(code / "med_duallora" / "__init__.py"))


def test_an_export_replaces_an_older_job_and_nothing_else(tmp_path: Path) -> None:
    export_job(JobSpec("a-job", "", JobConfig(experiment="old")), tmp_path / "job")
    (tmp_path / "job" / "stale.txt").write_text("old")
    export_job(JobSpec("a-job", "", JobConfig(experiment="new")), tmp_path / "job")
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["app", "meta.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["job"], "something temporary stayed"
    (tmp_path / "letters").mkdir()
    with pytest.raises(ConfigError, match="is not a FLARE job folder"):
        export_job(CANONICAL, tmp_path / "letters")


def test_an_exported_job_is_read_back(tmp_path: Path) -> None:
    workflow = WorkflowConfig(3, 7, 60, 1, "start.safetensors", 3)
    spec = JobSpec("a-job", "", JobConfig().with_overrides(["train.n_rounds=4", "lora.rank_global=2"]), workflow)
    assert read_job(export_job(spec, tmp_path / "job")) == (spec.job, workflow)
    limits = spec.with_overrides(["workflow.screening.clip=0", "workflow.screening.weight_limit=3"])
    assert read_job(export_job(limits, tmp_path / "limits")) == (spec.job, limits.workflow)
    assert read_job(export_job(CANONICAL, tmp_path / "canonical")) == (CANONICAL.job, CANONICAL.workflow)


def without_server(folder: Path) -> None:
    (folder / "app/config/config_fed_server.json").unlink()


def list_instead_of_object(folder: Path) -> None:
    (folder / "app/config/config_fed_client.json").write_text("[]")


def edited_by_hand(folder: Path) -> None:
    path = folder / "app/config/config_fed_client.json"
    path.write_text(path.read_text().replace('"rank_global": 8', '"rank_global": 4'))


def without_settings(folder: Path) -> None:
    for side in ("server", "client"):
        path = folder / f"app/config/config_fed_{side}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "components": []}))


def without_rounds(folder: Path) -> None:
    path = folder / "app/config/config_fed_server.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "workflows": []}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_server, "cannot be read"),
        (list_instead_of_object, "one JSON object"),
        (edited_by_hand, "different job settings"),
        (without_settings, "another kind of job"),
        (without_rounds, "no workflow 'rounds'"),
    ],
)
def test_a_damaged_job_folder_is_refused(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    folder = export_job(CANONICAL, tmp_path / "job")
    damage(folder)
    with pytest.raises(ConfigError, match=message):
        read_job(folder)


def test_settings_go_to_the_job_or_to_the_workflow() -> None:
    spec = CANONICAL.with_overrides(["train.n_rounds=3", "workflow.wait_s=1", "workflow.initial_adapter=7"])
    assert spec.job.train.n_rounds == 3
    assert spec.workflow == WorkflowConfig(wait_s=1, initial_adapter="7")


@pytest.mark.parametrize(
    ("assignment", "value", "limit"),
    [
        ("workflow.patience=3", "3", ""),
        ("workflow.wait_s=soon", "soon", "a whole number"),
        ("workflow.min_sites=0", 0, "between 1 and 10000"),
        ("workflow.screening.clip=0.5", 0.5, "0 (off), or between 1 and 1e+06"),
        ("workflow.screening.max_change=0", 0.0, "above 0 and at most 1e+06"),
        ("workflow.stop_round=-1", -1, "between 0 and 10000; 0, or above workflow.start_round"),
        ("train.n_rounds=none", "none", "a whole number"),
        ("train.n_rounds=0", 0, "between 1 and 10000"),
        ("rounds=3", "3", ""),
    ],
)
def test_a_bad_setting_of_the_job_or_the_workflow_is_named(assignment: str, value: object, limit: str) -> None:
    with refused(assignment.partition("=")[0], value, limit):
        CANONICAL.with_overrides([assignment])


@pytest.mark.parametrize("assignment", ["workflow.wait_s", "train.n_rounds"])
def test_what_is_not_an_assignment_is_refused_alike(assignment: str, adapter: Path) -> None:
    for spec in (CANONICAL.with_overrides, lambda texts: CANONICAL.resumed(adapter, texts)):
        with pytest.raises(ConfigError) as caught:
            spec([assignment])
        assert (
            str(caught.value) == f"{assignment!r} is not an assignment; write key=value, for example train.n_rounds=4"
        )


def test_a_pinned_backbone_is_no_secret(tmp_path: Path) -> None:
    spec = JobSpec("pinned", "").with_overrides([f"backbone_sha256={hashlib.sha256(b'x').hexdigest()}"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = export_job(spec, tmp_path / "pinned")
    assert read_job(folder)[0] == spec.job


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """What a job of four rounds left after its second one."""
    job = JobConfig(backbone="cinema-tiny").with_overrides(["train.n_rounds=4", "experiment=study-1"])
    contract = EgressContract.for_job(job)
    manifest = adapter_manifest(job, contract, round=1, lineage=Lineage.begin().to_list())
    return save_adapter(tmp_path / "run", "adapter_last", random_payload(contract), manifest)


def test_a_known_job_goes_on_with_the_settings_of_an_adapter(adapter: Path, tmp_path: Path) -> None:
    spec = JOBS["production"].resumed(adapter, ["workflow.min_sites=3"])
    assert (spec.job.experiment, spec.job.backbone, spec.job.train.n_rounds) == ("study-1", "cinema-tiny", 4)
    assert (spec.workflow.start_round, spec.workflow.min_sites) == (2, 3)
    folder = export_job(spec, tmp_path / "job")
    server = json.loads((folder / "app/config/config_fed_server.json").read_text())
    rounds = next(item["args"] for item in server["workflows"] if item["id"] == "rounds")
    assert (rounds["start_round"], rounds["num_rounds"]) == (2, 2)
    for suffix in (".safetensors", ".json"):
        carried = (folder / "app" / spec.workflow.initial_adapter).with_suffix(suffix)
        assert carried.read_bytes() == adapter.with_suffix(suffix).read_bytes()


def test_a_resumed_job_can_be_changed_and_exported_again(adapter: Path, tmp_path: Path) -> None:
    folder = export_job(JOBS["production"].resumed(adapter), tmp_path / "job")
    again = export_job(read_spec(folder, with_code=False).with_overrides(["workflow.wait_s=9"]), tmp_path / "again")
    assert (again / "app" / "config" / "resume_from.safetensors").read_bytes() == adapter.read_bytes()
    assert read_job(again) == (read_job(folder)[0], replace(read_job(folder)[1], wait_s=9))
    in_place = export_job(read_spec(folder, with_code=False), folder)
    assert (in_place / "app" / "config" / "resume_from.safetensors").read_bytes() == adapter.read_bytes()


def test_a_job_can_be_planned_in_parts(adapter: Path) -> None:
    spec = JOBS["production"].resumed(adapter, ["workflow.stop_round=3"])
    assert spec.workflow.rounds(spec.job) == range(2, 3)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("experiment=other", "experiment was 'study-1', but is 'other' here"),
        ("train.n_rounds=2", "no round is left"),
        ("workflow.start_round=1", "workflow.start_round follows from the adapter"),
        ("workflow.initial_adapter=x", "workflow.initial_adapter follows from the adapter"),
        ("workflow.stop_round=2", "stop_round = 2, but it must be .* above workflow.start_round"),
    ],
)
def test_what_contradicts_the_adapter_is_refused(assignment: str, message: str, adapter: Path) -> None:
    with pytest.raises(InputError, match=message):
        JOBS["production"].resumed(adapter, [assignment])


def test_another_job_s_adapter_is_refused(adapter: Path) -> None:
    with pytest.raises(ArtifactError, match=r"belongs to another job: experiment was 'study-1', but is 'mine' here"):
        JobSpec("mine", "", JobConfig(experiment="mine")).resumed(adapter)


def test_rounds_outside_the_plan_are_refused() -> None:
    job = JobConfig().with_overrides(["train.n_rounds=4"])
    with refused("workflow.stop_round", 5, "at most train.n_rounds = 4"):
        WorkflowConfig(stop_round=5).rounds(job)
    with refused("workflow.start_round", 4, "below train.n_rounds = 4"):
        WorkflowConfig(start_round=4).rounds(job)


@pytest.mark.parametrize("name", ["my job", "", "-job", "jöb", "a/b"])
def test_a_name_that_flare_does_not_take_for_a_job_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a job in FLARE"):
        JobSpec(name, "")
