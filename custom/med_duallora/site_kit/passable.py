"""Which paths FLARE 2.9 passes on to the processes that it starts: it joins command lines and splits them again.

Its simulator and its job launcher write a command line as one text without quotes, which ``shlex.split`` then takes
apart: blanks separate, quotes and backslashes vanish, and what follows a ``#`` is a comment. Its console's script
leaves ``$DIR`` to the shell, which splits at blanks and expands ``*``, ``?`` and ``[``. A colon ends an entry of
``PYTHONPATH``, and braces are filled in where FLARE or this package reads ``{site}``.
"""

import re
import sys
from pathlib import Path

from med_duallora.errors import InputError

NOT_PASSED_ON = re.compile(r"""[\s"'\\#:*?\[\]{}\x00-\x1f\x7f\ud800-\udfff]""")
NAMES = {" ": "a blank", "\t": "a tab", "\n": "a line break"}


def not_passed_on(path: Path) -> str:
    """Return the first character of a path that FLARE does not pass on, as a reader sees it; empty: it passes all."""
    found = NOT_PASSED_ON.search(str(path))
    return NAMES.get(found[0], ascii(found[0])) if found else ""


def check_passable(path: Path, what: str) -> None:
    """Refuse a place whose path FLARE would not pass on.

    Args:
        path: absolute.
        what: what lies there, for the message, such as ``"--dir"``.

    Raises:
        InputError: names the place, the character and what to do.
    """
    character = not_passed_on(path)
    if character:
        raise InputError(
            f"{what} {str(path)!r} has {character} in it, which FLARE does not pass on to the processes that it "
            "starts; choose a place whose whole path is made of letters, digits and / . - _"
        )


def check_python() -> None:
    """Refuse to start processes that live longer than this one where this Python's own path is not passed on.

    Raises:
        InputError: see ``check_passable``.
    """
    check_passable(Path(sys.executable), "the Python that runs this,")
