"""Reading a FLARE startup kit of a site: its files, and whether it is of the kind that is known here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from med_duallora.errors import KitError
from med_duallora.support.files import read_object

Json = dict[str, Any]

RESOURCE_KEYS = frozenset(
    {"format_version", "class_list_enforcement_mode", "class_allow_list", "allow_log_streaming", "client", "components"}
)
"""Top-level keys of a site's resources in FLARE 2.9. FLARE advertises every other one to the server."""
CLIENT_KEYS = frozenset({"retry_timeout", "compression"})
COMPONENT_PREFIXES = (
    "nvflare.app_common.resource_managers.",
    "nvflare.app_common.resource_consumers.",
    "nvflare.app_common.job_launcher.client_process_launcher.",
    "nvflare.app_common.logging.site_log_streamer.",
    "med_duallora.flare.site.console_guard.",
    "med_duallora.flare.wire.literal_guard.",
    "med_duallora.flare.site.message_gate.",
)
"""Where the components of a site's resources come from; another component could send by means of its own."""
PROTECTED_CONNECTIONS = ("mtls", "tls")
"""What startup/fed_client.json and fed_server.json call a connection that others cannot read."""
EXTRA_RESOURCES = "*_resources.json"


@dataclass(frozen=True)
class SiteKit:
    """The parts of a site's startup kit that decide what can leave.

    Args:
        directory: of the kit; holds ``startup`` and ``local``.
        site: name of the site.
        client: content of startup/fed_client.json.
        resources: content of local/resources.json, or of resources.json.default where there is no other.
        authorization: likewise of authorization.json.
        privacy: content of local/privacy.json; None where there is none.
    """

    directory: Path
    site: str
    client: Json
    resources: Json
    authorization: Json
    privacy: Json | None

    def local(self, name: str) -> Path:
        """Return the path of a file in ``local``."""
        return self.directory / "local" / name

    def extra_resources(self) -> list[Path]:
        """Return further resource files that FLARE would load besides resources.json."""
        return sorted(path for part in ("startup", "local") for path in (self.directory / part).glob(EXTRA_RESOURCES))


def is_of_server(directory: Path) -> bool:
    """Return whether a startup kit is the server's."""
    return (directory / "startup" / "fed_server.json").exists()


def read_kit(directory: Path) -> SiteKit:
    """Read a site's startup kit without changing it.

    Raises:
        KitError: it is not a kit of a site, a file is missing or damaged, or FLARE 2.9 did not make it.
    """
    if is_of_server(directory):
        raise KitError(f"{directory} is the server's startup kit; give the kit of a site")
    client = read_part(directory / "startup" / "fed_client.json", f"is {directory} the startup kit of a FLARE site?")
    default = read_part(directory / "local" / "resources.json.default", "the kit is not complete")
    _check_client(client, directory)
    _check_version(default, directory)
    resources = _current(directory, "resources.json")
    privacy_path = directory / "local" / "privacy.json"
    privacy = read_part(privacy_path, "") if privacy_path.exists() else None
    authorization = _current(directory, "authorization.json")
    if not isinstance(authorization.get("permissions"), dict):
        raise KitError(f"{directory / 'local' / 'authorization.json'} has no permissions")
    return SiteKit(directory, client["client"]["fqsn"], client, resources, authorization, privacy)


def read_part(path: Path, hint: str) -> Json:
    """Return a JSON object (KitError names the file)."""
    try:
        return read_object(path)
    except OSError as error:
        raise KitError(f"{path}: {error.strerror or error}" + (f"; {hint}" if hint else "")) from error
    except ValueError as error:
        raise KitError(f"{path}: {error}") from error


def _current(directory: Path, name: str) -> Json:
    path = directory / "local" / name
    return read_part(path if path.exists() else path.with_name(name + ".default"), "the kit is not complete")


def _check_client(client: Json, directory: Path) -> None:
    inner = client.get("client")
    good = client.get("format_version") == 2 and isinstance(inner, dict) and isinstance(inner.get("fqsn"), str)
    if not good or not isinstance(client.get("servers"), list):
        raise KitError(f"{directory / 'startup' / 'fed_client.json'} is not one that FLARE 2.9 writes for a site")


def _check_version(default: Json, directory: Path) -> None:
    missing = sorted(RESOURCE_KEYS - set(default))
    if default.get("format_version") != 2 or missing:
        what = f"it has no {missing[0]}" if missing else f"format_version is {default.get('format_version')!r}"
        raise KitError(
            f"{directory / 'local' / 'resources.json.default'} was not written by FLARE 2.9 ({what}). This program "
            "knows only 2.9; another version may have channels that it does not know"
        )


def unknown_parts(kit: SiteKit) -> list[str]:
    """Return what in the resources is of an unknown kind; each could be a channel."""
    found = [
        f"unknown key {key!r}, which FLARE sends to the server" for key in sorted(set(kit.resources) - RESOURCE_KEYS)
    ]
    client = kit.resources.get("client")
    if isinstance(client, dict):
        found += [f"unknown key 'client.{key}'" for key in sorted(set(client) - CLIENT_KEYS)]
    components = kit.resources.get("components")
    if not isinstance(components, list):
        return [*found, "components is not a list"]
    for item in components:
        path = item.get("path") if isinstance(item, dict) else None
        if not isinstance(path, str) or not path.startswith(COMPONENT_PREFIXES):
            found.append(f"component {path!r}, which may send data by its own means")
    return [*found, *(f"a further resource file {path.name}" for path in kit.extra_resources())]
