from pathlib import Path

import pytest

from med_duallora.flare.local.rehearsal.record import Federation
from med_duallora.flare.local.rehearsal.verdict import explained, job_failed, logged, meaning, waits_because

CONTEXT = "[identity=siemens, run=7-7, peer=med-duallora, task_name=train]"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param("user 'm@x' is not authorized for 'submit_job'", "role may not submit", id="wrong role"),
        pytest.param("connected sites (2) < min_sites (4)", "more sites than are connected", id="too few sites"),
        pytest.param("NVFLARE_ERROR: BYOC not permitted", "carries code", id="code in the job"),
        pytest.param("Exception Type: ComponentNotAuthorized", "class_allow_list", id="class not allowed"),
        pytest.param(
            "due to reported failure from ge: infrastructure error", "not allow a class", id="job process died"
        ),
        pytest.param("due to reported failure from ge: exception", "--resume-from", id="job process killed"),
        pytest.param("terminal outcome unavailable from ge: missing job on client", "vanished", id="site restarted"),
        pytest.param(
            "App 'app' will be deployed but client config is missing", "not a complete FLARE job", id="no config"
        ),
        pytest.param("meta.[json|conf|yml] not existing for job", "not a complete FLARE job", id="no meta.json"),
        pytest.param("Alive clients 1 < required min 2", "fewer sites than min_sites", id="too few sites left"),
        pytest.param("Result from ge is bad, error code: EXECUTION_EXCEPTION", "site's own log", id="site error"),
        pytest.param("initialisation failed: CohortError", "site configuration", id="site not initialised"),
    ],
)
def test_flare_s_words_are_explained(answer: str, says: str) -> None:
    assert says in meaning(answer)
    assert explained(answer).startswith(f"{answer}\n  meaning: ")


def test_unknown_words_are_passed_on() -> None:
    assert meaning("the sky is falling") == ""
    assert explained("the sky is falling") == "the sky is falling"


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        pytest.param({"status": "SUBMITTED"}, "", id="never looked at"),
        pytest.param({"status": "SUBMITTED", "schedule_history": ["10:00:00: too few", "x"]}, "", id="no reason"),
        pytest.param(
            {"status": "SUBMITTED", "schedule_history": ["day: first", "day: last"]}, "last", id="the last one"
        ),
        pytest.param({"status": "RUNNING", "schedule_history": ["day: scheduled"]}, "", id="it runs"),
    ],
)
def test_why_a_job_waits(job: dict[str, object], reason: str) -> None:
    assert waits_because(job) == reason


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """Logs as FLARE writes them, of a job whose site could not start."""
    server, site = tmp_path / "kits" / "server", tmp_path / "kits" / "siemens"
    (server / "7-7").mkdir(parents=True)
    (site / "7-7").mkdir(parents=True)
    (server / "log.txt").write_text(
        "10:00:00 - FederatedServer - INFO - Failing job 6-6 due to reported failure from ge: another job\n"
        "10:00:01 - FederatedServer - INFO - Failing job 7-7 due to reported failure from siemens: "
        "infrastructure error\n"
    )
    (site / "7-7" / "error_log.txt").write_text(
        "10:00:00 - blob_streamer - ERROR - blob_cb threw: noise\n"
        f"10:00:00 - DualLoRALearner - ERROR - {CONTEXT} - initialisation failed: CohortError\n"
        f"10:00:00 - DualLoRALearner - ERROR - {CONTEXT} - initialisation failed: CohortError\n"
        "  a line of a traceback\n"
    )
    return Federation(tmp_path, "", "p", 1, tmp_path / "kits", "server", ("siemens",), {})


def test_a_log_is_read_without_noise_and_repetition(federation: Federation) -> None:
    assert logged(federation.kits / "siemens", "7-7") == ["initialisation failed: CohortError"]


def test_a_failed_job_is_explained_from_all_logs(federation: Federation) -> None:
    text = job_failed(federation, {"job_id": "7-7", "status": "FINISHED:ABNORMAL"})
    assert text.startswith("job 7-7 ended as FINISHED:ABNORMAL\n")
    assert "server: Failing job 7-7 due to reported failure from siemens: infrastructure error" in text
    assert "siemens: initialisation failed: CohortError" in text
    assert text.count("meaning: ") == 2
    assert "6-6" not in text


def test_a_site_that_took_no_job_is_named(federation: Federation) -> None:
    detail = ["server: OK", "siemens: NVFLARE_ERROR: BYOC not permitted", "detail: num_ok_sites 0"]
    text = job_failed(federation, {"job_id": "8-8", "status": "FINISHED:FAILED_TO_RUN", "job_deploy_detail": detail})
    assert text.splitlines()[1:3] == [
        "  deployment, siemens: NVFLARE_ERROR: BYOC not permitted",
        "  deployment, detail: num_ok_sites 0",
    ]
    assert "meaning: the job carries code" in text


def test_a_job_without_logs_still_has_its_status(federation: Federation) -> None:
    text = job_failed(federation, {"job_id": "8-8", "status": "FINISHED:ABORTED"})
    assert text.splitlines()[0] == "job 8-8 ended as FINISHED:ABORTED"


def test_a_status_is_explained_only_where_no_log_tells_more(federation: Federation) -> None:
    server = federation.kits / "server" / "7-7"
    (server / "error_log.txt").write_text(
        f"10:00 - WFCommServer - ERROR - {CONTEXT} - Alive clients 1 < required min 2\n"
    )
    status = {"job_id": "7-7", "status": "FINISHED:EXECUTION_EXCEPTION"}
    assert "answered a task with an error" not in job_failed(federation, status)
    assert "answered a task with an error" in job_failed(federation, {**status, "job_id": "8-8"})
