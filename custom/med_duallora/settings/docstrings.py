"""What a setting means: read from the ``Args:`` section of its class, the one place where it is written."""

import inspect
import re

_ARGUMENT = re.compile(r"    (\w+): (.*)")


def described(cls: type) -> dict[str, str]:
    """Return field -> meaning, in one line each, as the class's docstring has it (Google style)."""
    lines = inspect.cleandoc(cls.__doc__ or "").splitlines()
    found: dict[str, str] = {}
    name = ""
    for line in lines[lines.index("Args:") + 1 :] if "Args:" in lines else ():
        if line and not line.startswith(" "):
            break  # the next section
        if match := _ARGUMENT.fullmatch(line):
            name = match[1]
            found[name] = match[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found
