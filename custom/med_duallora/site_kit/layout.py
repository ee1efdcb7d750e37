"""Whether a startup kit or a job folder names classes of an earlier layout of the package.

Class paths move with their files. A kit that was closed earlier lists paths that are not there any more, and FLARE then
fails at a place that tells nobody what to do.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import med_duallora
from med_duallora.errors import KitError
from med_duallora.site_kit.kit import SiteKit, read_part

PACKAGE = Path(med_duallora.__file__).parent
OURS = f"{PACKAGE.name}."
CLASS_PATH = re.compile(rf"{PACKAGE.name}\.(\w+\.)+[A-Z]\w*", re.ASCII)


def is_ours(component: Any) -> bool:
    """Return whether a component's class is of this package, in whatever layout."""
    path = component.get("path") if isinstance(component, dict) else None
    return isinstance(path, str) and path.startswith(OURS)


def former_paths(values: Any) -> Iterator[str]:
    """Give every class path in JSON values that leads into this package, but to a file that is not there."""
    if isinstance(values, str) and CLASS_PATH.fullmatch(values):
        _, *modules, _ = values.split(".")
        if not PACKAGE.joinpath(*modules).with_suffix(".py").is_file():
            yield values
    elif isinstance(values, dict | list):
        for item in values.values() if isinstance(values, dict) else values:
            yield from former_paths(item)


def check_site_layout(kit: SiteKit) -> None:
    """Refuse a site's kit that was closed for an earlier layout (KitError)."""
    command = f"med-duallora site-kit --startup-kit {kit.directory}"
    _check({"resources.json": kit.resources, "privacy.json": kit.privacy}, command)


def check_server_layout(kit: Path) -> None:
    """Refuse a server's kit that was prepared for an earlier layout (KitError)."""
    path = kit / "local" / "resources.json"
    if path.exists():
        _check({path.name: read_part(path, "")}, f"med-duallora server-kit --startup-kit {kit} --storage DIR")


def check_job_layout(folder: Path, components: Any) -> None:
    """Refuse a job folder whose components are of an earlier layout (KitError)."""
    former = next(former_paths(components), "")
    if former:
        raise KitError(
            f"{folder} was exported for an earlier layout of med-duallora (it names {former}, which is gone): export "
            "it again, `med-duallora jobs export --out DIR`"
        )


def _check(files: Mapping[str, Any], command: str) -> None:
    for name, values in files.items():
        if former := next(former_paths(values), ""):
            raise KitError(
                f"this startup kit was prepared for an earlier layout of med-duallora ({name} names {former}, which is "
                f"gone): run again `{command}`"
            )
