"""The prepared cohorts below a folder, one per site, and the names that sites can have."""

from pathlib import Path

from med_duallora.cohorts.prepared import COHORT_TABLE
from med_duallora.cohorts.site_names import check_site_name
from med_duallora.errors import ConfigError


def find_sites(data: Path, chosen: list[str] | None = None) -> dict[str, Path]:
    """Return the prepared cohorts below ``data`` by site, in alphabetical order or in the order of ``chosen``.

    Raises:
        ConfigError: there are none, a chosen site has none or is named twice, or a name cannot be a site's.
    """
    folders = [path.parent for path in sorted(data.glob(f"*/{COHORT_TABLE}"))]
    found = {folder.name: folder.resolve() for folder in folders if not folder.name.startswith(".")}
    if not found:
        raise ConfigError(_why_none(data))
    names = [name.strip() for name in chosen] if chosen else list(found)
    for name in names:
        if name not in found:
            raise ConfigError(f"there is no prepared cohort {data / name}; there are {', '.join(found)}")
        check_site_name(name)
        if names.count(name) > 1:
            raise ConfigError(f"site {name} is named twice")
    return {name: found[name] for name in names}


def _why_none(data: Path) -> str:
    """Return why a folder holds no cohorts of sites: most often it is one level too deep or too high."""
    if data.is_file():
        return f"--data {data} is a file; give the folder that holds a prepared cohort per site"
    if not data.is_dir():
        return f"no prepared cohort below {data}: there is no such folder; `med-duallora prepare --out {data}` makes it"
    if (data / COHORT_TABLE).is_file():
        parent = data.resolve().parent
        return f"--data {data} is itself a prepared cohort, of one site; give the folder that holds it: --data {parent}"
    deeper = sorted({path.parents[1] for path in data.glob(f"*/*/{COHORT_TABLE}")})
    hint = f"--data {deeper[0]} has some" if deeper else f"`med-duallora prepare --out {data}` writes them"
    return f"no prepared cohort below {data}; {hint}"
