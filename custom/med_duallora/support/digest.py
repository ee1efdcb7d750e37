"""The digest of tensors and facts that site and server compute independently."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from med_duallora.support.files import canonical_json


def content_digest(tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a payload's content: names, dtypes, shapes and bytes of the tensors, and ``facts`` as JSON.

    Site and server compute it independently, so equal digests mean equal content, whatever the transport did.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        digest.update(canonical_json([name, str(value.dtype), list(value.shape)]).encode() + b"\n")
        digest.update(value.tobytes())
    digest.update(canonical_json(dict(facts)).encode())
    return digest.hexdigest()
