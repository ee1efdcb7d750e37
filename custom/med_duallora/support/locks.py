"""One process at a time: a lock on a file or folder, which the system takes away however its holder ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from med_duallora.support.private import PRIVATE_FILE, own_descriptor


@contextmanager
def locked(place: Path, busy: Exception | None = None) -> Iterator[None]:
    """Hold a file or a folder for this process inside the block.

    Args:
        place: a folder that is there, or a file, which is made where there is none and is its owner's only.
        busy: raised where another process holds it; None: wait until that lets go of it.

    Raises:
        OSError: it cannot be opened, lies on a file system without locks, or is a link to a file.
    """
    descriptor = os.open(place, os.O_RDONLY) if place.is_dir() else _lock_file(place)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            if busy is None:
                raise
            raise busy from None
        yield
    finally:
        os.close(descriptor)


def _lock_file(place: Path) -> int:
    descriptor = own_descriptor(place, os.O_RDWR | os.O_CREAT)
    if os.fstat(descriptor).st_uid == os.geteuid():
        os.fchmod(descriptor, PRIVATE_FILE)  # one that others can open, they can hold without end
    return descriptor
