"""Literal job configurations: what was signed is what is built, and nothing of a site is read into it.

FLARE takes a job's configuration for a program: it resolves references such as ``{WORKSPACE}`` or ``{$HOME}`` in every
text, and reads formats that include files and addresses. Here only plain JSON counts, in the one place where FLARE
looks for it.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from med_duallora.errors import ConfigError
from med_duallora.support.files import canonical_json, parsed_json

CONFIG_FOLDER = "config"
CODE_FOLDER = "custom"
"""Code in a job: the right ``byoc``, which nobody has at a closed site, decides on this folder."""
CONFIGS = frozenset({"config_fed_client.json", "config_fed_server.json"})
MANIFEST = "resume_from.json"
CARRIED = frozenset({"resume_from.safetensors", MANIFEST})
"""The adapter that a resumed job brings, with its manifest."""
SIGNATURES = frozenset({".__nvfl_sig.json", ".__nvfl_submitter.crt"})
REFERENCES = frozenset("{}$")
"""What makes a reference of a text in FLARE, or lets its formatting change the text."""
DO = "export the job again with `med-duallora jobs export`, which writes literal values only"


def check_app(app: Path) -> None:
    """Refuse the folder of a deployed job that holds anything but literal configurations and a carried adapter.

    FLARE looks for its own settings in every folder of a job, by name and in eight formats, so a list of names that are
    allowed is the only one that is complete.

    Args:
        app: folder of the job's app; holds ``config``.

    Raises:
        ConfigError: names the first file that is too much, or where a configuration is not literal.
    """
    for path in (path for top in sorted(app.iterdir()) if not _is_code(top) for path in _files(top)):
        inside = path.relative_to(app).as_posix()
        if path.is_symlink() or not path.is_file():
            raise ConfigError(f"the job's app holds {_said(inside)}, which is a link or no file: {DO}")
        if not _is_expected(path.relative_to(app)):
            raise ConfigError(f"the job's app holds {_said(inside)}, which is none of the files of a job: {DO}")
        if path.name in CONFIGS or path.name == MANIFEST:
            read_literal(path)


def _is_code(top: Path) -> bool:
    return top.name == CODE_FOLDER and top.is_dir() and not top.is_symlink()


def _files(path: Path) -> Iterator[Path]:
    """Give a file, or everything below a folder that is no folder itself, without following a link."""
    if path.is_symlink() or not path.is_dir():
        yield path
        return
    for inner in sorted(path.iterdir()):
        yield from _files(inner)


def _is_expected(inside: Path) -> bool:
    folder, name = inside.parent.as_posix(), inside.name
    if name in SIGNATURES:
        return folder in (".", CONFIG_FOLDER)
    return folder == CONFIG_FOLDER and name in CONFIGS | CARRIED


def read_literal(path: Path) -> dict[str, Any]:
    """Return a job's configuration, as it was signed.

    Raises:
        ConfigError: it is not UTF-8 or not JSON, has a key twice, a number that is not finite, or a text that FLARE
            would take for a reference; says where in the file, never what stands there.
    """
    if path.is_symlink() or path.suffix != ".json":
        raise ConfigError(f"{_said(path.name)} is a link, or not a .json file: {DO}")
    try:
        text = path.read_bytes().decode("utf-8")
        values = parsed_json(text, _once)
    except OSError as error:
        raise ConfigError(f"{_said(path.name)} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{_said(path.name)} is not UTF-8: {DO}") from error
    except ValueError as error:
        raise ConfigError(f"{_said(path.name)} is not literal JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{_said(path.name)} holds a {type(values).__name__}, not one JSON object: {DO}")
    if where := next(_references(values, ""), ""):
        raise ConfigError(f"{_said(path.name)} is not literal: {where[:200]}: {DO}")
    return values


def check_same(literal: dict[str, Any], built: object, what: str) -> None:
    """Refuse what was built from a configuration unless it is the configuration, to the last byte of canonical JSON.

    Raises:
        ConfigError: it is another one.
    """
    try:
        same = canonical_json(built) == canonical_json(literal)
    except (TypeError, ValueError, RecursionError):
        same = False
    if not same:
        raise ConfigError(f"{what} is not what was signed: {DO}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands there twice, so two readers may see two values")
    return values


def _references(value: Any, where: str) -> Iterator[str]:
    """Give what is not literal in a JSON value, as words for a person."""
    if isinstance(value, dict):
        for index, (key, item) in enumerate(value.items()):
            if REFERENCES & set(key) or key.startswith("@"):
                yield f"key {index + 1} of {where or 'the whole'} is a reference ({{, }}, $ or a leading @)"
            else:
                yield from _references(item, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _references(item, f"{where}[{index}]")
    elif isinstance(value, str) and REFERENCES & set(value):
        yield f"{where} is a text with a reference ({{, }} or $)"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where} is a number that is not finite"


def _said(name: str) -> str:
    """Return a name that somebody else chose, as a message may quote it."""
    return repr(name[:80])
