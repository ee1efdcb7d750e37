"""Tensors of a reply as the bytes of their values; names stay, shape and dtype are the contract's.

FLARE spends 320 bytes on a numpy array beside its values, and lets the receiver fetch it with questions of its own.
"""

from collections.abc import Mapping

import numpy as np

from med_duallora.boundary.contract import EgressContract, TensorSpec
from med_duallora.errors import EgressViolation

MAX_PACKED = 2**20
"""Bytes; larger tensors stay arrays, for which FLARE's way of fetching them was made."""


def packed(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray | bytes]:
    """Return tensors with the small ones as bytes, little-endian and in C order."""
    return {name: value if value.nbytes > MAX_PACKED else _bytes_of(value) for name, value in tensors.items()}


def unpacked(contract: EgressContract, tensors: object) -> object:
    """Return tensors with what came as bytes as arrays of the contract; whatever else is there is not looked at.

    Raises:
        EgressViolation: a tensor's bytes are not as many as those of its values.
    """
    if type(tensors) is not dict:
        return tensors
    specs = contract.tensors
    return {
        name: _array_of(name, specs[name], value) if type(value) is bytes and name in specs else value
        for name, value in tensors.items()
    }


def _bytes_of(value: np.ndarray) -> bytes:
    return value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()


def _array_of(name: str, spec: TensorSpec, value: bytes) -> np.ndarray:
    dtype = np.dtype(spec.dtype)
    if len(value) != spec.n_elements * dtype.itemsize:
        expected = spec.n_elements * dtype.itemsize
        raise EgressViolation(f"tensor {name} comes as {len(value)} bytes, expected {expected}")
    return np.frombuffer(value, dtype.newbyteorder("<")).astype(dtype).reshape(spec.shape)
