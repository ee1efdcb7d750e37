"""A path of a run's workspace, and of this Python, that FLARE's simulator passes on whole to the sites' processes.

See ``site_kit.passable`` for what it loses. Where a path holds such a character, a symbolic link with a plain name in
a folder for temporary files leads there while the simulator runs.
"""

import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from med_duallora.errors import InputError
from med_duallora.site_kit.passable import check_passable, not_passed_on

OTHER_PLACES = ("/tmp", "/var/tmp")  # noqa: S108 - for a link with a new random name, never for a file


@dataclass(frozen=True)
class Detour:
    """How the simulator reaches things.

    Args:
        workspace: the workspace, or a link to it.
        python: the interpreter, or the same through a link to its environment.
        links: what was linked: link -> place.
    """

    workspace: Path
    python: Path = Path(sys.executable)
    links: dict[Path, Path] = field(default_factory=dict)


@contextmanager
def detour(workspace: Path) -> Iterator[Detour]:
    """Give paths that are passed on, inside the block; links are removed at its end.

    Raises:
        InputError: there is no place for a link, or the interpreter lies outside its environment.
        OSError: a link cannot be made.
    """
    links: dict[Path, Path] = {}
    python, environment = Path(sys.executable), Path(sys.prefix)
    with ExitStack() as stack:
        if not_passed_on(workspace):
            links[stack.enter_context(_linked(workspace))] = workspace
        reached = Detour(next(iter(links), workspace), python, links)
        if not_passed_on(python):
            if environment not in python.parents:
                check_passable(python, "the Python that runs this,")
            link = stack.enter_context(_linked(environment))
            links[link] = environment
            reached = Detour(reached.workspace, link / python.relative_to(environment), links)
        yield reached


@contextmanager
def _linked(place: Path) -> Iterator[Path]:
    link = _folder_for_links() / f"med-duallora-{uuid.uuid4().hex[:12]}"
    link.symlink_to(place, target_is_directory=True)
    try:
        yield link
    finally:
        link.unlink(missing_ok=True)


def _folder_for_links() -> Path:
    for name in (tempfile.gettempdir(), *OTHER_PLACES):
        folder = Path(name).absolute()
        if folder.is_dir() and not not_passed_on(folder):
            return folder
    raise InputError("there is no folder for temporary files with a plain name; set TMPDIR to one")
