"""Closing a site's startup kit: everything is checked and prepared first, then written at once."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from med_duallora.errors import KitError
from med_duallora.site_kit import wanted
from med_duallora.site_kit.kit import Json, SiteKit, read_kit, unknown_parts
from med_duallora.site_kit.layout import is_ours
from med_duallora.site_kit.modes import WideMode, narrow, wide_modes
from med_duallora.site_kit.passable import check_passable
from med_duallora.support.files import read_object, write_text

SITE_CONFIG_FILE = "med_duallora_site.json"
OF_FLARE = ("resources.json", "authorization.json", "privacy.json")
"""What FLARE reads; a site configuration is readable by its account alone."""
WHY = {
    "class_allow_list": "a job may build only the four classes that Med-DualLoRA needs at a site; FLARE's list holds "
    "log streamers, event converters and executors that send data by their own means",
    "class_list_enforcement_mode": "a class that is not listed must stop the job",
    "allow_log_streaming": "FLARE 2.9 sends the site's logs to the server unless this is false",
    "components": "the log streamer is removed; the console guard takes away the console's file commands; the literal "
    "guard refuses jobs whose configuration is not literal JSON; the message gate lets in only the server's messages, "
    "and of its commands a short list, always authorised",
    "permissions": "nobody brings code with a job (byoc) and nobody reads this site's files through the console",
    "scopes": "every job's results pass our egress filter, whatever the job says; the site configuration is found here",
    "default_scope": "a job that names no scope runs in ours; a job that names another is refused",
    "guard": "the egress guard acts after all filters of a job, and on fed events, statistics and error texts",
    "mode": "other accounts of this machine must neither change the kit nor read its private keys",
    "policy": "a site says itself what it lets out: a key that was missing has its strict value; change it where this "
    "site agrees to more",
    "worded": "the same as before in today's words; the default job needs 'shared', if this site agrees to it",
    "template": "fill in the paths and agree on the policy; nothing in this file leaves the site",
}


@dataclass(frozen=True)
class Change:
    """One change to a startup kit.

    Args:
        file: relative to the kit.
        setting: what changed in it.
        before: what it was, shortened.
        after: what it is now, shortened.
        why: one sentence for the site administrator.
    """

    file: str
    setting: str
    before: str
    after: str
    why: str

    def __str__(self) -> str:
        return f"{self.file}: {self.setting}: {self.before} -> {self.after}  ({self.why})"


def harden(startup_kit: Path, site_config: Path | None = None, dry_run: bool = False) -> list[Change]:
    """Close the channels of a site's startup kit; a second run changes nothing.

    Writes local/resources.json, local/authorization.json and local/privacy.json, and, where no site configuration is
    given and none is there, a template of it (local/med_duallora_site.json). To one that is there it adds the keys of
    the policy that are missing, with their strict values, and changes nothing else in it. Other accounts lose the
    rights to change what is in the kit and to read its private keys.

    Args:
        startup_kit: directory with ``startup`` and ``local``, as FLARE's provisioning made it.
        site_config: the site's configuration file (see ``config.SiteConfig``).
        dry_run: only tell what would change.

    Returns:
        What changed, in order.

    Raises:
        KitError: the kit is not understood; nothing was written.
        InputError: FLARE does not pass the kit's path on to the processes of its jobs.
    """
    kit = read_kit(startup_kit.absolute())
    check_passable(kit.directory, "the startup kit")
    unknown = unknown_parts(_without_ours(kit))
    if unknown:
        raise KitError(f"{kit.local('resources.json')} has {unknown[0]}; remove it, or harden this site by hand")
    _check_privacy(kit)
    place = (site_config or kit.local(SITE_CONFIG_FILE)).absolute()
    if site_config is not None and not place.is_file():
        raise KitError(f"site configuration {place} is not there")
    files: dict[str, Json] = {
        "resources.json": wanted.resources(_without_ours(kit).resources),
        "authorization.json": wanted.authorization(kit.authorization),
        "privacy.json": wanted.privacy(place),
    }
    changes = list(_changes(kit, files))
    if site_config is None and not place.exists():
        files[SITE_CONFIG_FILE] = wanted.site_config_template(kit.directory)
        changes.append(Change(f"local/{SITE_CONFIG_FILE}", "template", "not there", "written", WHY["template"]))
    elif added := list(_policy_changes(place)):
        files[str(place)] = wanted.completed(read_object(place))
        changes += added
    wide = wide_modes(kit.directory)
    changes += map(_mode_change, wide)
    if not dry_run:
        narrow(wide)
        _write(kit, files)
    return changes


def _mode_change(found: WideMode) -> Change:
    return Change(str(found.path), "mode", f"{found.before:o}", f"{found.after:o}", WHY["mode"])


def _without_ours(kit: SiteKit) -> SiteKit:
    """Return a kit without the components of this package, in whatever layout: today's take their place."""
    components = kit.resources.get("components")
    if not isinstance(components, list):
        return kit
    return replace(kit, resources={**kit.resources, "components": [item for item in components if not is_ours(item)]})


