"""Reading a safetensors file that is open already, so that nobody can put another one in its place meanwhile."""

from typing import Any, BinaryIO

from safetensors import safe_open


def read_tensors(stream: BinaryIO, framework: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the facts and the tensors of an open file.

    Args:
        stream: of the file.
        framework: ``pt`` for torch tensors, which lie in the file's own pages, or ``numpy`` for arrays, as copies.

    Raises:
        OSError: it cannot be read.
        SafetensorError: it is damaged.
    """
    with safe_open(f"/dev/fd/{stream.fileno()}", framework=framework) as opened:
        facts = dict(opened.metadata() or {})
        return facts, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
