"""A NIfTI file as a stream: nothing is held but what was asked for, and a bomb is left before it bursts."""

import gzip
import hashlib
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from nibabel.volumeutils import apply_read_scaling

from med_duallora.cohorts.nifti_header import NIFTI_1, Header, header_size, parse_header
from med_duallora.errors import SubjectRefused
from med_duallora.support.files import open_regular

Array = np.ndarray[Any, np.dtype[Any]]

GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 2**20
# What may follow the promised voxels; some programs pad their files.
SLACK = 2**20
MAX_HELD_BYTES = 2**30


def open_file(path: Path) -> BinaryIO:
    """Open a regular file; SubjectRefused ``missing-file`` or ``unreadable-file``.

    Anything else by that name is refused unopened: a pipe would be waited for without end.
    """
    try:
        return open_regular(path)
    except FileNotFoundError as error:
        raise SubjectRefused("missing-file", f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise SubjectRefused("unreadable-file", f"{path}: {getattr(error, 'strerror', None) or error}") from error


def read_frames(path: Path, wanted: Collection[int] | None) -> tuple[Header, Array, str]:
    """Read a .nii or .nii.gz file to its end in one pass; compression is recognised by content, not by name.

    To its end even where only a frame is wanted: a compressed stream proves its integrity only there.

    Args:
        path: the file.
        wanted: frames of a 4-D file to keep; None for all.

    Returns:
        Its header; voxels (X, Y, Z) of a 3-D file or (X, Y, Z, kept frames, ascending) of a 4-D one, float where
        the header rescales intensities; SHA-256 of the file's bytes.

    Raises:
        SubjectRefused: as ``open_file`` and ``parse_header``, ``unreadable-file`` (truncated or damaged),
            ``frame-out-of-range``, ``too-large`` (more behind the header than it promises, or more wanted at once
            than is held in memory).
    """
    with open_file(path) as file:
        hashing = _Hashing(file)
        compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        stream: Any = gzip.GzipFile(fileobj=cast(BinaryIO, hashing)) if compressed else hashing
        try:
            header = parse_header(_header_block(stream))
            data = _voxels(stream, header, wanted)
            _end(stream)
        except SubjectRefused as refused:
            raise SubjectRefused(refused.reason, f"{path}: {refused.detail}") from refused
        except (EOFError, OSError, zlib.error) as error:
            raise SubjectRefused("unreadable-file", f"{path} is truncated or damaged: {error}") from error
        return header, data, hashing.digest.hexdigest()


class _Hashing:
    """Passes a file's bytes on, in order, and hashes them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.digest.update(content)
        return content


def _header_block(stream: Any) -> bytes:
    start = stream.read(NIFTI_1[0])
    if not start:
        raise SubjectRefused("unreadable-file", "the file is empty")
    size = header_size(start) if len(start) == NIFTI_1[0] else None
    if size is None:
        raise SubjectRefused("unreadable-file", "not a NIfTI image (.nii or .nii.gz)")
    return bytes(start + _exactly(stream, size - len(start)))


def _voxels(stream: Any, header: Header, wanted: Collection[int] | None) -> Array:
    frames = range(header.n_frames) if wanted is None or not header.four_dimensional else sorted(set(wanted))
    absent = [frame for frame in frames if not 0 <= frame < header.n_frames]
    if absent:
        detail = f"it has frames 0 to {header.n_frames - 1}; frame {absent[0]} was asked for"
        raise SubjectRefused("frame-out-of-range", detail)
    item = 8 if header.scale else header.dtype.itemsize
    if len(frames) * (header.frame_bytes // header.dtype.itemsize) * item > MAX_HELD_BYTES:
        raise SubjectRefused("too-large", f"{len(frames)} frames at once need more than {MAX_HELD_BYTES:,} bytes")
    _skip(stream, header.offset - len(header.fields.binaryblock))
    kept: Array | None = None
    for frame in range(header.n_frames):
        if frame not in frames:
            _skip(stream, header.frame_bytes)
            continue
        stack = _frame(stream, header)
        if not header.four_dimensional:
            return stack
        if kept is None:
            kept = np.empty((*header.shape, len(frames)), stack.dtype, order="F")
        kept[..., frames.index(frame)] = stack
    return np.empty((*header.shape, 0)) if kept is None else kept


def _frame(stream: Any, header: Header) -> Array:
    stored = np.frombuffer(_exactly(stream, header.frame_bytes), header.dtype)
    stack: Array = stored.reshape(header.shape, order="F")
    if header.scale is None:
        return stack
    with np.errstate(all="ignore"):  # infinities are refused later, by name
        scaled: Array = apply_read_scaling(stack, *header.scale)
    return scaled


def _exactly(stream: Any, size: int) -> bytes:
    content: bytes = stream.read(size)
    if len(content) != size:
        raise EOFError(f"{size - len(content):,} bytes are missing at its end")
    return content


def _skip(stream: Any, size: int) -> None:
    while size > 0:
        size -= len(_exactly(stream, min(size, CHUNK)))


def _end(stream: Any) -> None:
    """Read to the end, where a compressed stream proves its integrity."""
    behind = 0
    while chunk := stream.read(CHUNK):
        behind += len(chunk)
        if behind > SLACK:
            raise SubjectRefused("too-large", "the file holds far more than its header promises")


def files_sha256(paths: Collection[Path]) -> tuple[str, dict[Path, str]]:
    """Return the SHA-256 over the bytes of all files, one after the other, and that of each.

    Raises:
        SubjectRefused: as ``open_file``.
    """
    whole, single = hashlib.sha256(), {}
    for path in paths:
        digest = hashlib.sha256()
        try:
            with open_file(path) as file:
                while chunk := file.read(CHUNK):
                    whole.update(chunk)
                    digest.update(chunk)
        except OSError as error:
            raise SubjectRefused("unreadable-file", f"{path}: {error.strerror or error}") from error
        single[path] = digest.hexdigest()
    return whole.hexdigest(), single
