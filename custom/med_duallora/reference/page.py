"""docs/settings.md: every setting with its type, default, limits and meaning, and how to choose the important ones."""

import re
from collections.abc import Iterable

from med_duallora.reference import guidance
from med_duallora.reference.entries import Scope, Setting, settings_of
from med_duallora.settings.config import LoRAConfig

PATH = "docs/settings.md"
WIDTH = 120


def page(scopes: Iterable[Scope]) -> str:
    """Return the page as Markdown."""
    parts = [
        "# Settings",
        _wrapped(
            "This page is made from the code by `med-duallora config check --write`; do not edit it. The same on a "
            "terminal: `med-duallora config show`, `med-duallora config explain train.n_rounds`. A value is written as "
            'JSON or as plain text, a list as JSON: `--set lora.targets=\'["q","kv","fc1"]\'`. An unknown name or a '
            "value out of its limits is refused before anything starts."
        ),
        *(_section(scope) for scope in scopes),
        *_choosing(),
    ]
    return "\n\n".join(parts) + "\n"


def _section(scope: Scope) -> str:
    groups: dict[str, list[Setting]] = {}
    for setting in settings_of(scope):
        groups.setdefault(setting.key.rpartition(".")[0], []).append(setting)
    text = f"## {scope.title}\n\n{_wrapped(f'{scope.summary} On the command line: `{scope.option} KEY=VALUE`.')}"
    for group, settings in groups.items():
        title = "" if f"{group}." == scope.prefix or not group else f"\n\n### `{group}`"
        rows = [[f"`{s.key}`", s.kind, f"`{s.default}`", s.limit, _markdown(s.meaning)] for s in settings]
        text += f"{title}\n\n{table([['setting', 'type', 'default', 'limits', 'meaning'], *rows])}"
    return text


def _choosing() -> list[str]:
    lora = LoRAConfig()
    about = (
        f"The tensors of the global adapter, for the default {lora.n_blocks} blocks and targets "
        f"{', '.join(lora.targets)}; the payload is a little larger. The local adapter of the same rank has the same "
        "size and never leaves."
    )
    return [
        "## How to choose",
        f"### Method and rule of aggregation\n\n{_wrapped(guidance.METHOD)}\n\n{_wrapped(guidance.PEERS)}\n\n"
        f"{table(guidance.method_table())}\n\n{_wrapped(guidance.FULL)}\n\n{_wrapped(guidance.AGGREGATION)}\n\n"
        f"{_wrapped(guidance.EXACTNESS)}",
        f"### Rank and scale\n\n{_wrapped(guidance.RANK)}\n\n{_wrapped(about)}\n\n{table(guidance.rank_table())}\n\n"
        f"{_wrapped(guidance.PART_OF_THE_RANK)}",
        f"### Rounds\n\n{_wrapped(guidance.ROUNDS)}",
        f"### GPU, memory and disk\n\n{_wrapped(guidance.COMPUTE)}\n\n{table(guidance.memory_table())}",
        f"### Backbone weights\n\n{_wrapped(guidance.WEIGHTS)}",
        "Research software, not for diagnosis.",
    ]


def table(rows: list[list[str]]) -> str:
    """Return rows, the first of them the header, as a Markdown table."""
    head, *body = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows)
    return "\n".join([f"| {head} |", f"|{'---|' * len(rows[0])}", *(f"| {row} |" for row in body)])


def _markdown(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text)


def _wrapped(text: str) -> str:
    """Return a paragraph in lines; code is not broken."""
    lines = [""]
    for word in re.findall(r"[^\s`]*`[^`]*`[^\s`]*|\S+", text):
        if len(lines[-1]) + len(word) >= WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
