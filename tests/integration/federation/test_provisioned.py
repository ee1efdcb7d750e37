"""One job in a provisioned federation, from submission to report, and what is refused."""

import contextlib
import json
import socket
import ssl
from pathlib import Path

import pytest
from nvflare.recipe import ProdEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from med_duallora.boundary.lineage import Lineage
from med_duallora.cli import main
from med_duallora.errors import FederationError
from med_duallora.flare.jobs.recipe import MedDualLoRARecipe
from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.verdict import COMPLETED
from med_duallora.report import read_run
from med_duallora.server.artifact import load_adapter
from med_duallora.settings.config import JobConfig
from med_duallora.settings.workflow import WorkflowConfig
from med_duallora.support.files import sha256_of_file
from tests.integration.federation.conftest import Submitted
from tests.integration.harness import PATIENCE_S, SETTINGS, SITES, FinishedJob, RunningFederation
from tests.integration.programs import answered, nvflare

pytestmark = pytest.mark.flare


def test_every_process_runs_alone(federation: RunningFederation) -> None:
    started = federation.federation.processes
    assert sorted(process.name for process in started) == sorted(["fl-server.example.org", *SITES])
    assert len({process.pid for process in started}) == 3
    assert all(processes.is_running(process, federation.federation.identity) for process in started)


