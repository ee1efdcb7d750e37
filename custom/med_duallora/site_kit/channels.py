"""Every way by which bytes can leave a site, its state in a startup kit, and the evidence for it."""

import importlib.metadata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from med_duallora.errors import KitError
from med_duallora.site_kit import wanted
from med_duallora.site_kit.channel import HARDEN, Channel
from med_duallora.site_kit.file_channels import kit_files, site_files
from med_duallora.site_kit.kit import PROTECTED_CONNECTIONS, SiteKit, is_of_server, read_kit, read_part, unknown_parts
from med_duallora.site_kit.layout import check_site_layout
from med_duallora.site_kit.policy_channels import site_config_of, site_policy
from med_duallora.site_kit.server_channels import inspect_server_kit

KNOWN_FLARE = "2.9"
LOCAL_HANDLERS = (
    "logging.StreamHandler",
    "logging.FileHandler",
    "logging.handlers.RotatingFileHandler",
    "logging.handlers.TimedRotatingFileHandler",
    "logging.NullHandler",
)


def inspect_kit(startup_kit: Path) -> list[Channel]:
    """Return the state of every channel of a site's startup kit, or of what is judged of a server's, read-only.

    Raises:
        KitError: the kit is not understood at all, or was closed for an earlier layout of this package.
    """
    if is_of_server(startup_kit):
        return inspect_server_kit(startup_kit)
    kit = read_kit(startup_kit.absolute())
    check_site_layout(kit)
    return [channel for check in CHECKS for channel in check(kit)]


def _task_results(kit: SiteKit) -> Iterator[Channel]:
    name = "task results (train, validate, submit_model)"
    scopes = (kit.privacy or {}).get("scopes")
    if not scopes or not isinstance(scopes, list):
        yield Channel(
            name, True, "there is no local/privacy.json with scopes: only the job decides what leaves", HARDEN
        )
        return
    bare = [str(scope.get("name")) for scope in scopes if not _is_filtered(scope)]
    default = (kit.privacy or {}).get("default_scope")
    if bare:
        yield Channel(name, True, f"scope {bare[0]!r} of local/privacy.json has no {wanted.FILTER_PATH}", HARDEN)
    elif default not in [scope.get("name") for scope in scopes]:
        yield Channel(
            name, True, f"default_scope of local/privacy.json is {default!r}, which is not a scope there", HARDEN
        )
    else:
        yield Channel(name, False, f"local/privacy.json: every scope filters them; default_scope is {default!r}")


def _is_filtered(scope: Any) -> bool:
    """Our filter must come last in a scope, so that no later one of the site can add anything."""
    filters = scope.get("task_result_filters") if isinstance(scope, dict) else None
    return bool(filters) and isinstance(filters, list) and filters[-1].get("path") == wanted.FILTER_PATH


def _after_filters(kit: SiteKit) -> Iterator[Channel]:
    components = (kit.privacy or {}).get("components") or []
    there = bool((kit.privacy or {}).get("scopes")) and any(_path(item) == wanted.GUARD["path"] for item in components)
    found = "local/privacy.json: the egress guard is a component" if there else "no egress guard in local/privacy.json"
    for name in (
        "what a job's own filters add to a task result",
        "fed events (analytics, converted log events)",
        "answers to show_stats and show_errors",
        "public properties of the peer context",
    ):
        yield Channel(name, not there, found, "" if there else HARDEN)


def _logs(kit: SiteKit) -> Iterator[Channel]:
    allowed = kit.resources.get("allow_log_streaming", True)
    found = f"allow_log_streaming is {allowed!r} in {_source(kit, 'resources.json')}"
    yield Channel("live streaming of a job's logs", allowed is not False, found, HARDEN if allowed is not False else "")
    streams = any(_path(item) == wanted.STREAMER_PATH for item in kit.resources.get("components", []))
    found = f"{'there is a' if streams else 'no'} SiteLogStreamer in {_source(kit, 'resources.json')}"
    yield Channel("streaming of error_log.txt", streams, found, HARDEN if streams else "")
    yield _log_handlers(kit)


def _log_handlers(kit: SiteKit) -> Channel:
    name = "log records sent over the network"
    path = kit.local("log_config.json")
    path = path if path.exists() else path.with_name("log_config.json.default")
    try:
        handlers = read_part(path, "").get("handlers", {})
        foreign = sorted(
            str(item.get("class")) for item in handlers.values() if item.get("class") not in LOCAL_HANDLERS
        )
    except (KitError, AttributeError) as error:
        return Channel(name, True, f"{path.name} cannot be judged: {error}", f"restore {path.name}")
    if foreign:
        return Channel(name, True, f"{path.name} has a handler {foreign[0]}", "use console and file handlers only")
    return Channel(name, False, f"{path.name} has console and file handlers only")


def _job_classes(kit: SiteKit) -> Iterator[Channel]:
    name = "classes that send data by their own means, named by a job"
    mode = kit.resources.get("class_list_enforcement_mode", "enforce")
    listed = kit.resources.get("class_allow_list")
    where = _source(kit, "resources.json")
    if mode != "enforce" or not isinstance(listed, list):
        what = f"class_list_enforcement_mode is {mode!r}" if mode != "enforce" else "there is no class_allow_list"
        yield Channel(name, True, f"{what} in {where}", HARDEN)
        return
    foreign = [entry for entry in listed if entry not in wanted.SITE_CLASSES]
    if foreign:
        yield Channel(name, True, f"class_allow_list in {where} holds {len(foreign)} others: {foreign[0]}, ...", HARDEN)
    else:
        yield Channel(name, False, f"class_allow_list in {where} holds nothing but what Med-DualLoRA needs")


