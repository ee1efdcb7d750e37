"""What the administrators of the server and of the sites do to their kits before the first start."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

from med_duallora.errors import KitError
from med_duallora.settings.config import SiteConfig, assigned
from med_duallora.site_kit.hardening import SITE_CONFIG_FILE, Change, harden
from med_duallora.site_kit.kit import read_part
from med_duallora.site_kit.layout import former_paths
from med_duallora.site_kit.modes import narrow, wide_modes
from med_duallora.site_kit.passable import check_passable
from med_duallora.site_kit.rights import POLICY, with_running_adapter
from med_duallora.site_kit.wanted import SERVER_CLASSES, SERVER_GUARDS, site_config_template
from med_duallora.support.files import write_json

SITE_CONFIG_PLACE = Path("local") / SITE_CONFIG_FILE
"""Of the site's configuration in its kit."""


def install_server(kit: Path, storage: Path) -> Path:
    """Let jobs use this package at the server, and keep its jobs below ``storage`` instead of in a shared folder.

    FLARE's default keeps the jobs of all servers of a machine in one temporary folder. The server builds jobs from
    literal JSON only, as the sites do, and takes a message's origin from its connection only. Whoever may download a
    job's result may ask the running job for its last adapter (``rights``), which a server that dies would take along.
    Whatever else an administrator wrote into ``local/resources.json`` and ``local/authorization.json`` stays as it is,
    but for our classes that an earlier layout had elsewhere; where nothing is left to do, a file is not touched. Other
    accounts of the machine lose the rights to change the kit and to read its private key.

    Returns:
        The path of ``local/resources.json``.

    Raises:
        KitError: the kit has no server resources, or none that this function understands; nothing was written.
        InputError: FLARE does not pass the kit's path on to the processes of its jobs.
    """
    check_passable(kit.absolute(), "the startup kit")
    written = kit / "local" / "resources.json"
    source = written if written.exists() else written.with_name("resources.json.default")
    before = read_part(source, f"is {kit} the startup kit of a FLARE server?")
    values = copy.deepcopy(before)
    try:
        allowed = [name for name in values["class_allow_list"] if not any(former_paths(name))]
        values["class_allow_list"] = [*allowed, *(name for name in SERVER_CLASSES if name not in allowed)]
        values["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(storage / "snapshots")
        managers = [item for item in values["components"] if item["id"] == "job_manager"]
        managers[0]["args"]["uri_root"] = str(storage / "jobs")
        kept = [item for item in values["components"] if not any(former_paths(item))]
        values["components"] = [*kept, *(copy.deepcopy(guard) for guard in SERVER_GUARDS if guard not in kept)]
    except (KeyError, TypeError, IndexError) as error:
        raise KitError(
            f"{kit} is not a server kit of FLARE 2.9: its resources have no {error}; look at local/{source.name}"
        ) from error
    rights = with_running_adapter(kit)
    if values != before or source != written:
        write_json(written, values, mode=0o644)
    if rights is not None:
        write_json(written.with_name(POLICY), rights, mode=0o644)
    narrow(wide_modes(kit))
    return written


def install_site(kit: Path, places: Mapping[str, str | None], settings: Sequence[str] = ()) -> list[Change]:
    """Write the site's configuration into its kit and close the kit's open channels.

    Args:
        kit: startup kit of the site.
        places: ``data_dir``, ``state_dir`` and so on, for the places that the template leaves open.
        settings: ``key=value`` changes of the template, whose privacy floor is strict.

    Raises:
        ConfigError: a setting is unknown or out of range.
        KitError: the kit is not understood; see ``harden``.
    """
    values = assigned({**site_config_template(kit), **places}, settings)
    SiteConfig.from_dict(values)
    write_json(kit / SITE_CONFIG_PLACE, values, mode=0o600)
    return harden(kit, kit / SITE_CONFIG_PLACE)
