"""From project.yml to startup kits, with FLARE's own provisioner; nothing about the kits is ours."""

import contextlib
import copy
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvflare.lighter.constants import CtxKey
from nvflare.lighter.prov_utils import prepare_builders
from nvflare.lighter.provision import prepare_project
from nvflare.lighter.provisioner import Provisioner
from nvflare.lighter.utils import load_yaml

from med_duallora.cohorts.site_names import check_site_name
from med_duallora.errors import ConfigError, FederationError
from med_duallora.support.files import sha256_of_json

HOST = "localhost"
MAX_WORD = 40


@dataclass(frozen=True)
class Project:
    """A project file as FLARE reads it, plus the names in it.

    Args:
        values: the file's content.
        server: name of the server.
        sites: names of the clients, in the file's order.
        people: name of every console user -> role.
    """

    values: dict[str, Any]
    server: str
    sites: tuple[str, ...]
    people: dict[str, str]

    @property
    def name(self) -> str:
        """Return the project's name."""
        return str(self.values["name"])


def read_project(path: Path) -> Project:
    """Read a project file.

    Raises:
        ConfigError: it cannot be read, or has not exactly one server, no client or no name.
    """
    try:
        values = load_yaml(str(path))
    except Exception as error:  # yaml's own exceptions, and whatever FLARE's loader adds
        raise ConfigError(f"project file {path} cannot be read: {error}") from error
    if not isinstance(values, dict) or not values.get("name") or not isinstance(values.get("participants"), list):
        raise ConfigError(f"project file {path} must be a mapping with a name and a list of participants")
    members = [item for item in values["participants"] if isinstance(item, dict)]
    servers = [item.get("name") for item in members if item.get("type") == "server"]
    sites = tuple(str(item.get("name")) for item in members if item.get("type") == "client")
    if len(servers) != 1 or not sites:
        raise ConfigError(
            f"project file {path} has {len(servers)} servers and {len(sites)} clients, but it must have "
            "one server and at least one client"
        )
    people = {str(item.get("name")): str(item.get("role")) for item in members if item.get("type") == "admin"}
    return Project(values, str(servers[0]), sites, people)


def rehearsed(project: Project, sites: Sequence[str], port: int) -> Project:
    """Return the project as it is rehearsed on this machine: the server on ``localhost:port``, the chosen sites only.

    Raises:
        ConfigError: a chosen site is not in the project.
    """
    unknown = [site for site in sites if site not in project.sites]
    if unknown:
        lines = ", ".join(_written(item) for site in unknown for item in _hospital(site, site))
        raise ConfigError(
            f"the project has no site {unknown[0]!r}; it has {', '.join(project.sites)}. Add to the participants of "
            f"the project file: {lines}; or leave out --project, and the rehearsal adds them itself"
        )
    values = copy.deepcopy(project.values)
    values["participants"] = [
        item for item in values["participants"] if item.get("type") != "client" or item["name"] in sites
    ]
    for item in values["participants"]:
        if item.get("type") == "server":
            item |= {"default_host": HOST, "fed_learn_port": port, "admin_port": port}
    return Project(values, project.server, tuple(sites), project.people)


def with_own_sites(project: Project, sites: Sequence[str]) -> Project:
    """Return the project with exactly these sites: those it lacks get a hospital and an administrator of their own.

    Names of sites are taken from cohorts, so that nobody has to write YAML for a rehearsal; the server and the people
    who belong to no hospital stay as they are.

    Raises:
        ConfigError: FLARE cannot run a site of such a name.
    """
    for site in sites:
        check_site_name(site)
    members = [item for item in project.values["participants"] if isinstance(item, dict)]
    clients = {str(item.get("name")): item for item in members if item.get("type") == "client"}
    present = {item.get("org") for site, item in clients.items() if site in sites}
    absent = {item.get("org") for item in clients.values()} - present
    kept = [
        item
        for item in members
        if item.get("org") not in absent and item.get("name") not in clients.keys() - set(sites)
    ]
    taken = {str(item.get(key)) for item in members for key in ("org", "name")}
    for site in sites:
        if site not in clients:
            hospital = _free_hospital(site, taken)
            taken |= {item[key] for item in hospital for key in ("org", "name")}
            kept += hospital
    people = {str(item.get("name")): str(item.get("role")) for item in kept if item.get("type") == "admin"}
    return Project(copy.deepcopy({**project.values, "participants": kept}), project.server, tuple(sites), people)


def _free_hospital(site: str, taken: set[str]) -> list[dict[str, str]]:
    """Return participants with an organisation that nobody else has: those of 'a-b' and 'a_b' would be one."""
    number = 1
    while True:
        client, admin = _hospital(site, site if number == 1 else f"{site}-{number}")
        if not {client["org"], admin["name"]} & taken:
            return [client, admin]
        number += 1


def _hospital(site: str, word: str) -> list[dict[str, str]]:
    """Return the participants of a site: the site and the administrator of its hospital."""
    # Organisations take no '-', mail addresses no '_', and certificates at most 64 characters.
    short = word if len(word) <= MAX_WORD else word[: MAX_WORD - 9] + sha256_of_json(word)[:8]
    org = "hospital_" + short.replace("-", "_").lower()
    host = short.replace("_", "-").strip("-").lower()
    return [
        {"name": site, "type": "client", "org": org},
        {"name": f"admin@{host}.example.org", "type": "admin", "org": org, "role": "org_admin"},
    ]


def _written(participant: dict[str, str]) -> str:
    """Return a participant as a line of a project file."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in participant.items()) + "}"


def provision(project: Project, workspace: Path) -> Path:
    """Make certificates and startup kits below ``workspace``.

    Returns:
        The folder with one startup kit per participant.

    Raises:
        ConfigError: FLARE's provisioner does not accept the project.
        FederationError: it failed while it was building the kits.
    """
    values = copy.deepcopy(project.values)
    said = _Said()
    noise = io.StringIO()
    try:
        with contextlib.redirect_stderr(noise), contextlib.redirect_stdout(noise):
            provisioner = Provisioner(str(workspace), prepare_builders(values))
            outcome = provisioner.provision(prepare_project(values), logger=said)
    except (ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(f"FLARE does not accept the project {project.name}: {error}") from error
    made = outcome.get(CtxKey.CURRENT_PROD_DIR)
    if outcome.get(CtxKey.BUILD_ERROR) or not made:
        reason = "; ".join(said.errors) or noise.getvalue()
        raise FederationError(f"provisioning {project.name} in {workspace} failed: {reason}")
    return Path(made)


class _Said:
    """What the provisioner reports; it wants an object with these four methods."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def debug(self, message: str) -> None:
        """Details that nobody asked for."""

    def info(self, message: str) -> None:
        """Where the kits are; returned to the caller anyway."""

    def warning(self, message: str) -> None:
        """Shown with the errors, where there are any."""
        self.errors.append(message)

    def error(self, message: str) -> None:
        """Why the kits were not made."""
        self.errors.append(message)
