"""Who may do what, through FLARE's own console sessions, as poc/project.yml and the closed site kits have it.

FLARE asks the server's policy first, and each site's own policy for what concerns the site. The table is the one in
poc/guide/project-admin.md.
"""

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nvflare.fuel.flare_api.api_spec import AuthorizationError, InternalError, JobNotRunning, TargetType
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from med_duallora.errors import FederationError
from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.admin import Console
from med_duallora.flare.wire.running_adapter import AFTER, TOPIC
from tests.integration.harness import PATIENCE_S, SITES, RunningFederation, abort_waiting

pytestmark = pytest.mark.flare

OWN, FOREIGN = SITES
"""The org_admin of these tests belongs to the hospital of the first site."""
Login = Callable[[str], Session]


@pytest.fixture(scope="module")
def login(federation: RunningFederation) -> Iterator[Login]:
    """Log in as the project's first person with a role."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def session(role: str) -> Session:
            person = federation.federation.person(role)
            with contextlib.redirect_stdout(io.StringIO()):
                opened = new_secure_session(person, str(federation.federation.kit(person)), auto_login_max_tries=5)
            stack.callback(opened.close)
            return opened

        assert federation.federation.person("org_admin") == f"admin@{OWN}.example.org"
        yield session


@pytest.fixture
def waiting_job(federation: RunningFederation) -> str:
    """A job of the lead that is never started, because it waits for more sites than there are."""
    return federation.submit(federation.job(f"workflow.min_sites={len(SITES) + 1}", name="waiting"))


@pytest.fixture(scope="module")
def ended_job(federation: RunningFederation, login: Login) -> str:
    """A job of the lead that was aborted."""
    job_id = federation.submit(federation.job(f"workflow.min_sites={len(SITES) + 1}", name="ended"))
    abort_waiting(Console(login("lead"), "lead"), job_id)
    return job_id


def status_of(login: Login, job_id: str) -> str:
    return str(login("lead").get_job_meta(job_id)["status"])


@pytest.mark.parametrize("role", ["project_admin", "org_admin", "lead", "member"])
def test_everybody_watches(role: str, login: Login, ended_job: str) -> None:
    person = login(role)
    assert {client.name for client in person.get_system_info().client_info} == set(SITES)
    assert ended_job in [job["job_id"] for job in person.list_jobs(detailed=True)]
    assert person.get_job_meta(ended_job)["status"] == "FINISHED:ABORTED"
    for answer in (person.show_stats, person.show_errors):
        with pytest.raises(JobNotRunning):  # the question was allowed
            answer(ended_job, TargetType.ALL)


@pytest.mark.parametrize("role", ["member", "org_admin"])
def test_others_do_not_submit(role: str, federation: RunningFederation) -> None:
    with pytest.raises(FederationError, match=r"(?s)not authorized for 'submit_job'.*meaning: .*role may not submit"):
        federation.submit(federation.job(), role)


@pytest.mark.parametrize("role", ["member", "org_admin"])
def test_others_neither_abort_nor_delete_the_lead_s_job(role: str, login: Login, waiting_job: str) -> None:
    person = login(role)
    for forbidden in (person.abort_job, person.delete_job, person.clone_job):
        with pytest.raises(AuthorizationError):
            forbidden(waiting_job)
    assert status_of(login, waiting_job) == "SUBMITTED"
    login("lead").abort_job(waiting_job)


@pytest.mark.parametrize("role", ["lead", "project_admin"])
def test_the_lead_and_the_project_admin_abort_the_lead_s_job(role: str, login: Login, waiting_job: str) -> None:
    abort_waiting(Console(login(role), role), waiting_job)


@pytest.mark.parametrize("role", ["org_admin", "lead"])
def test_nobody_aborts_the_project_admin_s_job(role: str, federation: RunningFederation, login: Login) -> None:
    settings = f"workflow.min_sites={len(SITES) + 1}"
    job_id = federation.submit(federation.job(settings, name="another-s"), "project_admin")
    with pytest.raises(AuthorizationError):
        login(role).abort_job(job_id)
    login("project_admin").abort_job(job_id)


@pytest.mark.parametrize(
    ("role", "may"), [("member", False), ("org_admin", False), ("lead", True), ("project_admin", True)]
)
def test_only_the_submitter_and_the_project_admin_download(
    role: str, may: bool, login: Login, ended_job: str, tmp_path: Path
) -> None:
    person = login(role)
    if may:
        assert Path(person.download_job_result(ended_job, str(tmp_path))).is_dir()
        return
    with pytest.raises(AuthorizationError):
        person.download_job_result(ended_job, str(tmp_path))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("role", ["member", "org_admin", "lead", "project_admin"])
def test_whoever_may_download_the_result_asks_the_running_job_for_its_adapter(
    role: str, login: Login, ended_job: str
) -> None:
    """A job that is over answers nothing; what is refused is the question."""
    refusal = JobNotRunning if role in ("lead", "project_admin") else AuthorizationError
    with pytest.raises(refusal):
        login(role).do_app_command(ended_job, TOPIC, {AFTER: -1})


@pytest.mark.parametrize("role", ["member", "org_admin", "lead"])
@pytest.mark.parametrize("target", [TargetType.SERVER, TargetType.ALL])
def test_only_the_project_admin_stops_the_server(
    role: str, target: str, federation: RunningFederation, login: Login
) -> None:
    person = login(role)
    for command in (person.shutdown, person.restart):
        with pytest.raises(AuthorizationError):
            command(target, wait=False)
    assert {client.name for client in person.get_system_info().client_info} == set(SITES)


@pytest.mark.parametrize("role", ["member", "org_admin", "lead"])
def test_only_the_project_admin_reads_the_server_s_files(role: str, login: Login) -> None:
    assert login("project_admin").ls_target("server")
    with pytest.raises(AuthorizationError):
        login(role).ls_target("server")


@pytest.mark.parametrize(
    ("role", "site"),
    [("member", OWN), ("lead", OWN), ("org_admin", FOREIGN)],
    ids=["member", "lead", "org_admin of another"],
)
def test_a_site_is_not_stopped_by_others(role: str, site: str, federation: RunningFederation, login: Login) -> None:
    before = running_processes(federation)
    with pytest.raises(InternalError, match="failed to shut down"):
        login(role).shutdown(TargetType.CLIENT, [site], wait=False)
    assert running_processes(federation) == before


def test_a_site_is_stopped_by_its_own_org_admin(federation: RunningFederation, login: Login) -> None:
    try:
        login("org_admin").shutdown(TargetType.CLIENT, [OWN], wait=False)
        processes.wait_until("stopping the site", lambda: OWN not in running_processes(federation), PATIENCE_S)
        assert running_processes(federation) == {federation.federation.server, FOREIGN}
    finally:
        if OWN not in running_processes(federation):
            federation.restart(OWN)


def running_processes(federation: RunningFederation) -> set[str]:
    record = federation.federation
    return {process.name for process in record.processes if processes.is_running(process, record.identity)}
