"""Where everything of a rehearsed federation lies, and which processes were started for it.

Directory:
    federation.json   this record
    provision/        startup kits of the server, the sites and the people; the root key
    server/           the server's job store
    sites/<site>/     local state and feature cache of a site
    jobs/             job folders as they were submitted
    results/          downloaded results, one folder per job
    logs/             what each process printed; FLARE's own log files lie in the kits
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from med_duallora.errors import FederationError, InputError
from med_duallora.site_kit.passable import check_passable, check_python
from med_duallora.support.files import read_object, write_json
from med_duallora.support.folders import check_writable

RECORD = "federation.json"
PROVISIONED = "provision"


@dataclass(frozen=True)
class StartedProcess:
    """A process of the federation.

    Args:
        name: of the kit it runs.
        pid: process id.
        started: seconds since the epoch; tells the process from a later one with the same id.
    """

    name: str
    pid: int
    started: float


@dataclass(frozen=True)
class Federation:
    """One rehearsed federation.

    Args:
        directory: see the module's text.
        identity: random text that every process of the federation carries in its environment.
        project: name in project.yml.
        port: of the server on this machine.
        kits: folder with one startup kit per participant.
        server: name of the server.
        sites: names of the sites.
        people: name -> role.
        origin: where the sites' subjects come from, as ``Origin.to_dict`` gives it; reports of results say so.
        backbone_sha256: of the checkpoint that the sites were given; empty: the shipped ones.
        processes: what was started last.
    """

    directory: Path
    identity: str
    project: str
    port: int
    kits: Path
    server: str
    sites: tuple[str, ...]
    people: Mapping[str, str]
    origin: Mapping[str, Any] = field(default_factory=dict)
    backbone_sha256: str = ""
    processes: tuple[StartedProcess, ...] = ()

    @classmethod
    def read(cls, directory: Path) -> "Federation":
        """Read a federation's record.

        Raises:
            InputError: there is none, or it is damaged.
        """
        path = directory.resolve() / RECORD
        try:
            values = read_object(path)
            processes = tuple(StartedProcess(**item) for item in values.pop("processes"))
            kits = path.parent / values.pop("kits")
            sites = tuple(values.pop("sites"))
            return cls(directory=path.parent, kits=kits, sites=sites, processes=processes, **values)
        except FileNotFoundError:
            raise InputError(
                f"{directory} holds no federation; `med-duallora federation up --workspace {directory}` creates one"
            ) from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} cannot be read: {error!r}") from error

    def write(self) -> None:
        """Write the record, atomically and for its owner only."""
        values = asdict(self)
        del values["directory"]
        values["kits"] = str(self.kits.relative_to(self.directory))
        write_json(self.directory / RECORD, values, mode=0o600)

    def with_process(self, process: StartedProcess) -> "Federation":
        """Return the record with one process more; it replaces an older one of the same kit."""
        others = tuple(item for item in self.processes if item.name != process.name)
        return replace(self, processes=(*others, process))

    def participants(self) -> tuple[str, ...]:
        """Return the names of the server and the sites: the kits that run as processes."""
        return (self.server, *self.sites)

    def kit(self, name: str) -> Path:
        """Return the startup kit of a participant or person.

        Raises:
            FederationError: it is missing.
        """
        kit = self.kits / name
        if not (kit / "startup").is_dir():
            raise FederationError(f"the startup kit {kit} is missing; make the federation again in a new directory")
        return kit

    def log(self, name: str) -> Path:
        """Return the file that takes what a participant's process prints."""
        return self.directory / "logs" / f"{name}.txt"

    def person(self, role: str) -> str:
        """Return somebody with this role.

        Raises:
            FederationError: the project has nobody with this role.
        """
        for name, has in self.people.items():
            if has == role:
                return name
        raise FederationError(f"the project has no person with the role {role}; add one to project.yml")


def private_directory(directory: Path) -> Path:
    """Make a directory that only its owner can enter: it will hold private keys.

    Raises:
        InputError: it lies inside a checkout of this project, FLARE does not pass its path on (see
            ``site_kit.passable``), or it holds something else.
        OSError: it cannot be made, or nothing can be written in it.
    """
    directory = directory.resolve()
    for place in (directory, *directory.parents):
        if (place / "custom" / "med_duallora").is_dir():
            raise InputError(
                f"{directory} lies inside the checkout {place}: startup kits hold private keys, which must never be "
                "committed or packed into a job; choose a directory outside it"
            )
    check_passable(directory, "the federation's folder")
    check_python()
    if (directory / PROVISIONED).is_dir():
        raise InputError(
            f"{directory} holds {PROVISIONED}/ with private keys, but no federation: making it was interrupted. Remove "
            f"{directory / PROVISIONED}, or choose a new directory"
        )
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} exists and holds no federation; choose a new directory")
    check_writable(directory)  # before its mode is set: whoever closed it for writing meant it
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    return directory
