"""The contributions of a round on disk, in a file without a name that vanishes with the process."""

import tempfile
from collections.abc import Mapping

import numpy as np

from med_duallora.boundary.contract import TensorSpec


class Spool:
    """Keeps tensors of the same names, shapes and types; the memory is that of one contribution.

    Args:
        specs: of every tensor, by name.
    """

    def __init__(self, specs: Mapping[str, TensorSpec]) -> None:
        self._specs = specs
        self._bytes = sum(spec.n_elements * np.dtype(spec.dtype).itemsize for spec in specs.values())
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the round; no name, so nothing is left

    def write(self, place: int, tensors: Mapping[str, np.ndarray]) -> None:
        """Keep a contribution at a place, counted from 0 (OSError: no room)."""
        self._file.seek(place * self._bytes)
        for name in self._specs:
            self._file.write(tensors[name].tobytes())
        self._file.flush()

    def read(self, place: int) -> dict[str, np.ndarray]:
        """Return what was kept at a place."""
        self._file.seek(place * self._bytes)
        tensors = {}
        for name, spec in self._specs.items():
            dtype = np.dtype(spec.dtype)
            data = self._file.read(spec.n_elements * dtype.itemsize)
            tensors[name] = np.frombuffer(data, dtype=dtype).reshape(spec.shape)
        return tensors
