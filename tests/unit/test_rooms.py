"""The architecture as a table: which room of the package may import which; docs/architecture.md draws it."""

import ast
from functools import cache
from pathlib import Path

import pytest

import med_duallora.flare

PACKAGE = Path(med_duallora.__file__).parent
NAME = PACKAGE.name
MODULES = sorted(PACKAGE.rglob("*.py"))
ARROWS = {
    "__init__": "",
    "errors": "",
    "measures": "",
    "support": "errors",
    "settings": "errors measures support",
    "cli": "__init__ errors support",
    "backbone": "errors settings support",
    "cohorts": "__init__ errors settings support",
    "pretraining": "__init__ errors support backbone cohorts",
    "adapter": "errors settings support backbone",
    "boundary": "errors measures settings support adapter",
    "site": "__init__ errors measures settings support backbone cohorts adapter boundary",
    "inference": "__init__ errors measures settings support backbone cohorts boundary site",
    "server": "__init__ errors measures settings support backbone adapter boundary",
    "site_kit": "__init__ errors settings support backbone cohorts adapter boundary site",
    "reference": "errors settings backbone adapter boundary",
    "report": "errors measures settings support backbone cohorts adapter server site inference",
    "export": "__init__ errors measures settings support backbone cohorts adapter boundary site inference server "
    "report",
    "campaign": "errors support server",
    "engine": "errors settings support adapter boundary site server",
    "flare.wire": "errors measures settings support boundary",
    "flare.site": "errors measures settings support boundary site site_kit flare.wire",
    "flare.server": "errors measures settings support adapter boundary server flare.wire",
    "flare.jobs": "__init__ errors measures settings support adapter server site_kit flare.wire flare.site "
    "flare.server",
    "flare.local": "__init__ errors measures settings support cohorts site server site_kit flare.jobs",
    "flare.campaign": "errors support campaign server flare.wire flare.jobs flare.local",
    "study": "__init__ errors settings support backbone cohorts adapter boundary site report engine flare.wire",
    "commands": "__init__ cli errors settings support backbone cohorts pretraining boundary site server site_kit "
    "inference reference report export campaign flare.jobs flare.local flare.campaign study",
    "__main__": "cli",
}
"""Every room, from the ground up, with the rooms that it may import: only such as stand above it in this table."""
IN_FLARE = "flare."


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """Return the room of a module of the package; FLARE's roles are rooms of their own."""
    parts = module.split(".")
    return ".".join(parts[: 2 if module.startswith(IN_FLARE) else 1])


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the modules that a module imports anywhere, also inside functions; ours without the package's name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


KNOWN = {module_of(path) for path in MODULES}


def own(name: str) -> str | None:
    """Return our module behind an imported name, or None where it is somebody else's."""
    parts = name.split(".")
    if parts[0] != NAME:
        return None
    inner = parts[1:]
    while inner and ".".join(inner) not in KNOWN:
        inner = inner[:-1]
    return ".".join(inner) or "__init__"


def arrows() -> dict[tuple[str, str], list[str]]:
    """Return every arrow between two rooms with the modules that make it."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in MODULES:
        here = room_of(module_of(path))
        for there in {room_of(module) for name in imports(path) if (module := own(name))} - {here}:
            found.setdefault((here, there), []).append(module_of(path))
    return found


def test_every_room_is_in_the_table() -> None:
    assert {room_of(module_of(path)) for path in MODULES} - {"flare"} == set(ARROWS)


def test_rooms_import_what_the_table_allows_and_nothing_else() -> None:
    allowed = {(room, other) for room, others in ARROWS.items() for other in others.split()}
    found = arrows()
    assert {arrow: modules for arrow, modules in found.items() if arrow not in allowed} == {}
    assert allowed - set(found) == set(), "an arrow that nobody uses any more"


@pytest.mark.parametrize("room", ARROWS)
def test_no_arrow_runs_upwards_or_in_a_circle(room: str) -> None:
    order = list(ARROWS)
    assert set(ARROWS[room].split()) <= set(order[: order.index(room)])


def test_only_flare_imports_nvflare() -> None:
    users = {
        room_of(module_of(path)) for path in MODULES if any(name.split(".")[0] == "nvflare" for name in imports(path))
    }
    assert users == {room for room in ARROWS if room.startswith(IN_FLARE)}


def test_flares_own_list_of_its_roles_is_whole() -> None:
    described = {line.split()[0].strip("/") for line in (med_duallora.flare.__doc__ or "").splitlines()[2:] if line}
    inside = {module.split(".")[2] for module in KNOWN if module.startswith(IN_FLARE) and module.count(".") > 1}
    rooms = {room.removeprefix(IN_FLARE) for room in ARROWS if room.startswith(IN_FLARE)}
    assert described == inside | rooms


def test_nothing_is_pickled() -> None:
    picklers = {"pickle", "dill", "cloudpickle", "joblib"}
    assert [module_of(path) for path in MODULES if picklers & _packages(path)] == []


def _packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def test_few_files_stand_in_the_packages_root() -> None:
    assert sorted(path.name for path in PACKAGE.glob("*.py")) == [
        "__init__.py",
        "__main__.py",
        "cli.py",
        "engine.py",
        "errors.py",
        "measures.py",
    ]


def test_no_file_is_long() -> None:
    assert [module_of(path) for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > 300] == []


def test_no_function_is_long() -> None:
    functions = {
        f"{module_of(path)}.{node.name}": _n_lines(node)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: n for name, n in functions.items() if n > 60} == {}


def _n_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without its docstring."""
    docstring = function.body[0] if ast.get_docstring(function) else None
    n_described = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - n_described