def _check_privacy(kit: SiteKit) -> None:
    """Refuse a privacy policy of somebody else rather than lose it."""
    if kit.privacy is None:
        return
    try:
        ours = [scope["name"] for scope in kit.privacy["scopes"]] == [wanted.SCOPE]
        ours = ours and len(kit.privacy["components"]) == 1 and is_ours(kit.privacy["components"][0])
    except (KeyError, TypeError):
        ours = False
    if not ours:
        raise KitError(
            f"{kit.local('privacy.json')} holds another privacy policy. Move it aside, run site-kit again, and add the "
            f"old scopes to the new file; every scope needs the filter {wanted.FILTER_PATH}"
        )


def _changes(kit: SiteKit, files: Mapping[str, Json]) -> Iterator[Change]:
    where = "local/resources.json"
    for key in ("class_list_enforcement_mode", "class_allow_list", "allow_log_streaming", "components"):
        before, after = kit.resources.get(key), files["resources.json"][key]
        if before != after:
            yield Change(where, key, _short(before), _short(after), WHY[key])
    if kit.authorization != files["authorization.json"]:
        closed = ", ".join(wanted.CLOSED_RIGHTS)
        yield Change("local/authorization.json", closed, _rights(kit.authorization), "nobody", WHY["permissions"])
    yield from _privacy_changes(kit.privacy or {}, files["privacy.json"])


def _privacy_changes(before: Json, after: Json) -> Iterator[Change]:
    rows = (("scopes", "scopes"), ("default_scope", "default_scope"), ("components", "guard"))
    for key, why in rows:
        if before.get(key) != after[key]:
            yield Change("local/privacy.json", key, _short(before.get(key)), _short(after[key]), WHY[why])


def _policy_changes(place: Path) -> Iterator[Change]:
    """Give the keys that a site configuration's policy lacks, and what it says in the words of an earlier version.

    What else may be wrong in it, preflight says.
    """
    try:
        values = read_object(place, unique=True)
    except (OSError, ValueError):
        return
    policy = values.get("policy", {})
    for key, value in wanted.completed(values)["policy"].items() if isinstance(policy, dict) else ():
        if key not in policy:
            yield Change(place.name, f"policy.{key}", "not there", json.dumps(value), WHY["policy"])
        elif policy[key] != value:
            yield Change(place.name, f"policy.{key}", json.dumps(policy[key]), json.dumps(value), WHY["worded"])


def _short(value: Any) -> str:
    """Return a value as an administrator reads it: names of components and scopes, numbers of classes."""
    if value is None:
        return "not there"
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return ", ".join(str(item.get("id") or item.get("name")) for item in value) or "none"
    if isinstance(value, list):
        return f"{len(value)} classes"
    return json.dumps(value)


def _rights(authorization: Json) -> str:
    permissions = authorization["permissions"].items()
    open_roles = [role for role, rights in permissions if wanted.open_rights(rights)]
    return ", ".join(open_roles) or "nobody, according to FLARE's default file"


def _write(kit: SiteKit, files: Mapping[str, Json]) -> None:
    """Write all files, each named within ``local`` or by its whole path; where one fails, put the others back."""
    before = {name: path.read_bytes() if (path := kit.local(name)).exists() else None for name in files}
    path = kit.directory
    try:
        for name, values in files.items():
            text, path = json.dumps(values, indent=2) + "\n", kit.local(name)
            if before[name] != text.encode():
                write_text(path, text, mode=0o644 if name in OF_FLARE else 0o600)
    except OSError as error:
        for name, content in before.items():
            _restore(kit.local(name), content)
        raise KitError(f"{path} cannot be written: {error.strerror or error}; nothing changed") from error


def _restore(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    elif path.read_bytes() != content:
        path.write_bytes(content)
