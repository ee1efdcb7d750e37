"""Files that are whole or absent: atomic writes, JSON that cannot harm its reader, and content hashes."""

import codecs
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

from med_duallora.support.private import OTHERS, PRIVATE_FILE, private_folder

MAX_JSON_DEPTH = 64
"""Lists and objects inside each other that a JSON text may hold; what this package and FLARE write has less than 20."""
MAX_JSON_BYTES = 2**28
"""What a JSON file may hold; the longest, a run's settings and scores, have a few megabytes."""
PARTIAL = ".partial-"
"""What the name of a file or folder begins with until it is whole."""
FULL = "make room there, or choose another place"
CLOSED = "choose another place, or have it opened for this account"
ADVICE = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: "files of this size are not allowed here (see `ulimit -f`); choose another place",
    errno.EROFS: CLOSED,
    errno.EACCES: CLOSED,
    errno.EPERM: CLOSED,
    errno.EEXIST: "something else is there; choose another place",
    errno.ENOTDIR: "a part of this path is a file; choose another place",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
}
"""What to do about what an operating system says of a place."""


@contextmanager
def atomic_path(target: Path, mode: int | None = None, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path beside ``target`` that replaces it when the block ends without error.

    A failed block leaves ``target`` as it was and no temporary file. Where ``target`` is a link, the link is replaced
    and what it led to stays as it is.
    The temporary name keeps the target's suffixes, because writers such as nibabel choose by suffix.

    Args:
        target: the file; its missing folders are made, for their owner only where the file is.
        mode: of the file, whatever the umask; 0600 for everything that is of patients. None: as the umask says.
        durable: wait until the disk has the content, so that a machine that fails leaves no empty file. Without, the
            file must be one whose reader finds that out and which can be made again.

    Raises:
        OSError: the place cannot be written, or is full; names ``target``, whatever the writer said.
    """
    with named(target):
        if mode is None or mode & OTHERS:
            target.parent.mkdir(parents=True, exist_ok=True)
        else:
            private_folder(target.parent)
        partial = target.with_name(f"{PARTIAL}{uuid.uuid4().hex[:8]}-{target.name}")
        try:
            _create(partial, mode)
            yield partial
            if mode is not None:
                partial.chmod(mode)
            if durable:
                with partial.open("rb") as written:
                    os.fsync(written.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _create(partial: Path, mode: int | None) -> None:
    """Make an empty file, which nobody else can read before its mode is set."""
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else PRIVATE_FILE)
    try:
        if mode is not None:
            os.fchmod(descriptor, PRIVATE_FILE)  # an umask can take rights from the owner as well
    finally:
        os.close(descriptor)


@contextmanager
def named(target: Path) -> Iterator[None]:
    """Let errors of the place name what was to be written: a write to a full disk names nothing at all.

    Args:
        target: the file or folder; it also stands for everything in it whose path holds ``PARTIAL``.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or PARTIAL in str(error.filename)):
            raise OSError(error.errno, os.strerror(error.errno), str(target)) from error
        raise
    except SafetensorError as error:  # its writer tells the number of the system's error in a text
        code = re.search(r"\b(?:os error|code:) (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(target)) from error


def sentence(error: OSError) -> str:
    """Return what an operating system refused as one sentence: the place, the reason, and what to do."""
    if isinstance(error, shutil.Error):  # of copytree, which goes on after an error and lists all of them
        _, place, reason = error.args[0][0]
        return f"{place}: {str(reason).partition('] ')[2].partition(': ')[0] or reason}"
    place = error.filename if error.filename is not None else "a file or the output"
    advice = ADVICE.get(error.errno or 0, "")
    return f"{place}: {error.strerror or error}" + (f"; {advice}" if advice else "")


def write_text(target: Path, text: str, mode: int | None = None) -> None:
    """Write UTF-8 text atomically; a file's name in it that is not a text, as Linux allows, is written in escapes."""
    with atomic_path(target, mode) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(target: Path, value: Any, mode: int | None = None) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity are refused (ValueError)."""
    write_text(target, json.dumps(value, indent=2, allow_nan=False) + "\n", mode)


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read, if it has a content of its own.

    Raises:
        OSError: there is none, it cannot be read, or it is a pipe or device: a pipe would be waited for without end,
            and a device read without end.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder the operating system says what it is
        raise OSError(errno.EINVAL, "it is a pipe or device; give a file", str(path))
    return path.open("rb")


def read_object(
    path: Path, opened: Callable[[Path], BinaryIO] = open_regular, *, unique: bool = False
) -> dict[str, Any]:
    """Return the JSON object in a file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        opened: opens it; ``open_own`` for what this program writes for itself.
        unique: see ``parsed_object``.

    Raises:
        OSError: see ``opened``.
        ValueError: as ``parsed_object``; or it is larger than ``MAX_JSON_BYTES``.
    """
    with opened(path) as stream:
        content = stream.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"it is larger than {MAX_JSON_BYTES >> 20} MiB")
    return parsed_object(content.removeprefix(codecs.BOM_UTF8), unique)


def parsed_object(text: str | bytes, unique: bool = False) -> dict[str, Any]:
    """Return the JSON object of a text.

    Args:
        text: what is read.
        unique: whether a key that stands twice in one object is an error; else the later one counts.

    Raises:
        ValueError: it is not JSON, see ``parsed_json``, or another value than an object, or a key stands twice; ends a
            sentence on the file.
    """
    repeated: list[str] = []

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated.extend(name for name in set(names) if names.count(name) > 1)
        return dict(pairs)

    try:
        value = parsed_json(text.decode() if isinstance(text, bytes) else text, noted if unique else None)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    if repeated:
        raise ValueError(f"the key {min(repeated)!r} stands twice in one object")
    if not isinstance(value, dict):
        raise ValueError(f"it must hold one JSON object, not {type(value).__name__}")
    return value


def parsed_json(text: str | bytes, objects: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return the value of a JSON text.

    Args:
        text: what is read.
        objects: makes an object of its keys and values in their order, where a key may stand twice; None: a dict, in
            which the later one counts.

    Raises:
        ValueError: it is not JSON, or has more than ``MAX_JSON_DEPTH`` lists and objects inside each other, which
            Python's parser, copying and writing answer with a RecursionError.
    """
    try:
        value = json.loads(text, object_pairs_hook=objects)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [value]
    for _ in range(MAX_JSON_DEPTH + 1):
        level = [child for item in level for child in _children(item)]
        if not level:
            return value
    raise ValueError(_TOO_DEEP)


_TOO_DEEP = f"more than {MAX_JSON_DEPTH} lists and objects lie inside each other"


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value`` that is hashed: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_of_json(value: Any) -> str:
    """Return the SHA-256 of ``canonical_json(value)``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
