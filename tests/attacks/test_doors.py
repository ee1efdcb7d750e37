"""Attacks on the doors of a closed site: code in a job, classes named by a job, the console, the policy, the ledger."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, SiteType
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.apis.workspace import Workspace
from nvflare.app_common.widgets.component_path_authorizer import ComponentPathAuthorizer
from nvflare.fuel.sec.authz import AuthorizationService, AuthzContext, Person
from nvflare.private.defs import SysCommandTopic
from nvflare.private.fed.app.default_app_validator import DefaultAppValidator
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors
from nvflare.private.fed.client.shell_cmd import ShellCommandProcessor
from nvflare.private.fed.client.sys_cmd import ReportEnvProcessor, SysInfoProcessor
from nvflare.private.fed.utils.app_authz import AppAuthzService
from nvflare.security.logging import SECURE_LOGGING_VAR_NAME, secure_format_exception
from nvflare.security.security import FLAuthorizer

from med_duallora.flare.site import console_guard
from med_duallora.flare.site.console_guard import ClosedRights, ConsoleGuard, check_closed
from med_duallora.site_kit import harden
from tests.attacks.tricks import SUBJECT
from tests.unit.site_kit.conftest import provisioned, site_kit

__all__ = ["provisioned", "site_kit"]


@pytest.fixture
def closed_kit(site_kit: Path) -> Path:
    harden(site_kit)
    return site_kit


# --- classes that a job may name -------------------------------------------------------------------------------------

REFUSED_CLASSES = [
    ("streams a job's log", "nvflare.app_common.logging.job_log_streamer.JobLogStreamer"),
    ("turns log records into fed events", "nvflare.app_common.widgets.convert_to_fed_event.ConvertToFedEvent"),
    ("sends statistics of the data", "nvflare.app_common.executors.statistics.statistics_executor.StatisticsExecutor"),
    ("sends identifiers of subjects", "nvflare.app_common.psi.psi_executor.PSIExecutor"),
    ("posts to an address of the job's choice", "nvflare.app_opt.tracking.mlflow.mlflow_receiver.MLflowReceiver"),
    ("starts any program", "nvflare.app_common.launchers.subprocess_launcher.SubprocessLauncher"),
    ("runs any script", "nvflare.app_common.executors.task_script_runner.TaskScriptRunner"),
    ("trains on tables of the site", "nvflare.app_opt.xgboost.tree_based.executor.FedXGBTreeExecutor"),
    ("a model learner of somebody else", "nvflare.app_common.executors.model_learner_executor.ModelLearnerExecutor"),
    ("runs any command of ours", "med_duallora.cli.main"),
    ("writes any file", "med_duallora.support.files.write_text"),
    ("hashes any file", "med_duallora.support.files.sha256_of_file"),
    ("opens the kit again", "med_duallora.site_kit.hardening.harden"),
    ("a function beside an allowed class", "med_duallora.flare.wire.job.job_of"),
    ("a class that ours imports", "med_duallora.flare.site.learner.SiteRuntime"),
    ("something inside an allowed class", "med_duallora.flare.site.learner.DualLoRALearner_"),
    ("Python itself", "subprocess.Popen"),
    ("Python itself", "builtins.open"),
    ("a path that is none", "os"),
]


def asked(kit: Path, config: dict[str, Any]) -> None:
    """Ask FLARE's own authorizer, as a job process of this site does before it builds a component."""
    fl_ctx = FLContext()
    fl_ctx.set_prop(FLContextKey.WORKSPACE_OBJECT, Workspace(str(kit), "siemens"), private=True)
    fl_ctx.set_prop(FLContextKey.JOB_META, {}, private=True)
    fl_ctx.set_prop(FLContextKey.COMPONENT_CONFIG, config, private=True)
    ComponentPathAuthorizer().handle_event(EventType.BEFORE_BUILD_COMPONENT, fl_ctx)


@pytest.mark.parametrize(("trick", "path"), REFUSED_CLASSES, ids=[f"{r[0]} ({r[1]})" for r in REFUSED_CLASSES])
def test_a_job_cannot_name_it(trick: str, path: str, closed_kit: Path):
    with pytest.raises(UnsafeComponentError):
        asked(closed_kit, {"id": "x", "path": path, "args": {}})


@pytest.mark.parametrize("config", [{"name": "JobLogStreamer"}, {"path": 7}, {"class_path": "subprocess.Popen"}, {}])
def test_nor_by_another_key(config: dict[str, Any], closed_kit: Path):
    with pytest.raises(UnsafeComponentError):
        asked(closed_kit, config)


def test_our_own_classes_may_be_named(closed_kit: Path):
    for path in json.loads((closed_kit / "local" / "resources.json").read_text())["class_allow_list"]:
        asked(closed_kit, {"path": path})


def test_an_untouched_kit_would_have_allowed_some(site_kit: Path):
    asked(site_kit, {"path": "nvflare.app_common.logging.job_log_streamer.JobLogStreamer"})


# --- code in a job ---------------------------------------------------------------------------------------------------


@pytest.fixture
def authorization(closed_kit: Path, monkeypatch: pytest.MonkeyPatch) -> FLAuthorizer:
    """The site's authorisation as FLARE loads it, with our console guard in front of it."""
    policy = json.loads((closed_kit / "local" / "authorization.json").read_text())
    monkeypatch.setattr(AuthorizationService, "the_authorizer", FLAuthorizer("clinic_a", policy))
    monkeypatch.setattr(AppAuthzService, "app_validator", DefaultAppValidator(SiteType.CLIENT))
    return AuthorizationService.the_authorizer