def _literal_jobs(kit: SiteKit) -> Iterator[Channel]:
    there = wanted.LITERAL_GUARD in kit.resources.get("components", [])  # as a whole: FLARE skips a disabled component
    found = f"{'the' if there else 'no'} literal guard is in {_source(kit, 'resources.json')}"
    for name in (
        "files, paths and environment variables of the site, read by references in a job's configuration",
        "job configurations in other formats than JSON, which include files and addresses",
    ):
        yield Channel(name, not there, found, "" if there else HARDEN)


def _rights(kit: SiteKit) -> Iterator[Channel]:
    where = _source(kit, "authorization.json")
    rows = (
        ("code brought by a job (byoc)", ("byoc", "server-predeployed-flwr")),
        ("files read through the console", ()),
    )
    for name, rights in rows:
        roles = sorted(role for role, given in kit.authorization["permissions"].items() if _gives(given, rights))
        found = f"{where} gives it to {', '.join(roles)}" if roles else f"{where} gives it to nobody"
        yield Channel(name, bool(roles), found, HARDEN if roles else "")


def _gives(given: Any, rights: tuple[str, ...]) -> bool:
    names = {" ".join(right.lower().split()) for right in wanted.open_rights(given)}
    code = {"byoc", "server-predeployed-flwr"}
    return bool(names & code if rights else names - code)


def _console(kit: SiteKit) -> Iterator[Channel]:
    there = any(_path(item) == wanted.CONSOLE_GUARD["path"] for item in kit.resources.get("components", []))
    found = "the console guard is" if there else "there is no console guard"
    for name in (
        "file commands of a server that skips or forges the user's rights",
        "the path of the site's folder (report_env)",
        "texts of exceptions in FLARE's own log lines",
    ):
        yield Channel(name, not there, f"{found} in {_source(kit, 'resources.json')}", "" if there else HARDEN)


def _messages(kit: SiteKit) -> Iterator[Channel]:
    there = any(_path(item) == wanted.MESSAGE_GATE["path"] for item in kit.resources.get("components", []))
    found = f"{'the message gate is' if there else 'there is no message gate'} in {_source(kit, 'resources.json')}"
    for name in (
        "messages of other members to the site's processes",
        "commands that the sender does not want authorised, or that name no job (delete_run of the kit's folders)",
        "commands beyond the short list (log levels, network agent, facts about the machine)",
        "events and tasks that others send as the site's own",
    ):
        yield Channel(name, not there, found, "" if there else HARDEN)


def _registration(kit: SiteKit) -> Iterator[Channel]:
    unknown = unknown_parts(kit)
    found = unknown[0] if unknown else "resources hold FLARE 2.9's own keys and components only"
    fix = "remove it from the site's resources" if unknown else ""
    yield Channel("what the site tells the server when it registers, and further components", bool(unknown), found, fix)


def _jobs_and_transport(kit: SiteKit) -> Iterator[Channel]:
    signed = kit.client.get("require_signed_jobs", True) is True
    ca = (kit.directory / "startup" / "rootCA.pem").exists()
    found = f"require_signed_jobs is {kit.client.get('require_signed_jobs', 'not set')!r}, rootCA.pem is " + (
        "there" if ca else "missing"
    )
    name = "jobs that nobody signed, or that were changed on the way"
    yield Channel(name, not (signed and ca), found, "" if signed and ca else "ask the project administrator for a kit")
    start = kit.directory / "startup" / "sub_start.sh"
    secure = start.exists() and "secure_train=true" in start.read_text(encoding="utf-8")
    found = f"startup/sub_start.sh starts FLARE with{'' if secure else 'out'} secure_train=true"
    name = "commands that nobody authorises"
    yield Channel(name, not secure, found, "" if secure else "restore startup/sub_start.sh from the provisioned kit")
    security = kit.client["client"].get("connection_security", "mtls")
    good = security in PROTECTED_CONNECTIONS
    found = f"connection_security is {security!r} in startup/fed_client.json"
    yield Channel("listeners on the network", not good, found, "" if good else "ask for a kit with mtls")


def _files(kit: SiteKit) -> Iterator[Channel]:
    yield from kit_files(kit.directory)
    config = site_config_of(kit.directory)
    if config:  # a configuration that is missing or wrong is told with the policy
        yield from site_files(config)


def _facts(kit: SiteKit) -> Iterator[Channel]:  # noqa: ARG001  all checks have one signature
    name = "facts about the site (check_status, heartbeats)"
    found = (
        "FLARE reports to the server, and to whoever has the right to ask there: the site's name, job ids and states; "
        "nothing of the data"
    )
    yield Channel(name, False, found, is_reported=True)


def _version(kit: SiteKit) -> Iterator[Channel]:  # noqa: ARG001  all checks have one signature
    name = "channels of a FLARE version that this program does not know"
    try:
        version = importlib.metadata.version("nvflare")
    except importlib.metadata.PackageNotFoundError:
        yield Channel(name, True, "nvflare is not installed beside this program", "run preflight where FLARE runs")
        return
    known = version.split("+")[0].rsplit(".", 1)[0] == KNOWN_FLARE
    yield Channel(name, not known, f"nvflare {version} is installed", "" if known else f"use nvflare {KNOWN_FLARE}.x")


def _path(component: Any) -> Any:
    return component.get("path") if isinstance(component, dict) else None


def _source(kit: SiteKit, name: str) -> str:
    return f"local/{name}" if kit.local(name).exists() else f"local/{name}.default"


CHECKS: tuple[Callable[[SiteKit], Iterator[Channel]], ...] = (
    _task_results,
    _after_filters,
    _logs,
    _job_classes,
    _literal_jobs,
    _rights,
    _console,
    _messages,
    _registration,
    _jobs_and_transport,
    site_policy,
    _files,
    _facts,
    _version,
)
