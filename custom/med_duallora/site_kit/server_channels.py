"""What a job, an unsigned message or another account of the machine could do at the server, by its startup kit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from med_duallora.errors import KitError
from med_duallora.site_kit import wanted
from med_duallora.site_kit.channel import Channel
from med_duallora.site_kit.file_channels import kit_files
from med_duallora.site_kit.kit import PROTECTED_CONNECTIONS, read_part
from med_duallora.site_kit.layout import check_server_layout

PREPARE = "run med-duallora server-kit --startup-kit on this kit"


@dataclass(frozen=True)
class ServerKit:
    """The parts of a server's startup kit that decide what a job may do there.

    Args:
        directory: of the kit; holds ``startup`` and ``local``.
        settings: content of startup/fed_server.json.
        resources: content of local/resources.json, or of resources.json.default where there is no other.
        default: content of local/resources.json.default.
    """

    directory: Path
    settings: dict[str, Any]
    resources: dict[str, Any]
    default: dict[str, Any]

    @property
    def source(self) -> str:
        """Return where the resources stand."""
        written = (self.directory / "local" / "resources.json").exists()
        return "local/resources.json" if written else "local/resources.json.default"


def inspect_server_kit(startup_kit: Path) -> list[Channel]:
    """Return the state of what is judged of a server's startup kit, read-only.

    Raises:
        KitError: it is not the kit of a FLARE 2.9 server, or was prepared for an earlier layout of this package.
    """
    directory = startup_kit.absolute()
    check_server_layout(directory)
    default = read_part(directory / "local" / "resources.json.default", "the kit is not complete")
    written = directory / "local" / "resources.json"
    resources = read_part(written, "") if written.exists() else default
    settings = read_part(directory / "startup" / "fed_server.json", f"is {directory} the kit of a FLARE server?")
    if not isinstance(resources.get("components"), list) or not isinstance(settings.get("servers"), list):
        raise KitError(f"{directory} is not a server kit of FLARE 2.9")
    kit = ServerKit(directory, settings, resources, default)
    return [channel for check in CHECKS for channel in check(kit)]


def _literal_jobs(kit: ServerKit) -> Iterator[Channel]:
    there = wanted.LITERAL_GUARD in kit.resources["components"]
    found = f"{'the' if there else 'no'} literal guard is in {kit.source}"
    for name in (
        "files and environment variables of the server, read by references in a job's configuration",
        "job configurations in other formats than JSON at the server",
    ):
        yield Channel(name, not there, found, "" if there else PREPARE)


def _names(kit: ServerKit) -> Iterator[Channel]:
    there = wanted.CONNECTION_GUARD in kit.resources["components"]
    found = f"{'the' if there else 'no'} connection guard is in {kit.source}"
    name = "messages of a member in the server's or another member's name"
    yield Channel(name, not there, found, "" if there else PREPARE)


def _classes(kit: ServerKit) -> Iterator[Channel]:
    name = "classes that a job may name at the server"
    mode, listed = kit.resources.get("class_list_enforcement_mode", "enforce"), kit.resources.get("class_allow_list")
    if mode != "enforce" or not isinstance(listed, list):
        what = f"class_list_enforcement_mode is {mode!r}" if mode != "enforce" else "there is no class_allow_list"
        fix = (
            "write class_list_enforcement_mode and class_allow_list as in local/resources.json.default, then " + PREPARE
        )
        yield Channel(name, True, f"{what} in {kit.source}", fix)
        return
    known = (*(kit.default.get("class_allow_list") or ()), *wanted.SERVER_CLASSES)
    foreign = [entry for entry in listed if entry not in known]
    missing = [entry for entry in wanted.SERVER_CLASSES if entry not in listed]
    if foreign:
        found, fix = (
            f"class_allow_list holds {len(foreign)} others: {foreign[0]}, ...",
            f"remove them from {kit.source}",
        )
    elif missing:
        found, fix = f"{len(missing)} classes that Med-DualLoRA needs are missing in {kit.source}", PREPARE
    else:
        found, fix = f"class_allow_list in {kit.source} holds FLARE's own list and what Med-DualLoRA needs", ""
    yield Channel(name, bool(fix), found, fix)


def _signatures(kit: ServerKit) -> Iterator[Channel]:
    said = kit.settings.get("require_signed_jobs", True)
    ca = (kit.directory / "startup" / "rootCA.pem").exists()
    found = (
        f"require_signed_jobs is {said if 'require_signed_jobs' in kit.settings else 'not set'!r}, rootCA.pem is "
        + ("there" if ca else "missing")
    )
    good = said is True and ca
    fix = "" if good else "ask the project administrator for a kit that demands signatures"
    yield Channel("jobs that nobody signed, or that were changed on the way", not good, found, fix)


def _start(kit: ServerKit) -> Iterator[Channel]:
    path = kit.directory / "startup" / "sub_start.sh"
    secure = path.exists() and "secure_train=true" in path.read_text(encoding="utf-8")
    found = f"startup/sub_start.sh starts FLARE with{'' if secure else 'out'} secure_train=true"
    fix = "" if secure else "restore startup/sub_start.sh from the provisioned kit"
    yield Channel("commands that nobody authorises", not secure, found, fix)
    kinds = [
        server.get("connection_security", "mtls") for server in kit.settings["servers"] if isinstance(server, dict)
    ]
    open_ones = [kind for kind in kinds if kind not in PROTECTED_CONNECTIONS]
    found = f"connection_security is {(open_ones or kinds or ['not set'])[0]!r} in startup/fed_server.json"
    yield Channel("listeners on the network", bool(open_ones), found, "ask for a kit with mtls" if open_ones else "")


def _storage(kit: ServerKit) -> Iterator[Channel]:
    shared = sorted(_stores(kit.resources) & _stores(kit.default))  # FLARE's default is one folder for all servers
    found = f"{kit.source} keeps jobs and results {'in ' + shared[0] if shared else 'in a place of their own'}"
    fix = f"{PREPARE}, with --storage" if shared else ""
    yield Channel("jobs and results in a folder that all servers of the machine share", bool(shared), found, fix)


def _stores(resources: Any) -> set[str]:
    """Return the folders that resources keep jobs and snapshots in; ``/`` alone stands for an address."""
    if isinstance(resources, dict):
        own = {str(value) for key, value in resources.items() if key in ("root_dir", "uri_root") and value != "/"}
        return own.union(*map(_stores, resources.values()))
    return set().union(*map(_stores, resources)) if isinstance(resources, list) else set()


def _files(kit: ServerKit) -> Iterator[Channel]:
    yield from kit_files(kit.directory)


CHECKS: tuple[Callable[[ServerKit], Iterator[Channel]], ...] = (
    _literal_jobs,
    _names,
    _classes,
    _signatures,
    _start,
    _storage,
    _files,
)