def app_with(folder: Path, *files: str) -> Path:
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "config_fed_client.json").write_text('{"format_version": 2, "executors": []}')
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("print('hello')")
    return folder


@pytest.mark.parametrize("role", ["project_admin", "org_admin", "lead", "member", "super", ""])
def test_nobody_brings_code(role: str, authorization, tmp_path: Path):
    console_guard.close_rights()
    app = app_with(tmp_path / "app", "custom/evil.py")
    allowed, why = AppAuthzService.authorize(str(app), "someone", "clinic_a", role)
    assert not allowed and "BYOC" in why


@pytest.mark.parametrize("role", ["lead", "project_admin"])
def test_a_job_without_code_is_welcome(role: str, authorization, tmp_path: Path):
    console_guard.close_rights()
    assert AppAuthzService.authorize(str(app_with(tmp_path / "app")), "someone", "centre", role)[0]


@pytest.mark.parametrize("spec", [{"docker": {"image": "evil"}}, {"k8s": {"image": "evil"}}])
def test_an_image_of_the_jobs_choice_is_code(spec: dict[str, Any], authorization):
    console_guard.close_rights()
    info = AppAuthzService.derive_local_app_info({}, {"launcher_spec": {"siemens": spec}}, "siemens")
    assert not AppAuthzService.authorize_app_info(info, "someone", "centre", "lead")[0]


# --- the console -----------------------------------------------------------------------------------------------------


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of FLARE's command processors that this test may change."""
    processors = [ShellCommandProcessor(), ReportEnvProcessor(), SysInfoProcessor()]
    monkeypatch.setattr(ClientRequestProcessors, "request_processors", processors)
    monkeypatch.setattr(AuthorizationService, "the_authorizer", FLAuthorizer("clinic_a", {**RIGHTS}))
    monkeypatch.setenv(SECURE_LOGGING_VAR_NAME, "")


RIGHTS = {"format_version": "1.0", "permissions": {"project_admin": "any", "lead": {"view": "any"}}}


def topics() -> set[str]:
    return {topic for processor in ClientRequestProcessors.request_processors for topic in processor.get_topics()}


def bootstrapped(guard: ConsoleGuard) -> FLContext:
    fl_ctx = FLContextManager(None, "siemens").new_context()
    guard.handle_event(EventType.SYSTEM_BOOTSTRAP, fl_ctx)
    return fl_ctx


@pytest.mark.usefixtures("console")
def test_the_site_no_longer_knows_file_commands():
    assert {SysCommandTopic.SHELL, SysCommandTopic.REPORT_ENV} <= topics()
    guard = ConsoleGuard()
    assert topics() == {SysCommandTopic.SYS_INFO}, "so a server that skips the authorisation gets 'invalid_request'"
    bootstrapped(guard)
    ConsoleGuard()  # FLARE builds it in every process; twice does no harm


def may(role: str, right: str) -> bool:
    person = Person("someone", "clinic_a", role)
    return AuthorizationService.authorize(AuthzContext(right, person, person))[0]


@pytest.mark.usefixtures("console")
def test_forged_identities_get_no_more_than_the_site_gives():
    assert may("super", "byoc") and may("project_admin", "cat"), "what FLARE does by itself"
    bootstrapped(ConsoleGuard())
    for role in ("super", "project_admin", "lead"):
        for right in ("byoc", "cat", "tail", "head", "grep", "ls", "pwd", "report_env"):
            assert not may(role, right), (role, right)
    assert not may("super", "show_stats")
    assert may("project_admin", "show_stats") and may("lead", "check_status") and not may("lead", "abort_job")
    assert isinstance(AuthorizationService.get_authorizer(), ClosedRights)
    console_guard.close_rights()
    assert not isinstance(AuthorizationService.get_authorizer().inner, ClosedRights), "closed once"


@pytest.mark.usefixtures("console")
def test_flares_own_lines_name_the_class_of_an_exception_only():
    ConsoleGuard()
    assert os.environ[SECURE_LOGGING_VAR_NAME] == "true"
    assert SUBJECT not in secure_format_exception(ValueError(SUBJECT))


@pytest.mark.usefixtures("console")
@pytest.mark.parametrize("left", [ShellCommandProcessor, ReportEnvProcessor])
def test_a_site_whose_console_cannot_be_closed_does_not_start(left: type, monkeypatch: pytest.MonkeyPatch):
    guard = ConsoleGuard()
    ClientRequestProcessors.request_processors.append(left())
    with pytest.raises(UnsafeComponentError, match="file commands could not be removed"):
        bootstrapped(guard)
    ClientRequestProcessors.request_processors.clear()
    monkeypatch.setattr(AuthorizationService, "the_authorizer", None)
    with pytest.raises(UnsafeComponentError, match="authorisation could not be closed"):
        bootstrapped(guard)
    monkeypatch.setattr(AuthorizationService, "the_authorizer", ClosedRights(FLAuthorizer("clinic_a", {**RIGHTS})))
    monkeypatch.delenv(SECURE_LOGGING_VAR_NAME)
    with pytest.raises(UnsafeComponentError, match="secure logging"):
        check_closed()
