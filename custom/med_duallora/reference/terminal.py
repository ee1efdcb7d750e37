"""The settings as lines for a terminal."""

import re
import textwrap
from collections.abc import Iterable, Mapping

from med_duallora.reference.entries import Scope, Setting, settings_of
from med_duallora.reference.guidance import BY_KEY

WIDTH = 100
COLUMN = 30


def listed(scopes: Iterable[Scope], values: Mapping[str, str] | None = None) -> list[str]:
    """Return all settings of some scopes.

    Args:
        scopes: which.
        values: of one job, key -> JSON text, shown instead of the defaults; those that differ are marked.
    """
    lines: list[str] = []
    for scope in scopes:
        lines += [
            *([""] if lines else []),
            f"{scope.title} ({scope.option} KEY=VALUE)",
            *_wrapped(_plain(scope.summary), "  "),
        ]
        for setting in settings_of(scope):
            lines += ["", *_short(setting, (values or {}).get(setting.key, setting.default))]
    return lines


def explained(setting: Setting) -> list[str]:
    """Return everything about one setting."""
    facts = {
        "type": setting.kind,
        "default": setting.default,
        "limits": setting.limit or "any value of this type",
        "set it with": setting.example,
    }
    lines = [
        f"{setting.key} ({setting.scope.title.lower().removesuffix('s')})",
        *_wrapped(_plain(setting.meaning), "  "),
    ]
    lines.append("")
    for name, text in facts.items():
        lines += _wrapped(text, " " * 15, f"  {name + ':':<13}") if len(text) > WIDTH else [f"  {name + ':':<13}{text}"]
    if setting.key in BY_KEY:
        lines += ["", *_wrapped(_plain(BY_KEY[setting.key]), "  ")]
    return lines


def _short(setting: Setting, value: str) -> list[str]:
    mark = f"  (default: {setting.default})" if value != setting.default else ""
    limit = f"  [{setting.limit}]" if setting.limit else ""
    return [f"  {setting.key:<{COLUMN}} {value}{mark}{limit}", *_wrapped(_plain(setting.meaning), "      ")]


def _plain(text: str) -> str:
    """Return text without marks of code and links."""
    return re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r"\1 (\2)", text.replace("`", ""))


def _wrapped(text: str, indent: str, first: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
