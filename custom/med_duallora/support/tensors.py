"""Reading a safetensors file of this program's own: as a whole, and not through a link."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from med_duallora.support.files import parsed_object
from med_duallora.support.private import open_own

T = TypeVar("T")


def read_own_tensors(path: Path, load: Callable[[bytes], dict[str, T]]) -> tuple[dict[str, str], dict[str, T]]:
    """Return the facts and tensors of a file; they are copies, so that a later change of the file changes neither.

    Args:
        path: of the file.
        load: makes tensors of its bytes, as safetensors' own ``load`` for numpy or torch.

    Raises:
        OSError: see ``open_own``.
        SafetensorError: it is damaged.
    """
    with open_own(path) as stream:
        content = stream.read()
    tensors = load(content)  # looks at the header first: what follows relies on it
    length = int.from_bytes(content[:8], "little")
    facts = parsed_object(content[8 : 8 + length]).get("__metadata__", {})
    return {str(name): str(value) for name, value in facts.items()}, tensors