@pytest.mark.parametrize("with_certificate", [True, False])
def test_the_server_talks_only_to_whom_it_knows(federation: RunningFederation, with_certificate: bool) -> None:
    startup = federation.federation.kit(SITES[0]) / "startup"
    context = ssl.create_default_context(cafile=str(startup / "rootCA.pem"))
    context.set_alpn_protocols(["h2"])
    if with_certificate:
        context.load_cert_chain(startup / "client.crt", startup / "client.key")

    def answer() -> bytes:
        with (
            socket.create_connection(("localhost", federation.federation.port), timeout=60) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return secure.recv(1)

    if with_certificate:
        assert answer(), "the beginning of gRPC's first frame"
    else:
        with contextlib.suppress(OSError):
            assert answer() == b"", "the server hangs up"


def test_the_job_completes(finished: FinishedJob) -> None:
    assert finished.status == COMPLETED


def test_submit_follows_the_job_and_brings_its_result(submitted: Submitted) -> None:
    assert submitted.code == 0
    seen = [submitted.text.index(text) for text in (" submitted by ", f"{COMPLETED}: finished", "result: ", "report: ")]
    assert seen == sorted(seen)
    assert (submitted.result / "report" / "report.html").is_file()


def test_the_adapter_says_what_it_is(result: Path, tiny_checkpoint: Path) -> None:
    _, manifest = load_adapter(result / "workspace" / "app_server" / "adapter_last.safetensors")
    assert manifest["backbone_sha256"] == sha256_of_file(tiny_checkpoint)
    assert (manifest["round"], manifest["n_rounds_planned"]) == (2, 3)
    assert manifest["n_rounds_by_site"] == dict.fromkeys(sorted(SITES), 3)
    assert {"method", "lora", "contract_sha256", "versions", "intended_use", "sites"} <= set(manifest)


@pytest.mark.parametrize("site", SITES)
def test_a_site_keeps_what_it_answered(site: str, result: Path, federation: RunningFederation) -> None:
    _, manifest = load_adapter(result / "workspace" / "app_server" / "adapter_last.safetensors")
    run = Lineage.from_list(manifest["lineage"]).run_id
    record = federation.directory / "sites" / site / "state" / "answers.json"
    answers = [answer for answer in json.loads(record.read_text())["answers"] if answer["run"] == run]
    assert [answer["asked"] for answer in answers] == [0, 1, 2, "best", "last"]
    assert all(answer["metrics"] for answer in answers), "each was computed"


def test_a_site_predicts_and_exports_with_the_state_that_the_job_left(
    federation: RunningFederation, result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, manifest = load_adapter(result / "workspace" / "app_server" / "adapter_last.safetensors")
    run_id = Lineage.from_list(manifest["lineage"]).run_id
    config = federation.federation.kit(SITES[0]) / "local" / "med_duallora_site.json"
    settings = json.loads(config.read_text())
    (run,) = Path(settings["state_dir"]).glob(f"*/{run_id}")
    model = ["--model", str(run), "--site-config", str(config)]
    subjects = ["--data", settings["data_dir"], "--split", "test"]
    assert main(["predict", *model, *subjects, "--out", str(tmp_path / "out"), "--page"]) == 0, capsys.readouterr().err
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    left = json.loads((run / "predictions.json").read_text())["predictions"]
    evaluated = {row["subject"]: row["both"] for row in left}
    assert {row["scan"]: row["probability"] for row in rows} == pytest.approx(evaluated, rel=0, abs=1e-6)
    assert "Research use, not for diagnosis" in (tmp_path / "out" / "predictions.html").read_text()
    export = ["export", "--monai-bundle", str(tmp_path / "bundle"), *model, "--stays-at-site"]
    assert main(export) == 0, capsys.readouterr().err
    assert (tmp_path / "bundle" / "models" / "model.safetensors").is_file()


def test_tensorboard_comes_with_the_result(result: Path) -> None:
    runs = result / "workspace" / "app_server" / "tb_events"
    assert {path.name for path in runs.iterdir()} == {*SITES, "server"}
    site = EventAccumulator(str(runs / SITES[0])).Reload()
    assert [event.step for event in site.Scalars("validation/balanced_accuracy")] == [0, 1, 2]
    server = EventAccumulator(str(runs / "server")).Reload()
    assert "configuration" in server.Tags()["tensors"]


def test_the_result_is_complete(result: Path) -> None:
    server = result / "workspace" / "app_server"
    names = {path.name for path in server.iterdir()}
    assert {
        "adapter_last.safetensors",
        "adapter_last.json",
        "adapter_best.safetensors",
        "round_metrics.jsonl",
        "evaluation.json",
        "job.json",
        "artifact_manifest.json",
        "tb_events",
    } <= names
    evaluation = json.loads((server / "evaluation.json").read_text())
    assert set(evaluation["sites"]) == set(SITES)
    assert evaluation["origin"] == {"phantoms": "none", "datasets": []}, "the tiny cohorts hold no phantoms"


def test_the_result_holds_no_key_and_no_subject(result: Path, tiny_cohorts: dict[str, Path]) -> None:
    files = [path for path in result.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".key", ".nii", ".gz", ".csv")]
    text = b"".join(path.read_bytes() for path in files)
    subjects = [path.name for site in SITES for path in tiny_cohorts[site].iterdir() if path.is_dir()]
    assert subjects
    assert not [name for name in subjects if name.encode() in text]


def test_the_report_is_written_from_the_result(
    federation: RunningFederation, finished: FinishedJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["federation", "download", "--workspace", str(federation.directory), finished.job_id]) == 0
    text = capsys.readouterr().out
    page = Path(text.splitlines()[-1].removeprefix("report: "))
    assert page.name == "report.html"
    assert "siemens" in page.read_text()


def test_flare_s_own_download_finds_the_adapter_and_the_rounds(
    federation: RunningFederation, finished: FinishedJob, tmp_path: Path
) -> None:
    kit = federation.federation.kit(federation.federation.person("lead"))
    command = nvflare("job", "download", finished.job_id, "-o", str(tmp_path), "--format", "json")
    done = answered([*command, "--startup-kit", str(kit)])
    artifacts = json.loads(done.stdout)["data"]["artifacts"]
    assert Path(artifacts["global_model"]).name == "adapter_last.safetensors"
    assert main(["report", str(tmp_path)]) == 0, "also without the rehearsal's own command"
    assert load_adapter(Path(artifacts["global_model"]))[1]["job_id"] == finished.job_id
    assert Path(artifacts["round_metrics"]).is_file()


def test_the_status_command_agrees(
    federation: RunningFederation, finished: FinishedJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["federation", "status", "--workspace", str(federation.directory)]) == 0
    text = capsys.readouterr().out
    assert text.count(" registered") == len(SITES)
    assert f"job {finished.job_id}  med-duallora-production" in text or f"job {finished.job_id}  test-job" in text


def test_monitoring_a_finished_job_says_so(
    federation: RunningFederation, finished: FinishedJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["federation", "monitor", "--workspace", str(federation.directory), finished.job_id]) == 0
    assert f"{COMPLETED}: finished" in capsys.readouterr().out


def test_monitoring_an_unknown_job_fails(federation: RunningFederation, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["federation", "monitor", "--workspace", str(federation.directory), "no-such-job"]) == 1
    assert "knows no job no-such-job" in capsys.readouterr().err


def test_a_federation_is_started_once(
    federation: RunningFederation, tiny_cohorts: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(tiny_cohorts[SITES[0]].parent)
    where = ["--workspace", str(federation.directory), "--data", data, "--sites", ",".join(SITES)]
    assert main(["federation", "up", *where]) == 1
    assert "runs already" in capsys.readouterr().err


def test_an_incomplete_job_is_refused_with_flare_s_reason(federation: RunningFederation) -> None:
    folder = federation.job(name="incomplete")
    (folder / "app" / "config" / "config_fed_client.json").unlink()
    with pytest.raises(FederationError, match=r"(?s)client config is missing.*meaning: .*not a complete FLARE job"):
        federation.submit(folder)


def test_the_recipe_runs_in_production(federation: RunningFederation) -> None:
    lead = federation.federation.person("lead")
    settings = JobConfig().with_overrides([*SETTINGS, "train.n_rounds=1"])
    recipe = MedDualLoRARecipe("recipe", settings, WorkflowConfig(min_sites=len(SITES)))
    run = recipe.execute(ProdEnv(str(federation.federation.kit(lead)), login_timeout=30.0, username=lead))
    place = run.get_result(PATIENCE_S)
    assert run.get_status() == COMPLETED
    assert [sorted(item.sites) for item in read_run(Path(place)).rounds] == [sorted(SITES)]


def test_a_site_that_does_not_allow_the_package_refuses_the_production_job(
    federation: RunningFederation, capsys: pytest.CaptureFixture[str]
) -> None:
    resources = federation.federation.kit(SITES[1]) / "local" / "resources.json"
    closed = resources.read_text()
    values = json.loads(closed)
    values["class_allow_list"] = [name for name in values["class_allow_list"] if not name.startswith("med_duallora.")]
    try:
        federation.kill(SITES[1])
        resources.write_text(json.dumps(values))
        federation.restart(SITES[1])
        job = str(federation.job())
        assert main(["federation", "submit", "--workspace", str(federation.directory), "--job", job, "--wait"]) == 1
        error = capsys.readouterr().err
        assert f"{SITES[1]}: " in error and "ComponentNotAuthorized" in error
        assert "meaning: the job names a class that this site's administrator has not allowed" in error
    finally:
        resources.write_text(closed)
        with contextlib.suppress(FederationError):  # it may have failed before the site was started again
            federation.kill(SITES[1])
        federation.restart(SITES[1])
    assert main(["federation", "status", "--workspace", str(federation.directory)]) == 0


def test_a_job_with_code_is_taken_by_no_site(federation: RunningFederation, capsys: pytest.CaptureFixture[str]) -> None:
    folder = federation.job(code=True, name="with-code")
    assert main(["federation", "submit", "--workspace", str(federation.directory), "--job", str(folder), "--wait"]) == 1
    error = capsys.readouterr().err
    for site in SITES:
        assert f"deployment, {site}: NVFLARE_ERROR: BYOC not permitted" in error
    assert "meaning: the job carries code" in error
